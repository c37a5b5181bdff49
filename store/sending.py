"""Sending: the one switch that stops all mail of an organization, and what its mail must carry."""

from typing import Any
from uuid import UUID

from sqlalchemy import select, update

from domain.words import MessageStatus, Target
from store import identity, queues
from store.events import Record
from store.tables import intents, organizations
from store.transaction import Transaction


async def stop(tx: Transaction, note: str | None) -> Record:
    """No message is claimed from the commit on; those claimed before stand. Again changes nothing."""
    found = await identity.organization(tx)
    if found.sending_stopped_at is None:
        by = tx.origin.id if tx.origin.kind == "user" else None
        await _write(tx, sending_stopped_at=tx.now, sending_stopped_by=by, sending_note=note)
    return await identity.organization(tx)


async def resume(tx: Transaction) -> Record:
    """What waited goes, each mailbox at its pace."""
    await _write(tx, sending_stopped_at=None, sending_stopped_by=None, sending_note=None)
    unsent = select(intents.c.destination_id).where(
        intents.c.org_id == tx.org, intents.c.status == MessageStatus.PENDING
    )
    mailboxes: list[UUID] = list((await tx.execute(unsent.distinct())).scalars())
    await queues.wake(tx, Target.MAILBOX, mailboxes)
    return await identity.organization(tx)


async def set_postal_address(tx: Transaction, address: str) -> Record:
    """What every mail of a sequence ends with."""
    await _write(tx, postal_address=address)
    return await identity.organization(tx)


async def _write(tx: Transaction, **values: Any) -> None:  # noqa: ANN401  (columns)
    await tx.write(update(organizations).where(organizations.c.id == tx.org).values(**values))
