"""Facts: a record's write, its event and the event's place in the outbox, as one statement.

An event's number is its subject's revision after the write, so numbers per subject run 1..n
without a gap, in the order of the row's own lock.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import cache, lru_cache
from typing import Any
from uuid import UUID

from pydantic.alias_generators import to_camel
from sqlalchemy import (
    CTE,
    ColumnElement,
    FromClause,
    Row,
    Select,
    Table,
    Text,
    Update,
    any_,
    bindparam,
    case,
    func,
    insert,
    literal,
    or_,
    select,
    true,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.dialects.postgresql import insert as insert_or
from sqlalchemy.sql.base import ReadOnlyColumnCollection
from sqlalchemy.types import TypeEngine
from uuid_utils.compat import uuid7

from domain.match import HEARD
from domain.words import EventType, Kind
from store.errors import NotFound, Stale
from store.pages import Page, Span, equal, page
from store.rowsets import NOW, ORG, rows_as, rowset
from store.tables import events, outbox
from store.transaction import Origin, Transaction

Record = Row[Any]

_BATCH = 1000
"""Rows made by one statement."""
_LONGEST_CHAIN = 20
_SHAPES = 200
"""Statements that are kept of each kind: which columns a change names is up to who sends it."""


@dataclass(frozen=True)
class Fact:
    """An event of a record that a verb has written itself; `number` is its revision after the write."""

    type: EventType
    kind: Kind
    subject: UUID
    number: int
    before: Mapping[str, Any]
    after: Mapping[str, Any]
    chain: Sequence[UUID] = ()
    """What the fact is a consequence of beside what the transaction is: its execution's own chain."""
    origin: Origin | None = None
    """On whose behalf, where not the transaction's own."""


@dataclass(frozen=True)
class Draft:
    """A record to make: all its columns but those that `create_many` knows."""

    id: UUID
    values: Mapping[str, Any]
    origin: Origin | None = None
    """On whose behalf, where not the transaction's own."""

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> "Draft":
        """Of columns with the `id` among them."""
        return cls(row["id"], {name: value for name, value in row.items() if name != "id"})


@dataclass(frozen=True)
class Change:
    """What to write to a record: `values` are compared and told, `also` is written along with them."""

    id: UUID
    values: Mapping[str, Any]
    also: Mapping[str, Any] = field(default_factory=dict)
    origin: Origin | None = None
    """On whose behalf, where not the transaction's own."""


@dataclass(frozen=True)
class Changed:
    """A record after a change; `before` is None where nothing differed and no event was made."""

    record: Record
    before: Mapping[str, Any] | None


async def create(
    tx: Transaction,
    table: Table,
    event: EventType,
    kind: Kind,
    values: Mapping[str, Any],
    *,
    id: UUID | None = None,
    unless_exists: bool = False,
    extra: Mapping[str, ColumnElement[Any]] | None = None,
) -> Record | None:
    """Inserts a record with revision 1, its event and its outbox row.

    `extra` columns are computed in the statement. With `unless_exists` a row in the way of any
    unique index makes the answer None and nothing is written; else `IntegrityError` tells.
    """
    row = {
        **_plain(values),
        "org_id": tx.org,
        "id": id or uuid7(),
        "revision": 1,
        "created_by": tx.origin.id if tx.origin.kind == "user" else None,
        "created_at": tx.now,
        "updated_at": tx.now,
    }
    made_insert = insert_or(table).values({**row, **(extra or {})})
    if unless_exists:
        made_insert = made_insert.on_conflict_do_nothing()
    made = made_insert.returning(*table.c).cte("made")
    fact = _fact(
        event,
        kind,
        source=made,
        subject=made.c.id,
        number=made.c.revision,
        before=literal({}, JSONB),
        after=_picture(made.c, [*values, *(extra or {})]),
        by={name: literal(value, _BY[name]) for name, value in _by(tx.origin).items()},
    )
    statement = select(made).add_cte(_kept(fact, heard=tx.hears(event)))
    return (await tx.write(statement, {"the_org": tx.org, "the_now": tx.now})).one_or_none()


