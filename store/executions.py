"""Executions: one walk through a version, moved by `advance`. Runs are started by the match.

How enrollments begin is in `store.enrollments`; how both are ended from outside in `store.stops`.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    Select,
    Table,
    Text,
    Update,
    Uuid,
    any_,
    bindparam,
    cast,
    exists,
    func,
    insert,
    literal,
    select,
    true,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, Insert
from sqlalchemy.sql.dml import ReturningInsert
from uuid_utils.compat import uuid7

from domain.delivery import OVER
from domain.keys import run_id
from domain.match import Event, Refused, Start
from domain.words import Awaits, EventType, ExecutionStatus, ExitReason, Kind, StepOutcome, StuckReason, Target
from store import events as events_of
from store import notifications, queues
from store.errors import IllegalTransition, NotFound
from store.events import Fact, Record
from store.pages import Page, Span, equal, page
from store.rowsets import NOW, ORG, among, filled, filling, rows_as, rowset
from store.tables import (
    contacts,
    deals,
    definitions,
    effects,
    events,
    executions,
    intents,
    organizations,
    pauses,
    refusals,
    versions,
)
from store.transaction import Transaction


@dataclass(frozen=True)
class Taken:
    """One step that was taken: what becomes an effect row."""

    step: str
    action: str
    outcome: StepOutcome
    saw: Mapping[str, Any]
    made_kind: Kind | None = None
    made_id: UUID | None = None


@dataclass(frozen=True)
class Rest:
    """Where an execution stands after steps, and when it is next looked at or which fact it awaits; or how it ended."""

    execution: Record
    taken: Sequence[Taken]
    step: str | None
    anchor: datetime
    message: UUID | None = None
    due_at: datetime | None = None
    awaits: Awaits | None = None
    waits: Mapping[str, Any] | None = None
    ended: ExitReason | None = None

    def steps(self) -> list[dict[str, Any]]:
        """The rows of its steps."""
        return [
            {
                "execution_id": self.execution.id,
                "step": one.step,
                "number": number,
                "action": one.action,
                "outcome": one.outcome.value,
                "saw": dict(one.saw),
                "made_kind": one.made_kind and one.made_kind.value,
                "made_id": one.made_id,
            }
            for number, one in enumerate(self.taken, self.execution.steps_taken + 1)
        ]

    def columns(self, now: datetime) -> dict[str, Any]:
        """Its own row; an end counts as a change of the enrollment or run itself."""
        ended = self.ended is not None
        return {
            "id": self.execution.id,
            "status": ExecutionStatus.ENDED if ended else ExecutionStatus.OPEN,
            "exit_reason": self.ended,
            "step": self.step,
            "anchor": self.anchor,
            "message_id": self.message,
            "due_at": self.due_at,
            "awaits": self.awaits,
            "waits": self.waits,
            "steps_taken": self.execution.steps_taken + len(self.taken),
            "revision": self.execution.revision + ended,
            "ended_at": now if ended else None,
        }


async def start_runs(tx: Transaction, decided: Sequence[tuple[Event, Start, Mapping[str, UUID | None]]]) -> list[UUID]:
    """Makes a run for each (event, decision, subject links), due at once; the ids of the new ones.

    A (rule, event) that has a run already keeps it: unique in the table.
    """
    if not decided:
        return []
    rows = [
        {
            "id": run_id(event.id, start.rule),
            "definition_id": start.rule,
            "version_id": start.version,
            "event_id": event.id,
            "contact_id": links.get("contact_id"),
            "company_id": links.get("company_id"),
            "deal_id": links.get("deal_id"),
            "step": start.document.steps[0].id,
            "anchor": event.at,
            "saw": start.saw.model_dump(mode="json") if start.saw else None,
            "chain": [*event.chain, start.rule],
        }
        for event, start, links in decided
    ]
    always = {
        "org_id": tx.org,
        "kind": Target.RUN.value,
        "status": ExecutionStatus.OPEN.value,
        "due_at": tx.now,
        "started_at": tx.now,
        "revision": 1,
    }
    starting = _starting(tuple(always), tuple(rows[0]))
    return list((await tx.execute(starting, filled(always, rows))).scalars())


@cache
def _starting(always: tuple[str, ...], names: tuple[str, ...]) -> ReturningInsert[Any]:
    return (
        filling(executions, always, names)
        .on_conflict_do_nothing(
            index_elements=["org_id", "definition_id", "event_id"], index_where=executions.c.event_id.is_not(None)
        )
        .returning(executions.c.id)
    )


async def refuse(tx: Transaction, decided: Sequence[tuple[Event, Refused]]) -> None:
    """Records why rules did not start a run, once for each (rule, event)."""
    if not decided:
        return
    rows = [
        {
            "id": uuid7(),
            "definition_id": refused.rule,
            "version_id": refused.version,
            "event_id": event.id,
            "reason": refused.reason.value,
            "saw": refused.saw.model_dump(mode="json") if refused.saw else None,
        }
        for event, refused in decided
    ]
    always = {"org_id": tx.org, "at": tx.now}
    await tx.execute(_refusing(tuple(always), tuple(rows[0])), filled(always, rows))


@cache
def _refusing(always: tuple[str, ...], names: tuple[str, ...]) -> Insert:
    return filling(refusals, always, names).on_conflict_do_nothing()


async def lock_due(tx: Transaction, ids: Sequence[UUID]) -> list[Record]:
    """Locks open executions' contacts and deals, then the executions; those of which something may become, by id.

    One statement, in the lock order of the product: records before executions, several of one kind
    by id. Each row comes with its version's `document` and the `calendar` as text, its event's type,
    before and after (None for an enrollment), and the `pauses` since its anchor.
    """
    return list((await tx.execute(_locking_due(), {"the_org": tx.org, "ids": list(ids)})).all())


@cache
def _locking_due() -> Select[Any]:
    mine = (executions.c.org_id == ORG) & (executions.c.id == any_(bindparam("ids", type_=ARRAY(Uuid))))

    def locked(table: Table, link: ColumnElement[UUID]) -> ColumnElement[bool]:
        """Not inlined because it locks; evaluated before the execution's own row is."""
        rows = select(table.c.id).where(table.c.org_id == ORG, table.c.id.in_(select(link).where(mine)))
        cte = rows.order_by(table.c.id).with_for_update(key_share=True).cte(f"locked_{table.name}")
        return select(func.count()).select_from(cte).scalar_subquery() >= 0

    held_still = (
        select(func.jsonb_agg(func.jsonb_build_array(pauses.c.since, pauses.c.until), type_=JSONB))
        .where(
            pauses.c.org_id == executions.c.org_id,
            (pauses.c.definition_id == executions.c.definition_id) | (pauses.c.execution_id == executions.c.id),
            pauses.c.until.is_(None) | (pauses.c.until > executions.c.anchor),
        )
        .scalar_subquery()
    )
    return (
        select(
            executions,
            cast(versions.c.document, Text).label("document"),
            events.c.type.label("event_type"),
            events.c.before.label("event_before"),
            events.c.after.label("event_after"),
            cast(organizations.c.calendar, Text).label("calendar"),
            held_still.label("pauses"),
        )
        .join(organizations, organizations.c.id == executions.c.org_id)
        .join(
            versions,
            (versions.c.org_id == executions.c.org_id) & (versions.c.id == executions.c.version_id),
        )
        .outerjoin(
            events,
            (events.c.org_id == executions.c.org_id) & (events.c.id == executions.c.event_id),
        )
        .where(mine, executions.c.status == ExecutionStatus.OPEN, executions.c.held_since.is_(None))
        .where(locked(contacts, executions.c.contact_id), locked(deals, executions.c.deal_id))
        .order_by(executions.c.id)
        .with_for_update(of=executions, key_share=True)
    )


