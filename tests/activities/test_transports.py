# mypy: ignore-errors
"""Sending: what each answer of a mail server means, and what no answer means."""

import asyncio
import os
import time
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from math import inf
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from activities.transports import (
    TOO_LATE,
    Accepted,
    MailboxUnready,
    OutboxTransport,
    Refused,
    SmtpTransport,
    Unknown,
)
from cli.demo.mail_server import received
from domain.mail import Mail, compose, message_id
from runtime.children import free_ports
from tests.mailing import DRIP, HANG_UP, SILENCE, certificate, mail_server, scripted_server

SENDER, RECIPIENT = "rob@acme.example", "carla@customer.example"
SHORT = 0.4
GENEROUS = 15.0
"""Seconds within which whatever is bounded by SHORT must be over, on any machine."""


def mail(number: int = 1, subject: str = "Ihr Test bei Müller & Söhne") -> Mail:
    return Mail(
        message_id=message_id(UUID(int=number), "acme.example"),
        at=datetime(2026, 3, 2, 9, 30, tzinfo=UTC),
        from_name="Jürgen Müller",
        from_email=SENDER,
        to_email=RECIPIENT,
        reply_to=None,
        subject=subject,
        text="Hallo Carla,\n.\n..zwei Punkte\n",
        html="<p>Hallo Carla</p>",
        in_reply_to=None,
        references=(),
        unsubscribe_url="https://crm.example.com/u/abc",
        postal_address="Acme GmbH, Berlin",
    )


@asynccontextmanager
async def smtp(port: int, security: str = "none", **options):
    transport = SmtpTransport("127.0.0.1", port, security, options.pop("username", None), "secret", **options)
    try:
        yield transport
    finally:
        await transport.close()


async def sent(transport, raw: bytes | None = None, sender=SENDER, recipient=RECIPIENT):
    await transport.ready()
    return await transport.send(raw or compose(mail()), sender, recipient, inf)


async def unready(transport) -> str:
    with pytest.raises(MailboxUnready) as refused:
        await transport.ready()
    assert "secret" not in refused.value.detail
    return refused.value.code


# the mail server's process


async def test_an_accepted_mail_arrives_as_it_was_composed(tmp_path):
    with mail_server(tmp_path / "log") as server:
        async with smtp(server.port) as transport:
            assert await sent(transport) == Accepted("2.0.0 kept")
        (arrived,) = server.received()
        assert arrived.raw == compose(mail())
        assert (arrived.sender, arrived.recipients) == (SENDER, (RECIPIENT,))
        assert arrived.message_id == mail().message_id
        assert arrived.subject == arrived.parsed()["Subject"] == "Ihr Test bei Müller & Söhne"
        assert arrived.at.utcoffset() is not None


async def test_what_was_accepted_survives_kill_9_of_the_server(tmp_path):
    log = tmp_path / "log"
    with mail_server(log) as server:
        async with smtp(server.port) as transport:
            assert isinstance(await sent(transport, compose(mail(1))), Accepted)
            server.kill()
            assert received(log)[0].message_id == mail(1).message_id
            assert await unready(transport) == "unreachable"
            log.write_bytes(log.read_bytes() + b'{"at": "torn by the next ki')
            with mail_server(log, port=server.port):
                assert isinstance(await sent(transport, compose(mail(2))), Accepted)
    assert [each.message_id for each in received(log)] == [mail(1).message_id, mail(2).message_id]


async def test_a_server_that_hangs_up_after_taking_a_mail_leaves_it_unknown(tmp_path):
    with mail_server(tmp_path / "log", "--drop-answer-of", "2") as server:
        async with smtp(server.port) as transport:
            outcomes = [await sent(transport, compose(mail(n))) for n in (1, 2, 3, 4)]
        assert [type(outcome) for outcome in outcomes] == [Accepted, Unknown, Accepted, Unknown]
        assert [each.message_id for each in server.received()] == [mail(n).message_id for n in (1, 2, 3, 4)]


async def test_a_server_that_defers_takes_the_mail_at_a_later_try(tmp_path):
    with mail_server(tmp_path / "log", "--defer", "2") as server:
        async with smtp(server.port) as transport:
            outcomes = [await sent(transport) for _ in range(3)]
        later = Refused(450, "4.2.0 try again later", permanent=False, about="recipient")
        assert outcomes == [later, later, Accepted("2.0.0 kept")]
        assert len(server.received()) == 1


async def test_a_recipient_nobody_knows_is_refused_and_the_next_one_is_not(tmp_path):
    with mail_server(tmp_path / "log", "--refuse", "Gone@customer.example") as server:
        async with smtp(server.port) as transport:
            refused = await sent(transport, recipient="gone@customer.example")
            assert refused == Refused(550, "5.1.1 no such mailbox", permanent=True, about="recipient")
            assert isinstance(await sent(transport), Accepted)


