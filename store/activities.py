"""Activities: what happened with a contact, company or deal, and tasks: what is to happen."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import Any
from uuid import UUID

from sqlalchemy import func, select

from domain.words import ActivityType, EventType, Kind
from store import events, reminders
from store.errors import IllegalTransition, Invalid
from store.events import Changed, Draft, Record
from store.pages import Page, Span, equal, page
from store.tables import activities
from store.transaction import Origin, Transaction

_OF_TASKS = {"due_at", "assignee_id"}


async def log(tx: Transaction, values: Mapping[str, Any]) -> Record:
    """Records an activity that happened; for tasks see `create_task`."""
    given = {"occurred_at": tx.now, **values}
    made = await events.create(tx, activities, EventType.ACTIVITY_LOGGED, Kind.ACTIVITY, given)
    assert made is not None  # noqa: S101  (only `unless_exists` answers None)
    return made


async def create_task(tx: Transaction, values: Mapping[str, Any], *, id: UUID | None = None) -> Record | None:
    """Makes a task. With an `id` that exists already nothing is written and the answer is None."""
    given = _task(tx, values, tx.origin)
    return await events.create(
        tx, activities, EventType.TASK_CREATED, Kind.ACTIVITY, given, id=id, unless_exists=id is not None
    )


async def create_tasks(tx: Transaction, drafts: Sequence[Draft]) -> None:
    """As `create_task`, many that name the same columns; an `id` that exists already is left as it is."""
    full = [replace(one, values=_task(tx, one.values, one.origin or tx.origin)) for one in drafts]
    await events.create_many(tx, activities, EventType.TASK_CREATED, Kind.ACTIVITY, full)


def _task(tx: Transaction, values: Mapping[str, Any], origin: Origin) -> dict[str, Any]:
    return {
        "occurred_at": tx.now,
        "execution_id": origin.execution,
        **values,
        "type": ActivityType.TASK.value,
    }


async def change(tx: Transaction, id: UUID, values: Mapping[str, Any]) -> Changed:
    """Raises `NotFound`, `UnknownReference`, and `Invalid` for what only a task has."""
    try:
        return await events.change(tx, activities, EventType.ACTIVITY_UPDATED, Kind.ACTIVITY, id, values)
    except Invalid as refused:
        if refused.field is None and _OF_TASKS & values.keys():
            raise Invalid("only a task is due and has an assignee", "type") from None
        raise


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
        along=partial(reminders.cancelled_with, tx, "activity_id"),
    )
    if changed.record.type != ActivityType.TASK:
        raise IllegalTransition("only a task can be completed", "type")
    return changed


async def search(
    tx: Transaction,
    span: Span,
    *,
    type: ActivityType | None = None,
    contact: UUID | None = None,
    deal: UUID | None = None,
    company: UUID | None = None,
    user: UUID | None = None,
    q: str | None = None,
) -> Page:
    """Live activities; `user` made them or is to do them, `q` are words of subject and body."""
    query = select(activities).where(
        activities.c.org_id == tx.org,
        activities.c.deleted_at.is_(None),
        *equal(
            {
                activities.c.type: type,
                activities.c.contact_id: contact,
                activities.c.deal_id: deal,
                activities.c.company_id: company,
            }
        ),
    )
    if user is not None:
        query = query.where((activities.c.created_by == user) | (activities.c.assignee_id == user))
    if q is not None:
        query = query.where(activities.c.search.op("@@")(func.websearch_to_tsquery("simple", q)))
    return await page(tx, query, activities.c.id, span)


async def open_tasks(
    tx: Transaction, span: Span, assignee: UUID, *, since: datetime | None = None, before: datetime | None = None
) -> Page:
    """What someone still has to do: everything, or what is due from `since` on and before `before`."""
    query = select(activities).where(
        activities.c.org_id == tx.org,
        activities.c.type == ActivityType.TASK,
        activities.c.assignee_id == assignee,
        activities.c.completed_at.is_(None),
        activities.c.deleted_at.is_(None),
    )
    if since is not None:
        query = query.where(activities.c.due_at >= since)
    if before is not None:
        query = query.where(activities.c.due_at < before)
    return await page(tx, query, activities.c.id, span)


async def get(tx: Transaction, id: UUID) -> Record:
    return await events.get(tx, activities, Kind.ACTIVITY, id)
