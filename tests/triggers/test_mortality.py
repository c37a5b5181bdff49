"""The relay is killed between any two of its statements, and frozen while it holds rows: no row is lost or doubled."""

import asyncio
import os
import signal
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from runtime.folders import CHECKOUT
from tests.driving import act, is_, make_deal, match_all, move, on_stage, relay_of, sight, switch_on, task, until, wait

WORTH = is_("deal.valueCents", "gt", 1000)


class Mortals:
    """The script beside this file, which forks a relay for each order."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def order(self, order: str, point: int = 0) -> int:
        """Starts a relay; its process id."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{order} {point}\n".encode())
        await self._process.stdin.drain()
        return int(await self._line())

    async def ended(self) -> tuple[int, int]:
        """The exit code of the relay last started, and how many points it came past."""
        code, points = (await self._line()).split()
        return int(code), int(points)

    async def _line(self) -> str:
        assert self._process.stdout is not None
        line = await asyncio.wait_for(self._process.stdout.readline(), 60)
        assert line, "the script ended"
        return line.decode()


@pytest.fixture
async def mortals(base) -> AsyncIterator[Mortals]:
    script = Path(__file__).with_name("mortal_relay.py")
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(script), base.relay_url, base.app_url, cwd=CHECKOUT, stdin=PIPE, stdout=PIPE,
        env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
    )  # fmt: skip
    yield Mortals(process)
    process.kill()
    await process.wait()


async def prepared(base):
    """An organization of its own in which two events wait: two runs to start, one of which waits, and two refusals."""
    found = await base.another()
    worth = await make_deal(found, "Worth it", value_cents=5000)
    little = await make_deal(found, "Little", value_cents=10)
    await match_all(found)
    await switch_on(found, on_stage(task(), wait(), conditions=WORTH), "Call")
    await switch_on(found, on_stage(act("n", "notify", title="Small one"), conditions={"not": WORTH}), "Tell")
    for deal in (worth, little):
        await move(found, deal)
    return found


async def reference(base):
    found = await prepared(base)
    await match_all(found)
    return await sight(found)


async def test_a_relay_killed_between_any_two_of_its_statements_leaves_rows_as_if_it_had_not_been(base, mortals):
    expected = await reference(base)
    assert [len(expected[rows]) for rows in ("runs", "effects", "refusals", "tasks", "set_aside")] == [2, 2, 2, 1, 0]
    await prepared(base)
    await mortals.order("live")
    code, points = await mortals.ended()
    assert code == 0
    await match_all(base)
    assert points > 15
    for point in range(1, points + 1):
        killed = await prepared(base)
        await mortals.order("kill", point)
        assert await mortals.ended() == (137, point)

        async def drained(killed=killed):
            await relay_of(killed).once()
            return await killed.value("SELECT count(*) = 0 FROM outbox")

        await until(drained, f"the events of the relay killed at point {point}")
        assert await sight(killed) == expected, f"killed at point {point} of {points}"


@pytest.mark.usefixtures("impatient")
async def test_a_frozen_relay_is_cut_off_after_five_seconds_and_does_no_harm_when_it_thaws(base, mortals):
    expected = await reference(base)
    frozen = await prepared(base)
    relay = relay_of(frozen)
    process = await mortals.order("freeze", 8)  # after it took the rows, before it gives them up

    async def stands_still():
        status = Path(f"/proc/{process}/stat").read_text()  # noqa: ASYNC240  (no file on any disk)
        return status.rpartition(")")[2].split()[0] == "T"

    await until(stands_still, "the relay's freeze")
    started = asyncio.get_running_loop().time()
    assert await relay.once() == 0, "the rows were not held: it froze at the wrong point"

    async def drained():
        await relay.once()
        return await frozen.value("SELECT count(*) = 0 FROM outbox")

    await until(drained, "the frozen relay's rows to be let go", 12)
    assert asyncio.get_running_loop().time() - started > 3
    os.kill(process, signal.SIGCONT)
    code, _ = await mortals.ended()
    assert code in (0, 1)  # its connection is gone: it says so and would be started again
    await match_all(frozen)
    assert await sight(frozen) == expected
