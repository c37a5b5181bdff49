"""Companies: what contacts belong to and deals are made with."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import Text, any_, func, literal, select
from sqlalchemy.dialects.postgresql import ARRAY
from uuid_utils.compat import uuid7

from domain.words import EventType, Kind
from store import events
from store.errors import Duplicate
from store.events import Change, Changed, Draft, Record
from store.pages import Page, Span, equal, page
from store.tables import companies
from store.transaction import Transaction


async def create(tx: Transaction, values: Mapping[str, Any]) -> Record:
    """Raises `Duplicate` where the externalId is taken."""
    made = await events.create(tx, companies, EventType.COMPANY_CREATED, Kind.COMPANY, values, unless_exists=True)
    if made is None:
        taken = values["external_id"]
        held = await events.holders(tx, companies, companies.c.external_id, [taken])
        raise Duplicate("a company with this externalId exists", "externalId", held.get(taken))
    return made


async def change(tx: Transaction, id: UUID, values: Mapping[str, Any]) -> Changed:
    """Raises `NotFound`."""
    return await events.change(tx, companies, EventType.COMPANY_UPDATED, Kind.COMPANY, id, values)


async def change_many(tx: Transaction, changes: Sequence[Change]) -> dict[UUID, Changed]:
    """As `change`, of those that are there; all change the same fields, each of another company."""
    return await events.change_many(tx, companies, EventType.COMPANY_UPDATED, Kind.COMPANY, changes)


async def get(tx: Transaction, id: UUID) -> Record:
    return await events.get(tx, companies, Kind.COMPANY, id)


async def search(tx: Transaction, span: Span, *, q: str | None = None, owner: UUID | None = None) -> Page:
    """Live companies; `q` is found anywhere in a name or a domain."""
    query = select(companies).where(companies.c.org_id == tx.org, companies.c.deleted_at.is_(None))
    query = query.where(*equal({companies.c.owner_id: owner}))
    if q is not None:
        query = query.where(
            companies.c.name.icontains(q, autoescape=True) | companies.c.domain.icontains(q, autoescape=True)
        )
    return await page(tx, query, companies.c.id, span)


async def named(tx: Transaction, names: Iterable[str]) -> dict[str, UUID]:
    """The oldest company of each name, case aside; made if there is none.

    Keys are the names as given. Until this transaction ends no other in the organization comes
    past here, so of two at once one makes a company and the other finds it.
    """
    wanted = {name: name.lower() for name in names}
    if not wanted:
        return {}
    key = func.hashtextextended(f"companies.named/{tx.org}", 0)
    await tx.execute(select(func.pg_advisory_xact_lock(key)))
    folded = func.lower(companies.c.name)
    statement = (
        select(folded.label("name"), companies.c.id)
        .where(
            companies.c.org_id == tx.org,
            folded == any_(literal(list(wanted.values()), ARRAY(Text))),
            companies.c.deleted_at.is_(None),
        )
        .order_by(companies.c.id.desc())
    )
    found = {row.name: row.id for row in await tx.execute(statement)}
    missing = {low: name for name, low in wanted.items() if low not in found}
    drafts = [Draft(uuid7(), {"name": name}) for name in missing.values()]
    await events.create_many(tx, companies, EventType.COMPANY_CREATED, Kind.COMPANY, drafts)
    found.update(zip(missing, (draft.id for draft in drafts), strict=True))
    return {name: found[low] for name, low in wanted.items()}
