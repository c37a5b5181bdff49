"""What a rep and an admin do with sequences, on real processes: by HTTP and the command line, into real mail servers.

A day passes in four seconds. What did not happen is judged once something that was due no sooner has.
"""

import asyncio
import itertools
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import SMTP as MAIL_POLICY
from pathlib import Path
from signal import SIGTERM
from typing import Any
from uuid import uuid4
from zoneinfo import ZoneInfo

import aiosmtplib
import httpx2
import pytest
import pytest_asyncio

from cli.demo import answers, campaign
from cli.demo.mail_server import Received
from cli.demo.office import Office, Outside
from domain.due import WEEKDAYS
from runtime.attaching import temporal_server
from runtime.children import free_ports, spawn
from runtime.folders import CHECKOUT
from runtime.processes import Stack
from tests.driving import Json, act, is_, mail, until, wait
from tests.mailing import Certificate, MailServer, certificate, mail_server, scripted_server

pytestmark = pytest.mark.timeout(240)

PATIENCE = 60.0
INBOUND = "reply.acme.example.com"
COMMAND = (sys.executable, "-m", "cli")
A_WHILE = wait("a-while", 30, "hours")
"""Five seconds: long enough to do something to an enrollment before its second mail, on a slow machine too."""
HELLO_AND_NUDGE = (mail("hello"), A_WHILE, mail("nudge", thread="same", text="Did you find a moment?"))

_numbers = itertools.count(1)


@dataclass
class Company:
    """An organization of its own, by its admin's key; its contacts' addresses are of its own domain."""

    slug: str
    office: Office
    mail: MailServer

    async def mailbox(self, name: str = "Sales", **values: Any) -> str:
        """One that sends by the mail server."""
        server = {"transport": "smtp", "host": "127.0.0.1", "port": self.mail.port, "security": "none"}
        sender = {"name": name, "fromName": "Sal", "fromEmail": "sal@acme.example.com"}
        return str((await self.office.post("/mailboxes", {**sender, **server, **values}))["mailbox"]["id"])

    async def change_mailbox(self, id_: str, **values: Any) -> None:
        revision = (await self.office.get(f"/mailboxes/{id_}"))["mailbox"]["revision"]
        await self.office.patch(f"/mailboxes/{id_}", revision, values)

    async def contact(self, name: str, **values: Any) -> str:
        body = {"email": self.address(name), "firstName": name.title(), **values}
        return str((await self.office.post("/contacts", body))["contact"]["id"])

    async def contacts(self, *names: str) -> list[str]:
        return await asyncio.gather(*map(self.contact, names))

    async def deal(self, contact: str, **values: Any) -> str:
        body = {"title": "A licence", "contactId": contact, **values}
        return str((await self.office.post("/deals", body))["deal"]["id"])

    async def sequence(self, *steps: Json, **fields: Any) -> str:
        """An active one."""
        await self.office.put("/sending/postal-address", {"postalAddress": "1 Main Street, Springfield"})
        document = {"steps": steps, **fields}
        return await campaign.active(self.office, "sequence", f"Sequence {next(_numbers)}", document)

    async def switch(self, sequence: str, verb: str) -> None:
        revision = (await self.office.get(f"/sequences/{sequence}"))["sequence"]["revision"]
        await self.office.command(f"/sequences/{sequence}/{verb}", revision)

    async def enroll(self, sequence: str, *people: str, **options: Any) -> list[Json]:
        """A result for each."""
        body = {"contacts": people, **options}
        return list((await self.office.post(f"/sequences/{sequence}/enrollments", body))["results"])

    async def enrolled(self, sequence: str, *people: str, **options: Any) -> list[str]:
        return [result["enrollmentId"] for result in await self.enroll(sequence, *people, **options)]

    async def show(self, enrollment: str) -> Json:
        return dict((await self.office.get(f"/enrollments/{enrollment}"))["enrollment"])

    async def ended(self, enrollment: str) -> Json:
        async def over() -> Json | None:
            found = await self.show(enrollment)
            return found if found["status"] == "ended" else None

        return await until(over, "the end of an enrollment", PATIENCE)

    def address(self, name: str) -> str:
        return f"{name}@{self.slug}.example.org"

    def got(self, *names: str) -> list[Received]:
        """What the mail server's log has for these people, or for all of the company's, oldest first."""
        wanted = {self.address(name) for name in names}
        ours = [one for one in self.mail.received() if one.recipients[0].endswith(f"@{self.slug}.example.org")]
        return [one for one in ours if not wanted or one.recipients[0] in wanted]

    def recipients(self, *names: str) -> list[str]:
        """Of the mails that `got` tells of, in the order of the alphabet."""
        return sorted(one.recipients[0] for one in self.got(*names))

    async def arrived(self, count: int, *names: str) -> list[Received]:
        """As `got`, once there are so many."""

        async def there() -> list[Received] | None:
            found = self.got(*names)
            return found if len(found) >= count else None

        return await until(there, f"{count} mails to {', '.join(names) or 'everybody'}", PATIENCE)


