"""Dispatch: wakes become pokes, each target once, and Temporal being away loses none."""

import asyncio
import json
import secrets
from datetime import timedelta
from types import SimpleNamespace
from uuid import uuid4

import pytest
from temporalio.api.enums.v1 import EventType
from temporalio.client import WorkflowExecutionStatus
from temporalio.service import RPCError, RPCStatusCode

from activities import advance as advancing
from domain.keys import workflow_id
from domain.words import Target
from store import mailboxes, queues, reminders, stops
from tests.driving import (
    act,
    advance,
    enroll,
    enrolled,
    kept_from,
    mail,
    make_contact,
    make_mailbox,
    numbers_run_on,
    on_stage,
    publish,
    sender,
    sequence,
    start_run,
    task,
    until,
    wait,
)
from triggers import first_attempt
from triggers.dispatch import Dispatch, TemporalAway
from triggers.sweep import Sweep


def dispatch_of(base, temporal, queue=None, *, first_attempt=False):
    """One that pokes whatever is due, unless it is to take first steps."""

    async def connect():
        return temporal

    queue = queue or f"nobody-{secrets.token_hex(4)}"
    return Dispatch(base.crossing, base.app, connect, queue, first_attempt=first_attempt)


async def signals(temporal, kind, row):
    """How many pokes a row's workflow has had."""
    handle = temporal.get_workflow_handle(workflow_id(kind, row))
    history = await handle.fetch_history()
    return sum(event.event_type == EventType.EVENT_TYPE_WORKFLOW_EXECUTION_SIGNALED for event in history.events)


async def test_each_target_is_poked_once_however_many_wakes_it_has(base, temporal):
    run = await start_run(base, on_stage(wait()))
    async with base.transaction() as tx:
        reminder = await reminders.create(tx, {"owner_id": base.rep, "title": "Ring", "due_at": tx.now})
        await queues.wake(tx, Target.RUN, [run] * 4)
    assert reminder is not None
    assert await dispatch_of(base, temporal).once() == 2
    assert await signals(temporal, "run", run) == 1
    assert await signals(temporal, "reminder", reminder.id) == 1
    assert await base.value("SELECT count(*) FROM wakes") == 0
    assert await dispatch_of(base, temporal).once() == 0


async def test_a_workflow_is_told_ids_and_nothing_else(base, temporal):
    run = await start_run(base, on_stage(wait()))
    await dispatch_of(base, temporal).once()
    told = {"org": str(base.org), "kind": "run", "id": str(run)}
    assert await input_of(temporal, Target.RUN, run) == ("Walk", told)


async def begins_after(temporal, kind, row):
    """The seconds for which a new workflow was put off."""
    history = await temporal.get_workflow_handle(workflow_id(kind, row)).fetch_history()
    return history.events[0].workflow_execution_started_event_attributes.first_workflow_task_backoff.ToTimedelta()


async def test_what_is_due_later_begins_then_and_costs_nothing_before(base, temporal, monkeypatch):
    clock = SimpleNamespace(monotonic=iter([100.0, 130.0]).__next__)
    monkeypatch.setattr("triggers.dispatch.time", clock)
    async with base.transaction() as tx:
        due = tx.now + timedelta(hours=1)
        reminder = await reminders.create(tx, {"owner_id": base.rep, "title": "Call", "due_at": due})
    assert reminder is not None
    assert await dispatch_of(base, temporal).once() == 1
    handle = temporal.get_workflow_handle(workflow_id(Target.REMINDER, reminder.id))
    assert len((await handle.fetch_history()).events) == 1
    put_off = await begins_after(temporal, Target.REMINDER, reminder.id)
    # But for the half minute that the relay stood still after it had looked.
    assert timedelta(minutes=59) < put_off < timedelta(minutes=59, seconds=30)


