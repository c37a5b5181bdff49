"""Send: empties a mailbox. Renders, claims, calls, records, one message at a time.

Nothing leaves but from a claim that has committed, no attempt is repeated, and no transaction is
open while a mail server is talked to.
"""

import asyncio
import re
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from ssl import SSLContext
from typing import Any
from uuid import UUID

import structlog
from cryptography.exceptions import InvalidTag
from temporalio import activity
from temporalio.exceptions import ApplicationError

from activities.render import Renderer
from activities.transports import (
    TOO_LATE,
    Accepted,
    MailboxUnready,
    OutboxTransport,
    Outcome,
    Refused,
    SmtpTransport,
    Transport,
    Unknown,
)
from domain.documents import SendEmail
from domain.link_tokens import Purpose, reply_address, subkey, token
from domain.mail import BadMail, Mail, compose, message_id, reply_subject, to_json
from domain.pace import Go
from domain.templates import Content, TemplateError
from domain.words import StuckReason
from store import addresses, definitions, intents, mailboxes, messages, templates
from store.errors import is_transient
from store.events import Record
from store.intents import CLAIM_GRACE, Claim, Unclaimed
from store.messages import Draft
from store.transaction import Database, Transaction
from workflows.contracts import DRAIN, Answer, Mailbox

MOST = 50
"""Messages one call may send."""
SECONDS = 20.0
"""How long one call may be at it, in real time, before it begins another message."""
CALL_SECONDS = 30.0
"""The longest a mail server is waited for."""
NAP = 2.0
"""Gaps up to this many real seconds are slept through; longer ones are the workflow's to wait."""
_BEAT = 3.0
_STALE = re.compile(r"\b5\.(?!1\.)\d{1,3}\.\d{1,3}\b")
"""An enhanced status that says a refusal is about something else than who the recipient is."""

log = structlog.get_logger()


@dataclass(frozen=True)
class Links:
    """Where unsubscribe links lead, without a slash at the end; replies come to `inbound_domain`, if there is one."""

    public_url: str
    inbound_domain: str | None = None


@dataclass(frozen=True)
class _Ready:
    """A message that may be claimed: everything it is written from."""

    mailbox: Record
    draft: Draft
    action: SendEmail
    content: Content
    lost_subject: str
    """The template of the subject that its thread began with, where what that said is not known any more."""
    now: datetime