async def test_a_server_slower_than_the_senders_patience_leaves_the_mail_unknown(tmp_path):
    with mail_server(tmp_path / "log", "--delay", "60") as server:
        async with smtp(server.port, seconds=SHORT) as transport:
            begun = time.monotonic()
            assert await sent(transport) == Unknown("no answer within 0.4 s")
            assert time.monotonic() - begun < GENEROUS
        assert len(server.received()) == 1


def test_the_server_ends_with_the_pipe_it_was_started_with(tmp_path):
    with mail_server(tmp_path / "log") as server:
        assert server.orphan() == 0


# what each answer means


@pytest.mark.parametrize(
    ("stage", "answer", "permanent", "about"),
    [
        ("MAIL", "421 closing", False, "mailbox"),
        ("MAIL", "450 not now", False, "mailbox"),
        ("MAIL", "550 not you", True, "mailbox"),
        ("MAIL", "552 too big", True, "message"),
        ("MAIL", "530 5.7.0 authenticate first", True, "mailbox"),
        ("MAIL", "552 5.3.4 too big", True, "message"),
        ("RCPT", "421 closing", False, "mailbox"),
        ("RCPT", "450 busy", False, "recipient"),
        ("RCPT", "550 unknown", True, "recipient"),
        ("RCPT", "552 full", True, "recipient"),
        ("RCPT", "550 5.1.1 unknown", True, "recipient"),
        ("RCPT", "550 5.2.2 full", True, "recipient"),
        ("RCPT", "550 5.1.8 the sender's domain is unknown", True, "mailbox"),
        ("RCPT", "550 5.7.26 not authenticated", True, "mailbox"),
        ("RCPT", "554 5.7.1 policy", True, "message"),
        ("RCPT", "554 no", True, "message"),
        ("RCPT", "451 local error", False, "mailbox"),
        ("DATA", "421 closing", False, "mailbox"),
        ("DATA", "450 not now", False, "message"),
        ("DATA", "550 no", True, "message"),
        ("DATA", "552 no", True, "message"),
        ("DATA", "503 5.5.1 no recipients", True, "mailbox"),
        (".", "421 4.3.2 closing", False, "mailbox"),
        (".", "450 not now", False, "message"),
        (".", "452 4.3.1 no room", False, "mailbox"),
        (".", "550 spam", True, "message"),
        (".", "550 5.1.1 unknown", True, "recipient"),
        (".", "550 5.7.515 access denied", True, "mailbox"),
        (".", "550 5.7.1 spam", True, "message"),
        (".", "552 too big", True, "message"),
        (".", "554 5.6.0 malformed", True, "message"),
    ],
)
async def test_a_refusal_says_what_it_is_about_at_every_stage(stage, answer, permanent, about):
    async with scripted_server({stage: answer}) as server, smtp(server.port) as transport:
        code, _, text = answer.partition(" ")
        assert await sent(transport) == Refused(int(code), text, permanent, about)
        assert len(server.contents) == (stage == ".")
        server.answers[stage] = {"DATA": "354 go on"}.get(stage, "250 ok")
        assert isinstance(await sent(transport), Accepted)
        assert server.connections == (2 if code == "421" else 1)


@pytest.mark.parametrize("stage", ["MAIL", "RCPT", "DATA"])
@pytest.mark.parametrize("answer", [HANG_UP, SILENCE, DRIP, "nonsense", "999 what", "221 bye", "3"])
async def test_whatever_goes_wrong_before_the_content_nothing_has_left(stage, answer):
    async with scripted_server({stage: answer}) as server, smtp(server.port, seconds=SHORT) as transport:
        await transport.ready()
        begun = time.monotonic()
        outcome = await transport.send(compose(mail()), SENDER, RECIPIENT, inf)
        assert time.monotonic() - begun < GENEROUS
        assert isinstance(outcome, Refused)
        assert (outcome.permanent, outcome.about) == (False, "mailbox")
        assert server.contents == []


async def test_no_content_is_begun_after_the_claims_end():
    async with scripted_server() as server, smtp(server.port) as transport:
        await transport.ready()
        assert await transport.send(compose(mail()), SENDER, RECIPIENT, time.monotonic()) == TOO_LATE
        assert server.commands[-1] == b"DATA\r\n"
        assert isinstance(await sent(transport, compose(mail(2))), Accepted)
        assert len(server.contents) == 1
        assert server.connections == 2


