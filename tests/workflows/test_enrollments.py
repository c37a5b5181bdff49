"""Enrollments on the real server with the real workers: each mail in its time, and what it costs in Temporal."""

from collections import Counter
from datetime import timedelta

import pytest

from domain.words import Target
from runtime.migrating import migrate
from store import mailboxes, stops
from store.transaction import Database
from tests.conftest import Base
from tests.driving import enroll, enrolled, mail, make_contact, make_mailbox, publish, sequence, task, until, wait
from tests.workflows.working import at_work
from triggers.sweep import Sweep

DAYS = timedelta(days=3)
TWO = sequence(mail("one"), wait("pause"), mail("two", thread="same"))


def five(amount, unit):
    """Five mails and the four waits between them."""
    steps = [mail("m0")]
    for number in range(1, 5):
        steps += [wait(f"w{number}", amount, unit), mail(f"m{number}", thread="same")]
    return sequence(*steps)


async def sent(working, *steps):
    """Waits until these steps' mails, and no other, were accepted; the relay's process is at it meanwhile."""

    async def are():
        await working.flow()
        rows = await working.base.rows("SELECT step FROM intents WHERE status = 'accepted' ORDER BY accepted_at")
        return [row["step"] for row in rows] == [*steps]

    await until(are, f"the mails {steps}")
    await working.flow()  # the last record's wake may have been written after the flow that looked before it


async def waits(working, id_):
    await working.waits(id_, "pause", Target.ENROLLMENT)


async def ends(working, id_):
    await working.stands(id_, status="ended")
    await working.ends(id_, Target.ENROLLMENT)


@pytest.fixture
async def quick(empty_database, temporal):
    """Workers on real timers where a second is ten minutes, so that a busy machine can keep to the plan."""
    admin, app, relay = empty_database
    await migrate(admin, app, relay, scale=600)
    base = Base(Database.connect(app), Database.connect(relay), app, relay, admin)
    await base.people()
    async with at_work(base, temporal) as working:
        yield working
    await base.app.close()
    await base.crossing.close()


async def test_five_mails_and_four_waits_on_plan_are_four_wakes_and_24_events(quick):
    box, served = await make_mailbox(quick.base), quick.as_served()
    async with served.flowing():
        id_ = await enrolled(quick.base, five(40, "minutes"))
        await ends(served, id_)
    found = Counter(await quick.events(id_, Target.ENROLLMENT))
    assert found["MARKER_RECORDED"] == 4  # one for each call of `advance` but the relay's
    assert found["TIMER_FIRED"] == 3
    assert found["WORKFLOW_EXECUTION_SIGNALED"] == 0
    assert found.total() == 6 + 3 * 6
    await mailed_on_plan(quick, box)


async def test_without_a_first_attempt_they_are_five_wakes_and_31_events(quick):
    box = await make_mailbox(quick.base)
    async with quick.flowing():
        id_ = await enrolled(quick.base, five(40, "minutes"))
        await ends(quick, id_)
    found = Counter(await quick.events(id_, Target.ENROLLMENT))
    assert found["MARKER_RECORDED"] == 5
    assert found["TIMER_FIRED"] == 4
    assert found["WORKFLOW_EXECUTION_SIGNALED"] == 1
    assert found.total() == 7 + 4 * 6
    await mailed_on_plan(quick, box)


async def mailed_on_plan(quick, box):
    """Each of the five mails by one attempt, and a call of the drain's activity function for each."""
    rows = await quick.base.rows("SELECT step, attempts FROM intents ORDER BY accepted_at")
    assert [(row["step"], row["attempts"]) for row in rows] == [(f"m{number}", 1) for number in range(5)]
    await until(lambda: quick.asleep(box, Target.MAILBOX), "the drain's wait")
    mails = Counter(await quick.events(box, Target.MAILBOX))
    assert mails["ACTIVITY_TASK_COMPLETED"] == 5
    assert mails.total() == 5 * 12


