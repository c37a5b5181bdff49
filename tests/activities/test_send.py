# mypy: ignore-errors
"""Emptying a mailbox: what leaves, when, how often, and what is told of it."""

import asyncio
from datetime import timedelta

import pytest

from activities import send as send_module
from domain.templates import Content
from domain.words import Suppression
from store import contacts, enrollments, intents, mailboxes, stops, suppressions, templates
from tests.driving import (
    act,
    advance,
    as_admin,
    claimed,
    enroll,
    leave,
    mail,
    make_contact,
    make_mailbox,
    match_all,
    may_mail,
    numbers_run_on,
    on_contact,
    publish,
    sender,
    sequence,
    smtp_mailbox,
    switch_on,
    the_execution,
    the_message,
    until,
    wait,
    written,
)
from tests.mailing import HANG_UP, SILENCE, mail_server, scripted_server
from workflows.contracts import Answer

BOMB = "{% for a in contact.customFields.all %}{% for b in contact.customFields.all %}{{ a }}{% endfor %}{% endfor %}"
DONE = Answer(done=True)


@pytest.fixture
async def send(base):
    async with sender(base) as made:
        yield made


async def at_once(base):
    """As if the next attempt's time had come, and the mailbox's."""
    await as_admin(base, "UPDATE intents SET not_before = clock_timestamp() WHERE not_before IS NOT NULL")
    await as_admin(base, "UPDATE destinations SET retry_at = clock_timestamp() WHERE retry_at IS NOT NULL")


async def statuses(base):
    rows = await base.rows("SELECT status FROM intents ORDER BY due_at, created_at, id")
    return [row["status"] for row in rows]


# --- what leaves


async def test_an_enrollment_sends_its_mails_in_time_and_in_one_thread(base, send):
    box = await make_mailbox(base)
    id_ = await written(
        base, sequence(mail("one", text="Hello {{ contact.firstName }}"), wait(), mail("two", thread="same"))
    )
    assert await send.empty(base.org, box) == DONE
    first = await the_message(base)
    assert first["status"] == "accepted"
    assert first["rendered"]["text"].startswith("Hello Jo")
    await base.pass_time(timedelta(days=3, seconds=1))
    assert await advance(base, id_, "enrollment") == DONE  # it awaits its last mail
    assert await send.empty(base.org, box) == DONE
    _, second = await base.rows("SELECT * FROM intents ORDER BY due_at")
    assert second["rendered"]["in_reply_to"] == first["message_id"]
    assert second["rendered"]["subject"] == "Re: Hello"
    assert second["due_at"] - first["due_at"] == timedelta(days=3)
    assert (await the_execution(base))["exit_reason"] == "completed"
    logged = await base.rows("SELECT type, direction, contact_id, execution_id FROM activities")
    assert [(row["type"], row["direction"], row["execution_id"]) for row in logged] == [("email", "outbound", id_)] * 2
    await numbers_run_on(base)


async def test_the_acceptance_of_the_last_mail_ends_the_enrollment_in_the_same_transaction(base):
    box = await make_mailbox(base)
    id_ = await written(base, sequence(mail()))
    assert (await the_execution(base))["awaits"] == "message"
    claim = await claimed(base, (await the_message(base))["id"], box)
    async with base.transaction() as tx:
        assert await intents.accepted(tx, claim, "250 kept")
        ended = await enrollments.explain(tx, id_)
    assert (ended.status, ended.exit_reason) == ("ended", "completed")


async def test_what_two_mails_wait_for_is_both_of_them(base):
    box = await make_mailbox(base)
    await written(base, sequence(mail("one"), mail("two")))
    one, two = [await claimed(base, row["id"], box) for row in await base.rows("SELECT id FROM intents ORDER BY step")]
    async with base.transaction() as tx:
        await intents.accepted(tx, two, "250 kept")
    assert (await the_execution(base))["status"] == "open"
    async with base.transaction() as tx:
        await intents.lost(tx, one, "no answer")
    stuck = await the_execution(base)
    assert (stuck["status"], stuck["stuck_reason"]) == ("stuck", "message_uncertain")
    async with base.transaction() as tx:
        assert await intents.settle(tx, one.id, sent=True)
    assert await advance(base, stuck["id"], "enrollment") == DONE
    assert (await the_execution(base))["exit_reason"] == "completed"