async def last_messages(tx: Transaction, of: Sequence[Record]) -> dict[UUID, Record]:
    """When executions' last messages were planned and left; `over` when no more becomes of any one has written.

    By the message's id. Whoever records that holds the execution's lock, so this is a statement
    after `lock_due`: one that waited for the lock would tell how it was before.
    """
    wanted = [one.message_id for one in of if one.message_id is not None]
    if not wanted:
        return {}
    other = intents.alias("other")
    to_come = exists().where(
        other.c.org_id == intents.c.org_id,
        other.c.execution_id == intents.c.execution_id,
        other.c.status.not_in(OVER),
    )
    statement = select(intents.c.id, intents.c.due_at, intents.c.accepted_at, (~to_come).label("over")).where(
        intents.c.org_id == tx.org, among(intents.c.id, wanted)
    )
    return {row.id: row for row in await tx.execute(statement)}


async def rest(tx: Transaction, rests: Sequence[Rest]) -> None:
    """Writes the steps that locked executions took, and where they stand now or how they ended.

    A step's key is (execution, step, visit), so twice is an error. An enrollment's end is a fact of its own.
    """
    if not rests:
        return
    taken = [row for one in rests for row in one.steps()]
    stand = [one.columns(tx.now) for one in rests]
    values = {"the_org": tx.org, "the_now": tx.now, **rows_as("steps", taken), **rows_as("given", stand)}
    written = (await tx.execute(_resting(tuple(stand[0])), values)).rowcount
    if written != len(rests):
        raise RuntimeError("an execution has ended since it was locked")
    facts = [
        end_fact(one.execution, one.execution.revision + 1, one.ended)
        for one in rests
        if one.ended is not None and one.execution.kind == Target.ENROLLMENT
    ]
    await events_of.tell(tx, facts)


