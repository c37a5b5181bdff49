"""`make demo`: the main job end to end on real processes, in time-lapse, with its own proof."""

import asyncio
import json
import shutil
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import asdict
from random import Random
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from temporalio.client import Client

from cli.demo import judge, report, sample, story
from cli.demo.judge import Tables, Verdict
from cli.demo.office import GaveUp, Office
from cli.demo.story import Told
from runtime.attaching import temporal_server
from runtime.folders import CHECKOUT
from runtime.processes import DATABASE, Stack
from runtime.settings import EmbeddedSettings

SCALE = 21_600
"""A day in four seconds."""
_SAY_EVERY = 5.0
_TRIES = 10
_SETTLING_SECONDS = 120.0
"""The longest the last follow-up may take after the last move: weekends, outages and a slow machine included."""


async def run(*, seed: int, keep: bool) -> bool:
    """The whole demo; True if every invariant held. With `keep` it serves on until Ctrl-C."""
    console = Console(stderr=True, highlight=False)
    home = EmbeddedSettings().home / "demo"
    shutil.rmtree(home, ignore_errors=True)
    stack = Stack(home, temporal_server(), workers=2, scale=SCALE, tell=lambda line: console.print(f"  [dim]{line}[/]"))
    console.print("Starting PostgreSQL, Temporal, the API, the relay and two workers; a day passes in four seconds.")
    async with stack:
        revive = asyncio.create_task(stack.revive())
        token = ""
        try:
            token = await _organization(stack)
            figures, verdicts = await _job(stack, token, seed, console)
        except GaveUp as gave_up:
            figures, verdicts = {}, [Verdict("every request was answered", [str(gave_up)])]
        finally:
            revive.cancel()
            await asyncio.gather(revive, return_exceptions=True)
        report.show(console, figures, verdicts)
        well = all(verdict.holds for verdict in verdicts)
        answer = {"seed": seed, "well": well, "figures": figures, "invariants": [asdict(v) for v in verdicts]}
        if not sys.stdout.isatty():  # a person has read the tables
            sys.stdout.write(json.dumps(answer, indent=2, default=str) + "\n")
        if keep:
            console.print(f"It goes on: the API at {stack.api_url} (described at /openapi.json), data in {home}.")
            console.print(f"Its admin's key: {token}  Ctrl-C ends it.", soft_wrap=True)
            await stack.supervise()
    return well


async def _job(stack: Stack, token: str, seed: int, console: Console) -> tuple[dict[str, object], list[Verdict]]:
    started = time.monotonic()
    office = Office(stack.api_url, token)
    tables = Tables(stack.postgres.admin_url(DATABASE))
    try:
        await _people(office)
        imports, verdicts = await _import(office, seed)
        console.print(f"Imported {imports['contacts']['imported']} contacts and {imports['deals']['imported']} deals.")
        rule = await _switch_on(office)
        told = await _live(stack, office, tables, Random(seed), console)
        verdicts += [await judge.acknowledged(tables, told.moved)]
        verdicts += await judge.judge(tables, rule, story.AMOUNT)
        verdicts += await judge.webhooks(tables, told.webhooks, told.forged)
        verdicts += [await _temporal_agrees(stack)]
        counts = await judge.counts(tables)
        late = await judge.lateness_ms(tables, SCALE)
    finally:
        await office.close()
    figures = {
        "contacts imported": f"{imports['contacts']['imported']}; refused: {report.refused_rows(imports['contacts'])}",
        "deals imported": f"{imports['deals']['imported']}; refused: {report.refused_rows(imports['deals'])}",
        "deals moved": len(told.moved),
        "runs started": counts["matched"],
        "refused": f"{counts['refused']} ({', '.join(f'{n} {reason}' for reason, n in counts['reasons'].items())})",
        "tasks": f"{counts['tasks']}, {counts['completed']} completed",
        "reminders": f"{counts['reminders']}; manager told {counts['managers_told']} times",
        "webhooks": f"{told.webhook_posts} posted, {len(told.webhooks)} distinct; forged: {told.forged_statuses}",
        "requests repeated": office.repeated,
        "waits ended late by": ", ".join(f"{name} {late[name]:.0f} ms" for name in ("p50", "p95", "most"))
        + " (outages included)",
        "took": f"{time.monotonic() - started:.0f} s",
    }
    return figures, verdicts


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


