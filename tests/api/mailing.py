"""What the tests of sequences and mail share: an office that can send, and mail on its way out and in."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from uuid import UUID

import httpx2
from sqlalchemy import text

from domain.inbound_mail import glance
from domain.link_tokens import Purpose, subkey, token
from domain.mail import Mail, message_id, to_json
from store import intents, letters
from store.intents import Claim, Unclaimed
from tests.api.conftest import MASTER_KEY, Office
from tests.conftest import Base
from tests.driving import advance

ANY = {"If-Match": "*"}
STRANGER = "01999999-0000-7000-8000-000000000000"
HELLO = {"kind": "email", "id": "hello", "subject": "Hello", "text": "How is it going?"}
WAIT = {"kind": "wait", "id": "wait", "wait": {"for": {"amount": 3, "unit": "business_days"}}}
NUDGE = {"kind": "email", "id": "nudge", "thread": "same", "text": "Did you find a moment?"}
DOCUMENT: dict[str, Any] = {"steps": [HELLO, WAIT, NUDGE]}
Json = dict[str, Any]


async def post(client: httpx2.AsyncClient, path: str, body: Any = None, **headers: str) -> Json:
    """The record of a POST that went well."""
    answer = await client.post(path, json=body, headers={**ANY, **headers})
    assert answer.is_success, answer.text
    told: Json = answer.json()
    return next(iter(told.values())) if len(told) == 1 else told


async def make_mailbox(admin: httpx2.AsyncClient, name: str = "Sales", **fields: Any) -> str:
    body = {"name": name, "fromName": "Rob Rep", "fromEmail": "rob@acme.example.com", **fields}
    return str((await post(admin, "/mailboxes", body))["id"])


async def make_contact(client: httpx2.AsyncClient, email: str = "carla@customer.example.com", **fields: Any) -> str:
    return str((await post(client, "/contacts", {"email": email, **fields}))["id"])


async def make_sequence(
    admin: httpx2.AsyncClient, document: Json | None = None, name: str = "Trial", *, active: bool = True
) -> str:
    made = await post(admin, "/sequences", {"name": name, "document": document or DOCUMENT})
    if active:
        address = await admin.put("/sending/postal-address", json={"postalAddress": "Acme, Torstraße 1, Berlin"})
        assert address.is_success, address.text
        await post(admin, f"/sequences/{made['id']}/activate")
    return str(made["id"])


@dataclass
class Post:
    """An office with one mailbox, one active sequence and one contact."""

    office: Office
    base: Base
    mailbox: str
    sequence: str
    contact: str

    async def enroll(self, *contacts: str, **fields: Any) -> Json:
        """The answer to enrolling these, or the one contact there is."""
        body = {"contacts": [*contacts] or [self.contact], **fields}
        return await post(self.office.rep, f"/sequences/{self.sequence}/enrollments", body)

    async def enrolled(self) -> str:
        """The contact's new enrollment."""
        (result,) = (await self.enroll())["results"]
        assert result["reason"] is None, result
        return str(result["enrollmentId"])

    async def show(self, enrollment: str) -> Json:
        answer = await self.office.rep.get(f"/enrollments/{enrollment}")
        assert answer.status_code == 200, answer.text
        shown: Json = answer.json()["enrollment"]
        return shown

    async def message(self, id: str) -> Json:
        answer = await self.office.rep.get(f"/messages/{id}")
        assert answer.status_code == 200, answer.text
        shown: Json = answer.json()["message"]
        return shown

    async def written(self, enrollment: str) -> str:
        """The message that the enrollment's next steps write."""
        await advance(self.base, UUID(enrollment), "enrollment")
        return str((await self.show(enrollment))["messages"][-1]["id"])

    async def claim(self, message: str) -> Claim | Unclaimed:
        """As the mailbox claims it."""
        async with self.base.transaction() as tx:
            email = await tx.connection.scalar(
                text("SELECT email FROM contacts JOIN intents i ON i.contact_id = contacts.id WHERE i.id = :i"),
                {"i": UUID(message)},
            )
            mail = replace(rendered(UUID(message), tx.now), to_email=email)
            return await intents.claim(
                tx,
                UUID(message),
                UUID(self.mailbox),
                message_id=mail.message_id,
                rendered=to_json(mail),
                call_seconds=15,
            )

    async def claimed(self, message: str) -> Claim:
        found = await self.claim(message)
        assert isinstance(found, Claim), found
        return found

    async def accepted(self, message: str) -> None:
        claim = await self.claimed(message)
        async with self.base.transaction() as tx:
            assert await intents.accepted(tx, claim, "250 2.0.0 kept")

    async def uncertain(self, message: str) -> None:
        claim = await self.claimed(message)
        async with self.base.transaction() as tx:
            assert await intents.lost(tx, claim, "the connection was lost")

    async def failed(self, message: str) -> None:
        claim = await self.claimed(message)
        async with self.base.transaction() as tx:
            assert await intents.failed(tx, claim, "554 5.6.0 not this one")


