"""What a decision may look at: records as one tree of JSON values, spelled as the API spells them."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any
from uuid import UUID

from pydantic.alias_generators import to_camel
from pydantic_core import to_jsonable_python
from sqlalchemy import ColumnElement, FromClause, Select, Uuid, case, select

from domain.words import Kind
from store.events import Record
from store.rowsets import ORG, among, rows_as, rowset
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
        return {"contact_id": self.contact_id, "company_id": self.company_id, "deal_id": self.deal_id}


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


class Records:
    """Live contacts, companies and deals: each as it was read, or as this transaction has changed it since."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, UUID], _Seen] = {}
        self._read: set[Links] = set()

    async def read(self, tx: Transaction, wanted: Iterable[Links]) -> None:
        """Adds what is not read yet, with what deals and contacts lead to; one statement, however many."""
        missing = set(wanted) - self._read - {Links()}
        if not missing:
            return
        values = {"the_org": tx.org, **rows_as("asked", [one.columns() for one in missing])}
        for row in await tx.execute(_reading(), values):
            found = iter(row)
            for table in (deals, contacts, companies):
                self._add(table.name, {column.name: next(found) for column in table.c})
        self._read |= missing

    def changed(self, root: str, record: Record) -> None:
        """Takes note of a record as this transaction has written it."""
        table = {"deal": deals, "contact": contacts, "company": companies}[root]
        self._add(table.name, {column.name: getattr(record, column.name) for column in table.c})

    def subject(self, links: Links) -> Subject:
        """The records of those links that were read."""
        found: dict[str, Any] = {}
        for root in ("deal", "contact", "company"):
            seen = self._found.get((root, getattr(links, f"{root}_id")))
            found[root] = seen and seen.picture
            links = seen.through(links) if seen else links
        return Subject(links, found)

    def _add(self, table: str, row: Mapping[str, Any]) -> None:
        if row["id"] is not None:
            root = _ROOTS[table].removesuffix("_id")
            self._found[root, row["id"]] = _Seen(picture(row), row.get("contact_id"), row.get("company_id"))


@cache
def _reading() -> Select[Any]:
    """Deals, contacts and companies side by side, of links and of what they lead to."""
    asked = rowset("asked", _LINKS)
    source: FromClause = asked
    links: dict[str, ColumnElement[UUID]] = {name: asked.c[name] for name in _LINKS}
    for table in (deals, contacts, companies):
        here = (table.c.org_id == ORG) & (table.c.id == links[_ROOTS[table.name]]) & table.c.deleted_at.is_(None)
        source = source.outerjoin(table, here)
        through = {name: table.c[name] for name in _LINKS if name in table.c}
        # Not coalesce, of which PostgreSQL does not know that it tells nobody of what it sees: under row-level security
        # no index would be used, and every record of the organization read for each look.
        links |= {name: case((links[name].is_not(None), links[name]), else_=column) for name, column in through.items()}
    columns = [column for table in (deals, contacts, companies) for column in table.c]
    return select(*(column.label(f"{column.table.name}_{column.name}") for column in columns)).select_from(source)


_LINKS = {"contact_id": Uuid(), "company_id": Uuid(), "deal_id": Uuid()}
_ROOTS = {"deals": "deal_id", "contacts": "contact_id", "companies": "company_id"}


@dataclass(frozen=True)
class _Seen:
    picture: Mapping[str, Any]
    contact_id: UUID | None
    company_id: UUID | None

    def through(self, links: Links) -> Links:
        return Links(links.contact_id or self.contact_id, links.company_id or self.company_id, links.deal_id)


async def subjects(tx: Transaction, wanted: Sequence[Links]) -> list[Subject]:
    """One for each of `wanted`, in order; one statement however many there are."""
    records = Records()
    await records.read(tx, wanted)
    return [records.subject(one) for one in wanted]


async def made_by(tx: Transaction, executions: Collection[UUID]) -> dict[UUID, dict[str, tuple[str, UUID]]]:
    """What the recorded steps of executions made: kind and id, by execution and step."""
    statement = select(effects.c.execution_id, effects.c.step, effects.c.made_kind, effects.c.made_id).where(
        effects.c.org_id == tx.org, among(effects.c.execution_id, executions), effects.c.made_id.is_not(None)
    )
    found: dict[UUID, dict[str, tuple[str, UUID]]] = {}
    for row in await tx.execute(statement):
        found.setdefault(row.execution_id, {})[row.step] = (row.made_kind, row.made_id)
    return found


async def as_they_are(tx: Transaction, made: Iterable[tuple[str, UUID]]) -> dict[UUID, dict[str, Any]]:
    """Activities, reminders and messages that steps made, as facts by id; a statement each kind."""
    wanted: dict[str, list[UUID]] = {}
    for kind, id_ in made:
        wanted.setdefault(kind, []).append(id_)
    found: dict[UUID, dict[str, Any]] = {}
    for kind, table in ((Kind.ACTIVITY, activities), (Kind.REMINDER, reminders), (Kind.MESSAGE, intents)):
        if ids := wanted.get(kind):
            columns = [column for column in table.c if column.name not in _NOT_FACTS]
            statement = select(*columns).where(table.c.org_id == tx.org, among(table.c.id, ids))
            found |= {row.id: picture(row._mapping) for row in await tx.execute(statement)}  # noqa: SLF001  (the library's public mapping)
    return found


def picture(row: Mapping[Any, Any]) -> dict[str, Any]:
    """A row as JSON: camelCase names, instants and ids as text."""
    jsonable: dict[str, Any] = to_jsonable_python({_spelled(name): value for name, value in row.items()})
    return jsonable


@lru_cache(maxsize=1000)
def _spelled(name: str) -> str:
    return str(to_camel(name))  # plain, not the library's own kind of name
