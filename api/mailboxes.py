"""Mailboxes over HTTP: whom mail is from, what it leaves through, and at what pace."""

from collections.abc import Callable
from datetime import datetime
from http import HTTPStatus
from typing import Annotated, Any, Literal
from unicodedata import category
from uuid import UUID

from fastapi import APIRouter, Query, Response
from pydantic import AfterValidator, ConfigDict, Field, StrictInt, StringConstraints
from pydantic_core import PydanticCustomError

from api.auth import Call, may
from api.cursors import Asked, around
from api.idempotency import Answer, Once, may_once
from api.problems import responses
from api.revisions import Expected, etag
from api.shapes import Change, Email, Given, Many, Shown, storable
from domain.hosts import is_this_machine
from domain.mail import BadMail, header_value, wire_address
from domain.pace import Pace
from store import mailboxes
from store.errors import Invalid
from store.events import Record
from store.transaction import Transaction

router = APIRouter(prefix="/mailboxes", tags=["mail"])
Reading = Annotated[Call, may("mailbox:read")]
Writing = Annotated[Call, may("mailbox:write")]
WritingOnce = Annotated[Once, may_once("mailbox:write")]


def _mailable(check: Callable[[str, str], str]) -> AfterValidator:
    """Refuses what no mail could carry."""

    def checked(text: str) -> str:
        try:
            check("value", text)
        except BadMail as bad:
            raise PydanticCustomError("bad_header", "{why}", {"why": bad.why[:1].upper() + bad.why[1:]}) from None
        return text

    return AfterValidator(checked)


def _on_one_line(text: str) -> str:
    if any(category(character) == "Cc" for character in text):
        raise PydanticCustomError("control_character", "It has a line break or another control character.")
    return storable(text)


_OnOneLine = AfterValidator(_on_one_line)
Transport = Literal["outbox", "smtp"]
Security = Literal["starttls", "tls", "none"]
FromName = Annotated[str, Field(min_length=1, max_length=100), _mailable(header_value)]
FromEmail = Annotated[Email, _mailable(wire_address)]
Password = Annotated[
    str,
    StringConstraints(strip_whitespace=False, min_length=1, max_length=1000),
    Field(json_schema_extra={"format": "password", "writeOnly": True}),
    _OnOneLine,
]


class Mailbox(Shown):
    """The password is never told. `trouble` says why its server cannot be had, and `retryAt` when it is tried again."""

    id: UUID
    name: str
    owner_id: UUID | None
    from_name: str
    from_email: str
    transport: Transport
    host: str | None
    port: int | None
    security: Security | None
    username: str | None
    pace: Pace
    paused_at: datetime | None
    trouble: str | None
    trouble_detail: str | None
    trouble_since: datetime | None
    retry_at: datetime | None
    revision: int
    created_by: UUID | None
    created_at: datetime
    updated_at: datetime


class MailboxOne(Shown):
    mailbox: Mailbox


class MailboxMany(Many):
    mailboxes: list[Mailbox]


class _Fields(Given):
    owner_id: UUID | None = None
    transport: Transport = "outbox"
    host: Annotated[str, Field(max_length=255, pattern=r"^[A-Za-z0-9][A-Za-z0-9.:_-]*$|^::1$")] | None = None
    port: Annotated[StrictInt, Field(ge=1, le=65535)] | None = None
    security: Annotated[Security, Field(description="`none` only to this machine itself.")] | None = None
    username: Annotated[str, Field(min_length=1, max_length=320), _OnOneLine] | None = None
    password: Password | None = None
    pace: Pace = Pace()

    def columns(self) -> dict[str, Any]:
        """Without the password, which is sealed, and with the pace as it is kept."""
        told = super().columns()
        told.pop("password", None)
        if "pace" in told:
            told["pace"] = self.pace.model_dump(mode="json", by_alias=True, exclude_defaults=True)
        return told


class NewMailbox(_Fields):
    """One without an owner sends for whoever has none of their own. The `outbox` keeps its mail here and sends none."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "name": "Rob",
                    "fromName": "Rob Rep",
                    "fromEmail": "rob@acme.example.com",
                    "transport": "smtp",
                    "host": "smtp.acme.example.com",
                    "port": 587,
                    "security": "starttls",
                    "username": "rob@acme.example.com",
                    "password": "a password of the mail server",
                    "pace": {
                        "perHour": 30,
                        "spacing": 20,
                        "hours": [
                            {"weekdays": ["mon", "tue", "wed", "thu", "fri"], "opens": "09:00", "closes": "17:00"}
                        ],
                    },
                }
            ]
        }
    )

    name: Annotated[str, Field(min_length=1, max_length=100), _OnOneLine]
    from_name: FromName
    from_email: FromEmail


class MailboxChange(Change, _Fields):
    """What is left out stays; `pace` is replaced whole, and a null password is none."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"pace": {"perDay": 200}}]})

    name: Annotated[str, Field(min_length=1, max_length=100), _OnOneLine] = ""
    from_name: FromName = ""
    from_email: FromEmail = ""