async def test_an_enrollment_waits_is_moved_by_the_clock_and_pokes_and_ends_with_its_last_mail(working):
    await make_mailbox(working.base)
    id_ = await working.enroll(TWO)
    await waits(working, id_)
    await sent(working, "one")
    await working.later(DAYS)
    await sent(working, "one", "two")
    await ends(working, id_)
    assert await working.base.value("SELECT exit_reason FROM executions") == "completed"


async def test_a_poke_before_its_time_sends_nothing(working):
    await make_mailbox(working.base)
    id_ = await working.enroll(TWO)
    await sent(working, "one")
    for _ in range(3):
        await working.later(timedelta(hours=1))
        await waits(working, id_)
    assert await working.base.value("SELECT count(*) FROM intents") == 1


async def test_a_wait_after_a_mail_that_has_not_left_needs_no_workflow_and_the_record_wakes_it(working):
    box = await make_mailbox(working.base)
    async with working.base.transaction() as tx:
        await mailboxes.pause(tx, box)
    id_ = await working.enroll(TWO)
    await waits(working, id_)
    await working.later(DAYS)
    await working.stands(id_, awaits="message", due_at=None)
    await working.ends(id_, Target.ENROLLMENT)
    async with working.base.transaction() as tx:
        await mailboxes.resume(tx, box)
    await sent(working, "one")
    await waits(working, id_)  # from when it left: that is days after the plan
    await working.later(DAYS)
    await sent(working, "one", "two")
    await ends(working, id_)


async def test_a_stopped_enrollment_sends_nothing_at_its_time_and_its_workflow_ends(working):
    await make_mailbox(working.base)
    id_ = await working.enroll(TWO)
    await waits(working, id_)
    await sent(working, "one")
    async with working.base.transaction() as tx:
        await stops.stop(tx, id_, Target.ENROLLMENT, "the customer called")
    await working.base.pass_time(DAYS)
    await working.handle(id_, Target.ENROLLMENT).signal("poke")
    await ends(working, id_)
    await sent(working, "one")


async def test_an_enrollment_whose_workflow_was_terminated_is_healed_by_the_sweep(working):
    await make_mailbox(working.base)
    id_ = await working.enroll(TWO)
    await waits(working, id_)
    await sent(working, "one")
    await working.handle(id_, Target.ENROLLMENT).terminate("a crash")
    await working.base.pass_time(DAYS + timedelta(seconds=61))
    assert await Sweep(working.base.crossing, working.base.app).once() == 1
    await sent(working, "one", "two")
    await ends(working, id_)


async def test_a_mailbox_whose_wake_was_lost_is_healed_by_the_sweep(working):
    box = await make_mailbox(working.base)
    id_ = await working.enroll(sequence(task(), wait("pause", 1), mail("one")))
    await waits(working, id_)
    await working.base.pass_time(timedelta(days=1))
    async with working.base.transaction() as tx:
        await mailboxes.pause(tx, box)
    await working.later(timedelta(0))
    await working.stands(id_, step=None)
    async with working.base.transaction() as tx:
        await mailboxes.resume(tx, box)
    await working.base.rows("DELETE FROM wakes RETURNING id")
    await working.base.pass_time(timedelta(seconds=61))
    assert await Sweep(working.base.crossing, working.base.app).once() == 1
    await sent(working, "one")
    await ends(working, id_)


async def test_fifty_enrollments_in_one_mailbox_send_each_mail_once(working):
    await make_mailbox(working.base)
    people = [await make_contact(working.base, f"p{number}@example.com") for number in range(50)]
    await enroll(working.base, await publish(working.base, TWO), *people)

    async def left(count):
        return await working.base.value("SELECT count(*) = :count FROM intents WHERE status = 'accepted'", count=count)

    async with working.flowing():
        await until(lambda: left(50), "the first mails", 60)
    await working.later(DAYS)
    async with working.flowing():
        await until(lambda: left(100), "the second mails", 60)
    assert await working.base.value("SELECT count(*) FROM attempts") == 100
