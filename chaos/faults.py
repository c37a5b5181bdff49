"""Performs the faults of a schedule on what really runs."""

import asyncio
import json
import sys
import time
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from pathlib import Path
from signal import SIGCONT, SIGKILL, SIGSTOP
from typing import Any

import asyncpg

from chaos import small_disks, wrong_clock
from chaos.routes import Routes
from chaos.schedule import THE_LOG_TOO, WORKERS, Fault, Kind
from cli.demo.mail_host import MailHost
from cli.demo.mail_server import Mood
from runtime.children import Child
from runtime.folders import CHECKOUT
from runtime.processes import DATABASE, Stack
from runtime.progress import Say

_DELAY = 0.5
_READY_SECONDS = 30.0
_REPAIR_EVERY = 8.0
"""Seconds in which what was poked has been seen to fail."""
_CALM_REPAIRS = 2


class Storm:
    """One storm over one stack, its mail server and its routes; `blow` ends when all of it is over."""

    def __init__(self, stack: Stack, mail: MailHost, routes: Routes, folder: Path, tell: Say) -> None:
        """`folder` is the stack's home: what a fault fills is in it."""
        self._stack = stack
        self._folder = folder
        self._mail = mail
        self._routes = routes
        self._tell = tell
        self._clocked: list[int] = []
        # On a slow machine one may not be over when the next one's time comes.
        self._deploying, self._clocking = asyncio.Lock(), asyncio.Lock()
        self._doing: dict[Kind, Callable[[Fault], Coroutine[Any, Any, None]]] = {
            Kind.KILL: self._kill,
            Kind.OUTAGE: self._outage,
            Kind.FREEZE: self._freeze,
            Kind.KILL_FROZEN: self._kill_frozen,
            Kind.CUT: self._on_link,
            Kind.TEAR: self._on_link,
            Kind.SILENCE: self._on_link,
            Kind.DELAY: self._on_link,
            Kind.MOOD: self._mood,
            Kind.CLOCK: self._clock,
            Kind.DEPLOY: self._deploy,
            Kind.RAMP: self._ramp,
            Kind.FULL: self._full,
        }

    async def blow(self, faults: Sequence[Fault]) -> None:
        """Each fault at its time, counted from now; returns when all are over and everything runs again."""
        begun = time.monotonic()
        async with asyncio.TaskGroup() as storm:
            for fault in faults:
                await asyncio.sleep(fault.at - (time.monotonic() - begun))
                self._tell(f"{fault.at:5.1f} s: {fault}")
                storm.create_task(self._doing[fault.kind](fault))
        while not self._whole():  # noqa: ASYNC110  (other processes set no event of ours)
            await asyncio.sleep(0.02)
        for pid in self._clocked:
            wrong_clock.forget(pid)

    def _whole(self) -> bool:
        """Whether every process runs."""
        stack = self._stack
        servers = all(server.running for server in stack.servers.values())
        return servers and self._mail.running and all(stack.service(name).running for name in stack.names)

    async def _kill(self, fault: Fault) -> None:
        match fault.victim:
            case "mail":
                await self._mail.kill_with_a_mail_in_hand(2)
            case _:
                await self._child(fault.victim).end(SIGKILL, 0)

    async def _outage(self, fault: Fault) -> None:
        async with self._stack.without(fault.victim):
            await asyncio.sleep(fault.seconds)

    async def _freeze(self, fault: Fault) -> None:
        child = self._child(fault.victim)
        child.signal(SIGSTOP)
        try:
            await asyncio.sleep(fault.seconds)
        finally:
            child.signal(SIGCONT)

    async def _kill_frozen(self, fault: Fault) -> None:
        child = self._child(fault.victim)
        child.signal(SIGSTOP)
        await asyncio.sleep(fault.seconds)
        await child.end(SIGKILL, 0)

    async def _on_link(self, fault: Fault) -> None:
        proxy = self._routes.proxies[fault.victim]
        match fault.kind:
            case Kind.CUT:
                await proxy.cut(fault.seconds)
            case Kind.TEAR:
                await proxy.tear(fault.seconds, int(fault.detail))
            case Kind.SILENCE:
                await proxy.silence(fault.seconds)
            case _:
                await proxy.delay(fault.seconds, _DELAY)

    async def _mood(self, fault: Fault) -> None:
        self._mail.be(Mood(fault.detail))
        await asyncio.sleep(fault.seconds)
        self._mail.be(Mood.WELL)

    async def _clock(self, fault: Fault) -> None:
        async with self._clocking:
            self._routes.clocks[fault.victim] = int(fault.detail)
            await self._again(fault.victim)
            self._clocked.append(self._stack.service(fault.victim).pid)
            await self._ready(fault.victim)
            await asyncio.sleep(fault.seconds)
            self._clocked.append(self._stack.service(fault.victim).pid)
            del self._routes.clocks[fault.victim]
            await self._again(fault.victim)

    async def _deploy(self, fault: Fault) -> None:
        async with self._deploying:
            self._routes.releases = dict.fromkeys(WORKERS, "altered")
            await asyncio.gather(*(self._again(name) for name in WORKERS))
            await asyncio.gather(*(self._ready(name) for name in WORKERS))
            await asyncio.sleep(fault.seconds)
            self._routes.releases.clear()
            await asyncio.gather(*(self._again(name) for name in WORKERS))
        self._tell("the deploy is rolled back; an operator repairs what it began")
        await self._repair()

    async def _ramp(self, fault: Fault) -> None:
        first, second = WORKERS
        await self._replaced(first)
        await asyncio.sleep(fault.seconds)
        await self._replaced(second)

    async def _replaced(self, name: str) -> None:
        self._routes.releases[name] = "next"
        await self._again(name)
        await self._ready(name)

    async def _full(self, fault: Fault) -> None:
        async with small_disks.full(self._folder / fault.victim):
            if fault.detail == THE_LOG_TOO:
                await self._use_up_the_log(fault.seconds)
            await asyncio.sleep(fault.seconds)

    async def _use_up_the_log(self, seconds: float) -> None:
        """Has PostgreSQL begin new files of its log, which there is no room for: it ends, and cannot come back.

        Gives up after some seconds.
        """
        with suppress(asyncpg.PostgresError, OSError, TimeoutError):
            async with asyncio.timeout(seconds):
                connection = await asyncpg.connect(self._stack.postgres.admin_url(DATABASE))
                while True:
                    await connection.execute("CHECKPOINT")
                    await connection.execute(
                        "SELECT pg_logical_emit_message(false, 'drumbeat', 'full'), pg_switch_wal()"
                    )

    async def _repair(self) -> None:
        """By the command, until it finds nothing that fails; the first pokes what sleeps, so that the next finds it."""
        calm = 0
        while calm < _CALM_REPAIRS:
            await asyncio.sleep(_REPAIR_EVERY)
            calm = 0 if await self._failing() else calm + 1

    async def _failing(self) -> int:
        """How many workflows whose tasks failed a repair has terminated; one that could not be done counts as one."""
        repair = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "cli", "doctor", "--repair", "--yes"),
            env=self._stack.environment(),
            cwd=CHECKOUT,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        output, _ = await repair.communicate()
        try:
            workflows = json.loads(output)["repair"]["workflows"]
        except ValueError:  # the database was away: it ended in words
            return 1
        if workflows is None:
            return 1
        failing = len(workflows["failing"])
        self._tell(f"doctor: {failing} workflows whose tasks failed are begun anew")
        return failing

    async def _again(self, name: str) -> None:
        """Ends a service as `kill -9` does and starts it anew, the way it is to run now."""
        async with self._stack.without(name):
            pass

    async def _ready(self, name: str) -> None:
        """Waits until a service that has just been started says so, for a while: others may keep it from it."""
        deadline = time.monotonic() + _READY_SECONDS
        child = self._stack.service(name)
        # Other processes set no event of ours.
        while child.running and not _said_ready(child) and time.monotonic() < deadline:  # noqa: ASYNC110  (as said)
            await asyncio.sleep(0.1)

    def _child(self, victim: str) -> Child:
        if victim == "mail":
            return self._mail.child
        server = self._stack.servers.get(victim)
        return server.child if server else self._stack.service(victim)


def _said_ready(child: Child) -> bool:
    return '"ready"' in child.output()
