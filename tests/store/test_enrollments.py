# mypy: ignore-errors
"""Enrollments: who may enter, never twice at once, and what a pause keeps."""

import asyncio
from datetime import timedelta
from uuid import uuid4

import pytest

from domain.words import Kind, Suppression, Target
from store import addresses, contacts, definitions, enrollments, intents, mailboxes, stops, suppressions
from store.enrollments import Asked
from store.errors import IllegalTransition, NotFound, UnknownReference
from tests.driving import (
    act,
    advance,
    blocked,
    branch,
    claimed,
    enroll,
    enrolled,
    is_,
    mail,
    make_contact,
    make_deal,
    make_mailbox,
    match_all,
    numbers_run_on,
    on_contact,
    publish,
    sequence,
    switch_on,
    task,
    the_execution,
    the_message,
    until,
    wait,
    written,
)
from triggers.sweep import Resumption


@pytest.fixture
async def box(base):
    return await make_mailbox(base)


async def do(base, verb, *args, **options):
    async with base.transaction() as tx:
        return await verb(tx, *args, **options)


async def asked(base, made, *asked, **options):
    return await do(base, enrollments.enroll, made, asked, **options)


# --- where one begins

MONDAY = {"kind": "wait", "id": "wait", "wait": {"until": {"at": "09:00", "weekdays": ["mon"]}}}


@pytest.mark.parametrize("first", [wait(), MONDAY, wait("wait", 0)])
async def test_a_first_wait_is_written_as_one_and_a_look_at_it_changes_nothing(base, box, first):
    id_ = await enrolled(base, sequence(first, task()))
    begun = await the_execution(base)
    if begun["due_at"] > begun["started_at"]:
        assert (begun["step"], begun["waits"]["at"]) == ("wait", begun["due_at"].isoformat().replace("+00:00", "Z"))
        assert not (await advance(base, id_, "enrollment")).done
        assert await the_execution(base) == begun
    else:
        assert begun["waits"] is None
    assert await base.rows("SELECT kind, target_id FROM wakes") == [{"kind": "enrollment", "target_id": id_}]


@pytest.mark.parametrize(
    "first",
    [
        task(),
        {"kind": "wait", "id": "wait", "wait": {"until": {"at": "09:00", "zone": "contact"}}},
        branch("branch", is_("contact.firstName", "eq", "Jo"), [wait()]),
    ],
)
async def test_a_first_step_that_looks_at_a_record_is_due_at_once(base, box, first):
    await enrolled(base, sequence(first, wait("later")))
    begun = await the_execution(base)
    assert (begun["due_at"], begun["waits"]) == (begun["started_at"], None)


# --- who enters


async def test_of_fifty_that_enroll_a_contact_at_once_one_does(base, box):
    made, contact = await publish(base, sequence(wait())), await make_contact(base)
    answers = [one for (one,) in await asyncio.gather(*(enroll(base, made, contact) for _ in range(50)))]
    (won,) = [one for one in answers if one.enrollment]
    assert {(one.reason, one.existing) for one in answers if one is not won} == {("already_enrolled", won.enrollment)}
    assert await base.value("SELECT count(*) FROM executions") == 1
    assert await base.value("SELECT count(*) FROM events WHERE type = 'enrollment.started'") == 1
    assert await base.value("SELECT count(*) FROM wakes") == 1


async def test_every_refusal_has_its_reason_and_answers_come_in_order(base, box):
    made = await publish(base, sequence(wait()))
    nobody, inside, well = (
        uuid4(),
        await make_contact(base, "in@example.com"),
        await make_contact(base, "ok@example.com"),
    )
    silent = await make_contact(base, None, external_id="x1")
    unwanted = await make_contact(base, "un@example.com")
    await do(base, suppressions.suppress, "un@example.com", Suppression.UNSUBSCRIBED)
    (first,) = await enroll(base, made, inside)
    answers = await enroll(base, made, nobody, silent, unwanted, inside, well, well)
    assert [one.contact for one in answers] == [nobody, silent, unwanted, inside, well, well]
    assert [one.reason for one in answers] == [
        "contact_missing", "email_missing", "address_suppressed", "already_enrolled", None, "already_enrolled",
    ]  # fmt: skip
    assert answers[3].existing == first.enrollment
    assert answers[4].enrollment is not None


async def test_without_a_mailbox_nobody_enters_and_an_unknown_one_is_refused(base):
    made, contact = await publish(base, sequence(wait())), await make_contact(base)
    assert (await enroll(base, made, contact))[0].reason == "mailbox_missing"
    await make_mailbox(base, "Another's", owner_id=base.manager)
    assert (await enroll(base, made, contact))[0].reason == "mailbox_missing"
    with pytest.raises(UnknownReference):
        await enroll(base, made, contact, mailbox=uuid4())
    own = await make_mailbox(base, "Own", owner_id=base.rep)
    assert (await enroll(base, made, contact))[0].enrollment is not None
    assert (await the_execution(base))["destination_id"] == own