async def test_what_has_a_workflow_already_is_poked_and_looks_at_once(base, temporal):
    async with base.transaction() as tx:
        due = tx.now + timedelta(hours=1)
        reminder = await reminders.create(tx, {"owner_id": base.rep, "title": "Call", "due_at": due})
    assert reminder is not None
    await dispatch_of(base, temporal).once()
    async with base.transaction() as tx:
        await queues.wake(tx, Target.REMINDER, [reminder.id])
    await dispatch_of(base, temporal).once()
    assert await signals(temporal, "reminder", reminder.id) == 1
    history = await temporal.get_workflow_handle(workflow_id(Target.REMINDER, reminder.id)).fetch_history()
    assert EventType.EVENT_TYPE_WORKFLOW_TASK_SCHEDULED in [event.event_type for event in history.events]


async def test_a_row_that_is_closed_is_not_poked_and_its_wakes_go(base, temporal):
    run = await start_run(base, on_stage(wait()))
    async with base.transaction() as tx:
        await stops.stop(tx, run, Target.RUN, None)
    async with base.transaction() as tx:
        await queues.wake(tx, Target.RUN, [uuid4()])
    await dispatch_of(base, temporal).once()
    with pytest.raises(RPCError) as refused:
        await signals(temporal, "run", run)
    assert refused.value.status is RPCStatusCode.NOT_FOUND
    assert await base.value("SELECT count(*) FROM wakes") == 0


# --- first attempts


async def attempted(base, temporal=None):
    """One pass that takes first steps; without `temporal` it must need none."""
    return await dispatch_of(base, temporal, first_attempt=True).once()


async def never_had_a_workflow(temporal, kind, row):
    with pytest.raises(RPCError) as refused:
        await signals(temporal, kind, row)
    return refused.value.status is RPCStatusCode.NOT_FOUND


async def test_an_enrollment_whose_mail_is_written_and_sent_needs_no_workflow(base, temporal):
    box = await make_mailbox(base)
    enrollment = await enrolled(base, sequence(mail(), task()))
    await attempted(base, temporal)
    assert await base.value("SELECT awaits FROM executions") == "message"
    async with sender(base) as send:
        await send.empty(base.org, box)
    await attempted(base, temporal)
    assert await base.value("SELECT status FROM executions") == "ended"
    assert await never_had_a_workflow(temporal, Target.ENROLLMENT, enrollment)


async def test_what_comes_to_a_wait_gets_a_workflow_that_begins_when_it_ends(base, temporal):
    await make_mailbox(base)
    enrollment = await enrolled(base, sequence(task(), wait("w", 1, "hours"), task("last")))
    await attempted(base, temporal)
    assert await base.value("SELECT count(*) FROM activities") == 1
    put_off = await begins_after(temporal, Target.ENROLLMENT, enrollment)
    assert timedelta(minutes=59) < put_off <= timedelta(hours=1)
    assert await base.value("SELECT count(*) FROM wakes WHERE kind = 'enrollment'") == 0


async def test_what_has_a_workflow_and_comes_to_an_earlier_wait_is_poked(base, temporal):
    await make_mailbox(base)
    enrollment = await enrolled(base, sequence(wait("w", 1, "days"), wait("v", 1, "hours"), task()))
    await attempted(base, temporal)
    await base.rows("UPDATE executions SET due_at = anchor, anchor = anchor - interval '1 day' RETURNING id")
    async with base.transaction() as tx:
        await queues.wake(tx, Target.ENROLLMENT, [enrollment])
    await attempted(base, temporal)
    assert await base.value("SELECT step FROM executions") == "v"
    assert await signals(temporal, Target.ENROLLMENT, enrollment) == 1


async def test_a_step_that_cannot_be_taken_is_its_workflows(base, temporal):
    run = await start_run(base, on_stage(act("set", "set_field", field="company.name", value="Initech")))
    await attempted(base, temporal)
    assert await base.value("SELECT status FROM executions") == "open"  # its workflow hands it to a person
    assert await signals(temporal, Target.RUN, run) == 1


async def test_one_that_fails_takes_no_other_with_it(base, temporal):
    good = await start_run(base, on_stage(task()), "Good")
    await start_run(base, on_stage(act("on", "move_stage", to="nowhere")), "Bad")
    bad = await base.value(
        "SELECT x.id FROM executions x JOIN definitions d ON d.id = x.definition_id WHERE d.name = 'Bad'"
    )
    await attempted(base, temporal)
    assert await base.value("SELECT status FROM executions WHERE id = :id", id=good) == "ended"
    assert await never_had_a_workflow(temporal, Target.RUN, good)
    assert await signals(temporal, Target.RUN, bad) == 1


