"""The judge of chaos: its own SQL over the tables, the mail server's own log, and what people were told.

Each invariant is a query that finds what breaks it; an empty answer is the proof.
"""

import asyncio
import time
from collections.abc import Mapping
from pathlib import Path

from temporalio.client import Client

from chaos.kept import kept
from chaos.mail import mail
from chaos.told import Told
from cli.demo.general import GENERAL
from cli.demo.judge import Tables, Verdict, left_to_come
from cli.demo.judge import judge as ask

__all__ = ["INVARIANTS", "Tables", "Verdict", "judge", "left_to_come", "overdue", "workflows"]

INVARIANTS: Mapping[str, str] = GENERAL
"""What holds of every story, by SQL alone."""

_LIST_LAGS = 20.0
"""Real seconds until Temporal's list of workflows has surely caught up."""
_OVERDUE = """
    WITH "then" AS (
      SELECT clock_timestamp() - make_interval(secs => $1) AS real,
             business_now() - make_interval(secs => $1 * scale) AS business FROM clock
    ), idle AS (
      SELECT d.org_id, d.id FROM destinations d JOIN organizations o ON o.id = d.org_id
      WHERE d.paused_at IS NULL AND d.trouble IS NULL AND o.sending_stopped_at IS NULL
        AND NOT EXISTS (SELECT FROM intents i WHERE i.destination_id = d.id AND i.status = 'claimed')
        AND NOT EXISTS (SELECT FROM attempts t WHERE t.destination_id = d.id AND t.claimed_real
          > clock_timestamp() - make_interval(secs => greatest(1, coalesce((d.pace ->> 'spacing')::float8, 0))))
        AND NOT EXISTS (
          SELECT FROM (VALUES ('perMinute', interval '1 minute'), ('perHour', '1 hour'), ('perDay', '1 day')) AS c (cap,
            len) WHERE (SELECT count(*) FROM attempts t WHERE t.destination_id = d.id
                 AND t.claimed_real > clock_timestamp() - c.len) >= (d.pace ->> c.cap)::int)
    )
    SELECT (SELECT count(*) FROM outbox WHERE created_at <= real)
      + (SELECT count(*) FROM wakes WHERE created_at <= real)
      + (SELECT count(*) FROM executions WHERE status = 'open' AND held_since IS NULL AND due_at < business)
      + (SELECT count(*) FROM reminders WHERE due_at < business)
      + (SELECT count(*) FROM letters WHERE status = 'received' AND received_at <= business)
      + (SELECT count(*) FROM intents i JOIN idle ON idle.id = i.destination_id
         JOIN executions x ON x.id = i.execution_id JOIN definitions d ON d.id = x.definition_id
         WHERE i.status = 'pending' AND i.due_at < business AND d.status <> 'paused'
           AND (i.not_before IS NULL OR i.not_before < clock_timestamp())) FROM "then"
"""


async def judge(tables: Tables, log: Path, told: Told, temporal: tuple[str, str]) -> list[Verdict]:
    """Everything that is promised, once nothing is left to come; `temporal` is the server's address and namespace."""
    return [
        *await ask(tables, INVARIANTS),
        *await kept(tables, told),
        *await mail(tables, log, told),
        await workflows(tables, temporal),
    ]


async def overdue(tables: Tables, seconds: float = 0) -> int:
    """What was due so many real seconds ago and is not done, outside calls apart: nobody is waited for but ourselves.

    A message counts where its mailbox might send it: neither paused nor in trouble nor at its pace's limit, and
    not at another message.
    """
    found: int = await tables.value(_OVERDUE, seconds)
    return found


async def workflows(tables: Tables, temporal: tuple[str, str], *, patience: float = _LIST_LAGS) -> Verdict:
    """Every workflow that runs has a row that something is still to become of.

    A mailbox's lingers for a minute when it is empty. Temporal's list lags behind, so it is asked again for `patience`
    real seconds.
    """
    address, namespace = temporal
    client = await Client.connect(address, namespace=namespace)
    deadline = time.monotonic() + patience
    while True:
        rows = await tables.fetch(
            "SELECT kind || '-' || id AS workflow FROM executions WHERE due_at IS NOT NULL"
            " UNION ALL SELECT 'reminder-' || id FROM reminders WHERE due_at IS NOT NULL"
            " UNION ALL SELECT 'mailbox-' || id FROM destinations"
        )
        wanted = {row["workflow"] for row in rows}
        running = {each.id async for each in client.list_workflows("ExecutionStatus = 'Running'")}
        astray = sorted(running - wanted)
        if not astray or time.monotonic() > deadline:
            return Verdict("no workflow runs without a row that waits for it", [{"workflow": one} for one in astray])
        await asyncio.sleep(0.5)
