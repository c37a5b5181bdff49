"""The demo's judge: its own SQL over the tables, sharing no code with the engine.

Each invariant is a query that finds what breaks it; an empty answer is the proof.
"""

import asyncio
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import asyncpg

_PATIENCE = 60.0
_AWAY = (
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.InternalClientError,  # what the driver says of a connection that is cut while it is being made
)

INVARIANTS: Mapping[str, str] = {
    "every move into Proposal was decided exactly once": """
        SELECT e.id, count(x.id) + count(r.id) AS decisions FROM events e
        LEFT JOIN executions x ON x.event_id = e.id AND x.definition_id = :rule
        LEFT JOIN refusals r ON r.event_id = e.id AND r.definition_id = :rule
        WHERE e.type = 'deal.stage_changed' AND e.after ->> 'stage' = 'proposal'
        GROUP BY e.id HAVING count(x.id) + count(r.id) <> 1
    """,
    "nothing else started a run of that rule": """
        SELECT x.id FROM executions x JOIN events e ON e.id = x.event_id
        WHERE x.definition_id = :rule AND (e.type <> 'deal.stage_changed' OR e.after ->> 'stage' <> 'proposal')
    """,
    "every match was right: a run at or above the amount, a refusal below": """
        SELECT d.id FROM deals d JOIN executions x ON x.deal_id = d.id AND x.definition_id = :rule
        WHERE d.value_cents < :amount
        UNION ALL
        SELECT d.id FROM refusals r JOIN events e ON e.id = r.event_id
        JOIN deals d ON d.id = e.subject_id WHERE r.definition_id = :rule AND d.value_cents >= :amount
    """,
    "every run made its task, once": """
        SELECT x.id, count(a.id) FROM executions x
        LEFT JOIN activities a ON a.execution_id = x.id AND a.type = 'task'
        WHERE x.definition_id = :rule GROUP BY x.id HAVING count(a.id) <> 1
    """,
    "every run and enrollment came to an end, and nothing is stuck": """
        SELECT id, kind, status, step, stuck_reason FROM executions WHERE status <> 'ended'
    """,
    "a run saw whether its task was done, to within a second": """
        SELECT x.id, a.completed_at, b.at, b.outcome FROM executions x
        JOIN effects b ON b.execution_id = x.id AND b.step = 'done-in-time'
        JOIN activities a ON a.execution_id = x.id AND a.type = 'task', clock
        WHERE CASE b.outcome WHEN 'then' THEN a.completed_at IS NULL OR a.completed_at > b.at
              ELSE a.completed_at < b.at - make_interval(secs => scale) END
    """,
    "where the task was not done in time the owner is reminded once, elsewhere never": """
        SELECT x.id FROM executions x
        JOIN effects b ON b.execution_id = x.id AND b.step = 'done-in-time'
        LEFT JOIN reminders m ON m.execution_id = x.id
        GROUP BY x.id, b.outcome HAVING count(m.id) <> CASE b.outcome WHEN 'then' THEN 0 ELSE 1 END
    """,
    "every reminder fired exactly once, unless its deal was closed before": """
        SELECT m.id, m.status, count(n.id) FROM reminders m
        LEFT JOIN deals d ON d.id = m.deal_id
        LEFT JOIN notifications n ON n.reminder_id = m.id AND n.reason = 'reminder'
        GROUP BY m.id, m.status, d.outcome
        HAVING count(n.id) <> 1 AND NOT (m.status = 'cancelled' AND d.outcome IS NOT NULL AND count(n.id) = 0)
    """,
    "the manager was told once where the task stayed undone, and only there": """
        SELECT x.id FROM executions x
        LEFT JOIN effects told ON told.execution_id = x.id AND told.step = 'tell-manager'
        LEFT JOIN notifications n ON n.execution_id = x.id AND n.reason = 'rule'
        JOIN activities a ON a.execution_id = x.id AND a.type = 'task'
        WHERE x.definition_id = :rule GROUP BY x.id, a.completed_at
        HAVING count(n.id) <> count(told.step) OR (a.completed_at IS NULL AND count(n.id) <> 1)
    """,
    "nothing was early": """
        SELECT execution_id FROM effects WHERE outcome = 'waited' AND at < (saw ->> 'at')::timestamptz
        UNION ALL
        SELECT n.id FROM notifications n JOIN reminders m ON m.id = n.reminder_id
        JOIN effects made ON made.made_id = m.id JOIN effects waited
          ON waited.execution_id = made.execution_id AND waited.step = 'three-days'
        WHERE n.created_at < (waited.saw ->> 'at')::timestamptz
    """,
    "no record points at another organization's": """
        SELECT d.id FROM deals d JOIN contacts c ON c.id = d.contact_id WHERE c.org_id <> d.org_id
    """,
}


class Tables:
    """The database as its superuser reads it, on a connection a query: any of them may be cut by a kill."""

    def __init__(self, url: str) -> None:
        self._url = url

    async def fetch(self, query: str, *values: object) -> list[Mapping[str, Any]]:
        """Asks again for up to a minute where the database is away."""
        deadline = time.monotonic() + _PATIENCE
        while True:
            try:
                connection = await asyncpg.connect(self._url, timeout=5)
                try:
                    return list(await connection.fetch(query, *values))
                finally:
                    await connection.close(timeout=5)
            except (OSError, TimeoutError, asyncpg.InterfaceError, *_AWAY):
                if time.monotonic() > deadline:
                    raise
            await asyncio.sleep(0.1)

    async def row(self, query: str, *values: object) -> Mapping[str, Any]:
        (found,) = await self.fetch(query, *values)
        return found

    async def value(self, query: str, *values: object) -> Any:  # noqa: ANN401  (whatever the query answers)
        return next(iter((await self.row(query, *values)).values()))


