"""`doctor --repair` on the real server: workflows beside rows, whichever of the two was lost or went wrong."""

import asyncio
import secrets
from datetime import timedelta
from uuid import uuid4

import pytest
from temporalio import workflow
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from domain.keys import row_of, workflow_id
from domain.words import StuckReason, Target
from runtime import doctor
from runtime.settings import Settings
from runtime.wiring import worker
from store import executions, mailboxes, stops
from store.transaction import Database
from tests.driving import (
    as_admin,
    mail,
    make_deal,
    make_mailbox,
    move,
    on_stage,
    sequence,
    start_run,
    switch_on,
    task,
    until,
    wait,
)
from tests.workflows.working import Working, at_work
from workflows.contracts import POKE, Waiter

DAYS = timedelta(days=3)
LATER = on_stage(wait("pause"), task())


@pytest.fixture
def here(temporal_server, monkeypatch):
    for name, value in temporal_server.environment().items():
        monkeypatch.setenv(name, value)


def settings(base, queue):
    return Settings(database_url=base.app_url, relay_database_url=base.relay_url, api_port=1, task_queue=queue)


async def listed(working, ids):
    """Waits until visibility lists exactly these workflows of the test's queue as running."""

    async def does():
        query = f'ExecutionStatus = "Running" AND TaskQueue = "{working.queue}"'
        return {one.id async for one in working.client.list_workflows(query)} == set(ids)

    await until(does, "the list of running workflows")


def test_the_row_of_a_workflow_is_read_from_its_id():
    row = uuid4()
    assert all(row_of(workflow_id(kind, row)) == row for kind in Target)
    assert [row_of(id_) for id_ in ("none", f"dream-{row}", "run-1", str(row))] == [None] * 4


async def test_workflows_without_a_row_or_of_an_ended_one_are_terminated_and_the_others_stay(base, temporal, here):
    async with at_work(base, temporal) as working:
        box = await make_mailbox(base)
        await switch_on(base, LATER)
        for number in range(4):
            await move(base, await make_deal(base, title=f"Deal {number}"))
        await working.flow()
        waits, ended, stuck, lost = [row["id"] for row in await base.rows("SELECT id FROM executions")]
        reminder = await working.remind(DAYS)
        async with base.transaction() as tx:
            await mailboxes.resume(tx, box)
        await working.flow()
        for run in (waits, ended, stuck, lost):
            await working.waits(run, "pause")
        await until(lambda: working.asleep(box, Target.MAILBOX), "the drain's linger")
        async with base.transaction() as tx:
            await stops.stop(tx, ended, Target.RUN, None)
            await executions.get_stuck(tx, stuck, StuckReason.RECORD_MISSING, "gone", None)
        await as_admin(base, "DELETE FROM executions WHERE id = $1", lost)
        stay = [
            workflow_id(kind, id_)
            for kind, id_ in (
                (Target.RUN, waits), (Target.RUN, stuck), (Target.REMINDER, reminder), (Target.MAILBOX, box)
            )
        ]  # fmt: skip
        go = [workflow_id(Target.RUN, lost), workflow_id(Target.RUN, ended)]
        await listed(working, stay + go)
        asked = settings(base, working.queue)

        dry = (await doctor.repair(asked, dry=True)).workflows
        assert dry is not None
        assert (dry.running, dry.gone, dry.ended, dry.failing) == (6, go[:1], go[1:], [])
        await listed(working, stay + go)
        assert await base.value("SELECT count(*) FROM wakes") == 0

        assert (await doctor.repair(asked, dry=False)).workflows == dry
        await listed(working, stay)
        again = await doctor.repair(asked, dry=False)
        assert again.workflows is not None
        assert (again.workflows.gone, again.workflows.ended, again.runs, again.reminders) == ([], [], 1, 1)
        await working.later(DAYS)
        await working.stands(waits, status="ended")
        await working.handle(box, Target.MAILBOX).terminate()


@workflow.defn(name="Walk")
class _Altered:
    """What a careless release could make of `Walk`: its histories are no histories of ours."""

    @workflow.signal(name=POKE)
    def poke(self) -> None:
        pass

    @workflow.run
    async def run(self, _: Waiter) -> None:
        await asyncio.sleep(1000)


async def test_what_another_releases_workflow_code_left_behind_goes_on_anew_after_a_repair(base, temporal, here):
    queue = f"walk-{secrets.token_hex(4)}"
    working, asked = Working(base, temporal, queue), settings(base, queue)
    altered = Worker(
        temporal, task_queue=queue, workflows=[_Altered], workflow_runner=UnsandboxedWorkflowRunner(),
        sticky_queue_schedule_to_start_timeout=timedelta(seconds=1),
    )  # fmt: skip
    async with altered:
        run = await working.run(LATER)
        await until(lambda: working.asleep(run), "the altered workflow's sleep")
    app = Database.connect(base.app_url)
    async with worker(temporal, app, asked):
        await working.later(DAYS)

        async def told():
            found = {finding.component: finding async for finding in doctor.findings(asked)}
            return None if found["workflows"].well else found["workflows"].words

        words = await until(told, "a task that fails to be a finding", 30)
        assert words.startswith("1 workflows wait; the tasks of 1 keep failing.")
        assert await base.value("SELECT count(*) FROM effects") == 0
        done = await doctor.repair(asked, dry=False)
        assert done.workflows is not None
        assert done.workflows.failing == [workflow_id(Target.RUN, run)]
        await working.flow()
        await working.stands(run, status="ended")
        await working.ends(run)
        assert await base.value("SELECT count(*) FROM activities WHERE type = 'task'") == 1
    await app.close()


async def test_lost_wakes_and_lost_workflows_are_made_up_for_by_a_repair(base, temporal, here):
    async with at_work(base, temporal) as working:
        await make_mailbox(base)
        run = await working.run(LATER)
        reminder = await working.remind(DAYS)
        await working.waits(run, "pause")
        await working.handle(run).terminate("an operator")
        await base.pass_time(DAYS)
        enrollment = await working.enroll(sequence(mail()))
        await base.rows("DELETE FROM wakes RETURNING id")
        done = await doctor.repair(settings(base, working.queue), dry=False)
        assert (done.runs, done.reminders) == (1, 1)
        await working.flow()
        await working.stands(run, status="ended")
        await working.reminder_stands(reminder, status="fired")
        await working.stands(enrollment, awaits="message")
        await base.rows("DELETE FROM wakes RETURNING id")
        await doctor.repair(settings(base, working.queue), dry=False)
        await working.flow()
        async with working.flowing():
            await working.stands(enrollment, status="ended")
        assert await base.value("SELECT count(*) FROM intents WHERE status = 'accepted' AND attempts = 1") == 1


async def test_the_rows_are_repaired_while_temporal_is_away_and_that_is_said(base, monkeypatch):
    monkeypatch.setenv("TEMPORAL_ADDRESS", "127.0.0.1:1")
    run = await start_run(base, LATER)
    await base.rows("DELETE FROM wakes RETURNING id")
    done = await doctor.repair(settings(base, "nobody-polls"), dry=False)
    assert done.workflows is None
    assert await base.value("SELECT target_id FROM wakes") == run
