"""Contacts over HTTP."""

from datetime import datetime
from http import HTTPStatus
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response
from pydantic import ConfigDict, Field
from uuid_utils.compat import uuid7

from api.at_once import body_of, of_caller, shortly
from api.auth import Call, may
from api.cursors import Asked, around
from api.idempotency import Answer, Once, may_once
from api.problems import responses
from api.revisions import etag
from api.shapes import Change, Email, Given, Line, Many, Name, Object, Phone, Shown, Tags, Words
from domain.due import Zone
from domain.words import LeadSource, LeadStatus
from store import contacts
from store.events import Record
from store.identity import Caller
from store.transaction import Transaction

router = APIRouter(prefix="/contacts", tags=["contacts"])
Reading = Annotated[Call, may("contact:read")]
Writing = Annotated[Call, may("contact:write")]


class Contact(Shown):
    id: UUID
    email: str | None
    first_name: str | None
    last_name: str | None
    phone: str | None
    title: str | None
    company_id: UUID | None
    owner_id: UUID | None
    lead_score: int
    lead_status: LeadStatus
    lead_source: LeadSource
    tags: list[str]
    time_zone: str | None
    external_id: str | None
    custom_fields: dict[str, Any]
    metadata: dict[str, Any]
    is_active: bool
    revision: int
    created_by: UUID | None
    created_at: datetime
    updated_at: datetime


class ContactOne(Shown):
    contact: Contact


class ContactMany(Many):
    contacts: list[Contact]


class _Fields(Given):
    first_name: Words | None = None
    last_name: Words | None = None
    phone: Phone | None = None
    title: Words | None = None
    company_id: UUID | None = None
    owner_id: UUID | None = None
    lead_status: LeadStatus = LeadStatus.NEW
    lead_source: LeadSource = LeadSource.ORGANIC
    tags: Tags = Field(default_factory=list)
    time_zone: Zone | None = None
    custom_fields: Object = Field(default_factory=dict)
    metadata: Object = Field(default_factory=dict)


class NewContact(_Fields):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"email": "ada@example.com", "firstName": "Ada", "lastName": "Lovelace", "tags": ["vip"]}]
        }
    )

    email: Email
    external_id: Line | None = None


class ContactChange(Change, _Fields):
    """What is left out stays; `customFields` and `metadata` are replaced whole."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"leadStatus": "qualified", "phone": None}]})

    email: Email = ""
    is_active: bool = True


class ContactFilters(Asked):
    q: Name | None = None
    email: Name | None = None
    tag: Name | None = None
    status: LeadStatus | None = None
    owner: UUID | None = None


async def _create_at_once(request: Request, caller: Caller, token: str) -> Response | None:
    given = await body_of(request, NewContact)
    if given is None:
        return None
    values = {"owner_id": caller.user, **given.columns()}
    made = await contacts.create_at_once(request.app.state.at_once, caller.warrant(token), values, id=uuid7())
    return None if made is None else _created(made).response()


def _created(made: Record) -> Answer:
    body = ContactOne(contact=Contact.model_validate(made))
    return Answer.created(body, f"/api/v1/contacts/{made.id}", etag(made))


@router.post(
    "",
    status_code=HTTPStatus.CREATED,
    response_model=ContactOne,
    responses=responses(HTTPStatus.CONFLICT),
)
@shortly(of_caller("contact:write", _create_at_once))
async def create_contact(given: NewContact, once: Annotated[Once, may_once("contact:write")]) -> Response:
    """Owned by the caller unless another owner is named. A duplicate names the contact that exists."""

    async def create(tx: Transaction) -> Answer:
        return _created(await contacts.create(tx, {"owner_id": once.call.caller.user, **given.columns()}))

    return await once(create)


@router.get("")
async def list_contacts(asked: Annotated[ContactFilters, Query()], call: Reading) -> ContactMany:
    """Newest first; `q` is found anywhere in a name, an address or the company's name."""
    async with call.transaction() as tx:
        page = await contacts.search(tx, asked.span, **asked.filters())
    return ContactMany(contacts=[Contact.model_validate(row) for row in page.records], **around(page))


@router.get("/{id}", responses=responses(HTTPStatus.NOT_FOUND))
async def get_contact(id: UUID, call: Reading, response: Response) -> ContactOne:
    async with call.transaction() as tx:
        found = await contacts.get(tx, id)
    response.headers.update(etag(found))
    return ContactOne(contact=Contact.model_validate(found))


@router.patch("/{id}", responses=responses(HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT))
async def update_contact(id: UUID, given: ContactChange, call: Writing, response: Response) -> ContactOne:
    """Changes what is named; naming what is there already changes nothing."""
    async with call.transaction() as tx:
        changed = await contacts.change(tx, id, given.columns())
    response.headers.update(etag(changed.record))
    return ContactOne(contact=Contact.model_validate(changed.record))


@router.delete("/{id}", status_code=HTTPStatus.NO_CONTENT, responses=responses(HTTPStatus.NOT_FOUND))
async def delete_contact(id: UUID, call: Writing) -> None:
    """Ends its enrollments, and what has not left for it is cancelled. Deals and history that name it stay."""
    async with call.transaction() as tx:
        await contacts.delete(tx, id)
