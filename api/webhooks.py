"""Inbound webhooks: verified on the raw bytes, stored once, answered the same for ever after."""

from http import HTTPStatus
from typing import Any
from uuid import UUID

import structlog
from cryptography.exceptions import InvalidTag
from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ValidationError
from uuid_utils.compat import uuid7

from api import problems
from api.at_once import shortly
from api.contacts import NewContact
from api.problems import MEDIA_TYPE, Problem, responses
from api.shapes import Shown
from api.signatures import TOLERANCE_SECONDS, BadSignature, signed, verify
from store import contacts, identity, inbox
from store.at_once import Kept
from store.errors import Refused
from store.identity import Source
from store.inbox import Answer
from store.transaction import Origin, Transaction

router = APIRouter(prefix="/webhooks", tags=["webhooks"])
log = structlog.get_logger()


class Envelope(BaseModel):
    """What Standard Webhooks wraps around `data`; what else is in it is passed over."""

    type: str
    data: dict[str, Any]


class Received(Shown):
    received: bool
    contact_id: UUID | None = None
    created: bool | None = None
    reason: str | None = None


_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "required": ["type", "data"],
                    "properties": {
                        "type": {"type": "string", "description": "Others than `contact.upsert` are passed over."},
                        "timestamp": {"type": "string", "format": "date-time"},
                        "data": {"$ref": "#/components/schemas/NewContact"},
                    },
                },
                "example": {
                    "type": "contact.upsert",
                    "timestamp": "2026-01-01T00:00:00Z",
                    "data": {"email": "ada@example.com", "firstName": "Ada", "leadSource": "partner"},
                },
            }
        },
    }
}


async def _receive_at_once(request: Request) -> JSONResponse | None:
    """A new contact, of a source that sent before."""
    source = request.app.state.sources.get(request.path_params["source"])
    if source is None:
        return None
    body = await request.body()
    try:
        message, sent_at = signed(request.headers, body, source.secret)
        envelope = Envelope.model_validate_json(body)
        given = NewContact.model_validate(envelope.data)
    except (BadSignature, ValidationError):
        return None
    if envelope.type != "contact.upsert":
        return None
    id_ = uuid7()
    answer = _received(Received(received=True, contact_id=id_, created=True))
    made = await contacts.create_at_once(
        request.app.state.at_once,
        source.warrant(),
        given.columns(),
        id=id_,
        kept=Kept(source.id, message, body, sent_at, TOLERANCE_SECONDS, answer.status, answer.body),
    )
    return None if made is None else _told(str(source.id), answer)


@router.post(
    "/{source}",
    response_model=Received,
    response_model_exclude_none=True,
    openapi_extra=_BODY,
    responses=responses(
        HTTPStatus.UNAUTHORIZED,
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        HTTPStatus.UNPROCESSABLE_ENTITY,
        HTTPStatus.SERVICE_UNAVAILABLE,
    ),
)
@shortly(_receive_at_once)
async def receive_webhook(source: str, request: Request) -> JSONResponse:
    """Signed by Standard Webhooks. What was answered once is answered the same to every repetition."""
    body = await request.body()
    sender, message = await _verified(request, source, body)
    origin = Origin("source", sender.id)
    async with request.app.state.database.transaction(sender.org, origin) as tx:
        answer = await inbox.take(tx, sender.id, message, body)
        if answer is None:
            answer = await _carry_out(tx, body, request.state.request_id)
            await inbox.settle(tx, sender.id, message, answer)
    return _told(source, answer)


def _told(source: str, answer: Answer) -> JSONResponse:
    log.info("webhook_received", source=source, status=int(answer.status), replayed=answer.replayed)
    headers = {"Idempotent-Replay": "true"} if answer.replayed else None
    media_type = MEDIA_TYPE if answer.status >= HTTPStatus.BAD_REQUEST else None
    return JSONResponse(answer.body, answer.status, headers, media_type)


async def _verified(request: Request, source: str, body: bytes) -> tuple[Source, str]:
    """Who sent it, and the message's id; every failure is the same to the sender."""
    try:
        sender = await source_of(request, source)
        return sender, verify(request.headers, body, sender.secret, sender.at)
    except BadSignature as bad:
        reason = str(bad)
    except InvalidTag:
        reason = "its secret was sealed under another master key"
    log.warning("webhook_refused", source=source[:36], reason=reason)
    raise Problem(HTTPStatus.UNAUTHORIZED, "UNAUTHORIZED", "This is not a webhook signed by a source known here.")


async def source_of(request: Request, source: str) -> Source:
    """Raises `BadSignature` for what is no source's id, `InvalidTag` where its secret cannot be read."""
    try:
        id_ = UUID(source)
    except ValueError:
        raise BadSignature("no such source") from None
    found = await identity.resolve_source(request.app.state.database, id_, request.app.state.master_key)
    if found is None:
        raise BadSignature("no such source")
    request.app.state.sources.remember(source, found)
    return found


async def _carry_out(tx: Transaction, body: bytes, request_id: str) -> Answer:
    """What is not understood is answered, too, so that it is kept and told again."""
    try:
        envelope = Envelope.model_validate_json(body)
    except ValidationError as error:
        return _refused(Problem.of_body(_within((), error), {}), request_id)
    if envelope.type != "contact.upsert":
        return _received(Received(received=False, reason="type_not_handled"))
    try:
        given = NewContact.model_validate(envelope.data)
        async with tx.savepoint():
            contact, created = await contacts.upsert(tx, given.columns())
    except ValidationError as error:
        return _refused(Problem.of_body(_within(("data",), error), {"data": envelope.data}), request_id)
    except Refused as refused:
        return _refused(Problem.of_refusal(refused, within=("data",)), request_id)
    return _received(Received(received=True, contact_id=contact.id, created=created))


def _received(told: Received) -> Answer:
    return Answer(HTTPStatus.OK, told.model_dump(mode="json", exclude_none=True))


def _refused(problem: Problem, request_id: str) -> Answer:
    return Answer(problem.status, problems.body_of(problem, request_id))


def _within(path: tuple[str, ...], error: ValidationError) -> list[dict[str, Any]]:
    found = error.errors(include_input=False, include_url=False)
    return [{**one, "loc": ("body", *path, *one["loc"])} for one in found]
