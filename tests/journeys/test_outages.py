"""What is away for a while comes back to work that waited for it."""

import asyncio
from contextlib import suppress

import pytest
from sqlalchemy.exc import DBAPIError

from runtime.attaching import temporal_server
from runtime.processes import APP_ROLE, DATABASE, Stack
from store.transaction import Database
from tests.conftest import Base
from tests.driving import make_deal, move, on_stage, switch_on, task, until, wait

AWAY = 13.0
"""Longer than an activity function is retried inside one workflow task."""


@pytest.mark.timeout(180)
async def test_a_database_that_is_away_while_waits_end_delays_them_and_loses_none(tmp_path):
    async with Stack(tmp_path / "home", temporal_server(), scale=21_600, tell=lambda _: None) as stack:
        url = stack.environment()["DRUMBEAT_DATABASE_URL"]
        assert stack.postgres.url(APP_ROLE, "", DATABASE).rpartition("@")[2] in url
        base = Base(Database.connect(url), Database.connect(url), url, url, url)
        await base.people()
        await switch_on(base, on_stage(wait("pause", 12, "hours"), task()))
        for number in range(5):
            await move(base, await make_deal(base, title=f"Deal {number}"))

        async def all_wait():
            return await base.value("SELECT count(*) = 5 FROM executions WHERE waits IS NOT NULL")

        async def all_ended():
            with suppress(DBAPIError, OSError):  # the test's own pool meets the outage as well
                return await base.value("SELECT count(*) = 5 FROM executions WHERE status = 'ended'")
            return False

        await until(all_wait, "the waits", 20)
        await stack.postgres.stop()
        await asyncio.sleep(AWAY)
        await stack.postgres.start()
        # The longest pause between two tries is thirty seconds.
        await until(all_ended, "the ends", 60)
        assert await base.value("SELECT count(*) FROM activities WHERE type = 'task'") == 5
        await base.app.close()
        await base.crossing.close()
