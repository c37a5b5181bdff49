"""One database server and one Temporal server a run; a database of its own for each test that asks."""

import itertools
import secrets
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg
import pytest
import structlog
from sqlalchemy import event, text
from temporalio.client import Client
from temporalio.contrib.pydantic import pydantic_data_converter

from activities import advance
from domain.due import Calendar
from domain.words import Role
from migrations.roles import APP, RELAY
from runtime.attaching import temporal_server as found_server
from runtime.migrating import migrate
from runtime.obtain import Kind
from runtime.postgres import Postgres
from runtime.temporal import TemporalServer
from store import identity
from store.transaction import Database, Origin

# As the product has it: the library's own way of printing an exception takes ten seconds for a deep one.
structlog.configure(
    processors=[
        structlog.processors.add_log_level,
        structlog.dev.set_exc_info,
        structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback),
    ]
)

_TEMPLATE = "drumbeat_template"
_numbers = itertools.count(1)


@dataclass
class Base:
    """A migrated test database: the app's and the relay's ways in, and one organization with people."""

    app: Database
    crossing: Database
    app_url: str
    relay_url: str
    admin_url: str
    org: UUID = field(init=False)
    admin: UUID = field(init=False)
    manager: UUID = field(init=False)
    rep: UUID = field(init=False)

    @property
    def person(self) -> Origin:
        return Origin("user", self.rep)

    def transaction(self, origin: Origin | None = None) -> Any:
        return self.app.transaction(self.org, origin or self.person)

    async def rows(self, query: str, **values: object) -> list[Mapping[str, Any]]:
        """What a query of the first organization sees."""
        async with self.app.transaction(self.org) as tx:
            return [dict(row._mapping) for row in await tx.execute(text(query), values)]

    async def value(self, query: str, **values: object) -> Any:
        (row,) = await self.rows(query, **values)
        return next(iter(row.values()))

    async def pass_time(self, by: timedelta) -> datetime:
        """Moves the business clock of this database; every process that uses it agrees."""
        now: datetime = await self.value("SELECT advance_clock(:by)", by=by)
        return now

    async def another(self) -> "Base":
        """A second organization in the same database, with people of its own."""
        found = replace(self)
        await found.people()
        return found

    async def people(self) -> None:
        """An organization in Berlin: an admin, a manager and the manager's rep."""
        self.org = await identity.create_organization(
            self.app, "Acme", f"acme-{next(_numbers)}", Calendar(zone="Europe/Berlin")
        )
        async with self.app.transaction(self.org) as tx:
            self.admin = (await identity.create_user(tx, "ada@example.com", "Ada", Role.ADMIN)).id
            self.manager = (await identity.create_user(tx, "mona@example.com", "Mona", Role.MANAGER)).id
            rep = await identity.create_user(tx, "rob@example.com", "Rob", Role.REP, self.manager)
            self.rep = rep.id


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--record", action="store_true", help="write the histories in tests/workflows/histories anew")
    parser.addoption("--thorough", action="store_true", help="ten thousand races, and every crash point's first time")


@pytest.fixture(scope="session")
def thorough(request: pytest.FixtureRequest) -> bool:
    """Whether to do all of what a part of is done by default, since it takes minutes."""
    return bool(request.config.getoption("--thorough"))


@pytest.fixture(scope="session", autouse=True)
def unhurried() -> Iterator[None]:
    """An advance takes all its steps, however slow the machine: what it does after its second is for its own tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(advance, "MAX_SECONDS", 60.0)
        yield


@pytest.fixture(scope="session")
async def postgres(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Postgres]:
    server = Postgres(
        tmp_path_factory.mktemp("postgres"),
        options={
            "fsync": "off",
            "synchronous_commit": "off",
            "full_page_writes": "off",
            "track_commit_timestamp": "on",  # the judge of chaos tells by it what came before what
        },
    )
    await server.start()
    await server.create_database(_TEMPLATE)
    await migrate(*_urls(server, _TEMPLATE), test=True)
    yield server
    await server.stop()


@pytest.fixture(scope="session")
async def shared_database(postgres: Postgres) -> str:
    """One migrated database for the tests of the run, which `base` empties: making one takes a third of a second."""
    await postgres.create_database("shared", template=_TEMPLATE)
    await _patience(postgres, "SET idle_in_transaction_session_timeout = '60s'")
    return "shared"


async def _patience(postgres: Postgres, setting: str) -> None:
    """A machine that stands still for seconds must not end the transactions of tests about other things."""
    connection = await asyncpg.connect(postgres.admin_url("shared"))
    try:
        for role in (APP, RELAY):
            await connection.execute(f"ALTER ROLE {role} IN DATABASE shared {setting}")
    finally:
        await connection.close()


@pytest.fixture
async def impatient(postgres: Postgres, shared_database: str) -> AsyncIterator[None]:
    """New connections to the database of `base` are as patient as the product's."""
    await _patience(postgres, "RESET idle_in_transaction_session_timeout")
    yield
    await _patience(postgres, "SET idle_in_transaction_session_timeout = '60s'")


