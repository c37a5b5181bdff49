"""A great many kept still and let go: a sequence is paused with all of them inside, and resumed."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from uuid import UUID

import httpx2

from bench.bed import Bed, Eyes, Size, bed, task, wait
from bench.rows import Row
from runtime.progress import say
from triggers.sweep import BATCH

SCALE = 60
_LOOK = 0.02
# One that listens is told of a notice in a transaction that seems to have begun when it last said something.
_OPEN = """
SELECT coalesce(1000 * extract(epoch FROM max(clock_timestamp() - xact_start)), 0)::float8 FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND state <> 'idle'
"""
_KEPT = "SELECT count(*) FROM executions WHERE definition_id = $1 AND awaits = 'resume'"
_PAST = "SELECT count(*) FROM executions WHERE definition_id = $1 AND status = 'ended'"
# Of a sequence of a wait and a task.
_AMISS = """
SELECT count(*) FROM executions x WHERE definition_id = $1 AND (steps_taken <> 2
  OR (SELECT count(*) FROM effects e WHERE e.execution_id = x.id) <> 2
  OR (SELECT count(*) FROM activities a WHERE a.execution_id = x.id) <> 1)
"""


@dataclass
class Seen:
    """The most there was at any look."""

    transaction_ms: float = 0
    wakes: int = 0


@dataclass(frozen=True)
class Figures:
    """Of so many: the calls, how long until the last of them was let go and was past its wait, and what was seen."""

    pause_ms: float
    resume_ms: float
    let_go_s: float
    drained_s: float
    seen: Seen
    amiss: int


async def rows(size: Size) -> list[Row]:
    few, many = size.of((20, 60), (100, 600), (1_000, 100_000))
    async with bed(scale=SCALE) as one:
        box = await one.office.mailbox()
        key = await one.office.key()
        _, less, more = [await _paused(one, box, key, count) for count in (1, few, many)]  # the first warms up
    note = f"{many:,} inside; the baseline is the same with {few:,}"
    return [
        Row.less("pause.call_ms", more.pause_ms, "ms", less.pause_ms, note=note),
        Row.less("resume.call_ms", more.resume_ms, "ms", less.resume_ms, note=note),
        Row.less("resume.transaction_ms", more.seen.transaction_ms, "ms", less.seen.transaction_ms, note="the longest"),
        Row("resume.wakes", more.seen.wakes, "wakes", most=2 * BATCH, note="the most that waited for their poke"),
        Row.more("resume.let_go", many / more.let_go_s, "/s", few / less.let_go_s, note=note),
        Row("resume.drained_s", more.drained_s, "s", note="until all were past their wait, which is a part of it"),
        Row("resume.twice_or_never", more.amiss + less.amiss, "people", most=0),
    ]


async def _paused(one: Bed, box: UUID, key: str, count: int) -> Figures:
    """Paused while they are put to sleep; those who sleep already stay when their wait is over."""
    minutes = 10 + count // 500
    sequence = await one.office.sequence(wait("wait", minutes), task("task"), name=f"With {count}")
    people = await one.office.people(count)
    headers = {"Authorization": f"Bearer {key}"}
    async with httpx2.AsyncClient(base_url=one.stack.api_url, headers=headers, trust_env=False, timeout=120) as http:
        await one.office.enroll(sequence, people, box)
        pause_ms = await _asked(http, sequence, "pause")
        await one.until(_KEPT, count, "kept still", sequence)
        await one.quiet()
        async with _watched(one) as seen:
            began = time.monotonic()
            resume_ms = await _asked(http, sequence, "activate")
            while await one.value(_KEPT, sequence):  # noqa: ASYNC110  (they are in the database)
                await asyncio.sleep(_LOOK)
            let_go = time.monotonic() - began
            await one.until(_PAST, count, "past their wait", sequence)
            drained = time.monotonic() - began
    amiss = await one.value(_AMISS, sequence)
    say(f"  {count}: paused in {pause_ms:.0f} ms, resumed in {resume_ms:.0f}; let go in {let_go:.1f} s")
    return Figures(pause_ms, resume_ms, let_go, drained, seen, amiss)


async def _asked(http: httpx2.AsyncClient, sequence: UUID, verb: str) -> float:
    """Milliseconds until it is answered."""
    path = f"/api/v1/sequences/{sequence}"
    found = await http.get(path)
    began = time.monotonic()
    answer = await http.post(f"{path}/{verb}", headers={"If-Match": found.headers["ETag"]})
    took = time.monotonic() - began
    answer.raise_for_status()
    return 1000 * took


@asynccontextmanager
async def _watched(one: Bed) -> AsyncIterator[Seen]:
    seen = Seen()

    async def look() -> None:
        async with Eyes.on(one.stack.environment()["DRUMBEAT_ADMIN_DATABASE_URL"]) as eyes:
            while True:
                seen.transaction_ms = max(seen.transaction_ms, await eyes.value(_OPEN))
                seen.wakes = max(seen.wakes, await eyes.value("SELECT count(*) FROM wakes"))
                await asyncio.sleep(_LOOK)

    looking = asyncio.create_task(look())
    try:
        yield seen
    finally:
        looking.cancel()
        await asyncio.gather(looking, return_exceptions=True)
