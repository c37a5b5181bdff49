# mypy: ignore-errors
"""Letters at receipt: stored once, matched, and holding what they may stop before anybody is answered."""

import asyncio
from datetime import timedelta

import pytest

from domain.inbound_mail import Letter as Read
from domain.inbound_mail import LetterKind
from domain.link_tokens import Purpose, reply_address, subkey, token
from domain.words import Target
from store import contacts, enrollments, intents, letters, stops
from store.errors import IllegalTransition
from tests.driving import (
    advance,
    blocked,
    claimed,
    enroll,
    letter,
    mail,
    make_contact,
    make_mailbox,
    publish,
    receive,
    reply_to,
    sender,
    sequence,
    task,
    the_execution,
    the_message,
    until,
    wait,
    written,
)


@pytest.fixture
async def box(base):
    return await make_mailbox(base)


@pytest.fixture
async def sent(base, box):
    """A mail that has left; its enrollment waits three days."""
    await written(base, sequence(mail(), wait(), mail("two")))
    async with sender(base) as send:
        await send.empty(base.org, box)
    return await the_message(base)


async def do(base, verb, *args, **options):
    async with base.transaction() as tx:
        return await verb(tx, *args, **options)


async def the_letter(base):
    (found,) = await base.rows("SELECT * FROM letters")
    return found


async def read_as(base, id_, kind, **options):
    read = Read(kind=kind, text="words", full_text="words", subject="Re: Hello", **options)
    return await do(base, letters.understood, id_, read)


async def test_a_letter_is_matched_by_our_token_whoever_sends_it(base, sent):
    await receive(base, letter(frm="somebody@else.example", to=reply_to(sent["id"])))
    found = await the_letter(base)
    assert (found["matched_by"], found["intent_id"], found["contact_id"]) == ("token", sent["id"], sent["contact_id"])
    assert (await the_execution(base))["held_since"] is not None


async def test_the_envelopes_recipient_carries_the_token_too(base, sent):
    await receive(base, letter(frm="somebody@else.example"), reply_to(sent["id"]).upper())
    assert (await the_letter(base))["matched_by"] == "token"


async def test_a_token_of_another_key_is_none(base, sent):
    forged = token(subkey(b"another master key, of 32 bytes."), sent["id"], Purpose.REPLY)
    await receive(base, letter(frm="somebody@else.example", to=reply_address(forged, "reply.example.com")))
    assert (await the_letter(base))["matched_by"] is None
    assert (await the_execution(base))["held_since"] is None


@pytest.mark.parametrize("header", ["In-Reply-To: {}", "References: <other@example.com> {}"])
async def test_a_letter_is_matched_by_the_mail_it_refers_to(base, sent, header):
    await receive(base, letter(header.format(sent["message_id"]), frm="assistant@else.example"))
    found = await the_letter(base)
    assert (found["matched_by"], found["intent_id"]) == ("references", sent["id"])
    assert (await the_execution(base))["held_since"] is not None


async def test_a_letter_is_matched_by_its_sender_in_whatever_case(base, sent):
    await receive(base, letter(frm="Jo Doe <JO@Example.COM>"))
    found = await the_letter(base)
    assert (found["matched_by"], found["contact_id"]) == ("sender", sent["contact_id"])
    assert (await the_execution(base))["held_since"] is not None


async def test_a_letter_of_nobody_we_know_holds_nothing(base, sent):
    await receive(base, letter(frm="stranger@else.example"))
    assert (await the_letter(base))["contact_id"] is None
    assert await base.value("SELECT count(*) FROM holds") == 0


async def test_a_letter_that_comes_twice_or_thrice_at_once_is_one(base, sent):
    raw = letter()
    answers = await asyncio.gather(*(receive(base, raw) for _ in range(8)))
    assert len({id_ for id_, _ in answers}) == 1
    assert [new for _, new in answers].count(True) == 1
    assert await base.value("SELECT count(*) FROM holds") == 1
    assert await read_as(base, answers[0][0], LetterKind.AUTO_REPLY)
    assert await receive(base, raw) == (answers[0][0], False)
    assert (await the_execution(base))["held_since"] is None  # it holds nothing again


async def test_what_is_held_takes_no_step_and_nothing_of_it_is_claimed(base, box):
    id_ = await written(base, sequence(mail(), wait("wait", 1, "hours"), task()))
    await receive(base, letter())
    message = await the_message(base)
    assert message["status"] == "held"
    assert (await claimed(base, message["id"], box)).reason == "taken"
    await base.pass_time(timedelta(days=1))
    assert (await advance(base, id_, "enrollment")).done
    assert await base.value("SELECT count(*) FROM effects") == 1


async def test_a_letter_waits_for_the_step_that_is_being_taken_and_holds_what_it_wrote(base, box):
    await written(base, sequence(wait("wait", 0, "minutes"), mail()))
    message = await the_message(base)
    async with base.transaction() as tx:
        await stops.locked(tx, message["execution_id"], Target.ENROLLMENT)
        coming = asyncio.create_task(receive(base, letter()))
        await until(lambda: blocked(base), "the letter at the lock")
    await coming
    assert (await the_message(base))["status"] == "held"


async def test_two_letters_that_hold_one_enrollment_let_it_go_when_both_are_read(base, box):
    await written(base, sequence(mail(), wait(), mail("two")))
    (one, _), (two, _) = await receive(base, letter()), await receive(base, letter())
    assert sorted(await do(base, enrollments.holding, (await the_execution(base))["id"])) == sorted([one, two])
    await read_as(base, one, LetterKind.AUTO_REPLY)
    assert ((await the_execution(base))["held_since"] is not None, (await the_message(base))["status"]) == (
        True,
        "held",
    )
    await read_as(base, two, LetterKind.AUTO_REPLY)
    assert ((await the_execution(base))["held_since"], (await the_message(base))["status"]) == (None, "pending")


