"""Where an embedded Temporal server keeps things: in SQLite files, or its histories in a PostgreSQL."""

import os
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

from runtime.children import spawn
from runtime.postgres import Postgres
from runtime.trouble import TroubleError

_DATABASE = "temporal"
_PLUGIN = "postgres12_pgx"
_SCHEMA = "postgresql/v12/temporal"
_SCHEMA_SECONDS = 60.0
_FORGET_PEERS = "DELETE FROM cluster_membership"
# Temporal keeps its ports as `smallint`; half of all ports, and those that systems give away, are above that.
_ANY_PORT = "ALTER TABLE cluster_membership ALTER COLUMN rpc_port TYPE integer"


class StoreError(TroubleError):
    """A store cannot be made ready, or is not one for this server."""


class Store(Protocol):
    """How a server is told where to keep things, and what has to be done there before it starts."""

    def arguments(self) -> list[str]:
        """Return what the `temporal` command is told. Raises StoreError if it cannot keep things there."""

    def datastores(self) -> Mapping[str, Any]:
        """Return what the plain server is told: the stores of its configuration, `default` and `visibility`."""

    async def prepare(self) -> None:
        """Make ready what the server does not make itself, and empty the list of the cluster's living members.

        A server that finds its last run there, at addresses that are dead, tries to join it for up to a
        minute, and hands no task to any worker meanwhile. Raises TroubleError.
        """


class SqliteFiles:
    """Two files, which the server makes itself."""

    def __init__(self, folder: Path) -> None:
        """The folder is the server's own."""
        self._histories = folder / "temporal.db"
        self._visibility = folder / "visibility.db"

    def arguments(self) -> list[str]:
        """One file, for everything."""
        return ["--db-filename", str(self._histories)]

    def datastores(self) -> Mapping[str, Any]:
        """Each in its own file."""
        return {"default": _sqlite(self._histories), "visibility": _sqlite(self._visibility)}

    async def prepare(self) -> None:
        """Empty the list of members."""
        if not self._histories.exists():
            return
        with closing(sqlite3.connect(self._histories)) as connection, connection:
            # A server that was killed while it made its store has no such table yet.
            if connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'cluster_membership'").fetchone():
                connection.execute(_FORGET_PEERS)


class PostgresStore:
    """Histories, timers and tasks in an embedded PostgreSQL; only what lists workflows stays in a SQLite file.

    Its indexes need an extension that the embedded PostgreSQL lacks, and no workflow depends on them.
    """

    def __init__(self, postgres: Postgres, folder: Path, *, sql_tool: Path) -> None:
        """Whoever owns the PostgreSQL starts it; the folder is the server's own; `obtain.sql_tool` gets the tool."""
        self._postgres = postgres
        self._folder = folder
        self._sql_tool = sql_tool

    def arguments(self) -> list[str]:
        """Refuse: the command knows SQLite only."""
        message = (
            "The `temporal` command keeps its histories in SQLite only. For PostgreSQL the plain server is needed: "
            "set-up builds it where there is no `temporal` command and no download of one."
        )
        raise StoreError(message)

    def datastores(self) -> Mapping[str, Any]:
        """The database, at the address it has now, and the file."""
        where = urlsplit(self._postgres.admin_url())
        histories = {
            "pluginName": _PLUGIN,
            "databaseName": _DATABASE,
            "connectAddr": f"{where.hostname}:{where.port}",
            "connectProtocol": "tcp",
            "user": where.username,
            "password": unquote(where.password or ""),
            "maxConns": 20,
            "maxIdleConns": 20,
            "maxConnLifetime": "1h",
        }
        return {"default": {"sql": histories}, "visibility": _sqlite(self._folder / "visibility.db")}

    async def prepare(self) -> None:
        """Make the database and bring its schema up to date, whatever of it is there; empty the list of members."""
        await self._postgres.create_database(_DATABASE)
        await self._run_sql_tool("setup-schema", "--version", "0.0")
        await self._run_sql_tool("update-schema", "--schema-name", _SCHEMA)
        await self._postgres.execute(f"{_ANY_PORT}; {_FORGET_PEERS}", database=_DATABASE)

    async def _run_sql_tool(self, *arguments: str) -> None:
        where = urlsplit(self._postgres.admin_url())
        environment = {
            "PATH": os.defpath,
            "SQL_PLUGIN": _PLUGIN,
            "SQL_HOST": where.hostname or "",
            "SQL_PORT": str(where.port),
            "SQL_USER": where.username or "",
            "SQL_PASSWORD": unquote(where.password or ""),
            "SQL_DATABASE": _DATABASE,
        }
        child = spawn([str(self._sql_tool), *arguments], log=self._folder / "schema.log", env=environment)
        if await child.end_by_itself(_SCHEMA_SECONDS) != 0:
            message = f"Temporal's schema could not be brought into its PostgreSQL:\n{child.last_words()}"
            raise StoreError(message)


def _sqlite(file: Path) -> dict[str, Any]:
    """What the server sets for a SQLite file where the environment tells it everything."""
    attributes = {
        "mode": "rwc",
        "cache": "private",
        "setup": "true",
        "journal_mode": "wal",
        "synchronous": "2",
        "busy_timeout": "10000",
    }
    where = {"pluginName": "sqlite", "databaseName": str(file), "connectAddr": "localhost", "connectProtocol": "tcp"}
    return {"sql": {**where, "connectAttributes": attributes, "maxConns": 1, "maxIdleConns": 1}}
