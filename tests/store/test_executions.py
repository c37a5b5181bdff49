"""What becomes of an execution besides its steps: stop, stuck, retry, and being woken."""

import asyncio
from uuid import uuid4

import pytest

from domain.words import StuckReason, Target
from store import executions, stops
from store.errors import IllegalTransition, NotFound
from tests.driving import advance, match_all, on_stage, start_run, task, wait

ROW = "SELECT * FROM executions"


async def one(base):
    (row,) = await base.rows(ROW)
    return row


async def stick(base, run, reason=StuckReason.RECORD_MISSING):
    async with base.transaction() as tx:
        return await executions.get_stuck(tx, run, reason, "there is no contact", base.admin)


async def test_a_new_run_is_open_due_at_once_and_has_a_wake(base):
    run = await start_run(base, on_stage(task()))
    row = await one(base)
    assert (row["status"], row["step"], row["steps_taken"]) == ("open", "task", 0)
    assert row["due_at"] <= await base.value("SELECT business_now()")
    assert await base.rows("SELECT kind, target_id FROM wakes") == [{"kind": "run", "target_id": run}]


async def test_a_stopped_run_is_ended_with_its_note_and_does_nothing_more(base):
    run = await start_run(base, on_stage(wait(), task()))
    async with base.transaction() as tx:
        stopped = await stops.stop(tx, run, Target.RUN, "the customer asked")
    assert (stopped.status, stopped.exit_reason, stopped.exit_note) == ("ended", "stopped", "the customer asked")
    assert (stopped.due_at, stopped.ended_at is not None) == (None, True)
    assert (await advance(base, run)).done
    assert await base.rows("SELECT * FROM effects") == []


async def test_a_run_that_has_ended_can_be_neither_stopped_nor_retried(base):
    run = await start_run(base, on_stage(task()))
    await advance(base, run)
    before = await one(base)
    async with base.transaction() as tx:
        with pytest.raises(IllegalTransition):
            await stops.stop(tx, run, Target.RUN, None)
    async with base.transaction() as tx:
        with pytest.raises(IllegalTransition):
            await executions.retry(tx, run, Target.RUN)
    assert await one(base) == before


async def test_a_run_nobody_knows_is_not_found_and_neither_is_another_organizations(base):
    run = await start_run(base, on_stage(wait()))
    other = await base.another()
    for unknown in (uuid4(), run):
        for verb in (stops.stop, executions.retry, executions.get):
            async with other.transaction() as tx:
                with pytest.raises(NotFound):
                    await verb(tx, unknown, Target.RUN, *([None] if verb is stops.stop else []))
    assert (await one(base))["status"] == "open"


async def test_a_stuck_run_has_a_reason_an_owner_and_no_due_time_and_retry_opens_it_with_a_wake(base):
    run = await start_run(base, on_stage(wait()))
    assert await stick(base, run)
    row = await one(base)
    assert (row["status"], row["stuck_reason"], row["stuck_detail"]) == (
        "stuck", "record_missing", "there is no contact"
    )  # fmt: skip
    assert (row["stuck_owner_id"], row["due_at"]) == (base.admin, None)
    await base.rows("DELETE FROM wakes RETURNING id")
    async with base.transaction() as tx:
        retried = await executions.retry(tx, run, Target.RUN)
    assert (retried.status, retried.step, retried.due_at <= await base.value("SELECT business_now()")) == (
        "open", "wait", True
    )  # fmt: skip
    assert (retried.stuck_reason, retried.stuck_detail, retried.stuck_owner_id) == (None, None, None)
    assert await base.value("SELECT target_id FROM wakes") == run


async def test_a_retried_run_is_swept_from_the_beginning_again(base):
    run = await start_run(base, on_stage(wait()))
    await base.rows(
        "UPDATE executions SET sweeps = 7, sweep_after = clock_timestamp() + interval '1 hour' RETURNING id"
    )
    await stick(base, run)
    async with base.transaction() as tx:
        retried = await executions.retry(tx, run, Target.RUN)
    assert (retried.sweeps, retried.sweep_after) == (0, None)


async def test_what_is_not_open_does_not_get_stuck(base):
    run = await start_run(base, on_stage(task()))
    await advance(base, run)
    assert not await stick(base, run)
    assert (await one(base))["status"] == "ended"


async def test_a_stuck_run_can_be_stopped_and_then_not_retried(base):
    run = await start_run(base, on_stage(wait()))
    await stick(base, run)
    async with base.transaction() as tx:
        stopped = await stops.stop(tx, run, Target.RUN, None)
    assert (stopped.status, stopped.stuck_reason) == ("ended", None)
    async with base.transaction() as tx:
        with pytest.raises(IllegalTransition):
            await executions.retry(tx, run, Target.RUN)


async def test_ten_retries_at_once_open_a_run_once(base):
    run = await start_run(base, on_stage(wait()))
    await stick(base, run)
    await base.rows("DELETE FROM wakes RETURNING id")

    async def retry():
        async with base.transaction() as tx:
            return await executions.retry(tx, run, Target.RUN)

    done = await asyncio.gather(*(retry() for _ in range(10)), return_exceptions=True)
    assert sum(isinstance(one, IllegalTransition) for one in done) == 9
    assert await base.value("SELECT count(*) FROM wakes") == 1


async def test_waking_makes_an_open_run_due_now_and_leaves_a_stopped_one_alone(base):
    run = await start_run(base, on_stage(wait(), task()))
    await advance(base, run)
    assert (await one(base))["due_at"] > await base.value("SELECT business_now()")
    async with base.transaction() as tx:
        await executions.wake(tx, [run])
    assert (await one(base))["due_at"] <= await base.value("SELECT business_now()")
    async with base.transaction() as tx:
        await stops.stop(tx, run, Target.RUN, None)
    async with base.transaction() as tx:
        await executions.wake(tx, [run])
    assert (await one(base))["due_at"] is None


async def test_being_woken_early_does_not_shorten_a_wait(base):
    run = await start_run(base, on_stage(wait(), task()))
    await advance(base, run)
    due = (await one(base))["due_at"]
    async with base.transaction() as tx:
        await executions.wake(tx, [run])
    answer = await advance(base, run)
    assert answer.seconds is not None
    assert answer.seconds > 2 * 86400
    assert (await one(base))["due_at"] == due


async def test_a_rule_and_an_event_have_one_run_however_often_the_event_is_matched(base):
    await start_run(base, on_stage(task()))
    await base.rows("INSERT INTO outbox (org_id, event_id) SELECT org_id, event_id FROM executions RETURNING id")
    await match_all(base)
    assert await base.value("SELECT count(*) FROM executions") == 1