async def test_two_letters_read_at_the_same_time_let_go_too(base, box):
    await written(base, sequence(mail()))
    found = [(await receive(base, letter()))[0] for _ in range(6)]
    await asyncio.gather(*(read_as(base, one, LetterKind.AUTO_REPLY) for one in found))
    assert ((await the_execution(base))["held_since"], (await the_message(base))["status"]) == (None, "pending")


async def test_a_letter_let_go_during_a_pause_leaves_the_pause(base, box):
    id_ = await written(base, sequence(mail()))
    letter_id, _ = await receive(base, letter())
    await do(base, enrollments.pause, id_)
    await read_as(base, letter_id, LetterKind.AUTO_REPLY)
    assert ((await the_execution(base))["status"], (await the_message(base))["status"]) == ("paused", "held")
    await do(base, enrollments.resume, id_)
    assert (await the_message(base))["status"] == "pending"


async def test_a_resume_while_a_letter_holds_releases_nothing_before_it_is_read(base, box):
    id_ = await written(base, sequence(mail()))
    await do(base, enrollments.pause, id_)
    letter_id, _ = await receive(base, letter())
    await do(base, enrollments.resume, id_)
    assert (await the_message(base))["status"] == "held"
    await read_as(base, letter_id, LetterKind.AUTO_REPLY)
    assert (await the_message(base))["status"] == "pending"
    assert (await advance(base, id_, "enrollment")).done


async def test_a_mail_that_was_being_sent_when_the_letter_came_stands_and_the_wait_goes_on_after(base, box):
    id_ = await written(base, sequence(mail(), wait("wait", 1, "hours"), task()))
    claim = await claimed(base, (await the_message(base))["id"], box)
    letter_id, _ = await receive(base, letter())
    assert await do(base, intents.accepted, claim, "250 kept")
    await base.pass_time(timedelta(hours=2))
    assert (await advance(base, id_, "enrollment")).done
    await read_as(base, letter_id, LetterKind.AUTO_REPLY)
    await advance(base, id_, "enrollment")
    assert (await the_execution(base))["exit_reason"] == "completed"


async def test_a_reply_ends_every_enrollment_of_its_contact_but_those_that_go_on(base, sent):
    going = await publish(base, sequence(wait(), stopOnReply=False), "Going")
    stopping = await publish(base, sequence(wait()), "Stopping")
    for made in (going, stopping):
        await enroll(base, made, sent["contact_id"])
    letter_id, _ = await receive(base, letter())
    assert await base.value("SELECT count(*) FROM executions WHERE held_since IS NOT NULL") == 3
    await read_as(base, letter_id, LetterKind.REPLY)
    rows = {row["definition_id"]: row for row in await base.rows("SELECT * FROM executions")}
    assert (rows[going]["status"], rows[going]["held_since"], rows[going]["due_at"] is not None) == ("open", None, True)
    assert rows[stopping]["exit_reason"] == "replied"
    assert rows[stopping]["exit_note"] == f"letter {letter_id}"
    assert (await the_message(base))["replied_at"] is None  # it refers to no mail of ours


async def test_a_letter_is_read_once(base, sent):
    letter_id, _ = await receive(base, letter(to=reply_to(sent["id"])))
    answers = await asyncio.gather(*(read_as(base, letter_id, LetterKind.REPLY) for _ in range(5)))
    assert answers.count(True) == 1
    assert await base.value("SELECT count(*) FROM events WHERE type = 'message.replied'") == 1
    assert await base.value("SELECT count(*) FROM activities WHERE direction = 'inbound'") == 1
    assert await base.value("SELECT count(*) FROM notifications") == 1


async def test_a_letter_from_the_address_a_contact_has_now_and_one_we_wrote_to_both_count(base, sent):
    await do(base, contacts.change, sent["contact_id"], {"email": "new@example.com"})
    other = await make_contact(base, "jo@example.com")
    await enroll(base, await publish(base, sequence(wait()), "Other"), other)
    await receive(base, letter(f"In-Reply-To: {sent['message_id']}"))
    assert await base.value("SELECT count(*) FROM executions WHERE held_since IS NOT NULL") == 2


async def test_only_an_unreadable_letter_is_settled_by_a_person(base, sent):
    letter_id, _ = await receive(base, letter())
    with pytest.raises(IllegalTransition):
        await do(base, letters.settle, letter_id, LetterKind.REPLY)
    await do(base, letters.not_understood, letter_id, "too deep")
    settled = await do(base, letters.settle, letter_id, LetterKind.AUTO_REPLY)
    assert (settled.status, settled.kind, settled.settled_by) == ("settled", "auto_reply", base.rep)
    with pytest.raises(IllegalTransition):
        await do(base, letters.settle, letter_id, LetterKind.REPLY)


async def test_a_persons_word_that_a_letter_was_a_complaint_gives_up_its_senders_address(base):
    box = await make_mailbox(base)
    await written(base, sequence(mail()))
    came, _ = await receive(base, letter("Content-Type: image/png", text=""))
    async with base.transaction() as tx:
        await letters.not_understood(tx, came, "a picture")
    async with base.transaction() as tx:
        await letters.settle(tx, came, LetterKind.COMPLAINT)
    assert await base.value("SELECT suppressed FROM addresses") == "complained"
    assert (await the_execution(base))["exit_reason"] == "complained"
    async with sender(base) as send:
        await send.empty(base.org, box)
    assert (await the_message(base))["status"] == "cancelled"
