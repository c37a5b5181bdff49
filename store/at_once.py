"""A fact in one statement that is a transaction of its own: who asks, the record, its event, its outbox row.

For what is asked most often. A materialized CTE checks that the one who asks still may, and sets the organization;
every insert selects from it, so none runs before row-level security knows whose rows these are. The statement does
all of it or nothing: where anything is not as it was thought to be, nothing is written, the answer is None, and the
caller goes the ordinary way, a transaction of several statements, which finds out why and says so.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cache
from itertools import count
from typing import Any
from uuid import UUID

from pydantic.alias_generators import to_camel
from sqlalchemy import Table
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.engine.result import result_tuple

from domain.words import EventType, Kind
from store.events import Record
from store.tables import deals
from store.transaction import Database, Origin

_DIALECT = postgresql.dialect()  # type: ignore[no-untyped-call]  # the library's own
_LOCK = "'5s'"
"""How long one lock is waited for, as in any transaction."""


@dataclass(frozen=True)
class Warrant:
    """Who asks, as far as is known; the statement looks again and writes nothing if it is not so (any more).

    `resolved` is the SQL of a row `who` with the organization's id, there only while the warrant holds; its
    parameters are `evidence`.
    """

    origin: Origin
    resolved: str
    evidence: tuple[Any, ...]


async def create(
    database: Database,
    warrant: Warrant,
    table: Table,
    event: EventType,
    kind: Kind,
    values: Mapping[str, Any],
    *,
    id: UUID,
    kept: "Kept | None" = None,
) -> Record | None:
    """A new record, as `events.create` makes it; None where a row is in the way of a unique index."""
    names = tuple(values)
    statement = _creating(table, event, kind, names, warrant.resolved, len(warrant.evidence), kept=kept is not None)
    given = [_given(table, name, value) for name, value in values.items()]
    also = () if kept is None else (kept.source, kept.message, kept.body, kept.status, json.dumps(kept.answer))
    return await _written(database, warrant, table, statement, [id, *given, *also])


async def move(database: Database, warrant: Warrant, id: UUID, stage: str) -> Record | None:
    """A deal into another open stage of its pipeline, as `deals.move_stage` does it."""
    statement = _moving(warrant.resolved, len(warrant.evidence))
    return await _written(database, warrant, deals, statement, [id, stage])


@dataclass(frozen=True)
class Kept:
    """A webhook's message and what it is answered, kept along with what it makes."""

    source: UUID
    message: str
    body: bytes
    status: int
    answer: Mapping[str, Any]


async def _written(
    database: Database, warrant: Warrant, table: Table, statement: str, values: Sequence[Any]
) -> Record | None:
    origin = warrant.origin
    found = await database.at_once(statement, (*warrant.evidence, origin.kind, origin.id, *values))
    return None if found is None else _row_of(table)(found)


@cache
def _creating(
    table: Table, event: EventType, kind: Kind, names: tuple[str, ...], resolved: str, evidence: int, *, kept: bool
) -> str:
    number = count(evidence + 1)
    actor_kind, actor, id_ = f"${next(number)}::text", f"${next(number)}::uuid", f"${next(number)}::uuid"
    values = [f"${next(number)}::{table.c[name].type.compile(_DIALECT)}" for name in names]
    fact = _fact("made", event, kind, "'{}'::jsonb", _picture("made", names), actor_kind, actor)
    return f"""
        WITH {_org(resolved)},
          made AS (
            INSERT INTO {table.name} (
              org_id, id, revision, created_by, created_at, updated_at, {", ".join(names)})
            SELECT org.id, {id_}, 1, CASE {actor_kind} WHEN 'user' THEN {actor} END, org.now, org.now,
              {", ".join(values)}
            FROM org
            ON CONFLICT DO NOTHING
            RETURNING *),
          {fact}{_inbox(number) if kept else ""}
        SELECT {_columns(table)} FROM made"""  # noqa: S608  (names of tables and columns are our own)


