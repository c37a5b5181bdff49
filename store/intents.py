"""Intents: what must leave. A message's row is the arbiter: it leaves only from a claim, and a claim is taken once.

Every verb that changes a message also tells its owner, the execution, in the same transaction.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import Select, case, func, insert, literal, select, text, update
from sqlalchemy.dialects.postgresql import insert as insert_or

from domain.delivery import OVER, Happening, after, open_to
from domain.due import Calendar
from domain.keys import EffectKey
from domain.pace import Go, NotYet, Pace, next_send
from domain.words import (
    Awaits,
    EventType,
    ExecutionStatus,
    ExitReason,
    Kind,
    MessageStatus,
    StuckReason,
    Suppression,
    Target,
)
from store import activities, addresses, events, executions, identity, mailboxes, queues, restoring, stops, suppressions
from store.errors import IllegalTransition
from store.events import Fact, Record
from store.hints import WAKES
from store.rowsets import NOW, ORG, rows_as, rowset
from store.tables import attempts, destinations, intents, organizations
from store.tables import executions as execution_table
from store.transaction import Database, Origin, Transaction

CLAIM_GRACE = 15.0
"""Real seconds a claim lasts beyond the longest call: for the record of its answer."""
RETRIES = (1, 2, 4, 8, 16, 32)
"""Real seconds before each further attempt after a definite refusal; then a person is asked."""


@dataclass(frozen=True)
class Claim:
    """One attempt that was taken: whoever holds the token may send until the deadline, and record."""

    id: UUID
    token: UUID
    number: int
    seconds: float
    """Until the deadline, in real time, when it was taken."""


@dataclass(frozen=True)
class Unclaimed:
    """Why a message may not be claimed now; `seconds` until it may be tried, None where something must change."""

    reason: str
    seconds: float | None = None


@dataclass(frozen=True)
class Written:
    """A message that an effect writes, to be sent at `due_at` or later."""

    key: EffectKey
    mailbox: UUID
    contact: UUID
    address: UUID
    due_at: datetime


async def write(tx: Transaction, written: Sequence[Written]) -> None:
    """Messages to be sent; the id of each is its effect's, so twice is once.

    After a restored backup, one that was planned before the repair may have left already: it is uncertain.
    """
    rows = [
        {
            "id": one.key.made("message"),
            "destination_id": one.mailbox,
            "execution_id": one.key.execution,
            "step": one.key.step,
            "visit": one.key.visit,
            "contact_id": one.contact,
            "address_id": one.address,
            "due_at": one.due_at,
        }
        for one in written
    ]
    tx.hints.add(WAKES)
    await tx.write(_writing(tuple(rows[0])), {"the_org": tx.org, "the_now": tx.now, **rows_as("given", rows)})


@cache
def _writing(names: tuple[str, ...]) -> Select[Any]:
    given = rowset("given", {name: intents.c[name].type for name in names})
    doubt = (destinations.c.transport != "outbox") & (organizations.c.restored_until >= given.c.due_at)
    its_id = func.concat("<", given.c.id, "@", func.split_part(destinations.c.from_email, "@", 2), ">")
    values: dict[str, Any] = {
        "org_id": ORG,
        "kind": literal("message"),
        "revision": literal(0),
        "created_at": NOW,
        "updated_at": NOW,
        **{column.name: column for column in given.c},
        "status": case((doubt, MessageStatus.UNCERTAIN.value), else_=MessageStatus.PENDING.value),
        "reason": case((doubt, restoring.REASON)),
        "detail": case((doubt, restoring.DETAIL)),
        "token": case((doubt, func.gen_random_uuid())),
        "message_id": case((doubt, its_id)),
    }
    of_mailbox = (destinations.c.org_id == ORG) & (destinations.c.id == given.c.destination_id)
    source = given.outerjoin(destinations, of_mailbox).outerjoin(organizations, organizations.c.id == ORG)
    inserted = insert_or(intents).from_select([*values], select(*values.values()).select_from(source))
    made = inserted.on_conflict_do_nothing().returning(intents.c.destination_id).cte("made")
    count = select(func.count()).select_from(made)
    return count.add_cte(queues.waking_of(ORG, Target.MAILBOX, made, "destination_id"))


_STANDING = """
SELECT d.*, o.calendar, o.sending_stopped_at, o.postal_address, o.name AS organization_name,
  clock_timestamp() AS real_now,
  (SELECT max(claimed_real) FROM attempts t WHERE t.org_id = d.org_id AND t.destination_id = d.id) AS last_claim,
  {nth}