@dataclass
class World:
    """Everything that runs, which the tests share."""

    stack: Stack
    home: Path
    mail: MailServer
    authority: Certificate
    coming: asyncio.Task[Company] | None = None

    @property
    def environment(self) -> dict[str, str]:
        """Of a command that finds what runs by its home folder."""
        return {**os.environ, "DRUMBEAT_HOME": str(self.home)}

    async def drumbeat(self, *arguments: str) -> Any:
        """What a command answers."""
        ran = await asyncio.to_thread(
            subprocess.run,
            [*COMMAND, *arguments],
            cwd=CHECKOUT,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE,
        )
        assert ran.returncode == 0, ran.stderr
        return json.loads(ran.stdout)

    async def company(self) -> Company:
        """One that nobody has used; whoever asks closes its office. The next is made while the test goes on."""
        coming, self.coming = self.coming, asyncio.create_task(self._company())
        return await (coming or self._company())

    async def _company(self) -> Company:
        """As an operator makes one."""
        slug = f"acme-{next(_numbers)}"
        made = await self.drumbeat("create-org", slug, "--email", "ada@example.com", "--zone", "Europe/Berlin")
        return Company(slug, Office(self.stack.api_url, made["apiKey"]), self.mail)


@pytest.fixture(scope="module")
def arrivals(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MailServer]:
    with mail_server(tmp_path_factory.mktemp("mail") / "mail.jsonl") as server:
        yield server


@pytest_asyncio.fixture(scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory, arrivals: MailServer) -> AsyncIterator[World]:
    folder = tmp_path_factory.mktemp("sequences")
    home = folder / "home"
    authority = certificate(folder)
    # As an operator tells a worker whose certificates to believe, and where answers come.
    told = ("env", f"SSL_CERT_FILE={folder / 'certificate.pem'}", f"DRUMBEAT_INBOUND_DOMAIN={INBOUND}")
    stack = Stack(
        home,
        temporal_server(),
        scale=21_600,
        postgres_options={"fsync": "off"},
        command=(*told, *COMMAND),
        tell=lambda _: None,
    )
    async with stack:
        made = World(stack, home, arrivals, authority)
        yield made
        if made.coming is not None:
            await (await made.coming).office.close()


@pytest.fixture
async def company(world: World) -> AsyncIterator[Company]:
    made = await world.company()
    yield made
    await made.office.close()


@pytest_asyncio.fixture(scope="module")
async def neighbour(world: World) -> AsyncIterator[Company]:
    """Of which no more is asked than to go on."""
    made = await world.company()
    yield made
    await made.office.close()


