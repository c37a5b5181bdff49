"""A baseline: the job as a DBOS workflow on PostgreSQL, with its durable sleep between steps.

Run as a module it is the worker; jobs come to it through a queue of DBOS.
"""

import asyncio
import sys
from collections.abc import Iterable
from typing import Any

import asyncpg
from dbos import DBOS, DBOSClient, DBOSConfig

from bench import job
from runtime.ending import end
from runtime.wiring import until_told

QUEUE = "jobs"
NAME = "bench"
VERSION = "1"
_CONCURRENCY = 1000
"""Workflows the worker has open: a sleeping one counts, so few would be the bound of what waits."""
_POLL = 0.25

_pools: list[Any] = []


@DBOS.step(name="effect")
async def effect(number: int, step: int) -> None:
    """One transaction of ours; that it is done is a second one, of DBOS."""
    await job.effect(_pools[0], number, step)


@DBOS.workflow(name="job")
async def work(number: int, wait: float) -> None:
    """A step, a sleep, a step, a sleep, a step."""
    for step in range(job.STEPS):
        if step and wait:
            await DBOS.sleep_async(wait)
        await effect(number, step)


def client(url: str) -> DBOSClient:
    """What starts jobs, from a process that runs none."""
    return DBOSClient(system_database_url=url)


def start(client: DBOSClient, numbers: Iterable[int], wait: float) -> None:
    """Puts jobs into the queue."""
    for number in numbers:
        client.enqueue(
            {"queue_name": QUEUE, "workflow_name": "job", "app_version": VERSION, "workflow_id": f"job-{number}"},
            number,
            wait,
        )


async def main(url: str) -> None:
    """The worker, until told to end."""
    stopping = until_told()
    _pools.append(await asyncpg.create_pool(url, min_size=job.POOL, max_size=job.POOL))
    config: DBOSConfig = {
        "name": NAME,
        "system_database_url": url,
        "application_version": VERSION,
        "log_level": "WARNING",
    }
    DBOS(config=config)
    DBOS.launch()
    await DBOS.register_queue_async(QUEUE, worker_concurrency=_CONCURRENCY, polling_interval_sec=_POLL)
    print("ready", flush=True)  # noqa: T201  (who started it waits for that)
    await stopping.wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
    end(0)
