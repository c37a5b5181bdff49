"""Addresses: hashed email addresses, whether they may be written to, and the lock that claims and stops share.

Only the hash is kept, under the organization's own salt, so that a suppression outlives the contact.
"""

from collections.abc import Collection
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, func, literal, select, text, union_all, update
from uuid_utils.compat import uuid7

from domain.words import EventType, Kind, Suppression
from store import events
from store.errors import NotFound
from store.events import Fact, Record
from store.pages import Page, Span, equal, page
from store.tables import addresses, contacts
from store.transaction import Transaction

_ENSURE = text("""
WITH given AS MATERIALIZED (
  SELECT DISTINCT ON (hash_address(email)) hash_address(email) AS hash, email, id
  FROM unnest(CAST(:emails AS text[]), CAST(:ids AS uuid[])) AS asked(email, id)
), kept AS (
  INSERT INTO addresses AS a (org_id, id, hash, revision, created_at, updated_at)
  SELECT app_org(), id, hash, 0, :now, :now FROM given ORDER BY hash
  ON CONFLICT (org_id, hash) DO UPDATE SET updated_at = a.updated_at
  RETURNING a.*
)
SELECT given.email, kept.* FROM kept JOIN given USING (hash)
""")


async def ensure(tx: Transaction, emails: Collection[str]) -> dict[str, Record]:
    """The row of each address (as `normalise_email` spells it), made where it is new; all are locked.

    One order for all callers, so that two at once wait for each other and never in a circle.
    """
    wanted = sorted(set(emails))
    if not wanted:
        return {}
    values = {"emails": wanted, "ids": [uuid7() for _ in wanted], "now": tx.now}
    return {row.email: row for row in await tx.execute(_ENSURE, values)}


async def known(tx: Transaction, email: str) -> Record:
    """The row of an address, made where it is new; an old one is not locked."""
    return (await known_many(tx, [email]))[email]


_KNOWN = text("""
SELECT email, a.* FROM unnest(CAST(:emails AS text[])) AS asked(email)
JOIN addresses a ON a.org_id = app_org() AND a.hash = hash_address(email)
""")


async def known_many(tx: Transaction, emails: Collection[str]) -> dict[str, Record]:
    """As `known`, by address as it was given."""
    wanted = sorted(set(emails))
    found = {row.email: row for row in await tx.execute(_KNOWN, {"emails": wanted})}
    return found | await ensure(tx, [email for email in wanted if email not in found])


async def lock(tx: Transaction, id: UUID) -> Record:
    """As it is once nobody else is at it. What is decided by it is read in statements after this one."""
    statement = select(addresses).where(addresses.c.org_id == tx.org, addresses.c.id == id)
    return (await tx.execute(statement.with_for_update(key_share=True))).one()


async def suppress(tx: Transaction, address: Record, why: Suppression, evidence: dict[str, Any]) -> bool:
    """Nothing more is claimed for a locked address from the commit on; False if it is suppressed already.

    `evidence` is ids and codes that the event keeps. Who is enrolled with it is stopped by `store.stops`.
    """
    return await _move(
        tx,
        address,
        EventType.ADDRESS_SUPPRESSED,
        {"suppressed": why.value, "suppressed_at": tx.now},
        addresses.c.suppressed.is_(None),
        {"suppressed": why.value, **evidence},
    )


async def release(tx: Transaction, address: Record) -> bool:
    """It may be written to again, on a person's word; False if it was not suppressed."""
    return await _move(
        tx,
        address,
        EventType.ADDRESS_RELEASED,
        {"suppressed": None, "suppressed_at": None},
        addresses.c.suppressed.is_not(None),
        {"suppressed": None},
    )


async def get(tx: Transaction, id: UUID) -> Record:
    """Raises `NotFound`."""
    statement = select(addresses).where(addresses.c.org_id == tx.org, addresses.c.id == id)
    found = (await tx.execute(statement)).one_or_none()
    if found is None:
        raise NotFound("Address")
    return found


async def by_email(tx: Transaction, email: str) -> Record | None:
    """An address that was ever enrolled, written to or suppressed."""
    statement = select(addresses).where(addresses.c.org_id == tx.org, addresses.c.hash == func.hash_address(email))
    return (await tx.execute(statement)).one_or_none()


async def search(tx: Transaction, span: Span, *, suppressed: Suppression | None = None) -> Page:
    """Suppressed addresses, newest first; of one kind if named."""
    query = select(addresses).where(addresses.c.org_id == tx.org, addresses.c.suppressed.is_not(None))
    return await page(tx, query.where(*equal({addresses.c.suppressed: suppressed})), addresses.c.id, span)


async def _move(
    tx: Transaction,
    address: Record,
    event: EventType,
    values: dict[str, Any],
    when: ColumnElement[bool],
    after: dict[str, Any],
) -> bool:
    statement = (
        update(addresses)
        .where(addresses.c.org_id == tx.org, addresses.c.id == address.id, when)
        .values(**values, revision=addresses.c.revision + 1, updated_at=tx.now)
        .returning(addresses.c.revision)
    )
    revision = (await tx.execute(statement)).scalar_one_or_none()
    if revision is None:
        return False
    before = {"suppressed": address.suppressed}
    await events.tell(tx, [Fact(event, Kind.ADDRESS, address.id, revision, before, after)])
    return True


async def holders(tx: Transaction, email: str) -> list[UUID]:
    """The contact whose address it is, and then the deleted whose it was; `email` as `normalise_email` spells it."""
    mine = select(contacts.c.id).where(contacts.c.org_id == tx.org, contacts.c.email == email)
    # Two parts, each by an index of its own.
    both = union_all(
        mine.add_columns(literal(0).label("gone")).where(contacts.c.deleted_at.is_(None)),
        mine.add_columns(literal(1).label("gone")).where(contacts.c.deleted_at.is_not(None)),
    )
    return list((await tx.execute(both.order_by(both.selected_columns.gone, both.selected_columns.id))).scalars())