@dataclass
class WayBack:
    """How what people and their machines answer comes in: to the webhook, the mail listener and the links."""

    url: str
    outside: Outside
    source: tuple[str, str]
    mail_port: int

    async def answer(self, name: str, received: Received) -> str | None:
        """Does with a mail what its recipient's name says; the id of the letter, where it is told."""
        hello = received.parsed()
        link, to = str(hello["List-Unsubscribe"]).strip("<>"), str(hello["Reply-To"])
        assert to.endswith(f"@{INBOUND}")
        match name:
            case "form":
                return await self._form(hello)
            case "smtp":
                reply = answers.reply(hello, "Call me on Monday.", "token")
                sender = received.recipients[0]
                await aiosmtplib.send(
                    reply, sender=sender, recipients=[to], hostname="127.0.0.1", port=self.mail_port, timeout=PATIENCE
                )
            case "one-click":
                await self.outside.one_click(link)
            case "page":
                assert link in body(hello)
                await self.outside.unsubscribe(link)
            case "complaint":
                return await self.outside.letter(*self.source, complaint(received), "abuse@acme.example.com")
            case "dead":
                return await self.outside.letter(*self.source, answers.bounce(hello), "sal@acme.example.com")
            case "away":
                return await self.outside.letter(*self.source, answers.out_of_office(hello, "token"), to)
            case "sealed":
                return await self.outside.letter(*self.source, answers.encrypted(hello), to)
        return None

    async def _form(self, hello: EmailMessage) -> str:
        """A reply as a provider takes it apart."""
        headers = f"From: {hello['To']}\nSubject: Re: {hello['Subject']}\nMessage-ID: <{uuid4()}@example.org>\n"
        fields = {
            "headers": headers,
            "envelope": json.dumps({"from": str(hello["To"]), "to": [str(hello["Reply-To"])]}),
            "text": "Yes, let us talk.",
            "subject": f"Re: {hello['Subject']}",
        }
        form = {name: (None, value) for name, value in fields.items()}
        async with httpx2.AsyncClient(base_url=self.url, auth=self.source, timeout=PATIENCE) as provider:
            answer = await provider.post("/webhooks/mail", files=form)
        assert answer.status_code == httpx2.codes.OK, answer.text
        told = answer.json()
        assert (told["matchedBy"], told["new"]) == ("token", True)
        return str(told["letterId"])


def body(mail: EmailMessage) -> str:
    """Its plain text."""
    part = mail.get_body(("plain",))
    assert part is not None
    return str(part.get_content())


def complaint(received: Received) -> bytes:
    """As a provider's feedback loop reports that a mail was called spam (RFC 5965)."""
    report = [
        "From: <feedback@isp.example.net>",
        "To: abuse@acme.example.com",
        "Subject: FW: Hello",
        f"Message-ID: <{uuid4()}@isp.example.net>",
        'Content-Type: multipart/report; report-type=feedback-report; boundary="f"',
        "",
        "--f",
        "Content-Type: text/plain",
        "",
        "This is an abuse report.",
        "--f",
        "Content-Type: message/feedback-report",
        "",
        "Feedback-Type: abuse",
        "User-Agent: Feedback/1.0",
        "Version: 1",
        "--f",
        "Content-Type: message/rfc822",
        "",
        "",
    ]
    return "\r\n".join(report).encode() + received.raw + b"\r\n--f--\r\n"


@pytest.fixture
async def way_back(world: World, company: Company, mail_port: int) -> AsyncIterator[WayBack]:
    source = await company.office.post("/sources", {"name": "Inbound mail"})
    outside = Outside(world.stack.api_url)
    yield WayBack(world.stack.api_url, outside, (source["source"]["id"], source["secret"]), mail_port)
    await outside.close()


@pytest.fixture
async def mail_port(world: World) -> AsyncIterator[int]:
    """Where `drumbeat mail` listens."""
    (port,) = free_ports(1)
    environment = {**world.environment, "DRUMBEAT_MAIL_PORT": str(port)}
    child = spawn([*COMMAND, "mail"], log=world.home / "logs" / "mail.log", env=environment, folder=CHECKOUT)

    async def ready() -> bool:
        assert child.running, child.last_words()
        return '"ready"' in child.output()

    await until(ready, "the mail listener", PATIENCE)
    yield port
    await child.end(SIGTERM, 20)


# --- enrolling, and a person's hand on an enrollment


