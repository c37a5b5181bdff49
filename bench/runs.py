"""Runs of three steps, without a wait and with two: ours, and the same job by what else one could use.

All on the same servers, in turns. Ours begin with the fact in the outbox, which the relay has yet to match; the
others with the order to start. Each run's effects are tasks with their events, a transaction a step or fewer.

Those that wait are begun at a pace at which each truly waits; and, by themselves, all at once, as after an import.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from signal import SIGCONT, SIGSTOP, SIGTERM
from typing import Protocol
from uuid import UUID

from sqlalchemy import event
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from activities.advance import Advance
from bench import job, textbook, with_dbos, with_procrastinate
from bench.bed import OWN, Bed, Eyes, Size, Spent, bed, paced, task, until, wait
from bench.rows import Row
from domain.keys import workflow_id
from domain.words import Target
from runtime.children import Child
from runtime.progress import say
from store.transaction import Database
from triggers.relay import Relay
from workflows.contracts import Waiter

ROUNDS = 2
SCALE = 60
"""A minute of business time is a second."""
WAIT = 3.0
"""Real seconds between two steps of a run that waits; it is over for nobody before the step ahead of it is taken."""
PACE = 10.0
"""Runs that wait are begun so many a second: what is late by a wait would not wait, and cost less."""
WAIT_AT_ONCE = 1.0
"""The same of those begun all at once: for most it is over when their turn comes, so that few of them truly wait."""
PER_SECOND = 1000.0
TIMES = 50.0
"""The design's bars for runs without a wait: a second, and against the same runs by workflows."""
WAITING, WAITING_CPU = 1.4, 0.65
"""Those for runs that wait: times as many a second as the textbook's, and the share of its CPU."""
STATEMENTS = 12
"""The most SQL statements that a run of three steps may take."""
_OURS = {"api", "relay", "worker", "postgres", "temporal"}
"""Each is charged with its own processes: those of the others idle meanwhile."""
_SAMPLE = 10
_ENDED = "SELECT count(*) FROM executions WHERE status <> 'open'"


@dataclass(frozen=True)
class Order:
    """How many jobs, how many seconds between two steps, and how many are begun a second, where not all at once."""

    count: int
    wait: float = 0.0
    pace: float | None = None


class Contender(Protocol):
    """Whoever can do the job."""

    name: str

    async def run(self, order: Order) -> Spent:
        """So many jobs from their beginning to the last effect."""

    async def history(self) -> tuple[float, float]:
        """Events and state transitions of a job in Temporal, of the last few in the mean."""


@dataclass
class Figures:
    """What one contender's rounds come to."""

    count: int = 0
    spent: list[Spent] = field(default_factory=list)
    history: tuple[float, float] = (0, 0)
    paced: bool = False

    @property
    def per_second(self) -> float:
        """As it was; of those begun at a pace, what all cores come to by the CPU that one takes."""
        if self.paced:
            return 1000 * (os.cpu_count() or 1) / max(self.cpu_in_all, 1.0)
        return self.count / sum(each.seconds for each in self.spent)

    @property
    def commits(self) -> float:
        return sum(each.commits for each in self.spent) / self.count

    @property
    def cpu(self) -> dict[str, float]:
        """Milliseconds a run, by process."""
        names = {name for each in self.spent for name in each.cpu}
        return {name: 1000 * sum(each.cpu.get(name, 0) for each in self.spent) / self.count for name in sorted(names)}

    @property
    def cpu_in_all(self) -> float:
        return sum(self.cpu.values())