async def create_many(
    tx: Transaction, table: Table, event: EventType, kind: Kind, drafts: Sequence[Draft]
) -> set[UUID]:
    """As `create`, set by set; all name the same columns.

    A record in the way of any unique index is left out; the answer has the ids of the others.
    """
    made: set[UUID] = set()
    for start in range(0, len(drafts), _BATCH):
        made |= await _create_batch(tx, table, event, kind, drafts[start : start + _BATCH])
    return made


async def _create_batch(
    tx: Transaction, table: Table, event: EventType, kind: Kind, drafts: Sequence[Draft]
) -> set[UUID]:
    rows = []
    for draft in drafts:
        by = draft.origin or tx.origin
        user = by.id if by.kind == "user" else None
        rows.append({"id": draft.id, **draft.values, "created_by": user, **_by(by)})
    statement = _creating(table, event, kind, tuple(drafts[0].values), heard=tx.hears(event))
    values = {"the_org": tx.org, "the_now": tx.now, **rows_as("given", rows)}
    return set((await tx.write(statement, values)).scalars())


@lru_cache(maxsize=_SHAPES)
def _creating(table: Table, event: EventType, kind: Kind, names: tuple[str, ...], *, heard: bool) -> Select[Any]:
    given = rowset("given", {**_types(table, ["id", *names, "created_by"]), **_BY})
    written = {
        "id": given.c.id,
        **{name: given.c[name] for name in names},
        "created_by": given.c.created_by,
        "org_id": ORG,
        "revision": literal(1),
        "created_at": NOW,
        "updated_at": NOW,
    }
    made = (
        insert_or(table)
        .from_select(list(written), select(*written.values()))
        .on_conflict_do_nothing()
        .returning(*table.c)
        .cte("made")
    )
    fact = _fact(
        event,
        kind,
        source=made.join(given, given.c.id == made.c.id),
        subject=made.c.id,
        number=made.c.revision,
        before=literal({}, JSONB),
        after=_picture(made.c, names),
        by=given.c,
    )
    return select(made.c.id).add_cte(_kept(fact, heard=heard))


async def tell(tx: Transaction, facts: Sequence[Fact]) -> None:
    """Events and outbox rows of what was written under the records' own locks."""
    for start in range(0, len(facts), _BATCH):
        batch = facts[start : start + _BATCH]
        rows = [_told(tx, fact) for fact in batch]
        statement = _telling(tuple(rows[0]), heard=tx.hears(*(fact.type for fact in batch)))
        await tx.execute(statement, {"the_org": tx.org, "the_now": tx.now, **rows_as("given", rows)})


@cache
def _telling(names: tuple[str, ...], *, heard: bool) -> Select[Any]:
    given = rowset("given", _types(events, names))
    told = select(ORG, NOW, *given.c)
    fact = insert(events).from_select(["org_id", "at", *names], told).returning(*_FACT).cte("fact")
    return select(literal(1)).add_cte(_kept(fact, heard=heard))


def _told(tx: Transaction, fact: Fact) -> dict[str, Any]:
    origin = fact.origin or tx.origin
    return {
        "id": uuid7(),
        "type": fact.type.value,
        "subject_kind": fact.kind.value,
        "subject_id": fact.subject,
        "number": fact.number,
        "before": fact.before,
        "after": fact.after,
        "actor_kind": origin.kind,
        "actor_id": origin.id,
        "chain": list(dict.fromkeys([*fact.chain, *origin.chain]))[:_LONGEST_CHAIN],
        "execution_id": origin.execution,
    }


async def change(
    tx: Transaction,
    table: Table,
    event: EventType,
    kind: Kind,
    id: UUID,
    values: Mapping[str, Any],
    *,
    also: Mapping[str, Any] | None = None,
    when: ColumnElement[bool] | None = None,
    along: Callable[[CTE], Update] | None = None,
) -> Changed:
    """As `change_many`, of one. Raises `NotFound`."""
    if not values:
        return Changed(await get(tx, table, kind, id), None)
    one = Change(id, values, also or {})
    found = await change_many(tx, table, event, kind, [one], when=when, along=along)
    if id not in found:
        raise NotFound(kind.capitalize())
    return found[id]


