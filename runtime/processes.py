"""The embedded stack: database, Temporal, API, relay and workers as child processes of one supervisor.

The same processes that production runs, each told everything by its environment. They die with the
supervisor however it dies, and all it takes to start again is in the home folder.
"""

import asyncio
import http.client
import json
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from signal import SIGINT, SIGKILL, SIGTERM, Signals
from typing import Protocol, Self

from runtime.children import Child, free_ports, port_is_free, spawn
from runtime.folders import CHECKOUT
from runtime.keyring import Keyring, open_keyring, write_private
from runtime.locks import BusyError, Lock
from runtime.obtain import Found, Kind
from runtime.postgres import Postgres
from runtime.progress import Say, say
from runtime.settings import inherited
from runtime.temporal import TemporalServer
from runtime.temporal_store import PostgresStore
from runtime.trouble import TroubleError

DATABASE = "drumbeat"
APP_ROLE = "drumbeat_app"
RELAY_ROLE = "drumbeat_relay"

_ENVIRONMENT_FILE = "environment.json"
_MIGRATE_SECONDS = 120.0
_READY_SECONDS = 30.0
_STOP_SECONDS = 10.0
_MAIL_SECONDS = 40.0
"""A worker may be handing a mail over, which is not cut off."""
_POLL_SECONDS = 0.05
_LONGEST_PAUSE = 30.0
_HEALTHY_AFTER = 60.0


class StackError(TroubleError):
    """The stack, or one process of it, does not start; the text ends with what the process said last."""


@dataclass(frozen=True)
class Launch:
    """How a process is started."""

    command: Sequence[str]
    environment: Mapping[str, str]


class Server(Protocol):
    """What the services rely on. It can be killed and started by itself, and comes back at its address."""

    @property
    def running(self) -> bool:
        """Whether its process lives."""

    @property
    def child(self) -> Child:
        """Its process, as it was last started."""

    async def start(self) -> None:
        """Start it unless it runs, and return when it can be used. Raises TroubleError."""

    async def stop(self) -> None:
        """End it for good."""

    async def kill(self) -> None:
        """End it as a crash would."""


