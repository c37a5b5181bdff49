"""Facts in one statement that is a transaction of its own: who asks, the records, their events, their outbox rows.

For what is asked most often. What one caller asks while a statement of theirs is under way goes together with the
next, so that the busier it is the less each costs. A fact is written whole or not at all: where anything is not as it
was thought to be nothing is written, the answer is None, and the caller goes the ordinary way, a transaction of
several statements, which finds out why and says so.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any
from uuid import UUID

from pydantic_core import to_json
from sqlalchemy import Table
from sqlalchemy.engine.result import result_tuple

from domain.words import EventType, Kind
from store import at_once_statements
from store.events import Record
from store.hints import OUTBOX
from store.tables import deals
from store.transaction import Database, Origin

ABREAST = 2
"""Statements of one caller and one kind at the same time: while one is carried out, the next is gathered."""
MOST = 100
"""Facts in one statement."""


@dataclass(frozen=True)
class Warrant:
    """Who asks, as far as is known; the statement looks again and writes nothing if it is not so (any more).

    `resolved` is the SQL of a row `who` with the organization's id, there only while the warrant holds; its
    parameters are `evidence`.
    """

    origin: Origin
    resolved: str
    evidence: tuple[Any, ...]


@dataclass(frozen=True)
class Kept:
    """A webhook's message and what it is answered, kept along with what it makes.

    It was signed at `sent_at`, in seconds, which may be `tolerance` away from PostgreSQL's real time.
    """

    source: UUID
    message: str
    body: bytes
    sent_at: int
    tolerance: int
    status: int
    answer: Mapping[str, Any]

    def columns(self) -> dict[str, Any]:
        return {name: getattr(self, name.removeprefix("kept_")) for name in at_once_statements.KEPT}


class AtOnce:
    """Over one database."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._queues: dict[_Way, _Queue] = {}

    async def create(
        self,
        warrant: Warrant,
        table: Table,
        event: EventType,
        kind: Kind,
        values: Mapping[str, Any],
        *,
        id: UUID,
        kept: Kept | None = None,
    ) -> Record | None:
        """A new record, as `events.create` makes it; None where a row is in the way of a unique index."""
        statement = at_once_statements.creating(
            table, event, kind, tuple(values), warrant.resolved, len(warrant.evidence), kept=kept is not None
        )
        row = {"id": id, **values, **(kept.columns() if kept else {})}
        return await self._written(_Way(statement, warrant, table), id, row)

    async def move(self, warrant: Warrant, id: UUID, stage: str) -> Record | None:
        """A deal into another open stage of its pipeline, as `deals.move_stage` does it; None while it is locked."""
        statement = at_once_statements.moving(warrant.resolved, len(warrant.evidence))
        return await self._written(_Way(statement, warrant, deals), id, {"id": id, "stage": stage})

    async def _written(self, way: "_Way", id: UUID, row: Mapping[str, Any]) -> Record | None:
        try:
            text = to_json(row)
        except ValueError:  # what JSON cannot hold, no column can
            return None
        queue = self._queues.setdefault(way, _Queue())
        if id in queue.rows:
            return None
        queue.rows[id] = text
        written: asyncio.Future[Record | None] = asyncio.get_running_loop().create_future()
        queue.waiting[id] = written
        if len(queue.writers) < ABREAST:
            writer = asyncio.create_task(self._write(way, queue))
            queue.writers.add(writer)
        return await written

    async def _write(self, way: "_Way", queue: "_Queue") -> None:
        """Statement after statement, until nothing waits."""
        while queue.rows:
            ids = list(queue.rows)[:MOST]
            rows = b"[" + b",".join([queue.rows.pop(id_) for id_ in ids]) + b"]"
            waiting = {id_: queue.waiting.pop(id_) for id_ in ids}
            try:
                found = await self._sent(way, rows.decode())
            except Exception as error:  # noqa: BLE001  (whoever waits for it is told)
                for one in waiting.values():
                    if not one.done():
                        one.set_exception(error)
                continue
            for id_, one in waiting.items():
                if not one.done():  # who asked may have gone
                    one.set_result(found.get(id_))
        queue.writers.discard(asyncio.current_task())
        if not queue.writers:
            self._queues.pop(way, None)

    async def _sent(self, way: "_Way", rows: str) -> dict[UUID, Record]:
        origin = way.warrant.origin
        values = (*way.warrant.evidence, origin.kind, origin.id, rows)
        made = map(_row_of(way.table), await self._database.at_once(way.statement, values, hints=[OUTBOX]))
        return {row.id: row for row in made}


@dataclass(frozen=True)
class _Way:
    """What can go in one statement; `table` is what it answers rows of."""

    statement: str
    warrant: Warrant
    table: Table


@dataclass
class _Queue:
    """What is to be written in one way, by the record's id: as JSON, and who waits for it."""

    rows: dict[UUID, bytes] = field(default_factory=dict)
    waiting: dict[UUID, asyncio.Future[Record | None]] = field(default_factory=dict)
    writers: set[Any] = field(default_factory=set)


@cache
def _row_of(table: Table) -> Any:  # noqa: ANN401  (the library does not say)
    """Makes a row of the kind the ordinary way answers."""
    return result_tuple([column.name for column in table.c])