async def change_many(
    tx: Transaction,
    table: Table,
    event: EventType,
    kind: Kind,
    changes: Sequence[Change],
    *,
    when: ColumnElement[bool] | None = None,
    along: Callable[[CTE], Update] | None = None,
) -> dict[UUID, Changed]:
    """Writes `values` where any of them differs (IS DISTINCT FROM), each record with event and outbox row.

    All changes name the same columns, each another record; one that is not live is left out of the
    answer. `when` is one more condition on a row as it stands under its lock; `along` is one more
    update in the same statement, of what hangs on the changed rows.
    """
    names, more = list(changes[0].values), list(changes[0].also)
    if len({one.id for one in changes}) < len(changes):
        msg = "one record is changed twice by one statement"
        raise ValueError(msg)
    shape = table, event, kind, tuple(names), tuple(more), tx.hears(event), len(changes) > 1
    statement = _changing(*shape) if when is None and along is None else _change(*shape, when, along)
    values = {"the_org": tx.org, "the_now": tx.now, **_given(tx, changes)}
    return {
        row.id: Changed(row, {name: getattr(row, f"before__{name}") for name in names} if row.changed__ else None)
        for row in await tx.write(statement, values)
    }


def _change(
    table: Table,
    event: EventType,
    kind: Kind,
    names: tuple[str, ...],
    more: tuple[str, ...],
    heard: bool,  # noqa: FBT001  (all of them are the key of a cache)
    many: bool,  # noqa: FBT001  (as above)
    when: ColumnElement[bool] | None = None,
    along: Callable[[CTE], Update] | None = None,
) -> Select[Any]:
    """What is written comes as rows to select from: `many` as one parameter, one as a parameter a column."""
    types = {**_types(table, ["id", *names, *more]), **_BY}
    one = (bindparam(f"given_{name}", type_=type_).label(name) for name, type_ in types.items())
    given: FromClause = rowset("given", types) if many else select(*one).subquery("given")
    before = (
        select(table)
        .where(table.c.org_id == ORG, table.c.id.in_(select(given.c.id)), table.c.deleted_at.is_(None))
        .order_by(table.c.id)
        .with_for_update(key_share=True)
        .cte("before")
    )
    differs = or_(*(table.c[name].is_distinct_from(given.c[name]) for name in names))
    after = (
        update(table)
        .where(table.c.org_id == before.c.org_id, table.c.id == before.c.id, given.c.id == before.c.id, differs)
        .where(when if when is not None else true())
        .values(
            {name: given.c[name] for name in (*names, *more)} | {"revision": table.c.revision + 1, "updated_at": NOW}
        )
        .returning(*table.c)
        .cte("after")
    )
    fact = _fact(
        event,
        kind,
        source=after.join(before, before.c.id == after.c.id).join(given, given.c.id == after.c.id),
        subject=after.c.id,
        number=after.c.revision,
        before=_picture(before.c, names),
        after=_picture(after.c, names),
        by=given.c,
    )
    changed = after.c.id.is_not(None)
    statement = (
        select(
            *(case((changed, after.c[c.name]), else_=before.c[c.name]).label(c.name) for c in table.c),
            changed.label("changed__"),
            *(before.c[name].label(f"before__{name}") for name in names),
        )
        .select_from(before.outerjoin(after, after.c.id == before.c.id))
        .add_cte(_kept(fact, heard=heard))
    )
    return statement if along is None else statement.add_cte(along(after).returning(literal(1)).cte("along"))


_changing = lru_cache(maxsize=_SHAPES)(_change)


async def get(tx: Transaction, table: Table, kind: Kind, id: UUID) -> Record:
    """One live record. Raises `NotFound`, also for another organization's id."""
    statement = select(table).where(table.c.org_id == tx.org, table.c.id == id, table.c.deleted_at.is_(None))
    record = (await tx.execute(statement)).one_or_none()
    if record is None:
        raise NotFound(kind.capitalize())
    return record


async def holders(tx: Transaction, table: Table, column: ColumnElement[str], values: Iterable[str]) -> dict[str, UUID]:
    """Which of these values live records have in a column that tells records apart, and whose they are."""
    statement = select(column.label("value"), table.c.id).where(
        table.c.org_id == tx.org, column == any_(literal(list(values), ARRAY(Text))), table.c.deleted_at.is_(None)
    )
    return {row.value: row.id for row in await tx.execute(statement)}


