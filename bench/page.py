"""The figures of docs/performance.md, written from the last results: `make bench ARGS="--page"`."""

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from runtime.folders import CHECKOUT

_PAGE = CHECKOUT / "docs" / "performance.md"
_CHART = CHECKOUT / "docs" / "performance.svg"
_BEGIN, _END = "<!-- figures: make bench -->\n", "<!-- end of figures -->\n"
_DETAIL = re.compile(r"\.cpu\.(?!against)|_no_reset|^sleepers\.\d")
"""Names of rows that are for whoever looks closer."""


def is_headline(name: str) -> bool:
    return not _DETAIL.search(name)


def write(results: Path) -> None:
    """Puts the last results into the page, and their chart beside it."""
    document = json.loads((results / "latest.json").read_text())
    _PAGE.write_text(filled(_PAGE.read_text(), document["machine"], document["rows"]))
    _CHART.write_text((results / "latest.svg").read_text())


def filled(page: str, machine: Mapping[str, Any], rows: Iterable[Mapping[str, Any]]) -> str:
    """The page with other figures between its marks."""
    head, _, rest = page.partition(_BEGIN)
    tail = rest.partition(_END)[2]
    servers = f"PostgreSQL {machine['postgresql']}, Temporal {machine['temporal']}, Python {machine['python']}"
    memory = f"{machine['memoryBytes'] / 1e9:.0f} GB"
    beside = f"DBOS {machine['dbos']}, Procrastinate {machine['procrastinate']}"
    lines = [
        f"{machine['cores']} cores ({machine['cpu']}), {memory}; {servers}; {beside}.",
        f"Load over the last quarter of an hour when it ended: {machine['load']}.{_busy(machine)}",
        "",
        "| figure | value | baseline | times better | limit | |",
        "|---|---:|---:|---:|---:|---|",
        *(_line(row) for row in rows if is_headline(row["name"]) and _says_something(row)),
    ]
    return head + _BEGIN + "\n".join(lines) + "\n" + _END + tail


def _busy(machine: Mapping[str, Any]) -> str:
    """A word on figures of a machine that had other work, too."""
    busy = float(machine["load"]) > 2 * int(machine["cores"])
    return " **Others were using the machine: the times are theirs, only ratios say something.**" if busy else ""


def _says_something(row: Mapping[str, Any]) -> bool:
    return row["ratio"] is not None or "least" in row or "most" in row or row["name"].count(".") <= 1


def _line(row: Mapping[str, Any]) -> str:
    baseline = "" if row["baseline"] is None else f"{row['baseline']:,}"
    ratio = "" if row["ratio"] is None else f"{row['ratio']:.3g}"
    limit = f"≥ {row['least']:,}" if "least" in row else f"≤ {row['most']:,}" if "most" in row else ""
    return (
        f"| `{row['name']}` | {row['value']:,} {row['unit']} | {baseline} | {ratio} | {limit} | {row.get('note', '')} |"
    )