async def test_one_or_many_are_enrolled_each_with_a_result_of_its_own_and_nobody_twice_at_once(company):
    await company.mailbox()
    sequence = await company.sequence(mail("hello"), wait("a-year", 52, "weeks"))
    ada, bob, cyd, dan = await company.contacts("ada", "bob", "cyd", "dan")
    await company.office.post("/addresses/suppress", {"email": company.address("dan")})
    (first,) = await company.enroll(sequence, ada)
    assert first == {"contactId": ada, "enrollmentId": first["enrollmentId"], "reason": None, "existingId": None}
    stranger = str(uuid4())
    many = await company.enroll(sequence, ada, bob, stranger, dan)
    assert [(one["contactId"], one["reason"], one["existingId"]) for one in many] == [
        (ada, "already_enrolled", first["enrollmentId"]),
        (bob, None, None),
        (stranger, "contact_missing", None),
        (dan, "address_suppressed", None),
    ]
    tries = [one for (one,) in await asyncio.gather(*(company.enroll(sequence, cyd) for _ in range(50)))]
    (made,) = [one["enrollmentId"] for one in tries if one["enrollmentId"]]
    assert {(one["reason"], one["existingId"]) for one in tries} == {(None, None), ("already_enrolled", made)}

    await company.arrived(3)
    whole = (await company.office.get(f"/sequences/{sequence}"))["sequence"]
    assert (whole["enrolledCount"], whole["counts"]) == (3, {"open": 3})
    await company.office.post(f"/enrollments/{made}/stop")
    (again,) = await company.enroll(sequence, cyd)
    assert (again["enrollmentId"], again["reason"], again["existingId"]) == (None, "enrolled_before", made)
    assert company.recipients() == [company.address(name) for name in ("ada", "bob", "cyd")]


async def test_an_enrollment_is_paused_resumed_or_taken_out_and_tells_what_is_next_and_why_then(company):
    await company.mailbox()
    sequence = await company.sequence(*HELLO_AND_NUDGE)
    names = ("paused", "stopped", "witness")
    paused, stopped, witness = await company.enrolled(sequence, *await company.contacts(*names))
    for name in names:
        await company.arrived(1, name)

    async def waiting() -> Json | None:
        found = await company.show(paused)
        return found if found["next"]["waits"] and found["messages"][0]["acceptedAt"] else None

    told = await until(waiting, "the wait", PATIENCE)
    assert told["startedBy"]["kind"] == "user"
    following = told["next"]
    assert (following["step"], following["dueAt"]) == ("a-while", following["waits"]["at"])
    (shift,) = following["waits"]["chain"]
    assert (shift["rule"], shift["at"]) == ("hours", following["dueAt"])
    anchor, due = (datetime.fromisoformat(one) for one in (following["waits"]["anchor"], following["dueAt"]))
    assert due - anchor == timedelta(hours=30)

    answered = await company.office.post(f"/enrollments/{paused}/pause")
    assert (answered["enrollment"]["status"], answered["enrollment"]["next"]["pausedBy"]) == ("paused", ["enrollment"])
    answered = await company.office.post(f"/enrollments/{stopped}/stop", {"note": "She called."})
    assert (answered["enrollment"]["exitReason"], answered["enrollment"]["exitNote"]) == ("stopped", "She called.")

    await company.arrived(2, "witness")
    assert (await company.ended(witness))["exitReason"] == "completed"
    assert len(company.got("paused", "stopped")) == 2, "both were due as early as the witness"

    answered = await company.office.post(f"/enrollments/{paused}/resume")

    async def waits_on() -> Json | None:
        found = await company.show(paused)
        return found if (found["next"]["waits"] or {}).get("chain", [{}])[-1].get("rule") == "pauses" else None

    following = (await until(waits_on, "the resumed wait", PATIENCE))["next"]
    assert [shift["rule"] for shift in following["waits"]["chain"]] == ["hours", "pauses"]
    hello, nudge = await company.arrived(2, "paused")
    assert str(nudge.parsed()["In-Reply-To"]) == hello.message_id
    whole = await company.ended(paused)
    assert whole["exitReason"] == "completed"
    assert [(one["scope"], one["until"] is None) for one in whole["pauses"]] == [("enrollment", False)]
    assert len(company.got("stopped")) == 1


# --- switches and pace

SPACED = {"spacing": 0.2}
MANY, FEW = 25, 8
"""What takes five seconds to leave where it is spaced, and what takes over one."""


