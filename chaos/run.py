"""One storm from its first process to its verdict."""

import asyncio
import json
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, is_dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from chaos import wrong_clock
from chaos.faults import Storm
from chaos.figures import counts
from chaos.judge import judge, left_to_come, overdue
from chaos.routes import Routes
from chaos.scenarios import SCENARIOS, Scenario
from chaos.schedule import RELAYS, SERVERS, WORKERS, Fault, Kind, by_kind, schedule
from chaos.small_disks import mounted
from chaos.traffic import SCALE, Traffic
from cli.demo import mail_judge, report
from cli.demo.campaign import INBOUND_DOMAIN
from cli.demo.judge import Tables, Verdict
from cli.demo.mail_host import MailHost
from cli.demo.office import GaveUp, Office, Outside
from runtime import obtain
from runtime.attaching import temporal_server, temporal_sql_tool
from runtime.folders import CHECKOUT
from runtime.processes import DATABASE, Stack
from runtime.settings import EmbeddedSettings
from runtime.trouble import TroubleError

_SETTLING_SECONDS = 240.0
"""The longest until nothing is left to come: the last sequence's days, a mailbox's longest pause after trouble; and
the storm's own length, where all of it was missed."""
_PATIENCE = 180.0
"""Real seconds a client goes on trying: longer than all that may keep the API from answering, one after another."""
_SMALL_LOG = "96MB"
"""The most that PostgreSQL keeps of its log on a small disk."""
_LOOK_EVERY = 0.25
_SAY_EVERY = 5.0
_CAUGHT_UP = "what was due at the last restart was done after"
_QUIET = "nothing was left to come after"


@dataclass
class Outcome:
    """What came of a storm; `verdicts` is empty where it did not come to one."""

    seed: int
    folder: Path
    faults: Sequence[Fault]
    scenario: Scenario | None = None
    verdicts: list[Verdict] = field(default_factory=list)
    figures: dict[str, object] = field(default_factory=dict)
    told: object = None

    @property
    def well(self) -> bool:
        return bool(self.verdicts) and all(verdict.holds for verdict in self.verdicts)


async def run(seed: int, minutes: float, *, scenario: str | None = None, keep: bool) -> bool:
    """Has a storm of that length, judges it, and says what came of it; True if every invariant held.

    The faults are those of the scenario, or drawn. Raises `TroubleError` where it may not kill what it would run on.
    """
    found = temporal_server()
    if found.kind is obtain.Kind.ADDRESS:
        message = "TEMPORAL_ADDRESS names a server; a storm needs one of its own, to kill."
        raise TroubleError(message)
    console = Console(stderr=True, highlight=False)
    seconds = minutes * 60
    told = SCENARIOS[scenario] if scenario else None
    if told and told.temporal_on_postgres and found.kind is obtain.Kind.CLI:
        message = "The `temporal` command keeps its histories in SQLite only; this scenario needs the plain server."
        raise TroubleError(message)
    console.print(f"Seed {seed}: {told.says if told else 'a storm'}; {seconds:.0f} s.")
    folder = EmbeddedSettings().home / "chaos" / f"{seed}-{datetime.now(UTC):%Y%m%dT%H%M%S}"
    faults = told.faults(seconds) if told else _faults(seed, seconds, console)
    outcome = Outcome(seed, folder, faults, told)
    disks = [folder / name for name in SERVERS] if told and told.small_disks else []
    try:
        with mounted(disks):
            await _Run(outcome, seconds, found, console).run()
    except* GaveUp as gave_up:
        outcome.verdicts += [Verdict("every request was answered", [str(each) for each in _leaves(gave_up)])]
    finally:
        kept = keep or not outcome.well
        if kept:
            _leave(outcome)
        else:
            shutil.rmtree(folder, ignore_errors=True)
    report.show(console, outcome.figures, outcome.verdicts)
    if kept:
        console.print(f"What there is to look at: {folder}", soft_wrap=True)
    named = f"--scenario {scenario} " if scenario else ""
    again = f'make chaos ARGS="{named}--minutes {minutes:g} --seed {seed}"'
    console.print(f"Seed {seed}: {'well' if outcome.well else 'BROKEN'}; {again} plays it again.", soft_wrap=True)
    if not sys.stdout.isatty():  # a person has read the tables
        answer = {
            "seed": seed,
            "scenario": scenario,
            "well": outcome.well,
            "figures": outcome.figures,
            "invariants": [asdict(verdict) for verdict in outcome.verdicts],
        }
        sys.stdout.write(json.dumps(answer, indent=2, default=str) + "\n")
    return outcome.well


def _faults(seed: int, seconds: float, console: Console) -> list[Fault]:
    found = schedule(seed, seconds)
    if wrong_clock.available():
        return found
    console.print("libfaketime cannot be loaded on this machine: no worker gets a wrong clock.")
    return [fault for fault in found if fault.kind is not Kind.CLOCK]


def _leave(outcome: Outcome) -> None:
    """What a person needs who wants to know why, beside the logs and the tables that are there already."""
    outcome.folder.mkdir(parents=True, exist_ok=True)
    broken = {verdict.name: verdict.offending for verdict in outcome.verdicts if not verdict.holds}
    for name, value in {
        "schedule": outcome.faults,
        "told": outcome.told,
        "figures": outcome.figures,
        "offending": broken,
    }.items():
        (outcome.folder / f"{name}.json").write_text(json.dumps(value, indent=2, default=_plain) + "\n")


def _plain(value: object) -> object:
    return vars(value) if is_dataclass(value) else str(value)


