"""One organization, one instant, one commit."""

from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, cast
from uuid import UUID

import asyncpg
import structlog
from pydantic_core import from_json, to_json
from sqlalchemy import CursorResult, Executable, text
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.util import await_only, greenlet_spawn

from domain.match import HEARD
from domain.words import EventType
from store.errors import is_undone, reference_error
from store.hints import OUTBOX, Hinting

AT_ONCE_SECONDS = 10.0
"""How long a statement may take that is a transaction of its own: the next ones of its caller wait behind it."""

log = structlog.get_logger()


@dataclass(frozen=True)
class Origin:
    """Who or what writes: kept on every event. `chain` holds the rules that led here, oldest first."""

    kind: str
    id: UUID | None = None
    chain: tuple[UUID, ...] = ()
    execution: UUID | None = None


SYSTEM = Origin("system")


@dataclass(frozen=True)
class Transaction:
    """An open transaction of one organization.

    `now` is business time, read once, in the statement that set the organization; `scale` is
    how many business seconds pass in a real one.
    """

    connection: AsyncConnection
    org: UUID
    now: datetime
    scale: float
    origin: Origin = field(default=SYSTEM)
    heard: bool = True
    """Whether rules hear the facts it records."""
    hints: set[str] = field(default_factory=set)
    """The queues it puts something into, which are hinted at once it is committed."""

    async def execute(
        self,
        statement: Executable,
        values: Any = None,  # noqa: ANN401  (the library's own type)
    ) -> CursorResult[Any]:
        return await self.connection.execute(statement, values)

    def acting(self, origin: Origin) -> "Transaction":
        """The same transaction, writing on behalf of another origin."""
        return replace(self, origin=origin)

    def unheard(self) -> "Transaction":
        """The same transaction, whose facts are recorded but start nothing."""
        return replace(self, heard=False)

    def hears(self, *types: EventType) -> bool:
        """Whether the relay is to look at any fact of these types that is recorded now; if so, it is told to."""
        heard = self.heard and not HEARD.isdisjoint(types)
        if heard:
            self.hints.add(OUTBOX)
        return heard

    def real(self, business: timedelta) -> float:
        """Real seconds until a stretch of business time has passed."""
        return business.total_seconds() / self.scale

    async def write(
        self,
        statement: Executable,
        values: Any = None,  # noqa: ANN401  (the library's own type)
    ) -> CursorResult[Any]:
        """As `execute`; a foreign key or CHECK that is violated is a `Refused` with the field it is about.

        A unique index is the verb's own matter: its `IntegrityError` goes on.
        """
        try:
            return await self.connection.execute(statement, values)
        except IntegrityError as error:
            raise reference_error(error) or error from None

    @asynccontextmanager
    async def savepoint(self) -> AsyncIterator[None]:
        """What fails inside is undone alone; the error goes on."""
        async with self.connection.begin_nested():
            yield


# A plan that is kept is only as good as what the server knew when it made it: of tables that it has not looked at yet
# nothing, and any index seems as good as another.
_OPEN = text("""
SELECT set_config('app.org', :org, true), set_config('lock_timeout', :lock, true),
  set_config('plan_cache_mode', CASE
    WHEN :planned AND (SELECT reltuples >= 1000 FROM pg_class WHERE oid = CAST('events' AS regclass))
    THEN 'force_generic_plan' ELSE 'auto' END, true),
  business_now() AS now, (SELECT scale FROM clock) AS scale
""")


def _json(value: Any) -> str:  # noqa: ANN401  (whatever a column holds)
    """Ids and instants as text, as everywhere."""
    return to_json(value).decode()


_HINT = "SELECT pg_notify(channel, '') FROM unnest($1::text[]) AS channel"


