"""`doctor`: findings as a table for people and as JSON for programs."""

import json
import sys
from dataclasses import asdict

from rich.console import Console
from rich.markup import escape

from runtime import doctor, settings
from runtime.attaching import attach
from runtime.comparison import Compared


async def examine(*, repair: bool, yes: bool) -> bool:
    """Prints each finding as it is made; True if all is well. A repair without `yes` changes nothing."""
    attach()
    found = settings.load("relay_database_url")
    console = Console(stderr=True, highlight=False)
    findings = []
    async for finding in doctor.findings(found):
        findings.append(finding)
        mark = "[green]well[/]" if finding.well else "[red]ill [/]"
        console.print(f"{mark}  [bold]{finding.component:9}[/] {escape(finding.words)}")
    answer: dict[str, object] = {"findings": [asdict(finding) for finding in findings]}
    if repair:
        mended = await doctor.repair(found, dry=not yes)
        words = (
            f"{mended.runs} runs, {mended.enrollments} enrollments, {mended.reminders} reminders and"
            f" {mended.mailboxes} mailboxes poked, {mended.set_aside} set-aside rows tried again."
            f" {_of(mended.workflows)}"
        )
        console.print(words if yes else f"Would be: {words} Nothing was done; add --yes to do it.")
        answer["repair"] = asdict(mended)
    sys.stdout.write(json.dumps(answer, indent=2) + "\n")
    return all(finding.well for finding in findings)


def _of(workflows: Compared | None) -> str:
    if workflows is None:
        return "Temporal does not answer: its workflows were not looked at; repair again when it is back."
    return (
        f"Of {workflows.running} workflows {len(workflows.gone)} without a row, {len(workflows.ended)} of ended rows"
        f" and {len(workflows.failing)} whose tasks fail terminated."
    )