async def rows(size: Size) -> list[Row]:
    plain = {
        "ours": size.of(200, 10_000, 10_000),
        "workflow_driven": size.of(20, 400, 2_000),
        "textbook": size.of(20, 600, 10_000),
        "dbos": size.of(100, 1_000, 10_000),
        "procrastinate": size.of(100, 1_000, 10_000),
    }
    at_once = {name: count for name, count in plain.items() if name != "workflow_driven"}
    waiting = dict.fromkeys(at_once, size.of(30, 200, 10_000))
    async with bed(scale=SCALE) as one, _contenders(one) as contenders:
        await one.rest(size.of(5.0, 10.0, 30.0))
        idle = [Row(f"idle.cpu.{name}", 1000 * used, "ms of CPU a second") for name, used in sorted(one.idle.items())]
        whole = Row("idle.cpu", 1000 * sum(one.idle.get(name, 0) for name in _OURS), "ms of CPU a second")

        async def compare(name: str, counts: dict[str, int], order: Order) -> tuple[dict[str, Figures], list[Row]]:
            rule = await one.office.rule(*_steps(order.wait), name=name)
            found = await _compare({each: contenders[each] for each in counts}, counts, order, name)
            statements = await _statements(one, order.wait)
            await one.office.archive(rule)
            return found, _told(f"runs.{name}", found, statements)

        found, plain_rows = await compare("no_wait", plain, Order(0))
        _, waiting_rows = await compare("waiting", waiting, Order(0, WAIT, PACE))
        _, at_once_rows = await compare("waiting.at_once", at_once, Order(0, WAIT_AT_ONCE))
        return [whole, *idle, *plain_rows, *_against_workflows(found), *waiting_rows, *at_once_rows]


def _steps(seconds: float) -> list[dict[str, object]]:
    """The rule's: three tasks, with a wait of so many seconds between two of them."""
    if not seconds:
        return [task("one"), task("two"), task("three")]
    minutes = round(seconds * SCALE / 60)
    return [task("one"), wait("first", minutes), task("two"), wait("second", minutes), task("three")]


def _told(name: str, found: dict[str, Figures], statements: float) -> list[Row]:
    ours, theirs = found["ours"], found["textbook"]
    bars = {
        "runs.no_wait": (PER_SECOND, None),
        "runs.waiting": (WAITING * theirs.per_second, WAITING_CPU * theirs.cpu_in_all),
    }
    least, most = bars.get(name, (None, None))
    against = [
        Row.more(
            f"{name}.against_{other}",
            ours.per_second,
            "/s",
            figures.per_second,
            least=figures.per_second if name == "runs.no_wait" else None,
            note=f"baseline: {other}",
        )
        for other, figures in found.items()
        if other not in {"ours", "textbook", "workflow_driven"}
    ]
    cpu = [
        Row.less(f"{name}.cpu.against_{other}", ours.cpu_in_all, "ms of CPU a run", figures.cpu_in_all)
        for other, figures in found.items()
        if other not in {"ours", "textbook", "workflow_driven"}
    ]
    return [
        Row.more(name, ours.per_second, "/s", theirs.per_second, least=least, note=f"{ours.count} runs of three steps"),
        *against,
        Row.less(f"{name}.cpu", ours.cpu_in_all, "ms of CPU a run", theirs.cpu_in_all, most=most),
        *cpu,
        *(
            Row(f"{name}.cpu.{process}", value, "ms of CPU a run", theirs.cpu.get(process))
            for process, value in ours.cpu.items()
        ),
        Row.less(f"{name}.commits", ours.commits, "commits a run", theirs.commits),
        Row(f"{name}.statements", statements, "SQL statements a run", most=STATEMENTS),
        *_temporal(name, ours, theirs),
    ]


def _temporal(name: str, ours: Figures, theirs: Figures) -> list[Row]:
    """Both costs in Temporal; a run that never enters it has none, and no ratio."""
    found = []
    for place, what in enumerate(("history events", "state transitions")):
        mine, other = ours.history[place], theirs.history[place]
        called = f"{name}.{what.replace(' ', '_')}"
        found.append(Row.less(called, mine, f"{what} a run", other) if mine else Row(called, 0, f"{what} a run", other))
    return found


def _against_workflows(found: dict[str, Figures]) -> list[Row]:
    ours, driven = found["ours"], found["workflow_driven"]
    return [
        Row.more("runs.no_wait.workflow_driven", driven.per_second, "/s", found["textbook"].per_second),
        Row(
            "runs.no_wait.first_attempt",
            ours.per_second / driven.per_second,
            "times the workflow-driven way",
            least=TIMES,
        ),
        Row.less("runs.no_wait.first_attempt.cpu", ours.cpu_in_all, "ms of CPU a run", driven.cpu_in_all),
    ]


