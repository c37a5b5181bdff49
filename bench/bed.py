"""What measures stand on: a stack of real processes with production settings, an organization, what both cost."""

import asyncio
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from signal import SIGTERM
from typing import Any, TypeVar
from uuid import UUID

import asyncpg
import psutil
from temporalio.client import Client
from temporalio.contrib.pydantic import pydantic_data_converter
from uuid_utils.compat import uuid7

from domain.documents import RuleDocument, SequenceDocument
from domain.due import Calendar
from domain.words import Kind, Role
from runtime.attaching import temporal_server
from runtime.children import Child, spawn
from runtime.folders import CHECKOUT
from runtime.processes import Launch, Stack
from runtime.progress import counted, say
from store import contacts, definitions, enrollments, identity, mailboxes, sending
from store.enrollments import Answered, Asked
from store.transaction import Database, Origin, Transaction

T = TypeVar("T")
OWN = "starter"
"""The name of the measuring process itself, where what it does is part of the work."""
_PATIENCE = 3600.0
_TICK = 0.1


class Size(IntEnum):
    """How much is measured: a quick try, what `make bench` takes, or everything."""

    SMALL = 0
    USUAL = 1
    FULL = 2

    def of(self, small: T, usual: T, full: T) -> T:
        return (small, usual, full)[self]


@dataclass(frozen=True)
class Spent:
    """What a piece of work took: seconds, CPU seconds by process, commits of a database."""

    seconds: float
    cpu: Mapping[str, float]
    commits: int


class Office:
    """One organization of the stack, by the verbs of the store."""

    def __init__(self, database: Database, org: UUID, admin: UUID) -> None:
        self.database, self.org, self.admin = database, org, admin
        self._numbers = 0

    def transaction(self) -> AbstractAsyncContextManager[Transaction]:
        return self.database.transaction(self.org, Origin("user", self.admin))

    async def key(self) -> str:
        """A token for the API."""
        async with self.transaction() as tx:
            return (await identity.create_key(tx, self.admin, "bench", Role.ADMIN))[1]

    async def mailbox(self, name: str = "Outbox", **values: object) -> UUID:
        """By default one whose mail stays in the local outbox."""
        async with self.transaction() as tx:
            row = {"name": name, "from_name": "Sal", "from_email": "sal@example.com", "transport": "outbox", **values}
            made: UUID = (await mailboxes.create(tx, row, None, bytes(32))).id
        return made

    async def people(self, count: int, *, heard: bool = False) -> list[UUID]:
        """Contacts, of whom rules hear only if `heard`; a thousand a transaction."""
        made: list[UUID] = []
        while len(made) < count:
            ids = [uuid7() for _ in range(min(1000, count - len(made)))]
            same = {"first_name": "Jo", "owner_id": self.admin, "tags": [], "custom_fields": {}, "metadata": {}}
            rows = [
                {"id": id_, "email": f"p{number}@example.com", "is_active": True, **same}
                for number, id_ in enumerate(ids, self._numbers)
            ]
            self._numbers += len(ids)
            async with self.transaction() as tx:
                await contacts.create_many(tx if heard else tx.unheard(), rows)
            made += ids
        return made

    async def rule(self, *steps: Mapping[str, object], name: str = "Rule") -> UUID:
        """Active at once, for contacts that are created."""
        document = RuleDocument.model_validate({"trigger": {"on": "contact.created"}, "steps": steps})
        async with self.transaction() as tx:
            made: UUID = (await definitions.create(tx, name, document)).id
            await definitions.activate(tx, made, None, expected=None)
        return made

    async def archive(self, definition: UUID) -> None:
        async with self.transaction() as tx:
            await definitions.archive(tx, definition, expected=None)

    async def sequence(self, *steps: Mapping[str, object], name: str = "Sequence") -> UUID:
        """Active at once; the organization has a postal address from then on."""
        document = SequenceDocument.model_validate({"steps": steps})
        async with self.transaction() as tx:
            await sending.set_postal_address(tx, "1 Main Street, Springfield")
            made: UUID = (await definitions.create(tx, name, document)).id
            await definitions.activate(tx, made, None, expected=None, kind=Kind.SEQUENCE)
        return made

    async def enroll(self, sequence: UUID, people: Sequence[UUID], mailbox: UUID, each: int = 500) -> list[UUID]:
        """Calls of `each`; the enrollments. Raises where one is refused."""
        answers: list[Answered] = []
        for start in range(0, len(people), each):
            async with self.transaction() as tx:
                asked = [Asked(one) for one in people[start : start + each]]
                answers += await enrollments.enroll(tx, sequence, asked, mailbox=mailbox)
        refused = [one.reason for one in answers if one.enrollment is None]
        if refused:
            raise RuntimeError(f"not enrolled: {refused[0]}")
        return [one.enrollment for one in answers if one.enrollment is not None]