def rendered(message: UUID, at: datetime) -> Mail:
    return Mail(
        message_id=message_id(message, "acme.example.com"),
        at=at,
        from_name="Rob Rep",
        from_email="rob@acme.example.com",
        to_email="carla@customer.example.com",
        reply_to=reply_address(message),
        subject="Hello",
        text="How is it going?\n",
        html="<p>How is it going?</p>",
        in_reply_to=None,
        references=(),
        unsubscribe_url=f"https://crm.example.com{unsubscribe_path(message)}",
        postal_address="Acme, Torstraße 1, Berlin",
    )


def unsubscribe_path(message: UUID | str) -> str:
    return f"/u/{token(subkey(MASTER_KEY), UUID(str(message)), Purpose.UNSUBSCRIBE)}"


def reply_address(message: UUID | str) -> str:
    return f"reply+{token(subkey(MASTER_KEY), UUID(str(message)), Purpose.REPLY)}@in.example.com"


def raw_mail(text: str = "Yes, let us talk.", **headers: str) -> bytes:
    """A mail of Carla's; header names have `_` for `-`."""
    told: Mapping[str, str] = {
        "From": "Carla <carla@customer.example.com>",
        "To": "rob@acme.example.com",
        "Subject": "Re: Hello",
        "Message-ID": "<answer-1@customer.example.com>",
        **{name.replace("_", "-"): value for name, value in headers.items()},
    }
    return "".join(f"{name}: {value}\r\n" for name, value in told.items()).encode() + f"\r\n{text}\r\n".encode()


async def make_post(office: Office, base: Base) -> Post:
    mailbox = await make_mailbox(office.admin)
    sequence = await make_sequence(office.admin)
    return Post(office, base, mailbox, sequence, await make_contact(office.rep))


async def make_post_elsewhere(office: Office, base: Base) -> Post:
    """As `make_post`, of another organization in the same database."""
    me = (await office.rep.get("/me")).json()
    there = replace(base)
    there.org, there.rep = UUID(me["organization"]["id"]), UUID(me["user"]["id"])
    return await make_post(office, there)


async def correspondence(office: Office, base: Base, contact: str) -> dict[str, str]:
    """The ids of one of everything that is written for a contact, and of a letter."""
    template = await post(office.admin, "/templates", {"name": "T", "content": {"subject": "S", "text": "T"}})
    mailbox, sequence = await make_mailbox(office.admin), await make_sequence(office.admin)
    written = Post(office, base, mailbox, sequence, contact)
    enrollment = await written.enrolled()
    message = await written.written(enrollment)
    async with base.transaction() as tx:
        came = letters.Envelope(bytes(32), raw_mail(), glance(raw_mail()), message=UUID(message))
        letter, _ = await letters.receive(tx, came)
    return {
        "template": template["id"],
        "mailbox": mailbox,
        "sequence": sequence,
        "enrollment": enrollment,
        "message": message,
        "letter": str(letter.id),
        "address": (await written.message(message))["addressId"],
    }
