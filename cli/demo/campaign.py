"""The demo's campaign: its sequences, the rules that reach them, who is enrolled, and the person at its desk."""

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from cli.demo.office import Office

ENROLLED = 120
ENROLLING_SECONDS = 14.0
BATCH = 10
STOPPED_BY_HAND = 3
DESK_EVERY = 2.0
"""Real seconds between two looks at what needs a person; nothing is settled at its first look."""
INBOUND_DOMAIN = "reply.northwind.example.com"
PACE = {"spacing": 0.05, "perMinute": 300, "perHour": 10_000}
"""Of each mailbox, in real time: a burst is spread, and the demo is not stretched."""
MAILBOXES = 3
"""Two of the owners have one of their own; the third is for everybody else."""


def mail_step(id_: str, subject: str | None, text: str) -> dict[str, Any]:
    """Without a subject it answers the mail before."""
    thread: dict[str, Any] = {"subject": subject} if subject else {"thread": "same"}
    text = f"Hello {{{{ contact.firstName }}}},\n\n{text}\n\n{{{{ sender.name }}}}\n"
    return {"kind": "email", "id": id_, **thread, "text": text}


def wait_step(id_: str, days: int) -> dict[str, Any]:
    return {"kind": "wait", "id": id_, "wait": {"for": {"amount": days, "unit": "days"}}}


_WON = [{"on": "deal.stage_changed", "to": ["closed_won"]}]

SEQUENCE = {
    "steps": [
        mail_step("hello", "A question, {{ contact.firstName }}", "may I ask how you do this today?"),
        wait_step("three-days", 3),
        mail_step("nudge", None, "did you find a moment to look at my question?"),
        wait_step("four-days", 4),
        {"kind": "task", "id": "call", "title": "Call them", "dueIn": {"amount": 2, "unit": "business_days"}},
        wait_step("two-days", 2),
        {
            "kind": "branch",
            "id": "known",
            "if": {"field": "contact.leadStatus", "op": "eq", "value": "qualified"},
            "then": [mail_step("offer", "An offer for {{ contact.firstName }}", "here is what it would cost.")],
            "else": [mail_step("ideas", "Three ideas", "here is what others did in your place.")],
        },
        wait_step("five-days", 5),
        mail_step("goodbye", None, "I shall not write again. You know where to find us."),
    ],
    "exits": _WON,
}
"""Fourteen days; four mails and a task for everybody who goes to its end."""
ROUTES = tuple(
    ("hello", "three-days", "nudge", "four-days", "call", "two-days", "known", mail, "five-days", "goodbye")
    for mail in ("offer", "ideas")
)
DAYS_BEFORE = {"nudge": 3, "offer": 6, "ideas": 6, "goodbye": 5, "questions": 2}
"""From the mail before to the mail of a step."""

TERMS = {
    "steps": [
        mail_step("terms", "Our terms", "here are our terms, to read at your leisure."),
        wait_step("terms-two-days", 2),
        mail_step("questions", None, "is anything in them unclear?"),
    ],
    "exits": _WON,
}


def rules(terms: str) -> dict[str, Any]:
    """The rules that send mail, enroll and take out; `terms` is the id of the sequence they are about."""
    thanks = "it is good to hear that we may talk about the details."
    return {
        "Negotiation": {
            "trigger": {"on": "deal.stage_changed", "to": ["negotiation"]},
            "steps": [
                {
                    "kind": "act",
                    "id": "thanks",
                    "action": {
                        "type": "send_email",
                        "subject": "Thank you",
                        "text": f"Hello {{{{ contact.firstName }}}},\n\n{thanks}\n\n{{{{ sender.name }}}}\n",
                    },
                },
                {"kind": "act", "id": "send-terms", "action": {"type": "enroll", "sequence": terms}},
            ],
        },
        "Lost": {
            "trigger": {"on": "deal.stage_changed", "to": ["closed_lost"]},
            "steps": [{"kind": "act", "id": "no-terms", "action": {"type": "take_out", "sequence": terms}}],
        },
    }


@dataclass(frozen=True)
class Made:
    """What was set up, by id; `source` is where mail servers bring letters: its id and its secret."""

    sequence: str
    terms: str
    negotiation: str
    lost: str
    mailboxes: Sequence[str]
    source: tuple[str, str]


@dataclass(frozen=True)
class Settled:
    """An uncertain mail as a person found it: `sent` says that the mail server has it."""

    message: str
    sent: bool
    taken: bool
    """False where its fate was known by other means when they answered."""


@dataclass
class Campaign:
    """What the campaign's people did and were told."""

    enrolled: dict[str, str] = field(default_factory=dict)
    """Enrollment by contact."""
    refused: list[str] = field(default_factory=list)
    stopped: list[str] = field(default_factory=list)
    settled: list[Settled] = field(default_factory=list)
    letters_settled: int = 0


async def set_up(office: Office, owners: Mapping[str, str], mail_port: int) -> Made:
    """`owners` maps names to ids."""
    await office.put("/sending/postal-address", {"postalAddress": "Northwind Ltd\n1 Harbour Road\nOslo"})
    mailboxes = await make_mailboxes(office, owners, mail_port)
    sequence = await active(office, "sequence", "Fourteen days", SEQUENCE)
    terms = await active(office, "sequence", "Terms", TERMS)
    made = {name: await active(office, "rule", name, document) for name, document in rules(terms).items()}
    source = await office.post("/sources", {"name": "Inbound mail"})
    return Made(
        sequence, terms, made["Negotiation"], made["Lost"], mailboxes, (source["source"]["id"], source["secret"])
    )


