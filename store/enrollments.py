"""Enrollments: a contact's way into a sequence, a person's hand on it, and its end by data."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any
from uuid import UUID

from sqlalchemy import Select, Text, cast, func, insert, or_, select, text, update
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.sql.dml import ReturningInsert
from uuid_utils.compat import uuid7

from domain.decide import Position, Situation, Waits, decide, needs, places
from domain.documents import SequenceDocument
from domain.due import Calendar, Wait, due
from domain.match import ExitMet
from domain.words import (
    DefinitionStatus,
    EventType,
    ExecutionStatus,
    ExitReason,
    Kind,
    NotEnrolled,
    Target,
)
from store import addresses, definitions, events, executions, identity, intents, mailboxes, queues, stops
from store.errors import IllegalTransition, NotFound, UnknownReference
from store.events import Fact, Record
from store.facts import Links
from store.pages import Page, Span, equal, page
from store.rowsets import filled, filling
from store.tables import activations, contacts, holds, pauses, versions
from store.tables import definitions as definition_table
from store.tables import executions as table
from store.transaction import Origin, Transaction

MOST = 1_000
"""Contacts enrolled by one call."""
_MAX_CHAIN = 20


@dataclass(frozen=True)
class Asked:
    """One contact to enroll; with an `id` that exists already, nothing happens again."""

    contact: UUID
    id: UUID | None = None
    deal: UUID | None = None
    origin: Origin | None = None
    """On whose behalf, where not the transaction's own."""


@dataclass(frozen=True)
class Answered:
    """What became of one: the enrollment, or why there is none and which is in the way."""

    contact: UUID
    enrollment: UUID | None = None
    reason: NotEnrolled | None = None
    existing: UUID | None = None


async def enroll(
    tx: Transaction, sequence: UUID, asked: Sequence[Asked], *, mailbox: UUID | None = None
) -> list[Answered]:
    """Enrolls contacts in the active version of a sequence; an answer for each, in order.

    Never twice at once, however many try: unique in the table. At most `MOST`. Raises `NotFound`
    for an unknown sequence, `IllegalTransition` for one that is not active, `UnknownReference` for
    an unknown mailbox.
    """
    version, document = await _active(tx, sequence)
    people = await _people(tx, [one.contact for one in asked])
    emails = [person.email for person in people.values() if person.email]
    kept = await addresses.ensure(tx, emails)
    before = await _before(tx, sequence, people)
    calendar = await identity.calendar(tx)
    senders = await mailboxes.senders(tx)
    wanted = mailbox or document.mailbox
    if mailbox is not None and mailbox not in senders.ids:
        raise UnknownReference("mailboxId names no mailbox of this organization", "mailboxId")
    beginning = _beginning(tx, document, calendar)
    answers: dict[int, Answered] = {}
    rows: dict[UUID, dict[str, Any]] = {}
    for place, one in enumerate(asked):
        person = people.get(one.contact) if one.contact in before else None
        sender = senders.choose(person.owner_id if person else None, wanted)
        reason, existing = _refusal(tx, document, calendar, person, kept, before.get(one.contact), one)
        if reason is None and sender is None:
            reason = NotEnrolled.MAILBOX_MISSING
        if reason is not None:
            answers[place] = Answered(one.contact, reason=reason, existing=existing)
        elif one.contact in rows:
            answers[place] = Answered(one.contact, reason=NotEnrolled.ALREADY_ENROLLED)
        else:
            rows[one.contact] = {**_row(tx, sequence, version, one, person, sender), **beginning}
    made = await _make(tx, list(rows.values()), {one.contact: one.origin for one in asked})
    return [answers.get(place) or await _outcome(tx, sequence, one, made) for place, one in enumerate(asked)]


