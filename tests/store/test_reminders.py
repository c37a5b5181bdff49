"""Reminders as rows: made, moved, answered, and closed with what they are about."""

from datetime import timedelta
from uuid import uuid4

import pytest

from domain.words import ReminderStatus
from store import activities, deals, reminders
from store.errors import IllegalTransition, NotFound, UnknownReference
from tests.driving import advance, make_deal


async def act(base, verb, *args, **kwargs):
    async with base.transaction() as tx:
        return await verb(tx, *args, **kwargs)


async def remind(base, after=timedelta(days=1), **values):
    now = await base.value("SELECT business_now()")
    made = await act(base, reminders.create, {"owner_id": base.rep, "title": "Ring", "due_at": now + after, **values})
    return made.id


async def row(base, id_):
    (found,) = await base.rows("SELECT * FROM reminders WHERE id = :id", id=id_)
    return found


async def fire(base, id_):
    await base.pass_time(timedelta(days=2))
    await advance(base, id_, "reminder")


async def test_a_reminder_is_made_scheduled_with_a_wake_that_starts_its_wait(base):
    id_ = await remind(base)
    assert (await row(base, id_))["status"] == "scheduled"
    assert await base.rows("SELECT kind, target_id FROM wakes") == [{"kind": "reminder", "target_id": id_}]


async def test_the_same_id_makes_one_reminder_and_one_wake(base):
    id_ = uuid4()
    values = {"owner_id": base.rep, "title": "Ring", "due_at": await base.value("SELECT business_now()")}
    assert await act(base, reminders.create, values, id=id_) is not None
    assert await act(base, reminders.create, values, id=id_) is None
    assert await base.value("SELECT count(*) FROM wakes") == 1


async def test_a_reminder_for_somebody_unknown_is_refused_by_field(base):
    with pytest.raises(UnknownReference) as refused:
        await remind(base, owner_id=uuid4())
    assert refused.value.field == "ownerId"


async def test_snoozing_moves_it_counts_and_wakes(base):
    id_ = await remind(base)
    until = await base.value("SELECT business_now()") + timedelta(days=9)
    moved = await act(base, reminders.snooze, id_, until)
    assert (moved.status, moved.due_at, moved.snoozes) == ("scheduled", until, 1)
    assert await base.value("SELECT count(*) FROM wakes") == 2


async def test_one_that_fired_can_be_snoozed_and_is_scheduled_again(base):
    id_ = await remind(base)
    await fire(base, id_)
    assert (await row(base, id_))["status"] == "fired"
    moved = await act(base, reminders.snooze, id_, await base.value("SELECT business_now()") + timedelta(days=1))
    assert (moved.status, moved.fired_at, moved.snoozes) == ("scheduled", None, 1)


async def test_one_that_was_escalated_can_still_be_answered(base):
    id_ = await remind(base, escalate_after={"amount": 1, "unit": "hours"})
    await fire(base, id_)
    await fire(base, id_)
    assert (await row(base, id_))["status"] == "escalated"
    closed = await act(base, reminders.close, id_, ReminderStatus.DONE)
    assert (closed.status, closed.due_at, closed.closed_at is not None) == ("done", None, True)


@pytest.mark.parametrize("status", [ReminderStatus.DONE, ReminderStatus.CANCELLED])
async def test_a_closed_one_is_closed_for_good(base, status):
    id_ = await remind(base)
    await act(base, reminders.close, id_, status)
    before = await row(base, id_)
    assert (before["status"], before["due_at"]) == (status.value, None)
    for again in (ReminderStatus.DONE, ReminderStatus.CANCELLED):
        with pytest.raises(IllegalTransition, match=status.value):
            await act(base, reminders.close, id_, again)
    with pytest.raises(IllegalTransition, match=status.value):
        await act(base, reminders.snooze, id_, await base.value("SELECT business_now()"))
    assert await row(base, id_) == before
    assert (await advance(base, id_, "reminder")).done


async def test_another_organizations_reminder_is_not_found(base):
    id_, other = await remind(base), await base.another()
    with pytest.raises(NotFound):
        await act(other, reminders.close, id_, ReminderStatus.DONE)
    with pytest.raises(NotFound):
        await act(other, reminders.snooze, id_, await base.value("SELECT business_now()"))
    assert (await advance(other, id_, "reminder")).done
    assert (await row(base, id_))["status"] == "scheduled"


async def test_completing_a_task_cancels_its_reminders_and_no_other(base):
    task = await act(base, activities.create_task, {"subject": "Ring", "assignee_id": base.rep})
    about, other = await remind(base, activity_id=task.id), await remind(base)
    await act(base, activities.complete_task, task.id)
    assert (await row(base, about))["status"] == "cancelled"
    assert (await row(base, other))["status"] == "scheduled"


async def test_closing_a_deal_cancels_what_is_still_to_come_about_it_and_keeps_what_was(base):
    deal = await make_deal(base)
    told, escalating, coming = [await remind(base, deal_id=deal) for _ in range(3)]
    await base.rows(
        'UPDATE reminders SET escalate_after = \'{"amount": 9, "unit": "days"}\' WHERE id = :id RETURNING id',
        id=escalating,
    )
    await base.pass_time(timedelta(days=2))
    for id_ in (told, escalating):
        await advance(base, id_, "reminder")
    await act(base, deals.move_stage, deal, "negotiation")
    assert (await row(base, coming))["status"] == "scheduled"
    await act(base, deals.move_stage, deal, "closed_won")
    assert [(await row(base, id_))["status"] for id_ in (told, escalating, coming)] == [
        "fired", "cancelled", "cancelled"
    ]  # fmt: skip
