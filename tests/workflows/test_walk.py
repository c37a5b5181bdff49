"""Walk on the real server with the real worker: it waits, is woken, and forgets nothing it was poked about."""

import asyncio
import secrets
from contextlib import asynccontextmanager
from datetime import timedelta
from uuid import uuid4

import pytest
from temporalio import activity
from temporalio.api.enums.v1 import EventType
from temporalio.client import WorkflowExecutionStatus
from temporalio.common import WorkflowIDConflictPolicy, WorkflowIDReusePolicy
from temporalio.exceptions import ApplicationError
from temporalio.worker import Worker

from activities.advance import Advance
from domain.keys import workflow_id
from domain.words import ReminderStatus, Target
from runtime.wiring import sandbox
from store import contacts, deals, executions, reminders, stops
from tests.driving import act, blocked, on_stage, start_run, task, until, wait
from triggers.sweep import Sweep
from workflows import drain, walk
from workflows.contracts import ADVANCE, POKE, Answer, Waiter
from workflows.walk import Walk

DAYS = timedelta(days=3)
LATER = on_stage(wait("pause"), task())


async def effects(working, run):
    rows = await working.base.rows("SELECT step FROM effects WHERE execution_id = :run ORDER BY number", run=run)
    return [row["step"] for row in rows]


async def test_a_run_waits_is_moved_by_the_clock_and_a_poke_and_ends(working):
    run = await working.run(LATER)
    await working.waits(run, "pause")
    assert await effects(working, run) == []
    await working.later(DAYS)
    await working.stands(run, status="ended", exit_reason="completed")
    assert await effects(working, run) == ["pause", "task"]
    await working.ends(run)


async def test_a_poke_before_its_time_leaves_a_run_waiting(working):
    run = await working.run(LATER)
    await working.waits(run, "pause")
    for _ in range(3):
        await working.later(timedelta(hours=1))
        await working.waits(run, "pause")
    assert await effects(working, run) == []


async def test_a_reminder_waits_fires_and_is_escalated(working):
    reminder = await working.remind(DAYS, escalate_after={"amount": 1, "unit": "days"})
    await until(lambda: working.asleep(reminder, Target.REMINDER), "the reminder's wait")
    await working.later(DAYS)
    await working.reminder_stands(reminder, status="fired")
    await working.later(timedelta(days=1))
    await working.reminder_stands(reminder, status="escalated")
    await working.ends(reminder, Target.REMINDER)
    told = await working.base.rows("SELECT user_id, reason FROM notifications ORDER BY created_at")
    assert [(row["user_id"], row["reason"]) for row in told] == [
        (working.base.rep, "reminder"), (working.base.manager, "escalation")
    ]  # fmt: skip


async def test_a_row_that_is_due_later_is_not_looked_at_before_but_for_a_poke(working):
    reminder = await working.remind(timedelta(days=2))
    assert await working.events(reminder, Target.REMINDER) == ["WORKFLOW_EXECUTION_STARTED"]
    await working.later(timedelta(days=1))
    looked = ["MARKER_RECORDED"]
    await until(lambda: seen(working, reminder, looked), "a look")
    await working.later(timedelta(days=1))
    await working.reminder_stands(reminder, status="fired")


async def seen(working, reminder, types):
    """Whether a reminder's history has events of these types, as many as they are."""
    history = await working.events(reminder, Target.REMINDER)
    return [one for one in history if one in types] == types


async def test_a_reminder_found_days_late_fires_and_escalates_without_another_poke(working):
    async with working.base.transaction() as tx:
        escalation = {"amount": 1, "unit": "days"}
        given = {"owner_id": working.base.rep, "title": "Ring", "due_at": tx.now, "escalate_after": escalation}
        made = await reminders.create(tx, given)
    assert made is not None
    await working.base.pass_time(timedelta(days=9))
    await working.flow()
    await working.reminder_stands(made.id, status="escalated")
    await working.ends(made.id, Target.REMINDER)


