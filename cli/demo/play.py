"""The play: sets the stage, lets the people, systems and misfortunes on, and has it judged."""

import asyncio
import json
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from temporalio.client import Client

from cli.demo import campaign, floors, judge, mail_judge, report, sample, story
from cli.demo.campaign import Campaign, Made
from cli.demo.general import GENERAL
from cli.demo.judge import Tables, Verdict
from cli.demo.mail_host import MailHost
from cli.demo.office import GaveUp, Office, Outside
from cli.demo.story import Told
from cli.demo.town import Town, manners
from runtime.attaching import temporal_server
from runtime.folders import CHECKOUT
from runtime.processes import DATABASE, Stack
from runtime.settings import EmbeddedSettings

SCALE = 21_600
"""A day in four seconds."""
_SAY_EVERY = 5.0
_TRIES = 10
_SETTLING_SECONDS = 150.0
"""The longest the last follow-up may take after the last move: fourteen days, outages and a slow machine included."""
# `env` becomes what follows it. Answers come to an address of each mail's own at this domain.
_COMMAND = ("env", f"DRUMBEAT_INBOUND_DOMAIN={campaign.INBOUND_DOMAIN}", sys.executable, "-m", "cli")


async def run(*, seed: int, keep: bool) -> bool:
    """The whole demo; True if every invariant held. With `keep` it serves on until Ctrl-C."""
    console = Console(stderr=True, highlight=False)
    home = EmbeddedSettings().home / "demo"
    shutil.rmtree(home, ignore_errors=True)

    def tell(line: str) -> None:
        console.print(f"  [dim]{line}[/]")

    stack = Stack(
        home,
        temporal_server(),
        workers=2,
        scale=SCALE,
        postgres_options=mail_judge.POSTGRES_OPTIONS,
        command=_COMMAND,
        tell=tell,
    )
    console.print("Starting PostgreSQL, Temporal, the API, the relay and two workers; a day passes in four seconds.")
    async with stack:
        mail = MailHost(home, tell)
        background = [asyncio.create_task(stack.revive()), asyncio.create_task(mail.run())]
        token = ""
        figures: dict[str, object] = {}
        verdicts: list[Verdict] = []
        happened: dict[str, int] = {}
        try:
            token = await _organization(stack)
            figures, verdicts, happened = await _job(stack, mail, token, seed, console)
        except* GaveUp as gave_up:
            verdicts = [Verdict("every request was answered", [str(each) for each in _leaves(gave_up)])]
        finally:
            if not keep:
                await _end(background)
        report.show(console, figures, verdicts)
        well = bool(verdicts) and all(verdict.holds for verdict in verdicts)
        judged = {"well": well, "invariants": [asdict(verdict) for verdict in verdicts]}
        answer = {"seed": seed, "figures": figures, "happened": happened, **judged}
        if not sys.stdout.isatty():  # a person has read the tables
            sys.stdout.write(json.dumps(answer, indent=2, default=str) + "\n")
        if keep:
            console.print(f"It goes on: the API at {stack.api_url} (described at /openapi.json), data in {home}.")
            console.print(f"Its admin's key: {token}  Ctrl-C ends it.", soft_wrap=True)
            await _end(background[:1])
            await stack.supervise()
            await _end(background)
    return well