@pytest.mark.parametrize(
    ("switch", "reason"),
    [("organization", "sending_stopped"), ("sequence", "sequence_paused"), ("mailbox", "mailbox_paused")],
)
async def test_a_switch_is_quiet_a_second_after_its_answer_while_others_send_and_then_the_rest_leaves_once(
    company, neighbour, switch, reason
):
    box = await company.mailbox(pace=SPACED)
    sequence = await company.sequence(mail("hello"))
    stopped = [f"stopped-{number}" for number in range(MANY)]
    people = await company.contacts(*stopped)
    others, its_sequence, its_box = company, sequence, box
    match switch:
        case "organization":
            others = neighbour
            its_box, its_sequence = await others.mailbox(pace=SPACED), await others.sequence(mail("hello"))
        case "sequence":
            its_sequence = await others.sequence(mail("hello"))
        case _:
            its_box = await others.mailbox("Another", pace=SPACED)
    witnesses = [f"witness-{number}" for number in range(FEW)]
    their_ids = await others.contacts(*witnesses)

    await company.enroll(sequence, *people, mailboxId=box)
    await company.arrived(3)
    match switch:
        case "organization":
            await company.office.post("/sending/stop", {"note": "The price list is wrong."})
        case "sequence":
            await company.switch(sequence, "pause")
        case _:
            await company.office.post(f"/mailboxes/{box}/pause")
    answered = datetime.now(UTC)
    await others.enroll(its_sequence, *their_ids, mailboxId=its_box)
    theirs = await others.arrived(FEW, *witnesses)
    quiet = answered + timedelta(seconds=1)
    assert theirs[-1].at > quiet, "so late others still sent"
    left = company.got(*stopped)
    assert 3 <= len(left) < MANY
    assert len([one for one in left if one.at > quiet]) <= 1, "but for one that a slow machine was at"
    waiting = [one async for one in company.office.all("messages", status="pending")]
    assert len(waiting) == MANY - len(left)
    told = (await company.office.get(f"/messages/{waiting[0]['id']}"))["message"]
    assert (told["attempts"], told["next"]["why"]["reason"]) == ([], reason)

    await company.change_mailbox(box, pace={})
    match switch:
        case "organization":
            await company.office.post("/sending/resume")
        case "sequence":
            await company.switch(sequence, "activate")
        case _:
            await company.office.post(f"/mailboxes/{box}/resume")
    await company.arrived(MANY, *stopped)
    accepted = await everything_accepted(company)
    assert accepted >= MANY
    assert company.recipients(*stopped) == sorted(map(company.address, stopped))


async def everything_accepted(company: Company) -> int:
    """How many messages the company has, once all of them have left: nothing more can come."""

    async def over() -> int:
        statuses = [one["status"] async for one in company.office.all("messages")]
        return len(statuses) if set(statuses) == {"accepted"} else 0

    return await until(over, "the last message", PATIENCE)


async def test_a_cap_lets_so_many_leave_and_hours_let_them_leave_when_they_open(company):
    capped = await company.mailbox("Capped", pace={"perMinute": 3})
    sequence = await company.sequence(mail("hello"))
    many = [f"capped-{number}" for number in range(5)]
    people = await company.contacts(*many)
    night = await company.contact("night")
    now = (await company.office.get(f"/contacts/{night}"))["contact"]["createdAt"]
    today = datetime.fromisoformat(now).astimezone(ZoneInfo("Europe/Berlin")).weekday()
    open_days = [WEEKDAYS[(today + ahead) % 7] for ahead in range(2, 7)]
    hours = [{"weekdays": open_days, "opens": "00:00", "closes": "24:00"}]
    closed = await company.mailbox("Closed", pace={"hours": hours})
    (asleep,) = await company.enrolled(sequence, night, mailboxId=closed)
    why = await why_unsent(company, asleep, "hours")
    assert why["detail"] == f"opens {open_days[0]} 00:00 in Europe/Berlin"
    assert company.got("night") == []

    enrollments = await company.enrolled(sequence, *people, mailboxId=capped)
    await company.arrived(3, *many)
    last = next(id_ for id_, name in zip(enrollments, many, strict=True) if not company.got(name))
    why = await why_unsent(company, last, "per_minute")
    assert 0 < why["seconds"] <= 60

    await company.arrived(1, "night")
    (message,) = (await company.ended(asleep))["messages"]
    (attempt,) = (await company.office.get(f"/messages/{message['id']}"))["message"]["attempts"]
    claimed = datetime.fromisoformat(attempt["claimedAt"]).astimezone(ZoneInfo("Europe/Berlin"))
    assert WEEKDAYS[claimed.weekday()] in open_days

    first = [one.at for one in company.got(*many)]
    assert len(first) == 3 or first[3] - first[0] >= timedelta(seconds=59), "the fourth leaves a minute after the first"
    await company.change_mailbox(capped, pace={})
    await company.arrived(5, *many)
    assert await everything_accepted(company) == 6
    assert len(company.got()) == 6