async def test_a_reminder_that_was_answered_tells_nobody(working):
    reminder = await working.remind(DAYS)
    await until(lambda: working.asleep(reminder, Target.REMINDER), "the reminder's wait")
    async with working.base.transaction() as tx:
        await reminders.close(tx, reminder, ReminderStatus.DONE)
    await working.later(DAYS)
    await working.poke(reminder, Target.REMINDER)
    await working.ends(reminder, Target.REMINDER)
    assert await working.base.value("SELECT count(*) FROM notifications") == 0


async def test_real_timers_end_a_run_that_nobody_pokes(hurrying):
    run = await hurrying.run(on_stage(wait("a", 2, "hours"), wait("b", 2, "hours"), task()))
    await hurrying.stands(run, status="ended")
    await hurrying.ends(run)
    assert await effects(hurrying, run) == ["a", "b", "task"]
    early = "SELECT count(*) FROM effects WHERE outcome = 'waited' AND at < (saw->>'at')::timestamptz"
    assert await hurrying.base.value(early) == 0


# --- what was lost


async def test_a_lost_wake_is_healed_by_the_sweep(working):
    run = await start_run(working.base, LATER)
    await working.base.rows("DELETE FROM wakes RETURNING id")
    await working.base.pass_time(timedelta(seconds=61))
    assert await Sweep(working.base.crossing, working.base.app).once() == 1
    await working.flow()
    await working.waits(run, "pause")


async def test_a_workflow_that_was_terminated_is_followed_by_another(working):
    run = await working.run(LATER)
    await working.waits(run, "pause")
    first = (await working.handle(run).describe()).run_id
    await working.handle(run).terminate("an operator")
    await working.later(DAYS)
    await working.stands(run, status="ended")
    await working.ends(run)
    assert (await working.handle(run).describe()).run_id != first
    assert await effects(working, run) == ["pause", "task"]


async def test_a_terminated_workflow_that_nobody_pokes_is_healed_by_the_sweep(working):
    run = await working.run(LATER)
    await working.waits(run, "pause")
    await working.handle(run).terminate("a crash")
    await working.base.pass_time(DAYS + timedelta(seconds=61))
    assert await Sweep(working.base.crossing, working.base.app).once() == 1
    await working.flow()
    await working.stands(run, status="ended")


async def test_a_stopped_runs_workflow_does_nothing_at_its_time_and_ends(working):
    run = await working.run(LATER)
    await working.waits(run, "pause")
    async with working.base.transaction() as tx:
        await stops.stop(tx, run, Target.RUN, "the customer asked")
    await working.base.pass_time(DAYS)
    await working.handle(run).signal(POKE)
    await working.ends(run)
    assert await effects(working, run) == []
    assert await working.base.value("SELECT exit_reason FROM executions") == "stopped"


async def test_a_stuck_run_goes_on_when_a_person_retries_it(working):
    run = await working.run(on_stage(task("before"), act("set", "set_field", field="contact.title", value="CEO")))
    await working.stands(run, status="stuck", stuck_reason="record_missing")
    async with working.base.transaction() as tx:
        contact = await contacts.create(tx, {"email": "jo@example.com"})
        (row,) = await working.base.rows("SELECT deal_id FROM executions")
        await deals.change(tx, row["deal_id"], {"contact_id": contact.id})
    async with working.base.transaction() as tx:
        await executions.retry(tx, run, Target.RUN)
    await working.flow()
    await working.stands(run, status="ended")
    assert await effects(working, run) == ["before", "set"]
    await working.ends(run)


async def test_a_busy_database_makes_a_run_late_and_nothing_else(working):
    run = await start_run(working.base, on_stage(task()))
    async with working.base.transaction() as holder:
        await holder.connection.exec_driver_sql("SELECT id FROM deals FOR NO KEY UPDATE")
        await working.flow()
        await until(lambda: blocked(working.base), "the advance's wait")
    await working.stands(run, status="ended")
    await working.ends(run)


class Failing:
    """`advance` whose first attempts fail."""

    def __init__(self, times):
        self._times = times
        self.attempts = 0

    @activity.defn(name=ADVANCE)
    async def advance(self, _waiter: Waiter) -> Answer:
        self.attempts += 1
        if self.attempts <= self._times:
            raise ApplicationError("database_busy", type="database_busy")
        return Answer(done=True)