@cache
def _resting(names: tuple[str, ...]) -> Update:
    steps = rowset("steps", {name: effects.c[name].type for name in _STEP})
    recorded = (
        insert(effects)
        .from_select(["org_id", "visit", "at", *_STEP], select(ORG, literal(1), NOW, *steps.c))
        .returning(literal(1))
        .cte("recorded")
    )
    given = rowset("given", {name: executions.c[name].type for name in names})
    written = {name: given.c[name] for name in names if name != "id"}
    return (
        update(executions)
        .where(executions.c.org_id == ORG, executions.c.id == given.c.id, executions.c.status != ExecutionStatus.ENDED)
        .values(**written, held_since=None, stuck_reason=None, stuck_detail=None, sweeps=0, sweep_after=None)
        .add_cte(recorded)
    )


_STEP = ("execution_id", "step", "number", "action", "outcome", "saw", "made_kind", "made_id")


async def end(tx: Transaction, execution: Record, reason: ExitReason) -> None:
    """Ends a locked execution that went its way."""
    await rest(tx, [Rest(execution, (), None, execution.anchor, message=execution.message_id, ended=reason)])


def end_fact(execution: Record, number: int, reason: ExitReason) -> Fact:
    """The event of an enrollment's end."""
    about = {"sequenceId": execution.definition_id, "contactId": execution.contact_id, "dealId": execution.deal_id}
    after = {**about, "exitReason": reason.value}
    before = {"status": execution.status}
    return Fact(EventType.ENROLLMENT_ENDED, Kind.ENROLLMENT, execution.id, number, before, after, execution.chain)


async def get_stuck(
    tx: Transaction, id: UUID, reason: StuckReason, detail: str, owner: UUID | None, *, step: str | None = None
) -> bool:
    """Hands an open execution to a person, who is told of an enrollment.

    False if it is not open any more, or stands elsewhere than at `step`.
    """
    statement = (
        update(executions)
        .where(
            executions.c.org_id == tx.org,
            executions.c.id == id,
            executions.c.status == ExecutionStatus.OPEN,
            executions.c.step == step if step is not None else true(),
        )
        .values(
            status=ExecutionStatus.STUCK.value,
            stuck_reason=reason.value,
            stuck_detail=detail[:500],
            stuck_owner_id=owner,
            due_at=None,
            awaits=None,
        )
        .returning(executions.c.kind, executions.c.contact_id)
    )
    stuck = (await tx.execute(statement)).one_or_none()
    if stuck is not None and stuck.kind == Target.ENROLLMENT and owner is not None:
        title = f"An enrollment needs you: {reason.replace('_', ' ')}"
        values = {"user_id": owner, "reason": "stuck", "title": title, "contact_id": stuck.contact_id}
        await notifications.notify(tx, uuid7(), {**values, "execution_id": id})
    return stuck is not None


async def retry(tx: Transaction, id: UUID, kind: Target) -> Record:
    """Goes on from the step that failed. Raises `NotFound`, and `IllegalTransition` unless it is stuck."""
    freed = (
        update(executions)
        .where(
            executions.c.org_id == tx.org,
            executions.c.id == id,
            executions.c.kind == kind,
            executions.c.status == ExecutionStatus.STUCK,
        )
        .values(
            status=ExecutionStatus.OPEN.value,
            due_at=tx.now,
            stuck_reason=None,
            stuck_detail=None,
            stuck_owner_id=None,
            sweeps=0,
            sweep_after=None,
        )
        .returning(*executions.c)
        .cte("freed")
    )
    statement = select(freed).add_cte(queues.waking(tx, kind, freed))
    found = (await tx.execute(statement)).one_or_none()
    if found is None:
        status = (await get(tx, id, kind)).status
        raise IllegalTransition(f"only a stuck {kind} can be retried; this one is {status}", "status")
    return found


async def wake(tx: Transaction, ids: Iterable[UUID]) -> None:
    """Makes open executions due now and has them looked at."""
    woken = (
        update(executions)
        .where(
            executions.c.org_id == tx.org,
            executions.c.id.in_(list(ids)),
            executions.c.status == ExecutionStatus.OPEN,
        )
        .values(due_at=func.least(executions.c.due_at, tx.now), awaits=None, sweeps=0, sweep_after=None)
        .returning(executions.c.id, executions.c.kind)
        .cte("woken")
    )
    await tx.execute(select(literal(1)).add_cte(queues.waking(tx, woken.c.kind, woken)))


