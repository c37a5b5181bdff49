"""`make bench`: every measure in turn, a table for people, bench/results/latest.json and .svg for everybody else."""

import argparse
import asyncio
import json
import time
from importlib import import_module
from pathlib import Path

from rich.console import Console
from rich.table import Column, Table
from temporalio.api.workflowservice.v1 import GetSystemInfoRequest

from bench.bed import Size, bed
from bench.chart import bars
from bench.machine import machine
from bench.rows import Row, kept
from runtime.ending import end

_RESULTS = Path(__file__).parent / "results"
_PARTS = {
    "startup": "how long each service takes to be ready",
    "instances": "what creating a workflow costs a worker",
    "runs": "runs with and without waits, against Temporal's textbook, DBOS and Procrastinate",
    "latency": "how late timers are, how soon an event has its effect, and a stop its peace",
    "sleepers": "what waiting costs: bytes, memory, and waking with all asleep",
    "bulk": "enrolling ten thousand, and the sweep among a million",
    "lapse": "how late steps are in time-lapse",
    "mail": "emails a second and what each costs",
}
_LONG = {"soak": "mixed traffic, and what grows with it"}


async def main(names: list[str], size: Size, minutes: float) -> bool:
    """True if every figure that has a limit keeps it."""
    console = Console(stderr=True)
    _RESULTS.mkdir(exist_ok=True)
    if "soak" in names:
        await import_module("bench.soak").main(minutes, _RESULTS)
    rows: list[Row] = []
    for number, name in enumerate(parts := [name for name in names if name not in _LONG], 1):
        console.print(f"[bold]{number} of {len(parts)}: {name}[/bold], {_PARTS[name]} …")
        started = time.monotonic()
        rows += await import_module(f"bench.{name}").rows(size)
        console.print(f"  in {time.monotonic() - started:.0f} s")
    if rows:
        _show(console, rows)
        await _keep(rows)
    return kept(rows)


def _show(console: Console, rows: list[Row]) -> None:
    table = Table(Column("figure", no_wrap=True), "value", "unit", "baseline", "times better", "limit")
    for row in rows:
        told = row.document()
        limit = f"≥ {row.least:g}" if row.least is not None else f"≤ {row.most:g}" if row.most is not None else ""
        cells = [str(told[name]) if told[name] is not None else "" for name in ("value", "unit", "baseline", "ratio")]
        table.add_row(row.name, *cells, limit, style=None if row.keeps else "red")
    console.print(table)


async def _keep(rows: list[Row]) -> None:
    async with bed() as one:
        postgres = str(await one.value("SHOW server_version")).split()[0]
        temporal = (await (await one.client()).workflow_service.get_system_info(GetSystemInfoRequest())).server_version
    document = {"machine": machine(postgres, temporal), "rows": [row.document() for row in rows]}
    (_RESULTS / "latest.json").write_text(json.dumps(document, indent=2) + "\n")
    (_RESULTS / "latest.svg").write_text(bars(rows, "Drumbeat against its baselines"))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog='make bench ARGS="…"',
        description="Measures, all parts unless some are named: "
        + "; ".join(f"{name}: {what}" for name, what in (_PARTS | _LONG).items()),
    )
    parser.add_argument("parts", nargs="*", choices=[*_PARTS, *_LONG, []], metavar="part")
    parser.add_argument("--small", action="store_true", help="few of everything, to see that it works")
    parser.add_argument("--full", action="store_true", help="everything at the size the figures are told for: hours")
    parser.add_argument("--minutes", type=float, default=20, help="how long the soak lasts (20)")
    return parser.parse_args()


if __name__ == "__main__":
    given = _arguments()
    chosen = Size.SMALL if given.small else Size.FULL if given.full else Size.USUAL
    end(0 if asyncio.run(main(given.parts or list(_PARTS), chosen, given.minutes)) else 1)
