"""Requests already answered: one effect for each key of a caller on a route.

The key's row is written in the transaction of the effect, so both are there or neither is.
"""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import select, update
from sqlalchemy.dialects.postgresql import insert as insert_or
from sqlalchemy.exc import DBAPIError

from store.errors import Refused, is_lock_timeout
from store.tables import idempotency_keys
from store.transaction import Transaction


class KeyReused(Refused):
    """The same key came with another request body."""

    code = "IDEMPOTENCY_KEY_REUSED"


class KeyInUse(Refused):
    """The first request with this key is still under way."""

    code = "IDEMPOTENCY_KEY_IN_USE"


@dataclass(frozen=True)
class Key:
    """What makes two requests one: caller (API key), route, the client's key; and the body's SHA-256."""

    caller: UUID
    route: str
    key: str
    body_hash: bytes


async def claim(tx: Transaction, key: Key) -> tuple[int, Any] | None:
    """None if this request is to be carried out, else the (status, body) it was answered with.

    A request with the same key that is under way is waited for, at most the lock timeout.
    Raises `KeyInUse`, `KeyReused`.
    """
    made = (
        insert_or(idempotency_keys)
        .values(org_id=tx.org, caller=key.caller, route=key.route, key=key.key, body_hash=key.body_hash)
        .on_conflict_do_nothing()
        .returning(idempotency_keys.c.key)
    )
    try:
        claimed = (await tx.execute(made)).one_or_none()
    except DBAPIError as error:
        if is_lock_timeout(error):
            raise KeyInUse("a request with this Idempotency-Key is under way", "Idempotency-Key") from None
        raise
    if claimed is not None:
        return None
    found = (await tx.execute(select(idempotency_keys).where(*_at(tx, key)))).one()
    if found.body_hash != key.body_hash:
        raise KeyReused("this Idempotency-Key was used with another request", "Idempotency-Key")
    return found.status, found.answer


async def keep(tx: Transaction, key: Key, status: int, answer: Any) -> None:  # noqa: ANN401  (JSON)
    await tx.execute(update(idempotency_keys).where(*_at(tx, key)).values(status=status, answer=answer))


def _at(tx: Transaction, key: Key) -> tuple[Any, ...]:
    columns = idempotency_keys.c
    return (
        columns.org_id == tx.org,
        columns.caller == key.caller,
        columns.route == key.route,
        columns.key == key.key,
    )