async def test_one_mail_that_asks_a_person_is_not_answered_by_another_that_is_accepted(base):
    box = await make_mailbox(base)
    await written(base, sequence(mail("one"), mail("two")))
    one, two = [await claimed(base, row["id"], box) for row in await base.rows("SELECT id FROM intents ORDER BY step")]
    async with base.transaction() as tx:
        await intents.lost(tx, one, "no answer")
    async with base.transaction() as tx:
        await intents.accepted(tx, two, "250 kept")
    assert (await the_execution(base))["stuck_reason"] == "message_uncertain"


async def test_an_exit_after_an_unsent_mail_waits_for_it_and_ends_as_exited(base, send):
    box = await make_mailbox(base)
    id_ = await written(base, sequence(mail(), leave()))
    assert (await the_execution(base))["awaits"] == "message"
    await send.empty(base.org, box)
    await advance(base, id_, "enrollment")
    assert (await the_execution(base))["exit_reason"] == "exited"


async def test_a_wait_that_is_due_before_its_mail_has_left_parks_and_the_acceptance_wakes_it(base, send):
    box = await make_mailbox(base)
    id_ = await written(base, sequence(mail(), wait("wait", 1, "minutes"), mail("two")))
    await base.pass_time(timedelta(minutes=2))
    assert await advance(base, id_, "enrollment") == DONE
    assert (await the_execution(base))["awaits"] == "message"
    await base.rows("DELETE FROM wakes RETURNING id")
    await send.empty(base.org, box)
    assert (await the_execution(base))["due_at"] is not None
    assert {"kind": "enrollment", "target_id": id_} in await base.rows("SELECT kind, target_id FROM wakes")
    await advance(base, id_, "enrollment")
    assert await statuses(base) == ["accepted", "pending"]


async def test_an_acceptance_that_commits_while_advance_waits_for_the_row_is_not_overlooked(base):
    box = await make_mailbox(base)
    id_ = await written(base, sequence(mail(), wait("wait", 1, "minutes"), mail("two")))
    claim = await claimed(base, (await the_message(base))["id"], box)
    await base.pass_time(timedelta(minutes=2))
    async with base.transaction() as tx:
        await intents.accepted(tx, claim, "250 kept")
        looking = asyncio.create_task(advance(base, id_, "enrollment"))
        await until(lambda: _waits_for_a_lock(base), "advance at the lock")
    await looking
    assert await statuses(base) == ["accepted", "pending"]
    assert (await the_execution(base))["step"] is None


async def _waits_for_a_lock(base):
    waiting = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    return bool(await as_admin(base, waiting))


@pytest.mark.parametrize(("late", "shifted"), [(timedelta(minutes=59), False), (timedelta(minutes=61), True)])
async def test_a_mail_that_leaves_later_than_the_slack_moves_what_is_counted_from_it(base, send, late, shifted):
    box = await make_mailbox(base)
    id_ = await written(base, sequence(mail(), wait("wait", 2, "hours"), mail("two")))
    planned = (await the_message(base))["due_at"]
    await base.pass_time(late)
    await send.empty(base.org, box)
    left = (await the_message(base))["accepted_at"]
    answer = await advance(base, id_, "enrollment")
    counted_from = left if shifted else planned
    assert (await the_execution(base))["due_at"] == counted_from + timedelta(hours=2)
    assert answer.seconds > 0


async def test_a_pause_that_made_a_mail_late_does_not_extend_the_wait_after_it_once_more(base, send):
    box = await make_mailbox(base)
    id_ = await written(base, sequence(mail(), wait("wait", 2, "hours"), mail("two")))
    async with base.transaction() as tx:
        await enrollments.pause(tx, id_)
    await base.pass_time(timedelta(days=1))
    async with base.transaction() as tx:
        await enrollments.resume(tx, id_)
    await send.empty(base.org, box)
    await advance(base, id_, "enrollment")
    left = (await the_message(base))["accepted_at"]
    assert (await the_execution(base))["due_at"] == left + timedelta(hours=2)


