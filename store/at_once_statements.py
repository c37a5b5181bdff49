"""The SQL of `store.at_once`: a set of facts in one statement that is a transaction of its own.

A materialized CTE checks that the one who asks still may, and sets the organization; every insert selects from it,
so none runs before row-level security knows whose rows these are. The parameters are the evidence of who asks, the
kind and id of the actor, and the facts: one JSON array of objects, each with the `id` of its record.
"""

from collections.abc import Mapping, Sequence
from functools import cache, lru_cache

from pydantic.alias_generators import to_camel
from sqlalchemy import Table
from sqlalchemy.dialects import postgresql

from domain.words import EventType, Kind
from store.tables import deals

KEPT: Mapping[str, str] = {
    "kept_source": "uuid", "kept_message": "text", "kept_body": "text", "kept_sent_at": "bigint",
    "kept_tolerance": "bigint", "kept_status": "integer", "kept_answer": "jsonb",
}  # fmt: skip
"""What a webhook's fact has beside its record's columns, and of which types."""

_DIALECT = postgresql.dialect()  # type: ignore[no-untyped-call]  # the library's own
_LOCK = "'100ms'"
"""How long one lock is waited for: many wait with it, and the ordinary way can wait longer."""


@lru_cache(maxsize=200)  # which columns there are is up to who sends them
def creating(
    table: Table, event: EventType, kind: Kind, names: tuple[str, ...], resolved: str, evidence: int, *, kept: bool
) -> str:
    """Records of a table with these columns; `kept` where each comes with a webhook's message."""
    types = {name: str(table.c[name].type.compile(_DIALECT)) for name in ("id", *names)}
    types |= KEPT if kept else {}
    actor = _Actor(evidence)
    fact = _fact("made", event, kind, "'{}'::jsonb", _picture("made", names), actor)
    return f"""
        WITH {_org(resolved)},
          {_given(types, evidence)},
          made AS (
            INSERT INTO {table.name} (
              org_id, id, revision, created_by, created_at, updated_at, {", ".join(names)})
            SELECT org.id, given.id, 1, CASE {actor.kind} WHEN 'user' THEN {actor.id} END, org.now, org.now,
              {", ".join(f"given.{name}" for name in names)}
            FROM org CROSS JOIN given{_IN_TIME if kept else ""}
            ON CONFLICT DO NOTHING
            RETURNING *),
          {fact}{_INBOX if kept else ""}
        SELECT {_columns(table)} FROM made"""  # noqa: S608  (names of tables and columns are our own)


_IN_TIME = " WHERE abs(extract(epoch FROM clock_timestamp()) - given.kept_sent_at) <= given.kept_tolerance"
_INBOX = """,
          kept AS (
            INSERT INTO inbox (org_id, source_id, message_id, body, status, answer)
            SELECT made.org_id, kept_source, kept_message, convert_to(kept_body, 'UTF8'), kept_status, kept_answer
            FROM made JOIN given USING (id))"""


@cache
def moving(resolved: str, evidence: int) -> str:
    """Deals, each to another open `stage`.

    They are written by an insert that finds them there: what selects from the CTE runs after it, while an UPDATE
    might be planned to read the deals first, when no organization is set. A locked deal is passed over, so that two
    statements never wait for each other in a circle. A deal is found by its id alone: beside more conditions the
    planner, while it has no statistics, prefers the index of open stages and reads all of them.
    """
    changed = {
        "stage": "before.to_stage", "probability": "to_stage.probability", "outcome": "NULL", "won_at": "NULL",
        "lost_at": "NULL", "actual_close_date": "NULL", "revision": "before.revision + 1", "updated_at": "org.now",
    }  # fmt: skip
    values = ", ".join(changed.get(column.name, f"before.{column.name}") for column in deals.c)
    fact = _fact(
        "after JOIN before USING (id)",
        EventType.DEAL_STAGE_CHANGED,
        Kind.DEAL,
        _picture("before", ("stage",)),
        _picture("after", ("stage",)),
        _Actor(evidence),
        of="after",
    )
    return f"""
        WITH {_org(resolved)},
          {_given({"id": "uuid", "stage": "text"}, evidence)},
          before AS (
            SELECT deal.* FROM org CROSS JOIN given CROSS JOIN LATERAL (
              SELECT deals.*, given.stage AS to_stage FROM deals
              WHERE org_id = org.id AND id = given.id
              OFFSET 0 FOR NO KEY UPDATE SKIP LOCKED) AS deal
            WHERE deal.deleted_at IS NULL AND deal.stage <> deal.to_stage),
          after AS (
            INSERT INTO deals AS deal ({_columns(deals)})
            SELECT {values}
            FROM org CROSS JOIN before CROSS JOIN LATERAL (
              SELECT probability FROM stages
              WHERE org_id = org.id AND pipeline = before.pipeline AND key = before.to_stage AND kind = 'open'
              OFFSET 0) AS to_stage
            ON CONFLICT (org_id, id) DO UPDATE SET {", ".join(f"{name} = excluded.{name}" for name in changed)}
            RETURNING deal.*),
          {fact}
        SELECT {_columns(deals)} FROM after"""  # noqa: S608  (names of tables and columns are our own)


def _columns(table: Table) -> str:
    return ", ".join(column.name for column in table.c)


def _org(resolved: str) -> str:
    return f"""org AS MATERIALIZED (
            SELECT who.org_id AS id, business_now() AS now,
              set_config('app.org', who.org_id::text, true) AS app, set_config('lock_timeout', {_LOCK}, true) AS lock
            FROM {resolved})"""  # noqa: S608  (`resolved` is ours)


class _Actor:
    """The parameters that say who writes, behind those of the evidence."""

    def __init__(self, evidence: int) -> None:
        self.kind, self.id = f"${evidence + 1}::text", f"${evidence + 2}::uuid"


def _given(types: Mapping[str, str], evidence: int) -> str:
    columns = ", ".join(f"{name} {type_}" for name, type_ in types.items())
    return f"given AS MATERIALIZED (SELECT * FROM jsonb_to_recordset(${evidence + 3}::jsonb) AS given ({columns}))"  # noqa: S608  (as above)


def _fact(
    source: str, event: EventType, kind: Kind, before: str, after: str, actor: _Actor, *, of: str = "made"
) -> str:
    return f"""fact AS (
            INSERT INTO events (
              org_id, id, type, subject_kind, subject_id, number, at, before, after, actor_kind, actor_id)
            SELECT {of}.org_id, uuidv7(), '{event.value}', '{kind.value}', {of}.id, {of}.revision, {of}.updated_at,
              {before}, {after}, {actor.kind}, {actor.id}
            FROM {source}
            RETURNING org_id, id),
          queued AS (INSERT INTO outbox (org_id, event_id) SELECT org_id, id FROM fact)"""  # noqa: S608  (as above)


def _picture(source: str, names: Sequence[str]) -> str:
    pairs = ", ".join(f"'{to_camel(name)}', {source}.{name}" for name in names)
    return f"jsonb_build_object({pairs})"
