"""Each baseline does the whole job: a figure of one that leaves something out would flatter ours."""

import asyncio
import secrets
import sys
from contextlib import asynccontextmanager
from signal import SIGTERM

import asyncpg

from bench import job, textbook, with_dbos, with_procrastinate
from runtime.children import spawn
from runtime.folders import CHECKOUT
from runtime.settings import inherited
from tests.driving import until

COUNT = 3
WAIT = 0.3


@asynccontextmanager
async def database(postgres):
    """The url of one that has the job's tables."""
    name = f"bench_{secrets.token_hex(4)}"
    await postgres.create_database(name)
    await job.make_tables(postgres.admin_url(name))
    yield postgres.admin_url(name)
    await postgres.drop_database(name)


@asynccontextmanager
async def worker(postgres, folder, module, environment=None):
    """A baseline's worker on a database of its own; the database's url."""
    async with database(postgres) as url:
        command = [sys.executable, "-m", f"bench.{module}", url]
        child = spawn(command, log=folder / "log", env=inherited() | (environment or {}), folder=CHECKOUT)
        try:

            async def ready():
                assert child.running, child.last_words()
                return "ready" in child.output()

            await until(ready, "the worker is ready", 60)
            yield url
        finally:
            await child.end(SIGTERM, 15)


async def done(url):
    """Every job has taken its three steps once, in order, with as much between them as it was told to wait."""
    connection = await asyncpg.connect(url)
    try:

        async def all_steps():
            count = await connection.fetchval("SELECT count(*) FROM tasks")
            return count if count == COUNT * job.STEPS else None

        await until(all_steps, "the jobs are done", 40)
        assert await connection.fetchval("SELECT count(*) FROM events") == COUNT * job.STEPS
        apart = "SELECT b.created_at - a.created_at FROM tasks a JOIN tasks b ON b.job = a.job AND b.step = a.step + 1"
        assert all(row[0].total_seconds() >= WAIT for row in await connection.fetch(apart))
    finally:
        await connection.close()


async def test_a_textbook_workflow_takes_its_steps(postgres, tmp_path, temporal_server, temporal):
    async with worker(postgres, tmp_path, "textbook", temporal_server.environment()) as url:
        await textbook.start(temporal, [textbook.Job(number, WAIT) for number in range(COUNT)])
        await done(url)


async def test_a_dbos_workflow_takes_its_steps(postgres, tmp_path):
    async with worker(postgres, tmp_path, "with_dbos") as url:
        queue = with_dbos.client(url)
        await asyncio.to_thread(with_dbos.start, queue, range(COUNT), WAIT)
        await done(url)
        queue.destroy()


async def test_a_chain_of_procrastinates_jobs_takes_its_steps(postgres, tmp_path):
    async with worker(postgres, tmp_path, "with_procrastinate") as url:
        app = with_procrastinate.make_app(url, [])
        async with app.open_async():
            await with_procrastinate.start(app, range(COUNT), WAIT)
        await done(url)


async def test_a_step_that_is_tried_again_is_taken_once(postgres):
    async with database(postgres) as url, asyncpg.create_pool(url, min_size=1, max_size=1) as pool:
        await job.effect(pool, 1, 0)
        await job.effect(pool, 1, 0)
        assert await pool.fetchval("SELECT count(*) FROM tasks") == 1
        assert await pool.fetchval("SELECT count(*) FROM events") == 1