async def test_a_stored_template_is_sent_as_it_is_when_the_mail_leaves(base, send):
    box = await make_mailbox(base)
    async with base.transaction() as tx:
        made = (await templates.create(tx, "Hello", Content(subject="Old", text="Old words"))).id
    await written(base, sequence(mail(template=str(made))))
    async with base.transaction() as tx:
        await templates.change(tx, made, name=None, content=Content(subject="New", text="New words"), expected=None)
    await send.empty(base.org, box)
    rendered = (await the_message(base))["rendered"]
    assert (rendered["subject"], rendered["text"].strip()) == ("New", "New words")


# --- to whom


async def test_a_mail_goes_to_the_address_its_contact_has_by_then(base, send, tmp_path):
    with mail_server(tmp_path / "log") as server:
        box = await smtp_mailbox(base, server.port)
        await written(base, sequence(mail()))
        async with base.transaction() as tx:
            await contacts.change(tx, (await the_message(base))["contact_id"], {"email": "new@example.com"})
        await send.empty(base.org, box)
        assert [one.recipients for one in server.received()] == [("new@example.com",)]
    assert await base.value(
        "SELECT hash_address('new@example.com') = hash FROM addresses a, intents i WHERE a.id = i.address_id"
    )


@pytest.mark.parametrize(
    ("why", "reason"),
    [(Suppression.UNSUBSCRIBED, "unsubscribed"), (Suppression.BOUNCED, "bounced"), (Suppression.MANUAL, "stopped")],
)
async def test_an_address_that_was_suppressed_before_it_became_the_contacts_is_not_written_to(base, send, why, reason):
    box = await make_mailbox(base)
    await written(base, sequence(mail()))
    async with base.transaction() as tx:
        await suppressions.suppress(tx, "new@example.com", why)
        await contacts.change(tx, (await the_message(base))["contact_id"], {"email": "new@example.com"})
    assert await send.empty(base.org, box) == DONE
    message = await the_message(base)
    assert (message["status"], message["reason"], message["attempts"]) == ("cancelled", "address_suppressed", 0)
    assert (await the_execution(base))["exit_reason"] == reason
    await numbers_run_on(base)


async def test_the_mail_of_a_run_to_a_suppressed_address_is_cancelled_and_the_run_goes_on(base, send):
    box = await make_mailbox(base)
    await may_mail(base)
    await switch_on(base, on_contact(act("mail", "send_email", subject="Hello", text="Hello")))
    await make_contact(base)
    await match_all(base)
    async with base.transaction() as tx:
        await suppressions.suppress(tx, "jo@example.com", Suppression.UNSUBSCRIBED)
    await send.empty(base.org, box)
    assert await statuses(base) == ["cancelled"]
    assert (await the_execution(base))["exit_reason"] == "completed"


# --- what cannot be sent


async def gone_address(base):
    contact = await base.value("SELECT contact_id FROM intents")
    async with base.transaction() as tx:
        await contacts.change(tx, contact, {"email": None})


async def gone_template(base):
    async with base.transaction() as tx:
        await templates.delete(tx, await base.value("SELECT id FROM templates"))


async def nothing(base):
    pass


TEMPLATED = object()
UNSENDABLE = {
    "a contact without an address": (mail(), gone_address, "email_missing"),
    "a deleted template": (TEMPLATED, gone_template, "template_missing"),
    "a field without a value": (mail(text="Dear {{ contact.lastName }}"), nothing, "field_missing"),
    "a bomb": (mail(text=BOMB), nothing, "template_broken"),
}