def _inbox(number: Iterator[int]) -> str:
    source, message, body, status, answer = (f"${next(number)}" for _ in range(5))
    return f""",
          kept AS (
            INSERT INTO inbox (org_id, source_id, message_id, body, status, answer)
            SELECT org_id, {source}::uuid, {message}::text, {body}::bytea, {status}::integer, {answer}::jsonb
            FROM made)"""  # noqa: S608  (as above)


@cache
def _moving(resolved: str, evidence: int) -> str:
    """The deal is written by an insert that finds it there: what selects from the CTE runs after it.

    An UPDATE might be planned to read the deals first, when no organization is set.
    """
    number = count(evidence + 1)
    actor_kind, actor = f"${next(number)}::text", f"${next(number)}::uuid"
    id_, stage = f"${next(number)}::uuid", f"${next(number)}::text"
    changed = {
        "stage": stage, "probability": "to_stage.probability", "outcome": "NULL", "won_at": "NULL", "lost_at": "NULL",
        "actual_close_date": "NULL", "revision": "before.revision + 1", "updated_at": "org.now",
    }  # fmt: skip
    values = ", ".join(changed.get(column.name, f"before.{column.name}") for column in deals.c)
    return f"""
        WITH {_org(resolved)},
          before AS (
            SELECT deal.* FROM org CROSS JOIN LATERAL (
              SELECT * FROM deals
              WHERE org_id = org.id AND id = {id_} AND deleted_at IS NULL AND stage <> {stage}
              FOR NO KEY UPDATE) AS deal),
          after AS (
            INSERT INTO deals AS deal ({_columns(deals)})
            SELECT {values}
            FROM org CROSS JOIN before CROSS JOIN LATERAL (
              SELECT probability FROM stages
              WHERE org_id = org.id AND pipeline = before.pipeline AND key = {stage} AND kind = 'open'
              OFFSET 0) AS to_stage
            ON CONFLICT (org_id, id) DO UPDATE SET {", ".join(f"{name} = excluded.{name}" for name in changed)}
            RETURNING deal.*),
          {
        _fact(
            "after CROSS JOIN before",
            EventType.DEAL_STAGE_CHANGED,
            Kind.DEAL,
            _picture("before", ("stage",)),
            _picture("after", ("stage",)),
            actor_kind,
            actor,
            of="after",
        )
    }
        SELECT {_columns(deals)} FROM after"""  # noqa: S608  (names of tables and columns are our own)


def _columns(table: Table) -> str:
    return ", ".join(column.name for column in table.c)


def _org(resolved: str) -> str:
    return f"""org AS MATERIALIZED (
            SELECT who.org_id AS id, business_now() AS now,
              set_config('app.org', who.org_id::text, true) AS app, set_config('lock_timeout', {_LOCK}, true) AS lock
            FROM {resolved})"""  # noqa: S608  (`resolved` is ours)


def _fact(
    source: str, event: EventType, kind: Kind, before: str, after: str, actor_kind: str, actor: str, *, of: str = "made"
) -> str:
    return f"""fact AS (
            INSERT INTO events (
              org_id, id, type, subject_kind, subject_id, number, at, before, after, actor_kind, actor_id)
            SELECT {of}.org_id, uuidv7(), '{event.value}', '{kind.value}', {of}.id, {of}.revision, {of}.updated_at,
              {before}, {after}, {actor_kind}, {actor}
            FROM {source}
            RETURNING org_id, id),
          queued AS (INSERT INTO outbox (org_id, event_id) SELECT org_id, id FROM fact)"""  # noqa: S608  (as above)


def _picture(source: str, names: Sequence[str]) -> str:
    pairs = ", ".join(f"'{to_camel(name)}', {source}.{name}" for name in names)
    return f"jsonb_build_object({pairs})"


@cache
def _row_of(table: Table) -> Any:  # noqa: ANN401  (the library does not say)
    """Makes a row of the kind the ordinary way answers."""
    return result_tuple([column.name for column in table.c])


def _given(table: Table, name: str, value: Any) -> Any:  # noqa: ANN401  (a column's)
    if isinstance(value, Enum):
        return value.value
    return json.dumps(value) if isinstance(table.c[name].type, JSONB) else value