class Database:
    """A pool of connections of one role, and the only place that commits."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._statement_by_statement = engine.execution_options(isolation_level="AUTOCOMMIT")
        self._hinting = Hinting(self._hint)

    @classmethod
    def connect(
        cls, url: str, *, size: int = 5, overflow: int = 5, timeout: float = 30, recycle: int = 1800
    ) -> "Database":
        """`url` is `postgresql://…`; times in seconds. Connects on first use, and keeps what it has connected.

        An overflow that is closed when it comes back would be opened again at once under load, and a connection
        costs more than ten requests.
        """
        return cls(
            create_async_engine(
                url.replace("postgresql://", "postgresql+asyncpg://", 1),
                pool_size=size + overflow,
                max_overflow=0,
                pool_timeout=timeout,
                pool_recycle=recycle,
                hide_parameters=True,
                json_serializer=_json,
                json_deserializer=from_json,
                connect_args={"timeout": 10, "server_settings": {"application_name": "drumbeat"}},
            )
        )

    @property
    def engine(self) -> AsyncEngine:
        return self._engine

    async def close(self) -> None:
        await self._hinting.close()
        await self._engine.dispose()

    @asynccontextmanager
    async def transaction(
        self, org: UUID, origin: Origin = SYSTEM, *, lock_seconds: float = 5, planned: bool = False
    ) -> AsyncIterator[Transaction]:
        """Commits when the block ends, rolls back when it raises.

        Waits for any one lock at most `lock_seconds`. A pooled connection that turns out to be
        dead is replaced once. What is `planned` takes one plan of a statement whatever its values are: where the same
        few go by keys again and again, planning each time costs more than they do.
        """
        connection, opened = await self._open(org, lock_seconds, planned=planned)
        try:
            transaction = Transaction(connection, org, opened.now, opened.scale, origin)
            yield transaction
            await self._commit(connection)
        finally:
            await connection.close()
        self._hinting.soon(transaction.hints)

    async def at_once(self, statement: str, values: Sequence[Any], *, hints: Collection[str]) -> list[tuple[Any, ...]]:
        """The rows a statement answers that is a transaction of its own, committed when this returns.

        With any row it has put something into the queues of `hints`. It goes to the driver as it is, without the
        library's own transaction around it. What the server refuses, or has no lock for, is no rows as well: then
        nothing was written. Raises `TimeoutError` after `AT_ONCE_SECONDS`; whether it was written is not known then.
        """
        try:
            rows = await greenlet_spawn(self._sent, statement, values)
        except asyncpg.PostgresError as error:
            if not is_undone(error):
                raise
            return []
        if rows:
            self._hinting.soon(hints)
        return [tuple(row) for row in rows]

    async def _hint(self, channels: list[str]) -> None:
        try:
            await greenlet_spawn(self._sent, _HINT, [channels])
        except Exception as error:  # noqa: BLE001  (the poll finds what is not hinted at)
            log.info("hint_lost", error=type(error).__name__)

    def _sent(self, statement: str, values: Sequence[Any]) -> list[asyncpg.Record]:
        """In the library's greenlet, as the pool wants it. A connection that died in the pool is not used."""
        pooled = self._engine.sync_engine.raw_connection()
        while (driver := cast("asyncpg.Connection", pooled.driver_connection)).is_closed():
            pooled.invalidate()
            pooled = self._engine.sync_engine.raw_connection()
        try:
            return list(await_only(driver.fetch(statement, *values, timeout=AT_ONCE_SECONDS)))
        except TimeoutError:
            pooled.invalidate()  # nobody knows what it is still at
            raise
        finally:
            pooled.close()

    @asynccontextmanager
    async def crossing(self) -> AsyncIterator[AsyncConnection]:
        """Reads what is not of one organization: the listed crossings of the migration. Never writes.

        Each statement is by itself: a long answer that is being read keeps no transaction idle, which would be cut off.
        """
        async with self._statement_by_statement.connect() as connection:
            yield connection

    async def _commit(self, connection: AsyncConnection) -> None:
        """Before it nothing has happened, after it all of it has."""
        await connection.commit()

    async def _open(self, org: UUID, lock_seconds: float, *, planned: bool) -> tuple[AsyncConnection, Any]:
        values = {"org": str(org), "lock": f"{int(lock_seconds * 1000)}ms", "planned": planned}
        for last_try in (False, True):
            connection = await self._engine.connect()
            try:
                return connection, (await connection.execute(_OPEN, values)).one()
            except DBAPIError as error:
                await connection.close()
                if last_try or not error.connection_invalidated:
                    raise
            except BaseException:
                await connection.close()
                raise
        raise AssertionError  # the second try returned or raised
