"""Suppressions: an address that must not be written to, and the end of whatever would have."""

from collections.abc import Collection, Mapping
from typing import Any
from uuid import UUID

from sqlalchemy import select

from domain.words import ExitReason, Suppression
from store import addresses, stops
from store.errors import NotFound
from store.events import Record
from store.tables import contacts, intents
from store.transaction import Transaction

ENDS: Mapping[Suppression, ExitReason] = {
    Suppression.UNSUBSCRIBED: ExitReason.UNSUBSCRIBED,
    Suppression.COMPLAINED: ExitReason.COMPLAINED,
    Suppression.BOUNCED: ExitReason.BOUNCED,
    Suppression.MANUAL: ExitReason.STOPPED,
}


async def unsubscribe(tx: Transaction, message: UUID) -> bool:
    """Whom a message was to does not want more: its address and the contact's present one. False if known already.

    Raises `NotFound`.
    """
    return await of_message(tx, message, Suppression.UNSUBSCRIBED)


async def of_message(tx: Transaction, message: UUID, why: Suppression) -> bool:
    """As `unsubscribe`, for whatever reason."""
    statement = (
        select(intents.c.contact_id, intents.c.address_id, contacts.c.email)
        .join(contacts, (contacts.c.org_id == intents.c.org_id) & (contacts.c.id == intents.c.contact_id))
        .where(intents.c.org_id == tx.org, intents.c.id == message)
    )
    found = (await tx.execute(statement)).one_or_none()
    if found is None:
        raise NotFound("Message")
    locked = {found.address_id: await addresses.lock(tx, found.address_id)}
    if found.email is not None and why is Suppression.UNSUBSCRIBED:
        now = (await addresses.ensure(tx, [found.email]))[found.email]
        locked[now.id] = now
    return await _suppress(tx, locked.values(), {found.contact_id}, why, {"messageId": str(message)})


async def suppress(tx: Transaction, email: str, why: Suppression) -> Record:
    """An address as `normalise_email` spells it, on a person's word."""
    address = (await addresses.ensure(tx, [email]))[email]
    await _suppress(tx, [address], set(await addresses.holders(tx, email)), why, {})
    return await addresses.get(tx, address.id)


async def of_contact(tx: Transaction, contact: UUID, why: Suppression) -> None:
    """A contact's present address, on a person's word."""
    statement = select(contacts.c.email).where(contacts.c.org_id == tx.org, contacts.c.id == contact)
    email = (await tx.execute(statement)).scalar_one_or_none()
    if email is not None:
        await suppress(tx, email, why)


async def release(tx: Transaction, id: UUID) -> Record:
    """It may be written to again; who was taken out stays out. Raises `NotFound`."""
    await addresses.get(tx, id)
    await addresses.release(tx, await addresses.lock(tx, id))
    return await addresses.get(tx, id)


async def _suppress(
    tx: Transaction, locked: Collection[Record], people: Collection[UUID], why: Suppression, evidence: Mapping[str, Any]
) -> bool:
    new = [await addresses.suppress(tx, address, why, dict(evidence)) for address in locked]
    inside = await stops.enrolled(tx, people)
    note = f"message {evidence['messageId']}" if evidence else None
    await stops.end(tx, inside, ENDS[why], note=note)
    return any(new)
