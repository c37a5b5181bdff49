"""Activities: what happened with a contact, company or deal, and tasks: what is to happen."""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from sqlalchemy import update

from domain.words import ActivityType, EventType, Kind, ReminderStatus
from store import events
from store.errors import IllegalTransition
from store.events import Changed, Record
from store.tables import activities, reminders
from store.transaction import Transaction


async def log(tx: Transaction, values: Mapping[str, Any]) -> Record:
    """Records an activity that happened; for tasks see `create_task`."""
    given = {"occurred_at": tx.now, **values}
    made = await events.create(tx, activities, EventType.ACTIVITY_LOGGED, Kind.ACTIVITY, given)
    assert made is not None  # noqa: S101  (only `unless_exists` answers None)
    return made


async def create_task(
    tx: Transaction, values: Mapping[str, Any], *, id: UUID | None = None
) -> Record | None:
    """Makes a task. With an `id` that exists already nothing is written and the answer is None."""
    given = {
        "occurred_at": tx.now,
        "execution_id": tx.origin.execution,
        **values,
        "type": ActivityType.TASK.value,
    }
    return await events.create(
        tx, activities, EventType.TASK_CREATED, Kind.ACTIVITY, given, id=id, unless_exists=id is not None
    )


async def complete_task(tx: Transaction, id: UUID) -> Changed:
    """Completes a task; again changes nothing. Its open reminders are cancelled with it.

    Raises `NotFound`, and `IllegalTransition` for what is not a task.
    """
    by = tx.origin.id if tx.origin.kind == "user" else None
    changed = await events.change(
        tx,
        activities,
        EventType.TASK_COMPLETED,
        Kind.ACTIVITY,
        id,
        {"completed_at": tx.now},
        also={"completed_by": by},
        when=(activities.c.type == ActivityType.TASK) & activities.c.completed_at.is_(None),
    )
    if changed.record.type != ActivityType.TASK:
        raise IllegalTransition("only a task can be completed", "type")
    if changed.before is not None:
        await tx.execute(
            update(reminders)
            .where(
                reminders.c.org_id == tx.org,
                reminders.c.activity_id == id,
                reminders.c.due_at.is_not(None),
            )
            .values(status=ReminderStatus.CANCELLED.value, due_at=None, closed_at=tx.now)
        )
    return changed


async def get(tx: Transaction, id: UUID) -> Record:
    return await events.get(tx, activities, Kind.ACTIVITY, id)
