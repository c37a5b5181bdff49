"""Deals over HTTP."""

from collections import Counter
from datetime import date, datetime
from http import HTTPStatus
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response
from pydantic import ConfigDict, Field

from api.at_once import body_of, id_of, of_caller, shortly
from api.auth import Call, may
from api.cursors import Asked, around
from api.idempotency import Answer, Once, may_once
from api.problems import responses
from api.revisions import etag
from api.shapes import Cents, Change, Currency, Given, Line, Many, Name, Note, Object, Percent, Shown, shown
from store import deals
from store.identity import Caller
from store.transaction import Transaction

router = APIRouter(prefix="/deals", tags=["deals"])
Reading = Annotated[Call, may("deal:read")]
Writing = Annotated[Call, may("deal:write")]


class Deal(Shown):
    id: UUID
    title: str
    value_cents: int
    currency: str
    pipeline: str
    stage: str
    probability: int
    outcome: str | None
    lost_reason: str | None
    expected_close_date: date | None
    actual_close_date: date | None
    won_at: datetime | None
    lost_at: datetime | None
    contact_id: UUID | None
    company_id: UUID | None
    owner_id: UUID | None
    external_id: str | None
    custom_fields: dict[str, Any]
    revision: int
    created_by: UUID | None
    created_at: datetime
    updated_at: datetime


class DealOne(Shown):
    deal: Deal


class StageTotal(Shown):
    """What the deals of one stage come to in one currency."""

    pipeline: str
    stage: str
    currency: str
    deals: int
    value_cents: int


class DealMany(Many):
    """`pipelineValue` and `byStage` are of all deals that the filters let through, whatever the page."""

    deals: list[Deal]
    pipeline_value: Annotated[dict[str, int], Field(description="Cents by currency.")]
    by_stage: list[StageTotal]


class _Fields(Given):
    value_cents: Cents = 0
    currency: Currency = "USD"
    probability: Percent = 0
    expected_close_date: date | None = None
    contact_id: UUID | None = None
    company_id: UUID | None = None
    owner_id: UUID | None = None
    custom_fields: Object = Field(default_factory=dict)


class NewDeal(_Fields):
    """The stage defaults to its pipeline's first, the probability to the stage's."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"title": "Northwind, yearly licence", "valueCents": 4800000, "stage": "qualified"}]
        }
    )

    title: Line
    pipeline: Name = deals.DEFAULT_PIPELINE
    stage: Name | None = None
    external_id: Line | None = None


class DealChange(Change, _Fields):
    """What is left out stays; `customFields` is replaced whole. The stage has a route of its own."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"valueCents": 5200000}]})

    title: Line = ""
    lost_reason: Note | None = None


class StageMove(Given):
    model_config = ConfigDict(json_schema_extra={"examples": [{"stage": "proposal"}]})

    stage: Name


class DealFilters(Asked):
    stage: Name | None = None
    owner: UUID | None = None
    contact: UUID | None = None
    min_value: Annotated[int | None, Field(ge=0, le=2**53, description="In cents.")] = None
    max_value: Annotated[int | None, Field(ge=0, le=2**53, description="In cents.")] = None


@router.post("", status_code=HTTPStatus.CREATED, response_model=DealOne, responses=responses(HTTPStatus.CONFLICT))
async def create_deal(given: NewDeal, once: Annotated[Once, may_once("deal:write")]) -> Response:
    """Owned by the caller unless another owner is named."""

    async def create(tx: Transaction) -> Answer:
        made = await deals.create(tx, {"owner_id": once.call.caller.user, **given.columns()})
        body = DealOne(deal=Deal.model_validate(made))
        return Answer.created(body, f"/api/v1/deals/{made.id}", etag(made))

    return await once(create)


@router.get("")
async def list_deals(asked: Annotated[DealFilters, Query()], call: Reading) -> DealMany:
    """Newest first."""
    async with call.transaction() as tx:
        page, totals = await deals.search(tx, asked.span, **asked.filters())
    value = Counter[str]()
    for total in totals:
        value[total.currency] += int(total.value_cents)
    return DealMany(
        deals=[Deal.model_validate(row) for row in page.records],
        pipeline_value=dict(value),
        by_stage=[StageTotal.model_validate(row) for row in totals],
        **around(page),
    )


@router.get("/{id}", responses=responses(HTTPStatus.NOT_FOUND))
async def get_deal(id: UUID, call: Reading, response: Response) -> DealOne:
    async with call.transaction() as tx:
        found = await deals.get(tx, id)
    response.headers.update(etag(found))
    return DealOne(deal=Deal.model_validate(found))


@router.patch("/{id}", responses=responses(HTTPStatus.NOT_FOUND))
async def update_deal(id: UUID, given: DealChange, call: Writing, response: Response) -> DealOne:
    """Changes what is named; naming what is there already changes nothing."""
    async with call.transaction() as tx:
        changed = await deals.change(tx, id, given.columns())
    response.headers.update(etag(changed.record))
    return DealOne(deal=Deal.model_validate(changed.record))


async def _move_at_once(request: Request, caller: Caller, token: str) -> Response | None:
    id_, given = id_of(request), await body_of(request, StageMove)
    if id_ is None or given is None:
        return None
    moved = await request.app.state.at_once.move(caller.warrant(token), id_, given.stage)
    return None if moved is None else shown(DealOne(deal=Deal.model_validate(moved)), headers=etag(moved))


@router.put("/{id}/stage", responses=responses(HTTPStatus.NOT_FOUND))
@shortly(of_caller("deal:write", _move_at_once))
async def move_deal(id: UUID, given: StageMove, call: Writing, response: Response) -> DealOne:
    """Moves a deal within its pipeline; to where it stands changes nothing."""
    async with call.transaction() as tx:
        changed = await deals.move_stage(tx, id, given.stage)
    response.headers.update(etag(changed.record))
    return DealOne(deal=Deal.model_validate(changed.record))
