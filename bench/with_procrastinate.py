"""A baseline: the job as a chain of Procrastinate's jobs, each scheduling the next.

Run as a module it is the worker.
"""

import asyncio
import sys
from collections.abc import Iterable
from typing import Any

import asyncpg
from procrastinate import App, PsycopgConnector

from bench import job
from runtime.ending import end

_POLL = 0.5
"""Seconds between looks for jobs whose time has come."""
_TOGETHER = 500


def make_app(url: str, pools: list[Any]) -> App:
    """The application over one database; `pools` holds the one for the job's own rows when it runs."""
    app = App(connector=PsycopgConnector(conninfo=url))

    @app.task(name="step")
    async def step(number: int, step: int, wait: float) -> None:
        await job.effect(pools[0], number, step)
        if step + 1 < job.STEPS:
            later: dict[str, Any] = {"schedule_in": {"seconds": wait}} if wait else {}
            await app.configure_task("step", **later).defer_async(number=number, step=step + 1, wait=wait)

    return app


async def start(app: App, numbers: Iterable[int], wait: float) -> None:
    """Puts jobs into the queue of an open application, many in a statement."""
    jobs: list[dict[str, Any]] = [{"number": number, "step": 0, "wait": wait} for number in numbers]
    for first in range(0, len(jobs), _TOGETHER):
        await app.configure_task("step").batch_defer_async(*jobs[first : first + _TOGETHER])


async def main(url: str) -> None:
    """The worker, until told to end."""
    pools = [await asyncpg.create_pool(url, min_size=job.POOL, max_size=job.POOL)]
    app = make_app(url, pools)
    async with app.open_async():
        await app.schema_manager.apply_schema_async()
        print("ready", flush=True)  # noqa: T201  (who started it waits for that)
        await app.run_worker_async(concurrency=job.POOL, fetch_job_polling_interval=_POLL)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
    end(0)
