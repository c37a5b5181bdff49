# mypy: ignore-errors
"""Claims and what becomes of them: one winner, one token, and no blind repetition."""

import asyncio
from datetime import timedelta
from uuid import uuid4

import pytest

from domain.delivery import Happening
from domain.words import StuckReason, Target
from store import contacts, enrollments, intents, mailboxes, queues, stops
from store.errors import IllegalTransition
from store.intents import Claim, Unclaimed
from tests.driving import (
    act,
    advance,
    as_admin,
    claimed,
    mail,
    make_contact,
    make_mailbox,
    match_all,
    may_mail,
    numbers_run_on,
    on_contact,
    sender,
    sequence,
    switch_on,
    the_execution,
    the_message,
    wait,
    written,
)
from triggers.sweep import Sweep


@pytest.fixture
async def box(base):
    return await make_mailbox(base)


@pytest.fixture
async def message(base, box):
    """The id of a mail that may be claimed; its enrollment ends with it."""
    await written(base, sequence(mail()))
    return (await the_message(base))["id"]


async def record(base, verb, *args, **options):
    async with base.transaction() as tx:
        return await verb(tx, *args, **options)


async def expired(base, box):
    """How many claims are found past their deadline, which is put into the past first."""
    await as_admin(
        base, "UPDATE intents SET deadline = clock_timestamp() - interval '1 second' WHERE deadline IS NOT NULL"
    )
    return await record(base, intents.expire, box)


async def test_of_twenty_that_claim_a_message_at_once_one_gets_it(base, box, message):
    answers = await asyncio.gather(*(claimed(base, message, box) for _ in range(20)))
    won = [answer for answer in answers if isinstance(answer, Claim)]
    assert len(won) == 1
    assert {answer.reason for answer in answers if isinstance(answer, Unclaimed)} == {"taken"}
    row = await the_message(base)
    assert (row["status"], row["attempts"], row["token"]) == ("claimed", 1, won[0].token)
    assert await base.value("SELECT count(*) FROM attempts") == 1


async def test_a_claim_lasts_as_long_as_the_call_and_a_grace_and_keeps_what_it_saw(base, box, message):
    claim = await claimed(base, message, box, call_seconds=7)
    assert claim.seconds == 7 + intents.CLAIM_GRACE
    lasts = "SELECT extract(epoch FROM deadline - claimed_real)::float8 FROM intents, attempts WHERE intent_id = id"
    assert claim.seconds - 1 < await base.value(lasts) < claim.seconds + 1
    saw = await base.value("SELECT saw FROM attempts")
    assert (saw["suppressed"], saw["enrollment"], saw["lastClaim"]) == (None, "open", None)


async def test_only_the_holder_of_the_token_may_record(base, box, message):
    claim = await claimed(base, message, box)
    forged = Claim(message, uuid4(), 1, 30)
    assert not await record(base, intents.accepted, forged, "250 kept")
    assert not await record(base, intents.postponed, forged, "450 later", counts=True)
    assert not await record(base, intents.failed, forged, "554 no")
    assert not await record(base, intents.lost, forged, "silence")
    assert (await the_message(base))["status"] == "claimed"
    assert await record(base, intents.accepted, claim, "250 kept")
    assert not await record(base, intents.accepted, claim, "250 kept")
    assert await base.value("SELECT count(*) FROM events WHERE type = 'message.accepted'") == 1


async def test_a_claim_whose_deadline_passed_is_uncertain_and_asks_the_owner(base, box, message):
    assert await record(base, intents.expire, box) == 0
    await claimed(base, message, box)
    assert await expired(base, box) == 1
    row, enrollment = await the_message(base), await the_execution(base)
    assert (row["status"], row["reason"]) == ("uncertain", "no_answer")
    assert (enrollment["status"], enrollment["stuck_reason"]) == ("stuck", "message_uncertain")
    assert enrollment["stuck_owner_id"] == base.rep
    assert (await claimed(base, message, box)).reason == "taken"