async def test_a_sequence_whose_mailbox_is_gone_takes_nobody_in(base, box):
    made = await publish(base, sequence(wait(), mailbox=str(box)))
    await make_mailbox(base, "Other")
    await do(base, mailboxes.delete, box)
    assert (await enroll(base, made, await make_contact(base)))[0].reason == "mailbox_missing"


AGAIN = {
    "never": ("never", timedelta(days=1000), "enrolled_before"),
    "always": ("always", timedelta(0), None),
    "before the amount is over": ({"amount": 30, "unit": "days"}, timedelta(days=29), "enrolled_before"),
    "after the amount": ({"amount": 30, "unit": "days"}, timedelta(days=31), None),
}


@pytest.mark.parametrize("case", AGAIN)
async def test_who_was_inside_before_enters_again_as_the_sequence_says(base, box, case):
    again, later, reason = AGAIN[case]
    made, contact = await publish(base, sequence(wait(), again=again)), await make_contact(base)
    (first,) = await enroll(base, made, contact)
    await do(base, stops.stop, first.enrollment, Target.ENROLLMENT, None)
    await base.pass_time(later)
    (second,) = await enroll(base, made, contact)
    assert (second.reason, second.existing) == (reason, first.enrollment if reason else None)


async def test_a_thousand_enter_by_one_call_and_are_answered_in_order(base, box):
    made = await publish(base, sequence(wait()))
    async with base.transaction() as tx:
        rows = [{"id": uuid4(), "email": f"c{number}@example.com"} for number in range(enrollments.MOST)]
        await contacts.create_many(tx, rows)
    people = [row["id"] for row in rows]
    early = people[::100]
    await enroll(base, made, *early)
    answers = await enroll(base, made, *people)
    assert [one.contact for one in answers] == people
    assert [one.contact for one in answers if one.reason == "already_enrolled"] == early
    assert await base.value("SELECT count(*) FROM executions") == 1000
    assert await base.value("SELECT count(*) FROM events WHERE type = 'enrollment.started'") == 1000


async def test_an_enrollment_with_an_id_that_exists_is_the_same_one(base, box):
    made, contact, id_ = await publish(base, sequence(wait())), await make_contact(base), uuid4()
    for _ in range(3):
        (answered,) = await asked(base, made, Asked(contact, id=id_))
        assert (answered.enrollment, answered.reason) == (id_, None)
    assert await base.value("SELECT count(*) FROM events WHERE type = 'enrollment.started'") == 1


async def test_only_an_active_sequence_takes_contacts_in(base, box):
    contact = await make_contact(base)
    made = await publish(base, sequence(wait()))
    await do(base, definitions.pause, made, expected=None, kind=Kind.SEQUENCE)
    with pytest.raises(IllegalTransition):
        await enroll(base, made, contact)
    with pytest.raises(NotFound):
        await enroll(base, uuid4(), contact)


@pytest.mark.parametrize("deleted_first", [True, False])
async def test_a_contact_that_is_deleted_while_it_is_enrolled_is_refused_or_taken_out(base, box, deleted_first):
    made, contact = await publish(base, sequence(wait())), await make_contact(base)
    await do(base, addresses.ensure, ["jo@example.com"])
    enrolling, deleting = (enrollments.enroll, made, [Asked(contact)]), (contacts.delete, contact)
    (verb, *args), second = (deleting, enrolling) if deleted_first else (enrolling, deleting)
    async with base.transaction() as tx:
        await verb(tx, *args)
        waiting = asyncio.ensure_future(do(base, *second))
        await until(lambda: blocked(base), "the second waits for the first")
    answer = await waiting
    if deleted_first:
        assert (answer[0].reason, await base.value("SELECT count(*) FROM executions")) == ("contact_missing", 0)
    else:
        assert (await the_execution(base))["exit_reason"] == "contact_deleted"
    await numbers_run_on(base)


async def test_another_organizations_contacts_mailboxes_and_sequences_are_none(base, box):
    other = await base.another()
    made, contact = await publish(base, sequence(wait())), await make_contact(other, "far@example.com")
    assert (await enroll(base, made, contact))[0].reason == "contact_missing"
    with pytest.raises(NotFound):
        await enroll(other, made, contact)
    with pytest.raises(UnknownReference):
        await enroll(base, made, await make_contact(base), mailbox=await make_mailbox(other))


# --- by rules


