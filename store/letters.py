"""Letters: inbound mail, stored once; held at receipt what it may stop, and stopped or let go once it is read."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import timedelta
from hashlib import sha256
from typing import Any
from uuid import UUID

from sqlalchemy import func, select, update
from sqlalchemy.dialects.postgresql import insert as insert_or
from sqlalchemy.ext.asyncio import AsyncConnection
from uuid_utils.compat import uuid7

from domain import link_tokens
from domain.delivery import Happening
from domain.inbound_mail import Glance, Letter, LetterKind, glance
from domain.keys import EffectKey
from domain.link_tokens import Purpose
from domain.words import ExitReason, LetterStatus, Suppression
from store import activities, addresses, identity, intents, notifications, stops, suppressions
from store.errors import IllegalTransition, NotFound
from store.events import Record
from store.hints import LETTERS
from store.pages import Page, Span, equal, page
from store.tables import executions, letters, versions
from store.transaction import Transaction

PASS = 20
"""Letters taken to be read at a time."""


@dataclass(frozen=True)
class Envelope:
    """How a letter came: `key` tells it from every other, `message` is whom its recipient's token names."""

    key: bytes
    raw: bytes
    glance: Glance
    recipient: str | None = None
    source: UUID | None = None
    message: UUID | None = None


def envelope(raw: bytes, *, recipients: Sequence[str], source: UUID | None, link_key: bytes) -> Envelope:
    """What is known of a mail at receipt; whatever the bytes are, there is an answer.

    `recipients` are those of its delivery, normalised; without any those that its headers name
    count. The token of one of them says which message it answers. `link_key` is `link_tokens.subkey`.
    """
    seen = glance(raw)
    named = {address: _answered(link_key, address) for address in (*recipients, *seen.to_emails)}
    recipient = next((address for address, message in named.items() if message), None) or next(iter(named), None)
    told = raw if seen.message_id is None else f"{seen.message_id}\n{recipient or ''}".encode()
    message = named[recipient] if recipient else None
    return Envelope(sha256(told).digest(), raw, seen, recipient, source, message)


async def receive(tx: Transaction, came: Envelope) -> tuple[Record, bool]:
    """Stores a letter and holds what it may stop; the letter, and False if it was here before.

    Matched by our token, else by the messages it refers to, else by its sender.
    """
    row = {
        "org_id": tx.org,
        "id": uuid7(),
        "source_id": came.source,
        "key": came.key,
        "raw": came.raw,
        "recipient": came.recipient,
        "from_email": came.glance.from_email,
        "subject": came.glance.subject,
        "status": LetterStatus.RECEIVED.value,
        "received_at": tx.now,
        **await _matched(tx, came),
    }
    made = insert_or(letters).values(row).on_conflict_do_nothing(index_elements=["org_id", "key"])
    tx.hints.add(LETTERS)
    found = (await tx.execute(made.returning(*letters.c))).one_or_none()
    if found is None:
        known = select(letters).where(letters.c.org_id == tx.org, letters.c.key == came.key)
        return (await tx.execute(known)).one(), False
    people = await _people(tx, found)
    if people:
        await stops.hold(tx, found.id, await stops.enrolled(tx, people))
    return found, True


async def unread(connection: AsyncConnection) -> dict[UUID, list[UUID]]:
    """Letters to read, oldest first, by organization; seen by the relay's role."""
    statement = select(letters.c.org_id, letters.c.id).where(letters.c.status == LetterStatus.RECEIVED)
    found: dict[UUID, list[UUID]] = {}
    for row in await connection.execute(statement.order_by(letters.c.received_at).limit(PASS)):
        found.setdefault(row.org_id, []).append(row.id)
    return found


async def forget_raw(tx: Transaction, period: timedelta, most: int) -> int:
    """Empties the raw form of letters that were read so long ago; what was read of them stays. How many."""
    old = (
        select(letters.c.id)
        .where(
            letters.c.org_id == tx.org,
            letters.c.status.in_([LetterStatus.READ, LetterStatus.SETTLED]),
            letters.c.read_at < tx.now - period,
            func.length(letters.c.raw) > 0,
        )
        .limit(most)
        .with_for_update(skip_locked=True)
    )
    emptied = update(letters).where(letters.c.org_id == tx.org, letters.c.id.in_(old)).values(raw=b"")
    return (await tx.execute(emptied)).rowcount