async def test_an_acceptance_that_is_recorded_late_settles_what_was_uncertain(base, box, message):
    claim = await claimed(base, message, box)
    await expired(base, box)
    assert await record(base, intents.accepted, claim, "250 kept")
    assert (await the_message(base))["status"] == "accepted"
    enrollment = await the_execution(base)
    assert (enrollment["status"], enrollment["stuck_reason"]) == ("open", None)
    await advance(base, enrollment["id"], "enrollment")
    assert (await the_execution(base))["exit_reason"] == "completed"
    await numbers_run_on(base)


async def test_a_refusal_that_is_recorded_late_opens_the_next_attempt(base, box, message):
    claim = await claimed(base, message, box)
    await expired(base, box)
    assert await record(base, intents.postponed, claim, "450 later", counts=True)
    assert (await the_message(base))["status"] == "pending"
    assert (await the_execution(base))["status"] == "open"


async def test_a_person_says_that_an_uncertain_message_was_sent(base, box, message):
    await claimed(base, message, box)
    await expired(base, box)
    at = await base.value("SELECT claimed_at FROM attempts")
    await base.pass_time(timedelta(days=1))
    assert await record(base, intents.settle, message, sent=True)
    row = await the_message(base)
    assert (row["status"], row["accepted_at"], row["reason"]) == ("accepted", at, "settled_by_a_person")
    await advance(base, (await the_execution(base))["id"], "enrollment")
    assert (await the_execution(base))["exit_reason"] == "completed"
    assert not await record(base, intents.settle, message, sent=True)
    await numbers_run_on(base)


async def test_a_person_says_that_an_uncertain_message_is_to_be_sent_again_under_the_same_key(base, box, message):
    first = await claimed(base, message, box)
    await expired(base, box)
    assert await record(base, intents.settle, message, sent=False)
    assert not await record(base, intents.lost, first, "too late")
    second = await claimed(base, message, box)
    assert (second.id, second.number) == (first.id, 2)
    assert await record(base, intents.accepted, second, "250 kept")


async def test_an_uncertain_message_is_not_sent_again_by_a_retry(base, box, message):
    await claimed(base, message, box)
    await expired(base, box)
    with pytest.raises(IllegalTransition):
        await record(base, enrollments.retry, (await the_execution(base))["id"])
    assert (await the_message(base))["status"] == "uncertain"
    assert (await the_execution(base))["stuck_reason"] == "message_uncertain"


async def test_what_was_stopped_while_it_was_uncertain_is_not_sent_again(base, box, message):
    await claimed(base, message, box)
    await expired(base, box)
    await record(base, stops.stop, (await the_execution(base))["id"], Target.ENROLLMENT, None)
    assert await record(base, intents.settle, message, sent=False)
    assert (await the_message(base))["status"] == "cancelled"


async def test_a_claim_through_another_mailbox_than_the_messages_own_takes_nothing(base, box, message):
    other = await make_mailbox(base, "Other")
    assert (await claimed(base, message, other)).reason == "taken"
    await record(base, mailboxes.delete, box)
    assert (await claimed(base, message, box)).reason == "mailbox_missing"


async def test_a_message_is_written_once_however_often_its_step_is_tried(base, box, message):
    row = await the_message(base)
    await as_admin(base, "UPDATE executions SET step = 'mail', due_at = business_now(), awaits = NULL")
    await as_admin(base, "DELETE FROM effects")
    await advance(base, row["execution_id"], "enrollment")
    assert (await the_message(base))["id"] == row["id"]


async def test_evidence_settles_what_was_uncertain_and_tells_it_once(base, box, message):
    await claimed(base, message, box)
    await expired(base, box)
    assert await record(base, intents.evidence, message, Happening.BOUNCED, "bounced") is not None
    assert await record(base, intents.evidence, message, Happening.BOUNCED, "bounced") is None
    assert (await the_message(base))["status"] == "bounced"
    await numbers_run_on(base)