@pytest.fixture
async def base(postgres: Postgres, shared_database: str) -> AsyncIterator[Base]:
    """An empty migrated database with one organization."""
    admin, app, relay = _urls(postgres, shared_database)
    found = Base(Database.connect(app), Database.connect(relay), app, relay, admin)
    await found.people()
    yield found
    await found.app.close()
    await found.crossing.close()
    await _empty(admin)


async def _empty(admin_url: str) -> None:
    """Ends every other connection, deletes every row and sets the clock back."""
    connection = await asyncpg.connect(admin_url)
    try:
        await connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        tables = await connection.fetch(
            "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
            " AND relname NOT IN ('clock', 'alembic_version')"
        )
        deletes = "; ".join(f"DELETE FROM {row['relname']}" for row in tables)
        await connection.execute(f"SET session_replication_role = replica; {deletes}; UPDATE clock SET shift = '0'")
    finally:
        await connection.close()


@pytest.fixture
async def time_lapse(empty_database: tuple[str, str, str]) -> AsyncIterator[Base]:
    """A database in which a day passes in four seconds: for real timers. No test may move its clock."""
    admin, app, relay = empty_database
    await migrate(admin, app, relay, scale=21_600)
    found = Base(Database.connect(app), Database.connect(relay), app, relay, admin)
    await found.people()
    yield found
    await found.app.close()
    await found.crossing.close()


@pytest.fixture
async def empty_database(postgres: Postgres) -> AsyncIterator[tuple[str, str, str]]:
    """The admin's, the app's and the relay's ways into a database that was not migrated."""
    name = f"empty_{next(_numbers)}_{secrets.token_hex(3)}"
    await postgres.create_database(name)
    yield _urls(postgres, name)
    await postgres.drop_database(name)


@pytest.fixture(scope="session")
async def temporal_server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[TemporalServer]:
    found = found_server()
    if found.kind is Kind.ADDRESS:
        pytest.skip("TEMPORAL_ADDRESS names a server; this test needs one it may stop")
    server = TemporalServer(found, tmp_path_factory.mktemp("temporal"))
    await server.start()
    yield server
    await server.stop()


@pytest.fixture(scope="session")
async def temporal(temporal_server: TemporalServer) -> Client:
    environment = temporal_server.environment()
    return await Client.connect(
        temporal_server.address,
        namespace=environment["TEMPORAL_NAMESPACE"],
        data_converter=pydantic_data_converter,
    )


def _urls(server: Postgres, database: str) -> tuple[str, str, str]:
    return (
        server.admin_url(database),
        server.url("drumbeat_app", "app-password", database),
        server.url("drumbeat_relay", "relay-password", database),
    )


@pytest.fixture
def statements(base: Base, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    """What the app's connections were sent since it was last asked, but for BEGIN, COMMIT and the org setting."""
    sent: list[str] = []

    @event.listens_for(base.app.engine.sync_engine, "before_cursor_execute")
    def note(_conn: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if "set_config('app.org'" not in statement and not statement.startswith(("SAVEPOINT", "RELEASE")):
            sent.append(statement)

    at_once = base.app.at_once

    async def note_at_once(statement: str, values: Sequence[Any], **hints: Any) -> Any:
        sent.append(statement)
        return await at_once(statement, values, **hints)

    monkeypatch.setattr(base.app, "at_once", note_at_once)

    def since() -> list[str]:
        taken = list(sent)
        sent.clear()
        return taken

    return since
