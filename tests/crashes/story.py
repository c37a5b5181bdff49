"""The story: one pass through every boundary, told one event at a time so that each run comes past the same points."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from cli.demo import answers
from cli.demo.campaign import active
from cli.demo.mail_server import Received
from cli.demo.office import Office
from cli.demo.town import Answered, Does
from tests.crashes.product import Product

Json = dict[str, Any]


@dataclass(frozen=True)
class Made:
    """What is there before the story begins; a source is an id and its secret."""

    token: str
    rep: str
    sequence: str
    forms: tuple[str, str]
    letters: tuple[str, str]


def _email(id_: str, subject: str) -> Json:
    return {"kind": "email", "id": id_, "subject": subject, "text": "Hello {{ contact.firstName }}, may I ask?"}


def _wait(id_: str, days: int) -> Json:
    return {"kind": "wait", "id": id_, "wait": {"for": {"amount": days, "unit": "days"}}}


def _act(id_: str, type_: str, **fields: Any) -> Json:
    return {"kind": "act", "id": id_, "action": {"type": type_, **fields}}


_DAY = {"amount": 1, "unit": "days"}
SEQUENCE = {
    "steps": [
        _email("hello", "A question"),
        _wait("three-days", 3),
        _email("nudge", "My question"),
        _wait("three-more", 3),
        _email("goodbye", "Goodbye"),
    ]
}


def _rules(sequence: str) -> dict[str, Json]:
    return {
        "Welcome": {
            "trigger": {"on": "contact.created"},
            "steps": [_act("welcome", "create_task", title="Say hello")],
        },
        "Proposal": {
            "trigger": {"on": "deal.stage_changed", "to": ["proposal"]},
            "steps": [
                _act("task", "create_task", title="Call about it", dueIn=_DAY),
                _act("tell", "notify", title="A proposal", to="manager"),
                _act("remind", "remind", title="The proposal waits", after=_DAY, escalateAfter=_DAY),
                _act("thanks", "send_email", subject="Thank you", text="It is good to hear from you."),
                _act("enroll", "enroll", sequence=sequence),
                _wait("one-day", 1),
                {
                    "kind": "branch",
                    "id": "done",
                    "if": {"field": "step.task.completedAt", "op": "is_not_empty"},
                    "then": [{"kind": "exit", "id": "well"}],
                    "else": [_act("on", "move_stage", to="negotiation")],
                },
            ],
        },
        "Negotiation": {
            "trigger": {"on": "deal.stage_changed", "to": ["negotiation"]},
            "steps": [_act("qualify", "set_field", field="contact.leadStatus", value="qualified")],
        },
    }


async def set_up(office: Office, mail_port: int, **people: str) -> Made:
    """An organization that mails by SMTP, with its sequence, its rules and its two sources."""
    await office.put("/sending/postal-address", {"postalAddress": "1 Main Street, Springfield"})
    server = {"transport": "smtp", "host": "127.0.0.1", "port": mail_port, "security": "none"}
    await office.post("/mailboxes", {"name": "Sales", "fromName": "Sal", "fromEmail": "sal@example.com", **server})
    sequence = await active(office, "sequence", "Nine days", SEQUENCE)
    for name, document in _rules(sequence).items():
        await active(office, "rule", name, document)
    forms, letters = [await office.post("/sources", {"name": name}) for name in ("Forms", "Letters")]
    return Made(
        **people,
        sequence=sequence,
        forms=(forms["source"]["path"], forms["secret"]),
        letters=(letters["source"]["id"], letters["secret"]),
    )


async def tell(product: Product, made: Made) -> None:
    """From the first contact to the last mail; at rest after each event."""
    office, outside, quiet, at = product.office, product.outside, product.quiet, f"@{product.domain}"
    await quiet()
    # Ann's proposal: everything a rule can do.
    ann = (await office.post("/contacts", {"email": f"ann{at}", "firstName": "Ann", "ownerId": made.rep}))["contact"]
    await quiet()
    deal = {"title": "Big one", "contactId": ann["id"], "ownerId": made.rep}
    deal = (await office.post("/deals", deal))["deal"]
    await quiet()
    await office.put(f"/deals/{deal['id']}/stage", {"stage": "proposal"})
    await quiet()
    # Bo comes by a webhook, Cy and Di by a file; all three are enrolled.
    await outside.webhook(*made.forms, "msg_bo", _form(f"bo{at}"))
    await quiet()
    await office.upload("/imports/contacts?fireAutomations=true", _csv(f"cy{at}", f"di{at}"))
    await quiet()
    people = {contact["email"].partition("@")[0]: contact["id"] async for contact in office.all("contacts")}
    chosen = {"contacts": [people[name] for name in ("bo", "cy", "di")]}
    results = (await office.post(f"/sequences/{made.sequence}/enrollments", chosen))["results"]
    enrolled = {result["contactId"]: result["enrollmentId"] for result in results}
    await quiet()
    # Di is kept still; Bo answers, Cy wants no more.
    await office.post(f"/enrollments/{enrolled[people['di']]}/pause")
    await quiet()
    await _reply(product, made, _mail(product, "bo", "A question"))
    await quiet()
    await _unsubscribe(product, _mail(product, "cy", "A question"))
    await quiet()
    # The reminder fires and the run goes on; a day later the manager is told; then Ann is nudged.
    for _ in range(3):
        await product.to_the_next()
    await office.post(f"/enrollments/{enrolled[people['di']]}/resume")
    await quiet()
    (of_ann,) = [each async for each in office.all("enrollments", contact=ann["id"])]
    await office.post(f"/enrollments/{of_ann['id']}/stop", {"note": "She called us."})
    await quiet()
    while await product.to_the_next():
        pass


async def _reply(product: Product, made: Made, mail: Received) -> None:
    raw, begun = (
        answers.reply(mail.parsed(), "Thank you, but we have decided already.", "references"),
        datetime.now(UTC),
    )
    letter = await product.outside.letter(*made.letters, raw, "sal@example.com")
    _told(product, mail, Does.REPLY, begun, raw, letter)


async def _unsubscribe(product: Product, mail: Received) -> None:
    begun = datetime.now(UTC)
    await product.outside.one_click(str(mail.parsed()["List-Unsubscribe"]).strip("<>"))
    _told(product, mail, Does.ONE_CLICK, begun)


def _told(
    product: Product, mail: Received, does: Does, begun: datetime, raw: bytes = b"", letter: str | None = None
) -> None:
    (email,) = mail.recipients
    product.told.answered.append(Answered(email, does, mail.message_id, raw, begun, datetime.now(UTC), letter))


def _mail(product: Product, name: str, subject: str) -> Received:
    """The one mail with a subject that somebody got; the first, if there are more."""
    return next(
        mail for mail in product.received() if mail.subject == subject and mail.recipients[0].startswith(f"{name}@")
    )


def _form(email: str) -> Json:
    return {
        "type": "contact.upsert",
        "timestamp": "2026-01-01T00:00:00Z",
        "data": {"email": email, "firstName": "Bo", "lastName": "Web", "leadSource": "partner"},
    }


def _csv(*emails: str) -> bytes:
    lines = [f"{email.partition('@')[0].title()},Import,{email}" for email in emails]
    return "\n".join(["First Name,Last Name,Email", *lines, ""]).encode()
