"""Facts: a record's write, its event and the event's place in the outbox, as one statement.

An event's number is its subject's revision after the write, so numbers per subject run 1..n
without a gap, in the order of the row's own lock.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any
from uuid import UUID

from pydantic.alias_generators import to_camel
from pydantic_core import to_jsonable_python
from sqlalchemy import (
    CTE,
    ColumnElement,
    FromClause,
    Row,
    Table,
    Text,
    Update,
    any_,
    case,
    func,
    insert,
    literal,
    literal_column,
    or_,
    select,
    true,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.dialects.postgresql import insert as insert_or
from sqlalchemy.sql.base import ReadOnlyColumnCollection
from uuid_utils.compat import uuid7

from domain.words import EventType, Kind
from store.errors import NotFound, Stale
from store.pages import Page, Span, equal, page
from store.tables import events, outbox
from store.transaction import Transaction

Record = Row[Any]

_BATCH = 1000
"""Rows made by one statement."""
_LONGEST_CHAIN = 20


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
        tx,
        event,
        kind,
        source=made,
        subject=made.c.id,
        number=made.c.revision,
        before=literal({}, JSONB),
        after=_picture(made.c, [*values, *(extra or {})]),
    )
    statement = select(made).add_cte(_kept(tx, fact))
    return (await tx.write(statement)).one_or_none()


async def create_many(
    tx: Transaction, table: Table, event: EventType, kind: Kind, rows: Sequence[Mapping[str, Any]]
) -> set[UUID]:
    """As `create`, set by set; each row brings its `id`, and all name the same columns.

    A row in the way of any unique index is left out; the answer has the ids of the others.
    """
    made: set[UUID] = set()
    for start in range(0, len(rows), _BATCH):
        made |= await _create_batch(tx, table, event, kind, rows[start : start + _BATCH])
    return made


async def _create_batch(
    tx: Transaction, table: Table, event: EventType, kind: Kind, rows: Sequence[Mapping[str, Any]]
) -> set[UUID]:
    written = {
        "org_id": tx.org,
        "revision": 1,
        "created_by": tx.origin.id if tx.origin.kind == "user" else None,
        "created_at": tx.now,
        "updated_at": tx.now,
    }
    names = [*rows[0], *written]
    # One parameter however many rows, so that one statement serves every batch.
    whole = literal(to_jsonable_python([{**row, **written} for row in rows]), JSONB)
    given = func.jsonb_populate_recordset(literal_column(f"NULL::{table.name}"), whole).table_valued(
        *(table.c[name] for name in names), name="given"
    )
    made = (
        insert_or(table)
        .from_select(names, select(*(given.c[name] for name in names)))
        .on_conflict_do_nothing()
        .returning(*table.c)
        .cte("made")
    )
    fact = _fact(
        tx,
        event,
        kind,
        source=made,
        subject=made.c.id,
        number=made.c.revision,
        before=literal({}, JSONB),
        after=_picture(made.c, [name for name in rows[0] if name != "id"]),
    )
    statement = select(made.c.id).add_cte(_kept(tx, fact))
    return set((await tx.write(statement)).scalars())


async def tell(tx: Transaction, facts: Sequence[Fact]) -> None:
    """Events and outbox rows of what was written under the records' own locks."""
    for start in range(0, len(facts), _BATCH):
        rows = [
            {
                "org_id": tx.org,
                "id": uuid7(),
                "type": fact.type.value,
                "subject_kind": fact.kind.value,
                "subject_id": fact.subject,
                "number": fact.number,
                "at": tx.now,
                "before": to_jsonable_python(fact.before),
                "after": to_jsonable_python(fact.after),
                "actor_kind": tx.origin.kind,
                "actor_id": tx.origin.id,
                "chain": list(dict.fromkeys([*fact.chain, *tx.origin.chain]))[:_LONGEST_CHAIN],
                "execution_id": tx.origin.execution,
            }
            for fact in facts[start : start + _BATCH]
        ]
        # One row alone is a statement that is compiled once; many are compiled each time.
        fact = (
            insert(events)
            .values(rows if len(rows) > 1 else rows[0])
            .returning(events.c.org_id, events.c.id)
            .cte("fact")
        )
        await tx.execute(select(literal(1)).add_cte(_kept(tx, fact)))


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
    """Writes `values` where any of them differs (IS DISTINCT FROM), with event and outbox row.

    `also` columns are written along but neither compared nor told; `when` is one more condition
    on the row as it stands under its lock; `along` is one more update in the same statement,
    of what hangs on the changed row. Raises `NotFound`.
    """
    row = _plain(values)
    if not row:
        found = await get(tx, table, kind, id)
        return Changed(found, None)
    before = (
        select(table)
        .where(table.c.org_id == tx.org, table.c.id == id, table.c.deleted_at.is_(None))
        .with_for_update(key_share=True)
        .cte("before")
    )
    differs = or_(*(table.c[name].is_distinct_from(value) for name, value in row.items()))
    after = (
        update(table)
        .where(table.c.org_id == before.c.org_id, table.c.id == before.c.id, differs)
        .where(when if when is not None else true())
        .values({**row, **(also or {}), "revision": table.c.revision + 1, "updated_at": tx.now})
        .returning(*table.c)
        .cte("after")
    )
    fact = _fact(
        tx,
        event,
        kind,
        source=after.join(before, true()),
        subject=after.c.id,
        number=after.c.revision,
        before=_picture(before.c, row),
        after=_picture(after.c, row),
    )
    changed = after.c.id.is_not(None)
    statement = (
        select(
            *(case((changed, after.c[c.name]), else_=before.c[c.name]).label(c.name) for c in table.c),
            changed.label("changed__"),
            *(before.c[name].label(f"before__{name}") for name in row),
        )
        .select_from(before.outerjoin(after, true()))
        .add_cte(_kept(tx, fact))
    )
    if along is not None:
        statement = statement.add_cte(along(after).returning(literal(1)).cte("along"))
    result = (await tx.write(statement)).one_or_none()
    if result is None:
        raise NotFound(kind.capitalize())
    if not result.changed__:
        return Changed(result, None)
    return Changed(result, {name: getattr(result, f"before__{name}") for name in row})


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


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value.value if isinstance(value, Enum) else value for name, value in values.items()}


