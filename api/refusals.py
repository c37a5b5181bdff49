"""Refusals over HTTP: why a rule did not act."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query
from pydantic import Field

from api.auth import Call, may
from api.cursors import Asked, around
from api.shapes import Many, Shown
from domain.conditions import Verdict
from domain.words import Refusal as Reason
from store import executions

router = APIRouter(prefix="/refusals", tags=["runs"])


class Refusal(Shown):
    """`verdict` names the comparison that decided, and the value it saw."""

    id: UUID
    rule_id: Annotated[UUID, Field(validation_alias="definition_id")]
    rule_name: str
    version: int
    event_id: UUID
    event_type: str
    subject_kind: str
    subject_id: UUID
    reason: Reason
    verdict: Annotated[Verdict | None, Field(validation_alias="saw")]
    at: datetime


class RefusalMany(Many):
    refusals: list[Refusal]


class RefusalFilters(Asked):
    rule: UUID | None = None
    event: UUID | None = None
    subject: UUID | None = None


@router.get("")
async def list_refusals(
    asked: Annotated[RefusalFilters, Query()], call: Annotated[Call, may("run:read")]
) -> RefusalMany:
    """Newest first: events a rule listened to, without a run."""
    async with call.transaction() as tx:
        page = await executions.refused(tx, asked.span, **asked.filters())
    return RefusalMany(refusals=[Refusal.model_validate(row) for row in page.records], **around(page))
