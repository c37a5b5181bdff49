"""Addresses over HTTP: which must not be written to, and why.

Only their hashes are kept, so one is found by who knows it, and none is told.
"""

from datetime import datetime
from http import HTTPStatus
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Response
from pydantic import ConfigDict

from api.auth import Call, may
from api.cursors import Asked, around
from api.idempotency import Answer, Once, may_once
from api.problems import responses
from api.shapes import Email, Given, Many, Shown
from domain.words import Suppression
from store import addresses, suppressions
from store.errors import NotFound
from store.events import Record
from store.transaction import Transaction

router = APIRouter(prefix="/addresses", tags=["mail"])


class Address(Shown):
    """`suppressed` says why nothing more is sent to it; null while it may be written to."""

    id: UUID
    suppressed: Suppression | None
    suppressed_at: datetime | None
    revision: int
    created_at: datetime
    updated_at: datetime


class AddressOne(Shown):
    address: Address


class AddressMany(Many):
    addresses: list[Address]


class NewSuppression(Given):
    model_config = ConfigDict(json_schema_extra={"examples": [{"email": "ada@example.com", "why": "manual"}]})

    email: Email
    why: Suppression = Suppression.MANUAL


class AddressFilters(Asked):
    email: Email | None = None
    suppressed: Suppression | None = None


@router.get("", responses=responses(HTTPStatus.NOT_FOUND))
async def list_addresses(
    asked: Annotated[AddressFilters, Query()], call: Annotated[Call, may("address:read")]
) -> AddressMany | AddressOne:
    """The suppressed, newest first; with `email` that one address, suppressed or not, if it was ever seen."""
    async with call.transaction() as tx:
        if asked.email is None:
            page = await addresses.search(tx, asked.span, suppressed=asked.suppressed)
            return AddressMany(addresses=[Address.model_validate(row) for row in page.records], **around(page))
        found = await addresses.by_email(tx, asked.email)
    if found is None or asked.suppressed not in (None, found.suppressed):
        raise NotFound("Address")
    return _one(found)


@router.post("/suppress", response_model=AddressOne)
async def suppress_address(given: NewSuppression, once: Annotated[Once, may_once("address:suppress")]) -> Response:
    """Nothing more is sent to it from this answer on, and its enrollments end. Again changes nothing."""

    async def suppress(tx: Transaction) -> Answer:
        return Answer(_one(await suppressions.suppress(tx, given.email, given.why)))

    return await once(suppress)


@router.post("/{id}/release", response_model=AddressOne, responses=responses(HTTPStatus.NOT_FOUND))
async def release_address(id: UUID, once: Annotated[Once, may_once("address:release")]) -> Response:
    """It may be written to again, on your word that its owner agrees; who was taken out stays out."""

    async def release(tx: Transaction) -> Answer:
        return Answer(_one(await suppressions.release(tx, id)))

    return await once(release)


def _one(address: Record) -> AddressOne:
    return AddressOne(address=Address.model_validate(address))