@pytest.mark.parametrize("case", UNSENDABLE)
async def test_what_cannot_be_written_is_stuck_with_its_reason_and_the_next_mail_leaves(base, send, case):
    step, spoil, reason = UNSENDABLE[case]
    box = await make_mailbox(base)
    if step is TEMPLATED:
        async with base.transaction() as tx:
            made = (await templates.create(tx, "Hello", Content(subject="Hello", text="Words"))).id
        step = mail(template=str(made))
    sick = await enrolled_with(base, step, "sick@example.com", custom_fields={"all": ["x" * 99] * 999})
    await advance(base, sick, "enrollment")
    await spoil(base)
    (other,) = await enroll(
        base, await publish(base, sequence(mail()), "Other"), await make_contact(base, "well@example.com")
    )
    await advance(base, other.enrollment, "enrollment")
    assert await send.empty(base.org, box) == DONE
    rows = await base.rows(
        "SELECT i.status, i.reason, i.attempts, x.status AS enrollment, x.stuck_reason, x.stuck_owner_id"
        " FROM intents i JOIN executions x ON x.id = i.execution_id ORDER BY x.started_at"
    )
    assert [row["status"] for row in rows] == ["failed", "accepted"]
    sick_row = rows[0]
    assert (sick_row["reason"], sick_row["stuck_reason"], sick_row["enrollment"]) == (reason, reason, "stuck")
    assert (sick_row["attempts"], sick_row["stuck_owner_id"]) == (0, base.rep)
    assert await base.value("SELECT count(*) FROM events WHERE type = 'message.failed'") == 1
    assert await send.empty(base.org, box) == DONE  # and it is not tried again by itself


async def enrolled_with(base, step, email, **values):
    contact = await make_contact(base, email, **values)
    (answered,) = await enroll(base, await publish(base, sequence(step)), contact)
    return answered.enrollment


async def test_what_was_mended_is_retried_as_the_same_message(base, send):
    box = await make_mailbox(base)
    id_ = await written(base, sequence(mail(text="Dear {{ contact.lastName }}")))
    await send.empty(base.org, box)
    before = await the_message(base)
    async with base.transaction() as tx:
        await contacts.change(tx, before["contact_id"], {"last_name": "Doe"})
        await enrollments.retry(tx, id_)
    await advance(base, id_, "enrollment")
    await send.empty(base.org, box)
    after = await the_message(base)
    assert (after["id"], after["status"], after["reason"], after["attempts"]) == (before["id"], "accepted", None, 1)
    assert (await the_execution(base))["exit_reason"] == "completed"
    await numbers_run_on(base)


async def test_an_enrollment_whose_mailbox_goes_before_its_mail_is_written_asks_its_owner(base, send):
    box = await make_mailbox(base)
    id_ = await written(base, sequence(wait(), mail()))
    async with base.transaction() as tx:
        await mailboxes.delete(tx, box)
    await base.pass_time(timedelta(days=4))
    for _ in range(2):
        assert (await advance(base, id_, "enrollment")).done
    stuck = await the_execution(base)
    assert (stuck["status"], stuck["stuck_reason"], stuck["stuck_owner_id"]) == ("stuck", "mailbox_missing", base.rep)
    assert (stuck["step"], stuck["due_at"]) == ("mail", None)
    assert await base.value("SELECT count(*) FROM intents") == 0
    assert await base.rows("SELECT user_id, reason, execution_id FROM notifications") == [
        {"user_id": base.rep, "reason": "stuck", "execution_id": id_}
    ]
    other = await make_mailbox(base, "Other")
    async with base.transaction() as tx:
        await enrollments.retry(tx, id_, mailbox=other)
    await advance(base, id_, "enrollment")
    assert await send.empty(base.org, other) == DONE
    assert ((await the_message(base))["status"], (await the_execution(base))["exit_reason"]) == (
        "accepted",
        "completed",
    )