async def test_a_reply_proves_that_an_uncertain_message_left(base, box, message):
    await claimed(base, message, box)
    await expired(base, box)
    await record(base, intents.replied, message)
    await record(base, intents.replied, message)
    row = await the_message(base)
    assert (row["status"], row["replied_at"] is not None) == ("accepted", True)
    told = await base.rows("SELECT type FROM events WHERE subject_kind = 'message' ORDER BY number")
    assert [one["type"] for one in told] == ["message.uncertain", "message.accepted", "message.replied"]
    await numbers_run_on(base)


async def test_a_cancelled_message_has_told_nothing_and_its_numbers_have_no_gap(base, box, message):
    await record(base, stops.stop, (await the_execution(base))["id"], Target.ENROLLMENT, None)
    row = await the_message(base)
    assert (row["status"], row["revision"]) == ("cancelled", 0)
    await numbers_run_on(base)


# --- rules


async def run_that_mails(base, *more):
    await may_mail(base)
    await switch_on(base, on_contact(act("mail", "send_email", subject="Hello", text="Hello"), *more))
    await make_contact(base)
    await match_all(base)
    return await the_execution(base)


async def test_a_run_that_sends_mail_ends_when_its_last_message_is_over(base, box):
    run = await run_that_mails(base)
    assert (run["status"], run["awaits"]) == ("open", "message")
    async with sender(base) as send:
        await send.empty(base.org, box)
    ended = await the_execution(base)
    assert (ended["status"], ended["exit_reason"]) == ("ended", "completed")


async def test_stopping_a_run_cancels_its_unsent_mail(base, box):
    run = await run_that_mails(base, wait())
    await record(base, stops.stop, run["id"], Target.RUN, None)
    assert (await the_message(base))["status"] == "cancelled"


async def delete_contact(base):
    await record(base, contacts.delete, await base.value("SELECT id FROM contacts"))


@pytest.mark.parametrize("more", [(), (wait(),)], ids=["which is its last step", "before a wait"])
async def test_a_run_whose_contact_is_deleted_goes_on_without_its_unsent_mail(base, box, more):
    run = await run_that_mails(base, *more)
    await base.pass_time(timedelta(days=9))
    await advance(base, run["id"])
    await delete_contact(base)
    message = await the_message(base)
    assert (message["status"], message["reason"]) == ("cancelled", "contact_deleted")
    await advance(base, run["id"])
    assert (await the_execution(base))["exit_reason"] == "completed"


async def test_a_run_that_was_stuck_for_a_mail_to_a_deleted_contact_goes_on(base, box):
    await run_that_mails(base)
    claim = await claimed(base, (await the_message(base))["id"], box)
    await record(base, intents.failed, claim, "554 not this one")
    assert (await the_execution(base))["stuck_reason"] == "message_refused"
    await delete_contact(base)
    assert (await the_message(base))["status"] == "cancelled"
    assert (await the_execution(base))["status"] == "open"


async def test_a_mail_that_was_on_its_way_when_its_contact_was_deleted_is_not_tried_again(base, box):
    await run_that_mails(base)
    message = (await the_message(base))["id"]
    claim = await claimed(base, message, box)
    await delete_contact(base)
    assert (await the_message(base))["status"] == "claimed"
    await record(base, intents.postponed, claim, "451 later", counts=False)
    assert await claimed(base, message, box) == Unclaimed("contact_deleted")
    async with sender(base) as send:
        await send.empty(base.org, box)
    row = await the_message(base)
    assert (row["status"], row["reason"], row["attempts"]) == ("cancelled", "contact_deleted", 1)
    assert (await the_execution(base))["exit_reason"] == "completed"


# --- nothing is forgotten


async def swept(base):
    """What the sweep wakes once wakes were lost and a while has passed."""
    await base.rows("DELETE FROM wakes RETURNING id")
    await Sweep(base.crossing, base.app).once()
    return {(row["kind"], row["target_id"]) for row in await base.rows("SELECT kind, target_id FROM wakes")}


async def test_the_sweep_finds_a_mailbox_with_mail_that_is_due_and_was_not_woken(base, box, message):
    assert await swept(base) == set()
    await base.pass_time(timedelta(seconds=queues.SWEEP_AFTER + 1))
    assert await swept(base) == {("mailbox", box)}
    assert await swept(base) == set()  # it is left alone for a while