async def raw(tx: Transaction, id: UUID) -> bytes:
    """As it came; empty when that is no longer kept. Raises `NotFound`."""
    found: bytes | None = (
        await tx.execute(select(letters.c.raw).where(letters.c.org_id == tx.org, letters.c.id == id))
    ).scalar_one_or_none()
    if found is None:
        raise NotFound("Letter")
    return found


async def understood(tx: Transaction, id: UUID, read: Letter) -> bool:
    """What a letter says takes effect, once: it stops, or lets go. False if somebody else has read it."""
    found = await _taken(tx, id, LetterStatus.RECEIVED)
    if found is None:
        return False
    await _apply(tx, found, read)
    await _write(tx, id, LetterStatus.READ, kind=read.kind.value, text=read.text)
    return True


async def not_understood(tx: Transaction, id: UUID, why: str) -> bool:
    """What it may stop stays held, and a person is asked what it is."""
    found = await _taken(tx, id, LetterStatus.RECEIVED)
    if found is None:
        return False
    await _write(tx, id, LetterStatus.UNREADABLE, detail=why[:500])
    await _tell_owner(tx, found, "letter", "A letter could not be read: is it an answer?")
    return True


async def settle(tx: Transaction, id: UUID, kind: LetterKind) -> Record:
    """A person's word on a letter nobody could read. Raises `NotFound`, and `IllegalTransition` for any other."""
    found = await _taken(tx, id, LetterStatus.UNREADABLE)
    if found is None:
        status = (await get(tx, id)).status
        raise IllegalTransition(f"only an unreadable letter is settled; this one is {status}", "status")
    read = Letter(kind=kind, text="", full_text="", subject=found.subject, bounce=None, back_on=None, original_ids=())
    await _apply(tx, found, read)
    if kind in _GIVES_UP and found.contact_id is not None and found.intent_id is None:
        await suppressions.of_contact(tx, found.contact_id, _GIVES_UP[kind])
    await _write(tx, id, LetterStatus.SETTLED, kind=kind.value, settled_by=tx.origin.id)
    return await get(tx, id)


_GIVES_UP = {LetterKind.COMPLAINT: Suppression.COMPLAINED, LetterKind.BOUNCE: Suppression.BOUNCED}
"""What a person's word on a letter that names no message of ours means for its sender's address."""


async def get(tx: Transaction, id: UUID) -> Record:
    """Without its raw form. Raises `NotFound`."""
    statement = select(*_SHOWN).where(letters.c.org_id == tx.org, letters.c.id == id)
    found = (await tx.execute(statement)).one_or_none()
    if found is None:
        raise NotFound("Letter")
    return found


async def search(
    tx: Transaction, span: Span, *, status: LetterStatus | None = None, contact: UUID | None = None
) -> Page:
    """Newest first, without their raw forms."""
    wanted = equal({letters.c.status: status, letters.c.contact_id: contact})
    return await page(tx, select(*_SHOWN).where(letters.c.org_id == tx.org, *wanted), letters.c.id, span)


def _answered(link_key: bytes, address: str) -> UUID | None:
    """The message that a reply address was made for."""
    token = link_tokens.token_in(address)
    return link_tokens.read(link_key, token, Purpose.REPLY) if token else None


_SHOWN = [column for column in letters.c if column.name not in ("raw", "key")]


async def _matched(tx: Transaction, came: Envelope) -> dict[str, Any]:
    if came.message is not None:
        message = await intents.find(tx, came.message)
        if message is not None:
            return {"matched_by": "token", "intent_id": message.id, "contact_id": message.contact_id}
    referred = {row.message_id: row for row in await intents.by_message_ids(tx, came.glance.references)}
    for reference in came.glance.references:
        if reference in referred:
            message = referred[reference]
            return {"matched_by": "references", "intent_id": message.id, "contact_id": message.contact_id}
    sender = await _senders(tx, came.glance.from_email)
    return {"matched_by": "sender", "contact_id": sender[0]} if sender else {}


async def _senders(tx: Transaction, email: str | None) -> list[UUID]:
    """The contacts with an address; one, but for deleted ones."""
    return [] if email is None else await addresses.holders(tx, email)