@pytest.mark.parametrize("paused", [False, True])
async def test_the_mail_of_a_deleted_mailbox_is_stuck_and_leaves_through_another(base, send, paused):
    box = await make_mailbox(base)
    id_ = await written(base, sequence(mail()))
    async with base.transaction() as tx:
        if paused:
            await mailboxes.pause(tx, box)
        await mailboxes.delete(tx, box)
    assert await send.empty(base.org, box) == DONE
    assert (await the_execution(base))["stuck_reason"] == "mailbox_missing"
    other = await make_mailbox(base, "Other", from_email="other@example.com")
    async with base.transaction() as tx:
        await enrollments.retry(tx, id_, mailbox=other)
    await advance(base, id_, "enrollment")
    assert await send.empty(base.org, other) == DONE
    message = await the_message(base)
    assert (message["status"], message["rendered"]["from_email"]) == ("accepted", "other@example.com")
    assert (await the_execution(base))["exit_reason"] == "completed"


# --- what mail servers answer


async def test_a_server_that_takes_a_mail_and_drops_its_answer_gets_it_once(base, send, tmp_path):
    with mail_server(tmp_path / "log", "--drop-answer-of", "1") as server:
        box = await smtp_mailbox(base, server.port)
        await written(base, sequence(mail()))
        for _ in range(3):
            assert await send.empty(base.org, box) == DONE
        assert len(server.received()) == 1
    message, enrollment = await the_message(base), await the_execution(base)
    assert (message["status"], message["attempts"]) == ("uncertain", 1)
    assert (enrollment["status"], enrollment["stuck_reason"]) == ("stuck", "message_uncertain")
    assert enrollment["stuck_owner_id"] == base.rep
    assert await base.value("SELECT outcome FROM attempts") == "uncertain"


async def test_a_passing_refusal_is_retried_at_growing_gaps_then_a_person_is_asked_and_may_retry(base, send, tmp_path):
    with mail_server(tmp_path / "log", "--defer", "7") as server:
        box = await smtp_mailbox(base, server.port)
        id_ = await written(base, sequence(mail()))
        gaps = []
        for _ in range(6):
            assert await send._one(base.org, box) == 0
            gaps.append(
                await base.value(
                    "SELECT extract(epoch FROM not_before - claimed_real)::float8 FROM intents i JOIN attempts t"
                    " ON t.intent_id = i.id AND t.number = i.attempts"
                )
            )
            seconds = await send._one(base.org, box)
            assert 0 < seconds <= intents.RETRIES[len(gaps) - 1]
            await at_once(base)
        for gap, wanted in zip(gaps, intents.RETRIES, strict=True):
            assert wanted <= gap < wanted + 10
        assert await send._one(base.org, box) == 0
        message, enrollment = await the_message(base), await the_execution(base)
        assert (message["status"], message["reason"], message["attempts"]) == ("failed", "message_refused", 7)
        assert message["detail"] == "4.2.0 try again later"
        assert (enrollment["stuck_reason"], enrollment["stuck_owner_id"]) == ("message_refused", base.rep)
        assert server.received() == []
        async with base.transaction() as tx:
            await enrollments.retry(tx, id_)
        await advance(base, id_, "enrollment")
        assert await send.empty(base.org, box) == DONE
        assert [one.message_id for one in server.received()] == [message["message_id"]]
    assert ((await the_message(base))["status"], (await the_message(base))["id"]) == ("accepted", message["id"])
    assert (await the_execution(base))["exit_reason"] == "completed"
    await numbers_run_on(base)


async def test_an_unknown_recipient_ends_all_that_would_write_to_the_address(base, send, tmp_path):
    with mail_server(tmp_path / "log", "--refuse", "jo@example.com") as server:
        box = await smtp_mailbox(base, server.port)
        await written(base, sequence(mail()))
        other = await publish(base, sequence(wait(), mail()), "Other")
        await enroll(base, other, (await the_message(base))["contact_id"])
        assert await send.empty(base.org, box) == DONE
    message = await the_message(base)
    assert (message["status"], message["reason"], message["attempts"]) == ("bounced", "address_refused", 1)
    assert await base.value("SELECT suppressed FROM addresses") == "bounced"
    assert [row["exit_reason"] for row in await base.rows("SELECT exit_reason FROM executions")] == ["bounced"] * 2
    (refused,) = await enroll(base, await publish(base, sequence(mail()), "Third"), message["contact_id"])
    assert refused.reason == "address_suppressed"
    await numbers_run_on(base)


