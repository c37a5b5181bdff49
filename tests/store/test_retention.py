"""What is only kept for a while goes when its time is over, and nothing else goes."""

from datetime import timedelta
from uuid import uuid4

import pytest

from store import retention
from tests.driving import as_admin
from tests.store.raw import Rows, connected, insert_all, tenant_tables
from triggers.sweep import Retention

KEPT = {  # the table → its column, its days
    "inbox": ("received_at", 30),
    "idempotency_keys": ("created_at", 2),
    "outbox": ("failed_at", 90),
    "wakes": ("failed_at", 90),
    "notifications": ("read_at", 90),
    "refusals": ("at", 365),
}


async def counts(base):
    async with connected(base.admin_url) as admin:
        return {table: await admin.fetchval(f"SELECT count(*) FROM {table}") for table in await tenant_tables(admin)}


async def filled(base):
    async with connected(base.app_url, base.org) as mine:
        await insert_all(mine, Rows(base))
    return await counts(base)


def test_the_periods_are_those_that_are_promised():
    kept = {table.name: (column, period) for table, (column, period) in retention.KEPT.items()}
    assert kept == {table: (column, timedelta(days=days)) for table, (column, days) in KEPT.items()}


async def test_nothing_goes_before_its_time(base):
    before = await filled(base)
    for table, (column, days) in KEPT.items():
        await as_admin(
            base, f"UPDATE {table} SET {column} = clock_timestamp() - interval '{days} days' + interval '1 minute'"
        )
    assert await Retention(base.crossing, base.app).once() == 0
    assert await counts(base) == before


async def test_what_is_past_its_time_goes_and_nothing_else(base):
    before = await filled(base)
    for table, (column, days) in KEPT.items():
        await as_admin(
            base, f"UPDATE {table} SET {column} = clock_timestamp() - interval '{days} days' - interval '1 minute'"
        )
    assert await Retention(base.crossing, base.app).once() == len(KEPT)
    assert await counts(base) == before | dict.fromkeys(KEPT, 0)
    assert await Retention(base.crossing, base.app).once() == 0


async def test_events_and_wakes_that_still_wait_stay_however_old(base):
    before = await filled(base)
    for table in ("outbox", "wakes"):
        await as_admin(base, f"UPDATE {table} SET created_at = clock_timestamp() - interval '400 days'")
    await base.pass_time(timedelta(days=400))  # business time is not what they age by
    await Retention(base.crossing, base.app).once()
    assert await counts(base) == before


@pytest.mark.parametrize("table", KEPT)
async def test_each_organizations_old_rows_go_and_no_neighbours(base, table):
    await filled(base)
    other = await base.another()
    async with connected(base.app_url, other.org) as theirs:
        await insert_all(theirs, Rows(other))
    column, _ = KEPT[table]
    await as_admin(base, f"UPDATE {table} SET {column} = '2020-01-01' WHERE org_id = $1", base.org)
    assert await Retention(base.crossing, base.app).once() == 1
    assert await base.value(f"SELECT count(*) FROM {table}") == 0
    assert await other.value(f"SELECT count(*) FROM {table}") == 1


async def test_a_great_many_go_in_batches(base, monkeypatch):
    monkeypatch.setattr(retention, "BATCH", 10)
    await as_admin(
        base,
        "INSERT INTO idempotency_keys (org_id, caller, route, key, body_hash, created_at)"
        " SELECT $1, $2, 'r', 'k' || n, '', '2020-01-01' FROM generate_series(1, 25) n",
        base.org,
        uuid4(),
    )
    cleaning = Retention(base.crossing, base.app)
    assert [await cleaning.once() for _ in range(4)] == [10, 10, 5, 0]


@pytest.mark.parametrize("status", ["read", "settled"])
async def test_a_letters_raw_form_goes_half_a_year_after_it_was_read(base, status):
    before = await filled(base)
    await as_admin(base, f"UPDATE letters SET raw = 'came', status = '{status}', read_at = business_now()")
    await base.pass_time(timedelta(days=179))
    assert await Retention(base.crossing, base.app).once() == 0
    await base.pass_time(timedelta(days=2))
    assert await Retention(base.crossing, base.app).once() == 1
    assert await base.value("SELECT raw FROM letters") == b""
    assert await counts(base) == before
    assert await Retention(base.crossing, base.app).once() == 0


@pytest.mark.parametrize("status", ["received", "unreadable"])
async def test_a_letter_that_nobody_has_understood_keeps_its_raw_form(base, status):
    await filled(base)
    await as_admin(base, f"UPDATE letters SET raw = 'came', status = '{status}', read_at = '2020-01-01'")
    assert await Retention(base.crossing, base.app).once() == 0
    assert await base.value("SELECT raw FROM letters") == b"came"
