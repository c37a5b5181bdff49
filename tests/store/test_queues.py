"""The queues: turns between organizations, exact deletes, errors kept, and when the sweep comes."""

from datetime import timedelta
from uuid import uuid4

import pytest

from domain.words import Target
from store import queues
from tests.driving import advance, as_admin, on_stage, start_run, task, wait
from tests.store.raw import Rows, add_events, connected, insert_all
from triggers.sweep import Sweep


async def candidates(base, each=50):
    async with base.crossing.crossing() as connection:
        return await queues.outbox_candidates(connection, each)


async def test_a_busy_organization_does_not_hold_up_another(base):
    await add_events(base, 1000)
    other = await base.another()
    await add_events(other, 1)
    found = await candidates(base)
    assert {org: len(ids) for org, ids in found.items()} == {base.org: 50, other.org: 1}


async def test_wakes_take_turns_too_and_a_target_is_one_poke_however_many_rows_ask(base):
    other, first, second = await base.another(), uuid4(), uuid4()
    async with base.transaction() as tx:
        await queues.wake(tx, Target.RUN, [first] * 3)
        await queues.wake(tx, Target.REMINDER, [first])
        await queues.wake(tx, Target.RUN, [second] * 300)
    async with other.transaction() as tx:
        await queues.wake(tx, Target.RUN, [second])
    async with base.crossing.crossing() as connection:
        batch = await queues.wake_batch(connection, 100)
    assert {(w.org, w.kind, w.target): len(w.rows) for w in batch} == {
        (base.org, Target.RUN, first): 3,
        (base.org, Target.REMINDER, first): 1,
        (base.org, Target.RUN, second): 96,
        (other.org, Target.RUN, second): 1,
    }


async def test_candidates_come_oldest_first_and_those_set_aside_not_at_all(base):
    await add_events(base, 5)
    ids = (await candidates(base))[base.org]
    assert ids == sorted(ids)
    await base.rows("UPDATE outbox SET failed_at = clock_timestamp() WHERE id = :id RETURNING id", id=ids[0])
    assert (await candidates(base))[base.org] == ids[1:]
    await base.rows("UPDATE outbox SET failed_at = clock_timestamp() RETURNING id")
    assert await candidates(base) == {}


async def test_exactly_the_rows_that_were_read_are_deleted(base):
    target = uuid4()
    async with base.transaction() as tx:
        await queues.wake(tx, Target.RUN, [target, target])
    async with base.crossing.crossing() as connection:
        (read,) = await queues.wake_batch(connection, 100)
    async with base.transaction() as tx:
        await queues.wake(tx, Target.RUN, [target])  # came while the first two were given
    async with base.transaction() as tx:
        await queues.delete_wakes(tx, read.rows)
    async with base.crossing.crossing() as connection:
        (left,) = await queues.wake_batch(connection, 100)
    assert len(left.rows) == 1
    assert set(left.rows).isdisjoint(read.rows)


async def test_rows_taken_by_one_transaction_are_passed_over_by_another(base):
    await add_events(base, 4)
    ids = (await candidates(base))[base.org]
    async with base.transaction() as first, base.transaction() as second:
        taken = await queues.take_events(first, ids[:2])
        rest = await queues.take_events(second, ids)
    assert not await candidates(base)
    numbers = [row.number for row in [*taken, *rest]]
    assert (len(taken), numbers) == (2, sorted(numbers)), "each by one, in order"


async def test_what_a_transaction_took_that_did_not_commit_is_there_again(base):
    await add_events(base, 2)
    before = await candidates(base)
    async with base.transaction() as tx:
        await queues.take_events(tx, before[base.org])
        await tx.connection.rollback()
    assert await candidates(base) == before


async def test_the_second_failure_sets_an_event_aside_with_its_error_and_a_retry_lets_it_be_tried_again(base):
    await add_events(base, 1)
    ((id_,),) = (await candidates(base)).values()
    for attempt, last in ((1, False), (2, True)):
        async with base.transaction() as tx:
            assert await queues.fail_event(tx, id_, f"it broke {attempt}" + "!" * 3000) is last
        (row,) = await base.rows("SELECT attempts, error, failed_at FROM outbox")
        assert (row["attempts"], row["error"][:10], len(row["error"])) == (attempt, "it broke " + str(attempt), 2000)
        assert (row["failed_at"] is not None) is last
    async with base.transaction() as tx:
        await queues.wake(tx, Target.RUN, [uuid4()])
    async with base.crossing.crossing() as connection:
        (wake,) = await queues.wake_batch(connection, 9)
    async with base.transaction() as tx:
        await queues.fail_wakes(tx, wake.rows, "INVALID_ARGUMENT")
    async with base.crossing.crossing() as connection:
        assert await queues.wake_batch(connection, 9) == []
    async with base.transaction() as tx:
        assert await queues.retry_failed(tx) == 2
    assert list(await candidates(base)) == [base.org]
    async with base.crossing.crossing() as connection:
        assert len(await queues.wake_batch(connection, 9)) == 1


