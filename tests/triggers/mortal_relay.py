"""Relays that die or freeze: for each line `kill N`, `freeze N` or `live 0` a fork runs one pass; run as a script.

N counts points: after each statement a pass sends, and after each connection it gives back, which is after its
commit. At point N the fork ends as `kill -9` ends a process, or stops as SIGSTOP stops one. The answers are two
lines, the fork's process id and, when it has ended, its exit code and how many points it came past.
"""

import asyncio
import itertools
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

import structlog
from sqlalchemy import event

from store.transaction import Database
from triggers.relay import Relay


async def one_pass(at_point: Callable[[], None]) -> None:
    relay_url, app_url = sys.argv[1:]
    crossing, app = Database.connect(relay_url), Database.connect(app_url)
    for database in (crossing, app):
        for name in ("after_cursor_execute", "checkin"):

            def reached(*_: Any) -> None:
                at_point()

            event.listen(database.engine.sync_engine, name, reached)
    await Relay(crossing, app).once()


def live(order: str, point: int, points: int) -> None:
    reached = itertools.count(1)

    def at_point() -> None:
        number = next(reached)
        os.pwrite(points, f"{number}\n".encode().ljust(8), 0)
        if number == point and order == "kill":
            os._exit(137)
        if number == point and order == "freeze":
            os.kill(os.getpid(), signal.SIGSTOP)

    asyncio.run(one_pass(at_point))


def main() -> None:
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    points = os.memfd_create("points")
    for line in sys.stdin:
        order, point = line.split()
        os.pwrite(points, b"0\n".ljust(8), 0)
        child = os.fork()
        if child == 0:
            code = 1
            try:
                live(order, int(point), points)
                code = 0
            finally:
                os._exit(code)
        print(child, flush=True)  # noqa: T201  (an answer)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), int(os.pread(points, 8, 0)), flush=True)  # noqa: T201  (an answer)


if __name__ == "__main__":
    main()