@asynccontextmanager
async def walking(temporal, advance):
    """A walk by an `advance` of the test's own: its handle, and the seconds of the timers it has set so far."""
    queue, id_ = f"q-{secrets.token_hex(4)}", uuid4()
    async with Worker(temporal, task_queue=queue, workflows=[Walk], activities=[advance], workflow_runner=sandbox()):
        handle = await temporal.start_workflow(
            Walk.run, Waiter(org=uuid4(), kind=Target.RUN, id=id_), id=workflow_id("run", id_), task_queue=queue
        )

        async def timers():
            events = (await handle.fetch_history()).events
            set_ = [event for event in events if event.event_type == EventType.EVENT_TYPE_TIMER_STARTED]
            return [
                one.timer_started_event_attributes.start_to_fire_timeout.ToTimedelta().total_seconds() for one in set_
            ]

        yield handle, timers


async def test_however_long_an_outage_was_a_run_is_looked_at_soon_after_it(temporal, monkeypatch):
    monkeypatch.setattr(walk, "ATTEMPTS", 2)
    monkeypatch.setattr(walk, "RECOVERS", 0.1)
    failing = Failing(19)
    async with walking(temporal, failing.advance) as (handle, timers):
        await asyncio.wait_for(handle.result(), 60)
        assert failing.attempts == 20
        assert await timers() == [0.1] * 9  # as long after the ninth time as after the first


async def test_a_poke_ends_the_wait_after_a_look_in_vain(temporal, monkeypatch):
    monkeypatch.setattr(walk, "ATTEMPTS", 1)
    monkeypatch.setattr(walk, "RECOVERS", 3600.0)
    async with walking(temporal, Failing(1).advance) as (handle, timers):
        await until(timers, "the wait")
        await handle.signal(POKE)
        await asyncio.wait_for(handle.result(), 20)


def test_what_is_due_is_at_most_ten_seconds_late_for_an_outage_that_is_over():
    longest = 0.2 * 2 ** (walk.ATTEMPTS - 2)
    assert walk.RECOVERS + longest + 3 < 10  # three seconds are an attempt that hangs
    assert drain.RECOVERS.total_seconds() < 10


# --- pokes out of season


async def test_a_poke_after_the_end_starts_a_run_that_does_nothing_and_ends(working):
    run = await working.run(on_stage(task()))
    await working.ends(run)
    first = (await working.handle(run).describe()).run_id
    await working.client.start_workflow(
        Walk.run,
        Waiter(org=working.base.org, kind=Target.RUN, id=run),
        id=workflow_id("run", run),
        task_queue=working.queue,
        start_signal=POKE,
    )
    await working.ends(run)
    assert (await working.handle(run).describe()).run_id != first
    assert await effects(working, run) == ["task"]
    assert await working.base.value("SELECT count(*) FROM activities") == 1


async def test_a_timer_and_a_poke_that_arrive_together_do_a_step_once(time_lapse, temporal):
    run, queue = await start_run(time_lapse, on_stage(wait("pause", 6, "hours"), task())), f"q-{secrets.token_hex(4)}"

    def at_work():
        return Worker(
            temporal,
            task_queue=queue,
            workflows=[Walk],
            activities=[Advance(time_lapse.app).advance],
            workflow_runner=sandbox(),
        )

    async with at_work():
        handle = await temporal.start_workflow(
            Walk.run, Waiter(org=time_lapse.org, kind=Target.RUN, id=run), id=workflow_id("run", run), task_queue=queue
        )

        async def history():
            return [event.event_type for event in (await handle.fetch_history()).events]

        async def sleeps():
            return EventType.EVENT_TYPE_TIMER_STARTED in await history()

        await until(sleeps, "the timer", 10)
    await handle.signal(POKE)

    async def fired():
        return EventType.EVENT_TYPE_TIMER_FIRED in await history()

    await until(fired, "the timer's end", 10)
    seen = await history()
    last = max(place for place, kind in enumerate(seen) if kind == EventType.EVENT_TYPE_WORKFLOW_TASK_COMPLETED)
    together = {EventType.EVENT_TYPE_TIMER_FIRED, EventType.EVENT_TYPE_WORKFLOW_EXECUTION_SIGNALED}
    assert together <= set(seen[last:]), "nobody was there to hear of either"
    async with at_work():
        await asyncio.wait_for(handle.result(), 30)
    rows = await time_lapse.rows("SELECT step FROM effects ORDER BY number")
    assert [row["step"] for row in rows] == ["pause", "task"]


