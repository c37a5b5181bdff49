"""Messages as people and mailboxes read them: what one is to say, where it stands, and every attempt at it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Select, Text, cast, select
from sqlalchemy.orm import aliased

from domain.delivery import LEFT
from domain.words import MessageStatus
from store import facts
from store.errors import NotFound
from store.events import Record
from store.facts import Links
from store.pages import Page, Span, equal, page
from store.tables import addresses, attempts, contacts, definitions, destinations, executions, intents, users, versions
from store.transaction import Transaction


@dataclass(frozen=True)
class Sent:
    """A mail that a further one may answer; `subject` is None where a restored backup never saw it leave."""

    message_id: str
    subject: str | None
    step: str


@dataclass(frozen=True)
class Draft:
    """All that a message is written from: its step's document, the facts as they are, the thread before it.

    `email` is the contact's address now, None where there is none. `thread` is what the execution
    has sent before, oldest first.
    """

    row: Record
    facts: Mapping[str, Any]
    email: str | None
    thread: tuple[Sent, ...]


async def draft(tx: Transaction, id: UUID) -> Draft:
    """What a message says is decided when it leaves, by the version its execution walks."""
    statement = (
        select(
            intents.c.id,
            intents.c.step,
            intents.c.execution_id,
            intents.c.contact_id,
            intents.c.address_id,
            executions.c.kind.label("execution_kind"),
            executions.c.deal_id,
            executions.c.company_id,
            cast(versions.c.document, Text).label("document"),
        )
        .join(executions, (executions.c.org_id == intents.c.org_id) & (executions.c.id == intents.c.execution_id))
        .join(versions, (versions.c.org_id == executions.c.org_id) & (versions.c.id == executions.c.version_id))
        .where(intents.c.org_id == tx.org, intents.c.id == id)
    )
    row = (await tx.execute(statement)).one()
    (subject,) = await facts.subjects(tx, [Links.of(row)])
    contact = subject.facts["contact"]
    owner = await _user(tx, subject.owner)
    return Draft(
        row,
        {**subject.facts, "owner": owner and {"name": owner.name, "email": owner.email}},
        contact and contact["email"],
        await _thread(tx, row),
    )


async def get(tx: Transaction, id: UUID) -> Record:
    """With the names of its sequence or rule and its mailbox. Raises `NotFound`."""
    found = (await tx.execute(_told(tx).where(intents.c.id == id))).one_or_none()
    if found is None:
        raise NotFound("Message")
    return found


async def search(
    tx: Transaction,
    span: Span,
    *,
    status: MessageStatus | None = None,
    contact: UUID | None = None,
    execution: UUID | None = None,
    mailbox: UUID | None = None,
) -> Page:
    """As `get`, many."""
    wanted = {
        intents.c.status: status,
        intents.c.contact_id: contact,
        intents.c.execution_id: execution,
        intents.c.destination_id: mailbox,
    }
    return await page(tx, _told(tx).where(*equal(wanted)), intents.c.id, span)


async def attempts_of(tx: Transaction, id: UUID) -> list[Record]:
    """Every attempt at a message, in order."""
    statement = select(attempts).where(attempts.c.org_id == tx.org, attempts.c.intent_id == id)
    return list((await tx.execute(statement.order_by(attempts.c.number))).all())


async def in_outbox(tx: Transaction, span: Span) -> Page:
    """What the local outbox has kept: accepted messages of mailboxes that send nowhere else."""
    kept = destinations.c.transport == "outbox", intents.c.accepted_at.is_not(None), intents.c.rendered.is_not(None)
    query = _told(tx).where(*kept)
    return await page(tx, query, intents.c.id, span)


async def of_execution(tx: Transaction, execution: UUID) -> list[Record]:
    """The messages of an execution, in the order of its steps."""
    statement = select(intents).where(intents.c.org_id == tx.org, intents.c.execution_id == execution)
    return list((await tx.execute(statement.order_by(intents.c.due_at, intents.c.id))).all())


async def _thread(tx: Transaction, row: Record) -> tuple[Sent, ...]:
    this = aliased(intents)
    statement = (
        select(this.c.message_id, this.c.rendered["subject"].astext.label("subject"), this.c.step)
        .where(
            this.c.org_id == tx.org,
            this.c.execution_id == row.execution_id,
            this.c.id != row.id,
            this.c.status.in_(LEFT),
        )
        .order_by(this.c.accepted_at, this.c.due_at)
    )
    return tuple(Sent(one.message_id, one.subject, one.step) for one in await tx.execute(statement))


async def _user(tx: Transaction, id: UUID | None) -> Record | None:
    statement = select(users.c.name, users.c.email).where(users.c.org_id == tx.org, users.c.id == id)
    return (await tx.execute(statement)).one_or_none()


def _told(tx: Transaction) -> Select[Any]:
    return (
        select(
            intents,
            executions.c.kind.label("execution_kind"),
            executions.c.status.label("execution_status"),
            definitions.c.id.label("definition_id"),
            definitions.c.kind.label("definition_kind"),
            definitions.c.name.label("definition_name"),
            definitions.c.status.label("definition_status"),
            versions.c.number.label("version"),
            destinations.c.name.label("mailbox_name"),
            destinations.c.transport,
            destinations.c.deleted_at.label("mailbox_deleted_at"),
            addresses.c.suppressed,
            contacts.c.owner_id.label("contact_owner_id"),
        )
        .join(executions, (executions.c.org_id == intents.c.org_id) & (executions.c.id == intents.c.execution_id))
        .join(
            definitions,
            (definitions.c.org_id == executions.c.org_id) & (definitions.c.id == executions.c.definition_id),
        )
        .join(versions, (versions.c.org_id == executions.c.org_id) & (versions.c.id == executions.c.version_id))
        .join(
            destinations,
            (destinations.c.org_id == intents.c.org_id) & (destinations.c.id == intents.c.destination_id),
        )
        .join(addresses, (addresses.c.org_id == intents.c.org_id) & (addresses.c.id == intents.c.address_id))
        .join(contacts, (contacts.c.org_id == intents.c.org_id) & (contacts.c.id == intents.c.contact_id))
        .where(intents.c.org_id == tx.org)
    )
