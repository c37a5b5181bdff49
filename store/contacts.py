"""Contacts: one person each, one live contact per email address."""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError

from domain.words import EventType, Kind
from store import events
from store.errors import Duplicate, DuplicateEmail
from store.events import Changed, Record
from store.tables import contacts
from store.transaction import Transaction


async def create(tx: Transaction, values: Mapping[str, Any]) -> Record:
    """Raises `DuplicateEmail` or `Duplicate`, naming the contact that exists."""
    made = await _create(tx, values)
    if made is None:
        raise await _duplicate(tx, values)
    return made


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
    given = {
        name: value for name, value in values.items() if value is not None and name != "email"
    }
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


async def get(tx: Transaction, id: UUID) -> Record:
    return await events.get(tx, contacts, Kind.CONTACT, id)


async def by_email(tx: Transaction, email: str) -> Record | None:
    """`email` as `domain.email_addresses` normalises it."""
    statement = select(contacts).where(
        contacts.c.org_id == tx.org,
        func.lower(contacts.c.email) == email,
        contacts.c.deleted_at.is_(None),
    )
    return (await tx.execute(statement)).one_or_none()


async def _create(tx: Transaction, values: Mapping[str, Any]) -> Record | None:
    return await events.create(
        tx, contacts, EventType.CONTACT_CREATED, Kind.CONTACT, values, unless_exists=True
    )


async def _change(tx: Transaction, id: UUID, values: Mapping[str, Any]) -> Changed:
    return await events.change(tx, contacts, EventType.CONTACT_UPDATED, Kind.CONTACT, id, values)


async def _duplicate(tx: Transaction, values: Mapping[str, Any]) -> Duplicate:
    email = values.get("email")
    existing = await by_email(tx, email) if email else None
    if existing is not None:
        return DuplicateEmail(f"a contact with {email} exists", "email", existing.id)
    statement = select(contacts.c.id).where(
        contacts.c.org_id == tx.org, contacts.c.external_id == values.get("external_id")
    )
    found = (await tx.execute(statement)).scalar_one_or_none()
    return Duplicate("a contact with this externalId exists", "externalId", found)