async def make_mailboxes(office: Office, owners: Mapping[str, str], port: int) -> list[str]:
    """One for each of the first owners; the local outbox, which sends for whoever has none, gets a mail server."""
    server = {"transport": "smtp", "host": "127.0.0.1", "port": port, "security": "none", "pace": PACE}
    (shared,) = [box async for box in office.all("mailboxes")]
    ours = {"name": "Northwind Sales", "fromName": "Northwind Sales", "fromEmail": "sales@northwind.example.com"}
    await office.patch(f"/mailboxes/{shared['id']}", shared["revision"], {**ours, **server})
    made = [str(shared["id"])]
    for number, (name, owner) in enumerate(list(owners.items())[: MAILBOXES - 1], 1):
        box = {"name": name, "ownerId": owner, "fromName": name, "fromEmail": f"rep-{number}@northwind.example.com"}
        made.append((await office.post("/mailboxes", {**box, **server}))["mailbox"]["id"])
    return made


async def active(office: Office, noun: str, name: str, document: Mapping[str, Any]) -> str:
    """Makes a rule or a sequence and switches it on; its id."""
    made = (await office.post(f"/{noun}s", {"name": name, "document": document}))[noun]
    await office.command(f"/{noun}s/{made['id']}/activate", made["revision"])
    id_: str = made["id"]
    return id_


def chosen(seed: int, contacts: Sequence[Mapping[str, Any]], wanted: Sequence[str]) -> list[Mapping[str, Any]]:
    """Whom to enroll: those whose ids are wanted, in that order, then others as the seed has it."""
    by_email = sorted(contacts, key=lambda contact: str(contact["email"]))
    dice = Random(f"enrolled {seed}")
    dice.shuffle(by_email)
    place = {id_: number for number, id_ in enumerate(dict.fromkeys(wanted))}
    by_email.sort(key=lambda contact: place.get(contact["id"], len(place)))
    return by_email[:ENROLLED]


async def enroll(office: Office, made: Made, contacts: Sequence[Mapping[str, Any]], told: Campaign) -> None:
    """A few at a time while deals move; some are enrolled once more by mistake."""
    path = f"/sequences/{made.sequence}/enrollments"
    batches = [contacts[at : at + BATCH] for at in range(0, len(contacts), BATCH)]
    for batch in batches:
        await _enroll(office, path, batch, told)
        await asyncio.sleep(ENROLLING_SECONDS / len(batches))
    await _enroll(office, path, batches[0], told)


async def _enroll(office: Office, path: str, batch: Sequence[Mapping[str, Any]], told: Campaign) -> None:
    answer = await office.post(path, {"contacts": [contact["id"] for contact in batch]})
    for result in answer["results"]:
        if result["enrollmentId"] is None:
            told.refused.append(result["reason"])
        else:
            told.enrolled[result["contactId"]] = result["enrollmentId"]


async def stop_some(office: Office, contacts: Sequence[Mapping[str, Any]], told: Campaign) -> None:
    """Reps take a few out by hand, about a week after they were enrolled."""
    await asyncio.sleep(ENROLLING_SECONDS + 12)
    for contact in contacts:
        # A slow machine may not be through enrolling yet.
        while (enrollment := told.enrolled.get(contact["id"])) is None:  # noqa: ASYNC110  (set by another's answer)
            await asyncio.sleep(0.2)
        if await office.attempt(f"/enrollments/{enrollment}/stop", {"note": "They called us."}):
            told.stopped.append(enrollment)


async def mind_the_desk(office: Office, log: Path, told: Campaign, over: asyncio.Event) -> None:
    """Somebody looks at what needs a person, and sleeps on each before they say what they found.

    Whether an uncertain mail was sent they read in the mail server's own log.
    """
    slept_on: set[str] = set()
    while not over.is_set():
        uncertain = [message async for message in office.all("messages", status="uncertain")]
        for message in uncertain:
            if message["id"] in slept_on:
                await _settle_message(office, message["id"], log, told)
        unreadable = [letter async for letter in office.all("letters", status="unreadable")]
        for letter in unreadable:
            if letter["id"] in slept_on and await office.attempt(f"/letters/{letter['id']}/settle", {"kind": "reply"}):
                told.letters_settled += 1
        slept_on = {record["id"] for record in (*uncertain, *unreadable)}
        await asyncio.sleep(DESK_EVERY)


async def _settle_message(office: Office, id_: str, log: Path, told: Campaign) -> None:
    message = (await office.get(f"/messages/{id_}"))["message"]
    sent = message["content"]["messageId"] in message_ids(log)
    taken = await office.attempt(f"/messages/{id_}/settle", {"sent": sent})
    told.settled.append(Settled(id_, sent, taken))


def message_ids(log: Path) -> list[str]:
    """The Message-IDs of a mail server's log, one a mail it kept."""
    lines = log.read_bytes().split(b"\n")[:-1] if log.exists() else []
    return [json.loads(line)["messageId"] for line in lines]
