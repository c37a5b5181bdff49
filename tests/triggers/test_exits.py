# mypy: ignore-errors
"""Exits by data: a change of the contact or its deal ends an enrollment, decided by the match."""

import pytest

from store import contacts, deals, enrollments
from store.enrollments import Asked
from tests.driving import (
    act,
    advance,
    is_,
    mail,
    make_contact,
    make_deal,
    make_mailbox,
    match_all,
    move,
    numbers_run_on,
    on_stage,
    publish,
    sequence,
    switch_on,
    wait,
)


@pytest.fixture
async def contact(base):
    await make_mailbox(base)
    return await make_contact(base)


WAITS = (wait(),)


async def enter(base, contact, *exits, deal=None, steps=WAITS, name="Sequence"):
    made = await publish(base, sequence(*steps, exits=exits), name)
    async with base.transaction() as tx:
        (answered,) = await enrollments.enroll(tx, made, [Asked(contact, deal=deal)])
    await match_all(base)
    return answered.enrollment


async def change(base, verb, id_, **values):
    async with base.transaction() as tx:
        await verb(tx, id_, values)
    await match_all(base)


async def exit_of(base, id_):
    (row,) = await base.rows("SELECT exit_reason, exit_note, saw FROM executions WHERE id = :id", id=id_)
    return row["exit_reason"]


WON = {"on": "deal.stage_changed", "to": ["closed_won"]}


async def moved(base, deal, stage):
    await move(base, deal, stage)
    await match_all(base)


async def test_a_stage_that_is_entered_ends_it_and_cancels_its_mail(base, contact):
    deal = await make_deal(base, contact_id=contact)
    id_ = await enter(base, contact, WON, steps=[mail()])
    await advance(base, id_, "enrollment")
    await moved(base, deal, "proposal")
    assert await exit_of(base, id_) is None
    await moved(base, deal, "closed_won")
    (row,) = await base.rows("SELECT * FROM executions")
    assert (row["exit_reason"], row["exit_note"], row["saw"]["exit"]) == ("exit_met", "exit 1", 1)
    assert await base.value("SELECT status FROM intents") == "cancelled"
    await numbers_run_on(base)


async def test_a_new_owner_ends_it(base, contact):
    id_ = await enter(base, contact, WON, {"on": "contact.updated", "changed": ["ownerId"]})
    await change(base, contacts.change, contact, title="Boss")
    assert await exit_of(base, id_) is None
    await change(base, contacts.change, contact, owner_id=base.manager)
    assert await exit_of(base, id_) == "exit_met"
    assert (await base.value("SELECT saw FROM executions"))["exit"] == 2


async def test_a_field_ends_it_when_its_condition_is_met_and_what_was_seen_is_kept(base, contact):
    qualified = {"on": "contact.updated", "changed": ["leadStatus"], "if": is_("contact.leadStatus", "eq", "qualified")}
    id_ = await enter(base, contact, qualified)
    await change(base, contacts.change, contact, lead_status="contacted")
    assert await exit_of(base, id_) is None
    await change(base, contacts.change, contact, lead_status="qualified")
    assert await exit_of(base, id_) == "exit_met"
    saw = await base.value("SELECT saw FROM executions")
    assert (saw["holds"], saw["saw"], saw["field"]) == (True, "qualified", "contact.leadStatus")


async def test_an_enrollment_about_a_deal_is_ended_by_that_deal_only(base, contact):
    own, other = [await make_deal(base, title, contact_id=contact) for title in ("Own", "Other")]
    id_ = await enter(base, contact, WON, deal=own)
    await moved(base, other, "closed_won")
    assert await exit_of(base, id_) is None
    await moved(base, own, "closed_won")
    assert await exit_of(base, id_) == "exit_met"


async def test_one_about_no_deal_is_ended_by_any_deal_of_its_contact_and_nobody_elses(base, contact):
    stranger = await make_contact(base, "else@example.com")
    id_ = await enter(base, contact, WON)
    await moved(base, await make_deal(base, "Else", contact_id=stranger), "closed_won")
    await moved(base, await make_deal(base, "Nobody's"), "closed_won")
    assert await exit_of(base, id_) is None
    await moved(base, await make_deal(base, "Mine", contact_id=contact), "closed_won")
    assert await exit_of(base, id_) == "exit_met"


async def test_a_condition_is_asked_of_the_deal_that_changed(base, contact):
    big = {"on": "deal.updated", "changed": ["valueCents"], "if": is_("deal.valueCents", "gt", 1000)}
    small, large = [await make_deal(base, title, contact_id=contact, value_cents=1) for title in ("Small", "Large")]
    id_ = await enter(base, contact, big)
    await change(base, deals.change, small, value_cents=10)
    assert await exit_of(base, id_) is None
    await change(base, deals.change, large, value_cents=5000)
    assert await exit_of(base, id_) == "exit_met"


async def test_what_happened_before_somebody_entered_does_not_end_it(base, contact):
    deal = await make_deal(base, contact_id=contact)
    await move(base, deal, "closed_won")  # nobody has matched it yet
    id_ = await enter(base, contact, WON)
    assert await exit_of(base, id_) is None


async def test_the_change_that_enrolls_by_a_rule_does_not_end_what_it_began(base, contact):
    made = await publish(base, sequence(wait(), exits=[{"on": "deal.stage_changed"}]))
    await switch_on(base, on_stage(act("in", "enroll", sequence=str(made))))
    deal = await make_deal(base, contact_id=contact)
    await moved(base, deal, "proposal")
    (enrollment,) = await base.rows("SELECT id, deal_id FROM executions WHERE kind = 'enrollment'")
    assert (enrollment["deal_id"], await exit_of(base, enrollment["id"])) == (deal, None)
    await moved(base, deal, "negotiation")
    assert await exit_of(base, enrollment["id"]) == "exit_met"


@pytest.mark.parametrize("status", ["paused", "stuck"])
async def test_what_is_kept_still_is_ended_too(base, contact, status):
    id_ = await enter(base, contact, WON)
    async with base.transaction() as tx:
        if status == "paused":
            await enrollments.pause(tx, id_)
    if status == "stuck":
        await base.rows(
            "UPDATE executions SET status = 'stuck', stuck_reason = 'email_missing', due_at = NULL WHERE id = :id"
            " RETURNING id",
            id=id_,
        )
    await moved(base, await make_deal(base, contact_id=contact), "closed_won")
    assert await exit_of(base, id_) == "exit_met"


async def test_enrollments_of_sequences_without_exits_and_of_others_stay(base, contact):
    without = await enter(base, contact, name="Without")
    other = await enter(base, await make_contact(base, "else@example.com"), WON, name="Other")
    await moved(base, await make_deal(base, contact_id=contact), "closed_won")
    assert [await exit_of(base, one) for one in (without, other)] == [None, None]
