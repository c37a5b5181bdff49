"""How the queues and the open rows stand, as counts and ages across organizations; no payload, no names."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import false, literal, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.words import ExecutionStatus, MessageStatus, Target
from store.tables import destinations, executions, intents, outbox, reminders, wakes

_AT_ONCE = 1000
"""Ids asked for in one statement."""
_STANDING = text("""
SELECT
  (SELECT count(*) FROM outbox WHERE failed_at IS NULL) AS events_waiting,
  (SELECT coalesce(extract(epoch FROM clock_timestamp() - min(created_at)), 0)::float8 FROM outbox
   WHERE failed_at IS NULL) AS oldest_event_seconds,
  (SELECT count(*) FROM outbox WHERE failed_at IS NOT NULL) AS events_failed,
  (SELECT count(*) FROM wakes WHERE failed_at IS NULL) AS wakes_waiting,
  (SELECT coalesce(extract(epoch FROM clock_timestamp() - min(created_at)), 0)::float8 FROM wakes
   WHERE failed_at IS NULL) AS oldest_wake_seconds,
  (SELECT count(*) FROM wakes WHERE failed_at IS NOT NULL) AS wakes_failed,
  (SELECT count(*) FROM executions WHERE status = 'open' AND kind = 'run') AS runs_open,
  (SELECT count(*) FROM executions WHERE status = 'stuck' AND kind = 'run') AS runs_stuck,
  (SELECT count(*) FROM executions WHERE status IN ('open','paused') AND kind = 'enrollment') AS enrollments_open,
  (SELECT count(*) FROM executions WHERE status = 'stuck' AND kind = 'enrollment') AS enrollments_stuck,
  (SELECT count(*) FROM intents WHERE status = 'pending') AS messages_pending,
  (SELECT count(*) FROM intents WHERE status = 'uncertain') AS messages_uncertain,
  (SELECT count(*) FROM letters WHERE status = 'unreadable') AS letters_unreadable,
  (SELECT count(*) FROM destinations WHERE retry_at IS NOT NULL AND deleted_at IS NULL) AS mailboxes_in_trouble,
  (SELECT count(*) FROM reminders WHERE due_at IS NOT NULL) AS reminders_open,
  (SELECT count(*) FROM executions WHERE status = 'open' AND held_since IS NULL AND due_at < late.at)
    + (SELECT count(*) FROM reminders WHERE due_at < late.at) AS overdue
FROM (SELECT business_now() - make_interval(secs => 60 * scale) AS at FROM clock) late
""")


@dataclass(frozen=True)
class Standing:
    """Counts of rows, ages in real seconds; `overdue` counts open rows that are 60 s late."""

    events_waiting: int
    oldest_event_seconds: float
    events_failed: int
    wakes_waiting: int
    oldest_wake_seconds: float
    wakes_failed: int
    runs_open: int
    runs_stuck: int
    enrollments_open: int
    enrollments_stuck: int
    messages_pending: int
    messages_uncertain: int
    letters_unreadable: int
    mailboxes_in_trouble: int
    reminders_open: int
    overdue: int


async def standing(connection: AsyncConnection) -> Standing:
    """Read by the relay's role."""
    row = (await connection.execute(_STANDING)).one()
    return Standing(**row._mapping)  # noqa: SLF001  (the library's public mapping)


async def schema_revision(connection: AsyncConnection) -> str | None:
    """The migration the database is at; None where there was none yet."""
    if await connection.scalar(text("SELECT to_regclass('public.alembic_version')")) is None:
        return None
    found: str | None = await connection.scalar(text("SELECT version_num FROM alembic_version"))
    return found


async def open_rows(connection: AsyncConnection) -> dict[UUID, dict[Target, list[UUID]]]:
    """Every row that something may still become of, by organization."""
    found: dict[UUID, dict[Target, list[UUID]]] = {}
    pending = select(
        intents.c.org_id, literal(Target.MAILBOX.value).label("kind"), intents.c.destination_id.label("id")
    )
    for statement in (
        select(executions.c.org_id, executions.c.kind, executions.c.id).where(
            executions.c.status == ExecutionStatus.OPEN
        ),
        select(reminders.c.org_id, literal(Target.REMINDER.value).label("kind"), reminders.c.id).where(
            reminders.c.due_at.is_not(None)
        ),
        pending.where(intents.c.status.in_([MessageStatus.PENDING, MessageStatus.CLAIMED])).distinct(),
    ):
        for row in await connection.execute(statement):
            found.setdefault(row.org_id, {}).setdefault(Target(row.kind), []).append(row.id)
    return found


async def known_rows(connection: AsyncConnection, ids: Sequence[UUID]) -> dict[UUID, bool]:
    """Those of the ids that a row has; True where nothing more becomes of the row by itself."""
    found: dict[UUID, bool] = {}
    for table, over in (
        (executions, executions.c.status == ExecutionStatus.ENDED),
        (reminders, reminders.c.due_at.is_(None)),
        (destinations, false()),
    ):
        for start in range(0, len(ids), _AT_ONCE):
            statement = select(table.c.id, over.label("over")).where(table.c.id.in_(ids[start : start + _AT_ONCE]))
            found.update((row.id, row.over) for row in await connection.execute(statement))
    return found


async def failed_rows(connection: AsyncConnection) -> dict[UUID, int]:
    """How many events and wakes each organization has that were set aside with an error."""
    found: dict[UUID, int] = {}
    for table in (outbox, wakes):
        statement = select(table.c.org_id).where(table.c.failed_at.is_not(None))
        for org in (await connection.execute(statement)).scalars():
            found[org] = found.get(org, 0) + 1
    return found