@dataclass(frozen=True)
class Verdict:
    """One invariant, and what breaks it: rows, or sentences."""

    name: str
    offending: Sequence[object]

    @property
    def holds(self) -> bool:
        return not self.offending


async def judge(tables: Tables, invariants: Mapping[str, str], **given: object) -> list[Verdict]:
    """Every invariant, in the order they are told; `given` are the values its query names."""
    verdicts = []
    for name, query in invariants.items():
        rows = await tables.fetch(*numbered(query, given))
        verdicts.append(Verdict(name, [dict(row) for row in rows]))
    return verdicts


def numbered(query: str, given: Mapping[str, object]) -> list[Any]:
    """A query whose values have names, as the driver wants it: with numbers, and the values in their order."""
    names = list(dict.fromkeys(re.findall(r"(?<!:):([a-z_]+)", query)))
    text = re.sub(r"(?<!:):([a-z_]+)", lambda found: f"${names.index(found[1]) + 1}", query)
    return [text, *(given[name] for name in names)]


async def acknowledged(tables: Tables, moved: Sequence[tuple[str, str]]) -> Verdict:
    """Every move that was answered 2xx is an event; `moved` has deal ids and the stages they were moved to."""
    rows = await tables.fetch(
        "SELECT subject_id::text AS deal, after ->> 'stage' AS stage FROM events WHERE type = 'deal.stage_changed'"
    )
    recorded = {(row["deal"], row["stage"]) for row in rows}
    missing = [f"{deal} → {stage}" for deal, stage in moved if (deal, stage) not in recorded]
    return Verdict("every move that was answered 2xx is recorded", missing[:3])


async def webhooks(tables: Tables, sent: Sequence[str], forged: Sequence[str]) -> list[Verdict]:
    """`sent` and `forged` are email addresses, each carried by a message of its own."""
    contacts = await tables.fetch(
        "SELECT email, count(*) AS copies FROM contacts WHERE email = ANY($1) GROUP BY email", [*sent, *forged]
    )
    copies = {row["email"]: row["copies"] for row in contacts}
    stored = await tables.value("SELECT count(*) FROM inbox")
    once = [email for email in sent if copies.get(email) != 1]
    return [
        Verdict("every signed webhook made its contact, once", once[:3]),
        Verdict("a forged webhook changed nothing", [email for email in forged if email in copies][:3]),
        Verdict(
            "each message is stored once",
            [] if stored == len(sent) else [f"{stored} stored, {len(sent)} sent"],
        ),
    ]


async def lateness_ms(tables: Tables, scale: float) -> dict[str, float]:
    """How late waits ended, in real milliseconds: planned instant against the step that followed."""
    row = await tables.row(
        """
        SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY late) AS p50,
               percentile_cont(0.95) WITHIN GROUP (ORDER BY late) AS p95, max(late) AS most, count(*) AS waits
        FROM (SELECT extract(epoch FROM at - (saw ->> 'at')::timestamptz) * 1000 / $1 AS late
              FROM effects WHERE outcome = 'waited') measured
        """,
        scale,
    )
    return {name: float(value or 0) for name, value in row.items()}


async def left_to_come(tables: Tables) -> int:
    """Rows that something is still to become of; a reminder that fired and does not escalate is none."""
    found: int = await tables.value(
        """
        SELECT (SELECT count(*) FROM outbox) + (SELECT count(*) FROM wakes)
             + (SELECT count(*) FROM executions WHERE status <> 'ended')
             + (SELECT count(*) FROM reminders WHERE due_at IS NOT NULL)
             + (SELECT count(*) FROM intents WHERE status IN ('pending', 'held', 'claimed', 'uncertain', 'failed'))
             + (SELECT count(*) FROM letters WHERE status IN ('received', 'unreadable'))
        """
    )
    return found


async def counts(tables: Tables) -> dict[str, Any]:
    """What happened, for the report."""
    row = await tables.row(
        """
        SELECT (SELECT count(*) FROM executions WHERE kind = 'run') AS matched,
               (SELECT count(*) FROM refusals) AS refused,
               (SELECT count(*) FROM activities WHERE type = 'task') AS tasks,
               (SELECT count(*) FROM activities WHERE type = 'task' AND completed_at IS NOT NULL) AS completed,
               (SELECT count(*) FROM notifications WHERE reason = 'reminder') AS reminders,
               (SELECT count(*) FROM notifications WHERE reason = 'rule') AS managers_told,
               (SELECT count(*) FROM executions WHERE kind = 'run' AND status = 'ended') AS ended,
               (SELECT count(*) FROM intents WHERE status <> 'cancelled') AS mails,
               (SELECT count(*) FROM intents WHERE status IN ('accepted', 'bounced', 'complained')) AS left,
               (SELECT count(*) FROM executions WHERE kind = 'enrollment') AS enrolled,
               (SELECT count(*) FROM executions WHERE kind = 'enrollment' AND status = 'ended') AS through
        """
    )
    found: dict[str, Any] = dict(row)
    reasons = await tables.fetch("SELECT reason, count(*) AS n FROM refusals GROUP BY reason ORDER BY reason")
    found["reasons"] = {reason["reason"]: reason["n"] for reason in reasons}
    return found