# --- many pokes


async def test_fifty_pokes_at_once_do_a_step_once(working):
    run = await working.run(LATER)
    await working.waits(run, "pause")
    await working.base.pass_time(DAYS)
    waiter = Waiter(org=working.base.org, kind=Target.RUN, id=run)

    async def poke():
        await working.client.start_workflow(
            Walk.run,
            waiter,
            id=workflow_id("run", run),
            task_queue=working.queue,
            start_signal=POKE,
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
            id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE,
        )

    await asyncio.gather(*(poke() for _ in range(50)), return_exceptions=True)
    await working.stands(run, status="ended")
    assert await effects(working, run) == ["pause", "task"]
    assert await working.base.value("SELECT count(*) FROM activities") == 1
    await working.ends(run)


async def test_a_flood_of_pokes_starts_a_new_run_and_loses_nothing(working, monkeypatch):
    monkeypatch.setattr(walk, "POKES_A_RUN", 200)
    run = await working.run(LATER)
    await working.waits(run, "pause")
    handle, gate = working.handle(run), asyncio.Semaphore(50)
    first = (await handle.describe()).run_id

    async def poke():
        async with gate:
            await handle.signal(POKE)

    await asyncio.gather(*(poke() for _ in range(250)))

    async def continued():
        description = await handle.describe()
        return description.run_id != first and description.status == WorkflowExecutionStatus.RUNNING

    await until(continued, "the new run", 30)
    assert await effects(working, run) == []
    await working.later(DAYS)
    await working.stands(run, status="ended")
    assert await effects(working, run) == ["pause", "task"]
    await working.ends(run)


class Held:
    """`advance`, whose answers arrive only when the test lets them: as over a slow network."""

    def __init__(self, app):
        self._advance = Advance(app)
        self.answered, self.let_go = asyncio.Event(), asyncio.Event()

    @activity.defn(name=ADVANCE)
    async def advance(self, waiter: Waiter) -> Answer:
        answer = await self._advance.advance(waiter)
        self.answered.set()
        await self.let_go.wait()
        return answer


@pytest.mark.parametrize("times", [1, 3])
async def test_a_poke_that_arrives_while_advance_is_under_way_is_not_lost(base, temporal, times):
    held, queue = Held(base.app), f"held-{secrets.token_hex(4)}"
    run = await start_run(base, LATER)
    async with Worker(
        temporal, task_queue=queue, workflows=[Walk], activities=[held.advance], workflow_runner=sandbox()
    ):
        handle = await temporal.start_workflow(
            Walk.run,
            Waiter(org=base.org, kind=Target.RUN, id=run),
            id=workflow_id("run", run),
            task_queue=queue,
            task_timeout=timedelta(seconds=1),  # the sooner the task's heartbeat brings the signal in
        )
        await asyncio.wait_for(held.answered.wait(), 10)
        await base.pass_time(DAYS)  # due now, which the answer under way does not know
        for _ in range(times):
            await handle.signal(POKE)

        async def delivered():
            types = [event.event_type for event in (await handle.fetch_history()).events]
            if EventType.EVENT_TYPE_WORKFLOW_EXECUTION_SIGNALED not in types:
                return False
            signal = types.index(EventType.EVENT_TYPE_WORKFLOW_EXECUTION_SIGNALED)
            return EventType.EVENT_TYPE_WORKFLOW_TASK_STARTED in types[signal:]

        await until(delivered, "the poke's delivery", 5)
        held.let_go.set()

        async def ended():
            return await base.value("SELECT status = 'ended' FROM executions")

        await until(ended, "the run's end")
        await asyncio.wait_for(handle.result(), 10)