FROM destinations d JOIN organizations o ON o.id = d.org_id
WHERE d.org_id = :org AND d.id = :mailbox
"""
_NTH = """CASE WHEN d.pace ? '{key}' THEN (
    SELECT claimed_real FROM attempts t WHERE t.org_id = d.org_id AND t.destination_id = d.id
    ORDER BY claimed_real DESC OFFSET (d.pace ->> '{key}')::int - 1 LIMIT 1) END AS {name}"""
_CAPS = {"per_minute": "perMinute", "per_hour": "perHour", "per_day": "perDay"}
_MAILBOX = text(_STANDING.format(nth=", ".join(_NTH.format(key=key, name=name) for name, key in _CAPS.items())))


async def mailbox(tx: Transaction, id: UUID) -> Record:
    """A mailbox as its pace is judged by: its claims' instants, its organization's switch, and real time."""
    return (await tx.execute(_MAILBOX, {"org": tx.org, "mailbox": id})).one()


def may_send(tx: Transaction, found: Record) -> Go | NotYet | Unclaimed:
    """What the mailbox and its organization say, whichever message it is."""
    if found.sending_stopped_at is not None:
        return Unclaimed("sending_stopped")
    if found.paused_at is not None:
        return Unclaimed("mailbox_paused")
    if found.retry_at is not None and found.retry_at > found.real_now:
        return Unclaimed("mailbox_in_trouble", (found.retry_at - found.real_now).total_seconds())
    return next_send(
        Pace.model_validate(found.pace),
        Calendar.model_validate(found.calendar).zone,
        now=tx.now,
        real_now=found.real_now,
        scale=tx.scale,
        last=found.last_claim,
        nth={name: getattr(found, name) for name in _CAPS},
    )


# A message of a paused sequence lets the others pass.
_NEXT = text("""
SELECT i.id FROM intents i
JOIN executions x ON x.org_id = i.org_id AND x.id = i.execution_id
JOIN definitions d ON d.org_id = x.org_id AND d.id = x.definition_id
WHERE i.org_id = :org AND i.destination_id = :mailbox AND i.status = 'pending' AND i.due_at <= :now
  AND (i.not_before IS NULL OR i.not_before <= clock_timestamp())
  AND NOT (d.kind = 'sequence' AND d.status = 'paused')
ORDER BY i.due_at, i.id LIMIT 1
""")
_SOONEST = text("""
SELECT least(
  (SELECT extract(epoch FROM min(due_at) - :now) / :scale FROM intents
   WHERE org_id = :org AND destination_id = :mailbox AND status = 'pending' AND due_at > :now),
  (SELECT extract(epoch FROM min(not_before) - clock_timestamp()) FROM intents
   WHERE org_id = :org AND destination_id = :mailbox AND status = 'pending' AND not_before > clock_timestamp()),
  (SELECT extract(epoch FROM min(deadline) - clock_timestamp()) FROM intents
   WHERE org_id = :org AND destination_id = :mailbox AND status = 'claimed'))::float8
""")


async def next_message(tx: Transaction, mailbox: UUID) -> UUID | None:
    """The message that is due longest and may be tried."""
    values = {"org": tx.org, "mailbox": mailbox, "now": tx.now}
    found: UUID | None = (await tx.execute(_NEXT, values)).scalar_one_or_none()
    return found


async def seconds_to_next(tx: Transaction, mailbox: UUID) -> float | None:
    """Real seconds until a message is due or a claim's deadline passes; None if there is neither."""
    values = {"org": tx.org, "mailbox": mailbox, "now": tx.now, "scale": tx.scale}
    found: float | None = (await tx.execute(_SOONEST, values)).scalar_one()
    return found