async def why_unsent(company: Company, enrollment: str, reason: str) -> Json:
    """What keeps the mail of an enrollment from leaving, once it is this."""

    async def told() -> Json | None:
        unsent = (await company.show(enrollment))["next"]["message"]
        why = unsent and unsent["why"]
        return why if why and why["reason"] == reason else None

    return await until(told, reason, PATIENCE)


# --- transports


async def test_mail_of_the_local_outbox_is_listed_and_written_as_files_and_leaves_for_no_server(
    world, company, tmp_path
):
    sequence = await company.sequence(mail("hello", "Grüße, {{ contact.firstName }}", "How is it going?"))
    (enrollment,) = await company.enrolled(sequence, await company.contact("ada"))
    await company.ended(enrollment)
    listed = await world.drumbeat("outbox", "--org", company.slug, "--eml", str(tmp_path / "mails"))
    assert listed["total"] == 1
    (kept,) = listed["messages"]
    assert (kept["to"], kept["subject"]) == (company.address("ada"), "Grüße, Ada")
    (file,) = (tmp_path / "mails").iterdir()
    assert file.name == f"{kept['id']}.eml"
    written = message_from_bytes(file.read_bytes(), EmailMessage, policy=MAIL_POLICY)
    assert (str(written["To"]), str(written["Subject"])) == (company.address("ada"), "Grüße, Ada")
    assert str(written["List-Unsubscribe"]).startswith(f"<{world.stack.api_url}/u/")
    assert str(written["List-Unsubscribe-Post"]) == "List-Unsubscribe=One-Click"
    assert [part.get_content_type() for part in written.iter_parts()] == ["text/plain", "text/html"]
    assert "How is it going?" in body(written)
    assert "1 Main Street, Springfield" in body(written)
    (of_api,) = (await company.office.get("/outbox"))["messages"]
    assert of_api["id"] == kept["id"]
    assert company.got() == []


async def test_a_mailbox_speaks_starttls_to_whom_its_worker_believes_and_to_nobody_else(world, company, tmp_path):
    extensions = {"EHLO": "250-test\r\n250-STARTTLS\r\n250 AUTH PLAIN"}
    login = {"security": "starttls", "username": "sal", "password": "a secret"}
    doubtful = certificate(tmp_path)
    sequence = await company.sequence(mail("hello"))
    ada, bob = await company.contacts("ada", "bob")
    async with (
        scripted_server(extensions, starttls=world.authority.server) as trusted,
        scripted_server(extensions, starttls=doubtful.server) as stranger,
    ):
        well = await company.mailbox("Well", port=trusted.port, **login)
        ill = await company.mailbox("Ill", port=stranger.port, **login)
        (kept,) = await company.enrolled(sequence, bob, mailboxId=ill)
        (sent,) = await company.enrolled(sequence, ada, mailboxId=well)
        assert (await company.ended(sent))["exitReason"] == "completed"
        await why_unsent(company, kept, "mailbox_in_trouble")
        assert (await company.office.get(f"/mailboxes/{ill}"))["mailbox"]["trouble"] == "tls_refused"
        (content,) = trusted.contents
        verbs = [command.split()[0].upper() for command in trusted.commands]
        assert verbs.index(b"STARTTLS") < verbs.index(b"AUTH") < verbs.index(b"MAIL")
        assert f"To: {company.address('ada')}".encode() in content
        assert not any(command.upper().startswith((b"AUTH", b"MAIL")) for command in stranger.commands)


# --- mail in


