"""Messages over HTTP: planned, claimed, accepted, every attempt; and why one has not left yet."""

from datetime import datetime
from http import HTTPStatus
from typing import Annotated, Any, Literal, Self
from uuid import UUID

from fastapi import APIRouter, Query, Response
from pydantic import ConfigDict, Field, StrictBool

from api.auth import Call, may
from api.cursors import Asked, around
from api.idempotency import Answer, Once, may_once
from api.problems import Problem, responses
from api.rfc822 import RFC822, attached
from api.shapes import Given, Many, Shown
from domain.delivery import OVER
from domain.mail import compose, of_json
from domain.pace import NotYet
from domain.words import DefinitionStatus, ExecutionStatus, Kind, MessageStatus, Target
from store import intents, messages
from store.errors import IllegalTransition
from store.events import Record
from store.intents import Unclaimed
from store.transaction import Transaction

router = APIRouter(tags=["mail"])
Reading = Annotated[Call, may("message:read")]


class WhyUnsent(Shown):
    """What keeps a message from leaving; after `seconds` of real time it no longer does, null if that takes a fact."""

    reason: str
    seconds: float | None
    detail: str | None


class Unsent(Shown):
    """A message that is not over. `why` is null where nothing keeps it: it is next."""

    id: UUID
    status: MessageStatus
    due_at: datetime
    why: WhyUnsent | None


class WrittenBy(Shown):
    """The enrollment or run that wrote it, and the version of the sequence or rule it walks."""

    kind: Literal["enrollment", "run"]
    id: UUID
    definition_id: UUID
    definition_name: str
    version: int


class Message(Shown):
    """`dueAt` is the planned instant. `reason` and `detail` say how it came to its status."""

    id: UUID
    status: MessageStatus
    reason: str | None
    detail: str | None
    step: str
    written_by: WrittenBy
    contact_id: UUID
    address_id: UUID
    mailbox_id: UUID
    mailbox_name: str
    due_at: datetime
    accepted_at: datetime | None
    replied_at: datetime | None
    attempts_made: int
    created_at: datetime
    updated_at: datetime

    @classmethod
    def of(cls, row: Record) -> Self:
        return cls(**_columns(row))


class Written(Shown):
    """What it says, as it was rendered for the latest claim."""

    subject: str
    text: str
    html: str
    from_name: str
    from_email: str
    to_email: str
    reply_to: str | None
    message_id: str


class Attempt(Shown):
    """`saw` is what allowed it; without an `outcome` its answer is still awaited."""

    number: int
    claimed_at: datetime
    saw: dict[str, Any]
    outcome: Literal["accepted", "refused", "uncertain"] | None
    answer: str | None
    ended_at: datetime | None


class MessageWhole(Message):
    content: Written | None
    attempts: list[Attempt]
    next: Annotated[Unsent | None, Field(description="Null once it is over.")]


class MessageOne(Shown):
    message: MessageWhole


class MessageMany(Many):
    messages: list[Message]


class OutboxMail(Shown):
    """A mail that the local outbox has kept instead of sending it."""

    id: UUID
    subject: str
    from_email: str
    to_email: str
    contact_id: UUID
    mailbox_id: UUID
    accepted_at: datetime


class OutboxMany(Many):
    messages: list[OutboxMail]


