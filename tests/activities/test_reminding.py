"""Reminders that act: at their time, once, then to the manager, and not after they were answered."""

import asyncio
from datetime import timedelta

import pytest
from temporalio.exceptions import ApplicationError

from domain.words import ReminderStatus
from store import reminders
from tests.driving import advance, drive
from tests.store.test_reminders import act, remind, row

ESCALATES = {"amount": 1, "unit": "days"}


async def told(base):
    return await base.rows("SELECT user_id, reason, title, occurrence FROM notifications ORDER BY created_at, id")


async def test_a_reminder_does_not_fire_early(base):
    id_ = await remind(base, timedelta(hours=1))
    assert 3500 < (await advance(base, id_, "reminder")).seconds <= 3600
    await base.pass_time(timedelta(minutes=59))
    assert 0 < (await advance(base, id_, "reminder")).seconds <= 60
    assert await told(base) == []
    assert (await row(base, id_))["status"] == "scheduled"


async def test_a_reminder_fires_once_at_its_time(base):
    id_ = await remind(base, timedelta(hours=1))
    await base.pass_time(timedelta(hours=1))
    assert (await advance(base, id_, "reminder")).done
    assert (await advance(base, id_, "reminder")).done
    assert await told(base) == [{"user_id": base.rep, "reason": "reminder", "title": "Ring", "occurrence": 1}]
    assert (await row(base, id_))["status"] == "fired"


async def test_ten_looks_at_once_tell_once(base):
    id_ = await remind(base, timedelta(hours=1), escalate_after=ESCALATES)
    for passes, count in ((timedelta(hours=1), 1), (timedelta(days=1), 2)):
        await base.pass_time(passes)
        await asyncio.gather(*(advance(base, id_, "reminder") for _ in range(10)))
        assert len(await told(base)) == count


async def test_one_that_is_not_answered_is_told_to_the_manager_counted_from_its_planned_instant(base):
    id_ = await remind(base, timedelta(hours=1), escalate_after=ESCALATES)
    planned = (await row(base, id_))["due_at"]
    await base.pass_time(timedelta(hours=7))  # six hours late
    answer = await advance(base, id_, "reminder")
    assert 17 * 3600 < answer.seconds <= 18 * 3600
    assert (await row(base, id_))["due_at"] == planned + timedelta(days=1)
    await base.pass_time(timedelta(hours=17))
    assert (await advance(base, id_, "reminder")).seconds > 0
    await base.pass_time(timedelta(hours=1))
    assert (await advance(base, id_, "reminder")).done
    assert [(one["user_id"], one["reason"]) for one in await told(base)] == [
        (base.rep, "reminder"), (base.manager, "escalation")
    ]  # fmt: skip
    assert (await row(base, id_))["status"] == "escalated"


async def test_one_found_so_late_that_it_must_escalate_too_tells_both(base):
    id_ = await remind(base, timedelta(hours=1), escalate_after=ESCALATES)
    await base.pass_time(timedelta(days=9))
    answer = await advance(base, id_, "reminder")
    assert not answer.done
    assert answer.seconds <= 0
    await drive(base)
    assert [one["reason"] for one in await told(base)] == ["reminder", "escalation"]


async def test_without_a_manager_the_first_admin_is_told(base):
    id_ = await remind(base, timedelta(hours=1), owner_id=base.manager, escalate_after=ESCALATES)
    await base.pass_time(timedelta(hours=1))
    await drive(base)
    assert [one["user_id"] for one in await told(base)] == [base.manager, base.admin]
    assert (await row(base, id_))["status"] == "escalated"


@pytest.mark.parametrize("status", [ReminderStatus.DONE, ReminderStatus.CANCELLED])
@pytest.mark.parametrize("fired", [True, False])
async def test_one_that_was_answered_does_nothing_more(base, status, fired):
    id_ = await remind(base, timedelta(hours=1), escalate_after=ESCALATES)
    if fired:
        await base.pass_time(timedelta(hours=1))
        await advance(base, id_, "reminder")
    await act(base, reminders.close, id_, status)
    await base.pass_time(timedelta(days=9))
    assert (await advance(base, id_, "reminder")).done
    assert [one["reason"] for one in await told(base)] == ["reminder"] * fired


async def test_one_that_was_snoozed_fires_again_at_its_new_time_and_is_told_apart(base):
    id_ = await remind(base, timedelta(hours=1))
    await base.pass_time(timedelta(hours=1))
    await advance(base, id_, "reminder")
    await act(base, reminders.snooze, id_, await base.value("SELECT business_now()") + timedelta(days=2))
    assert (await advance(base, id_, "reminder")).seconds > 0
    await base.pass_time(timedelta(days=2))
    await advance(base, id_, "reminder")
    assert [one["occurrence"] for one in await told(base)] == [1, 2]


async def test_a_lock_held_by_another_only_makes_it_late(base):
    id_ = await remind(base, timedelta(hours=1))
    await base.pass_time(timedelta(hours=1))
    async with base.transaction() as holder:
        await holder.connection.exec_driver_sql("SELECT id FROM reminders FOR NO KEY UPDATE")
        with pytest.raises(ApplicationError, match="database_busy"):
            await advance(base, id_, "reminder")
    await advance(base, id_, "reminder")
    assert len(await told(base)) == 1
