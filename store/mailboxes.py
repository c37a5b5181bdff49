"""Mailboxes: destinations that mail leaves through, who they speak for, and what troubles them."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import func, select, text, update
from sqlalchemy.dialects.postgresql import insert as insert_or
from uuid_utils.compat import uuid7

from domain.words import Target
from store import queues
from store.errors import Duplicate, NotFound
from store.events import Record, bare_change
from store.pages import Page, Span, page
from store.sealing import seal, unseal
from store.tables import destinations
from store.transaction import Transaction

_LONGEST_PAUSE = timedelta(seconds=60)
CALM: Mapping[str, Any] = {
    "trouble": None, "trouble_detail": None, "trouble_since": None, "failures": 0, "retry_at": None,
}  # fmt: skip
"""The columns of a mailbox that nothing troubles."""


@dataclass(frozen=True)
class Senders:
    """The mailboxes of an organization, by whom they speak for."""

    ids: frozenset[UUID]
    of_owner: Mapping[UUID, UUID]
    shared: UUID | None

    def choose(self, owner: UUID | None, wanted: UUID | None) -> UUID | None:
        """The one that is wanted; where none is, the owner's own, else the oldest that is nobody's own and sends."""
        if wanted is not None:
            return wanted if wanted in self.ids else None
        return (self.of_owner.get(owner) if owner else None) or self.shared


async def create(tx: Transaction, values: Mapping[str, Any], password: str | None, master: bytes) -> Record:
    """`values` are columns; the password is kept sealed. Raises `Duplicate`, `Invalid`, `UnknownReference`."""
    id_ = uuid7()
    row = {
        **values,
        "org_id": tx.org,
        "id": id_,
        "kind": "mailbox",
        "sealed_password": _sealed(master, id_, password),
        "revision": 1,
        "created_by": tx.origin.id if tx.origin.kind == "user" else None,
        "created_at": tx.now,
        "updated_at": tx.now,
    }
    made = insert_or(destinations).values(row).on_conflict_do_nothing().returning(*destinations.c)
    found = (await tx.write(made)).one_or_none()
    if found is None:
        raise Duplicate(f"a mailbox named '{values['name']}' exists", "name", await _named(tx, values["name"]))
    return found


async def change(
    tx: Transaction,
    id: UUID,
    values: Mapping[str, Any],
    password: str | None,
    master: bytes,
    *,
    expected: int | None,
) -> Record:
    """Whatever troubled it is tried again. Raises `NotFound`, `Stale`, `Duplicate`, `Invalid`, `UnknownReference`."""
    row = {**values, **CALM}
    if "name" in values:
        existing = await _named(tx, values["name"])
        if existing not in (None, id):
            raise Duplicate(f"a mailbox named '{values['name']}' exists", "name", existing)
    if password is not None:
        row["sealed_password"] = _sealed(master, id, password)
    changed = await bare_change(tx, destinations, "Mailbox", id, row, expected=expected)
    await queues.wake(tx, Target.MAILBOX, [id])
    return changed


async def pause(tx: Transaction, id: UUID) -> Record:
    """Nothing more is claimed for it. Raises `NotFound`."""
    values = {"paused_at": func.coalesce(destinations.c.paused_at, tx.now)}
    return await bare_change(tx, destinations, "Mailbox", id, values, expected=None)


async def resume(tx: Transaction, id: UUID) -> Record:
    """What waited goes, at its pace; what troubled it is tried again. Raises `NotFound`."""
    found = await bare_change(tx, destinations, "Mailbox", id, {"paused_at": None, **CALM}, expected=None)
    await queues.wake(tx, Target.MAILBOX, [id])
    return found


async def delete(tx: Transaction, id: UUID) -> None:
    """What was to leave through it is stuck when its turn comes, and asks a person. Raises `NotFound`."""
    await bare_change(tx, destinations, "Mailbox", id, {"deleted_at": tx.now, "paused_at": None, **CALM}, expected=None)
    await queues.wake(tx, Target.MAILBOX, [id])


async def get(tx: Transaction, id: UUID) -> Record:
    """Raises `NotFound`."""
    statement = select(*_shown()).where(
        destinations.c.org_id == tx.org, destinations.c.id == id, destinations.c.deleted_at.is_(None)
    )
    found = (await tx.execute(statement)).one_or_none()
    if found is None:
        raise NotFound("Mailbox")
    return found


async def search(tx: Transaction, span: Span) -> Page:
    query = select(*_shown()).where(destinations.c.org_id == tx.org, destinations.c.deleted_at.is_(None))
    return await page(tx, query, destinations.c.id, span)


async def senders(tx: Transaction) -> Senders:
    sends = destinations.c.transport != "outbox"  # one that keeps its mail here is for want of another
    statement = (
        select(destinations.c.id, destinations.c.owner_id)
        .where(destinations.c.org_id == tx.org, destinations.c.deleted_at.is_(None))
        .order_by(sends, destinations.c.created_at.desc(), destinations.c.id.desc())
    )
    rows = (await tx.execute(statement)).all()
    shared = [row.id for row in rows if row.owner_id is None]
    own = {row.owner_id: row.id for row in rows if row.owner_id is not None}
    return Senders(frozenset(row.id for row in rows), own, shared[-1] if shared else None)


def password(mailbox: Record, master: bytes) -> str | None:
    if mailbox.sealed_password is None:
        return None
    return unseal(master, mailbox.sealed_password, _place(mailbox.id)).decode()


async def be_in_trouble(tx: Transaction, id: UUID, code: str, detail: str) -> float:
    """Its server cannot be had: nothing is tried for 1, 2, 4 … 60 real seconds. How many."""
    pause = func.least(func.power(2, func.least(destinations.c.failures, 6)), _LONGEST_PAUSE.total_seconds())
    statement = (
        update(destinations)
        .where(destinations.c.org_id == tx.org, destinations.c.id == id)
        .values(
            trouble=code,
            trouble_detail=detail[:500],
            trouble_since=func.coalesce(destinations.c.trouble_since, tx.now),
            failures=destinations.c.failures + 1,
            retry_at=func.clock_timestamp() + text("interval '1 second'") * pause,
        )
        .returning(func.extract("epoch", destinations.c.retry_at - func.clock_timestamp()))
    )
    return float((await tx.execute(statement)).scalar_one())


def _shown() -> list[Any]:
    return [column for column in destinations.c if column is not destinations.c.sealed_password]


def _sealed(master: bytes, id: UUID, password: str | None) -> bytes | None:
    return seal(master, password.encode(), _place(id)) if password else None


def _place(id: UUID) -> bytes:
    return b"destinations.sealed_password/" + id.bytes


async def _named(tx: Transaction, name: str) -> UUID | None:
    statement = select(destinations.c.id).where(
        destinations.c.org_id == tx.org,
        func.lower(destinations.c.name) == name.lower(),
        destinations.c.deleted_at.is_(None),
    )
    return (await tx.execute(statement)).scalar_one_or_none()