async def test_what_comes_back_stops_whom_it_should_however_it_comes_and_lets_the_others_go_on(company, way_back):
    await company.mailbox()
    sequence = await company.sequence(*HELLO_AND_NUDGE)
    ends = {
        "form": "replied",
        "smtp": "replied",
        "complaint": "complained",
        "one-click": "unsubscribed",
        "page": "unsubscribed",
        "dead": "bounced",
        "away": "completed",
        "witness": "completed",
    }
    names = [*ends, "sealed"]
    people = dict(zip(names, await company.contacts(*names), strict=True))
    ids = dict(zip(names, await company.enrolled(sequence, *people.values()), strict=True))

    async def answer(name):
        (received,) = await company.arrived(1, name)
        return await way_back.answer(name, received)

    letters = dict(zip(names, await asyncio.gather(*map(answer, names)), strict=True))
    await company.arrived(2, "witness")
    await company.arrived(2, "away")
    for name, reason in ends.items():
        assert (await company.ended(ids[name]))["exitReason"] == reason, name
    assert len(company.got()) == len(names) + 2
    another = await company.sequence(mail("hello"))
    again = await company.enroll(another, *(people[name] for name in ("complaint", "one-click", "page", "dead")))
    assert {one["reason"] for one in again} == {"address_suppressed"}
    said = [letter["text"] async for letter in company.office.all("letters", contact=people["smtp"])]
    assert said == ["Call me on Monday."]

    held = await company.show(ids["sealed"])
    assert (held["status"], held["next"]["heldBy"]) == ("open", [letters["sealed"]])
    (unreadable,) = [letter["id"] async for letter in company.office.all("letters", status="unreadable")]
    assert unreadable == letters["sealed"]
    await company.office.post(f"/letters/{unreadable}/settle", {"kind": "auto_reply"})
    await company.arrived(2, "sealed")
    assert len(company.got()) == len(names) + 3


# --- data and rules


async def test_a_stage_an_owner_or_a_field_that_changes_ends_the_enrollment_it_is_about(company):
    await company.mailbox()
    exits = (
        {"on": "deal.stage_changed", "to": ["closed_won"]},
        {"on": "contact.updated", "changed": ["ownerId"]},
        {"on": "contact.updated", "changed": ["leadStatus"], "if": is_("contact.leadStatus", "eq", "unqualified")},
        {"on": "deal.updated", "changed": ["valueCents"], "if": is_("deal.valueCents", "lt", 100)},
    )
    sequence = await company.sequence(*HELLO_AND_NUDGE, exits=exits)
    names = ("stage", "owner", "field", "worth", "witness")
    people = await company.contacts(*names)
    deals = [await company.deal(contact, valueCents=5000) for contact in people]
    rep = {"email": "rob@example.com", "name": "Rob", "role": "rep"}
    rob = (await company.office.post("/users", rep))["user"]["id"]
    ids = await company.enrolled(sequence, *people)

    async def change(noun: str, id_: str, **values: Any) -> None:
        revision = (await company.office.get(f"/{noun}s/{id_}"))[noun]["revision"]
        await company.office.patch(f"/{noun}s/{id_}", revision, values)

    await company.arrived(1, "stage")
    await company.office.put(f"/deals/{deals[0]}/stage", {"stage": "closed_won"})
    await company.arrived(1, "owner")
    await change("contact", people[1], ownerId=rob)
    await company.arrived(1, "field")
    await change("contact", people[2], leadStatus="unqualified")
    await company.arrived(1, "worth")
    await change("deal", deals[3], valueCents=99)
    # Of each kind one that is not meant.
    await company.office.put(f"/deals/{deals[4]}/stage", {"stage": "proposal"})
    await change("contact", people[4], leadStatus="qualified")
    await change("deal", deals[4], valueCents=100)

    for number, id_ in enumerate(ids[:-1], 1):
        left = await company.ended(id_)
        assert (left["exitReason"], left["saw"]["exit"]) == ("exit_met", number)
    await company.arrived(2, "witness")
    assert (await company.ended(ids[-1]))["exitReason"] == "completed"
    assert len(company.got()) == len(names) + 1


