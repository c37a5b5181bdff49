"""How long what is not kept for good is kept: one table, each period a row."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from sqlalchemy import Column, Table, delete, func, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from store import letters
from store.tables import idempotency_keys, inbox, notifications, organizations, outbox, refusals, wakes
from store.transaction import Transaction

BATCH = 5_000
"""Rows deleted from one table in one transaction."""
WHOLES = 1_000
"""Executions deleted in one transaction, each with all it did."""
PAGE = 1_000
"""Events looked at at a time."""


@dataclass(frozen=True)
class Kept:
    """Rows go when the instant in `column` is further back than `period`; where it is null they stay."""

    table: Table
    column: str
    period: timedelta
    real: bool = False
    """By the real clock, as machines repeat themselves; else in business time, as people count."""


KEPT = (
    # Senders repeat for up to three days, and people ask for longer.
    Kept(inbox, "received_at", timedelta(days=30), real=True),
    Kept(idempotency_keys, "created_at", timedelta(days=2), real=True),
    # Events and wakes are deleted when done; what was set aside with an error stays for a person.
    Kept(outbox, "failed_at", timedelta(days=90), real=True),
    Kept(wakes, "failed_at", timedelta(days=90), real=True),
    Kept(notifications, "read_at", timedelta(days=90)),
    Kept(notifications, "created_at", timedelta(days=365)),
    # Why a rule did not act: the fastest to grow, and asked about soon or never.
    Kept(refusals, "at", timedelta(days=365)),
)

LETTERS = timedelta(days=180)
"""How long after it was read a letter is kept as it came, in business time; what was read of it stays as history."""

OF_HISTORY = frozenset({"events", "executions", "effects", "pauses", "intents", "attempts", "letters", "reminders"})
"""The tables that go with what is over."""


async def organizations_by_id(connection: AsyncConnection) -> list[UUID]:
    return list((await connection.execute(select(organizations.c.id).order_by(organizations.c.id))).scalars())


async def let_go_by_age(tx: Transaction, history: timedelta) -> int:
    """A batch of what is past its period, of the raw form of old letters, and of old letters and reminders; how many.

    Of the history goes what was over `history` ago in business time, at least 400 days, which the
    database insists on.
    """
    count = await letters.forget_raw(tx, LETTERS, BATCH)
    for kept in KEPT:
        count += await _past(tx, kept)
    for statement in (_LETTERS, _REMINDERS):
        count += (await tx.execute(statement, {**_over(tx, history), "most": BATCH})).scalar_one()
    return count


async def let_go_executions(tx: Transaction, history: timedelta) -> int:
    """At most `WHOLES` that ended so long ago, each as a whole; how many.

    A run goes with its steps, pauses, messages and attempts; of an enrollment the bare row stays,
    since a sequence that nobody goes through twice must know who went. One stays whole while a
    message of it is open, uncertain, was heard of since, or has an answer that is kept. Tasks are
    the CRM's own records: they stay, and forget what has made them.
    """
    over = _over(tx, history)
    old = (await tx.execute(_ENDED, {**over, "most": WHOLES})).scalars().all()
    if not old:
        return 0
    await tx.execute(_THEIR_MESSAGES, {"org": tx.org, "ids": old})
    # Of both locked nothing changes any more; what has until then is seen by a statement of its own.
    still = (await tx.execute(_STILL, {**over, "ids": old})).scalars().all()
    return int((await tx.execute(_WHOLE, {"org": tx.org, "ids": still})).scalar_one())


async def let_go_events(tx: Transaction, history: timedelta) -> int:
    """A batch of old events that nothing refers to any more; how many.

    From the oldest on, as their ids are in the order of time, until a page has none that is old: so
    nothing is read of those that are younger, and no index of their age is written with each. Not
    while many wait to be matched, all of which the database would look through for each.
    """
    over = _over(tx, history)
    if (await tx.execute(_WAITING, {"org": tx.org, "most": PAGE})).scalar_one() == PAGE:
        return 0
    count, after = 0, UUID(int=0)
    while count < BATCH:
        page = (await tx.execute(_EVENTS, {**over, "after": after, "most": PAGE})).one()
        count += page.gone
        if not page.old:
            break
        after = page.last
    return count


Part = Callable[[Transaction, timedelta], Awaitable[int]]
PARTS: tuple[Part, ...] = (let_go_by_age, let_go_executions, let_go_events)
"""In the order in which one thing refers to another; each is called until nothing more goes."""


def _over(tx: Transaction, history: timedelta) -> dict[str, object]:
    return {"org": tx.org, "before": tx.now - history}


async def _past(tx: Transaction, kept: Kept) -> int:
    table, now = kept.table, func.clock_timestamp() if kept.real else tx.now
    age: Column[object] = table.c[kept.column]
    old = (
        select(table.c.org_id.label("org_id"), *_key(table))
        .where(table.c.org_id == tx.org, age < now - kept.period)
        .limit(BATCH)
        .cte("old")
    )
    matched = [table.c[c.name] == old.c[c.name] for c in _key(table)]
    return (await tx.execute(delete(table).where(table.c.org_id == old.c.org_id, *matched))).rowcount


def _key(table: Table) -> list[Column[object]]:
    names = {
        inbox: ("source_id", "message_id"),
        idempotency_keys: ("caller", "route", "key"),
    }.get(table, ("id",))
    return [table.c[name] for name in names]


# What a person has yet to say of a letter, and what is held for it, stays.
_LETTERS = text("""
WITH gone AS (
  DELETE FROM letters WHERE org_id = :org AND id IN (
    SELECT l.id FROM letters l
    WHERE l.org_id = :org AND l.status IN ('read','settled') AND l.read_at < :before
      AND NOT EXISTS (SELECT FROM holds h WHERE h.org_id = l.org_id AND h.letter_id = l.id)
    LIMIT :most)
  RETURNING 1
) SELECT count(*) FROM gone""")

# One that will act by itself, or was heard of since, stays.
_REMINDERS = text("""
WITH gone AS (
  DELETE FROM reminders WHERE org_id = :org AND id IN (
    SELECT r.id FROM reminders r
    WHERE r.org_id = :org AND r.due_at IS NULL AND r.created_at < :before
      AND greatest(r.closed_at, r.escalated_at, r.fired_at) < :before
      AND NOT EXISTS (SELECT FROM notifications n WHERE n.org_id = r.org_id AND n.reminder_id = r.id)
    LIMIT :most)
  RETURNING 1
) SELECT count(*) FROM gone""")

_LASTING = """
  EXISTS (SELECT FROM intents i WHERE i.org_id = x.org_id AND i.execution_id = x.id
    AND (i.status IN ('pending','held','claimed','uncertain') OR i.updated_at >= :before
      OR EXISTS (SELECT FROM letters l WHERE l.org_id = i.org_id AND l.intent_id = i.id)))
  OR EXISTS (SELECT FROM holds h WHERE h.org_id = x.org_id AND h.execution_id = x.id)
  OR EXISTS (SELECT FROM reminders r WHERE r.org_id = x.org_id AND r.execution_id = x.id AND r.due_at IS NOT NULL)"""
_ENDED = text(f"""
SELECT x.id FROM executions x
WHERE x.org_id = :org AND x.status = 'ended' AND x.let_go_at IS NULL AND x.ended_at < :before AND NOT ({_LASTING})
ORDER BY x.ended_at LIMIT :most FOR UPDATE SKIP LOCKED""")  # noqa: S608  (of text above)
_THEIR_MESSAGES = text("""
SELECT count(*) FROM (
  SELECT FROM intents WHERE org_id = :org AND execution_id = ANY(:ids) ORDER BY id FOR UPDATE) locked""")
_STILL = text(f"""
SELECT x.id FROM executions x WHERE x.org_id = :org AND x.id = ANY(:ids) AND NOT ({_LASTING})""")  # noqa: S608

_WHOLE = text("""
WITH tasks AS (
  UPDATE activities SET execution_id = NULL WHERE org_id = :org AND execution_id = ANY(:ids)
), promises AS (
  UPDATE reminders SET execution_id = NULL WHERE org_id = :org AND execution_id = ANY(:ids)
), notices AS (
  UPDATE notifications SET execution_id = NULL WHERE org_id = :org AND execution_id = ANY(:ids)
), tried AS (
  DELETE FROM attempts WHERE org_id = :org AND intent_id IN (
    SELECT id FROM intents WHERE org_id = :org AND execution_id = ANY(:ids))
), messages AS (
  DELETE FROM intents WHERE org_id = :org AND execution_id = ANY(:ids)
), steps AS (
  DELETE FROM effects WHERE org_id = :org AND execution_id = ANY(:ids)
), breaks AS (
  DELETE FROM pauses WHERE org_id = :org AND execution_id = ANY(:ids)
), went AS (
  UPDATE executions SET let_go_at = business_now(), message_id = NULL
  WHERE org_id = :org AND id = ANY(:ids) AND kind = 'enrollment' RETURNING 1
), gone AS (
  DELETE FROM executions WHERE org_id = :org AND id = ANY(:ids) AND kind = 'run' RETURNING 1
) SELECT (SELECT count(*) FROM went) + (SELECT count(*) FROM gone)""")

_WAITING = text("SELECT count(*) FROM (SELECT FROM outbox WHERE org_id = :org LIMIT :most) waiting")
_EVENTS = text("""
WITH oldest AS MATERIALIZED (
  SELECT id, at < :before AS old FROM events WHERE org_id = :org AND id > :after ORDER BY id LIMIT :most
), gone AS (
  DELETE FROM events WHERE org_id = :org AND id IN (
    SELECT o.id FROM oldest o WHERE o.old
      AND NOT EXISTS (SELECT FROM executions x WHERE x.org_id = :org AND x.event_id = o.id)
      AND NOT EXISTS (SELECT FROM refusals r WHERE r.org_id = :org AND r.event_id = o.id)
      AND NOT EXISTS (SELECT FROM outbox q WHERE q.org_id = :org AND q.event_id = o.id))
  RETURNING 1
) SELECT (SELECT id FROM oldest ORDER BY id DESC LIMIT 1) AS last, (SELECT count(*) FROM gone) AS gone,
  (SELECT count(*) FROM oldest WHERE old) AS old""")
