"""What each action makes, with its effect row and what it saw; once however often it is tried."""

import asyncio
from datetime import timedelta

import pytest

from domain.keys import EffectKey
from store import companies, contacts
from tests.driving import act, advance, drive, on_contact, on_stage, start_run, switch_on, task, wait


async def effects(base):
    return await base.rows(
        "SELECT step, visit, number, action, outcome, saw, made_kind, made_id FROM effects ORDER BY number"
    )


async def the_effect(base):
    (row,) = await effects(base)
    return row


async def test_a_task_is_made_for_the_owner_about_the_deal_and_due_from_the_planned_instant(base):
    run = await start_run(base, on_stage(task(body="Ask", priority="high", dueIn={"amount": 2, "unit": "hours"})))
    await advance(base, run)
    (made,) = await base.rows("SELECT * FROM activities")
    at = await base.value("SELECT at FROM events WHERE type = 'deal.stage_changed'")
    assert (made["type"], made["subject"], made["body"], made["priority"]) == ("task", "Call back", "Ask", "high")
    assert (made["assignee_id"], made["execution_id"]) == (base.rep, run)
    assert made["deal_id"] == await base.value("SELECT id FROM deals")
    assert made["due_at"] == at + timedelta(hours=2)
    effect = await the_effect(base)
    assert (effect["action"], effect["outcome"], effect["visit"], effect["made_id"]) == (
        "create_task",
        "done",
        1,
        made["id"],
    )
    assert effect["saw"] == {"assignee": str(base.rep), "dueAt": made["due_at"].isoformat()}
    (event,) = await base.rows("SELECT actor_kind, chain, execution_id FROM events WHERE type = 'task.created'")
    rule = await base.value("SELECT id FROM definitions")
    assert event == {"actor_kind": "rule", "chain": [rule], "execution_id": run}


async def test_a_task_can_be_the_managers_or_a_named_persons(base):
    run = await start_run(base, on_stage(task("a", assignTo="manager"), task("b", assignTo=str(base.admin))))
    await advance(base, run)
    rows = await base.rows("SELECT assignee_id FROM activities ORDER BY created_at, id")
    assert {row["assignee_id"] for row in rows} == {base.manager, base.admin}


async def test_a_task_after_a_wait_is_due_from_the_planned_instant_however_late_it_is_made(base):
    run = await start_run(base, on_stage(wait("w", 1, "hours"), task(dueIn={"amount": 1, "unit": "hours"})))
    at = await base.value("SELECT at FROM events WHERE type = 'deal.stage_changed'")
    await base.pass_time(timedelta(days=7))
    await advance(base, run)
    assert await base.value("SELECT due_at FROM activities") == at + timedelta(hours=2)


async def test_a_field_is_set_by_the_same_verb_as_by_hand_and_the_old_value_is_kept(base):
    run = await start_run(base, on_stage(act("set", "set_field", field="deal.title", value="Renamed")))
    await advance(base, run)
    assert await base.value("SELECT title FROM deals") == "Renamed"
    assert (await the_effect(base))["saw"] == {"field": "deal.title", "was": "Big one", "changed": True}
    (event,) = await base.rows("SELECT before, after, actor_kind FROM events WHERE type = 'deal.updated'")
    assert event == {"before": {"title": "Big one"}, "after": {"title": "Renamed"}, "actor_kind": "rule"}


async def test_setting_what_is_already_so_changes_nothing_and_says_so(base):
    run = await start_run(base, on_stage(act("set", "set_field", field="deal.title", value="Big one")))
    await advance(base, run)
    assert (await the_effect(base))["saw"]["changed"] is False
    assert await base.value("SELECT count(*) FROM events WHERE type = 'deal.updated'") == 0


async def test_contact_and_company_of_the_deal_can_be_written_to(base):
    async with base.transaction() as tx:
        company = await companies.create(tx, {"name": "Initech"})
        contact = await contacts.create(tx, {"email": "jo@example.com", "company_id": company.id})
    run = await start_run(
        base,
        on_stage(
            act("a", "set_field", field="contact.leadStatus", value="qualified"),
            act("b", "set_field", field="company.industry", value="Software"),
            act("c", "set_field", field="deal.expectedCloseDate", value="2027-01-31"),
            act("d", "set_field", field="contact.title", value=None),
        ),
        contact_id=contact.id,
    )
    await advance(base, run)
    assert await base.value("SELECT lead_status FROM contacts") == "qualified"
    assert await base.value("SELECT industry FROM companies") == "Software"
    assert str(await base.value("SELECT expected_close_date FROM deals")) == "2027-01-31"
    assert await base.rows("SELECT contact_id, company_id FROM executions") == [
        {"contact_id": contact.id, "company_id": company.id}
    ]


async def test_a_deal_is_moved_with_its_probability_and_outcome(base):
    run = await start_run(base, on_stage(act("win", "move_stage", to="closed_won")))
    await advance(base, run)
    (deal,) = await base.rows("SELECT stage, probability, outcome, won_at, lost_at, actual_close_date FROM deals")
    assert (deal["stage"], deal["probability"], deal["outcome"], deal["lost_at"]) == ("closed_won", 100, "won", None)
    assert deal["won_at"] is not None
    assert deal["actual_close_date"] is not None
    assert (await the_effect(base))["saw"] == {"was": "proposal", "changed": True}


async def test_moving_to_where_the_deal_stands_is_no_event(base):
    run = await start_run(base, on_stage(act("stay", "move_stage", to="proposal")))
    await advance(base, run)
    assert (await the_effect(base))["saw"] == {"was": "proposal", "changed": False}
    assert await base.value("SELECT count(*) FROM events WHERE type = 'deal.stage_changed'") == 1


