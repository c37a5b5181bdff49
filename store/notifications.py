"""Notifications: what the product tells a user inside the application."""

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import func, select, update

from store.errors import NotFound
from store.events import Record
from store.pages import Page, Span, page
from store.rowsets import filled, filling
from store.tables import notifications
from store.transaction import Transaction

_GIVEN = (
    "id", "user_id", "reason", "title", "contact_id", "company_id", "deal_id", "activity_id", "reminder_id",
    "occurrence", "execution_id",
)  # fmt: skip
_NOTIFYING = filling(notifications, ("org_id", "created_at"), _GIVEN).on_conflict_do_nothing()


async def notify(tx: Transaction, id: UUID, values: Mapping[str, Any]) -> None:
    """Tells `user_id` a `title` for a `reason`; the `id` is the effect's key, so twice is once.

    Raises `UnknownReference` for an unknown user.
    """
    await notify_many(tx, [{"id": id, "execution_id": tx.origin.execution, **values}])


async def notify_many(tx: Transaction, rows: Sequence[Mapping[str, Any]]) -> None:
    """As `notify`; each has its `id` and whatever columns it needs."""
    full = [{**dict.fromkeys(_GIVEN), **row} for row in rows]
    await tx.write(_NOTIFYING, filled({"org_id": tx.org, "created_at": tx.now}, full))


async def mark_read(tx: Transaction, id: UUID, user: UUID) -> Record:
    """Raises `NotFound`, also for another user's."""
    statement = (
        update(notifications)
        .where(
            notifications.c.org_id == tx.org,
            notifications.c.id == id,
            notifications.c.user_id == user,
        )
        .values(read_at=func.coalesce(notifications.c.read_at, tx.now))
        .returning(notifications)
    )
    found = (await tx.execute(statement)).one_or_none()
    if found is None:
        raise NotFound("Notification")
    return found


async def search(tx: Transaction, span: Span, user: UUID) -> Page:
    """What one user was told."""
    query = select(notifications).where(notifications.c.org_id == tx.org, notifications.c.user_id == user)
    return await page(tx, query, notifications.c.id, span)


async def unread(tx: Transaction, user: UUID) -> int:
    statement = select(func.count()).where(
        notifications.c.org_id == tx.org,
        notifications.c.user_id == user,
        notifications.c.read_at.is_(None),
    )
    return int((await tx.execute(statement)).scalar_one())