async def pause(tx: Transaction, id: UUID) -> None:
    """Keeps one still: no step is taken and nothing of it is sent. Raises `IllegalTransition` unless it is open."""
    found = await stops.locked(tx, id, Target.ENROLLMENT)
    if found.status != ExecutionStatus.OPEN:
        raise IllegalTransition(f"only an open enrollment can be paused; this one is {found.status}", "status")
    by = tx.origin.id if tx.origin.kind == "user" else None
    await tx.execute(insert(pauses).values(org_id=tx.org, id=uuid7(), execution_id=id, since=tx.now, paused_by=by))
    await _set(tx, found, EventType.ENROLLMENT_PAUSED, status=ExecutionStatus.PAUSED, due_at=None, awaits=None)
    await stops.hold_messages(tx, [id])


async def resume(tx: Transaction, id: UUID) -> None:
    """Goes on; what was still to wait when it was paused is still to wait. Raises `IllegalTransition`."""
    found = await stops.locked(tx, id, Target.ENROLLMENT)
    if found.status != ExecutionStatus.PAUSED:
        raise IllegalTransition(f"only a paused enrollment can be resumed; this one is {found.status}", "status")
    await stops.end_pauses(tx, [id])
    await _set(tx, found, EventType.ENROLLMENT_RESUMED, status=ExecutionStatus.OPEN, due_at=tx.now)
    if found.held_since is None:
        await stops.release_messages(tx, [id])
    if not await intents.asks(tx, found):
        await queues.wake(tx, Target.ENROLLMENT, [id])


async def retry(tx: Transaction, id: UUID, *, mailbox: UUID | None = None) -> None:
    """Goes on from what failed, through another mailbox if one is named: the same message under the same key.

    Raises `NotFound`, `IllegalTransition` unless it is stuck, `UnknownReference` for an unknown mailbox.
    """
    await executions.get(tx, id, Target.ENROLLMENT)
    if mailbox is not None:
        if mailbox not in (await mailboxes.senders(tx)).ids:
            raise UnknownReference("mailboxId names no mailbox of this organization", "mailboxId")
        await tx.execute(update(table).where(table.c.org_id == tx.org, table.c.id == id).values(destination_id=mailbox))
        await intents.redirect(tx, id, mailbox)
    await intents.retry(tx, id, Target.ENROLLMENT)


async def take_out(tx: Transaction, contact: UUID, sequence: UUID | None) -> list[UUID]:
    """Ends a contact's enrollments, in one sequence or in all; which they were."""
    # Not the one that says so: its own step goes on.
    inside = [one for one in await stops.enrolled(tx, [contact]) if one != tx.origin.execution]
    if sequence is not None:
        of = select(table.c.id).where(table.c.id.in_(inside), table.c.definition_id == sequence)
        inside = list((await tx.execute(of)).scalars())
    return [row.id for row in await stops.end(tx, inside, ExitReason.STOPPED)]


async def inside(tx: Transaction, changed: Collection[UUID]) -> list[tuple[Record, SequenceDocument]]:
    """The enrollments that a change of these contacts and deals may end: open ones of sequences with exits."""
    found = await tx.execute(_INSIDE, {"org": tx.org, "changed": list(changed)})
    return [(row, definitions.read_sequence(row.document)) for row in found]


# Each part by an index of its own, however many are enrolled.
_INSIDE = text("""
WITH people AS (
  SELECT id FROM unnest(CAST(:changed AS uuid[])) AS changed(id)
  UNION SELECT contact_id FROM deals WHERE org_id = :org AND id = ANY(CAST(:changed AS uuid[]))
), concerned AS (
  SELECT x.id FROM people JOIN executions x ON x.org_id = :org AND x.contact_id = people.id
  WHERE x.kind = 'enrollment' AND x.status <> 'ended'
  UNION
  SELECT x.id FROM executions x WHERE x.org_id = :org AND x.deal_id = ANY(CAST(:changed AS uuid[]))
  AND x.kind = 'enrollment' AND x.status <> 'ended'
)
SELECT x.id, x.contact_id, x.company_id, x.deal_id, x.started_at, CAST(v.document AS text) AS document
FROM concerned JOIN executions x ON x.org_id = :org AND x.id = concerned.id
JOIN versions v ON v.org_id = x.org_id AND v.id = x.version_id
WHERE v.document ? 'exits'
""")