class Eyes:
    """The superuser's view of one database; what it asks itself is not counted among the commits."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self._connection = connection
        self._asked = 0

    @classmethod
    @asynccontextmanager
    async def on(cls, url: str) -> AsyncIterator["Eyes"]:
        connection = await asyncpg.connect(url)
        try:
            yield cls(connection)
        finally:
            await connection.close()

    async def value(self, query: str, *values: object) -> Any:  # noqa: ANN401  (as the driver answers)
        self._asked += 1
        return await self._connection.fetchval(query, *values)

    async def rows(self, query: str, *values: object) -> list[Any]:
        self._asked += 1
        return list(await self._connection.fetch(query, *values))

    async def commits(self) -> int:
        """Those of everybody else, once the statistics have come: a second after the fact at most."""
        await asyncio.sleep(1.5)
        await self.value("SELECT pg_stat_force_next_flush()")
        query = "SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()"
        return int(await self.value(query)) - self._asked


class Bed:
    """The stack, its organization, and the superuser's own view of the database."""

    def __init__(self, stack: Stack, office: Office, eyes: Eyes, folder: Path) -> None:
        self.stack, self.office, self.folder = stack, office, folder
        self.eyes = eyes
        self._others: dict[int, str] = {}
        self.idle: Mapping[str, float] = {}

    async def value(self, query: str, *values: object) -> Any:  # noqa: ANN401  (as the driver answers)
        return await self.eyes.value(query, *values)

    async def rows(self, query: str, *values: object) -> list[Any]:
        return await self.eyes.rows(query, *values)

    async def quiet(self) -> None:
        """Until nothing is left to match or to poke."""
        queues = "SELECT (SELECT count(*) FROM outbox) + (SELECT count(*) FROM wakes)"
        while await self.value(queues):  # noqa: ASYNC110  (the queues are in the database)
            await asyncio.sleep(_TICK)

    async def until(self, query: str, wanted: int, what: str, *values: object, already: int = 0) -> None:
        """Until a count in the database, which was `already` there, has reached `wanted`."""
        await until(lambda: self.value(query, *values), wanted, what, already=already)

    async def client(self) -> Client:
        environment = self.stack.environment()
        return await Client.connect(
            environment["TEMPORAL_ADDRESS"],
            namespace=environment["TEMPORAL_NAMESPACE"],
            data_converter=pydantic_data_converter,
        )

    async def spent(self, work: Callable[[], Awaitable[None]], *, eyes: Eyes | None = None, own: bool = False) -> Spent:
        """What `work` takes: the time until it returns, CPU and commits until the queues are empty, too.

        Commits are those of the database that `eyes` look at, by default ours; `own`: this process is part of it.
        What `rest` has found the processes to use anyway is left out.
        """
        looking = eyes or self.eyes
        commits, cpu, started = await looking.commits(), self.cpu(own=own), time.monotonic()
        await work()
        seconds = time.monotonic() - started
        await self.quiet()
        after, whole = self.cpu(own=own), time.monotonic() - started
        used = {name: max(0.0, after[name] - cpu.get(name, 0) - whole * self.idle.get(name, 0)) for name in after}
        return Spent(seconds, used, await looking.commits() - commits)

    async def rest(self, seconds: float) -> None:
        """Finds what each process uses while nothing happens: CPU seconds a second."""
        before, started = self.cpu(), time.monotonic()
        await asyncio.sleep(seconds)
        after, passed = self.cpu(), time.monotonic() - started
        self.idle = {name: (after[name] - before.get(name, 0)) / passed for name in after}

    def know(self, pid: int, name: str) -> None:
        """Call another child of this process by a name."""
        self._others[pid] = name

    def processes(self) -> dict[str, list[psutil.Process]]:
        """Every child of this process with all that it has started, by name; workers count as one."""
        names = {self.stack.service(name).pid: name.partition("-")[0] for name in self.stack.names} | self._others
        found: dict[str, list[psutil.Process]] = {}
        for child in psutil.Process().children():
            try:
                family = [child, *child.children(recursive=True)]
                found.setdefault(names.get(child.pid) or child.name().partition("-")[0], []).extend(family)
            except psutil.NoSuchProcess:
                continue  # it has just ended
        return found

    def cpu(self, *, own: bool = False) -> dict[str, float]:
        """Seconds so far, by process."""
        used: defaultdict[str, float] = defaultdict(float)
        for name, family in self.processes().items():
            for process in family:
                try:
                    times = process.cpu_times()
                except psutil.NoSuchProcess:
                    continue
                used[name] += times.user + times.system + times.children_user + times.children_system
        if own:
            used[OWN] = time.process_time()
        return dict(used)

    def memory(self) -> dict[str, int]:
        """Bytes by process, what several share counted once (PSS)."""
        used: Counter[str] = Counter()
        for name, family in self.processes().items():
            for process in family:
                try:
                    used[name] += process.memory_full_info().pss
                except psutil.NoSuchProcess:
                    continue
        return dict(used)

    @asynccontextmanager
    async def beside(
        self, name: str, *arguments: str, environment: Mapping[str, str] | None = None
    ) -> AsyncIterator[Child]:
        """Another process for the time of the block, such as a baseline's worker; ready when it has said so."""
        log = self.folder / f"{name}.log"
        command = ["-m", *arguments] if arguments else ["-m", f"bench.{name}"]
        child = spawn(
            [sys.executable, *command],
            log=log,
            env={**self.stack.environment(), **(environment or {})},
            folder=CHECKOUT,
        )
        self.know(child.pid, name)
        try:
            deadline = time.monotonic() + 60
            while "ready" not in child.output():
                if not child.running or time.monotonic() > deadline:
                    raise RuntimeError(f"{name} does not start:\n{child.last_words()}")
                await asyncio.sleep(_TICK)
            yield child
        finally:
            await child.end(SIGTERM, 15)


