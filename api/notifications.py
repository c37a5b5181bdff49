"""Notifications over HTTP: each user sees their own."""

from datetime import datetime
from http import HTTPStatus
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Response
from pydantic import Field

from api.auth import Call, may
from api.cursors import Asked, around
from api.idempotency import Answer, Once, may_once
from api.problems import responses
from api.shapes import Many, Shown
from store import notifications
from store.transaction import Transaction

router = APIRouter(prefix="/notifications", tags=["notifications"])


class Notification(Shown):
    id: UUID
    reason: str
    title: str
    contact_id: UUID | None
    company_id: UUID | None
    deal_id: UUID | None
    activity_id: UUID | None
    reminder_id: UUID | None
    execution_id: Annotated[UUID | None, Field(description="The run or enrollment whose step it is.")]
    created_at: datetime
    read_at: datetime | None


class NotificationOne(Shown):
    notification: Notification


class NotificationMany(Many):
    notifications: list[Notification]
    unread: int


@router.get("")
async def list_notifications(
    asked: Annotated[Asked, Query()], call: Annotated[Call, may("notification:read")]
) -> NotificationMany:
    """The caller's, newest first."""
    async with call.transaction() as tx:
        page = await notifications.search(tx, asked.span, call.caller.user)
        unread = await notifications.unread(tx, call.caller.user)
    rows = [Notification.model_validate(row) for row in page.records]
    return NotificationMany(notifications=rows, unread=unread, **around(page))


@router.post("/{id}/read", response_model=NotificationOne, responses=responses(HTTPStatus.NOT_FOUND))
async def read_notification(id: UUID, once: Annotated[Once, may_once("notification:write")]) -> Response:
    """Only one's own; reading it again changes nothing."""

    async def read(tx: Transaction) -> Answer:
        found = await notifications.mark_read(tx, id, once.call.caller.user)
        return Answer(NotificationOne(notification=Notification.model_validate(found)))

    return await once(read)
