# mypy: ignore-errors
"""Answers that come in by SMTP: who may write, what is kept before it is answered, and what is refused."""

import asyncio
import socket

import pytest
from aiosmtplib import SMTP, SMTPDataError, SMTPRecipientsRefused

from domain.link_tokens import Purpose, reply_address, subkey, token
from runtime.mail_listener import MailListener, listen
from tests.driving import advance, as_admin, enrolled, mail, make_mailbox, sequence, wait

MASTER = bytes(32)
ANSWER = b"From: jo@example.com\r\nTo: %s\r\nMessage-ID: <a@example.com>\r\nSubject: Re: Hello\r\n\r\nYes, please.\r\n"


@pytest.fixture
async def port(base):
    """Where a listener over the test's database answers."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        free = found.getsockname()[1]
    async with await listen(MailListener(base.app, MASTER), "127.0.0.1", free):
        yield free


@pytest.fixture
async def waiting(base):
    """An enrollment that waits after its first mail, and where that mail is answered to."""
    await make_mailbox(base)
    id_ = await enrolled(base, sequence(mail(), wait()))
    await advance(base, id_, "enrollment")
    message = await base.value("SELECT id FROM intents")
    return id_, reply_address(token(subkey(MASTER), message, Purpose.REPLY), "reply.example.com")


async def send(port, recipient, raw=None):
    client = SMTP(hostname="127.0.0.1", port=port, timeout=10)
    await client.connect()
    try:
        return await client.sendmail("jo@example.com", [recipient], raw or ANSWER % recipient.encode())
    finally:
        client.close()


async def test_an_answer_is_kept_and_holds_what_it_may_stop_before_it_is_acknowledged(base, port, waiting):
    id_, recipient = waiting
    await send(port, recipient)
    (letter,) = await base.rows("SELECT * FROM letters")
    assert (letter["matched_by"], letter["status"], letter["from_email"]) == ("token", "received", "jo@example.com")
    assert letter["raw"].endswith(b"\r\n\r\nYes, please.\r\n")
    assert await base.rows("SELECT letter_id, execution_id FROM holds") == [
        {"letter_id": letter["id"], "execution_id": id_}
    ]
    assert await base.value("SELECT status FROM intents") == "held"


async def test_an_answer_that_comes_twice_is_one_letter(base, port, waiting):
    _, recipient = waiting
    await asyncio.gather(*(send(port, recipient) for _ in range(5)))
    assert await base.value("SELECT count(*) FROM letters") == 1


async def test_a_recipient_in_capitals_is_the_same(base, port, waiting):
    _, recipient = waiting
    await send(port, recipient.upper())
    assert await base.value("SELECT matched_by FROM letters") == "token"


@pytest.mark.parametrize(
    "recipient", ["jo@example.com", "reply+abc@reply.example.com", f"reply+{'a' * 52}@reply.example.com"]
)
async def test_nobody_else_takes_mail_here(base, port, recipient):
    with pytest.raises(SMTPRecipientsRefused, match=r"5\.1\.1"):
        await send(port, recipient)
    assert await base.rows("SELECT id FROM letters") == []


async def test_while_the_database_is_away_the_sender_is_asked_to_come_again(base, waiting):
    _, recipient = waiting
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        free = found.getsockname()[1]
    away = type(base.app).connect("postgresql://drumbeat_app:x@127.0.0.1:1/none")
    async with await listen(MailListener(away, MASTER), "127.0.0.1", free):
        with pytest.raises(SMTPDataError) as refused:
            await send(free, recipient)
    assert refused.value.code == 451
    await away.close()


async def test_a_mistake_of_ours_is_told_to_nobody_and_loses_no_letter(base, port, waiting):
    _, recipient = waiting
    await as_admin(base, "ALTER TABLE letters RENAME TO letters_gone")
    try:
        with pytest.raises(SMTPDataError) as refused:
            await send(port, recipient)
    finally:
        await as_admin(base, "ALTER TABLE letters_gone RENAME TO letters")
    assert (refused.value.code, refused.value.message) == (451, "4.3.0 try again later")
