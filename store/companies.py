"""Companies: what contacts belong to and deals are made with."""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from sqlalchemy import func, select

from domain.words import EventType, Kind
from store import events
from store.errors import Duplicate
from store.events import Changed, Record
from store.tables import companies
from store.transaction import Transaction


async def create(tx: Transaction, values: Mapping[str, Any]) -> Record:
    """Raises `Duplicate` where the externalId is taken."""
    made = await events.create(
        tx, companies, EventType.COMPANY_CREATED, Kind.COMPANY, values, unless_exists=True
    )
    if made is None:
        raise Duplicate("a company with this externalId exists", "externalId", None)
    return made


async def change(tx: Transaction, id: UUID, values: Mapping[str, Any]) -> Changed:
    """Raises `NotFound`."""
    return await events.change(tx, companies, EventType.COMPANY_UPDATED, Kind.COMPANY, id, values)


async def get(tx: Transaction, id: UUID) -> Record:
    return await events.get(tx, companies, Kind.COMPANY, id)


async def named(tx: Transaction, name: str) -> UUID:
    """The oldest company of that name, case aside; made if there is none.

    Two transactions at once wait for each other on the name, so one company is made.
    """
    key = f"company/{tx.org}/{name.casefold()}"
    await tx.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(key, 0))))
    statement = (
        select(companies.c.id)
        .where(
            companies.c.org_id == tx.org,
            func.lower(companies.c.name) == func.lower(name),
            companies.c.deleted_at.is_(None),
        )
        .order_by(companies.c.id)
        .limit(1)
    )
    found: UUID | None = (await tx.execute(statement)).scalar_one_or_none()
    return found or (await create(tx, {"name": name})).id