async def test_a_wake_that_another_relay_has_at_hand_is_left_to_it(base, temporal):
    run = await start_run(base, on_stage(task()))
    async with kept_from(base, "SELECT FROM wakes"):
        await attempted(base, temporal)
    assert await base.value("SELECT status FROM executions") == "open"
    assert await base.value("SELECT count(*) FROM wakes") == 1
    assert await never_had_a_workflow(temporal, Target.RUN, run)
    await attempted(base, temporal)
    assert await base.value("SELECT status FROM executions") == "ended"


async def test_while_a_record_is_locked_its_steps_are_its_workflows(base, temporal):
    run = await start_run(base, on_stage(task()))
    async with kept_from(base, "SELECT FROM deals"):
        await attempted(base, temporal)
    assert await base.value("SELECT status FROM executions") == "open"
    assert await signals(temporal, Target.RUN, run) == 1


@pytest.mark.parametrize("first", ["Stays", "Mover"])
async def test_one_that_takes_out_goes_by_itself_where_enrollments_of_its_contact_are_woken(base, temporal, first):
    await make_mailbox(base)
    person = await make_contact(base)
    stays = await publish(base, sequence(mail(), wait(), task()), "Stays")
    mover = await publish(base, sequence(act("out", "take_out"), task()), "Mover")
    kept = {}
    for one in (stays, mover) if first == "Stays" else (mover, stays):
        (answered,) = await enroll(base, one, person)
        assert answered.enrollment is not None
        kept[one] = answered.enrollment
    await attempted(base, temporal)
    assert await base.value("SELECT status FROM executions WHERE id = :id", id=kept[mover]) == "open"
    await advance(base, kept[mover], Target.ENROLLMENT)  # as its workflow does, which was poked
    (row,) = await base.rows("SELECT status, exit_reason FROM executions WHERE id = :id", id=kept[stays])
    assert row == {"status": "ended", "exit_reason": "stopped"}
    assert await base.value("SELECT status FROM intents") == "cancelled"
    assert await signals(temporal, Target.ENROLLMENT, kept[mover]) == 1
    await numbers_run_on(base)


async def test_what_has_ended_since_it_was_locked_is_not_opened_again(base):
    await make_mailbox(base)
    enrollment = await enrolled(base, sequence(task(), wait(), task("last")))
    async with base.transaction() as tx:
        batch = await advancing._Batch.locked(tx, [enrollment])
        await batch.round(batch.may_go(1))
        await stops.stop(tx, enrollment, Target.ENROLLMENT, None)
        with pytest.raises(RuntimeError, match="ended since it was locked"):
            await batch.rest()
    assert await base.value("SELECT status FROM executions") == "ended"


async def test_many_that_are_locked_are_tried_one_by_one_for_a_second_and_no_longer(base, temporal, monkeypatch):
    runs = [await start_run(base, on_stage(task()), f"Rule {number}") for number in range(3)]
    assert await base.value("SELECT count(*) FROM executions WHERE status = 'open'") == 6  # each move for each rule
    monkeypatch.setattr(first_attempt, "SECONDS", 0)
    async with kept_from(base, "SELECT FROM deals"):
        await attempted(base, temporal)
    assert [await signals(temporal, Target.RUN, run) for run in runs] == [1, 1, 1]
    assert await base.value("SELECT count(*) FROM activities") == 0


async def test_while_temporal_is_away_steps_are_taken_and_waits_keep_their_wakes(base):
    run = await start_run(base, on_stage(task(), wait()))
    async with base.transaction() as tx:
        reminder = await reminders.create(tx, {"owner_id": base.rep, "title": "Ring", "due_at": tx.now})
    assert reminder is not None

    async def refuse():
        raise TemporalAway("not there")

    with pytest.raises(TemporalAway):
        await Dispatch(base.crossing, base.app, refuse, "queue").once()
    assert await base.value("SELECT count(*) FROM activities") == 1
    left = await base.rows("SELECT target_id FROM wakes")
    assert {row["target_id"] for row in left} == {run, reminder.id}


# --- mail