async def exit_met(tx: Transaction, decided: Mapping[UUID, ExitMet]) -> None:
    """Ends enrollments by what the match decided; what it saw is kept."""
    await stops.lock_people(tx, decided)
    for id_, met in decided.items():
        for row in await stops.end(tx, [id_], ExitReason.EXIT_MET, note=f"exit {met.number}"):
            await tx.execute(
                update(table)
                .where(table.c.org_id == tx.org, table.c.id == row.id)
                .values(saw={"exit": met.number, **(met.saw.model_dump(mode="json") if met.saw else {})})
            )


async def search(
    tx: Transaction,
    span: Span,
    *,
    sequence: UUID | None = None,
    status: ExecutionStatus | None = None,
    contact: UUID | None = None,
    owner: UUID | None = None,
) -> Page:
    """As `explain`, many; `owner` owns the contact."""
    wanted = equal({table.c.definition_id: sequence, table.c.status: status, table.c.contact_id: contact})
    query = _with_names(tx).where(*wanted)
    if owner is not None:
        query = query.where(contacts.c.owner_id == owner)
    return await page(tx, query, table.c.id, span)


async def explain(tx: Transaction, id: UUID) -> Record:
    """An enrollment with its sequence's name, its version's number and its contact's owner. Raises `NotFound`."""
    found = (await tx.execute(_with_names(tx).where(table.c.id == id))).one_or_none()
    if found is None:
        raise NotFound("Enrollment")
    return found


async def holding(tx: Transaction, id: UUID) -> list[UUID]:
    """The letters that hold an enrollment."""
    statement = select(holds.c.letter_id).where(holds.c.org_id == tx.org, holds.c.execution_id == id)
    return list((await tx.execute(statement.order_by(holds.c.letter_id))).scalars())


async def pauses_of(tx: Transaction, enrollment: Record) -> list[Record]:
    """When it was kept still, by itself or with its whole sequence, oldest first."""
    statement = select(pauses).where(
        pauses.c.org_id == tx.org,
        or_(pauses.c.execution_id == enrollment.id, pauses.c.definition_id == enrollment.definition_id),
        or_(pauses.c.until.is_(None), pauses.c.until > enrollment.started_at),
    )
    return list((await tx.execute(statement.order_by(pauses.c.since))).all())


async def counts(tx: Transaction, sequences: Iterable[UUID]) -> dict[UUID, dict[str, int]]:
    """How many were enrolled in each sequence, by what they are now: a status, or how they ended."""
    state = func.coalesce(table.c.exit_reason, table.c.status).label("state")
    statement = (
        select(table.c.definition_id, state, func.count().label("many"))
        .where(table.c.org_id == tx.org, table.c.definition_id.in_(list(sequences)))
        .group_by(table.c.definition_id, state)
    )
    found: dict[UUID, dict[str, int]] = {}
    for row in await tx.execute(statement):
        found.setdefault(row.definition_id, {})[row.state] = row.many
    return found


async def _active(tx: Transaction, sequence: UUID) -> tuple[UUID, SequenceDocument]:
    found = await definitions.get(tx, sequence, Kind.SEQUENCE)
    if found.status != DefinitionStatus.ACTIVE:
        raise IllegalTransition(f"only an active sequence takes contacts in; this one is {found.status}", "status")
    statement = (
        select(versions.c.id, cast(versions.c.document, Text).label("document"))
        .join(
            activations,
            (activations.c.org_id == versions.c.org_id) & (activations.c.version_id == versions.c.id),
        )
        .where(versions.c.org_id == tx.org, versions.c.definition_id == sequence, activations.c.until.is_(None))
    )
    row = (await tx.execute(statement)).one()
    return row.id, definitions.read_sequence(row.document)


