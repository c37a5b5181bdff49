"""What a decision may look at: records as one tree of JSON values, spelled as the API spells them."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from pydantic.alias_generators import to_camel
from pydantic_core import to_jsonable_python
from sqlalchemy import Table, select

from domain.words import Kind
from store.events import Record
from store.tables import activities, companies, contacts, deals, effects, intents, reminders
from store.transaction import Transaction

_NOT_FACTS = ("search", "rendered", "token", "deadline")


@dataclass(frozen=True)
class Links:
    """The records an execution or a reminder is about."""

    contact_id: UUID | None = None
    company_id: UUID | None = None
    deal_id: UUID | None = None

    @classmethod
    def of(cls, row: Record) -> "Links":
        return cls(row.contact_id, row.company_id, row.deal_id)

    @classmethod
    def to(cls, kind: str, id: UUID) -> "Links":
        """The one record an event is about; an activity is none of the three."""
        name = f"{kind}_id"
        return cls(**{name: id}) if name in cls.__dataclass_fields__ else cls()

    def columns(self) -> dict[str, UUID | None]:
        return {
            "contact_id": self.contact_id, "company_id": self.company_id, "deal_id": self.deal_id
        }  # fmt: skip


@dataclass(frozen=True)
class Subject:
    """The records that were found, and the links completed through them: deal → contact → company."""

    links: Links
    facts: Mapping[str, Any]

    @property
    def owner(self) -> UUID | None:
        """Who looks after it: the deal's owner, else the contact's, else the company's."""
        for root in ("deal", "contact", "company"):
            owner = (self.facts.get(root) or {}).get("ownerId")
            if owner:
                return UUID(owner)
        return None


async def subjects(tx: Transaction, wanted: Sequence[Links]) -> list[Subject]:
    """One for each of `wanted`, in order; at most three statements however many there are."""
    found_deals = await _by_id(tx, deals, {one.deal_id for one in wanted})
    through_deal = [_through(one, found_deals.get(one.deal_id)) for one in wanted]
    found_contacts = await _by_id(tx, contacts, {one.contact_id for one in through_deal})
    links = [_through(one, found_contacts.get(one.contact_id)) for one in through_deal]
    found_companies = await _by_id(tx, companies, {one.company_id for one in links})
    return [
        Subject(
            one,
            {
                "deal": picture(found_deals.get(one.deal_id)),
                "contact": picture(found_contacts.get(one.contact_id)),
                "company": picture(found_companies.get(one.company_id)),
            },
        )
        for one in links
    ]


async def made_by(tx: Transaction, execution: UUID) -> dict[str, Any]:
    """The records an execution's steps made, by step id, as they are now."""
    made: dict[str, Any] = {}
    for kind, table in ((Kind.ACTIVITY, activities), (Kind.REMINDER, reminders), (Kind.MESSAGE, intents)):
        statement = (
            select(effects.c.step, table)
            .join(table, (table.c.org_id == effects.c.org_id) & (table.c.id == effects.c.made_id))
            .where(
                effects.c.org_id == tx.org,
                effects.c.execution_id == execution,
                effects.c.made_kind == kind,
            )
        )
        for row in await tx.execute(statement):
            made[row.step] = picture(row, _NOT_FACTS)
    return made


def picture(record: Record | None, leave_out: Collection[str] = ("search",)) -> dict[str, Any] | None:
    """A row as JSON: camelCase names, instants and ids as text; None for no row."""
    if record is None:
        return None
    row = {to_camel(k): v for k, v in record._mapping.items() if k not in leave_out}  # noqa: SLF001  (the library's public mapping)
    jsonable: dict[str, Any] = to_jsonable_python(row)
    return jsonable


def _through(links: Links, record: Record | None) -> Links:
    if record is None:
        return links
    has = record._mapping  # noqa: SLF001  (the library's public mapping)
    return Links(
        links.contact_id or has.get("contact_id"),
        links.company_id or has.get("company_id"),
        links.deal_id,
    )


async def _by_id(tx: Transaction, table: Table, ids: Collection[UUID | None]) -> dict[UUID | None, Record]:
    wanted = [id_ for id_ in ids if id_ is not None]
    if not wanted:
        return {}
    statement = select(table).where(table.c.org_id == tx.org, table.c.id.in_(wanted), table.c.deleted_at.is_(None))
    return {row.id: row for row in await tx.execute(statement)}
