"""The demo's report: what happened, and whether every invariant holds."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from cli.demo.judge import Verdict

_SHOWN = 3
"""Of what breaks an invariant; a program gets all of it."""


def show(console: Console, figures: Mapping[str, object], verdicts: Sequence[Verdict]) -> None:
    """Two tables: figures, then one line an invariant with what breaks it."""
    happened = Table(title="What happened", show_header=False, title_justify="left")
    for name, value in figures.items():
        happened.add_row(name, escape(str(value)))
    console.print(happened)
    proven = Table(
        title="What was proven, by SQL over the tables and the mail server's own log",
        show_header=False,
        title_justify="left",
    )
    for verdict in verdicts:
        mark = "[green]holds[/]" if verdict.holds else "[red]BROKEN[/]"
        proven.add_row(mark, escape("\n".join([verdict.name, *map(str, verdict.offending[:_SHOWN])])))
    console.print(proven)


def refused_rows(report: Mapping[str, Any]) -> str:
    """An import's refusals by code, with the number of rows each."""
    codes: dict[str, int] = {}
    for error in report["errors"]:
        codes[error["code"]] = codes.get(error["code"], 0) + 1
    return ", ".join(f"{count} {code}" for code, count in sorted(codes.items())) or "none"