async def test_the_sweep_finds_a_mailbox_whose_claim_is_past_its_deadline(base, box, message):
    await claimed(base, message, box)
    await base.pass_time(timedelta(days=1))
    assert await swept(base) == set()
    await as_admin(base, "UPDATE intents SET deadline = clock_timestamp() - interval '61 seconds'")
    assert await swept(base) == {("mailbox", box)}


async def test_the_sweep_finds_an_enrollment_that_is_due_and_was_not_woken(base, box):
    id_ = await written(base, sequence(wait("wait", 1, "hours"), mail()))
    assert await swept(base) == set()
    await base.pass_time(timedelta(hours=1, seconds=queues.SWEEP_AFTER + 1))
    assert await swept(base) == {("enrollment", id_)}


async def test_the_sweep_is_as_patient_as_at_first_once_a_mail_was_accepted(base, box, message):
    await base.pass_time(timedelta(seconds=queues.SWEEP_AFTER + 1))
    await swept(base)
    async with sender(base) as send:
        await send.empty(base.org, box)
    assert await base.rows("SELECT sweeps, sweep_after FROM destinations") == [{"sweeps": 0, "sweep_after": None}]


async def test_what_cannot_be_written_out_here_leaves_alone_what_another_has_claimed(base):
    box = await make_mailbox(base)
    await written(base, sequence(mail()))
    id_ = (await the_message(base))["id"]
    assert isinstance(await claimed(base, id_, box), Claim)
    async with base.transaction() as tx:
        await intents.unsendable(tx, id_, StuckReason.TEMPLATE_BROKEN, "it was slow here")
    assert (await the_message(base))["status"] == "claimed"
    assert (await the_execution(base))["status"] == "open"


async def test_a_run_whose_mailbox_is_gone_is_retried_through_whichever_is_chosen_then(base):
    await may_mail(base)
    gone = await make_mailbox(base)
    await switch_on(base, on_contact(act("hello", "send_email", subject="Hello", text="Hello there")))
    await make_contact(base)
    await match_all(base)
    async with base.transaction() as tx:
        await mailboxes.delete(tx, gone)
    async with sender(base) as send:
        await send.empty(base.org, gone)
        assert (await the_execution(base))["stuck_reason"] == "mailbox_missing"
        other = await make_mailbox(base, "Other")
        async with base.transaction() as tx:
            await intents.retry(tx, (await the_execution(base))["id"], Target.RUN)
        await send.empty(base.org, other)
    message = await the_message(base)
    assert (message["status"], message["destination_id"]) == ("accepted", other)


async def test_a_password_sealed_under_another_key_is_the_mailboxes_trouble_and_says_so(base):
    server = {"host": "127.0.0.1", "port": 1, "security": "none", "username": "sal"}
    row = {"name": "Sales", "from_name": "Sal", "from_email": "sal@example.com", "transport": "smtp", **server}
    async with base.transaction() as tx:
        box = (await mailboxes.create(tx, row, "secret", b"another" + bytes(25))).id
    await written(base, sequence(mail()))
    async with sender(base) as send:
        await send.empty(base.org, box)
    (found,) = await base.rows("SELECT trouble, trouble_detail FROM destinations")
    assert found == {"trouble": "login_refused", "trouble_detail": "its password was sealed under another master key"}
    assert (await the_message(base))["status"] == "pending"


async def test_a_mail_that_a_person_says_has_left_is_on_the_timeline_like_any_other(base):
    box = await make_mailbox(base)
    await written(base, sequence(mail()))
    id_ = (await the_message(base))["id"]
    claim = await claimed(base, id_, box)
    async with base.transaction() as tx:
        await intents.lost(tx, claim, "cut off")
    async with base.transaction() as tx:
        assert await intents.settle(tx, id_, sent=True)
    (line,) = await base.rows("SELECT subject, direction, metadata FROM activities WHERE type = 'email'")
    assert line == {"subject": "Hello", "direction": "outbound", "metadata": {"messageId": str(id_)}}
