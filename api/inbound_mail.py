"""Inbound mail over HTTP: kept, and what it may stop held, before whoever brings it is answered."""

import hmac
from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from http import HTTPStatus
from typing import Annotated, Literal
from uuid import UUID

import structlog
from cryptography.exceptions import InvalidTag
from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse

from api import multipart
from api.problems import Problem, responses
from api.shapes import Shown
from api.signatures import BadSignature, verify
from api.webhooks import source_of
from domain import parsed_form
from domain.email_addresses import BadEmailError, normalise_email
from domain.link_tokens import subkey
from domain.parsed_form import BadForm
from store import letters
from store.identity import Source
from store.transaction import Origin

router = APIRouter(prefix="/webhooks", tags=["webhooks"])
log = structlog.get_logger()

_RAW = frozenset({"message/rfc822", "message/global"})
_FORM = "multipart/form-data"


class MailReceived(Shown):
    """`new` is false where this letter was here before."""

    received: Literal[True] = True
    letter_id: UUID
    matched_by: Literal["token", "references", "sender"] | None
    new: bool


_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "message/rfc822": {"schema": {"type": "string", "format": "binary"}},
            _FORM: {
                "schema": {
                    "type": "object",
                    "description": "The fields of SendGrid's Inbound Parse, parsed or with the raw mail as `email`.",
                    "properties": {
                        name: {"type": "string"}
                        for name in (
                            "email",
                            "headers",
                            "from",
                            "to",
                            "subject",
                            "text",
                            "html",
                            "envelope",
                            "charsets",
                        )
                    },
                }
            },
        },
    }
}


@router.post(
    "/mail",
    response_model=MailReceived,
    openapi_extra=_BODY,
    responses=responses(
        HTTPStatus.UNAUTHORIZED,
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
        HTTPStatus.UNPROCESSABLE_ENTITY,
        HTTPStatus.SERVICE_UNAVAILABLE,
    ),
)
async def receive_mail(
    request: Request,
    source: Annotated[str | None, Query(description="The source that signs it; HTTP Basic does without.")] = None,
    recipient: Annotated[
        str | None, Query(description="Whom a raw mail was delivered to, where the mail itself does not say.")
    ] = None,
) -> JSONResponse:
    """A mail, as its own bytes or as a provider's form; up to 30 MB.

    Either HTTP Basic with a source's id and secret, or signed by Standard Webhooks with the
    source's id as `source`. A mail that comes again is answered the same, and changes nothing.
    """
    sender = await _sender(request, source)
    raw, recipients = _mail(await request.body(), request.headers.get("content-type", ""), recipient)
    link_key = subkey(request.app.state.master_key)
    came = letters.envelope(raw, recipients=recipients, source=sender.id, link_key=link_key)
    async with request.app.state.database.transaction(sender.org, Origin("source", sender.id)) as tx:
        letter, new = await letters.receive(tx, came)
    log.info("mail_received", source=str(sender.id), letter=str(letter.id), matched_by=letter.matched_by, new=new)
    told = MailReceived(letter_id=letter.id, matched_by=letter.matched_by, new=new)
    headers = None if new else {"Idempotent-Replay": "true"}
    return JSONResponse(told.model_dump(mode="json", by_alias=True), HTTPStatus.OK, headers)


async def _sender(request: Request, source: str | None) -> Source:
    """Who brings it; every failure is the same to them."""
    try:
        if source is not None:
            found = await source_of(request, source)
            verify(request.headers, await request.body(), found.secret, found.at)
            return found
        return await _by_password(request)
    except BadSignature as bad:
        reason = str(bad)
    except InvalidTag:
        reason = "its secret was sealed under another master key"
    log.warning("mail_refused", source=(source or "")[:36], reason=reason)
    raise Problem(
        HTTPStatus.UNAUTHORIZED,
        "UNAUTHORIZED",
        "This is not mail from a source known here.",
        headers={"WWW-Authenticate": 'Basic realm="drumbeat"'},
    )


async def _by_password(request: Request) -> Source:
    """Before anything of the body is read. Raises `BadSignature` and `InvalidTag`."""
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "basic":
        raise BadSignature("neither HTTP Basic nor a signature")
    try:
        name, _, password = b64decode(given, validate=True).partition(b":")
        found = await source_of(request, name.decode())
    except (Base64Error, ValueError):
        raise BadSignature("malformed credentials") from None
    if not hmac.compare_digest(b64encode(found.secret), password.removeprefix(b"whsec_")):
        raise BadSignature("another secret")
    return found


def _mail(body: bytes, content_type: str, recipient: str | None) -> tuple[bytes, tuple[str, ...]]:
    """The raw mail and its envelope's recipients. Refuses only what holds no mail that could be kept."""
    kind = content_type.partition(";")[0].strip().lower()
    if kind == _FORM:
        boundary = multipart.boundary_of(content_type)
        fields = multipart.fields(body, boundary) if boundary else {}
        try:
            return parsed_form.from_form(fields), parsed_form.recipients(fields)
        except BadForm as bad:
            raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, "NO_MAIL", str(bad)) from None
    if kind not in _RAW:
        raise Problem(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "UNSUPPORTED_MEDIA_TYPE", f"Mail comes as {_FORM} or message/rfc822."
        )
    if not body.strip():
        raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, "NO_MAIL", "The body is empty.")
    return body, _normalised(recipient)


def _normalised(recipient: str | None) -> tuple[str, ...]:
    try:
        return (normalise_email(recipient),) if recipient else ()
    except BadEmailError:
        return ()  # the mail's own headers may say
