"""Reminders over HTTP."""

from datetime import datetime
from http import HTTPStatus
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Response
from pydantic import ConfigDict, Field

from api.auth import Call, may
from api.cursors import Asked, around
from api.idempotency import Answer, Once, may_once
from api.problems import responses
from api.shapes import Given, Instant, Many, Shown, Title
from domain.due import Amount
from domain.words import ReminderStatus
from store import reminders
from store.events import Record
from store.transaction import Transaction

router = APIRouter(prefix="/reminders", tags=["reminders"])
Reading = Annotated[Call, may("reminder:read")]
Writing = Annotated[Once, may_once("reminder:write")]
_CHANGES = responses(HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT)


class Reminder(Shown):
    """`dueAt` is when it next acts by itself: fires, or escalates; null when it will not."""

    id: UUID
    owner_id: UUID
    title: str
    contact_id: UUID | None
    company_id: UUID | None
    deal_id: UUID | None
    activity_id: UUID | None
    execution_id: Annotated[UUID | None, Field(description="The run or enrollment whose step it is.")]
    status: ReminderStatus
    due_at: datetime | None
    escalate_after: Amount | None
    fired_at: datetime | None
    escalated_at: datetime | None
    closed_at: datetime | None
    snoozes: int
    created_by: UUID | None
    created_at: datetime


class ReminderOne(Shown):
    reminder: Reminder


class ReminderMany(Many):
    reminders: list[Reminder]


class NewReminder(Given):
    """For the caller unless `ownerId` names another; the owner's manager is told `escalateAfter` it fired in vain."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "title": "Call Ada about the licence",
                    "dueAt": "2027-01-11T09:00:00Z",
                    "escalateAfter": {"amount": 1, "unit": "business_days"},
                }
            ]
        }
    )

    title: Title
    due_at: Instant
    owner_id: UUID | None = None
    contact_id: UUID | None = None
    company_id: UUID | None = None
    deal_id: UUID | None = None
    activity_id: UUID | None = None
    escalate_after: Amount | None = None


class Snooze(Given):
    model_config = ConfigDict(json_schema_extra={"examples": [{"until": "2027-01-12T09:00:00Z"}]})

    until: Instant


class ReminderFilters(Asked):
    status: ReminderStatus | None = None
    owner: UUID | None = None


@router.post("", status_code=HTTPStatus.CREATED, response_model=ReminderOne)
async def create_reminder(given: NewReminder, once: Writing) -> Response:
    """Fires at `dueAt`, at once where that has passed."""

    async def create(tx: Transaction) -> Answer:
        values = {**given.columns(), "owner_id": given.owner_id or once.call.caller.user}
        made = await reminders.create(tx, values)
        assert made is not None  # noqa: S101  (only one with an id of its own can be there already)
        return Answer.created(_one(made), f"/api/v1/reminders/{made.id}")

    return await once(create)


@router.get("")
async def list_reminders(asked: Annotated[ReminderFilters, Query()], call: Reading) -> ReminderMany:
    """Newest first."""
    async with call.transaction() as tx:
        page = await reminders.search(tx, asked.span, **asked.filters())
    return ReminderMany(reminders=[Reminder.model_validate(row) for row in page.records], **around(page))


@router.get("/{id}", responses=responses(HTTPStatus.NOT_FOUND))
async def get_reminder(id: UUID, call: Reading) -> ReminderOne:
    async with call.transaction() as tx:
        return _one(await reminders.get(tx, id))


@router.post("/{id}/snooze", response_model=ReminderOne, responses=_CHANGES)
async def snooze_reminder(id: UUID, given: Snooze, once: Writing) -> Response:
    """Moves a reminder that is not closed; one that fired will fire again."""

    async def snooze(tx: Transaction) -> Answer:
        return Answer(_one(await reminders.snooze(tx, id, given.until)))

    return await once(snooze)


@router.post("/{id}/done", response_model=ReminderOne, responses=_CHANGES)
async def finish_reminder(id: UUID, once: Writing) -> Response:
    """It will neither fire nor escalate from this answer on."""

    async def finish(tx: Transaction) -> Answer:
        return Answer(_one(await reminders.close(tx, id, ReminderStatus.DONE)))

    return await once(finish)


@router.post("/{id}/cancel", response_model=ReminderOne, responses=_CHANGES)
async def cancel_reminder(id: UUID, once: Writing) -> Response:
    """It will neither fire nor escalate from this answer on."""

    async def cancel(tx: Transaction) -> Answer:
        return Answer(_one(await reminders.close(tx, id, ReminderStatus.CANCELLED)))

    return await once(cancel)


def _one(reminder: Record) -> ReminderOne:
    return ReminderOne(reminder=Reminder.model_validate(reminder))