async def by_rule(base, action):
    await switch_on(base, on_contact(action, task()))
    contact = await make_contact(base)
    await match_all(base)
    return contact


async def test_a_rule_enrolls_and_goes_on_and_what_it_may_not_it_keeps_as_what_it_saw(base, box):
    made = await publish(base, sequence(wait()))
    contact = await by_rule(base, act("in", "enroll", sequence=str(made)))
    (enrollment,) = await base.rows("SELECT * FROM executions WHERE kind = 'enrollment'")
    assert (enrollment["contact_id"], enrollment["started_by_kind"]) == (contact, "rule")
    effect = "SELECT saw, made_id, made_kind FROM effects WHERE step = 'in' ORDER BY at DESC LIMIT 1"
    assert (await base.rows(effect))[0] == {"saw": {}, "made_id": enrollment["id"], "made_kind": "enrollment"}
    await do(base, suppressions.suppress, "two@example.com", Suppression.MANUAL)
    await make_contact(base, "two@example.com")
    await match_all(base)
    assert (await base.rows(effect))[0]["saw"]["refused"] == "address_suppressed"
    runs = await base.rows("SELECT exit_reason FROM executions WHERE kind = 'run'")
    assert [row["exit_reason"] for row in runs] == ["completed"] * 2


async def test_a_rules_enrollment_is_made_once_however_often_the_step_is_tried(base, box):
    made = await publish(base, sequence(wait(), again="always"))
    contact = await by_rule(base, act("in", "enroll", sequence=str(made)))
    id_ = await base.value("SELECT made_id FROM effects WHERE step = 'in'")
    (answered,) = await asked(base, made, Asked(contact, id=id_))
    assert answered.enrollment == id_
    assert await base.value("SELECT count(*) FROM executions WHERE kind = 'enrollment'") == 1


async def test_a_rule_whose_sequence_was_set_aside_goes_on_and_says_so(base, box):
    made = await publish(base, sequence(wait()))
    await do(base, definitions.archive, made, expected=None, kind=Kind.SEQUENCE)
    await by_rule(base, act("in", "enroll", sequence=str(made)))
    assert await base.value("SELECT saw FROM effects WHERE step = 'in'") == {"refused": "sequence_not_active"}
    assert (await the_execution(base))["exit_reason"] == "completed"


_CREATED_AGAIN = """
WITH made AS (
  INSERT INTO events (org_id, id, type, subject_kind, subject_id, number, at, before, after, actor_kind)
  VALUES (app_org(), gen_random_uuid(), 'contact.created', 'contact', :contact, 2, business_now(), '{}', '{}', 'system')
  RETURNING org_id, id)
INSERT INTO outbox (org_id, event_id) SELECT org_id, id FROM made RETURNING id"""


@pytest.mark.parametrize("named", [True, False])
async def test_a_rule_takes_a_contact_out_of_one_sequence_or_of_all(base, box, named):
    one, two = await publish(base, sequence(mail()), "One"), await publish(base, sequence(mail()), "Two")
    contact = await make_contact(base, "in@example.com")
    for made in (one, two):
        (answered,) = await enroll(base, made, contact)
        await advance(base, answered.enrollment, "enrollment")
    await match_all(base)
    document = on_contact(act("out", "take_out", **({"sequence": str(one)} if named else {})))
    await switch_on(base, document)
    await base.rows(_CREATED_AGAIN, contact=contact)
    await match_all(base)
    rows = await base.rows("SELECT definition_id, exit_reason FROM executions WHERE kind = 'enrollment'")
    ended = {row["definition_id"] for row in rows if row["exit_reason"] == "stopped"}
    assert ended == ({one} if named else {one, two})
    assert await base.value("SELECT count(*) FROM intents WHERE status = 'cancelled'") == len(ended)


# --- pauses


async def kept_still(base, id_, long):
    await do(base, enrollments.pause, id_)
    await base.pass_time(long)
    await do(base, enrollments.resume, id_)


async def test_a_paused_enrollment_takes_no_step_and_nothing_of_it_is_claimed(base, box):
    id_ = await written(base, sequence(mail(), wait("wait", 1, "hours"), task()))
    await do(base, enrollments.pause, id_)
    message = await the_message(base)
    assert message["status"] == "held"
    assert (await claimed(base, message["id"], box)).reason == "taken"
    await base.pass_time(timedelta(days=2))
    assert (await advance(base, id_, "enrollment")).done
    assert await base.value("SELECT count(*) FROM effects") == 1
    with pytest.raises(IllegalTransition):
        await do(base, enrollments.pause, id_)
    await do(base, enrollments.resume, id_)
    assert (await the_message(base))["status"] == "pending"
    with pytest.raises(IllegalTransition):
        await do(base, enrollments.resume, id_)
    await numbers_run_on(base)