async def _people(tx: Transaction, letter: Record) -> set[UUID]:
    """Whose enrollments a letter may stop: whom we wrote to, and whoever has the sender's address."""
    found = set(await _senders(tx, letter.from_email))
    return found | {letter.contact_id} if letter.contact_id else found


async def _apply(tx: Transaction, found: Record, read: Letter) -> None:
    match read.kind:
        case LetterKind.REPLY:
            await _reply(tx, found, read)
        case LetterKind.BOUNCE:
            await _bounce(tx, found, read)
        case LetterKind.COMPLAINT:
            for message in await _about(tx, found, read):
                await suppressions.of_message(tx, message, Suppression.COMPLAINED)
                await intents.evidence(tx, message, Happening.COMPLAINED, "complained")
        case LetterKind.AUTO_REPLY:
            pass  # somebody is away: what was held goes on
    await stops.release(tx, found.id)


async def _reply(tx: Transaction, found: Record, read: Letter) -> None:
    people = await _people(tx, found)
    inside = await _stopped_by_replies(tx, await stops.enrolled(tx, people))
    await stops.end(tx, inside, ExitReason.REPLIED, note=f"letter {found.id}")
    if found.intent_id is not None:
        await intents.replied(tx, found.intent_id)
    if found.contact_id is not None:
        await activities.log(
            tx,
            {
                "type": "email",
                "subject": found.subject or "(no subject)",
                "body": read.text,
                "direction": "inbound",
                "contact_id": found.contact_id,
                "deal_id": await intents.deal_of(tx, found.intent_id),
                "metadata": {"letterId": str(found.id)},
            },
        )
        await _tell_owner(tx, found, "reply", "A contact has answered")


async def _bounce(tx: Transaction, found: Record, read: Letter) -> None:
    """An address that is dead is given up; a mail that was refused for another reason is only known to be lost."""
    dead = read.bounce is None or (read.bounce.permanent and read.bounce.about_address)
    for message in await _about(tx, found, read):
        if dead:
            await suppressions.of_message(tx, message, Suppression.BOUNCED)
        if dead or (read.bounce is not None and read.bounce.permanent):
            await intents.evidence(tx, message, Happening.BOUNCED, "bounced" if dead else "bounced_not_the_address")


async def _about(tx: Transaction, found: Record, read: Letter) -> list[UUID]:
    """The messages a report is about: the one its envelope names, else those it encloses."""
    if found.intent_id is not None:
        return [found.intent_id]
    enclosed = [read.bounce.original_message_id] if read.bounce and read.bounce.original_message_id else []
    return [row.id for row in await intents.by_message_ids(tx, [*enclosed, *read.original_ids])]


async def _stopped_by_replies(tx: Transaction, ids: Collection[UUID]) -> list[UUID]:
    goes_on = versions.c.document["stopOnReply"].astext == "false"
    statement = (
        select(executions.c.id)
        .join(versions, (versions.c.org_id == executions.c.org_id) & (versions.c.id == executions.c.version_id))
        .where(executions.c.org_id == tx.org, executions.c.id.in_(ids), func.coalesce(goes_on, False).is_(False))
    )
    return list((await tx.execute(statement)).scalars())


async def _tell_owner(tx: Transaction, found: Record, reason: str, title: str) -> None:
    owner = await identity.owner_of(tx, found.contact_id) or await identity.first_admin(tx)
    if owner is not None:
        key = EffectKey(found.id, reason, 1)
        values = {"user_id": owner, "reason": reason, "title": title, "contact_id": found.contact_id}
        await notifications.notify(tx, key.made("notification"), values)


async def _taken(tx: Transaction, id: UUID, status: LetterStatus) -> Record | None:
    """Locks a letter in a status; people's records and executions are locked after it."""
    statement = select(*_SHOWN).where(letters.c.org_id == tx.org, letters.c.id == id, letters.c.status == status)
    return (await tx.execute(statement.with_for_update(key_share=True))).one_or_none()


async def _write(tx: Transaction, id: UUID, status: LetterStatus, **values: Any) -> None:  # noqa: ANN401  (columns)
    statement = update(letters).where(letters.c.org_id == tx.org, letters.c.id == id)
    await tx.execute(statement.values(status=status.value, read_at=tx.now, **values))
