# mypy: ignore-errors
"""Reading letters: a reply stops, an answering machine lets go, a bounce ends, a riddle asks a person."""

from datetime import timedelta

import pytest

from domain.inbound_mail import LetterKind
from store import letters
from tests.driving import (
    advance,
    enroll,
    letter,
    mail,
    make_mailbox,
    numbers_run_on,
    publish,
    receive,
    reply_to,
    sender,
    sequence,
    the_execution,
    wait,
    written,
)
from triggers.letters import Letters


@pytest.fixture
async def reader(base):
    made = Letters(base.crossing, base.app)
    yield made
    await made.close()


@pytest.fixture
async def sent(base):
    """A mail that has left, and one after it that is written already and unsent."""
    box = await make_mailbox(base)
    id_ = await written(base, sequence(mail(), wait("wait", 1, "hours"), mail("two")))
    async with sender(base) as send:
        await send.empty(base.org, box)
    await base.pass_time(timedelta(minutes=61))
    await advance(base, id_, "enrollment")
    return await message(base, "mail")


async def message(base, step):
    (found,) = await base.rows("SELECT * FROM intents WHERE step = :step", step=step)
    return found


async def the_letter(base):
    (found,) = await base.rows("SELECT * FROM letters")
    return found


_REPORT = """\
From: MAILER-DAEMON@mx.example.net
To: sal@example.com
Subject: Report
Message-ID: <report@mx.example.net>
Content-Type: multipart/report; boundary="b"

--b
Content-Type: text/plain

See below.
--b
Content-Type: message/{kind}

{fields}
--b
Content-Type: message/rfc822

Message-ID: {message_id}
Subject: Hello

Hello
--b--
"""


def undelivered(sent, *, status="5.1.1", action="failed"):
    """What a mail server says of a mail it could not deliver, or not yet."""
    fields = f"Reporting-MTA: dns; mx\n\nFinal-Recipient: rfc822; jo@example.com\nAction: {action}\nStatus: {status}\n"
    return _REPORT.format(kind="delivery-status", fields=fields, message_id=sent["message_id"]).encode()


def complaint(sent):
    fields = "Feedback-Type: abuse\nUser-Agent: test/1\nVersion: 1\n"
    return _REPORT.format(kind="feedback-report", fields=fields, message_id=sent["message_id"]).encode()


async def test_a_reply_ends_cancels_tells_the_owner_and_is_kept_as_an_activity(base, reader, sent):
    assert (await message(base, "two"))["status"] == "pending"
    await receive(base, letter(to=reply_to(sent["id"]), text="Yes, on Tuesday."))
    assert (await message(base, "two"))["status"] == "held"
    assert await reader.once() == 1
    assert (await the_execution(base))["exit_reason"] == "replied"
    two = await message(base, "two")
    assert (two["status"], two["reason"]) == ("cancelled", "replied")
    assert (await message(base, "mail"))["replied_at"] is not None
    (logged,) = await base.rows("SELECT * FROM activities WHERE direction = 'inbound'")
    assert (logged["type"], logged["body"], logged["contact_id"]) == ("email", "Yes, on Tuesday.", sent["contact_id"])
    (told,) = await base.rows("SELECT * FROM notifications")
    assert (told["user_id"], told["reason"], told["contact_id"]) == (base.rep, "reply", sent["contact_id"])
    assert ((await the_letter(base))["status"], (await the_letter(base))["kind"]) == ("read", "reply")
    assert await reader.once() == 0
    await numbers_run_on(base)


async def test_an_automatic_reply_lets_go_and_nothing_of_the_wait_is_lost(base, reader):
    await make_mailbox(base)
    id_ = await written(base, sequence(wait("wait", 3, "days"), mail()))
    planned = (await the_execution(base))["due_at"]
    await receive(base, letter("Auto-Submitted: auto-replied", text="I am away."))
    await base.pass_time(timedelta(days=1))
    assert await reader.once() == 1
    row = await the_execution(base)
    assert (row["status"], row["held_since"]) == ("open", None)
    assert {"kind": "enrollment", "target_id": id_} in await base.rows("SELECT kind, target_id FROM wakes")
    await advance(base, id_, "enrollment")
    assert (await the_execution(base))["due_at"] == planned
    assert await base.value("SELECT count(*) FROM notifications") == 0


async def test_an_automatic_reply_releases_what_was_to_leave(base, reader, sent):
    await receive(base, letter("Auto-Submitted: auto-replied", to=reply_to(sent["id"])))
    await base.rows("DELETE FROM wakes RETURNING id")
    await reader.once()
    two = await message(base, "two")
    assert two["status"] == "pending"
    wakes = await base.rows("SELECT kind, target_id FROM wakes")
    assert {"kind": "mailbox", "target_id": two["destination_id"]} in wakes


