"""Notifications: what the product tells a user inside the application."""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from sqlalchemy import func, select, update
from sqlalchemy.dialects.postgresql import insert as insert_or

from store.errors import NotFound
from store.events import Record
from store.pages import Page, Span, page
from store.tables import notifications
from store.transaction import Transaction


async def notify(tx: Transaction, id: UUID, values: Mapping[str, Any]) -> None:
    """Tells `user_id` a `title` for a `reason`; the `id` is the effect's key, so twice is once.

    Raises `UnknownReference` for an unknown user.
    """
    row = {"execution_id": tx.origin.execution, **values, "org_id": tx.org, "id": id, "created_at": tx.now}
    await tx.write(insert_or(notifications).values(row).on_conflict_do_nothing())


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
