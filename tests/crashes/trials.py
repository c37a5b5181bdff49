"""The reference run, and after it a run for every fault: a process ended at one point, at one of its occurrences."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from temporalio.client import Client

from cli.demo.judge import Verdict
from cli.demo.office import GaveUp
from domain.words import Role
from runtime.migrating import migrate
from runtime.postgres import Postgres
from store import identity
from store.transaction import Database
from tests.conftest import Base
from tests.crashes.nursery import nursery
from tests.crashes.points import Fault, passed
from tests.crashes.product import SERVICES, Broken, Ground, Product, running
from tests.crashes.story import Made, set_up, tell
from tests.crashes.verdicts import Picture, judged, picture
from tests.mailing import mail_server

AT_ONCE = 4
"""Runs at the same time: after a crash most of one is waiting for Temporal to miss the dead."""
SCENARIO_SECONDS = 400.0
_TEMPLATE = "before_the_story"
_OPTIONS = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "max_connections": "400",
    "track_commit_timestamp": "on",
}


@dataclass(frozen=True)
class Reference:
    """A run without a fault: how often each service came past each of its points, and the picture at the end."""

    points: Mapping[str, Mapping[str, int]]
    picture: Picture

    def faults(self, *, first_only: bool = False) -> list[Fault]:
        """Every point and occurrence, the first occurrence of each point before the second of any."""
        found = [
            Fault(service, point, occurrence)
            for service, points in self.points.items()
            for point, times in points.items()
            for occurrence in range(1, 2 if first_only else times + 1)
        ]
        return sorted(found, key=lambda fault: fault.occurrence)


@dataclass(frozen=True)
class Outcome:
    """What became of one fault; `reached` is False where batching differed and the process never came there."""

    fault: Fault
    reached: bool
    offending: Sequence[str]

    @property
    def holds(self) -> bool:
        return not self.offending


class Trials:
    """Runs of the same story, each over a copy of the same database."""

    def __init__(self, ground: Ground, made: Made) -> None:
        self._ground = ground
        self._made = made
        self._count = 0

    async def reference(self) -> Reference:
        """Raises `Broken` where the story does not hold even without a crash."""
        async with self._running(None) as product:
            await tell(product, self._made)
            wrong = _offending(await judged(product, None))
            if wrong:
                raise Broken("\n".join(wrong))
            points = {service: Counter(passed(product.records[service][0])) for service in SERVICES}
            return Reference(points, await picture(product))

    async def all(
        self, faults: Iterable[Fault], reference: Reference, tell_of: Callable[[Outcome], None]
    ) -> list[Outcome]:
        """Every fault in a run of its own, some at a time; `tell_of` hears each as it is known."""
        waiting = iter(list(faults))
        outcomes: list[Outcome] = []

        async def runner() -> None:
            for fault in waiting:
                outcomes.append(await self.one(fault, reference))
                tell_of(outcomes[-1])

        async with asyncio.TaskGroup() as runners:
            for _ in range(AT_ONCE):
                runners.create_task(runner())
        return outcomes

    async def one(self, fault: Fault, reference: Reference) -> Outcome:
        async with self._running(fault) as product:
            try:
                async with asyncio.timeout(SCENARIO_SECONDS):
                    await tell(product, self._made)
                    await product.reached(1.0)
                    wrong = _offending(await judged(product, reference.picture))
            except (Broken, GaveUp, TimeoutError) as error:
                wrong = [f"{type(error).__name__}: {error}"]
            return Outcome(fault, product.struck, wrong)

    def _running(self, fault: Fault | None) -> AbstractAsyncContextManager[Product]:
        self._count += 1
        return running(self._ground, f"story_{self._count}", _TEMPLATE, self._made.token, fault)


@asynccontextmanager
async def trials(folder: Path, temporal: Mapping[str, str]) -> AsyncIterator[Trials]:
    """Over servers of their own but for Temporal's, whose environment it is."""
    client = await Client.connect(temporal["TEMPORAL_ADDRESS"], namespace=temporal["TEMPORAL_NAMESPACE"])
    postgres = Postgres(folder / "postgres", options=_OPTIONS)
    await postgres.start()
    try:
        with mail_server(folder / "mail.jsonl") as mail:
            async with nursery() as forks:
                ground = Ground(postgres, temporal, mail.log, mail.port, client, forks, folder)
                yield Trials(ground, await _prepared(ground))
    finally:
        await postgres.stop()


async def _prepared(ground: Ground) -> Made:
    """Makes the database that every run begins with."""
    await ground.postgres.create_database(_TEMPLATE)
    admin, app, relay = ground.urls(_TEMPLATE)
    await migrate(admin, app, relay, test=True)
    base = Base(Database.connect(app), Database.connect(relay), app, relay, admin)
    await base.people()
    async with base.app.transaction(base.org) as tx:
        _, token = await identity.create_key(tx, base.admin, "story", Role.ADMIN)
    await base.app.close()
    await base.crossing.close()
    product = Product(ground, _TEMPLATE, token)
    await product.start("api")
    try:
        return await set_up(product.office, ground.mail_port, token=token, rep=str(base.rep))
    finally:
        await product.stop()


def _offending(verdicts: Sequence[Verdict]) -> list[str]:
    return [f"{verdict.name}: {row}" for verdict in verdicts for row in verdict.offending[:3]]


def table(reference: Reference, outcomes: Sequence[Outcome]) -> str:
    """A line a point: how often the reference came past it, how often a process ended there, and whether all held."""
    lines = []
    for service, points in reference.points.items():
        for point, times in points.items():
            of_it = [
                outcome for outcome in outcomes if (outcome.fault.service, outcome.fault.point) == (service, point)
            ]
            reached = sum(outcome.reached for outcome in of_it)
            broken = [outcome for outcome in of_it if not outcome.holds]
            holds = f"BROKEN at {', '.join(str(one.fault.occurrence) for one in broken)}" if broken else "holds"
            lines.append(f"{service:<7} {point:<95} {times:>4} {reached:>6} of {len(of_it):<4} {holds}")
    head = f"{'service':<7} {'point':<95} {'came':>4} {'ended':>6} of tried"
    return "\n".join([head, *lines])
