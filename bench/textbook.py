"""A baseline: the job as Temporal's own tutorials write it, one regular activity and one timer a step.

Run as a module it is the worker, with the library's defaults.
"""

import asyncio
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta

from temporalio import activity, workflow
from temporalio.client import Client

with workflow.unsafe.imports_passed_through():
    import asyncpg
    from temporalio.worker import Worker

    from bench import job
    from runtime import temporal
    from runtime.ending import end
    from runtime.wiring import until_told

QUEUE = "textbook"
AT_ONCE = 20
"""Starts under way at the same time, as our own dispatch has."""


@dataclass
class Job:
    """`wait`: seconds between two steps."""

    id: int
    wait: float = 0
    steps: int = job.STEPS


@dataclass
class Step:
    """One step of a job."""

    job: int
    step: int


@workflow.defn(name="Textbook")
class Textbook:
    """A step, a timer, a step, a timer, a step."""

    @workflow.run
    async def run(self, work: Job) -> None:
        for step in range(work.steps):
            if step and work.wait:
                await asyncio.sleep(work.wait)
            await workflow.execute_activity("effect", Step(work.id, step), start_to_close_timeout=timedelta(seconds=10))


class Effects:
    """The activity function over one pool."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    @activity.defn(name="effect")
    async def effect(self, step: Step) -> None:
        await job.effect(self._pool, step.job, step.step)


async def start(client: Client, jobs: Iterable[Job]) -> None:
    """Starts workflows, a few at a time."""
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(work: Job) -> None:
        async with gate:
            await client.start_workflow("Textbook", work, id=f"textbook-{work.id}", task_queue=QUEUE)

    await asyncio.gather(*(one(work) for work in jobs))


async def main(url: str) -> None:
    """The worker, until told to end."""
    stopping = until_told()
    client = await temporal.connect(patience=10)
    pool = await asyncpg.create_pool(url, min_size=job.POOL, max_size=job.POOL)
    async with Worker(client, task_queue=QUEUE, workflows=[Textbook], activities=[Effects(pool).effect]):
        print("ready", flush=True)  # noqa: T201  (who started it waits for that)
        await stopping.wait()
    await pool.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
    end(0)
