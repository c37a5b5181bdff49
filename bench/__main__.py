"""`make bench`: every measure in turn, a table for people, bench/results/latest.json and .svg for everybody else."""

import argparse
import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from rich.console import Console
from rich.table import Column, Table
from temporalio.api.workflowservice.v1 import GetSystemInfoRequest

from bench import (
    accept,
    bulk,
    first_attempt,
    instances,
    lapse,
    latency,
    mail,
    page,
    pauses,
    runs,
    sleepers,
    soak,
    startup,
)
from bench.bed import Size, bed
from bench.chart import bars
from bench.machine import machine
from bench.rows import Row, kept
from runtime import heap
from runtime.ending import end
from runtime.wiring import LOOPS

_RESULTS = Path(__file__).parent / "results"
_PARTS: dict[str, tuple[str, Callable[[Size], Awaitable[list[Row]]]]] = {
    "startup": ("how long each service takes to be ready", startup.rows),
    "instances": ("what creating a workflow costs a worker", instances.rows),
    "accept": (
        "what accepting a fact costs beside a bare handler",
        lambda size: accept.rows(rounds=size.of(1, 2, 5), seconds=size.of(1.0, 3.0, 4.0)),
    ),
    "runs": ("runs with and without waits, against Temporal's textbook, DBOS and Procrastinate", runs.rows),
    "relay": ("runs that the relay finishes, a batch at once or a savepoint each", first_attempt.rows),
    "latency": ("how late timers are, how soon an event has its effect, and a stop its peace", latency.rows),
    "sleepers": ("what waiting costs: bytes, memory, and waking with all asleep", sleepers.rows),
    "bulk": ("enrolling ten thousand, and the sweep among a million", bulk.rows),
    "pauses": ("a sequence paused and resumed with all inside", pauses.rows),
    "lapse": ("how late steps are in time-lapse", lapse.rows),
    "mail": ("emails a second and what each costs", mail.rows),
}
_SOAK = "soak"
_WIDTH = 140
"""Columns of the table where it goes into a file."""


async def main(names: list[str], size: Size, minutes: float) -> bool:
    """True if every figure that has a limit keeps it."""
    console = Console(stderr=True)
    if not console.is_terminal:
        console.width = _WIDTH
    _RESULTS.mkdir(exist_ok=True)
    if _SOAK in names:
        await soak.main(minutes, _RESULTS)
        if names == [_SOAK]:
            return True
    rows: list[Row] = []
    versions = await _versions()
    for number, name in enumerate(parts := [name for name in names if name != _SOAK], 1):
        what, measure = _PARTS[name]
        console.print(f"[bold]{number} of {len(parts)}: {name}[/bold], {what} …")
        started = time.monotonic()
        rows += await measure(size)
        console.print(f"  in {time.monotonic() - started:.0f} s")
        _keep(rows, *versions)
    _show(console, rows)
    return kept(rows)


def _show(console: Console, rows: list[Row]) -> None:
    table = Table(Column("figure", no_wrap=True), "value", "unit", "baseline", "times better", "limit")
    for row in rows:
        told = row.document()
        limit = f"≥ {row.least:g}" if row.least is not None else f"≤ {row.most:g}" if row.most is not None else ""
        cells = [str(told[name]) if told[name] is not None else "" for name in ("value", "unit", "baseline", "ratio")]
        table.add_row(row.name, *cells, limit, style=None if row.keeps else "red")
    console.print(table)


async def _versions() -> tuple[str, str]:
    """Of PostgreSQL and of Temporal, as they say themselves."""
    async with bed() as one:
        system = await (await one.client()).workflow_service.get_system_info(GetSystemInfoRequest())
        return str(await one.value("SHOW server_version")).split()[0], system.server_version


def _keep(rows: list[Row], postgres: str, temporal: str) -> None:
    """After each part, so that one that fails takes no other with it."""
    shown = [row for row in rows if page.is_headline(row.name)]
    document = {"machine": machine(postgres, temporal), "rows": [row.document() for row in rows]}
    (_RESULTS / "latest.json").write_text(json.dumps(document, indent=2) + "\n")
    (_RESULTS / "latest.svg").write_text(bars(shown, "Drumbeat against its baselines"))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog='make bench ARGS="…"',
        description="Measures; all parts but the soak unless some are named.",
        epilog="; ".join([*(f"{name}: {what}" for name, (what, _) in _PARTS.items()), "soak: what grows with traffic"]),
    )
    parser.add_argument("parts", nargs="*", metavar="part")
    parser.add_argument("--small", action="store_true", help="few of everything, to see that it works")
    parser.add_argument("--full", action="store_true", help="everything at the size the figures are told for: hours")
    parser.add_argument("--page", action="store_true", help="only put the last results into docs/performance.md")
    parser.add_argument("--minutes", type=float, default=20, help="how long the soak lasts (20)")
    given = parser.parse_args()
    if unknown := set(given.parts) - {*_PARTS, _SOAK}:
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    return given


if __name__ == "__main__":
    given = _arguments()
    if given.page:
        page.write(_RESULTS)
        end(0)
    chosen = Size.SMALL if given.small else Size.FULL if given.full else Size.USUAL
    heap.settle()
    with asyncio.Runner(loop_factory=LOOPS["relay"]) as runner:
        end(0 if runner.run(main(given.parts or list(_PARTS), chosen, given.minutes)) else 1)