async def _people(tx: Transaction, ids: Collection[UUID]) -> dict[UUID, Record]:
    columns = (contacts.c.id, contacts.c.email, contacts.c.owner_id, contacts.c.company_id)
    statement = select(*columns).where(
        contacts.c.org_id == tx.org, contacts.c.id.in_(ids), contacts.c.deleted_at.is_(None), contacts.c.is_active
    )
    return {row.id: row for row in await tx.execute(statement)}


async def _before(tx: Transaction, sequence: UUID, people: Collection[UUID]) -> dict[UUID, Record | None]:
    """The latest enrollment of each contact in the sequence, if any; one deleted since it was read is left out.

    Whoever deletes a contact locks its address, too, so that it stays until it is enrolled.
    """
    # By itself and once: without statistics a join would read all of the sequence's again for each contact.
    latest = (
        select(table.c.contact_id, table.c.id, table.c.status, table.c.ended_at)
        .ext(distinct_on(table.c.contact_id))
        .where(table.c.org_id == tx.org, table.c.definition_id == sequence, table.c.contact_id.in_(people))
        .order_by(table.c.contact_id, table.c.started_at.desc(), table.c.id.desc())
        .cte("latest")
        .prefix_with("MATERIALIZED")
    )
    statement = (
        select(contacts.c.id.label("contact_id"), latest.c.id, latest.c.status, latest.c.ended_at)
        .outerjoin(latest, latest.c.contact_id == contacts.c.id)
        .where(contacts.c.org_id == tx.org, contacts.c.id.in_(people), contacts.c.deleted_at.is_(None))
    )
    return {row.contact_id: row if row.id else None for row in await tx.execute(statement)}


def _refusal(
    tx: Transaction,
    document: SequenceDocument,
    calendar: Calendar,
    person: Record | None,
    kept: Mapping[str, Record],
    before: Record | None,
    asked: Asked,
) -> tuple[NotEnrolled | None, UUID | None]:
    if person is None:
        return NotEnrolled.CONTACT_MISSING, None
    if before is not None and before.id == asked.id:
        return None, None
    if person.email is None:
        return NotEnrolled.EMAIL_MISSING, None
    if kept[person.email].suppressed is not None:
        return NotEnrolled.ADDRESS_SUPPRESSED, None
    if before is not None and before.status != ExecutionStatus.ENDED:
        return NotEnrolled.ALREADY_ENROLLED, before.id
    if before is not None and not _may_again(tx, document, calendar, before):
        return NotEnrolled.ENROLLED_BEFORE, before.id
    return None, None


def _may_again(tx: Transaction, document: SequenceDocument, calendar: Calendar, before: Record) -> bool:
    if isinstance(document.again, str):
        return document.again == "always"
    return due(before.ended_at, Wait.model_validate({"for": document.again}), calendar).at <= tx.now


def _beginning(tx: Transaction, document: SequenceDocument, calendar: Calendar) -> dict[str, Any]:
    """Where everybody begins: at a step that is due, or in a wait, unless it is one that looks at a record.

    A row that is written as one that waits need not be looked at, and written once more, before it does.
    """
    here = Position(document.steps[0].id, tx.now)
    begins = {"step": here.step, "anchor": here.anchor, "due_at": tx.now}
    route = places(document)
    first = None if needs(route, here) else decide(route, here, {}, Situation(tx.now, calendar))
    if isinstance(first, Waits):
        return {**begins, "due_at": first.due.at, "waits": first.due.model_dump(mode="json")}
    return begins


