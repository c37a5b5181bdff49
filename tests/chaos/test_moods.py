"""What a mail server is like for a while, told while it runs."""

import asyncio
from dataclasses import dataclass
from math import inf
from pathlib import Path

import pytest

from activities.transports import Accepted, Refused, SmtpTransport, Unknown
from cli.demo.mail_server import Mood
from tests.mailing import MailServer, mail_server

RAW = b"From: a@example.com\r\nTo: b@example.com\r\nMessage-ID: <%d@example.com>\r\n\r\nHello.\r\n"


@dataclass
class Moody:
    server: MailServer
    mood: Path

    def be(self, word: Mood) -> None:
        self.mood.write_text(word)


@pytest.fixture
def moody(tmp_path):
    mood = tmp_path / "mood"
    with mail_server(tmp_path / "log", "--mood", str(mood)) as server:
        yield Moody(server, mood)


async def send(server, number, seconds=10.0):
    transport = SmtpTransport("127.0.0.1", server.port, "none", None, None, seconds=seconds)
    try:
        await transport.ready()
        return await transport.send(RAW % number, "a@example.com", "b@example.com", inf)
    finally:
        await transport.close()


async def test_a_busy_server_asks_to_come_later_and_a_closing_one_lets_nobody_in(moody):
    moody.be(Mood.BUSY)
    busy = await send(moody.server, 1)
    assert isinstance(busy, Refused)
    assert (busy.code, busy.permanent, busy.about) == (450, False, "recipient")
    moody.be(Mood.CLOSING)
    closing = await send(moody.server, 2)
    assert isinstance(closing, Refused)
    assert (closing.code, closing.permanent, closing.about) == (421, False, "mailbox")
    moody.be(Mood.WELL)
    assert isinstance(await send(moody.server, 3), Accepted)
    assert [mail.message_id for mail in moody.server.received()] == ["<3@example.com>"]


@pytest.mark.parametrize("mood", [Mood.DROPPING, Mood.STALLING])
async def test_a_server_that_keeps_a_mail_and_does_not_say_so_leaves_its_fate_unknown(moody, mood):
    moody.be(mood)
    assert isinstance(await send(moody.server, 1, seconds=2), Unknown)
    assert [mail.message_id for mail in moody.server.received()] == ["<1@example.com>"]


async def test_a_slow_server_takes_its_time_and_then_the_mail(moody):
    moody.be(Mood.SLOW)
    sending = asyncio.create_task(send(moody.server, 1))
    assert isinstance(await sending, Accepted)
    assert len(moody.server.received()) == 1


async def test_a_connection_kept_from_before_meets_the_mood_too(moody):
    transport = SmtpTransport("127.0.0.1", moody.server.port, "none", None, None, seconds=5)
    await transport.ready()
    assert isinstance(await transport.send(RAW % 1, "a@example.com", "b@example.com", inf), Accepted)
    moody.be(Mood.CLOSING)
    await transport.ready()
    assert isinstance(await transport.send(RAW % 2, "a@example.com", "b@example.com", inf), Refused)
    moody.be(Mood.WELL)
    await transport.ready()
    assert isinstance(await transport.send(RAW % 3, "a@example.com", "b@example.com", inf), Accepted)