async def test_a_rule_enrolls_on_a_stage_change_and_another_takes_out(company):
    await company.mailbox()
    sequence = await company.sequence(*HELLO_AND_NUDGE)
    for stage, action in (("proposal", "enroll"), ("closed_lost", "take_out")):
        steps = [act("act", action, sequence=sequence)]
        document = {"trigger": {"on": "deal.stage_changed", "to": [stage]}, "steps": steps}
        await campaign.active(company.office, "rule", action, document)
    people = await company.contacts("lost", "witness", "nobody")
    lost, witness, _ = [await company.deal(contact) for contact in people]
    for deal in (lost, witness):
        await company.office.put(f"/deals/{deal}/stage", {"stage": "proposal"})
    await company.arrived(1, "lost")
    await company.office.put(f"/deals/{lost}/stage", {"stage": "closed_lost"})
    await company.arrived(2, "witness")

    taken_out, completed = [await the_enrollment(company, contact) for contact in people[:2]]
    assert (taken_out["startedBy"]["kind"], taken_out["exitReason"]) == ("rule", "stopped")
    assert (await company.ended(completed["id"]))["exitReason"] == "completed"
    assert (taken_out["dealId"], completed["dealId"]) == (lost, witness)
    runs = {run["ruleName"]: run async for run in company.office.all("runs", deal=lost)}
    assert set(runs) == {"enroll", "take_out"}
    (step,) = (await company.office.get(f"/runs/{runs['enroll']['id']}"))["run"]["steps"]
    assert step["made"] == {"kind": "enrollment", "id": taken_out["id"]}
    assert company.recipients() == [company.address(name) for name in ("lost", "witness", "witness")]


async def the_enrollment(company: Company, contact: str) -> Json:
    (found,) = [one["id"] async for one in company.office.all("enrollments", contact=contact)]
    return await company.show(found)


# --- the why of a message


async def test_a_message_tells_how_it_was_planned_claimed_refused_for_now_and_accepted(company, tmp_path):
    with mail_server(tmp_path / "mail.jsonl", "--defer", "2", "--delay", "3") as slow:
        company.mail = slow
        box = await company.mailbox()
        await company.office.post(f"/mailboxes/{box}/pause")
        sequence = await company.sequence(mail("hello"))
        (enrollment,) = await company.enrolled(sequence, *await company.contacts("ada"))

        async def message(**wanted: Any) -> Json:
            async def told() -> Json | None:
                for found in (await company.show(enrollment))["messages"]:
                    whole = (await company.office.get(f"/messages/{found['id']}"))["message"]
                    if all(whole[name] == value for name, value in wanted.items()):
                        return dict(whole)
                return None

            return await until(told, str(wanted), PATIENCE)

        planned = await message(status="pending")
        assert planned["next"]["why"] == {"reason": "mailbox_paused", "seconds": None, "detail": None}
        assert (planned["attempts"], planned["content"], planned["acceptedAt"]) == ([], None, None)
        assert planned["writtenBy"]["id"] == enrollment
        await company.office.post(f"/mailboxes/{box}/resume")

        why = await why_unsent(company, enrollment, "refused_for_now")
        assert 0 < why["seconds"] <= 2
        claimed = await message(status="claimed", attemptsMade=3)
        assert claimed["next"]["why"]["reason"] == "being_sent"
        *refused, open_one = claimed["attempts"]
        assert [(one["outcome"], one["answer"]) for one in refused] == [("refused", "4.2.0 try again later")] * 2
        assert (open_one["outcome"], open_one["answer"], open_one["endedAt"]) == (None, None, None)

        accepted = await message(status="accepted")
        assert accepted["next"] is None
        *refused, last = accepted["attempts"]
        assert (last["outcome"], last["answer"]) == ("accepted", "2.0.0 kept")
        assert (last["saw"]["enrollment"], last["saw"]["suppressed"]) == ("open", None)
        told = [(one["claimedAt"], one["endedAt"]) for one in (*refused, last)]
        moments = [accepted["dueAt"], *itertools.chain.from_iterable(told)]
        assert moments == sorted(moments, key=datetime.fromisoformat)
        assert accepted["acceptedAt"] == last["endedAt"]
        (received,) = company.got()
        assert (accepted["content"]["toEmail"], accepted["content"]["messageId"]) == (
            company.address("ada"),
            received.message_id,
        )