async def written(base):
    """An enrollment whose first mail waits in a new mailbox; both ids."""
    box = await make_mailbox(base)
    enrollment = await enrolled(base, sequence(mail(), wait(), task()))
    await advance(base, enrollment, Target.ENROLLMENT)
    return enrollment, box


async def input_of(temporal, kind, row):
    """The workflow's name and what it was told."""
    history = await temporal.get_workflow_handle(workflow_id(kind, row)).fetch_history()
    started = history.events[0].workflow_execution_started_event_attributes
    (payload,) = started.input.payloads
    return started.workflow_type.name, json.loads(payload.data)


async def test_an_enrollment_is_walked_and_its_mailbox_drained_on_a_queue_of_its_own(base, temporal):
    enrollment, box = await written(base)
    assert await dispatch_of(base, temporal, "busy").once() == 2
    walked = {"org": str(base.org), "kind": "enrollment", "id": str(enrollment)}
    assert await input_of(temporal, Target.ENROLLMENT, enrollment) == ("Walk", walked)
    drained = {"org": str(base.org), "id": str(box), "queue": "busy-mail"}
    assert await input_of(temporal, Target.MAILBOX, box) == ("Drain", drained)


async def test_a_mailbox_is_poked_once_for_many_messages(base, temporal):
    box = await make_mailbox(base)
    people = [await make_contact(base, f"p{number}@example.com") for number in range(5)]
    for one in await enroll(base, await publish(base, sequence(mail())), *people):
        assert one.enrollment is not None
        await advance(base, one.enrollment, Target.ENROLLMENT)
    assert await dispatch_of(base, temporal).once() > 0
    assert await signals(temporal, Target.MAILBOX, box) == 1
    assert await base.value("SELECT count(*) FROM wakes") == 0


async def test_a_message_that_is_written_later_pokes_the_drain_that_runs(base, temporal):
    enrollment, box = await written(base)
    dispatch = dispatch_of(base, temporal)
    await dispatch.once()
    again = await publish(base, sequence(mail()), "Again")
    (other,) = await enroll(base, again, await make_contact(base, "other@example.com"))
    assert other.enrollment is not None
    await advance(base, other.enrollment, Target.ENROLLMENT)
    await dispatch.once()
    assert await signals(temporal, Target.MAILBOX, box) == 2
    assert await signals(temporal, Target.ENROLLMENT, enrollment) == 0


async def test_a_deleted_mailbox_is_poked_because_its_messages_must_be_told(base, temporal):
    _, box = await written(base)
    async with base.transaction() as tx:
        await mailboxes.delete(tx, box)
    await dispatch_of(base, temporal).once()
    assert await signals(temporal, Target.MAILBOX, box) == 1


async def test_an_enrollment_that_awaits_a_fact_is_not_poked(base, temporal):
    await make_mailbox(base)
    enrollment = await enrolled(base, sequence(mail()))
    await advance(base, enrollment, Target.ENROLLMENT)  # it awaits its last message
    await dispatch_of(base, temporal).once()
    with pytest.raises(RPCError) as refused:
        await signals(temporal, Target.ENROLLMENT, enrollment)
    assert refused.value.status is RPCStatusCode.NOT_FOUND


async def test_a_mailbox_that_nobody_came_for_is_found_by_the_sweep(base, temporal):
    _, box = await written(base)
    await base.rows("DELETE FROM wakes RETURNING id")
    await base.pass_time(timedelta(minutes=2))
    assert await Sweep(base.crossing, base.app).once() == 1
    await dispatch_of(base, temporal).once()
    assert await signals(temporal, Target.MAILBOX, box) == 1


# --- what goes wrong


async def test_while_temporal_is_down_every_wake_is_kept_and_given_when_it_is_back(base, temporal, temporal_server):
    run = await start_run(base, on_stage(wait()))
    dispatch = dispatch_of(base, temporal)
    await temporal_server.kill()
    try:
        with pytest.raises(TemporalAway):
            await asyncio.wait_for(dispatch.once(), 30)
        assert await base.value("SELECT target_id FROM wakes WHERE failed_at IS NULL") == run
    finally:
        await temporal_server.start()

    async def taken():
        try:
            await dispatch.once()
        except TemporalAway:
            return False
        return await base.value("SELECT count(*) = 0 FROM wakes")

    await until(taken, "the wakes to be given", 30)
    assert await signals(temporal, "run", run) == 1


