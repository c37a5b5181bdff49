"""Stages over HTTP."""

from typing import Annotated

from fastapi import APIRouter, Query

from api.auth import Call, may
from api.shapes import Given, Many, Name, Shown
from domain.words import StageKind
from store import deals

router = APIRouter(prefix="/stages", tags=["deals"])


class Stage(Shown):
    pipeline: str
    key: str
    name: str
    position: int
    probability: int
    kind: StageKind


class StageMany(Many):
    stages: list[Stage]


class StageFilters(Given):
    pipeline: Name | None = None


@router.get("")
async def list_stages(asked: Annotated[StageFilters, Query()], call: Annotated[Call, may("deal:read")]) -> StageMany:
    """In the order of the board; there are never so many that they come in pages."""
    async with call.transaction() as tx:
        found = await deals.pipeline_stages(tx, asked.pipeline)
    return StageMany(stages=[Stage.model_validate(row) for row in found], total=len(found), cursor=None)
