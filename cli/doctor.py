"""`doctor`: findings as a table for people and as JSON for programs."""

import json
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from runtime import doctor, settings
from runtime.attaching import attach
from runtime.comparison import Compared
from runtime.doctor import Repair, Settlement
from runtime.settings import Settings

_NAMED = 20
"""How many ids people are shown; programs get all."""


@dataclass(frozen=True)
class Treatment:
    """What is asked for beyond findings; without `yes` nothing is changed."""

    repair: bool = False
    restored_from: datetime | None = None
    sent_logs: Sequence[Path] = ()
    log_is_complete: bool = False
    yes: bool = False


async def examine(asked: Treatment) -> bool:
    """Prints each finding as it is made, and what was or would be done; True if all is well."""
    attach()
    found = settings.load("relay_database_url")
    console = Console(stderr=True, highlight=False)
    findings = []
    async for finding in doctor.findings(found):
        findings.append(finding)
        mark = "[green]well[/]" if finding.well else "[red]ill [/]"
        console.print(f"{mark}  [bold]{finding.component:9}[/] {escape(finding.words)}")
    answer: dict[str, object] = {"findings": [asdict(finding) for finding in findings]}
    async for name, treated, words in _treat(found, asked):
        console.print(words if asked.yes else f"Would be: {words} Nothing was done; add --yes to do it.", markup=False)
        answer[name] = asdict(treated)
    sys.stdout.write(json.dumps(answer, indent=2, default=str) + "\n")
    return all(finding.well for finding in findings)


async def _treat(found: Settings, asked: Treatment) -> AsyncIterator[tuple[str, Repair | Settlement, str]]:
    if asked.repair:
        mended = await doctor.repair(found, dry=not asked.yes, restored_from=asked.restored_from)
        yield "repair", mended, _repaired(mended)
    if asked.sent_logs:
        settled = await doctor.settle(found, asked.sent_logs, complete=asked.log_is_complete, dry=not asked.yes)
        yield "sent_log", settled, _settled(settled)


def _repaired(mended: Repair) -> str:
    words = (
        f"{mended.runs} runs, {mended.enrollments} enrollments, {mended.reminders} reminders and"
        f" {mended.mailboxes} mailboxes poked, {mended.set_aside} set-aside rows tried again."
        f" {_compared(mended.workflows)}"
    )
    if mended.restored is None:
        return words
    return (
        f"Sending stopped until a person lets it go on; {len(mended.restored)} messages that may have left since the"
        f" backup uncertain{_ids(mended.restored)}. {words}"
    )


def _compared(workflows: Compared | None) -> str:
    if workflows is None:
        return "Temporal does not answer: its workflows were not looked at; repair again when it is back."
    return (
        f"Of {workflows.running} workflows {len(workflows.gone)} without a row{_ids(workflows.gone)},"
        f" {len(workflows.ended)} of ended rows and {len(workflows.failing)} whose tasks fail terminated."
    )


def _settled(settled: Settlement) -> str:
    return (
        f"The log names {settled.named} messages: {len(settled.left)} settled as accepted,"
        f" {len(settled.not_sent)} as not sent; {len(settled.unsettled)} stay for a person{_ids(settled.unsettled)}."
    )


def _ids(ids: Sequence[object]) -> str:
    if not ids:
        return ""
    more = "" if len(ids) <= _NAMED else f" and {len(ids) - _NAMED} more"
    return f" ({', '.join(map(str, ids[:_NAMED]))}{more})"