@router.post("", status_code=HTTPStatus.CREATED, response_model=MailboxOne, responses=responses(HTTPStatus.CONFLICT))
async def create_mailbox(given: NewMailbox, once: WritingOnce) -> Response:
    """Its server is spoken to when the first message leaves."""
    columns = {"transport": given.transport, **given.columns()}
    _reachable(columns)

    async def create(tx: Transaction) -> Answer:
        made = await mailboxes.create(tx, columns, given.password, once.call.master_key)
        return Answer.created(_one(made), f"/api/v1/mailboxes/{made.id}", etag(made))

    return await once(create)


@router.get("")
async def list_mailboxes(asked: Annotated[Asked, Query()], call: Reading) -> MailboxMany:
    """Newest first."""
    async with call.transaction() as tx:
        page = await mailboxes.search(tx, asked.span)
    return MailboxMany(mailboxes=[Mailbox.model_validate(row) for row in page.records], **around(page))


@router.get("/{id}", responses=responses(HTTPStatus.NOT_FOUND))
async def get_mailbox(id: UUID, call: Reading, response: Response) -> MailboxOne:
    async with call.transaction() as tx:
        found = await mailboxes.get(tx, id)
    response.headers.update(etag(found))
    return _one(found)


@router.patch(
    "/{id}",
    responses=responses(
        HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT, HTTPStatus.PRECONDITION_FAILED, HTTPStatus.PRECONDITION_REQUIRED
    ),
)
async def update_mailbox(
    id: UUID, given: MailboxChange, expected: Expected, call: Writing, response: Response
) -> MailboxOne:
    """Whatever troubled it is tried again at once."""
    columns = given.columns()
    password = (given.password or "") if "password" in given.model_fields_set else None
    async with call.transaction() as tx:
        found = await mailboxes.get(tx, id)
        _reachable({name: columns.get(name, getattr(found, name)) for name in ("transport", *_SERVER)})
        changed = await mailboxes.change(tx, id, columns, password, call.master_key, expected=expected)
    response.headers.update(etag(changed))
    return _one(changed)


@router.post("/{id}/pause", response_model=MailboxOne, responses=responses(HTTPStatus.NOT_FOUND))
async def pause_mailbox(id: UUID, once: WritingOnce) -> Response:
    """Nothing more leaves through it; what is to leave waits. Again changes nothing."""

    async def pause(tx: Transaction) -> Answer:
        found = await mailboxes.pause(tx, id)
        return Answer(_one(found), headers=etag(found))

    return await once(pause)


@router.post("/{id}/resume", response_model=MailboxOne, responses=responses(HTTPStatus.NOT_FOUND))
async def resume_mailbox(id: UUID, once: WritingOnce) -> Response:
    """What waited leaves at its pace, and whatever troubled it is tried again at once."""

    async def resume(tx: Transaction) -> Answer:
        found = await mailboxes.resume(tx, id)
        return Answer(_one(found), headers=etag(found))

    return await once(resume)


@router.delete("/{id}", status_code=HTTPStatus.NO_CONTENT, responses=responses(HTTPStatus.NOT_FOUND))
async def delete_mailbox(id: UUID, call: Writing) -> None:
    """What was to leave through it asks a person when its turn comes."""
    async with call.transaction() as tx:
        await mailboxes.delete(tx, id)


_SERVER = ("host", "port", "security")


def _reachable(columns: dict[str, Any]) -> None:
    """Raises `Invalid` where a mail server is not named whole, or is spoken to in clear over a network."""
    if columns["transport"] == "smtp":
        for name in _SERVER:
            if columns.get(name) is None:
                raise Invalid(f"a mail server is named by its {', '.join(_SERVER)}; {name} is missing", name)
    if columns.get("security") == "none" and not is_this_machine(columns.get("host")):
        raise Invalid("without encryption only this machine itself may be spoken to", "security")


def _one(mailbox: Record) -> MailboxOne:
    return MailboxOne(mailbox=Mailbox.model_validate(mailbox))