class Send:
    """The activity function over one database; connections to mail servers are kept between calls."""

    def __init__(
        self, database: Database, master_key: bytes, links: Links, *, tls_context: SSLContext | None = None
    ) -> None:
        self._database = database
        self._master_key = master_key
        self._link_key = subkey(master_key)
        self._links = links
        self._tls_context = tls_context
        self._renderer = Renderer()
        self._transports: dict[UUID, tuple[int, Transport]] = {}
        # A call that Temporal has given up may still be here when its successor comes.
        self._turns: defaultdict[UUID, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def close(self) -> None:
        """Ends the renderer and every connection."""
        await self._renderer.close()
        for _, transport in self._transports.values():
            await transport.close()

    @activity.defn(name=DRAIN)
    async def drain(self, mailbox: Mailbox) -> Answer:
        """Raises only coded `ApplicationError`s, whose text holds no data of any record."""
        try:
            async with _beating():
                return await _to_the_end(self.empty(mailbox.org, mailbox.id))
        except Exception as error:
            code = "database_busy" if is_transient(error) else "unexpected_error"
            if code == "unexpected_error":
                log.exception("drain_failed", mailbox=str(mailbox.id))
            raise ApplicationError(code, type=code) from None

    async def empty(self, org: UUID, mailbox: UUID) -> Answer:
        """Sends what is due, at the mailbox's pace, for as long as one call may."""
        async with self._turns[mailbox]:
            started, sent = time.monotonic(), 0
            while sent < MOST and time.monotonic() - started < SECONDS and not _told_to_end():
                pause = await self._one(org, mailbox)
                if pause is None:
                    return Answer(done=True)
                if pause > NAP:
                    return Answer(seconds=pause)
                sent += pause == 0
                await asyncio.sleep(pause)
        return Answer(seconds=0)

    async def _one(self, org: UUID, mailbox: UUID) -> float | None:
        """Deals with one message. Real seconds until the next may be tried; None until something changes."""
        found = await self._next(org, mailbox)
        if not isinstance(found, _Ready):
            return found
        try:
            transport = await self._transport(found.mailbox)
            await transport.ready()
        except MailboxUnready as unready:
            return await self._trouble(org, mailbox, unready.code, unready.detail)
        id_ = found.draft.row.id
        try:
            mail = await self._write(found)
            raw = compose(mail)
        except (TemplateError, BadMail) as error:
            async with self._database.transaction(org) as tx:
                await intents.unsendable(tx, id_, *_why(error))
            return 0
        began = time.monotonic()
        async with self._database.transaction(org, lock_seconds=2) as tx:
            claim = await intents.claim(
                tx, id_, mailbox, message_id=mail.message_id, rendered=to_json(mail), call_seconds=CALL_SECONDS
            )
        if isinstance(claim, Unclaimed):
            return await self._not_claimed(org, id_, claim)
        if time.monotonic() - began > CLAIM_GRACE:
            # It was frozen on the way: the call might outlast the claim, so there is none.
            outcome: Outcome = TOO_LATE
        else:
            outcome = await transport.send(raw, mail.from_email, mail.to_email, began + claim.seconds)
        return await self._record(org, mailbox, claim, outcome)

    async def _next(self, org: UUID, mailbox: UUID) -> _Ready | float | None:
        async with self._database.transaction(org) as tx:
            await intents.expire(tx, mailbox)
            row = await intents.mailbox(tx, mailbox)
            # What a deleted mailbox was to send is told at once, whatever else is stopped.
            verdict = Go() if row.deleted_at is not None else intents.may_send(tx, row)
            stopped = isinstance(verdict, Unclaimed) and verdict.seconds is None
            id_ = None if stopped else await intents.next_message(tx, mailbox)
            if id_ is None:
                return await intents.seconds_to_next(tx, mailbox)
            if not isinstance(verdict, Go):
                return verdict.seconds
            if row.deleted_at is not None:
                await intents.unsendable(tx, id_, StuckReason.MAILBOX_MISSING, "the mailbox is gone")
                return 0
            draft = await messages.draft(tx, id_)
            if draft.facts["contact"] is None:
                await intents.cancel_to_deleted(tx, draft.row.contact_id)
                return 0
            if draft.email is None:
                await intents.unsendable(tx, id_, StuckReason.EMAIL_MISSING, "the contact has no email address")
                return 0
            address = (await addresses.known(tx, draft.email)).id
            if address != draft.row.address_id:
                await intents.point_to(tx, id_, address)
            action = _action(draft, draft.row.step)
            content = action.content or await _stored(tx, action)
            if content is None:
                await intents.unsendable(tx, id_, StuckReason.TEMPLATE_MISSING, f"template {action.template} is gone")
                return 0
            return _Ready(row, draft, action, content, await _lost_subject(tx, draft), tx.now)

    async def _write(self, found: _Ready) -> Mail:
        """The mail as it is to leave. Raises `TemplateError`."""
        row, box, facts = found.draft.row, found.mailbox, found.draft.facts
        unsubscribe = f"{self._links.public_url}/u/{token(self._link_key, row.id, Purpose.UNSUBSCRIBE)}"
        thread = found.draft.thread if found.action.thread == "same" else ()
        content, own_subject = found.content, found.content.subject.strip()
        answered = thread[0].subject if thread else None
        template = own_subject or ("-" if answered else found.lost_subject if thread else "")
        if not template:
            raise TemplateError("template_broken", "the mail it answers has not left, and it has no subject of its own")
        rendered = await self._renderer.render(
            content.model_copy(update={"subject": template}),
            {
                **facts,
                "sender": {"name": box.from_name, "email": box.from_email},
                "organization": {"name": box.organization_name, "postalAddress": box.postal_address},
                "unsubscribeUrl": unsubscribe,
            },
        )
        subject = rendered.subject if own_subject else reply_subject(answered or rendered.subject)
        domain, inbound = box.from_email.rpartition("@")[2], self._links.inbound_domain
        return Mail(
            message_id=message_id(row.id, domain),
            at=found.now,
            from_name=box.from_name,
            from_email=box.from_email,
            to_email=found.draft.email or "",
            reply_to=reply_address(token(self._link_key, row.id, Purpose.REPLY), inbound) if inbound else None,
            subject=subject,
            text=rendered.text,
            html=rendered.html,
            in_reply_to=thread[-1].message_id if thread else None,
            references=tuple(sent.message_id for sent in thread),
            unsubscribe_url=unsubscribe,
            postal_address=box.postal_address,
        )

    async def _transport(self, mailbox: Record) -> Transport:
        """The mailbox's way out, kept until its settings change."""
        known = self._transports.get(mailbox.id)
        if known is not None:
            revision, transport = known
            if revision == mailbox.revision:
                return transport
            await transport.close()
        made = self._made(mailbox)
        self._transports[mailbox.id] = (mailbox.revision, made)
        return made

    def _made(self, mailbox: Record) -> Transport:
        if mailbox.transport == "outbox":
            return OutboxTransport()
        try:
            password = mailboxes.password(mailbox, self._master_key)
        except InvalidTag:
            raise MailboxUnready("login_refused", "its password was sealed under another master key") from None
        return SmtpTransport(
            mailbox.host,
            mailbox.port,
            mailbox.security,
            mailbox.username,
            password,
            seconds=CALL_SECONDS,
            tls_context=self._tls_context,
        )

    async def _trouble(self, org: UUID, mailbox: UUID, code: str, detail: str) -> float:
        async with self._database.transaction(org) as tx:
            seconds = await mailboxes.be_in_trouble(tx, mailbox, code, detail)
        log.warning("mailbox_in_trouble", mailbox=str(mailbox), code=code, seconds=seconds)
        return seconds

    async def _not_claimed(self, org: UUID, id_: UUID, why: Unclaimed) -> float | None:
        if why.reason == "address_suppressed":
            async with self._database.transaction(org) as tx:
                await intents.not_wanted(tx, id_)
            return 0
        # Whatever forbade it has just been written: the next look finds it.
        return why.seconds if why.seconds is not None else 0.1

    async def _record(self, org: UUID, mailbox: UUID, claim: Claim, outcome: Outcome) -> float:
        """Writes what became of it, for as long as the claim lasts: what cannot be written is uncertain then."""
        until = time.monotonic() + claim.seconds
        pause = 0.1
        while True:
            try:
                async with self._database.transaction(org) as tx:
                    return await _settled(tx, mailbox, claim, outcome)
            except Exception as error:
                if not is_transient(error) or time.monotonic() > until:
                    raise
                log.warning("record_postponed", message=str(claim.id), error=type(error).__name__)
            await asyncio.sleep(pause)
            pause = min(pause * 2, 2.0)


def _action(draft: Draft, step: str) -> SendEmail:
    found = definitions.route(draft.row.execution_kind, draft.row.document)[step].step
    return found.action  # type: ignore[union-attr, return-value]  # only such a step writes messages


async def _lost_subject(tx: Transaction, draft: Draft) -> str:
    if not draft.thread or draft.thread[0].subject is not None:
        return ""
    began = _action(draft, draft.thread[0].step)
    content = began.content or await _stored(tx, began)
    return content.subject.strip() if content else ""


async def _stored(tx: Transaction, action: SendEmail) -> Content | None:
    assert action.template is not None  # noqa: S101  (a mail has one or the other)
    found = await templates.find(tx, action.template)
    return Content.model_validate(found.content) if found else None


def _why(error: Exception) -> tuple[StuckReason, str]:
    match error:
        case TemplateError(code="field_missing"):
            return StuckReason.FIELD_MISSING, error.detail
        case TemplateError():
            return StuckReason.TEMPLATE_BROKEN, error.detail
        case _:
            return StuckReason.TEMPLATE_BROKEN, str(error)


async def _settled(tx: Transaction, mailbox: UUID, claim: Claim, outcome: Outcome) -> float:
    match outcome:
        case Accepted():
            await intents.accepted(tx, claim, outcome.answer)
        case Unknown():
            await intents.lost(tx, claim, outcome.why)
        case Refused(about="mailbox"):
            await intents.postponed(tx, claim, outcome.answer, counts=False)
            return await mailboxes.be_in_trouble(tx, mailbox, "refused", outcome.answer)
        case Refused(permanent=False):
            await intents.postponed(tx, claim, outcome.answer, counts=True)
        case Refused(about="recipient") if not _STALE.search(outcome.answer):
            await intents.refused_address(tx, claim, outcome.answer)
        case Refused():
            await intents.failed(tx, claim, outcome.answer)
    return 0


def _told_to_end() -> bool:
    return activity.in_activity() and (activity.is_worker_shutdown() or activity.is_cancelled())


async def _to_the_end(emptying: Coroutine[Any, Any, Answer]) -> Answer:
    """Its answer; when it is cancelled, only after the message under way: what became of that must be written."""
    work = asyncio.create_task(emptying)
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        await asyncio.gather(work, return_exceptions=True)
        raise


@asynccontextmanager
async def _beating() -> AsyncIterator[None]:
    """Tells Temporal every few seconds that somebody is at it; without it another worker takes over."""

    async def beat() -> None:
        while True:
            activity.heartbeat()
            await asyncio.sleep(_BEAT)

    beats: asyncio.Task[Any] = asyncio.create_task(beat())
    try:
        yield
    finally:
        beats.cancel()
        await asyncio.gather(beats, return_exceptions=True)
