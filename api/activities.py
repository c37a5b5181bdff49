"""Activities over HTTP, and tasks among them."""

from datetime import datetime, time, timedelta
from http import HTTPStatus
from typing import Annotated, Any, Literal, Self
from uuid import UUID
from zoneinfo import ZoneInfo

from fastapi import APIRouter, Query, Response
from pydantic import ConfigDict, Field, StrictInt, model_validator

from api.auth import Call, may
from api.cursors import Asked, around
from api.idempotency import Answer, Once, may_once
from api.problems import responses
from api.revisions import etag
from api.shapes import Body, Change, Given, Instant, Line, Many, Name, Object, Shown
from domain.words import ActivityType, Direction, Priority
from store import activities, identity
from store.events import Record
from store.transaction import Transaction

router = APIRouter(tags=["activities"])
Reading = Annotated[Call, may("activity:read")]
Writing = Annotated[Call, may("activity:write")]


class Activity(Shown):
    id: UUID
    type: ActivityType
    subject: str
    body: str
    direction: Direction | None
    duration_seconds: int | None
    occurred_at: datetime
    due_at: datetime | None
    priority: Priority
    assignee_id: UUID | None
    completed_at: datetime | None
    completed_by: UUID | None
    contact_id: UUID | None
    company_id: UUID | None
    deal_id: UUID | None
    execution_id: Annotated[UUID | None, Field(description="The run or enrollment whose step it is.")]
    custom_fields: dict[str, Any]
    metadata: dict[str, Any]
    revision: int
    created_by: UUID | None
    created_at: datetime
    updated_at: datetime


class ActivityOne(Shown):
    activity: Activity


class ActivityMany(Many):
    activities: list[Activity]


class _Fields(Given):
    body: Body = ""
    contact_id: UUID | None = None
    company_id: UUID | None = None
    deal_id: UUID | None = None
    custom_fields: Object = Field(default_factory=dict)
    metadata: Object = Field(default_factory=dict)


class _New(_Fields):
    subject: Line

    @model_validator(mode="after")
    def _is_about_something(self) -> Self:
        if self.contact_id is None and self.company_id is None and self.deal_id is None:
            raise ValueError("An activity is about a contact, a company or a deal: name at least one.")
        return self


class _Happened(Given):
    direction: Direction | None = None
    duration_seconds: Annotated[StrictInt, Field(ge=0, le=2**31 - 1)] | None = None


class _ToDo(Given):
    due_at: Instant | None = None
    priority: Priority = Priority.NORMAL
    assignee_id: UUID | None = None


class NewLogged(_New, _Happened):
    """Something that happened, now unless `occurredAt` says when."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "type": "call",
                    "subject": "Asked about the proposal",
                    "direction": "outbound",
                    "durationSeconds": 340,
                    "dealId": "0199c0de-0000-7000-8000-000000000001",
                }
            ]
        }
    )

    type: Literal[ActivityType.EMAIL, ActivityType.CALL, ActivityType.MEETING, ActivityType.NOTE]
    occurred_at: Instant | None = None

    def columns(self) -> dict[str, Any]:
        """Without `occurredAt` where it was given as null: it happened now."""
        return {name: value for name, value in super().columns().items() if (name, value) != ("occurred_at", None)}


class NewTask(_New, _ToDo):
    """Something to do, by the caller unless `assigneeId` says who."""

    type: Literal[ActivityType.TASK]


class ActivityChange(Change, _Fields, _Happened, _ToDo):
    """What is left out stays; only a task is due and has an assignee."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"priority": "high"}]})

    subject: Line = ""


class ActivityFilters(Asked):
    type: ActivityType | None = None
    contact: UUID | None = None
    deal: UUID | None = None
    company: UUID | None = None
    user: UUID | None = None
    q: Name | None = None


class TaskFilters(Asked):
    due: Literal["today", "overdue", "all"] = "all"


@router.post(
    "/activities", status_code=HTTPStatus.CREATED, response_model=ActivityOne, responses=responses(HTTPStatus.CONFLICT)
)
async def create_activity(
    given: Annotated[NewLogged | NewTask, Field(discriminator="type")],
    once: Annotated[Once, may_once("activity:write")],
) -> Response:
    """Logs what happened; with type `task`, makes a task."""

    async def create(tx: Transaction) -> Answer:
        made: Record | None
        if isinstance(given, NewTask):
            made = await activities.create_task(tx, {"assignee_id": once.call.caller.user, **given.columns()})
        else:
            made = await activities.log(tx, given.columns())
        assert made is not None  # noqa: S101  (only a task with an id of its own can be there already)
        body = ActivityOne(activity=Activity.model_validate(made))
        return Answer.created(body, f"/api/v1/activities/{made.id}", etag(made))

    return await once(create)


@router.get("/activities")
async def list_activities(asked: Annotated[ActivityFilters, Query()], call: Reading) -> ActivityMany:
    """Newest first; `user` made them or is to do them, `q` are words of subject and body."""
    async with call.transaction() as tx:
        page = await activities.search(tx, asked.span, **asked.filters())
    return ActivityMany(activities=[Activity.model_validate(row) for row in page.records], **around(page))


@router.get("/activities/{id}", responses=responses(HTTPStatus.NOT_FOUND))
async def get_activity(id: UUID, call: Reading, response: Response) -> ActivityOne:
    async with call.transaction() as tx:
        found = await activities.get(tx, id)
    response.headers.update(etag(found))
    return ActivityOne(activity=Activity.model_validate(found))


@router.patch("/activities/{id}", responses=responses(HTTPStatus.NOT_FOUND))
async def update_activity(id: UUID, given: ActivityChange, call: Writing, response: Response) -> ActivityOne:
    """Changes what is named; naming what is there already changes nothing."""
    async with call.transaction() as tx:
        changed = await activities.change(tx, id, given.columns())
    response.headers.update(etag(changed.record))
    return ActivityOne(activity=Activity.model_validate(changed.record))


@router.get("/tasks")
async def list_tasks(asked: Annotated[TaskFilters, Query()], call: Reading) -> ActivityMany:
    """The caller's open tasks: all, those due on this day of the organization's zone, or those past due."""
    async with call.transaction() as tx:
        since, before = None, None
        if asked.due == "overdue":
            before = tx.now
        elif asked.due == "today":
            since, before = _today(tx.now, ZoneInfo((await identity.calendar(tx)).zone))
        page = await activities.open_tasks(tx, asked.span, call.caller.user, since=since, before=before)
    return ActivityMany(activities=[Activity.model_validate(row) for row in page.records], **around(page))


@router.post(
    "/tasks/{id}/complete",
    response_model=ActivityOne,
    responses=responses(HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT),
)
async def complete_task(id: UUID, once: Annotated[Once, may_once("activity:write")]) -> Response:
    """Its open reminders are cancelled. Completing it again changes nothing."""

    async def complete(tx: Transaction) -> Answer:
        task = (await activities.complete_task(tx, id)).record
        return Answer(ActivityOne(activity=Activity.model_validate(task)), headers=etag(task))

    return await once(complete)


def _today(now: datetime, zone: ZoneInfo) -> tuple[datetime, datetime]:
    """Midnight to midnight, which is 23 or 25 hours on two days of the year."""
    day = now.astimezone(zone).date()
    return datetime.combine(day, time(), zone), datetime.combine(day + timedelta(days=1), time(), zone)