class Settlement(Given):
    """`sent` true: it has left. False: it is sent again, and if it had left after all, its recipient gets it twice."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"sent": True}]})

    sent: StrictBool


class MessageFilters(Asked):
    status: MessageStatus | None = None
    contact: UUID | None = None
    execution: Annotated[UUID | None, Field(description="An enrollment's id, or a run's.")] = None
    mailbox: UUID | None = None


@router.get("/messages")
async def list_messages(asked: Annotated[MessageFilters, Query()], call: Reading) -> MessageMany:
    """Newest first."""
    async with call.transaction() as tx:
        page = await messages.search(tx, asked.span, **asked.filters())
    return MessageMany(messages=[Message.of(row) for row in page.records], **around(page))


@router.get("/outbox")
async def list_outbox(asked: Annotated[Asked, Query()], call: Reading) -> OutboxMany:
    """Newest first: the mails of mailboxes that send nowhere, each to be read as `/messages/{id}/eml`."""
    async with call.transaction() as tx:
        page = await messages.in_outbox(tx, asked.span)
    return OutboxMany(messages=[_outbox_mail(row) for row in page.records], **around(page))


@router.get("/messages/{id}", responses=responses(HTTPStatus.NOT_FOUND))
async def get_message(id: UUID, call: Reading) -> MessageOne:
    """With every attempt, and what keeps it from leaving."""
    async with call.transaction() as tx:
        return await _whole(tx, id)


@router.get("/messages/{id}/eml", response_class=Response, responses={**responses(HTTPStatus.NOT_FOUND), **RFC822})
async def get_message_as_mail(id: UUID, call: Reading) -> Response:
    """The bytes that its server was given, or will be."""
    async with call.transaction() as tx:
        row = await messages.get(tx, id)
    if row.rendered is None:
        raise Problem(
            HTTPStatus.NOT_FOUND, "NOT_RENDERED", "This message has not been written out: that is done when it leaves."
        )
    return attached(compose(of_json(row.rendered)), f"message-{id}.eml")


@router.post(
    "/messages/{id}/settle",
    response_model=MessageOne,
    responses=responses(HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT),
)
async def settle_message(id: UUID, given: Settlement, once: Annotated[Once, may_once("message:write")]) -> Response:
    """A person's word on an uncertain message, whose server did not say whether it took it.

    `{"sent": true}` says that it has left. `{"sent": false}` sends it again: if it had left after
    all, its recipient gets it twice.
    """

    async def settle(tx: Transaction) -> Answer:
        found = await messages.get(tx, id)
        if not await intents.settle(tx, id, sent=given.sent):
            raise IllegalTransition(f"only an uncertain message is settled; this one is {found.status}", "status")
        return Answer(await _whole(tx, id))

    return await once(settle)


async def unsent(tx: Transaction, row: Record) -> Unsent | None:
    """What keeps a message of `store.messages` from leaving; None for one that is over."""
    if row.status in OVER:
        return None
    return Unsent(id=row.id, status=row.status, due_at=row.due_at, why=await _why(tx, row))


async def _why(tx: Transaction, row: Record) -> WhyUnsent | None:
    match MessageStatus(row.status):
        case MessageStatus.PENDING:
            return await _why_pending(tx, row)
        case MessageStatus.HELD:
            paused = row.execution_status == ExecutionStatus.PAUSED
            return WhyUnsent(reason="enrollment_paused" if paused else "held", seconds=None, detail=None)
        case MessageStatus.CLAIMED:
            return WhyUnsent(reason="being_sent", seconds=None, detail=None)
        case status:
            return WhyUnsent(reason=row.reason or status, seconds=None, detail=row.detail)


async def _why_pending(tx: Transaction, row: Record) -> WhyUnsent | None:
    """In the order in which the mailbox itself finds out."""
    mailbox = await intents.mailbox(tx, row.destination_id)
    if row.mailbox_deleted_at is not None:
        return WhyUnsent(reason="mailbox_missing", seconds=None, detail=None)
    if row.suppressed is not None:
        return WhyUnsent(reason="address_suppressed", seconds=None, detail=row.suppressed)
    if row.definition_kind == Kind.SEQUENCE and row.definition_status == DefinitionStatus.PAUSED:
        return WhyUnsent(reason="sequence_paused", seconds=None, detail=None)
    verdict = intents.may_send(tx, mailbox)
    if isinstance(verdict, Unclaimed):
        trouble = mailbox.trouble_detail if verdict.reason == "mailbox_in_trouble" else None
        return WhyUnsent(reason=verdict.reason, seconds=verdict.seconds, detail=trouble)
    if row.due_at > tx.now:
        return WhyUnsent(reason="not_due", seconds=tx.real(row.due_at - tx.now), detail=None)
    if row.not_before is not None and row.not_before > mailbox.real_now:
        left = (row.not_before - mailbox.real_now).total_seconds()
        return WhyUnsent(reason="refused_for_now", seconds=left, detail=row.detail)
    if isinstance(verdict, NotYet):
        return WhyUnsent(reason=verdict.limit, seconds=verdict.seconds, detail=verdict.why)
    return None


async def _whole(tx: Transaction, id: UUID) -> MessageOne:
    row = await messages.get(tx, id)
    attempts = [Attempt.model_validate(one) for one in await messages.attempts_of(tx, id)]
    content = Written.model_validate(of_json(row.rendered)) if row.rendered else None
    whole = MessageWhole(**_columns(row), content=content, attempts=attempts, next=await unsent(tx, row))
    return MessageOne(message=whole)


def _columns(row: Record) -> dict[str, Any]:
    told = {name: getattr(row, name) for name in Message.model_fields if name not in _OTHER_NAMES}
    written_by = WrittenBy(
        kind="enrollment" if row.execution_kind == Target.ENROLLMENT else "run",
        id=row.execution_id,
        definition_id=row.definition_id,
        definition_name=row.definition_name,
        version=row.version,
    )
    return {**told, "written_by": written_by, "mailbox_id": row.destination_id, "attempts_made": row.attempts}


_OTHER_NAMES = frozenset({"written_by", "mailbox_id", "attempts_made"})


def _outbox_mail(row: Record) -> OutboxMail:
    mail = of_json(row.rendered)
    return OutboxMail(
        id=row.id,
        subject=mail.subject,
        from_email=mail.from_email,
        to_email=mail.to_email,
        contact_id=row.contact_id,
        mailbox_id=row.destination_id,
        accepted_at=row.accepted_at,
    )