@pytest.mark.parametrize("answer", ["552 5.2.2 mailbox full", "550 5.7.1 not wanted here", "554 5.6.0 bad content"])
async def test_a_refusal_for_good_that_is_not_about_who_it_is_asks_a_person_and_kills_no_address(base, send, answer):
    async with scripted_server({"RCPT": answer}) as server:
        box = await smtp_mailbox(base, server.port)
        await written(base, sequence(mail()))
        assert await send.empty(base.org, box) == DONE
    assert ((await the_message(base))["status"], (await the_execution(base))["stuck_reason"]) == (
        "failed",
        "message_refused",
    )
    assert await base.value("SELECT suppressed FROM addresses") is None


async def test_a_server_that_is_away_troubles_its_mailbox_and_no_message_and_all_leaves_when_it_is_back(
    base, send, tmp_path
):
    with mail_server(tmp_path / "log") as server:
        port = server.port
    box = await smtp_mailbox(base, port)
    made = await publish(base, sequence(mail()))
    for number in range(3):
        (one,) = await enroll(base, made, await make_contact(base, f"p{number}@example.com"))
        await advance(base, one.enrollment, "enrollment")
    waits = []
    for _ in range(4):
        waits.append(await send._one(base.org, box))
        assert await send._one(base.org, box) > 0  # the mailbox rests
        await at_once(base)
    for seconds, wanted in zip(waits, (1, 2, 4, 8), strict=True):
        assert wanted - 1 < seconds <= wanted
    trouble = (await base.rows("SELECT * FROM destinations"))[0]
    assert (trouble["trouble"], trouble["failures"], trouble["trouble_since"] is not None) == ("unreachable", 4, True)
    assert await base.value("SELECT count(*) FROM attempts") == 0
    assert await statuses(base) == ["pending"] * 3
    with mail_server(tmp_path / "log", port=port) as server:
        assert await send.empty(base.org, box) == DONE
        assert len(server.received()) == 3
    calm = (await base.rows("SELECT * FROM destinations"))[0]
    assert (calm["trouble"], calm["failures"], calm["retry_at"]) == (None, 0, None)


@pytest.mark.parametrize("answers", [{"MAIL": "421 4.3.2 closing"}, {"RCPT": HANG_UP}, {"DATA": "451 4.3.0 disk full"}])
async def test_what_is_the_mailboxs_own_trouble_counts_against_no_message(base, send, answers):
    async with scripted_server(answers) as server:
        box = await smtp_mailbox(base, server.port)
        await written(base, sequence(mail()))
        assert await send._one(base.org, box) > 0
        message = await the_message(base)
        assert (message["status"], message["refusals"]) == ("pending", 0)
        assert await base.value("SELECT failures FROM destinations") == 1
        server.answers.update({"MAIL": "250 ok", "RCPT": "250 ok", "DATA": "354 go on"})
        await at_once(base)
        assert await send.empty(base.org, box) == DONE
    assert (await the_message(base))["status"] == "accepted"


async def test_no_transaction_is_open_while_a_server_is_talked_to(base, send):
    async with scripted_server({".": SILENCE}) as server:
        box = await smtp_mailbox(base, server.port)
        await written(base, sequence(mail()))
        sending = asyncio.create_task(send._one(base.org, box))
        await until(lambda: _content(server), "the content at the server")
        idle = "SELECT state, query FROM pg_stat_activity WHERE datname = current_database() AND xact_start IS NOT NULL"
        assert await as_admin(base, f"{idle} AND pid <> pg_backend_pid()") == []
        assert (await the_message(base))["status"] == "claimed"  # it had committed before
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending


async def _content(server):
    return bool(server.contents)


# --- stops that come while a call is under way


async def refuse_for_now(base, claim):
    async with base.transaction() as tx:
        assert await intents.postponed(tx, claim, "450 4.2.0 later", counts=True)