def _row(
    tx: Transaction,
    sequence: UUID,
    version: UUID,
    asked: Asked,
    person: Any,  # noqa: ANN401  (a row)
    mailbox: UUID | None,
) -> dict[str, Any]:
    links = Links(asked.contact, person.company_id, asked.deal)
    origin = asked.origin or tx.origin
    return {
        "org_id": tx.org,
        "id": asked.id or uuid7(),
        "kind": Target.ENROLLMENT.value,
        "definition_id": sequence,
        "version_id": version,
        **links.columns(),
        "status": ExecutionStatus.OPEN.value,
        "chain": [*origin.chain, sequence][-_MAX_CHAIN:],
        "started_at": tx.now,
        "revision": 1,
        "destination_id": mailbox,
        "started_by_kind": origin.kind,
        "started_by_id": origin.id,
    }


@cache
def _enrolling(names: tuple[str, ...]) -> ReturningInsert[Any]:
    return filling(table, (), names).on_conflict_do_nothing().returning(table.c.contact_id, table.c.id)


async def _make(
    tx: Transaction, rows: Sequence[Mapping[str, Any]], origins: Mapping[UUID, Origin | None]
) -> dict[UUID, UUID]:
    """Contact → the enrollment that was made; one that is in the way leaves its contact out."""
    if not rows:
        return {}
    made = {row.contact_id: row.id for row in await tx.write(_enrolling(tuple(rows[0])), filled({}, rows))}
    facts = [
        Fact(
            EventType.ENROLLMENT_STARTED,
            Kind.ENROLLMENT,
            row["id"],
            1,
            {},
            {"sequenceId": row["definition_id"], "contactId": row["contact_id"], "dealId": row["deal_id"]},
            origin=origins[row["contact_id"]],
        )
        for row in rows
        if row["contact_id"] in made
    ]
    await events.tell(tx, facts)
    await queues.wake(tx, Target.ENROLLMENT, made.values())
    return made


async def _outcome(tx: Transaction, sequence: UUID, asked: Asked, made: Mapping[UUID, UUID]) -> Answered:
    """What the table let in; where it did not, another was faster, or this very one was made before."""
    if asked.contact in made:
        return Answered(asked.contact, enrollment=made[asked.contact])
    statement = (
        select(table.c.id)
        .where(table.c.org_id == tx.org, table.c.definition_id == sequence, table.c.contact_id == asked.contact)
        .order_by(table.c.started_at.desc(), table.c.id.desc())
        .limit(1)
    )
    found = (await tx.execute(statement)).scalar_one_or_none()
    if found is not None and found == asked.id:
        return Answered(asked.contact, enrollment=found)
    return Answered(asked.contact, reason=NotEnrolled.ALREADY_ENROLLED, existing=found)


async def _set(tx: Transaction, found: Record, event: EventType, **values: Any) -> None:  # noqa: ANN401  (columns)
    number = found.revision + 1
    statement = update(table).where(table.c.org_id == tx.org, table.c.id == found.id)
    plain = {**values, "status": values["status"].value}
    await tx.execute(statement.values(**plain, revision=number, sweeps=0, sweep_after=None))
    after = {"status": plain["status"], "sequenceId": found.definition_id, "contactId": found.contact_id}
    await events.tell(tx, [Fact(event, Kind.ENROLLMENT, found.id, number, {"status": found.status}, after)])


def _with_names(tx: Transaction) -> Select[Any]:
    return (
        select(
            table,
            definition_table.c.name.label("sequence_name"),
            versions.c.number.label("version"),
            contacts.c.owner_id.label("contact_owner_id"),
        )
        .join(
            definition_table,
            (definition_table.c.org_id == table.c.org_id) & (definition_table.c.id == table.c.definition_id),
        )
        .join(versions, (versions.c.org_id == table.c.org_id) & (versions.c.id == table.c.version_id))
        .join(contacts, (contacts.c.org_id == table.c.org_id) & (contacts.c.id == table.c.contact_id))
        .where(table.c.org_id == tx.org, table.c.kind == Target.ENROLLMENT)
    )
