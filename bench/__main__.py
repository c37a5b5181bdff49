"""`make bench`: every measure in turn, a table for people, bench/results/latest.json for programs."""

import asyncio
import json
import os
import platform
from collections.abc import Mapping
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench import instances, mail, startup
from runtime.ending import end

_RESULTS = Path(__file__).parent / "results"


async def main() -> bool:
    """True if every figure that has a limit keeps it."""
    console = Console(stderr=True)
    rows: list[dict[str, object]] = []
    for measure in (startup, instances, mail):
        console.print(f"Measuring {measure.__name__} …")
        rows += await measure.rows()
    table = Table("figure", "value", "unit", "at least", "at most")
    for row in rows:
        table.add_row(*(str(row.get(name, "")) for name in ("name", "value", "unit", "least", "most")))
    console.print(table)
    _RESULTS.mkdir(exist_ok=True)
    machine = {"cores": os.cpu_count(), "python": platform.python_version(), "system": platform.platform()}
    (_RESULTS / "latest.json").write_text(json.dumps({"machine": machine, "rows": rows}, indent=2) + "\n")
    return all(_keeps(row) for row in rows)


def _keeps(row: Mapping[str, object]) -> bool:
    """Whether a figure is within its limits."""
    value = float(str(row["value"]))
    return float(str(row.get("least", value))) <= value <= float(str(row.get("most", value)))


end(0 if asyncio.run(main()) else 1)