async def _end(tasks: Sequence[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _leaves(group: BaseExceptionGroup[GaveUp]) -> list[BaseException]:
    """What was raised, however deep the groups."""
    found: list[BaseException] = []
    for each in group.exceptions:
        found += _leaves(each) if isinstance(each, BaseExceptionGroup) else [each]
    return found


async def _job(
    stack: Stack, mail: MailHost, token: str, seed: int, console: Console
) -> tuple[dict[str, object], list[Verdict], dict[str, int]]:
    started = time.monotonic()
    office, outside = Office(stack.api_url, token), Outside(stack.api_url)
    tables = Tables(stack.postgres.admin_url(DATABASE))
    try:
        owners = await _people(office)
        imports, verdicts = await _import(office, seed)
        console.print(f"Imported {imports['contacts']['imported']} contacts and {imports['deals']['imported']} deals.")
        made = await campaign.set_up(office, owners, mail.port)
        rule = await campaign.active(office, "rule", "Chase proposals", story.RULE)
        life = _Life(stack, mail, office, outside, tables, seed, console)
        await life.live(made)
        told, town = life.told, life.town
        verdicts += [await judge.acknowledged(tables, told.moved)]
        verdicts += await judge.judge(tables, GENERAL)
        verdicts += await judge.judge(tables, judge.INVARIANTS, rule=rule, amount=story.AMOUNT)
        verdicts += await judge.webhooks(tables, told.webhooks, told.forged)
        log = mail_judge.logged(mail.log)
        verdicts += await mail_judge.judge_mail(tables, log, made, life.campaign, town.answered)
        happened = await floors.count(tables, made, rule, told, life.campaign, town.answered, log)
        verdicts += [floors.enough(happened), await _temporal_agrees(stack, made)]
        counts = await judge.counts(tables)
        late = await judge.lateness_ms(tables, SCALE)
        of_mail = await mail_judge.figures(tables, log, life.campaign, town.answered, SCALE)
        uncertain = await mail_judge.uncertain(tables)
    finally:
        await office.close()
        await outside.close()
    figures = {
        "contacts imported": f"{imports['contacts']['imported']}; refused: {report.refused_rows(imports['contacts'])}",
        "deals imported": f"{imports['deals']['imported']}; refused: {report.refused_rows(imports['deals'])}",
        "deals moved": len(told.moved),
        "runs started": counts["matched"],
        "refused": f"{counts['refused']} ({', '.join(f'{n} {reason}' for reason, n in counts['reasons'].items())})",
        "tasks": f"{counts['tasks']}, {counts['completed']} completed",
        "reminders": f"{counts['reminders']}; manager told {counts['managers_told']} times",
        "webhooks": f"{told.webhook_posts} posted, {len(told.webhooks)} distinct; forged: {told.forged_statuses}",
        **of_mail,
        "uncertain": "\n".join([f"{len(uncertain)}, settled so:", *uncertain]),
        "letters repeated": town.repeated,
        "requests repeated": office.repeated + outside.repeated,
        "waits ended late by": ", ".join(f"{name} {late[name]:.0f} ms" for name in ("p50", "p95", "most"))
        + " (outages included)",
        "took": f"{time.monotonic() - started:.0f} s",
    }
    return figures, verdicts, happened


async def _organization(stack: Stack) -> str:
    """Made as an operator makes it, by the command, and again if the database was just killed; the admin's token."""
    command = [
        sys.executable,
        "-m",
        "cli",
        "create-org",
        "Northwind",
        "--email",
        "admin@example.com",
        "--zone",
        "Europe/Berlin",
    ]
    for number in range(1, _TRIES + 1):
        made = await asyncio.create_subprocess_exec(
            *command,
            "--slug",
            f"northwind-{number}",
            env=stack.environment(),
            cwd=CHECKOUT,
            stdout=asyncio.subprocess.PIPE,
        )
        output, _ = await made.communicate()
        if made.returncode == 0:
            token: str = json.loads(output)["apiKey"]
            return token
        await asyncio.sleep(1)
    raise GaveUp("create-org failed; its words are above")


async def _people(office: Office) -> dict[str, str]:
    """The owners that the files name, under one manager: their ids by name."""
    manager = await office.post("/users", {"email": "manager@example.com", "name": "Morgan", "role": "manager"})
    owners = {}
    for number, name in enumerate(sample.OWNERS, 1):
        person = {"email": f"rep-{number}@example.com", "name": name, "role": "rep"}
        owners[name] = (await office.post("/users", {**person, "managerId": manager["user"]["id"]}))["user"]["id"]
    return owners


async def _import(office: Office, seed: int) -> tuple[dict[str, Any], list[Verdict]]:
    """Both files, and each report held against what the generator knows to be true."""
    contacts, deals = sample.contacts_csv(seed), sample.deals_csv(seed)
    reports = {
        "contacts": await office.upload("/imports/contacts", contacts.data),
        "deals": await office.upload("/imports/deals", deals.data),
    }
    verdicts = []
    for noun, file in (("contacts", contacts), ("deals", deals)):
        told = reports[noun]
        wrong = [f"imported {told['imported']}, not {file.good}"] if told["imported"] != file.good else []
        expected = {line for line, _ in file.refused} | set(file.unknown_stage) | set(file.unknown_contact)
        reported = {error["row"] for error in told["errors"]}
        wrong += [f"row {line} is missing from the report" for line in sorted(expected - reported)]
        wrong += [f"row {line} was refused without need" for line in sorted(reported - expected)]
        verdicts.append(Verdict(f"the import of {noun} kept every good row and named every bad one", wrong[:3]))
    return reports, verdicts


class _Life:
    """The traffic, the misfortune beside it, and the wait until nothing is left to come."""

    def __init__(
        self,
        stack: Stack,
        mail: MailHost,
        office: Office,
        outside: Outside,
        tables: Tables,
        seed: int,
        console: Console,
    ) -> None:
        self._stack = stack
        self._mail = mail
        self._office = office
        self._outside = outside
        self._tables = tables
        self._seed = seed
        self._console = console
        self._over = asyncio.Event()
        self.told = Told()
        self.campaign = Campaign()
        self.town: Town

    async def live(self, made: Made) -> None:
        office, outside, told, over = self._office, self._outside, self.told, self._over
        contacts = [contact async for contact in office.all("contacts")]
        # By title and address: ids are another run's others.
        early = [deal for stage in ("lead", "qualified") async for deal in office.all("deals", stage=stage)]
        early.sort(key=lambda deal: str(deal["title"]))
        # In the order in which their deals move: who is asked to talk details may unsubscribe, and is enrolled by then.
        people = campaign.chosen(self._seed, contacts, [deal["contactId"] for deal in early])
        of_town = manners(self._seed, [person["email"] for person in people])
        self.town = Town(self._mail.log, outside, made.source, of_town)
        quiet = [person for person in reversed(people) if person["email"] not in of_town][: campaign.STOPPED_BY_HAND]
        names = {deal["id"]: deal["title"] for deal in early} | {one["id"]: one["email"] for one in contacts}
        source = await office.post("/sources", {"name": "Web forms"})
        columns = (TextColumn("{task.description:>11}"), BarColumn(), MofNCompleteColumn())
        with Progress(*columns, console=self._console) as bars:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._watch(bars, len(early)))
                group.create_task(story.complete_tasks(office, self._seed, names, told, over))
                group.create_task(campaign.mind_the_desk(office, self._mail.log, self.campaign, over))
                group.create_task(self.town.live(over))
                async with asyncio.TaskGroup() as hour:
                    hour.create_task(story.move_deals(office, early, told))
                    hour.create_task(story.post_webhooks(outside, source["source"]["path"], source["secret"], told))
                    hour.create_task(campaign.enroll(office, made, people, self.campaign))
                    hour.create_task(campaign.stop_some(office, quiet, self.campaign))
                    hour.create_task(story.misfortune(self._stack, self._mail, told, self._say(bars)))
                await self._settled()
                over.set()

    def _say(self, bars: Progress) -> Callable[[str], None]:
        return lambda line: bars.console.print(f"  [yellow]{line}[/]")

    async def _settled(self) -> None:
        """Returns when nothing is left to come: no queue, no open row, no reminder to fire, nobody about to answer.

        Gives up after a while; the invariants then name what did not come.
        """
        deadline = time.monotonic() + _SETTLING_SECONDS
        while time.monotonic() < deadline:
            # The town first: what it has done is in the tables.
            if self.town.at_rest and not await judge.left_to_come(self._tables):
                return
            await asyncio.sleep(0.25)

    async def _watch(self, bars: Progress, deals: int) -> None:
        """Live bars; where there is no terminal, a line every five seconds."""
        moved = bars.add_task("moved", total=deals)
        done = bars.add_task("followed up", total=None)
        mails = bars.add_task("mails", total=None)
        through = bars.add_task("sequences", total=None)
        said = time.monotonic()
        while True:
            last = self._over.is_set()
            counts = await judge.counts(self._tables)
            proposals = sum(stage == "proposal" for _, stage in self.told.moved)
            bars.update(moved, completed=proposals)
            bars.update(done, completed=counts["ended"], total=counts["matched"])
            bars.update(mails, completed=counts["left"], total=counts["mails"])
            bars.update(through, completed=counts["through"], total=counts["enrolled"])
            if last:
                return
            if not bars.console.is_terminal and time.monotonic() - said >= _SAY_EVERY:
                said = time.monotonic()
                bars.console.print(
                    f"  {proposals} of {deals} moved, {counts['ended']} of {counts['matched']} runs ended,"
                    f" {counts['reminders']} reminders fired; {counts['left']} of {counts['mails']} mails left,"
                    f" {len(self.town.answered)} answered; {counts['through']} of {counts['enrolled']} are through"
                )
            await asyncio.sleep(0.25)


async def _temporal_agrees(stack: Stack, made: Made) -> Verdict:
    """No workflow is left open when no row is; its list lags behind by about a second.

    A mailbox that has sent lately has one open for a while: the next mail need not start it.
    """
    environment = stack.environment()
    client = await Client.connect(environment["TEMPORAL_ADDRESS"], namespace=environment["TEMPORAL_NAMESPACE"])
    deadline = time.monotonic() + 20
    lingering = {f"mailbox-{mailbox}" for mailbox in made.mailboxes}
    while True:
        running = {each.id async for each in client.list_workflows("ExecutionStatus = 'Running'")} - lingering
        if not running or time.monotonic() > deadline:
            break
        await asyncio.sleep(0.5)
    return Verdict("no workflow waits for a row that has ended", sorted(running)[:3])
