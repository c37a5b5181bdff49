"""Forks services: run as a script, it has imported the product, and has started no thread and no loop.

It says `{}` when it has. For each line of JSON on stdin, an `Order`, a fork becomes that service; the answer is a line
with its process id. When one has ended a line says so. They all end with this process, and it ends with its stdin.
"""

import asyncio
import ctypes
import gc
import json
import os
import select
import signal
import sys
import traceback
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NoReturn
from unittest.mock import patch

from runtime import logs, settings, wiring
from runtime.ending import end
from runtime.folders import CHECKOUT
from runtime.settings import inherited
from tests.crashes.points import Fault, Watch, install

SOONER: Mapping[str, float] = {"workflows.drain.SILENCE": 3.0, "activities.send._BEAT": 0.5}
"""A sender that was killed is missed after three seconds in place of ten; nothing else of the product is changed."""
_PR_SET_PDEATHSIG = 1
_SERVICES = {"api": wiring.serve_api, "relay": wiring.serve_relay, "worker": wiring.serve_worker}


@dataclass(frozen=True)
class Order:
    """One service to become: its environment, where it writes its log and its points, and where it ends."""

    service: str
    environment: Mapping[str, str]
    log: str
    record: str
    fault: Fault | None


class Nursery:
    """The other end of the script."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._births: asyncio.Queue[int] = asyncio.Queue()
        self._turn = asyncio.Lock()
        self._ends: dict[int, asyncio.Future[int]] = {}

    async def fork(self, order: Order) -> int:
        """The service's process id."""
        assert self._process.stdin is not None
        async with self._turn:
            self._process.stdin.write(json.dumps(asdict(order)).encode() + b"\n")
            return await self._births.get()

    async def ended(self, pid: int) -> int:
        """Its exit code, negative for a signal, as soon as it has ended."""
        return await asyncio.shield(self._ends[pid])

    async def kill(self, pid: int) -> None:
        """As `kill -9` does; nothing where it has ended."""
        if not self._ends[pid].done():  # till it is told it is a zombie at worst, so the id is nobody else's
            os.kill(pid, signal.SIGKILL)
            await self.ended(pid)

    async def listen(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            told = json.loads(line)
            if "born" in told:
                self._ends[told["born"]] = asyncio.get_running_loop().create_future()
                self._births.put_nowait(told["born"])
            else:
                self._ends[told["ended"]].set_result(told["code"])


@asynccontextmanager
async def nursery() -> AsyncIterator[Nursery]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.crashes.nursery"),
        cwd=CHECKOUT,
        env={name: value for name, value in inherited().items() if not name.startswith(("DRUMBEAT_", "TEMPORAL_"))},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    assert await process.stdout.readline(), "the nursery did not start"
    made = Nursery(process)
    listening = asyncio.create_task(made.listen())
    try:
        yield made
    finally:
        process.kill()
        await process.wait()
        await listening


def main() -> None:
    for name, value in SOONER.items():
        patch(name, value).start()
    wake, woken = os.pipe()
    os.set_blocking(woken, False)
    signal.set_wakeup_fd(woken)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    gc.freeze()  # what is shared with the forks stays shared
    poll = select.poll()
    for source in (0, wake):
        poll.register(source, select.POLLIN | select.POLLHUP)
    orders = b""
    _say()
    while True:
        for source, _ in poll.poll():
            read = os.read(source, 65_536)
            if source == wake:
                _tell_of_the_dead()
            elif not read:
                return
            else:
                *whole, orders = (orders + read).split(b"\n")
                for line in whole:
                    _fork(json.loads(line), wake, woken)


def _fork(order: Any, *pipes: int) -> None:
    nursery_ = os.getpid()
    pid = os.fork()
    if pid == 0:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != nursery_:
            os._exit(1)
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for pipe in pipes:
            os.close(pipe)
        _become(Order(**{**order, "fault": order["fault"] and Fault(**order["fault"])}))
    _say(born=pid)


def _tell_of_the_dead() -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        _say(ended=pid, code=os.waitstatus_to_exitcode(status))


def _say(**told: int) -> None:
    os.write(1, json.dumps(told).encode() + b"\n")


def _become(order: Order) -> NoReturn:
    code = 1
    try:
        output = os.open(order.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        for old, new in ((os.open(os.devnull, os.O_RDONLY), 0), (output, 1), (output, 2)):
            os.dup2(old, new)
        os.environ.update(order.environment)
        found = settings.load()
        logs.configure("info", "json", service=order.service)
        interception = install(Watch(Path(order.record), order.fault))
        serve: Any = _SERVICES[order.service]
        asyncio.run(serve(found) if order.service == "api" else serve(found, [interception]))
        code = 0
    except BaseException:  # noqa: BLE001  (told in the log; a fork never goes back to its nursery's loop)
        traceback.print_exc()
    end(code)


if __name__ == "__main__":
    main()