async def test_before_temporal_ever_answered_every_wake_is_kept(base):
    await start_run(base, on_stage(wait()))

    async def refuse():
        raise TemporalAway("not there")

    with pytest.raises(TemporalAway):
        await Dispatch(base.crossing, base.app, refuse, "queue").once()
    assert await base.value("SELECT count(*) FROM wakes WHERE failed_at IS NULL") == 1


async def test_while_temporal_is_away_what_is_closed_costs_nothing(base):
    run = await start_run(base, on_stage(task()))
    await advance(base, run)

    async def refuse():
        raise TemporalAway("not there")

    assert await Dispatch(base.crossing, base.app, refuse, "queue").once() == 1
    assert await base.value("SELECT count(*) FROM wakes") == 0


async def test_what_temporal_will_never_take_is_set_aside_with_its_error_and_the_sweep_comes_for_the_row(
    base, temporal
):
    run = await start_run(base, on_stage(wait("wait", 1), task()))
    assert await dispatch_of(base, temporal, "q" * 2000).once() == 1
    (wake,) = await base.rows("SELECT error, failed_at FROM wakes")
    assert wake["error"] == "INVALID_ARGUMENT"
    assert wake["failed_at"] is not None
    assert await base.value("SELECT status FROM executions") == "open"
    assert await dispatch_of(base, temporal).once() == 0
    await base.pass_time(timedelta(minutes=2))
    assert await Sweep(base.crossing, base.app).once() == 1
    assert await dispatch_of(base, temporal).once() == 1
    assert await signals(temporal, "run", run) == 1


async def test_one_refused_wake_does_not_hold_up_the_others(base, temporal):
    good = await start_run(base, on_stage(wait()))
    other = await base.another()
    await start_run(other, on_stage(wait()))
    dispatch = dispatch_of(base, temporal)
    poke = dispatch._poke

    async def poke_but_refuse_one(client, wake):
        if wake.target != good:
            raise RPCError("not yours to poke", RPCStatusCode.PERMISSION_DENIED, b"")
        await poke(client, wake)

    dispatch._poke = poke_but_refuse_one
    assert await dispatch.once() == 2
    assert await signals(temporal, "run", good) == 1
    assert await base.value("SELECT count(*) FROM wakes") == 0
    assert await other.value("SELECT error FROM wakes") == "PERMISSION_DENIED"


async def test_a_workflow_that_takes_no_more_pokes_is_replaced(base, temporal):
    run = await start_run(base, on_stage(wait(), task()))
    dispatch = dispatch_of(base, temporal)
    await dispatch.once()
    handle = temporal.get_workflow_handle(workflow_id("run", run))
    first = (await handle.describe()).run_id

    async def at_its_limit(client, wake):
        raise RPCError("exceeded workflow execution limit for signal events", RPCStatusCode.INVALID_ARGUMENT, b"")

    dispatch._poke = at_its_limit
    async with base.transaction() as tx:
        await queues.wake(tx, Target.RUN, [run])
    assert await dispatch.once() == 1
    assert await base.value("SELECT count(*) FROM wakes") == 0
    old = await temporal.get_workflow_handle(handle.id, run_id=first).describe()
    new = await handle.describe()
    assert (old.status, new.status) == (WorkflowExecutionStatus.TERMINATED, WorkflowExecutionStatus.RUNNING)
    assert new.run_id != first


async def test_wakes_that_come_while_a_batch_is_poked_are_not_lost(base, temporal):
    run = await start_run(base, on_stage(wait()))
    dispatch = dispatch_of(base, temporal)
    poke = dispatch._poke

    async def poke_and_wake_again(client, wake):
        async with base.transaction() as tx:
            await queues.wake(tx, Target.RUN, [run])
        return await poke(client, wake)

    dispatch._poke = poke_and_wake_again
    await dispatch.once()
    assert await base.value("SELECT count(*) FROM wakes") == 1
    await dispatch_of(base, temporal).once()
    assert await signals(temporal, "run", run) == 2