_LOCKED = text("""
WITH written AS (SELECT address_id FROM intents WHERE org_id = :org AND id = :id),
address AS MATERIALIZED (
  SELECT id FROM addresses WHERE org_id = :org AND id = (SELECT address_id FROM written) FOR NO KEY UPDATE
), destination AS MATERIALIZED (
  SELECT id FROM destinations WHERE org_id = :org AND id = :mailbox AND (SELECT count(*) FROM address) >= 0
  FOR NO KEY UPDATE
)
SELECT (SELECT id FROM address) AS address, (SELECT count(*) FROM destination) AS mailboxes
""")
_JUDGED = text("""
SELECT i.status, i.attempts, i.due_at, i.address_id, i.execution_id, a.suppressed, x.status AS execution_status,
  i.address_id = :address AND a.hash = hash_address(:recipient) AS addressed,
  x.held_since, d.kind AS definition_kind, d.status AS definition_status, c.deleted_at AS contact_deleted_at
FROM intents i
JOIN contacts c ON c.org_id = i.org_id AND c.id = i.contact_id
JOIN addresses a ON a.org_id = i.org_id AND a.id = i.address_id
JOIN executions x ON x.org_id = i.org_id AND x.id = i.execution_id
JOIN definitions d ON d.org_id = x.org_id AND d.id = x.definition_id
WHERE i.org_id = :org AND i.id = :id
""")


async def claim(
    tx: Transaction,
    id: UUID,
    mailbox_id: UUID,
    *,
    message_id: str,
    rendered: Mapping[str, Any],
    call_seconds: float,
) -> Claim | Unclaimed:
    """Takes a pending message for one attempt, or says why not; `rendered` has the address as `to_email`.

    The address and the mailbox are locked first; whatever forbids it is read in statements after
    that, so that no claim commits after a stop has.
    """
    locked = (await tx.execute(_LOCKED, {"org": tx.org, "id": id, "mailbox": mailbox_id})).one()
    judged = {"org": tx.org, "id": id, "address": locked.address, "recipient": rendered["to_email"]}
    found = (await tx.execute(_JUDGED, judged)).one()
    standing = await mailbox(tx, mailbox_id)
    if standing.deleted_at is not None:
        return Unclaimed("mailbox_missing")
    refused = _forbidden(found) or may_send(tx, standing)
    if isinstance(refused, NotYet):
        return Unclaimed(refused.limit, refused.seconds)
    if isinstance(refused, Unclaimed):
        return refused
    lasts = call_seconds + CLAIM_GRACE
    token, number = uuid4(), found.attempts + 1
    taken = (
        update(intents)
        .where(
            intents.c.org_id == tx.org,
            intents.c.id == id,
            intents.c.destination_id == mailbox_id,
            intents.c.address_id == locked.address,
            intents.c.status.in_(open_to(Happening.CLAIMED)),
        )
        .values(
            status=MessageStatus.CLAIMED.value,
            reason=None,
            detail=None,
            token=token,
            attempts=number,
            deadline=func.clock_timestamp() + timedelta(seconds=lasts),
            message_id=message_id,
            rendered=dict(rendered),
            updated_at=tx.now,
        )
        .returning(intents.c.id)
        .cte("taken")
    )
    saw = {
        "dueAt": found.due_at.isoformat(),
        "suppressed": found.suppressed,
        "enrollment": found.execution_status,
        "lastClaim": standing.last_claim.isoformat() if standing.last_claim else None,
    }
    row = {
        "org_id": tx.org,
        "intent_id": id,
        "number": number,
        "destination_id": mailbox_id,
        "token": token,
        "saw": saw,
        "claimed_at": tx.now,
        "claimed_real": None,
    }
    names = list(row)
    columns = [
        func.clock_timestamp() if value is None else literal(value, attempts.c[name].type)
        for name, value in row.items()
    ]
    kept = insert(attempts).from_select(names, select(*columns).select_from(taken)).returning(attempts.c.number)
    if (await tx.execute(select(taken).add_cte(kept.cte("kept")))).one_or_none() is None:
        return Unclaimed("taken")
    return Claim(id, token, number, lasts)


def _forbidden(found: Record) -> Unclaimed | None:
    if found.status != MessageStatus.PENDING:
        return Unclaimed("taken")
    if not found.addressed:
        return Unclaimed("readdressed")
    if found.suppressed is not None:
        return Unclaimed("address_suppressed")
    if found.contact_deleted_at is not None:
        return Unclaimed("contact_deleted")
    if found.held_since is not None:
        return Unclaimed("held")
    if found.definition_kind == Kind.SEQUENCE and found.definition_status == "paused":
        return Unclaimed("sequence_paused")
    return None