class Stack:
    """One embedded stack on one home folder; an async context manager that starts and stops it.

    `servers` are `postgres`, where asked for `temporal-postgres`, and `temporal`, in the order they start: any can
    be killed and started by itself; everything else reconnects. `temporal` is None where it runs elsewhere.
    """

    def __init__(
        self,
        home: Path,
        found: Found,
        *,
        workers: int = 1,
        relays: int = 1,
        api_port: int = 0,
        scale: int = 1,
        test: bool = False,
        postgres_options: Mapping[str, str] | None = None,
        temporal_sql_tool: Path | None = None,
        command: Sequence[str] = (sys.executable, "-m", "cli"),
        route: Callable[[str, Launch], Launch] = lambda _, launch: launch,
        tell: Say = say,
    ) -> None:
        """`api_port` 0 takes a free one; `scale` (time-lapse) and `test` count only when the data are made.

        With `temporal_sql_tool` (`obtain.sql_tool`), the Temporal server keeps its histories in a PostgreSQL of
        its own, `temporal-postgres`; a home that began with it, or without it, must go on so.

        `route` is asked at each start of a service, by its name, and may send it another way.
        """
        self._home = home
        self._workers = workers
        self._relays = relays
        self._api_port = api_port or free_ports(1)[0]
        self._migrate_options = ["--scale", str(scale), *(["--test"] if test else [])]
        self._command = list(command)
        self._route = route
        self._tell = tell
        self._lock = Lock(home / "lock")
        self._environment_file = home / _ENVIRONMENT_FILE
        self._keyring: Keyring | None = None
        self._services: dict[str, Child] = {}
        self._held: set[str] = set()
        self._stopping = False
        self.postgres = Postgres(home / "postgres", options=postgres_options)
        self.temporal: TemporalServer | None = None
        self.servers: dict[str, Server] = {"postgres": self.postgres}
        if found.kind is not Kind.ADDRESS:
            folder, store = home / "temporal", None
            if temporal_sql_tool is not None:
                own = self.servers["temporal-postgres"] = Postgres(home / "temporal-postgres", options=postgres_options)
                store = PostgresStore(own, folder, sql_tool=temporal_sql_tool)
            self.servers["temporal"] = self.temporal = TemporalServer(found, folder, store=store)

    @property
    def names(self) -> list[str]:
        """The services, in the order they start."""
        relays = ["relay"] if self._relays == 1 else [f"relay-{number}" for number in range(1, self._relays + 1)]
        return ["api", *relays, *(f"worker-{number}" for number in range(1, self._workers + 1))]

    @property
    def api_url(self) -> str:
        """Where the API answers, without a slash at the end."""
        return f"http://127.0.0.1:{self._api_port}"

    def service(self, name: str) -> Child:
        """Return the process that was last started under a name of `names`."""
        return self._services[name]

    async def __aenter__(self) -> Self:
        """Start everything."""
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop everything."""
        await self.stop()

    async def start(self) -> None:
        """Start what is needed, in order, and return when every service is ready.

        Raises TroubleError: the home folder is in use, a port is taken, or a process fails.
        """
        self._take_home()
        self._stopping = False
        try:
            self._keyring = open_keyring(self._home / "secrets.json", data=self._home / "postgres" / "data")
            await self._prepare()
            write_private(self._environment_file, json.dumps(self.environment()))
            await self._start_services()
        except BaseException:
            await self.stop()
            raise

    async def _prepare(self) -> None:
        """Servers and schema. A server that is killed meanwhile, whatever that looks like, is begun with again."""
        for last_try in (False, False, True):
            try:
                await self._start_servers()
                await self.postgres.create_database(DATABASE)
                await self._migrate()
            except Exception:
                if last_try or all(server.running for server in self.servers.values()):
                    raise
            else:
                return

    async def _start_servers(self) -> None:
        """Start what of them does not run, but for what is kept stopped."""
        for name, server in self.servers.items():
            if name not in self._held and not server.running:
                await server.start()

    async def _start_services(self) -> None:
        if not port_is_free(self._api_port):
            message = f"Port {self._api_port} is taken by another program. Choose another with DRUMBEAT_API_PORT."
            raise StackError(message)
        for name in self.names:
            self._spawn(name)
        for name in self.names:
            await self._ready(name)

    async def stop(self) -> None:
        """Stop everything cleanly, what needs the others first; by force what takes over ten seconds."""
        self._stopping = True
        patience = {name: _MAIL_SECONDS if name.startswith("worker") else _STOP_SECONDS for name in self._services}
        await asyncio.gather(*(child.end(SIGTERM, patience[name]) for name, child in self._services.items()))
        self._services.clear()
        for server in reversed(self.servers.values()):
            await server.stop()
        self._environment_file.unlink(missing_ok=True)
        self._lock.release()

    async def start_service(self, name: str) -> None:
        """Start one service and return when it is ready."""
        self._spawn(name)
        await self._ready(name)

    async def kill_service(self, name: str, signal: Signals = SIGKILL) -> int:
        """Signal one service, wait for its end (ten seconds, then by force), and return its exit code."""
        return await self.service(name).end(signal, _STOP_SECONDS)

    @asynccontextmanager
    async def without(self, name: str) -> AsyncIterator[None]:
        """Keep one of `servers` or a service dead, as by `kill -9`, for the time of the block.

        A server comes back at the same address and is ready then; one that does not, since what it needs may be
        away too, says why and is left to `revive`. A service is started again and no more.
        """
        server = self.servers.get(name)
        self._held.add(name)
        try:
            if server is not None:
                await server.kill()
            else:
                await self.kill_service(name)
            try:
                yield
            finally:
                if server is not None:
                    await self._revive(server)
                else:
                    self._spawn(name)
        finally:
            self._held.discard(name)

    async def supervise(self) -> None:
        """Start again whatever dies, until SIGINT or SIGTERM comes. Stopping is left to the caller."""
        told_to_stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (SIGINT, SIGTERM):
            loop.add_signal_handler(number, told_to_stop.set)
        revive = asyncio.create_task(self.revive())
        wait = asyncio.create_task(told_to_stop.wait())
        try:
            # The first can only end by a mistake in it, and that must be seen.
            await asyncio.wait((revive, wait), return_when=asyncio.FIRST_COMPLETED)
            if revive.done():
                revive.result()
        finally:
            for number in (SIGINT, SIGTERM):
                loop.remove_signal_handler(number)
            for task in (revive, wait):
                task.cancel()
            await asyncio.gather(revive, wait, return_exceptions=True)

    async def revive(self) -> None:
        """Start again whatever dies, without end; `supervise` does it until told to stop."""
        pauses = {name: _Pause() for name in (*self.servers, *self.names)}
        while not self._stopping:
            for name, server in self.servers.items():
                if name not in self._held and not server.running and pauses[name].over():
                    self._tell(f"{name} has ended; starting it again.")
                    await self._revive(server)
            for name in self.names:
                child = self.service(name)
                if name not in self._held and not child.running and pauses[name].over():
                    self._tell(f"{name} has ended (exit code {child.exit_code}); starting it again.")
                    self._spawn(name)
            await asyncio.sleep(_POLL_SECONDS)

    async def _revive(self, server: Server) -> None:
        try:
            await server.start()
        except TroubleError as trouble:
            self._tell(str(trouble))

    def _take_home(self) -> None:
        try:
            self._lock.take()
        except BusyError as busy:
            message = (
                f"{self._home} is in use by another Drumbeat, process {busy}. "
                "Stop it, or choose another folder with DRUMBEAT_HOME."
            )
            raise StackError(message) from busy

    async def _migrate(self) -> None:
        child = self._run("migrate", self._launch("migrate", "migrate", *self._migrate_options))
        if await child.end_by_itself(_MIGRATE_SECONDS) != 0:
            message = f"The database could not be brought up to date:\n{child.last_words()}"
            raise StackError(message)

    def _spawn(self, name: str) -> None:
        launch = self._route(name, self._launch(name, name.partition("-")[0]))
        self._services[name] = self._run(name, launch)

    def _launch(self, name: str, *arguments: str) -> Launch:
        return Launch([*self._command, *arguments], self._environment_of(name))

    def _run(self, name: str, launch: Launch) -> Child:
        return spawn(launch.command, log=self._log(name), env=launch.environment, folder=CHECKOUT)

    async def _ready(self, name: str) -> None:
        """Wait for a service; one that was killed by a signal is started again, one that gave up is not."""
        deadline = time.monotonic() + _READY_SECONDS
        while time.monotonic() < deadline:
            await self._start_servers()
            child = self.service(name)
            if not child.running:
                if (child.exit_code or 0) >= 0:
                    break
                self._spawn(name)
            elif await asyncio.to_thread(self._answers) if name == "api" else _has_said_ready(child):
                return
            await asyncio.sleep(_POLL_SECONDS)
        child = self.service(name)
        state = f"ended with exit code {child.exit_code}" if not child.running else "is not ready"
        message = f"The service {name} {state} (log: {self._log(name)}):\n{child.last_words()}"
        raise StackError(message)

    def _answers(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self._api_port, timeout=5)
        try:
            connection.request("GET", "/readyz")
            return connection.getresponse().status == http.HTTPStatus.OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def _environment_of(self, name: str) -> dict[str, str]:
        """Each process gets the secrets it needs, and no other's."""
        environment = self.environment()
        if name != "migrate":
            del environment["DRUMBEAT_ADMIN_DATABASE_URL"]
        if name != "migrate" and not name.startswith("relay"):
            del environment["DRUMBEAT_RELAY_DATABASE_URL"]
        return environment

    def environment(self) -> dict[str, str]:
        """What a command needs to speak to this stack as an operator, the superuser's way in included."""
        assert self._keyring is not None  # noqa: S101  # `start` opens it first
        environment = inherited()
        if self.temporal is not None:
            environment = {name: value for name, value in environment.items() if not name.startswith("TEMPORAL_")}
            environment |= self.temporal.environment()
        return environment | {
            "DRUMBEAT_DATABASE_URL": self.postgres.url(APP_ROLE, self._keyring.app_password, DATABASE),
            "DRUMBEAT_RELAY_DATABASE_URL": self.postgres.url(RELAY_ROLE, self._keyring.relay_password, DATABASE),
            "DRUMBEAT_ADMIN_DATABASE_URL": self.postgres.admin_url(DATABASE),
            "DRUMBEAT_MASTER_KEY": self._keyring.master_key,
            "DRUMBEAT_API_HOST": "127.0.0.1",
            "DRUMBEAT_API_PORT": str(self._api_port),
            # Readiness is read from the log.
            "DRUMBEAT_LOG_FORMAT": "json",
            "DRUMBEAT_LOG_LEVEL": "debug" if environment.get("DRUMBEAT_LOG_LEVEL") == "debug" else "info",
        }

    def _log(self, name: str) -> Path:
        return self._home / "logs" / f"{name}.log"


def running_environment(home: Path) -> dict[str, str] | None:
    """Return the environment of the stack that runs on a home folder, the superuser's way in included, or None."""
    lock = Lock(home / "lock")
    try:
        lock.take().release()
    except BusyError:
        with suppress(FileNotFoundError):  # it is only starting
            return dict(json.loads((home / _ENVIRONMENT_FILE).read_bytes()))
    return None


def _has_said_ready(child: Child) -> bool:
    for line in child.output().splitlines():
        with suppress(ValueError):  # a line that is no JSON
            entry = json.loads(line)
            if isinstance(entry, dict) and entry.get("event") == "ready":
                return True
    return False


class _Pause:
    """How long to wait before starting the same process again: not at first, then 1, 2, 4 … 30 seconds."""

    def __init__(self) -> None:
        self._seconds = 1.0
        self._last = -_HEALTHY_AFTER

    def over(self) -> bool:
        """Whether to start it now; if so, the next pause begins."""
        since = time.monotonic() - self._last
        if since < self._seconds:
            return False
        self._seconds = 1.0 if since > _HEALTHY_AFTER else min(self._seconds * 2, _LONGEST_PAUSE)
        self._last = time.monotonic()
        return True