# --- the sweep


async def overdue_run(base):
    """A run that waits for a day that has passed, and whose wakes were lost."""
    run = await start_run(base, on_stage(wait("wait", 1), task()))
    await advance(base, run)
    await base.rows("DELETE FROM wakes RETURNING id")
    await base.pass_time(timedelta(days=1, seconds=59))
    return run


def sweep_of(base):
    return Sweep(base.crossing, base.app)


async def test_a_row_is_swept_once_it_is_a_minute_overdue(base):
    run = await overdue_run(base)
    assert await sweep_of(base).once() == 0
    await base.pass_time(timedelta(seconds=2))
    assert await sweep_of(base).once() == 1
    assert await base.rows("SELECT kind, target_id FROM wakes") == [{"kind": "run", "target_id": run}]


async def test_the_same_row_is_left_alone_for_1_2_4_up_to_60_minutes(base):
    await overdue_run(base)
    await base.pass_time(timedelta(seconds=2))
    rests = []
    for _ in range(9):
        assert await sweep_of(base).once() == 1
        assert await sweep_of(base).once() == 0
        rests.append(
            await base.value(
                "SELECT round(extract(epoch FROM sweep_after - clock_timestamp()) / 60)::int FROM executions"
            )
        )
        await base.rows("DELETE FROM wakes RETURNING id")
        await base.rows("UPDATE executions SET sweep_after = clock_timestamp() - interval '1 second' RETURNING id")
    assert rests == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert await base.value("SELECT sweeps FROM executions") == 9


async def test_a_step_that_goes_well_lets_the_sweep_come_soon_again(base):
    run = await overdue_run(base)
    await base.pass_time(timedelta(seconds=2))
    await sweep_of(base).once()
    await base.rows("UPDATE executions SET anchor = business_now() RETURNING id")  # so that it waits again
    await advance(base, run)
    assert await base.rows("SELECT sweeps, sweep_after FROM executions") == [{"sweeps": 0, "sweep_after": None}]


async def test_nothing_is_swept_while_the_oldest_wake_has_waited_for_a_minute(base):
    await overdue_run(base)
    await base.pass_time(timedelta(seconds=2))
    async with base.transaction() as tx:
        await queues.wake(tx, Target.RUN, [uuid4()])
    await base.rows("UPDATE wakes SET created_at = clock_timestamp() - interval '61 seconds' RETURNING id")
    assert await sweep_of(base).once() == 0
    await base.rows("UPDATE wakes SET failed_at = clock_timestamp() RETURNING id")  # one set aside holds nothing up
    assert await sweep_of(base).once() == 1


@pytest.mark.parametrize(
    "closed",
    [
        "status = 'stuck', stuck_reason = 'record_missing'",
        "status = 'ended', exit_reason = 'stopped', ended_at = now()",
    ],
)
async def test_what_is_stuck_or_ended_is_not_swept(base, closed):
    await overdue_run(base)
    await base.pass_time(timedelta(seconds=2))
    await base.rows(f"UPDATE executions SET due_at = NULL, {closed} RETURNING id")
    assert await sweep_of(base).once() == 0


async def test_the_longest_overdue_are_swept_first_and_not_all_at_once(base):
    async with connected(base.app_url, base.org) as mine:
        await insert_all(mine, Rows(base), until="reminders")
    await as_admin(
        base, "UPDATE executions SET status = 'ended', exit_reason = 'stopped', ended_at = now(), due_at = NULL"
    )
    await as_admin(
        base,
        """INSERT INTO reminders (org_id, id, owner_id, title, status, due_at, created_at)
        SELECT org_id, gen_random_uuid(), id, 'R', 'scheduled', now() - n * interval '1 hour', now()
        FROM generate_series(1, 250) n, users WHERE id = $1""",
        base.rep,
    )
    await base.rows("DELETE FROM wakes RETURNING id")
    sweep = sweep_of(base)
    assert [await sweep.once() for _ in range(3)] == [200, 50, 0]
    first = await base.value(
        "SELECT max(due_at) < now() - interval '50 hours' FROM reminders"
        " WHERE id IN (SELECT target_id FROM wakes ORDER BY id LIMIT 200)"
    )
    assert first is True