async def point_to(tx: Transaction, id: UUID, address: UUID) -> None:
    """The contact has another address by now: that is where an unclaimed message goes."""
    await tx.execute(
        update(intents)
        .where(intents.c.org_id == tx.org, intents.c.id == id, intents.c.status == MessageStatus.PENDING)
        .values(address_id=address, updated_at=tx.now)
    )


# --- what became of an attempt


async def accepted(tx: Transaction, claim: Claim, answer: str) -> bool:
    """The server has taken it. A record that comes late still counts; False where the token is another's."""
    execution, message = await _owned(tx, claim.id)
    told = await _move(tx, message, Happening.ACCEPTED, claim.token, accepted_at=tx.now)
    await _answered(tx, claim, "accepted", answer)
    if told is None:
        return False
    await _works(tx, told.destination_id)
    await _left(tx, told, execution)
    await _goes_on(tx, execution)
    return True


async def postponed(tx: Transaction, claim: Claim, answer: str, *, counts: bool) -> bool:
    """A definite refusal that may pass: the next attempt is open after a while, or a person is asked.

    What is the mailbox's trouble and not the message's does not count against it.
    """
    execution, message = await _owned(tx, claim.id)
    if counts and message.refusals >= len(RETRIES):
        return await _failed(tx, claim, execution, message, StuckReason.MESSAGE_REFUSED, answer)
    wait = RETRIES[message.refusals] if counts else 0
    told = await _move(
        tx,
        message,
        Happening.POSTPONED,
        claim.token,
        token=None,
        detail=answer[:500],
        refusals=message.refusals + int(counts),
        not_before=func.clock_timestamp() + timedelta(seconds=wait),
    )
    if told is None:
        return False
    await _answered(tx, claim, "refused", answer)
    await _follow(tx, execution)
    await _mend(tx, execution)
    if message.status == MessageStatus.UNCERTAIN:  # its mailbox went on without it
        await queues.wake(tx, Target.MAILBOX, [message.destination_id])
    return True


async def failed(tx: Transaction, claim: Claim, answer: str) -> bool:
    """A definite refusal for good, of the message and not of the address: a person is asked."""
    execution, message = await _owned(tx, claim.id)
    return await _failed(tx, claim, execution, message, StuckReason.MESSAGE_REFUSED, answer)


async def unsendable(tx: Transaction, id: UUID, reason: StuckReason, detail: str) -> None:
    """It cannot even be written out: a person is asked. Nothing where another is at it already."""
    execution, message = await _owned(tx, id)
    if message.status != MessageStatus.PENDING:
        return
    told = await _move(tx, message, Happening.FAILED, None, reason=reason.value, detail=detail[:500])
    if told is not None:
        await _ask(tx, execution, told, reason, detail)


async def not_wanted(tx: Transaction, id: UUID) -> None:
    """Its address was suppressed after it was written: it is cancelled, and an enrollment that wrote it ends."""
    written = select(intents.c.address_id).where(intents.c.org_id == tx.org, intents.c.id == id)
    why = (await addresses.lock(tx, (await tx.execute(written)).scalar_one())).suppressed
    if why is None:
        return  # released again meanwhile
    execution, message = await _owned(tx, id)
    told = await _move(tx, message, Happening.CANCELLED, None, reason="address_suppressed")
    if told is None:
        return
    if execution.kind == Target.ENROLLMENT:
        await stops.end(tx, [execution.id], suppressions.ENDS[Suppression(why)], note=f"message {id}")
    else:
        await _goes_on(tx, execution)


async def cancel_to_deleted(tx: Transaction, contact: UUID) -> None:
    """What is not sent to a contact that was deleted is cancelled, and the runs that wrote it go on without it."""
    unsent = select(intents.c.id).where(
        intents.c.org_id == tx.org,
        intents.c.contact_id == contact,
        intents.c.status.in_(open_to(Happening.CANCELLED)),
    )
    for id_ in (await tx.execute(unsent.order_by(intents.c.execution_id, intents.c.id))).scalars().all():
        execution, message = await _owned(tx, id_)
        reason = ExitReason.CONTACT_DELETED.value
        if await _move(tx, message, Happening.CANCELLED, None, reason=reason) is not None:
            await _goes_on(tx, execution)


