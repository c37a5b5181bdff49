"""Business time is PostgreSQL's, through one row that nobody but a test may move."""

import asyncio
import subprocess
import sys
from datetime import datetime, timedelta

import asyncpg
import pytest

from runtime.folders import CHECKOUT
from runtime.migrating import migrate
from store.transaction import Database
from tests.store.raw import connected

ASK = "SELECT business_now()"


async def test_a_test_database_moves_forward_by_what_was_asked(base):
    before = await base.value(ASK)
    after = await base.pass_time(timedelta(days=14))
    assert timedelta(days=14) <= after - before < timedelta(days=14, minutes=1)
    assert await base.value(ASK) >= after


async def test_no_clock_moves_back(base):
    before = await base.value(ASK)
    async with connected(base.app_url) as app:
        with pytest.raises(asyncpg.RaiseError, match="only forward"):
            await app.execute("SELECT advance_clock('-1 second')")
    assert await base.value(ASK) >= before


async def test_a_database_that_is_no_test_refuses_to_be_moved(empty_database):
    await migrate(*empty_database)
    async with connected(empty_database[1]) as app:
        with pytest.raises(asyncpg.RaiseError, match="test database"):
            await app.execute("SELECT advance_clock('1 day')")
    async with connected(empty_database[0]) as admin:
        for change in ("shift = '1 day'", "shift = '-1 day'"):
            with pytest.raises(asyncpg.CheckViolationError):
                await admin.execute(f"UPDATE clock SET {change}")


async def test_no_service_writes_the_clock_and_there_is_one(base):
    for url in (base.app_url, base.relay_url):
        async with connected(url) as service:
            for statement in (
                "UPDATE clock SET scale = 2",
                "DELETE FROM clock",
                "INSERT INTO clock (scale, test) VALUES (1, true)",
            ):
                with pytest.raises(asyncpg.InsufficientPrivilegeError):
                    await service.execute(statement)
    async with connected(base.admin_url) as admin:
        with pytest.raises(asyncpg.UniqueViolationError):
            await admin.execute("INSERT INTO clock (scale, test) VALUES (1, true)")
        for scale in ("0", "0.5", "-1", "21601", "'NaN'"):
            with pytest.raises(asyncpg.CheckViolationError):
                await admin.execute(f"UPDATE clock SET scale = {scale}")


async def test_in_time_lapse_business_time_passes_scale_times_as_fast(empty_database):
    await migrate(*empty_database, scale=21_600)
    async with connected(empty_database[1]) as app:
        both = "SELECT business_now() AS business, clock_timestamp() AS real"
        first = await app.fetchrow(both)
        await app.execute("SELECT pg_sleep(0.05)")
        second = await app.fetchrow(both)
    real, business = second["real"] - first["real"], second["business"] - first["business"]
    assert business.total_seconds() == pytest.approx(real.total_seconds() * 21_600, rel=0.05)


async def test_a_wait_is_told_in_real_seconds(empty_database):
    from uuid import uuid4

    await migrate(*empty_database, scale=21_600)
    database = Database.connect(empty_database[1])
    async with database.transaction(uuid4()) as tx:
        assert tx.scale == 21_600
        assert tx.real(timedelta(days=1)) == 4.0
    await database.close()


async def test_every_process_agrees_on_the_time_however_wrong_its_own_clock_is(base):
    script = (
        "import asyncio, sys, uuid; from store.transaction import Database\n"
        "async def main():\n"
        "    database = Database.connect(sys.argv[1])\n"
        "    async with database.transaction(uuid.uuid4()) as tx: print(tx.now.isoformat())\n"
        "    await database.close()\n"
        "asyncio.run(main())"
    )
    before = await base.pass_time(timedelta(days=400))
    told = await asyncio.gather(
        *(
            asyncio.to_thread(
                subprocess.run, [sys.executable, "-c", script, base.app_url], cwd=CHECKOUT, env={"TZ": zone},
                check=True, capture_output=True, text=True,
            )
            for zone in ("America/Los_Angeles", "Asia/Tokyo")
        )
    )  # fmt: skip
    after = await base.value(ASK)
    for done in told:
        assert before <= datetime.fromisoformat(done.stdout.strip()) <= after


async def test_a_transaction_has_one_instant_from_beginning_to_end(base):
    async with base.transaction() as tx:
        before = tx.now
        await base.pass_time(timedelta(days=1))
        assert tx.now == before
        assert tx.acting(tx.origin).now == before