async def test_a_bounce_gives_the_address_up_and_ends_what_would_write_to_it(base, reader, sent):
    other = await publish(base, sequence(wait()), "Other")
    await enroll(base, other, sent["contact_id"])
    await receive(base, undelivered(sent))
    assert await reader.once() == 1
    assert await base.value("SELECT suppressed FROM addresses") == "bounced"
    assert (await message(base, "mail"))["status"] == "bounced"
    assert (await message(base, "two"))["status"] == "cancelled"
    assert {row["exit_reason"] for row in await base.rows("SELECT exit_reason FROM executions")} == {"bounced"}
    await numbers_run_on(base)


async def test_a_full_mailbox_is_no_dead_address(base, reader, sent):
    await receive(base, undelivered(sent, status="5.2.2"))
    await reader.once()
    assert await base.value("SELECT suppressed FROM addresses") is None
    assert (await message(base, "mail"))["status"] == "bounced"
    assert (await message(base, "two"))["status"] == "pending"
    assert (await the_execution(base))["status"] == "open"


async def test_a_delay_is_no_bounce(base, reader, sent):
    await receive(base, undelivered(sent, status="4.4.1", action="delayed"))
    await reader.once()
    assert (await message(base, "mail"))["status"] == "accepted"
    assert (await the_execution(base))["held_since"] is None


async def test_a_complaint_suppresses_the_address_and_ends_its_enrollments(base, reader, sent):
    await receive(base, complaint(sent))
    assert await reader.once() == 1
    assert await base.value("SELECT suppressed FROM addresses") == "complained"
    assert (await message(base, "mail"))["status"] == "complained"
    assert (await the_execution(base))["exit_reason"] == "complained"
    await numbers_run_on(base)


RIDDLE = b"From: jo@example.com\r\nMessage-ID: <x@y.example>\r\nContent-Type: image/png\r\n\r\nnothing to read"


async def test_a_letter_nobody_can_read_keeps_its_hold_and_asks_the_owner(base, reader, sent):
    await receive(base, RIDDLE)
    assert await reader.once() == 1
    found = await the_letter(base)
    assert (found["status"], found["detail"]) == ("unreadable", "it has no text")
    assert (await the_execution(base))["held_since"] is not None
    assert (await message(base, "two"))["status"] == "held"
    (told,) = await base.rows("SELECT * FROM notifications")
    assert (told["user_id"], told["reason"]) == (base.rep, "letter")
    assert await reader.once() == 0


SETTLED = {
    LetterKind.REPLY: ("replied", "cancelled", None),
    LetterKind.AUTO_REPLY: (None, "pending", None),
    LetterKind.BOUNCE: ("bounced", "cancelled", "bounced"),
    LetterKind.COMPLAINT: ("complained", "cancelled", "complained"),
}


@pytest.mark.parametrize("kind", SETTLED)
async def test_a_persons_word_does_what_a_reading_would(base, reader, sent, kind):
    exit_reason, second, suppressed = SETTLED[kind]
    letter_id, _ = await receive(base, RIDDLE, reply_to(sent["id"]))
    await reader.once()
    async with base.transaction() as tx:
        await letters.settle(tx, letter_id, kind)
    assert (await the_execution(base))["exit_reason"] == exit_reason
    assert (await the_execution(base))["held_since"] is None
    assert (await message(base, "two"))["status"] == second
    assert await base.value("SELECT suppressed FROM addresses") == suppressed
    await numbers_run_on(base)


async def test_a_letter_of_a_stranger_is_read_and_changes_nothing(base, reader, sent):
    await receive(base, letter(frm="stranger@else.example"))
    assert await reader.once() == 1
    assert (await the_execution(base))["status"] == "open"
    assert await base.value("SELECT count(*) FROM activities WHERE direction = 'inbound'") == 0
    assert await base.value("SELECT count(*) FROM notifications") == 0


async def test_a_letter_with_characters_no_database_holds_is_read_all_the_same(base, reader, sent):
    await receive(base, letter("X-Odd: \x00", to=reply_to(sent["id"]), text="Yes\x00, \x1b[31mgladly"))
    assert await reader.once() == 1
    assert (await the_execution(base))["exit_reason"] == "replied"


async def test_letters_are_read_oldest_first_and_by_every_organization(base, reader, sent):
    other = await base.another()
    await receive(other, letter())
    await receive(base, letter())
    await receive(base, RIDDLE)
    assert await reader.once() == 3
    assert (await the_letter(other))["status"] == "read"
