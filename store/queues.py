"""The queues between processes: the outbox (facts to match), wakes (rows to look at again), what is overdue.

Candidates are read across organizations by the relay's role, as ids; each is then taken in its
own organization's transaction. Organizations take turns, so a busy one holds up nobody.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import (
    CTE,
    BigInteger,
    ColumnElement,
    any_,
    bindparam,
    case,
    delete,
    func,
    insert,
    literal,
    select,
    text,
    true,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.words import Target
from store.events import Record
from store.hints import WAKES
from store.rowsets import ORG, among, filled, filling
from store.tables import destinations, events, executions, outbox, reminders, wakes
from store.transaction import Transaction

MAX_ATTEMPTS = 2
"""How often an event may fail alone before it is passed over."""

SWEEP_AFTER = 60
"""Real seconds a row must be overdue before it is swept."""

_TURNS = """
WITH RECURSIVE turn(org_id) AS (
  (SELECT org_id FROM {queue} WHERE failed_at IS NULL ORDER BY org_id LIMIT 1)
  UNION ALL
  SELECT (SELECT q.org_id FROM {queue} q WHERE q.failed_at IS NULL AND q.org_id > turn.org_id
          ORDER BY q.org_id LIMIT 1)
  FROM turn WHERE turn.org_id IS NOT NULL
)
SELECT taken.* FROM turn CROSS JOIN LATERAL (
  SELECT {columns} FROM {queue} q WHERE q.org_id = turn.org_id AND q.failed_at IS NULL
  ORDER BY q.id LIMIT :each
) taken WHERE turn.org_id IS NOT NULL
"""
_OUTBOX_TURNS = text(_TURNS.format(queue="outbox", columns="q.org_id, q.id"))
_WAKE_TURNS = text(_TURNS.format(queue="wakes", columns="q.org_id, q.id, q.kind, q.target_id"))
_WAKING = filling(wakes, ("org_id", "kind"), ("target_id",))


@dataclass(frozen=True)
class Wake:
    """One poke to give: the target, and every wake row that asks for it."""

    org: UUID
    kind: Target
    target: UUID
    rows: tuple[int, ...]


async def outbox_candidates(connection: AsyncConnection, each: int) -> dict[UUID, list[int]]:
    """Unmatched outbox ids, oldest first, at most `each` per organization."""
    found: dict[UUID, list[int]] = {}
    for row in await connection.execute(_OUTBOX_TURNS, {"each": each}):
        found.setdefault(row.org_id, []).append(row.id)
    return found


async def take_events(tx: Transaction, ids: Sequence[int]) -> list[Record]:
    """Those events that nobody else is taking, in order; they have left the outbox if this transaction commits."""
    return list((await tx.execute(_TAKING, {"the_org": tx.org, "ids": list(ids)})).all())


_FREE = (
    select(outbox.c.id)
    .where(
        outbox.c.org_id == ORG,
        outbox.c.id == any_(bindparam("ids", type_=ARRAY(BigInteger))),
        outbox.c.failed_at.is_(None),
    )
    .with_for_update(skip_locked=True)
)
_TAKEN = (
    delete(outbox)
    .where(outbox.c.org_id == ORG, outbox.c.id.in_(_FREE))
    .returning(outbox.c.id, outbox.c.org_id, outbox.c.event_id)
    .cte("taken")
)
# One by one (which the offset holds it to): joined, they may be merged, past all events there were before.
_EACH = (
    select(events)
    .where(events.c.org_id == ORG, events.c.id == _TAKEN.c.event_id)
    .correlate(_TAKEN)
    .offset(0)
    .lateral("event")
)
_TAKING = select(_EACH).select_from(_TAKEN.join(_EACH, true())).order_by(_TAKEN.c.id)


async def fail_event(tx: Transaction, id: int, error: str) -> bool:
    """Keeps an error on its outbox row; True when that was the last attempt and it is passed over."""
    last = outbox.c.attempts + 1 >= MAX_ATTEMPTS
    statement = (
        update(outbox)
        .where(outbox.c.org_id == tx.org, outbox.c.id == id)
        .values(
            attempts=outbox.c.attempts + 1,
            error=error[:2000],
            failed_at=case((last, func.clock_timestamp())),
        )
        .returning(outbox.c.failed_at)
    )
    return (await tx.execute(statement)).scalar_one_or_none() is not None


async def retry_failed(tx: Transaction) -> int:
    """Lets every passed-over event and wake be tried again; how many there were."""
    count = 0
    for queue, again in ((outbox, {"attempts": 0}), (wakes, {})):
        result = await tx.execute(
            update(queue)
            .where(queue.c.org_id == tx.org, queue.c.failed_at.is_not(None))
            .values(failed_at=None, **again)
        )
        count += result.rowcount
    return count


async def wake(tx: Transaction, kind: Target, targets: Iterable[UUID]) -> None:
    """Asks for a look at rows; only `store.executions.wake` and its like, which set `due_at`, call it."""
    rows = [{"target_id": target} for target in targets]
    if rows:
        tx.hints.add(WAKES)
        await tx.execute(_WAKING, filled({"org_id": tx.org, "kind": kind.value}, rows))


def waking(tx: Transaction, kind: Target | ColumnElement[str], rows: CTE, column: str = "id") -> CTE:
    """As `wake`, inside the statement that makes or moves the rows; `column` of them is the target."""
    tx.hints.add(WAKES)
    return waking_of(literal(tx.org, wakes.c.org_id.type), kind, rows, column)


def waking_of(org: ColumnElement[UUID], kind: Target | ColumnElement[str], rows: CTE, column: str = "id") -> CTE:
    """As `waking`, for a statement that is built once; whoever carries it out adds the hint."""
    named = literal(kind.value) if isinstance(kind, Target) else kind
    asked = select(org, named, rows.c[column]).distinct()
    columns = ["org_id", "kind", "target_id"]
    return insert(wakes).from_select(columns, asked).returning(wakes.c.id).cte("waking")


async def wake_batch(connection: AsyncConnection, each: int) -> list[Wake]:
    """Wakes to give, at most `each` rows per organization, one entry a target."""
    asked: dict[tuple[UUID, Target, UUID], list[int]] = {}
    for row in await connection.execute(_WAKE_TURNS, {"each": each}):
        asked.setdefault((row.org_id, Target(row.kind), row.target_id), []).append(row.id)
    return [Wake(org, kind, target, tuple(rows)) for (org, kind, target), rows in asked.items()]


async def still_open(connection: AsyncConnection, wakes: Iterable[Wake]) -> dict[UUID, float | None]:
    """The targets that something may still become of, with the real seconds until they are due; none for mailboxes.

    The others are not poked. A deleted mailbox is: what was to leave through it must be told.
    """
    asked = {(wake.org, wake.target) for wake in wakes}
    values = {"orgs": [org for org, _ in asked], "targets": [target for _, target in asked]}
    return {row.id: row.seconds for row in await connection.execute(_OPEN, values)}


_OPEN = text("""
WITH asked AS (SELECT * FROM unnest(CAST(:orgs AS uuid[]), CAST(:targets AS uuid[])) AS asked(org_id, id))
SELECT id, extract(epoch FROM due_at - business_now())::float8 / scale AS seconds FROM clock, (
  SELECT id, due_at FROM executions JOIN asked USING (org_id, id)
  UNION ALL
  SELECT id, due_at FROM reminders JOIN asked USING (org_id, id)
) waiting WHERE due_at IS NOT NULL
UNION ALL
SELECT id, NULL FROM destinations JOIN asked USING (org_id, id)
""")


async def hold_wakes(tx: Transaction, ids: Sequence[int]) -> set[int]:
    """Those that are still there and that nobody else holds, locked."""
    mine = select(wakes.c.id).where(wakes.c.org_id == tx.org, among(wakes.c.id, ids))
    return set((await tx.execute(mine.with_for_update(skip_locked=True))).scalars())


async def delete_wakes(tx: Transaction, ids: Sequence[int]) -> None:
    """Exactly the rows that were read; a newer wake for the same target stays, and what another relay has at hand."""
    mine = select(wakes.c.id).where(wakes.c.org_id == tx.org, among(wakes.c.id, ids))
    free = mine.with_for_update(skip_locked=True)
    await tx.execute(delete(wakes).where(wakes.c.org_id == tx.org, wakes.c.id.in_(free)))


async def fail_wakes(tx: Transaction, ids: Sequence[int], error: str) -> None:
    """Sets wakes aside that Temporal will never take; their rows stay open for the sweep."""
    await tx.execute(
        update(wakes)
        .where(wakes.c.org_id == tx.org, among(wakes.c.id, ids))
        .values(error=error[:2000], failed_at=func.clock_timestamp())
    )


# The instant is a sub-select of its own, so that it is computed once and the index is used.
_LATE = "(SELECT business_now() - make_interval(secs => :late * scale) FROM clock)"
_OVERDUE = text(f"""
SELECT org_id, kind, id FROM (
  SELECT org_id, kind, id, due_at FROM executions
  WHERE status = 'open' AND held_since IS NULL AND due_at < {_LATE}
    AND (sweep_after IS NULL OR sweep_after < clock_timestamp())
  UNION ALL
  SELECT org_id, 'reminder', id, due_at FROM reminders
  WHERE due_at < {_LATE} AND (sweep_after IS NULL OR sweep_after < clock_timestamp())
  UNION ALL
  SELECT d.org_id, 'mailbox', d.id, late.due_at FROM destinations d
  JOIN organizations o ON o.id = d.org_id
  CROSS JOIN LATERAL (
    SELECT i.due_at FROM intents i WHERE i.org_id = d.org_id AND i.destination_id = d.id
      AND (i.status = 'pending' AND i.due_at < {_LATE} AND o.sending_stopped_at IS NULL AND d.paused_at IS NULL
        OR i.status = 'claimed' AND i.deadline < clock_timestamp() - make_interval(secs => :late)) LIMIT 1
  ) late
  WHERE (d.sweep_after IS NULL OR d.sweep_after < clock_timestamp())
    AND (d.retry_at IS NULL OR d.retry_at < clock_timestamp())
) overdue ORDER BY due_at LIMIT :most
""")  # noqa: S608  (both parts are constants)
_OLDEST_WAKE = text("SELECT extract(epoch FROM clock_timestamp() - min(created_at)) FROM wakes WHERE failed_at IS NULL")


# From one sequence to the next that keeps somebody, however many it keeps.
_RESUMED = text("""
WITH RECURSIVE kept(org_id, definition_id) AS (
  (SELECT org_id, definition_id FROM executions WHERE awaits = 'resume' ORDER BY org_id, definition_id LIMIT 1)
  UNION ALL
  SELECT next.org_id, next.definition_id FROM kept CROSS JOIN LATERAL (
    SELECT org_id, definition_id FROM executions
    WHERE awaits = 'resume' AND (org_id, definition_id) > (kept.org_id, kept.definition_id)
    ORDER BY org_id, definition_id LIMIT 1
  ) next
)
SELECT d.org_id, d.id AS definition_id, free.id FROM kept
JOIN definitions d ON d.org_id = kept.org_id AND d.id = kept.definition_id AND d.status <> 'paused'
CROSS JOIN LATERAL (
  SELECT id FROM executions WHERE awaits = 'resume' AND org_id = d.org_id AND definition_id = d.id LIMIT :each
) free
WHERE (SELECT count(*) FROM (SELECT FROM wakes WHERE org_id = d.org_id AND failed_at IS NULL LIMIT :each) w) < :each
""")


async def resumed(connection: AsyncConnection, each: int) -> list[tuple[UUID, list[UUID]]]:
    """Who awaits the resume of a sequence that is not paused: an organization and at most `each`, for each sequence.

    None of an organization of which as many wakes are still to be given.
    """
    found: dict[tuple[UUID, UUID], list[UUID]] = {}
    for row in await connection.execute(_RESUMED, {"each": each}):
        found.setdefault((row.org_id, row.definition_id), []).append(row.id)
    return [(org, ids) for (org, _), ids in found.items()]


_SWEPT = {
    Target.RUN: executions,
    Target.ENROLLMENT: executions,
    Target.REMINDER: reminders,
    Target.MAILBOX: destinations,
}


async def overdue(connection: AsyncConnection, most: int) -> dict[UUID, dict[Target, list[UUID]]]:
    """Open rows that nobody came for, longest overdue first."""
    found: dict[UUID, dict[Target, list[UUID]]] = {}
    for row in await connection.execute(_OVERDUE, {"late": SWEEP_AFTER, "most": most}):
        found.setdefault(row.org_id, {}).setdefault(Target(row.kind), []).append(row.id)
    return found


async def oldest_wake_seconds(connection: AsyncConnection) -> float:
    """Age in real seconds of the oldest wake still to give; 0 when there is none."""
    return float((await connection.execute(_OLDEST_WAKE)).scalar_one() or 0)


async def sweep(tx: Transaction, kind: Target, ids: Sequence[UUID]) -> None:
    """Wakes overdue rows, and leaves each alone for 1, 2, 4 … 60 real minutes after."""
    table: Any = _SWEPT[kind]
    await tx.execute(
        update(table)
        .where(table.c.org_id == tx.org, table.c.id.in_(ids))
        .values(
            sweeps=table.c.sweeps + 1,
            sweep_after=func.clock_timestamp()
            + text("interval '1 minute'") * func.least(60, func.power(2, func.least(table.c.sweeps, 6))),
        )
    )
    await wake(tx, kind, ids)
