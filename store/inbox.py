"""Webhooks already received: stored once, answered the same for ever after."""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import select, update
from sqlalchemy.dialects.postgresql import insert as insert_or

from store.tables import inbox
from store.transaction import Transaction


@dataclass(frozen=True)
class Answer:
    """What the sender is told; `replayed` when it was told before."""

    status: int
    body: dict[str, Any]
    replayed: bool = False


async def take(tx: Transaction, source: UUID, message: str, body: bytes) -> Answer | None:
    """Claims a message; the stored answer if it came before, None if it is new.

    A second delivery at the same moment waits for the first to commit or roll back. What the
    claimer answers it must `settle` in this transaction.
    """
    claim = (
        insert_or(inbox)
        .values(org_id=tx.org, source_id=source, message_id=message, body=body, status=0, answer={})
        .on_conflict_do_nothing()
        .returning(inbox.c.message_id)
    )
    if (await tx.execute(claim)).one_or_none() is not None:
        return None
    known = select(inbox.c.status, inbox.c.answer).where(*_key(tx, source, message))
    found = (await tx.execute(known)).one()
    return Answer(found.status, found.answer, replayed=True)


async def settle(tx: Transaction, source: UUID, message: str, answer: Answer) -> None:
    await tx.execute(update(inbox).where(*_key(tx, source, message)).values(status=answer.status, answer=answer.body))


def _key(tx: Transaction, source: UUID, message: str) -> tuple[Any, ...]:
    return inbox.c.org_id == tx.org, inbox.c.source_id == source, inbox.c.message_id == message
