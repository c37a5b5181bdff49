"""Saying how far a long step is: a moving bar on a terminal, a line every quarter of a minute elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Say = Callable[[str], None]
"""Where a line for the person goes."""

_REPORT_SECONDS = 15.0


def say(line: str) -> None:
    """Write a line for the person: on standard error, because standard output is for results."""
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


@contextmanager
def counted(total: int, what: str, tell: Say) -> Iterator[Callable[[], None]]:
    """Yield the function to call once for each of `total` things done."""
    if sys.stderr.isatty():
        # Only here: the set-up script reads this module before any package is installed.
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TimeElapsedColumn

        columns = (SpinnerColumn(), BarColumn(), MofNCompleteColumn(), what, TimeElapsedColumn())
        with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task(what, total=total)
            yield lambda: bar.advance(task)
        return

    started = reported = time.monotonic()
    count = 0

    def advance() -> None:
        nonlocal count, reported
        count += 1
        now = time.monotonic()
        if now - reported >= _REPORT_SECONDS:
            reported = now
            tell(f"  {now - started:.0f} s: {count} of {total} {what}")

    yield advance