def _fact(
    tx: Transaction,
    event: EventType,
    kind: Kind,
    *,
    source: FromClause,
    subject: ColumnElement[UUID],
    number: ColumnElement[int],
    before: ColumnElement[Any],
    after: ColumnElement[Any],
) -> CTE:
    """An event for each row in `source`."""
    columns: dict[str, ColumnElement[Any]] = {
        "org_id": literal(tx.org),
        "id": func.uuidv7(),
        "type": literal(event.value),
        "subject_kind": literal(kind.value),
        "subject_id": subject,
        "number": number,
        "at": literal(tx.now),
        "before": before,
        "after": after,
        "actor_kind": literal(tx.origin.kind),
        "actor_id": literal(tx.origin.id, events.c.actor_id.type),
        "chain": literal(list(tx.origin.chain), events.c.chain.type),
        "execution_id": literal(tx.origin.execution, events.c.execution_id.type),
    }
    return (
        insert(events)
        .from_select(list(columns), select(*columns.values()).select_from(source))
        .returning(events.c.org_id, events.c.id)
        .cte("fact")
    )


def _kept(tx: Transaction, fact: CTE) -> CTE:
    """The event, queued to be matched unless the transaction is unheard."""
    if not tx.heard:
        return fact
    return (
        insert(outbox)
        .from_select(["org_id", "event_id"], select(fact.c.org_id, fact.c.id))
        .returning(outbox.c.id)
        .cte("queued")
    )


def _picture(columns: ReadOnlyColumnCollection[str, Any], names: Iterable[str]) -> ColumnElement[Any]:
    """The named columns as one JSON object, spelled as the API spells them."""
    pairs = [part for name in names for part in (literal(to_camel(name)), columns[name])]
    return func.jsonb_build_object(*pairs, type_=JSONB)