async def test_a_reminder_is_a_promise_of_its_own_with_a_wake(base):
    remind = act(
        "r", "remind", title="Ring", after={"amount": 3, "unit": "hours"}, escalateAfter={"amount": 1, "unit": "days"}
    )
    run = await start_run(base, on_stage(remind))
    assert (await advance(base, run)).done
    (made,) = await base.rows("SELECT * FROM reminders")
    at = await base.value("SELECT at FROM events WHERE type = 'deal.stage_changed'")
    assert (made["owner_id"], made["title"], made["status"]) == (base.rep, "Ring", "scheduled")
    assert (made["due_at"], made["execution_id"]) == (at + timedelta(hours=3), run)
    effect = await the_effect(base)
    assert (effect["made_kind"], effect["made_id"], effect["saw"]) == ("reminder", made["id"], {"owner": str(base.rep)})
    assert await base.value("SELECT count(*) FROM wakes WHERE kind = 'reminder'") == 1


async def test_a_notification_reaches_one_person_inside_the_application(base):
    run = await start_run(base, on_stage(act("n", "notify", title="Look", to="manager")))
    await advance(base, run)
    (made,) = await base.rows("SELECT * FROM notifications")
    assert (made["user_id"], made["reason"], made["title"], made["execution_id"]) == (base.manager, "rule", "Look", run)
    effect = await the_effect(base)
    assert (effect["made_kind"], effect["made_id"]) == ("notification", made["id"])


async def test_a_rep_without_a_manager_has_the_first_admin_over_them(base):
    await base.rows("UPDATE users SET manager_id = NULL WHERE id = :id RETURNING id", id=base.rep)
    run = await start_run(base, on_stage(act("n", "notify", title="Look", to="manager")))
    await advance(base, run)
    assert await base.value("SELECT user_id FROM notifications") == base.admin


async def test_a_record_without_an_owner_takes_its_contacts_and_then_its_companys(base):
    async with base.transaction() as tx:
        company = await companies.create(tx, {"name": "Initech", "owner_id": base.manager})
        contact = await contacts.create(tx, {"email": "jo@example.com", "company_id": company.id})
    run = await start_run(base, on_stage(task()), owner_id=None, contact_id=contact.id)
    await advance(base, run)
    assert await base.value("SELECT assignee_id FROM activities") == base.manager


async def test_a_rule_for_contacts_acts_on_the_contact(base):
    await switch_on(base, on_contact(task(), act("s", "set_field", field="contact.title", value="New")))
    async with base.transaction() as tx:
        contact = await contacts.create(tx, {"email": "jo@example.com", "owner_id": base.rep})
    await drive(base)
    assert await base.value("SELECT contact_id FROM activities") == contact.id
    assert await base.value("SELECT title FROM contacts") == "New"


EVERY = on_stage(
    task(), act("set", "set_field", field="deal.title", value="Renamed"), act("on", "move_stage", to="negotiation"),
    act("r", "remind", title="Ring"), act("n", "notify", title="Look"), wait("pause", 1, "hours"), task("last"),
)  # fmt: skip
COUNTED = """
  SELECT ARRAY[(SELECT count(*) FROM activities), (SELECT count(*) FROM reminders),
    (SELECT count(*) FROM notifications), (SELECT count(*) FROM effects),
    (SELECT count(*) FROM events WHERE execution_id IS NOT NULL)]"""


async def counts(base):
    return await base.value(COUNTED)


async def test_advance_again_and_again_does_nothing_more(base):
    run = await start_run(base, EVERY)
    await advance(base, run)
    done = await counts(base)
    assert done == [1, 1, 1, 5, 3]
    for _ in range(3):
        await advance(base, run)
    assert await counts(base) == done


async def test_ten_advances_at_once_do_each_step_once(base):
    run = await start_run(base, EVERY)
    await asyncio.gather(*(advance(base, run) for _ in range(10)))
    assert await counts(base) == [1, 1, 1, 5, 3]
    await base.pass_time(timedelta(hours=1))
    answers = await asyncio.gather(*(advance(base, run) for _ in range(10)))
    assert all(answer.done for answer in answers)
    assert await counts(base) == [2, 1, 1, 7, 4]


async def test_the_ids_of_what_a_step_makes_come_from_its_effect_key_alone(base):
    run = await start_run(base, EVERY)
    await advance(base, run)
    for table, step, kind in (
        ("activities", "task", "task"),
        ("reminders", "r", "reminder"),
        ("notifications", "n", "notification"),
    ):
        assert await base.value(f"SELECT id FROM {table}") == EffectKey(run, step, 1).made(kind)


@pytest.mark.parametrize(
    ("step", "reason"),
    [
        (act("s", "set_field", field="contact.title", value="CEO"), "record_missing"),
        (act("s", "move_stage", to="nowhere"), "stage_unknown"),
    ],
)
async def test_what_only_a_person_can_mend_makes_the_run_stuck_with_its_reason(base, step, reason):
    run = await start_run(base, on_stage(task("before"), step, task("after")))
    assert (await advance(base, run)).done, "a stuck run keeps no workflow open"
    (row,) = await base.rows("SELECT status, stuck_reason, stuck_detail, stuck_owner_id, step, due_at FROM executions")
    assert (row["status"], row["stuck_reason"], row["stuck_owner_id"]) == ("stuck", reason, base.admin)
    assert row["stuck_detail"]
    assert (row["step"], row["due_at"]) == ("s", None)
    assert [effect["step"] for effect in await effects(base)] == ["before"]


async def test_a_record_nobody_owns_has_nobody_to_assign_to(base):
    run = await start_run(base, on_stage(task()), owner_id=None)
    await advance(base, run)
    assert await base.value("SELECT stuck_reason FROM executions") == "nobody_to_assign"