@pytest.mark.parametrize("answer", [HANG_UP, SILENCE, DRIP, "nonsense", "999 what", "354 again", "251 elsewhere", "3"])
async def test_a_content_without_a_clear_answer_is_unknown(answer):
    async with scripted_server({".": answer}) as server, smtp(server.port, seconds=SHORT) as transport:
        await transport.ready()
        begun = time.monotonic()
        assert isinstance(await transport.send(compose(mail()), SENDER, RECIPIENT, inf), Unknown)
        assert time.monotonic() - begun < GENEROUS
        server.answers["."] = "250 kept"
        assert isinstance(await sent(transport), Accepted)
        assert server.connections == 2


async def test_a_cancelled_send_leaves_no_connection_to_send_on():
    async with scripted_server({".": SILENCE}) as server, smtp(server.port) as transport:
        await transport.ready()
        sending = asyncio.create_task(transport.send(compose(mail()), SENDER, RECIPIENT, inf))
        async with asyncio.timeout(GENEROUS):
            while not server.contents:  # noqa: ASYNC110  (the server has no event of ours)
                await asyncio.sleep(0.01)
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        refused = await transport.send(compose(mail()), SENDER, RECIPIENT, inf)
        assert refused == Refused(None, "not connected", permanent=False, about="mailbox")


async def test_an_answer_is_kept_as_one_short_printable_line():
    async with (
        scripted_server({".": "250-two\x07\t\r\n250 lines\udcff" + "x" * 900}) as server,
        smtp(server.port) as transport,
    ):
        outcome = await sent(transport)
        assert outcome.answer.startswith("two lines x")
        assert len(outcome.answer) == 500
        assert outcome.answer.isprintable()


# connections


async def test_one_connection_serves_many_mails():
    async with scripted_server() as server, smtp(server.port) as transport:
        for _ in range(3):
            assert isinstance(await sent(transport), Accepted)
        assert server.connections == 1
        await transport.close()
        assert isinstance(await sent(transport), Accepted)
        assert server.connections == 2


@pytest.mark.parametrize("answer", [HANG_UP, SILENCE, "421 idle too long", "500 what"])
async def test_a_connection_that_died_meanwhile_is_replaced(answer):
    async with scripted_server() as server, smtp(server.port, seconds=2) as transport:
        assert isinstance(await sent(transport), Accepted)
        server.answers["RSET"] = answer
        assert isinstance(await sent(transport), Accepted)
        assert server.connections == 2


async def test_a_port_nobody_listens_on_is_unreachable_at_once():
    (port,) = free_ports(1)
    async with smtp(port) as transport:
        begun = time.monotonic()
        assert await unready(transport) == "unreachable"
        assert time.monotonic() - begun < GENEROUS
        refused = await transport.send(compose(mail()), SENDER, RECIPIENT, inf)
        assert refused == Refused(None, "not connected", permanent=False, about="mailbox")


@pytest.mark.parametrize("host", ["mail..acme.example", "a" * 64 + ".example"])
async def test_a_host_that_cannot_be_is_unreachable(host):
    assert await unready(SmtpTransport(host, 587, "starttls", None, None)) == "unreachable"


@pytest.mark.parametrize(
    ("stage", "answer", "code"),
    [
        ("GREETING", HANG_UP, "unreachable"),
        ("GREETING", SILENCE, "unreachable"),
        ("GREETING", DRIP, "unreachable"),
        ("GREETING", "HTTP/1.1 400 Bad Request", "unreachable"),
        ("GREETING", "421 too many connections", "busy"),
        ("GREETING", "554 go away", "unreachable"),
        ("EHLO", "450 later", "busy"),
        ("EHLO", HANG_UP, "unreachable"),
        ("AUTH", "535 5.7.8 wrong password", "login_refused"),
        ("AUTH", "454 4.7.0 the directory is down", "busy"),
        ("AUTH", HANG_UP, "unreachable"),
        ("AUTH", SILENCE, "unreachable"),
        ("EHLO", "250 no login here", "login_refused"),
    ],
)
async def test_a_mailbox_that_is_not_ready_says_why(stage, answer, code):
    script = {"EHLO": "250-test\r\n250 AUTH PLAIN", stage: answer}
    async with scripted_server(script) as server, smtp(server.port, username="rob", seconds=SHORT) as transport:
        assert await unready(transport) == code
        assert not any(command.startswith(b"MAIL") for command in server.commands)


async def test_a_mailbox_logs_in_before_it_is_ready():
    script = {"EHLO": "250-test\r\n250-SIZE 1000000\r\n250 AUTH PLAIN"}
    async with scripted_server(script) as server, smtp(server.port, username="rob") as transport:
        await transport.ready()
        assert server.commands[-1] == b"AUTH PLAIN AHJvYgBzZWNyZXQ=\r\n"
        assert isinstance(await sent(transport), Accepted)
        assert b"MAIL FROM:<rob@acme.example> SIZE=%d\r\n" % len(compose(mail())) in server.commands


