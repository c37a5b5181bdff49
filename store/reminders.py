"""Reminders: promises to nudge an owner at a time."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from functools import cache
from typing import Any, NoReturn
from uuid import UUID

from sqlalchemy import CTE, Select, Update, select, update
from sqlalchemy.sql.dml import ReturningUpdate
from uuid_utils.compat import uuid7

from domain.words import ReminderStatus, Target
from store import queues
from store.errors import IllegalTransition, NotFound
from store.events import Record
from store.hints import WAKES
from store.pages import Page, Span, equal, page
from store.rowsets import ORG, filled, filling
from store.tables import reminders
from store.transaction import Transaction

_GIVEN = (
    "id", "owner_id", "title", "due_at", "escalate_after", "contact_id", "company_id", "deal_id", "activity_id",
    "execution_id",
)  # fmt: skip
_CLOSED = (ReminderStatus.DONE, ReminderStatus.CANCELLED)


async def create(tx: Transaction, values: Mapping[str, Any], *, id: UUID | None = None) -> Record | None:
    """A scheduled reminder and the wake that starts its wait.

    `values` has owner_id, title, due_at and any of contact_id, company_id, deal_id, activity_id,
    escalate_after. With an `id` that exists already nothing is written and the answer is None.
    """
    made = await create_many(tx, [{"id": id or uuid7(), "execution_id": tx.origin.execution, **values}])
    return made[0] if made else None


async def create_many(tx: Transaction, rows: Sequence[Mapping[str, Any]]) -> list[Record]:
    """As `create`; each has its `id` and whatever columns it needs. The new ones, in no order."""
    always = {
        "org_id": tx.org,
        "status": ReminderStatus.SCHEDULED.value,
        "created_by": tx.origin.id if tx.origin.kind == "user" else None,
        "created_at": tx.now,
    }
    full = [{**dict.fromkeys(_GIVEN), **row} for row in rows]
    tx.hints.add(WAKES)
    values = {"the_org": tx.org, **filled(always, full)}
    return list((await tx.write(_making(tuple(always)), values)).all())


@cache
def _making(always: tuple[str, ...]) -> Select[Any]:
    making = filling(reminders, always, _GIVEN).on_conflict_do_nothing()
    made = making.returning(*reminders.c).cte("made")
    return select(made).add_cte(queues.waking_of(ORG, Target.REMINDER, made))


async def snooze(tx: Transaction, id: UUID, until: datetime) -> Record:
    """Moves a reminder that has not been answered; one that fired will fire again.

    Raises `IllegalTransition` for one that is closed.
    """
    moved = _answer(
        tx,
        id,
        status=ReminderStatus.SCHEDULED.value,
        due_at=until,
        fired_at=None,
        snoozes=reminders.c.snoozes + 1,
        sweeps=0,
        sweep_after=None,
    ).cte("moved")
    statement = select(moved).add_cte(queues.waking(tx, Target.REMINDER, moved))
    return (await tx.execute(statement)).one_or_none() or await _refuse(tx, id)


async def close(tx: Transaction, id: UUID, status: ReminderStatus) -> Record:
    """`done` or `cancelled`: it will not fire and not escalate from this commit on.

    Raises `IllegalTransition` for one that is closed.
    """
    statement = _answer(tx, id, status=status.value, due_at=None, closed_at=tx.now)
    return (await tx.execute(statement)).one_or_none() or await _refuse(tx, id)


def cancelled_with(tx: Transaction, link: str, changed: CTE) -> Update:
    """Cancels what would still act by itself and hangs on the changed record by the column `link`."""
    return (
        update(reminders)
        .where(
            reminders.c.org_id == changed.c.org_id,
            reminders.c[link] == changed.c.id,
            reminders.c.due_at.is_not(None),
        )
        .values(status=ReminderStatus.CANCELLED.value, due_at=None, closed_at=tx.now)
    )


async def lock_due(tx: Transaction, id: UUID) -> Record | None:
    """Locks a reminder that will still act by itself; None if it will not."""
    statement = (
        select(reminders)
        .where(reminders.c.org_id == tx.org, reminders.c.id == id, reminders.c.due_at.is_not(None))
        .with_for_update(key_share=True)
    )
    return (await tx.execute(statement)).one_or_none()


async def fired(tx: Transaction, id: UUID, escalates_at: datetime | None) -> None:
    await _write(
        tx,
        id,
        status=ReminderStatus.FIRED.value,
        fired_at=tx.now,
        due_at=escalates_at,
        sweeps=0,
        sweep_after=None,
    )


async def escalated(tx: Transaction, id: UUID) -> None:
    await _write(tx, id, status=ReminderStatus.ESCALATED.value, escalated_at=tx.now, due_at=None)


async def get(tx: Transaction, id: UUID) -> Record:
    """Raises `NotFound`."""
    statement = select(reminders).where(reminders.c.org_id == tx.org, reminders.c.id == id)
    found = (await tx.execute(statement)).one_or_none()
    if found is None:
        raise NotFound("Reminder")
    return found


async def search(
    tx: Transaction, span: Span, *, status: ReminderStatus | None = None, owner: UUID | None = None
) -> Page:
    wanted = equal({reminders.c.status: status, reminders.c.owner_id: owner})
    query = select(reminders).where(reminders.c.org_id == tx.org, *wanted)
    return await page(tx, query, reminders.c.id, span)


async def open_ids(tx: Transaction) -> list[UUID]:
    statement = select(reminders.c.id).where(reminders.c.org_id == tx.org, reminders.c.due_at.is_not(None))
    return list((await tx.execute(statement)).scalars())


async def wake(tx: Transaction, ids: Iterable[UUID]) -> None:
    """Has reminders looked at; whether they fire is a matter of their due time alone."""
    await queues.wake(tx, Target.REMINDER, ids)


def _answer(tx: Transaction, id: UUID, **values: Any) -> ReturningUpdate[Any]:  # noqa: ANN401  (columns)
    """What a person makes of a reminder that is not closed."""
    return (
        update(reminders)
        .where(reminders.c.org_id == tx.org, reminders.c.id == id, reminders.c.status.not_in(_CLOSED))
        .values(**values)
        .returning(*reminders.c)
    )


async def _refuse(tx: Transaction, id: UUID) -> NoReturn:
    found = await get(tx, id)
    raise IllegalTransition(f"this reminder is {found.status}", "status")


async def _write(tx: Transaction, id: UUID, **values: Any) -> None:  # noqa: ANN401  (columns)
    await tx.execute(update(reminders).where(reminders.c.org_id == tx.org, reminders.c.id == id).values(**values))
