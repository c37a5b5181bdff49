"""Contacts: one person each, one live contact per email address."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError

from domain.words import EventType, ExitReason, Kind, LeadStatus
from store import addresses, events, intents, stops
from store.at_once import AtOnce, Kept, Warrant
from store.errors import Duplicate, DuplicateEmail
from store.events import Change, Changed, Draft, Record
from store.pages import Page, Span, equal, page
from store.tables import companies, contacts
from store.transaction import Transaction


async def create(tx: Transaction, values: Mapping[str, Any]) -> Record:
    """Raises `DuplicateEmail` or `Duplicate`, naming the contact that exists."""
    made = await _create(tx, values)
    if made is None:
        raise await _duplicate(tx, values)
    return made


async def create_at_once(
    at_once: AtOnce, warrant: Warrant, values: Mapping[str, Any], *, id: UUID, kept: Kept | None = None
) -> Record | None:
    """As `create`, in one statement; None if that could not be, and nothing was written."""
    event, kind = EventType.CONTACT_CREATED, Kind.CONTACT
    return await at_once.create(warrant, contacts, event, kind, values, id=id, kept=kept)


async def upsert(tx: Transaction, values: Mapping[str, Any]) -> tuple[Record, bool]:
    """Creates, or changes the contact with this email; the answer tells whether it was created.

    `values` must have `email`. A field that is None leaves what is there.
    """
    made = await _create(tx, values)
    if made is not None:
        return made, True
    existing = await by_email(tx, values["email"])
    if existing is None:
        raise await _duplicate(tx, values)
    given = {name: value for name, value in values.items() if value is not None and name != "email"}
    return (await change(tx, existing.id, given)).record, False


async def change(tx: Transaction, id: UUID, values: Mapping[str, Any]) -> Changed:
    """Raises `NotFound`; `DuplicateEmail` where a new address is another contact's."""
    if "email" not in values:
        return await _change(tx, id, values)
    try:
        async with tx.savepoint():
            return await _change(tx, id, values)
    except IntegrityError:
        raise await _duplicate(tx, values) from None


async def change_many(tx: Transaction, changes: Sequence[Change]) -> dict[UUID, Changed]:
    """Of those that are there; all change the same fields, never the email, each of another contact."""
    return await events.change_many(tx, contacts, EventType.CONTACT_UPDATED, Kind.CONTACT, changes)


async def delete(tx: Transaction, id: UUID) -> None:
    """Hides a contact for good; its address is free for another. Raises `NotFound`, also for a deleted one.

    Its enrollments end, and nothing that is still to be sent to it is claimed from the commit on.
    """
    found = await get(tx, id)
    if found.email is not None:
        await addresses.ensure(tx, [found.email])  # who claims or enrolls has it locked, and sees that afterwards
    await events.change(tx, contacts, EventType.CONTACT_DELETED, Kind.CONTACT, id, {"deleted_at": tx.now})
    await stops.end(tx, await stops.enrolled(tx, [id]), ExitReason.CONTACT_DELETED)
    await intents.cancel_to_deleted(tx, id)


async def get(tx: Transaction, id: UUID) -> Record:
    return await events.get(tx, contacts, Kind.CONTACT, id)


async def create_many(tx: Transaction, rows: Sequence[Mapping[str, Any]]) -> set[UUID]:
    """Creates those nobody is in the way of, each row with an `id` of its own; the ids of the new ones."""
    # One order for all: two imports at once wait for each other and never in a circle.
    ordered = [Draft.of(row) for row in sorted(rows, key=lambda row: str(row["email"]))]
    return await events.create_many(tx, contacts, EventType.CONTACT_CREATED, Kind.CONTACT, ordered)


async def by_emails(tx: Transaction, emails: Iterable[str]) -> dict[str, UUID]:
    """The contacts of those addresses that have one, as `domain.email_addresses` normalises them."""
    return await events.holders(tx, contacts, contacts.c.email, emails)


async def by_external_ids(tx: Transaction, external_ids: Iterable[str]) -> dict[str, UUID]:
    return await events.holders(tx, contacts, contacts.c.external_id, external_ids)


async def search(
    tx: Transaction,
    span: Span,
    *,
    q: str | None = None,
    email: str | None = None,
    tag: str | None = None,
    status: LeadStatus | None = None,
    owner: UUID | None = None,
) -> Page:
    """Live contacts; `q` is found anywhere in a name, an address or the company's name."""
    query = select(contacts).where(contacts.c.org_id == tx.org, contacts.c.deleted_at.is_(None))
    query = query.where(*equal({contacts.c.lead_status: status, contacts.c.owner_id: owner}))
    if q is not None:
        employers = select(companies.c.id).where(
            companies.c.org_id == tx.org, companies.c.name.icontains(q, autoescape=True)
        )
        name = func.concat_ws(" ", contacts.c.first_name, contacts.c.last_name)
        query = query.where(
            name.icontains(q, autoescape=True)
            | contacts.c.email.icontains(q, autoescape=True)
            | contacts.c.company_id.in_(employers)
        )
    if email is not None:
        query = query.where(contacts.c.email == email.lower())
    if tag is not None:
        query = query.where(contacts.c.tags.contains([tag]))
    return await page(tx, query, contacts.c.id, span)


async def by_email(tx: Transaction, email: str) -> Record | None:
    """`email` as `domain.email_addresses` normalises it."""
    statement = select(contacts).where(
        contacts.c.org_id == tx.org,
        contacts.c.email == email,
        contacts.c.deleted_at.is_(None),
    )
    return (await tx.execute(statement)).one_or_none()


async def _create(tx: Transaction, values: Mapping[str, Any]) -> Record | None:
    return await events.create(tx, contacts, EventType.CONTACT_CREATED, Kind.CONTACT, values, unless_exists=True)


async def _change(tx: Transaction, id: UUID, values: Mapping[str, Any]) -> Changed:
    return await events.change(tx, contacts, EventType.CONTACT_UPDATED, Kind.CONTACT, id, values)


async def _duplicate(tx: Transaction, values: Mapping[str, Any]) -> Duplicate:
    email, external_id = values.get("email"), values.get("external_id")
    existing = await by_email(tx, email) if email else None
    if existing is not None:
        return DuplicateEmail(f"a contact with {email} exists", "email", existing.id)
    found = await by_external_ids(tx, [external_id] if external_id else [])
    return Duplicate("a contact with this externalId exists", "externalId", found.get(external_id or ""))
