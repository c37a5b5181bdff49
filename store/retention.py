"""How long what is not kept for good is kept: one table, each period a row."""

from collections.abc import Mapping
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
    return list((await connection.execute(select(organizations.c.id))).scalars())


async def let_go(tx: Transaction, history: timedelta) -> int:
    """Deletes what is past its time, a batch of each, and the raw form of old letters; how many rows.

    Of the history goes what was over `history` ago in business time, at least 400 days, which the
    database insists on. It goes as a whole, and in the order in which one thing refers to another:
    letters, reminders, runs and enrollments with their messages and effects, and last the events that
    nothing refers to any more. What is not over stays, with all it refers to; so does an enrollment's
    bare row.
    """
    count = await letters.forget_raw(tx, LETTERS, BATCH)
    for kept in KEPT:
        count += await _past(tx, kept)
    over = {"org": tx.org, "before": tx.now - history}
    for statement in (_LETTERS, _REMINDERS):
        count += (await tx.execute(statement, {**over, "most": BATCH})).scalar_one()
    executions = (await tx.execute(_EXECUTIONS, {**over, "most": WHOLES})).scalar_one()
    if executions == WHOLES:  # their events have something that refers to them until all have gone
        return count + executions
    return count + executions + await _events(tx, over)


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


async def _events(tx: Transaction, over: Mapping[str, object]) -> int:
    """From the oldest on, as their ids are in the order of time, until a page has none that is old or a batch is gone.

    So nothing is read of those that are younger, and no index of their age is written with each.
    """
    count, after = 0, UUID(int=0)
    while count < BATCH:
        page = (await tx.execute(_EVENTS, {**over, "after": after, "most": PAGE})).one()
        count += page.gone
        if not page.old:
            break
        after = page.last
    return count


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
      AND coalesce(r.closed_at, r.escalated_at, r.fired_at) < :before
      AND NOT EXISTS (SELECT FROM notifications n WHERE n.org_id = r.org_id AND n.reminder_id = r.id)
    LIMIT :most)
  RETURNING 1
) SELECT count(*) FROM gone""")

# One whose mail has yet to leave, was heard of since, or has an answer that is kept stays. Of an enrollment the bare
# row stays: a sequence that nobody goes through twice must know who went. Tasks are the CRM's own records: they stay,
# and forget what has made them.
_EXECUTIONS = text("""
WITH old AS MATERIALIZED (
  SELECT x.id FROM executions x
  WHERE x.org_id = :org AND x.status = 'ended' AND x.let_go_at IS NULL AND x.ended_at < :before
    AND NOT EXISTS (SELECT FROM intents i WHERE i.org_id = x.org_id AND i.execution_id = x.id
      AND (i.status IN ('pending','held','claimed') OR i.updated_at >= :before
        OR EXISTS (SELECT FROM letters l WHERE l.org_id = i.org_id AND l.intent_id = i.id)))
    AND NOT EXISTS (SELECT FROM holds h WHERE h.org_id = x.org_id AND h.execution_id = x.id)
  ORDER BY x.ended_at LIMIT :most
), sent AS MATERIALIZED (
  SELECT i.id FROM intents i WHERE i.org_id = :org AND i.execution_id IN (SELECT id FROM old)
), tasks AS (
  UPDATE activities SET execution_id = NULL WHERE org_id = :org AND execution_id IN (SELECT id FROM old)
), promises AS (
  UPDATE reminders SET execution_id = NULL WHERE org_id = :org AND execution_id IN (SELECT id FROM old)
), notices AS (
  UPDATE notifications SET execution_id = NULL WHERE org_id = :org AND execution_id IN (SELECT id FROM old)
), tried AS (
  DELETE FROM attempts WHERE org_id = :org AND intent_id IN (SELECT id FROM sent)
), messages AS (
  DELETE FROM intents WHERE org_id = :org AND id IN (SELECT id FROM sent)
), steps AS (
  DELETE FROM effects WHERE org_id = :org AND execution_id IN (SELECT id FROM old)
), breaks AS (
  DELETE FROM pauses WHERE org_id = :org AND execution_id IN (SELECT id FROM old)
), went AS (
  UPDATE executions SET let_go_at = business_now(), message_id = NULL
  WHERE org_id = :org AND kind = 'enrollment' AND id IN (SELECT id FROM old)
), gone AS (
  DELETE FROM executions WHERE org_id = :org AND kind = 'run' AND id IN (SELECT id FROM old)
) SELECT count(*) FROM old""")

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