# TLS


@pytest.mark.parametrize("security", ["starttls", "tls"])
async def test_a_certificate_is_trusted_only_where_it_is_vouched_for(tmp_path, security):
    made = certificate(tmp_path)
    script = {"EHLO": "250-test\r\n250 STARTTLS"}
    tls = {"implicit_tls": made.server} if security == "tls" else {"starttls": made.server}
    async with scripted_server(script, **tls) as server:
        async with smtp(server.port, security, tls_context=made.trusting) as transport:
            assert isinstance(await sent(transport), Accepted)
        async with smtp(server.port, security) as transport:
            assert await unready(transport) == "tls_refused"
        async with smtp(server.port, security, tls_context=certificate(tmp_path, "127.0.0.2").trusting) as transport:
            assert await unready(transport) == "tls_refused"
        assert len(server.contents) == 1


@pytest.mark.parametrize(
    ("script", "code"),
    [
        ({}, "tls_refused"),
        ({"EHLO": "250-test\r\n250 STARTTLS", "STARTTLS": "501 no"}, "tls_refused"),
        ({"EHLO": "250-test\r\n250 STARTTLS", "STARTTLS": "454 not now"}, "busy"),
        ({"EHLO": "250-test\r\n250 STARTTLS", "STARTTLS": "220 plain text follows"}, "unreachable"),
    ],
)
async def test_a_server_that_does_not_start_tls_gets_no_password(script, code):
    async with scripted_server(script) as server:
        async with smtp(server.port, "starttls", username="rob", seconds=SHORT) as transport:
            assert await unready(transport) == code
        assert not any(command.startswith((b"AUTH", b"MAIL")) for command in server.commands)


async def test_a_server_without_tls_is_no_tls_server():
    async with scripted_server() as server, smtp(server.port, "tls", seconds=2) as transport:
        assert await unready(transport) == "tls_refused"


@pytest.mark.parametrize("host", ["mail.acme.example", "192.168.1.5", "0.0.0.0", "127.0.0.1.nip.io", "::", ""])  # noqa: S104
def test_a_connection_in_the_clear_leaves_no_machine(host):
    with pytest.raises(ValueError, match="in the clear"):
        SmtpTransport(host, 25, "none", None, None)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1"])
def test_a_connection_in_the_clear_stays_on_this_machine(host):
    SmtpTransport(host, 25, "none", None, None)


# what goes over the wire


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(raw=st.lists(st.sampled_from([b"\r", b"\n", b"\r\n", b".", b"..", b"a", b"\0", b"MAIL FROM:<x@y.example>"])))
async def test_no_content_ends_before_its_end(raw):
    raw = b"".join(raw)
    async with scripted_server() as server, smtp(server.port) as transport:
        assert isinstance(await sent(transport, raw or b"\r\n"), Accepted)
        (content,) = server.contents
        lines = content.split(b"\r\n")
        assert not any(b"\r" in line or b"\n" in line for line in lines)
        assert lines[-2:] == [b".", b""]
        assert not any(line.startswith(b".") and not line.startswith(b"..") for line in lines[:-2])
        assert len([command for command in server.commands if command.startswith(b"MAIL")]) == 1


@pytest.mark.parametrize("address", ["a@b.example>\r\nRCPT TO:<spy@evil.example", "a b@c.example", "a@b@c.example", "",
                                     "ü@c.example", "<a@b.example>", "a@b.example> SIZE=1"])  # fmt: skip
async def test_no_address_brings_a_command(address):
    async with scripted_server() as server, smtp(server.port) as transport:
        await transport.ready()
        for outcome, about in (
            (await transport.send(compose(mail()), SENDER, address, inf), "recipient"),
            (await transport.send(compose(mail()), address, RECIPIENT, inf), "mailbox"),
        ):
            assert isinstance(outcome, Refused)
            assert (outcome.code, outcome.permanent, outcome.about) == (None, True, about)
        assert [command.split()[0] for command in server.commands] == [b"EHLO"]
        assert isinstance(await transport.send(compose(mail()), SENDER, "carla@müller.example", inf), Accepted)
        assert b"RCPT TO:<carla@xn--mller-kva.example>\r\n" in server.commands


async def test_a_client_says_nothing_of_its_machine():
    async with scripted_server() as server, smtp(server.port) as transport:
        await transport.ready()
        assert server.commands == [b"EHLO [127.0.0.1]\r\n"]


async def test_the_outbox_takes_everything_at_once():
    transport = OutboxTransport()
    assert await sent(transport, os.urandom(10)) == Accepted("kept in the local outbox")
    await transport.close()