@asynccontextmanager
async def bed(*, scale: int = 1, settings: Mapping[str, str] | None = None) -> AsyncIterator[Bed]:
    """A stack of its own, gone afterwards. Commits are timed by the server, by which lateness is told.

    `settings` are variables of its services beside those they have anyway.
    """
    options = {"track_commit_timestamp": "on"}

    def told(_: str, launch: Launch) -> Launch:
        return Launch(launch.command, {**launch.environment, **(settings or {})})

    with tempfile.TemporaryDirectory() as folder:
        async with Stack(
            Path(folder) / "home",
            temporal_server(),
            scale=scale,
            postgres_options=options,
            route=told,
            tell=lambda _: None,
        ) as stack:
            database = Database.connect(stack.environment()["DRUMBEAT_DATABASE_URL"])
            org = await identity.create_organization(database, "Acme", "acme", Calendar(zone="Europe/Berlin"))
            async with database.transaction(org) as tx:
                admin = (await identity.create_user(tx, "ada@example.com", "Ada", Role.ADMIN)).id
            async with Eyes.on(stack.environment()["DRUMBEAT_ADMIN_DATABASE_URL"]) as eyes:
                yield Bed(stack, Office(database, org, admin), eyes, Path(folder))
            await database.close()


async def until(count: Callable[[], Awaitable[int]], wanted: int, what: str, *, already: int = 0) -> None:
    """Until `count`, which answered `already`, answers `wanted`, with progress on the way. Raises after an hour."""
    deadline, done = time.monotonic() + _PATIENCE, already
    with counted(wanted - already, what, say) as another:
        while done < wanted:
            if time.monotonic() > deadline:
                raise RuntimeError(f"{done} of {wanted} {what} in {_PATIENCE:.0f} s")
            began = time.monotonic()
            for _ in range(await count() - done):
                done += 1
                another()
            # Counting many takes a while, and is not to be a part of what is measured.
            await asyncio.sleep(max(_TICK, 20 * (time.monotonic() - began)))


async def paced(per_second: float, count: int, act: Callable[[int], Awaitable[None]]) -> float:
    """Begins `act` so often, each on its own, however long one takes; how many a second were begun."""
    started, under_way = time.monotonic(), []
    for number in range(count):
        await asyncio.sleep(started + number / per_second - time.monotonic())
        under_way.append(asyncio.ensure_future(act(number)))
    rate = count / (time.monotonic() - started)
    await asyncio.gather(*under_way)
    return rate


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that `share` of all do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, -(-int(share * 1000) * len(ordered) // 1000) - 1))]


def task(step: str, title: str = "Call back") -> dict[str, object]:
    return {"kind": "act", "id": step, "action": {"type": "create_task", "title": title}}


def wait(step: str, amount: int, unit: str = "minutes") -> dict[str, object]:
    return {"kind": "wait", "id": step, "wait": {"for": {"amount": amount, "unit": unit}}}