async def refused_address(tx: Transaction, claim: Claim, answer: str) -> bool:
    """The server knows no such recipient: the address is given up and its enrollments end."""
    await suppressions.of_message(tx, claim.id, Suppression.BOUNCED)
    execution, message = await _owned(tx, claim.id)
    told = await _move(tx, message, Happening.BOUNCED, claim.token, reason="address_refused", detail=answer[:500])
    if told is None:
        return False
    await _answered(tx, claim, "refused", answer)
    await _tell(tx, EventType.MESSAGE_BOUNCED, told, execution)
    await _goes_on(tx, execution)
    return True


async def lost(tx: Transaction, claim: Claim, why: str) -> bool:
    """Its answer did not come: it may have left, so nothing is repeated and a person is asked."""
    execution, message = await _owned(tx, claim.id)
    return await _lost(tx, execution, message, claim.token, claim.number, why)


async def expire(tx: Transaction, mailbox: UUID) -> int:
    """Claims whose deadline has passed are uncertain from now on; how many."""
    statement = select(intents.c.id, intents.c.token, intents.c.attempts).where(
        intents.c.org_id == tx.org,
        intents.c.destination_id == mailbox,
        intents.c.status == MessageStatus.CLAIMED,
        intents.c.deadline < func.clock_timestamp(),
    )
    count = 0
    for row in (await tx.execute(statement.order_by(intents.c.id).limit(50))).all():
        execution, message = await _owned(tx, row.id)
        why = "whoever claimed it did not come back with an answer"
        count += await _lost(tx, execution, message, row.token, row.attempts, why)
    return count


async def asks(tx: Transaction, execution: Record) -> bool:
    """Whether a message of an execution that is open again asks a person; it is stuck then."""
    statement = select(intents).where(
        intents.c.org_id == tx.org, intents.c.execution_id == execution.id, intents.c.status.in_(_ASKS)
    )
    message = (await tx.execute(statement.order_by(intents.c.due_at, intents.c.id).limit(1))).one_or_none()
    if message is None:
        return False
    uncertain = message.status == MessageStatus.UNCERTAIN
    reason = StuckReason.MESSAGE_UNCERTAIN if uncertain else StuckReason(message.reason)
    await _stick(tx, execution, reason, f"message {message.id}: {message.detail}")
    return True


# --- what people and letters say of it


async def settle(tx: Transaction, id: UUID, *, sent: bool, reason: str = "settled_by_a_person") -> bool:
    """A word on an uncertain message: it has left, or it is to be sent again. False unless it is uncertain."""
    execution, message = await _owned(tx, id)
    if message.status != MessageStatus.UNCERTAIN:
        return False
    if sent:
        await _has_left(tx, execution, message, reason)
    else:
        await _rearmed(tx, message, execution)
    await _goes_on(tx, execution)
    return True


async def logged(tx: Transaction, id: UUID, message_id: str) -> bool:
    """Its mail server's log names it, under this Message-ID: it has left. False where that is nothing new.

    That holds as well for one that these rows, restored from a backup, never saw tried.
    """
    execution, message = await _owned(tx, id)
    if message.attempts == 0:
        doubt = {"token": uuid4(), "reason": restoring.REASON}
        message = await _move(tx, message, Happening.RESTORED, None, **doubt) or message
    if message.status != MessageStatus.UNCERTAIN:
        return False
    await _has_left(tx, execution, message, "named_in_a_log", message_id=message_id)
    await _goes_on(tx, execution)
    return True


async def _has_left(
    tx: Transaction,
    execution: Record,
    message: Record,
    reason: str,
    **values: Any,  # noqa: ANN401  (columns)
) -> None:
    left = await _last_claim(tx, message)
    told = await _move(
        tx, message, Happening.SETTLED_SENT, None, accepted_at=left, reason=reason, detail=None, **values
    )
    assert told is not None  # noqa: S101  (it is locked and uncertain)
    await _left(tx, told, execution)


