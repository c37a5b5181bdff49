"""Facts: a record's write, its event and the event's place in the outbox, as one statement.

An event's number is its subject's revision after the write, so numbers per subject run 1..n
without a gap, in the order of the row's own lock.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any
from uuid import UUID

from pydantic.alias_generators import to_camel
from sqlalchemy import (
    CTE,
    ColumnElement,
    FromClause,
    Row,
    Table,
    case,
    func,
    insert,
    literal,
    or_,
    select,
    true,
    update,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.dialects.postgresql import insert as insert_or
from sqlalchemy.exc import IntegrityError
from sqlalchemy.sql.base import ReadOnlyColumnCollection
from uuid_utils.compat import uuid7

from domain.words import EventType, Kind
from store.errors import Invalid, NotFound, Refused, UnknownReference, UnknownStage
from store.tables import events, outbox
from store.transaction import Transaction

Record = Row[Any]


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
    statement = select(made).add_cte(_queued(fact))
    try:
        return (await tx.execute(statement)).one_or_none()
    except IntegrityError as error:
        raise reference_error(error) or error from None


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
) -> Changed:
    """Writes `values` where any of them differs (IS DISTINCT FROM), with event and outbox row.

    `also` columns are written along but neither compared nor told; `when` is one more condition
    on the row as it stands under its lock. Raises `NotFound`.
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
        .values(
            {**row, **(also or {}), "revision": table.c.revision + 1, "updated_at": tx.now}
        )
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
        .add_cte(_queued(fact))
    )
    try:
        result = (await tx.execute(statement)).one_or_none()
    except IntegrityError as error:
        raise reference_error(error) or error from None
    if result is None:
        raise NotFound(kind.capitalize())
    if not result.changed__:
        return Changed(result, None)
    return Changed(result, {name: getattr(result, f"before__{name}") for name in row})


async def get(tx: Transaction, table: Table, kind: Kind, id: UUID) -> Record:
    """One live record. Raises `NotFound`, also for another organization's id."""
    statement = select(table).where(
        table.c.org_id == tx.org, table.c.id == id, table.c.deleted_at.is_(None)
    )
    record = (await tx.execute(statement)).one_or_none()
    if record is None:
        raise NotFound(kind.capitalize())
    return record


async def of_subject(tx: Transaction, kind: Kind, subject: UUID) -> list[Record]:
    """A subject's history in order, at most its latest 1,000 events."""
    statement = (
        select(events)
        .where(events.c.org_id == tx.org, events.c.subject_kind == kind, events.c.subject_id == subject)
        .order_by(events.c.number.desc())
        .limit(1000)
    )
    return list(reversed((await tx.execute(statement)).all()))


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: value.value if isinstance(value, Enum) else value for name, value in values.items()
    }


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
    """The event of the one row in `source`, if there is one."""
    columns: dict[str, ColumnElement[Any]] = {
        "org_id": literal(tx.org),
        "id": literal(uuid7()),
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


def _queued(fact: CTE) -> CTE:
    return (
        insert(outbox)
        .from_select(["org_id", "event_id"], select(fact.c.org_id, fact.c.id))
        .returning(outbox.c.id)
        .cte("queued")
    )


def _picture(
    columns: ReadOnlyColumnCollection[str, Any], names: Iterable[str]
) -> ColumnElement[Any]:
    """The named columns as one JSON object, spelled as the API spells them."""
    pairs = [part for name in names for part in (literal(to_camel(name)), columns[name])]
    return func.jsonb_build_object(*pairs, type_=JSONB)


def reference_error(error: IntegrityError) -> Refused | None:
    """The refusal that a violated foreign key or CHECK means; None for a unique index.

    Read from the constraint's name, which the database made of the table and its columns.
    """
    cause = getattr(error.orig, "__cause__", None)
    constraint = str(getattr(cause, "constraint_name", "") or "")
    table = str(getattr(cause, "table_name", "") or "")
    name = constraint.removeprefix(f"{table}_")
    if name.endswith("_fkey"):
        column = name.removesuffix("_fkey").removeprefix("org_id_")
        if column == "pipeline_stage":
            return UnknownStage("no such stage in this pipeline", "stage")
        field = to_camel(column)
        return UnknownReference(f"{field} names nothing in this organization", field)
    if name.endswith("_check"):
        field = to_camel(name.removesuffix("_check"))
        return Invalid(f"{field} has a value that is not allowed", field)
    return None