async def _people(office: Office) -> None:
    """The owners that the files name, under one manager."""
    manager = await office.post("/users", {"email": "manager@example.com", "name": "Morgan", "role": "manager"})
    for number, name in enumerate(sample.OWNERS, 1):
        person = {"email": f"rep-{number}@example.com", "name": name, "role": "rep"}
        await office.post("/users", {**person, "managerId": manager["user"]["id"]})


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


async def _switch_on(office: Office) -> str:
    rule = (await office.post("/rules", {"name": "Chase proposals", "document": story.RULE}))["rule"]
    await office.command(f"/rules/{rule['id']}/activate", rule["revision"])
    rule_id: str = rule["id"]
    return rule_id


async def _live(stack: Stack, office: Office, tables: Tables, random: Random, console: Console) -> Told:
    """The traffic, the misfortune beside it, and the wait until nothing is left to come."""
    told, over = Told(), asyncio.Event()
    deals = [deal async for deal in _early_deals(office)]
    source = await office.post("/sources", {"name": "Web forms"})
    columns = (TextColumn("{task.description:>10}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=console) as bars:
        watching = asyncio.create_task(_watch(bars, tables, told, len(deals), over))
        tasks = asyncio.create_task(story.complete_tasks(office, random, told, over))
        moving = [
            story.move_deals(office, deals, told),
            story.post_webhooks(office, source["source"]["path"], source["secret"], told),
            story.misfortune(stack, lambda line: bars.console.print(f"  [yellow]{line}[/]")),
        ]
        try:
            await asyncio.gather(*moving)
            await _settled(tables)
        finally:
            over.set()
            await asyncio.gather(watching, tasks)
    return told


async def _early_deals(office: Office) -> AsyncIterator[dict[str, Any]]:
    for stage in ("lead", "qualified"):
        cursor = None
        while True:
            page = await office.get("/deals", stage=stage, limit=100, **({"cursor": cursor} if cursor else {}))
            for deal in page["deals"]:
                yield deal
            cursor = page["cursor"]
            if cursor is None:
                break


async def _watch(bars: Progress, tables: Tables, told: Told, deals: int, over: asyncio.Event) -> None:
    """Live bars; where there is no terminal, a line every five seconds."""
    moved = bars.add_task("moved", total=deals)
    done = bars.add_task("followed up", total=None)
    said = time.monotonic()
    while True:
        last = over.is_set()
        counts = await judge.counts(tables)
        bars.update(moved, completed=len(told.moved))
        bars.update(done, completed=counts["ended"], total=counts["matched"])
        if last:
            return
        if not bars.console.is_terminal and time.monotonic() - said >= _SAY_EVERY:
            said = time.monotonic()
            bars.console.print(
                f"  {len(told.moved)} of {deals} moved, {counts['ended']} of {counts['matched']} runs ended,"
                f" {counts['reminders']} reminders fired"
            )
        await asyncio.sleep(0.25)


async def _settled(tables: Tables) -> None:
    """Returns when nothing is left to come: no queue, no open run, no reminder to fire.

    Gives up after two minutes; the invariants then name what did not come.
    """
    deadline = time.monotonic() + _SETTLING_SECONDS
    while await judge.left_to_come(tables):
        if time.monotonic() > deadline:
            return
        await asyncio.sleep(0.25)


async def _temporal_agrees(stack: Stack) -> Verdict:
    """No workflow is left open when no row is; its list lags behind by about a second."""
    environment = stack.environment()
    client = await Client.connect(environment["TEMPORAL_ADDRESS"], namespace=environment["TEMPORAL_NAMESPACE"])
    deadline = time.monotonic() + 20
    while True:
        running = (await client.count_workflows("ExecutionStatus = 'Running'")).count
        if running == 0 or time.monotonic() > deadline:
            break
        await asyncio.sleep(0.5)
    return Verdict("no workflow waits for a row that has ended", [f"{running} are open"] if running else [])
