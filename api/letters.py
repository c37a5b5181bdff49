"""Letters over HTTP: the mail that came in, what it was understood to be, and a person's word where it was not."""

from datetime import datetime
from http import HTTPStatus
from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Query, Response
from pydantic import ConfigDict, Field

from api.auth import Call, may
from api.cursors import Asked, around
from api.idempotency import Answer, Once, may_once
from api.problems import responses
from api.rfc822 import RFC822, attached
from api.shapes import Given, Many, Shown
from domain.inbound_mail import LetterKind
from domain.words import LetterStatus
from store import letters
from store.errors import NotFound
from store.events import Record
from store.transaction import Transaction

router = APIRouter(prefix="/letters", tags=["mail"])
Reading = Annotated[Call, may("letter:read")]


class Letter(Shown):
    """`matchedBy` says how it was known whose it is: our reply address, the mail it answers, or its sender.

    `text` is the person's own words, without what they quote.
    """

    id: UUID
    source_id: UUID | None
    recipient: str | None
    from_email: str | None
    subject: str
    matched_by: Literal["token", "references", "sender"] | None
    message_id: Annotated[UUID | None, Field(validation_alias="intent_id")]
    contact_id: UUID | None
    status: LetterStatus
    kind: LetterKind | None
    text: str | None
    detail: str | None
    received_at: datetime
    read_at: datetime | None
    settled_by: UUID | None


class LetterOne(Shown):
    letter: Letter


class LetterMany(Many):
    letters: list[Letter]


class LetterSettlement(Given):
    model_config = ConfigDict(json_schema_extra={"examples": [{"kind": "reply"}]})

    kind: LetterKind


class LetterFilters(Asked):
    status: LetterStatus | None = None
    contact: UUID | None = None


@router.get("")
async def list_letters(asked: Annotated[LetterFilters, Query()], call: Reading) -> LetterMany:
    """Newest first; those that are `unreadable` wait for a person."""
    async with call.transaction() as tx:
        page = await letters.search(tx, asked.span, **asked.filters())
    return LetterMany(letters=[Letter.model_validate(row) for row in page.records], **around(page))


@router.get("/{id}", responses=responses(HTTPStatus.NOT_FOUND))
async def get_letter(id: UUID, call: Reading) -> LetterOne:
    async with call.transaction() as tx:
        return _one(await letters.get(tx, id))


@router.get("/{id}/raw", response_class=Response, responses={**responses(HTTPStatus.NOT_FOUND), **RFC822})
async def get_raw_letter(id: UUID, call: Reading) -> Response:
    """As it came, byte for byte, until half a year after it was read. Nobody has looked at what is in it."""
    async with call.transaction() as tx:
        raw = await letters.raw(tx, id)
    if not raw:
        raise NotFound("Raw form")
    return attached(raw, f"letter-{id}.eml")


@router.post("/{id}/settle", response_model=LetterOne, responses=responses(HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT))
async def settle_letter(id: UUID, given: LetterSettlement, once: Annotated[Once, may_once("letter:write")]) -> Response:
    """Says what an unreadable letter is: what it held ends, or goes on."""

    async def settle(tx: Transaction) -> Answer:
        return Answer(_one(await letters.settle(tx, id, given.kind)))

    return await once(settle)


def _one(letter: Record) -> LetterOne:
    return LetterOne(letter=Letter.model_validate(letter))
