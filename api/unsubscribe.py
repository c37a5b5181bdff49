"""The page behind the unsubscribe link of a mail, and the one click (RFC 8058) of a mail program.

It is for people and mail providers, not for programs, so it is HTML and outside the API's description.
"""

from base64 import b64encode
from hashlib import sha256
from http import HTTPStatus
from string import Template
from uuid import UUID

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse
from sqlalchemy.exc import DBAPIError

from domain.link_tokens import Purpose, read, subkey
from store import intents, suppressions
from store.errors import is_transient
from store.transaction import Origin

router = APIRouter(prefix="/u", include_in_schema=False)

_STYLE = (
    "body{font:16px/1.5 sans-serif;max-width:32rem;margin:15vh auto;padding:0 1rem;color:#222}"
    "button{font:inherit;padding:.5rem 1.25rem}"
)
_PAGE = Template(
    '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
    '<meta name="viewport" content="width=device-width,initial-scale=1">'
    f"<title>$title</title><style>{_STYLE}</style></head>\n"
    "<body><h1>$title</h1>\n$body\n</body></html>\n"
)
_ASKED = _PAGE.substitute(
    title="Unsubscribe",
    body='<form method="post"><p>Do you want no more of this mail?</p>'
    '<input type="hidden" name="List-Unsubscribe" value="One-Click">'
    "<button>Unsubscribe</button></form>",
)
_DONE = _PAGE.substitute(title="Unsubscribed", body="<p>You get no more of this mail.</p>")
_UNKNOWN = _PAGE.substitute(title="Unknown link", body="<p>This link leads nowhere. Is it whole?</p>")
_HEADERS = {
    "Content-Security-Policy": (
        f"default-src 'none'; style-src 'sha256-{b64encode(sha256(_STYLE.encode()).digest()).decode()}'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Robots-Tag": "noindex",
}


@router.api_route("/{token}", methods=["GET", "HEAD"])
async def get_unsubscribe_page(token: str, request: Request) -> HTMLResponse:
    """Asks, and does nothing: scanners of mail open every link."""
    found = await _message(request, token)
    return _told(_ASKED) if found else _not_found()


@router.post("/{token}")
async def unsubscribe_recipient(token: str, request: Request) -> HTMLResponse:
    """Whoever has the link may, with any body, as often as they like."""
    found = await _message(request, token)
    if found is None:
        return _not_found()
    org, message = found
    for last in (False, True):
        try:
            async with request.app.state.database.transaction(org, Origin("recipient")) as tx:
                await suppressions.unsubscribe(tx, message)
            break
        except DBAPIError as error:  # a mail provider may not click twice
            if last or not is_transient(error):
                raise
    return _told(_DONE)


async def _message(request: Request, token: str) -> tuple[UUID, UUID] | None:
    """The organization and the message that a link was made for."""
    message = read(subkey(request.app.state.master_key), token, Purpose.UNSUBSCRIBE)
    org = await intents.organization_of(request.app.state.database, message) if message else None
    return (org, message) if org and message else None


def _not_found() -> HTMLResponse:
    return _told(_UNKNOWN, HTTPStatus.NOT_FOUND)


def _told(page: str, status: HTTPStatus = HTTPStatus.OK) -> HTMLResponse:
    return HTMLResponse(page, status, _HEADERS)