async def retry(tx: Transaction, id: UUID, kind: Target) -> None:
    """A stuck execution goes on from what failed; a message that failed is tried again under the same key.

    Raises `NotFound`, and `IllegalTransition` unless it is stuck, or while a message of it is uncertain.
    """
    execution = await executions.retry(tx, id, kind)
    if kind is Target.RUN:
        await _through_another(tx, execution)
    unsettled = select(intents).where(
        intents.c.org_id == tx.org, intents.c.execution_id == id, intents.c.status.in_(_ASKS)
    )
    for message in (await tx.execute(unsettled.order_by(intents.c.id).with_for_update(key_share=True))).all():
        if message.status == MessageStatus.UNCERTAIN:
            raise IllegalTransition(f"whether message {message.id} has left is uncertain; say that first", "status")
        await _rearmed(tx, message, execution)


async def _through_another(tx: Transaction, execution: Record) -> None:
    """What a run was to send through a mailbox that is gone leaves through whichever would be chosen now."""
    gone = (
        select(intents.c.id)
        .join(
            destinations, (destinations.c.org_id == intents.c.org_id) & (destinations.c.id == intents.c.destination_id)
        )
        .where(
            intents.c.org_id == tx.org,
            intents.c.execution_id == execution.id,
            intents.c.status == MessageStatus.FAILED,
            destinations.c.deleted_at.is_not(None),
        )
    )
    if (await tx.execute(gone.limit(1))).one_or_none() is None:
        return
    owner = await identity.owner_of(tx, execution.contact_id)
    chosen = (await mailboxes.senders(tx)).choose(owner, None)
    if chosen is not None:
        await redirect(tx, execution.id, chosen)


async def redirect(tx: Transaction, execution: UUID, mailbox: UUID) -> None:
    """What an execution has not sent leaves through another mailbox."""
    unsent = (MessageStatus.PENDING, MessageStatus.HELD, MessageStatus.FAILED)
    moved = (
        update(intents)
        .where(intents.c.org_id == tx.org, intents.c.execution_id == execution, intents.c.status.in_(unsent))
        .values(destination_id=mailbox, updated_at=tx.now)
        .returning(intents.c.destination_id)
        .cte("moved")
    )
    count = select(func.count()).select_from(moved)
    await tx.execute(count.add_cte(queues.waking(tx, Target.MAILBOX, moved, "destination_id")))


async def evidence(tx: Transaction, id: UUID, happening: Happening, reason: str) -> Record | None:
    """A letter proves that a message left, and what became of it; None where that changes nothing."""
    execution, message = await _owned(tx, id)
    left = message.accepted_at or await _last_claim(tx, message)
    told = await _move(tx, message, happening, None, accepted_at=left, reason=reason)
    if told is None:
        return None
    if happening is Happening.SETTLED_SENT:
        await _left(tx, told, execution)
    else:
        await _tell(tx, _PROVES[happening], told, execution)
    await _goes_on(tx, execution)
    return told


_PROVES = {
    Happening.BOUNCED: EventType.MESSAGE_BOUNCED,
    Happening.COMPLAINED: EventType.MESSAGE_COMPLAINED,
}


async def replied(tx: Transaction, id: UUID) -> None:
    """Somebody has answered it, which also proves that it left. Once."""
    execution, message = await _owned(tx, id)
    if message.replied_at is not None:
        return
    if message.status == MessageStatus.UNCERTAIN:
        await evidence(tx, id, Happening.SETTLED_SENT, "replied_to")
    statement = (
        update(intents)
        .where(intents.c.org_id == tx.org, intents.c.id == id)
        .values(replied_at=tx.now, updated_at=tx.now)
        .returning(*intents.c)
    )
    told = (await tx.execute(statement)).one()
    await _tell(tx, EventType.MESSAGE_REPLIED, told, execution)


async def organization_of(database: Database, id: UUID) -> UUID | None:
    """Whose message it is, for who comes with a link to it and nothing else."""
    async with database.crossing() as connection:
        statement = text("SELECT resolve_message(:id)")
        found: UUID | None = (await connection.execute(statement, {"id": id})).scalar_one()
    return found


async def find(tx: Transaction, id: UUID) -> Record | None:
    statement = select(intents).where(intents.c.org_id == tx.org, intents.c.id == id)
    return (await tx.execute(statement)).one_or_none()


async def deal_of(tx: Transaction, id: UUID | None) -> UUID | None:
    """The deal that a message was about."""
    written = (intents.c.org_id == execution_table.c.org_id) & (intents.c.execution_id == execution_table.c.id)
    statement = select(execution_table.c.deal_id).join(intents, written)
    found = await tx.execute(statement.where(intents.c.org_id == tx.org, intents.c.id == id))
    deal: UUID | None = found.scalar_one_or_none()
    return deal


