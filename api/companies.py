"""Companies over HTTP."""

from datetime import datetime
from http import HTTPStatus
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query, Response
from pydantic import ConfigDict, Field, StringConstraints

from api.auth import Call, may
from api.cursors import Asked, around
from api.idempotency import Answer, Once, may_once
from api.problems import responses
from api.revisions import etag
from api.shapes import Cents, Change, Given, Line, Many, Name, Object, Shown, Words
from store import companies
from store.transaction import Transaction

router = APIRouter(prefix="/companies", tags=["companies"])
Reading = Annotated[Call, may("company:read")]
Writing = Annotated[Call, may("company:write")]


class Company(Shown):
    id: UUID
    name: str
    domain: str | None
    industry: str | None
    size: str | None
    location: str | None
    annual_revenue_cents: int | None
    owner_id: UUID | None
    external_id: str | None
    custom_fields: dict[str, Any]
    revision: int
    created_by: UUID | None
    created_at: datetime
    updated_at: datetime


class CompanyOne(Shown):
    company: Company


class CompanyMany(Many):
    companies: list[Company]


class _Fields(Given):
    domain: Annotated[Words, StringConstraints(to_lower=True)] | None = None
    industry: Words | None = None
    size: Words | None = None
    location: Words | None = None
    annual_revenue_cents: Cents | None = None
    owner_id: UUID | None = None
    custom_fields: Object = Field(default_factory=dict)


class NewCompany(_Fields):
    model_config = ConfigDict(
        json_schema_extra={"examples": [{"name": "Northwind Traders", "domain": "northwind.com"}]}
    )

    name: Line
    external_id: Line | None = None


class CompanyChange(Change, _Fields):
    """What is left out stays; `customFields` is replaced whole."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"industry": "Logistics"}]})

    name: Line = ""


class CompanyFilters(Asked):
    q: Name | None = None
    owner: UUID | None = None


@router.post("", status_code=HTTPStatus.CREATED, response_model=CompanyOne, responses=responses(HTTPStatus.CONFLICT))
async def create_company(given: NewCompany, once: Annotated[Once, may_once("company:write")]) -> Response:
    """Owned by the caller unless another owner is named."""

    async def create(tx: Transaction) -> Answer:
        made = await companies.create(tx, {"owner_id": once.call.caller.user, **given.columns()})
        body = CompanyOne(company=Company.model_validate(made))
        return Answer.created(body, f"/api/v1/companies/{made.id}", etag(made))

    return await once(create)


@router.get("")
async def list_companies(asked: Annotated[CompanyFilters, Query()], call: Reading) -> CompanyMany:
    """Newest first; `q` is found anywhere in a name or a domain."""
    async with call.transaction() as tx:
        page = await companies.search(tx, asked.span, **asked.filters())
    return CompanyMany(companies=[Company.model_validate(row) for row in page.records], **around(page))


@router.get("/{id}", responses=responses(HTTPStatus.NOT_FOUND))
async def get_company(id: UUID, call: Reading, response: Response) -> CompanyOne:
    async with call.transaction() as tx:
        found = await companies.get(tx, id)
    response.headers.update(etag(found))
    return CompanyOne(company=Company.model_validate(found))


@router.patch("/{id}", responses=responses(HTTPStatus.NOT_FOUND))
async def update_company(id: UUID, given: CompanyChange, call: Writing, response: Response) -> CompanyOne:
    """Changes what is named; naming what is there already changes nothing."""
    async with call.transaction() as tx:
        changed = await companies.change(tx, id, given.columns())
    response.headers.update(etag(changed.record))
    return CompanyOne(company=Company.model_validate(changed.record))