async def go_on(tx: Transaction, ids: Iterable[UUID]) -> int:
    """Wakes those that await the resume of their sequence; how many. One that somebody else has locked is left out."""
    here = select(executions.c.id).where(
        executions.c.org_id == tx.org, executions.c.id.in_(list(ids)), executions.c.awaits == Awaits.RESUME
    )
    kept = here.order_by(executions.c.id).with_for_update(key_share=True, skip_locked=True).cte("kept")
    woken = (
        update(executions)
        .where(executions.c.org_id == tx.org, executions.c.id == kept.c.id)
        .values(due_at=tx.now, awaits=None, sweeps=0, sweep_after=None)
        .returning(executions.c.id, executions.c.kind)
        .cte("woken")
    )
    counted = select(func.count()).select_from(woken)
    count: int = (await tx.execute(counted.add_cte(queues.waking(tx, woken.c.kind, woken)))).scalar_one()
    return count


async def get(tx: Transaction, id: UUID, kind: Target) -> Record:
    """A run or an enrollment. Raises `NotFound`."""
    statement = select(executions).where(
        executions.c.org_id == tx.org, executions.c.id == id, executions.c.kind == kind
    )
    found = (await tx.execute(statement)).one_or_none()
    if found is None:
        raise NotFound(kind.capitalize())
    return found


async def explain(tx: Transaction, id: UUID) -> Record:
    """A run with its rule's name, its version's number and its event. Raises `NotFound`."""
    found = (await tx.execute(_told(tx).where(executions.c.id == id))).one_or_none()
    if found is None:
        raise NotFound("Run")
    return found


async def search(
    tx: Transaction,
    span: Span,
    *,
    rule: UUID | None = None,
    status: ExecutionStatus | None = None,
    contact: UUID | None = None,
    deal: UUID | None = None,
) -> Page:
    """As `explain`, many."""
    wanted = {
        executions.c.definition_id: rule,
        executions.c.status: status,
        executions.c.contact_id: contact,
        executions.c.deal_id: deal,
    }
    return await page(tx, _told(tx).where(*equal(wanted)), executions.c.id, span)


async def refused(
    tx: Transaction,
    span: Span,
    *,
    rule: UUID | None = None,
    event: UUID | None = None,
    subject: UUID | None = None,
) -> Page:
    """Decisions not to start a run, with the rule's name, the version's number and the event."""
    wanted = equal({refusals.c.definition_id: rule, refusals.c.event_id: event, events.c.subject_id: subject})
    query = _with_rule_and_event(select(refusals, *_TOLD), refusals)
    return await page(tx, query.where(refusals.c.org_id == tx.org, *wanted), refusals.c.id, span)


async def steps_of(tx: Transaction, id: UUID) -> list[Record]:
    """The effects of an execution, in the order they were taken."""
    statement = (
        select(effects).where(effects.c.org_id == tx.org, effects.c.execution_id == id).order_by(effects.c.number)
    )
    return list((await tx.execute(statement)).all())


async def open_ids(tx: Transaction) -> list[UUID]:
    statement = select(executions.c.id).where(
        executions.c.org_id == tx.org, executions.c.status == ExecutionStatus.OPEN
    )
    return list((await tx.execute(statement)).scalars())


_TOLD = (
    definitions.c.name.label("rule_name"),
    versions.c.number.label("version"),
    events.c.type.label("event_type"),
    events.c.number.label("event_number"),
    events.c.at.label("event_at"),
    events.c.subject_kind,
    events.c.subject_id,
    events.c.before.label("event_before"),
    events.c.after.label("event_after"),
)


def _told(tx: Transaction) -> Select[Any]:
    return _with_rule_and_event(select(executions, *_TOLD), executions).where(executions.c.org_id == tx.org)


def _with_rule_and_event(query: Select[Any], decided: Table) -> Select[Any]:
    for table, link in ((definitions, "definition_id"), (versions, "version_id"), (events, "event_id")):
        query = query.join(table, (table.c.org_id == decided.c.org_id) & (table.c.id == decided.c[link]))
    return query


def ended(tx: Transaction, reason: ExitReason) -> dict[str, Any]:
    """The columns of an end."""
    return {
        "status": ExecutionStatus.ENDED.value,
        "exit_reason": reason.value,
        "due_at": None,
        "awaits": None,
        "held_since": None,
        "waits": None,
        "stuck_reason": None,
        "stuck_detail": None,
        "ended_at": tx.now,
        "revision": executions.c.revision + 1,
    }