async def by_message_ids(tx: Transaction, ids: Collection[str]) -> list[Record]:
    """The messages that carry these Message-IDs, in no order."""
    statement = select(intents).where(intents.c.org_id == tx.org, intents.c.message_id.in_(list(ids)))
    return list((await tx.execute(statement)).all())


# --- parts


async def _owned(tx: Transaction, id: UUID) -> tuple[Record, Record]:
    """A message and its execution, both locked, in the product's order."""
    owner = select(intents.c.execution_id).where(intents.c.org_id == tx.org, intents.c.id == id).scalar_subquery()
    wanted = select(execution_table).where(execution_table.c.org_id == tx.org, execution_table.c.id == owner)
    execution = (await tx.execute(wanted.with_for_update(key_share=True))).one()
    statement = select(intents).where(intents.c.org_id == tx.org, intents.c.id == id)
    return execution, (await tx.execute(statement.with_for_update(key_share=True))).one()


async def _move(
    tx: Transaction,
    message: Record,
    happening: Happening,
    proof: UUID | None,
    **values: Any,  # noqa: ANN401  (columns)
) -> Record | None:
    """Writes what happened to a locked message; None where it changes nothing, or `proof` is not its token."""
    status = MessageStatus(message.status)
    becomes = after(status, happening)
    if becomes is status or (proof is not None and message.token != proof):
        return None
    statement = (
        update(intents)
        .where(intents.c.org_id == tx.org, intents.c.id == message.id)
        .values(status=becomes.value, deadline=None, updated_at=tx.now, **values)
        .returning(*intents.c)
    )
    return (await tx.execute(statement)).one()


async def _failed(
    tx: Transaction, claim: Claim, execution: Record, message: Record, reason: StuckReason, answer: str
) -> bool:
    told = await _move(
        tx, message, Happening.FAILED, claim.token, token=None, reason=reason.value, detail=answer[:500], refusals=0
    )
    if told is None:
        return False
    await _answered(tx, claim, "refused", answer)
    await _ask(tx, execution, told, reason, answer)
    return True


async def _lost(tx: Transaction, execution: Record, message: Record, token: UUID, number: int, why: str) -> bool:
    told = await _move(tx, message, Happening.LOST, token, reason="no_answer", detail=why[:500])
    if told is None:
        return False
    await _answered(tx, Claim(message.id, token, number, 0), "uncertain", why)
    await _tell(tx, EventType.MESSAGE_UNCERTAIN, told, execution)
    await _stick(tx, execution, StuckReason.MESSAGE_UNCERTAIN, f"message {message.id}: {why}")
    return True


async def _ask(tx: Transaction, execution: Record, told: Record, reason: StuckReason, detail: str) -> None:
    await _tell(tx, EventType.MESSAGE_FAILED, told, execution)
    await _stick(tx, execution, reason, detail)


async def _stick(tx: Transaction, execution: Record, reason: StuckReason, detail: str) -> None:
    await executions.get_stuck(tx, execution.id, reason, detail, await identity.who_mends(tx, execution.id))


async def _goes_on(tx: Transaction, execution: Record) -> None:
    """Ends or wakes what waited for its messages, or was stuck for one."""
    waits = execution.status == ExecutionStatus.OPEN and execution.awaits == Awaits.MESSAGE
    if not waits:
        await _mend(tx, execution)
    elif execution.step is not None:
        await executions.wake(tx, [execution.id])
    elif not await _has(tx, execution, _TO_COME):
        await executions.end(tx, execution, ExitReason.COMPLETED)


async def _mend(tx: Transaction, execution: Record) -> None:
    """What was stuck for a message of which more is known now goes on, unless another asks the same."""
    stuck = execution.status == ExecutionStatus.STUCK and execution.stuck_reason in _MENDED
    if stuck and not await _has(tx, execution, _ASKS):
        await executions.retry(tx, execution.id, Target(execution.kind))


_MENDED = frozenset({StuckReason.MESSAGE_UNCERTAIN, StuckReason.MESSAGE_REFUSED})
_ASKS = (MessageStatus.UNCERTAIN, MessageStatus.FAILED)
_TO_COME = tuple(status for status in MessageStatus if status not in OVER)