async def test_what_was_still_to_wait_at_a_pause_is_still_to_wait_after_it(base, box):
    id_ = await enrolled(base, sequence(wait("wait", 3, "days"), task()))
    await advance(base, id_, "enrollment")
    planned = (await the_execution(base))["due_at"]
    await base.pass_time(timedelta(days=1))
    await kept_still(base, id_, timedelta(days=10))
    answer = await advance(base, id_, "enrollment")
    row = await the_execution(base)
    assert abs(row["due_at"] - planned - timedelta(days=10)) < timedelta(seconds=20)
    assert abs(answer.seconds - 2 * 86_400) < 20
    assert [link["rule"] for link in row["waits"]["chain"]] == ["days", "pauses"]
    await kept_still(base, id_, timedelta(days=5))  # twice adds up
    assert abs((await advance(base, id_, "enrollment")).seconds - 2 * 86_400) < 40


async def test_pauses_that_overlap_count_once(base, box):
    id_ = await enrolled(base, sequence(wait("wait", 3, "days"), task()))
    await advance(base, id_, "enrollment")
    planned = (await the_execution(base))["due_at"]
    made = (await the_execution(base))["definition_id"]
    day = timedelta(days=1)
    await do(base, enrollments.pause, id_)  # from day 0
    await base.pass_time(day)
    await do(base, definitions.pause, made, expected=None, kind=Kind.SEQUENCE)  # from day 1
    await base.pass_time(day)
    await do(base, enrollments.resume, id_)  # to day 2
    assert (await advance(base, id_, "enrollment")).done
    assert (await the_execution(base))["awaits"] == "resume"
    await base.pass_time(2 * day)
    await do(base, definitions.activate, made, None, expected=None, kind=Kind.SEQUENCE)  # to day 4
    assert await Resumption(base.crossing, base.app).once() == 1
    row = await the_execution(base)
    assert (row["awaits"], row["due_at"] is not None) == (None, True)
    assert {"kind": "enrollment", "target_id": id_} in await base.rows("SELECT kind, target_id FROM wakes")
    await advance(base, id_, "enrollment")
    assert abs((await the_execution(base))["due_at"] - planned - 4 * day) < timedelta(seconds=20)


async def test_a_wait_until_a_clock_time_is_not_moved_by_a_pause(base, box):
    monday = {"kind": "wait", "id": "wait", "wait": {"until": {"at": "09:00", "weekdays": ["mon"]}}}
    id_ = await enrolled(base, sequence(monday, task()))
    await advance(base, id_, "enrollment")
    planned = (await the_execution(base))["due_at"]
    await kept_still(base, id_, timedelta(hours=1))
    await advance(base, id_, "enrollment")
    row = await the_execution(base)
    assert row["due_at"] == planned or row["step"] is None  # the Monday may have come meanwhile
    assert row["due_at"] is None or "pauses" not in [link["rule"] for link in row["waits"]["chain"]]


async def test_a_stop_during_a_pause_ends_it_and_closes_the_pause(base, box):
    id_ = await written(base, sequence(mail()))
    await do(base, enrollments.pause, id_)
    await do(base, stops.stop, id_, Target.ENROLLMENT, "enough")
    assert await base.value("SELECT count(*) FROM pauses WHERE until IS NULL") == 0
    assert (await the_message(base))["status"] == "cancelled"
    with pytest.raises(IllegalTransition):
        await do(base, enrollments.resume, id_)
    await numbers_run_on(base)


async def test_an_enrollment_about_a_deal_keeps_it(base, box):
    contact = await make_contact(base)
    deal = await make_deal(base, contact_id=contact)
    made = await publish(base, sequence(wait()))
    (answered,) = await asked(base, made, Asked(contact, deal=deal))
    assert (await the_execution(base))["deal_id"] == deal
    assert (await do(base, enrollments.explain, answered.enrollment)).sequence_name == "Sequence"
    assert await do(base, intents.find, answered.enrollment) is None


async def test_a_sequence_that_takes_out_of_every_sequence_goes_on_itself(base):
    await make_mailbox(base)
    other = await publish(base, sequence(wait(), task("later")), "Other")
    contact = await make_contact(base)
    await enroll(base, other, contact)
    mover = await publish(base, sequence(act("out", "take_out"), task("then")), "Mover")
    (answered,) = await enroll(base, mover, contact)
    await advance(base, answered.enrollment, "enrollment")
    rows = await base.rows("SELECT definition_id, status, exit_reason FROM executions ORDER BY started_at, id")
    assert [(row["definition_id"], row["exit_reason"]) for row in rows] == [(other, "stopped"), (mover, "completed")]