def _leaves(group: BaseExceptionGroup[GaveUp]) -> list[BaseException]:
    """What was raised, however deep the groups."""
    found: list[BaseException] = []
    for each in group.exceptions:
        found += _leaves(each) if isinstance(each, BaseExceptionGroup) else [each]
    return found


class _Run:
    """The processes of one storm, and what is done with them."""

    def __init__(self, outcome: Outcome, seconds: float, found: obtain.Found, console: Console) -> None:
        self._outcome = outcome
        self._seconds = seconds
        self._console = console
        self._begun = time.monotonic()
        self._routes = Routes({"DRUMBEAT_INBOUND_DOMAIN": INBOUND_DOMAIN})
        self._mail = MailHost(outcome.folder, self._tell)
        scenario = outcome.scenario
        options = dict(mail_judge.POSTGRES_OPTIONS)
        if scenario and scenario.small_disks:
            options["max_wal_size"] = _SMALL_LOG
        self._stack = Stack(
            outcome.folder,
            found,
            workers=len(WORKERS),
            relays=len(RELAYS),
            scale=SCALE,
            postgres_options=options,
            temporal_sql_tool=temporal_sql_tool() if scenario and scenario.temporal_on_postgres else None,
            route=self._routes.route,
            tell=self._tell,
        )

    async def run(self) -> None:
        async with self._routes, self._stack:
            background = [asyncio.create_task(self._stack.revive()), asyncio.create_task(self._mail.run())]
            try:
                await self._work()
            finally:
                for task in background:
                    task.cancel()
                await asyncio.gather(*background, return_exceptions=True)

    async def _work(self) -> None:
        url = urlsplit(self._stack.api_url)
        api = f"http://127.0.0.1:{self._routes.lead('clients-api', url.port or 0)}"
        office, outside = Office(api, await self._organization(), patience=_PATIENCE), Outside(api, patience=_PATIENCE)
        scenario = self._outcome.scenario
        traffic = Traffic(
            office,
            outside,
            seed=self._outcome.seed,
            seconds=self._seconds,
            busy=scenario.busy if scenario else 1.0,
            mail_log=self._mail.log,
        )
        self._outcome.told = traffic.told
        tables = Tables(self._stack.postgres.admin_url(DATABASE))
        try:
            await traffic.set_up(self._routes.lead("workers-mail", self._mail.port))
            over = asyncio.Event()
            storm = Storm(self._stack, self._mail, self._routes, self._outcome.folder, self._tell)
            async with asyncio.TaskGroup() as both:
                both.create_task(self._watch(over))
                living = both.create_task(traffic.live(over))
                await storm.blow(self._outcome.faults)
                await self._calm(tables, traffic, living)
                over.set()
            await traffic.gone()
        finally:
            await office.close()
            await outside.close()
        self._outcome.figures |= {
            **await counts(tables, self._mail.log),
            "faults": ", ".join(f"{number} {kind}" for kind, number in by_kind(self._outcome.faults).items()),
            "requests repeated": office.repeated + outside.repeated,
            "took": f"{time.monotonic() - self._begun:.0f} s",
        }
        await self._judge(tables, traffic)

    async def _calm(self, tables: Tables, traffic: Traffic, living: asyncio.Task[None]) -> None:
        """How long after the last restart all that was due then is done, and nothing is left to come."""
        restored = time.monotonic()
        self._tell("the storm is over; everything runs again")
        figures = self._outcome.figures
        said = since = 0.0
        while since < _SETTLING_SECONDS + self._seconds:
            since = time.monotonic() - restored
            late, left = await overdue(tables, since), await left_to_come(tables)
            if _CAUGHT_UP not in figures and not late:
                figures[_CAUGHT_UP] = f"{since:.1f} s"
            if living.done() and traffic.at_rest and not left:
                figures[_QUIET] = f"{since:.1f} s"
                return
            if since - said > _SAY_EVERY:
                said = since
                self._tell(f"{since:5.1f} s after it: {late} of what was due wait, {left} are left to come")
            await asyncio.sleep(_LOOK_EVERY)

    async def _judge(self, tables: Tables, traffic: Traffic) -> None:
        environment = self._stack.environment()
        temporal = environment["TEMPORAL_ADDRESS"], environment["TEMPORAL_NAMESPACE"]
        self._outcome.verdicts += await judge(tables, self._mail.log, traffic.told, temporal)

    async def _organization(self) -> str:
        """Made as an operator makes it, by the command; the admin's token."""
        command = [sys.executable, "-m", "cli", "create-org", "Northwind", "--email", "admin@example.com"]
        made = await asyncio.create_subprocess_exec(
            *command,
            "--zone",
            "Europe/Berlin",
            env=self._stack.environment(),
            cwd=CHECKOUT,
            stdout=asyncio.subprocess.PIPE,
        )
        output, _ = await made.communicate()
        if made.returncode != 0:
            raise GaveUp("create-org failed; its words are above")
        token: str = json.loads(output)["apiKey"]
        return token

    async def _watch(self, over: asyncio.Event) -> None:
        """A bar of the storm's time; where there is no terminal, lines tell enough."""
        columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
        begun = time.monotonic()
        with Progress(*columns, console=self._console, disable=not self._console.is_terminal) as bars:
            bar = bars.add_task("storm", total=self._seconds)
            while not over.is_set():
                bars.update(bar, completed=time.monotonic() - begun)
                if time.monotonic() - begun > self._seconds:
                    bars.update(bar, description="calm")
                await asyncio.sleep(_LOOK_EVERY)

    def _tell(self, line: str) -> None:
        self._console.print(f"  [yellow]{line}[/]")