async def _compare(
    contenders: dict[str, Contender], counts: dict[str, int], order: Order, name: str
) -> dict[str, Figures]:
    """Each in turn, forwards and then backwards, after a warm-up of all."""
    found = {each: Figures(paced=order.pace is not None) for each in contenders}
    for each, contender in contenders.items():
        await contender.run(replace(order, count=min(20, counts[each] // ROUNDS)))
    for number in range(ROUNDS):
        for each in list(contenders)[:: -1 if number % 2 else 1]:
            share = counts[each] // ROUNDS
            spent = await contenders[each].run(replace(order, count=share))
            found[each].count += share
            found[each].spent.append(spent)
            cpu = 1000 * sum(spent.cpu.values()) / share
            say(f"  {each}: {share} of {name} in {spent.seconds:.1f} s, {cpu:.1f} ms of CPU each")
    for each, contender in contenders.items():
        found[each].history = await contender.history()
    return found


@asynccontextmanager
async def _contenders(one: Bed) -> AsyncIterator[dict[str, Contender]]:
    """Everybody's workers run all the time, and only one has work."""
    async with AsyncExitStack() as open_:
        eyes: dict[str, Eyes] = {}
        urls: dict[str, str] = {}
        for module in ("textbook", "with_dbos", "with_procrastinate"):
            await one.stack.postgres.create_database(module)
            urls[module] = one.stack.postgres.admin_url(module)
            await job.make_tables(urls[module])
            await open_.enter_async_context(one.beside(module, f"bench.{module}", urls[module]))
            eyes[module] = await open_.enter_async_context(Eyes.on(urls[module]))

        queue = with_dbos.client(urls["with_dbos"])
        open_.callback(queue.destroy)
        app = with_procrastinate.make_app(urls["with_procrastinate"], [])
        await open_.enter_async_context(app.open_async())
        client = await one.client()

        async def dbos(numbers: range, wait: float) -> None:
            await asyncio.to_thread(with_dbos.start, queue, numbers, wait)

        async def procrastinate(numbers: range, wait: float) -> None:
            await with_procrastinate.start(app, numbers, wait)

        async def temporal(numbers: range, wait: float) -> None:
            await textbook.start(client, [textbook.Job(number, wait) for number in numbers])

        yield {
            "ours": Ours(one, client, first_attempt=True),
            "workflow_driven": Ours(one, client, first_attempt=False),
            "textbook": Other("textbook", one, eyes["textbook"], temporal, client, "textbook", "temporal"),
            "dbos": Other("dbos", one, eyes["with_dbos"], dbos, None, "with_dbos"),
            "procrastinate": Other(
                "procrastinate", one, eyes["with_procrastinate"], procrastinate, None, "with_procrastinate"
            ),
        }


class Ours:
    """Contacts that were created, of whom the relay hears when the time starts; where runs wait, created from then on.

    A wait counts from the fact, so that one of before would be over.
    """

    def __init__(self, one: Bed, client: Client, *, first_attempt: bool) -> None:
        self.name = "ours" if first_attempt else "workflow driven"
        self._bed, self._client, self._first_attempt = one, client, first_attempt
        self._last: list[UUID] = []

    async def run(self, order: Order) -> Spent:
        if order.wait:
            return await self._begun(order)
        if self._first_attempt:
            return await self._measured(self._bed.stack.service("relay"), order.count)
        await self._bed.stack.kill_service("relay", SIGTERM)
        environment = {"DRUMBEAT_FIRST_ATTEMPT": "false"}
        async with self._bed.beside("relay", "cli", "relay", environment=environment) as relay:
            spent = await self._measured(relay, order.count)
        await self._bed.stack.start_service("relay")
        return spent

    async def _begun(self, order: Order) -> Spent:
        already = await self._bed.value(_ENDED)

        async def create(_: int) -> None:
            await self._bed.office.people(1, heard=True)

        async def work() -> None:
            if order.pace is not None:
                await paced(order.pace, order.count, create)
            else:
                await self._bed.office.people(order.count, heard=True)
            await self._bed.until(_ENDED, already + order.count, "runs", already=already)

        return await self._told(await self._bed.spent(work))

    async def _measured(self, relay: Child, count: int) -> Spent:
        already = await self._bed.value(_ENDED)
        relay.signal(SIGSTOP)
        await self._bed.office.people(count, heard=True)

        async def work() -> None:
            relay.signal(SIGCONT)
            await self._bed.until(_ENDED, already + count, "runs", already=already)

        return await self._told(await self._bed.spent(work))

    async def _told(self, spent: Spent) -> Spent:
        newest = await self._bed.rows("SELECT id FROM executions ORDER BY started_at DESC, id DESC LIMIT $1", _SAMPLE)
        self._last = [row["id"] for row in newest]
        return replace(spent, cpu={name: used for name, used in spent.cpu.items() if name in _OURS})

    async def history(self) -> tuple[float, float]:
        return await _described(self._client, [workflow_id(Target.RUN, id_) for id_ in self._last])


class Other:
    """A baseline: jobs by number, done when the last step's task is there."""

    def __init__(
        self,
        name: str,
        one: Bed,
        eyes: Eyes,
        start: Callable[[range, float], Awaitable[None]],
        client: Client | None,
        *processes: str,
    ) -> None:
        self.name = name
        self._bed, self._eyes, self._start, self._client = one, eyes, start, client
        self._processes = {OWN, "postgres", *processes}
        self._made = 0

    async def run(self, order: Order) -> Spent:
        first, self._made = self._made, self._made + order.count

        async def begin(number: int) -> None:
            await self._start(range(first + number, first + number + 1), order.wait)

        async def work() -> None:
            if order.pace is not None:
                await paced(order.pace, order.count, begin)
            else:
                await self._start(range(first, self._made), order.wait)
            await until(
                lambda: self._eyes.value(job.DONE, job.STEPS - 1), self._made, f"jobs by {self.name}", already=first
            )

        spent = await self._bed.spent(work, eyes=self._eyes, own=True)
        return replace(spent, cpu={name: used for name, used in spent.cpu.items() if name in self._processes})

    async def history(self) -> tuple[float, float]:
        last = range(max(0, self._made - _SAMPLE), self._made)
        return await _described(self._client, [f"textbook-{number}" for number in last]) if self._client else (0, 0)


async def _described(client: Client, ids: list[str]) -> tuple[float, float]:
    """Events and state transitions, in the mean; what needed no workflow has none."""
    events = transitions = 0
    for id_ in ids:
        try:
            told = await client.get_workflow_handle(id_).describe()
        except RPCError as error:
            if error.status is not RPCStatusCode.NOT_FOUND:
                raise
            continue
        events += told.raw_description.workflow_execution_info.history_length
        transitions += told.raw_description.workflow_execution_info.state_transition_count
    return events / len(ids), transitions / len(ids)


async def _statements(one: Bed, wait: float, *, count: int = 50) -> float:
    """SQL statements a run, counted in this process by the same code: the match, the first attempt, each wake."""
    wakes = 2 if wait else 0
    environment = one.stack.environment()
    crossing = Database.connect(environment["DRUMBEAT_RELAY_DATABASE_URL"])
    app, counted = Database.connect(environment["DRUMBEAT_DATABASE_URL"]), 0

    def sent(*_: object) -> None:
        nonlocal counted
        counted += 1

    relay = one.stack.service("relay")
    relay.signal(SIGSTOP)
    try:
        await one.office.people(count, heard=True)
        for database in (crossing, app):
            event.listen(database.engine.sync_engine, "before_cursor_execute", sent)
        await _match(Relay(crossing, app))
        newest = "SELECT id FROM executions ORDER BY started_at DESC, id DESC LIMIT $1"
        ids: list[UUID] = [row["id"] for row in await one.rows(newest, count)]
        for _ in range(wakes):
            await asyncio.sleep(1.2 * wait)  # as a timer would
            for id_ in ids:
                await Advance(app).advance(Waiter(org=one.office.org, kind=Target.RUN, id=id_))
        await _match(Relay(crossing, app))
    finally:
        relay.signal(SIGCONT)
        await crossing.close()
        await app.close()
    return counted / count


async def _match(relay: Relay) -> None:
    while await relay.once():
        pass