async def test_a_mail_refused_for_now_after_its_enrollment_was_stopped_is_not_tried_again(base):
    box = await make_mailbox(base)
    id_ = await written(base, sequence(mail()))
    claim = await claimed(base, (await the_message(base))["id"], box)
    async with base.transaction() as tx:
        await stops.stop(tx, id_, "enrollment", None)
    assert (await the_message(base))["status"] == "claimed"
    await refuse_for_now(base, claim)
    assert (await the_message(base))["status"] == "cancelled"


async def test_a_mail_refused_for_now_while_its_enrollment_is_paused_waits_for_the_resume(base, send):
    box = await make_mailbox(base)
    id_ = await written(base, sequence(mail()))
    claim = await claimed(base, (await the_message(base))["id"], box)
    async with base.transaction() as tx:
        await enrollments.pause(tx, id_)
    await refuse_for_now(base, claim)
    assert (await the_message(base))["status"] == "held"
    assert await send.empty(base.org, box) == DONE
    async with base.transaction() as tx:
        await enrollments.resume(tx, id_)
    await at_once(base)
    assert await send.empty(base.org, box) == DONE
    assert (await the_message(base))["status"] == "accepted"


async def test_what_became_uncertain_during_a_pause_asks_a_person_at_the_resume(base):
    box = await make_mailbox(base)
    id_ = await written(base, sequence(mail()))
    claim = await claimed(base, (await the_message(base))["id"], box)
    async with base.transaction() as tx:
        await enrollments.pause(tx, id_)
    async with base.transaction() as tx:
        await intents.lost(tx, claim, "no answer")
    assert (await the_execution(base))["status"] == "paused"
    async with base.transaction() as tx:
        await enrollments.resume(tx, id_)
    stuck = await the_execution(base)
    assert (stuck["status"], stuck["stuck_reason"], stuck["stuck_owner_id"]) == ("stuck", "message_uncertain", base.rep)


async def test_a_drain_that_was_frozen_between_claim_and_call_sends_nothing(base, send, monkeypatch, tmp_path):
    with mail_server(tmp_path / "log") as server:
        box = await smtp_mailbox(base, server.port)
        await written(base, sequence(mail()))
        monkeypatch.setattr(send_module, "CLAIM_GRACE", 0.0)  # any time at all is too long
        await send._one(base.org, box)
        assert server.received() == []
    assert (await the_message(base))["status"] == "pending"
    assert await base.value("SELECT outcome FROM attempts") == "refused"


async def test_an_answer_slower_than_the_claim_makes_nobody_send_it_again_and_counts_when_it_comes(
    base, send, tmp_path
):
    with mail_server(tmp_path / "log", "--delay", "3") as server:
        box = await smtp_mailbox(base, server.port)
        await written(base, sequence(mail()))
        slow = asyncio.create_task(send._one(base.org, box))
        await until(lambda: _taken(server), "the mail at the server")
        past = "UPDATE intents SET deadline = clock_timestamp() - interval '1 second' WHERE status = 'claimed'"
        await as_admin(base, past)
        async with sender(base) as other:
            assert await other.empty(base.org, box) == DONE
        assert (await the_message(base))["status"] == "uncertain"
        await slow
        assert len(server.received()) == 1
    message = await the_message(base)
    assert (message["status"], message["attempts"]) == ("accepted", 1)
    assert (await the_execution(base))["status"] == "open"
    await numbers_run_on(base)


async def _taken(server):
    return bool(server.received())


async def test_two_drains_of_one_mailbox_send_each_mail_once(base, send, tmp_path):
    with mail_server(tmp_path / "log") as server:
        box = await smtp_mailbox(base, server.port)
        made = await publish(base, sequence(mail()))
        for number in range(12):
            (one,) = await enroll(base, made, await make_contact(base, f"p{number}@example.com"))
            await advance(base, one.enrollment, "enrollment")
        async with sender(base) as other:
            await asyncio.gather(send.empty(base.org, box), other.empty(base.org, box))
        assert len(server.received()) == len({one.message_id for one in server.received()}) == 12
    assert await statuses(base) == ["accepted"] * 12
    assert await base.value("SELECT max(attempts) FROM intents") == 1