async def _has(tx: Transaction, execution: Record, statuses: Collection[MessageStatus]) -> bool:
    """Whether any message of a locked execution is in one of these statuses."""
    found = select(intents.c.id).where(
        intents.c.org_id == tx.org, intents.c.execution_id == execution.id, intents.c.status.in_(statuses)
    )
    return bool((await tx.execute(select(found.exists()))).scalar_one())


async def _follow(tx: Transaction, execution: Record) -> None:
    """A message open to be claimed again, of what was ended or kept still meanwhile, is cancelled or held with it."""
    if execution.status == ExecutionStatus.ENDED:
        await stops.cancel_messages(tx, [execution.id], execution.exit_reason)
    elif execution.held_since is not None or execution.status == ExecutionStatus.PAUSED:
        await stops.hold_messages(tx, [execution.id])


async def _rearmed(tx: Transaction, message: Record, execution: Record) -> None:
    told = await _move(tx, message, Happening.REARMED, None, token=None, reason=None, detail=None, not_before=None)
    assert told is not None  # noqa: S101  (its status is one of those it is open to)
    await _follow(tx, execution)
    await queues.wake(tx, Target.MAILBOX, [message.destination_id])


async def _left(tx: Transaction, message: Record, execution: Record) -> None:
    """It is known to have reached a mail server: a fact, and a line on the contact's timeline."""
    await _tell(tx, EventType.MESSAGE_ACCEPTED, message, execution)
    actor = "sequence" if execution.kind == Target.ENROLLMENT else "rule"
    await activities.log(
        tx.acting(Origin(actor, execution.definition_id, tuple(execution.chain))),
        {
            "type": "email",
            # What one said that a restored backup never saw leave is not known.
            "subject": (message.rendered or {}).get("subject", "")[:255] or "(no subject)",
            "direction": "outbound",
            "contact_id": message.contact_id,
            "company_id": execution.company_id,
            "deal_id": execution.deal_id,
            "execution_id": execution.id,
            "metadata": {"messageId": str(message.id)},
        },
    )


async def _answered(tx: Transaction, claim: Claim, outcome: str, answer: str) -> None:
    await tx.execute(
        update(attempts)
        .where(
            attempts.c.org_id == tx.org,
            attempts.c.intent_id == claim.id,
            attempts.c.number == claim.number,
            attempts.c.token == claim.token,
        )
        .values(outcome=outcome, answer=answer[:500], ended_at=tx.now)
    )


async def _last_claim(tx: Transaction, message: Record) -> datetime:
    """When the latest attempt was taken: the best that is known of when it left.

    The earliest that it can be, where a restored backup has forgotten: what counts from it may have left, too.
    """
    statement = select(func.max(attempts.c.claimed_at)).where(
        attempts.c.org_id == tx.org, attempts.c.intent_id == message.id
    )
    found: datetime | None = (await tx.execute(statement)).scalar_one()
    if found is None and message.reason == restoring.REASON:
        since = (await identity.organization(tx)).restored_since
        return max(since, message.due_at) if since else tx.now
    return found or tx.now


async def _works(tx: Transaction, mailbox: UUID) -> None:
    """What a server accepts ends its mailbox's trouble, and the sweep's patience with it."""
    await tx.execute(
        update(destinations)
        .where(
            destinations.c.org_id == tx.org,
            destinations.c.id == mailbox,
            destinations.c.trouble.is_not(None) | (destinations.c.sweeps > 0),
        )
        .values(**mailboxes.CALM, sweeps=0, sweep_after=None)
    )


async def _tell(tx: Transaction, event: EventType, message: Record, execution: Record) -> None:
    counted = (
        update(intents)
        .where(intents.c.org_id == tx.org, intents.c.id == message.id)
        .values(revision=intents.c.revision + 1)
        .returning(intents.c.revision)
    )
    number = (await tx.execute(counted)).scalar_one()
    details = {
        "contactId": message.contact_id,
        "dealId": execution.deal_id,
        "step": message.step,
        f"{execution.kind}Id": execution.id,
        "status": message.status,
        "reason": message.reason,
    }
    await events.tell(tx, [Fact(event, Kind.MESSAGE, message.id, number, {}, details, execution.chain)])