async def search(tx: Transaction, span: Span, *, kind: Kind | None = None, subject: UUID | None = None) -> Page:
    """What happened, to one subject or to all."""
    wanted = equal({events.c.subject_kind: kind, events.c.subject_id: subject})
    query = select(events).where(events.c.org_id == tx.org, *wanted)
    return await page(tx, query, events.c.id, span)


async def bare_change(
    tx: Transaction, table: Table, noun: str, id: UUID, values: Mapping[str, Any], *, expected: int | None
) -> Record:
    """Writes columns of a record that makes no events. Raises `NotFound`; `Stale` unless at revision `expected`."""
    mine = (table.c.org_id == tx.org) & (table.c.id == id) & table.c.deleted_at.is_(None)
    statement = (
        update(table)
        .where(mine, table.c.revision == expected if expected is not None else true())
        .values({**_plain(values), "revision": table.c.revision + 1, "updated_at": tx.now})
        .returning(*table.c)
    )
    changed = (await tx.write(statement)).one_or_none()
    if changed is None:
        found = (await tx.execute(select(table.c.revision).where(mine))).scalar_one_or_none()
        if found is None:
            raise NotFound(noun)
        raise Stale(f"it is at revision {found}, not {expected}")
    return changed


def _given(tx: Transaction, changes: Sequence[Change]) -> dict[str, Any]:
    """The parameters of a `_change`."""
    rows = [{"id": one.id, **_plain(one.values), **_plain(one.also), **_by(one.origin or tx.origin)} for one in changes]
    return rows_as("given", rows) if len(rows) > 1 else {f"given_{name}": value for name, value in rows[0].items()}


def _types(table: Table, names: Iterable[str]) -> dict[str, TypeEngine[Any]]:
    return {name: table.c[name].type for name in names}


_BY: dict[str, TypeEngine[Any]] = {
    "by_kind": events.c.actor_kind.type,
    "by_id": events.c.actor_id.type,
    "by_chain": events.c.chain.type,
    "by_execution": events.c.execution_id.type,
}
"""On whose behalf a row is written, as columns beside its own."""


def _by(origin: Origin) -> dict[str, Any]:
    return dict(zip(_BY, (origin.kind, origin.id, list(origin.chain), origin.execution), strict=True))


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value.value if isinstance(value, Enum) else value for name, value in values.items()}


def _fact(
    event: EventType,
    kind: Kind,
    *,
    source: FromClause,
    subject: ColumnElement[UUID],
    number: ColumnElement[int],
    before: ColumnElement[Any],
    after: ColumnElement[Any],
    by: Mapping[str, ColumnElement[Any]] | ReadOnlyColumnCollection[str, Any],
) -> CTE:
    """An event for each row in `source`; `by` has on whose behalf."""
    columns: dict[str, ColumnElement[Any]] = {
        "org_id": ORG,
        "id": func.uuidv7(),
        "type": literal(event.value),
        "subject_kind": literal(kind.value),
        "subject_id": subject,
        "number": number,
        "at": NOW,
        "before": before,
        "after": after,
        "actor_kind": by["by_kind"],
        "actor_id": by["by_id"],
        "chain": by["by_chain"],
        "execution_id": by["by_execution"],
    }
    return (
        insert(events)
        .from_select(list(columns), select(*columns.values()).select_from(source))
        .returning(*_FACT)
        .cte("fact")
    )


_FACT = (events.c.org_id, events.c.id, events.c.type)


def _kept(fact: CTE, *, heard: bool) -> CTE:
    """The events; if any is to be `heard`, those that may be are queued to be matched."""
    if not heard:
        return fact
    queued = select(fact.c.org_id, fact.c.id).where(fact.c.type.in_(sorted(HEARD)))
    return insert(outbox).from_select(["org_id", "event_id"], queued).returning(outbox.c.id).cte("queued")


def _picture(columns: ReadOnlyColumnCollection[str, Any], names: Iterable[str]) -> ColumnElement[Any]:
    """The named columns as one JSON object, spelled as the API spells them."""
    pairs = [part for name in names for part in (literal(to_camel(name)), columns[name])]
    return func.jsonb_build_object(*pairs, type_=JSONB)
