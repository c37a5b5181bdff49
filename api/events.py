"""Events over HTTP: what happened, to one subject or to all."""

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query
from pydantic import Field

from api.auth import Call, may
from api.cursors import Asked, around
from api.shapes import Many, Shown
from domain.words import EventType, Kind
from store import events

router = APIRouter(prefix="/events", tags=["events"])


class Event(Shown):
    """`number` counts a subject's events from 1; `chain` are the rules that led to it, oldest first."""

    id: UUID
    type: EventType
    subject_kind: Kind
    subject_id: UUID
    number: int
    at: datetime
    before: dict[str, Any]
    after: dict[str, Any]
    actor_kind: str
    actor_id: UUID | None
    chain: list[UUID]
    execution_id: Annotated[UUID | None, Field(description="The run or enrollment whose step it is.")]


class EventMany(Many):
    events: list[Event]


class EventFilters(Asked):
    subject_kind: Kind | None = None
    subject_id: UUID | None = None


@router.get("")
async def list_events(asked: Annotated[EventFilters, Query()], call: Annotated[Call, may("event:read")]) -> EventMany:
    """Newest first."""
    async with call.transaction() as tx:
        page = await events.search(tx, asked.span, kind=asked.subject_kind, subject=asked.subject_id)
    return EventMany(events=[Event.model_validate(row) for row in page.records], **around(page))
