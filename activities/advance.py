"""`advance`: what is due on one row, done in one transaction. Anyone may call it at any time."""

import time
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any
from uuid import UUID

import structlog
from temporalio import activity
from temporalio.exceptions import ApplicationError

from activities.actions import Scene, Unable, perform, writes
from domain.decide import (
    Finished,
    Lost,
    Mailed,
    Parks,
    Passed,
    Perform,
    Position,
    Situation,
    Waits,
    decide,
    needs,
)
from domain.documents import Act, Action, Enroll, TakeOut
from domain.due import Amount, Calendar, Due, Wait, due
from domain.keys import EffectKey
from domain.words import Awaits, ExitReason, Kind, ReminderStatus, StepOutcome, StuckReason, Target
from store import definitions, executions, facts, identity, notifications, reminders
from store.errors import is_transient
from store.events import Record
from store.executions import Rest, Taken
from store.facts import Links, Records, Subject
from store.transaction import Database, Origin, Transaction
from workflows.contracts import ADVANCE, Answer, Waiter

MAX_STEPS = 50
"""Steps one transaction may take; a longer walk goes on in the next."""
MAX_SECONDS = 1.0
"""How long it may be at it: well within the time an attempt has, so that a slow database makes it slow and no more."""

_DONE = Answer(done=True)

log = structlog.get_logger()


class StepUnable(Exception):  # noqa: N818  (an outcome: the execution becomes stuck)
    """A step that only a person can help, and how many steps of this advance before it went well.

    As an answer it says that these are kept; raised, that nothing is.
    """

    def __init__(self, cause: Unable, step: str, steps: int) -> None:
        super().__init__(cause.detail)
        self.cause = cause
        self.step = step
        self.steps = steps


class Advance:
    """The activity function over one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @activity.defn(name=ADVANCE)
    async def advance(self, waiter: Waiter) -> Answer:
        """Raises only coded `ApplicationError`s, whose text holds no data of any record."""
        try:
            if waiter.kind is Target.REMINDER:
                async with self._database.transaction(waiter.org, lock_seconds=1, planned=True) as tx:
                    return await advance_reminder(tx, waiter.id)
            return await self._run(waiter)
        except Exception as error:  # noqa: BLE001  (every error leaves as a code: its text may hold personal data)
            code = "database_busy" if is_transient(error) else "unexpected_error"
            log.warning("advance_failed", kind=waiter.kind, id=str(waiter.id), code=code, error=type(error).__name__)
            raise ApplicationError(code, type=code) from None

    async def _run(self, waiter: Waiter) -> Answer:
        try:
            async with self._database.transaction(waiter.org, lock_seconds=1, planned=True) as tx:
                answer = (await advance_all(tx, [waiter.id]))[waiter.id]
        except StepUnable as unable:
            return await self._stick(waiter, unable.cause, unable.step, unable.steps)
        except Exception as error:
            if is_transient(error):
                raise
            log.exception("run_failed", id=str(waiter.id))
            cause = Unable(StuckReason.UNEXPECTED_ERROR, f"{type(error).__name__}: {error}")
            return await self._stick(waiter, cause, None, 0)
        if isinstance(answer, StepUnable):
            return await self._stick(waiter, answer.cause, answer.step, 0)
        return answer

    async def _stick(self, waiter: Waiter, cause: Unable, step: str | None, steps: int) -> Answer:
        """Keeps the steps that went well, then hands the run to a person, each in its own transaction.

        Another may have helped the `step` in between and gone past it: then the run is looked at again.
        """
        if steps:
            async with self._database.transaction(waiter.org, lock_seconds=1, planned=True) as tx:
                await advance_all(tx, [waiter.id], most=steps)
        async with self._database.transaction(waiter.org, lock_seconds=1, planned=True) as tx:
            owner = await identity.who_mends(tx, waiter.id)
            stuck = await executions.get_stuck(tx, waiter.id, cause.reason, cause.detail, owner, step=step)
        return _DONE if stuck else Answer(seconds=0)


async def advance_all(
    tx: Transaction, ids: Sequence[UUID], *, most: int = MAX_STEPS
) -> dict[UUID, Answer | StepUnable]:
    """Takes every step that is due of each run or enrollment: at most `most`, and for a second in all.

    They go round by round, one step each, and what a round does is done at once. The rows are the
    same as if each had gone alone, in the order of their events and rules: one that would meet a record which
    another before it writes to, or write to one that such another looks at, waits until that rests.
    One that enrolls or takes out is left for a call of its own where enrollments of its contact are among them.
    What the database refuses in one is raised for all, of one alone as `StepUnable`. One that awaits
    a fact needs no workflow: whoever records the fact wakes it.
    """
    batch = await _Batch.locked(tx, ids)
    started = time.monotonic()
    while going := batch.may_go(most):
        await batch.round(going)
        if time.monotonic() - started > MAX_SECONDS:
            break
    return await batch.rest()


class _Batch:
    """Locked executions of one organization while their steps are taken."""

    def __init__(self, tx: Transaction, ids: Sequence[UUID], walks: Sequence["_Walk"]) -> None:
        self._tx = tx
        self._ids = ids
        self._walks = walks
        self._records = Records()

    @classmethod
    async def locked(cls, tx: Transaction, ids: Sequence[UUID]) -> "_Batch":
        due = await executions.lock_due(tx, ids)
        messages = await executions.last_messages(tx, due)
        # Ids are what they are locked by, and say nothing of what came first.
        due.sort(key=lambda one: (one.event_id or one.id, one.definition_id))
        batch = cls(tx, ids, [_Walk(one, messages.get(one.message_id)) for one in due])
        enrolled = Counter(one.contact_id for one in due if one.kind == Target.ENROLLMENT)
        for walk in batch._walks:
            others = enrolled[walk.execution.contact_id] - (walk.execution.kind == Target.ENROLLMENT)
            if walk.paused:
                walk.stay()
            elif walk.enrolls and others:
                walk.answer = Answer(seconds=0)  # it may end what was read already, so it goes by itself
        return batch

    def may_go(self, most: int) -> list["_Walk"]:
        """Those that may take a step now, none of which meets what another of them writes to."""
        found, met, written = [], set[UUID](), set[UUID]()
        for walk in self._walks:
            if walk.answer is not None:
                continue
            if not (walk.meets & written or walk.writes & met) and len(walk.taken) < most:
                found.append(walk)
            met |= walk.meets
            written |= walk.writes
        return found

    async def round(self, going: Sequence["_Walk"]) -> None:
        """One step of each."""
        looks = await self._look(going)
        acting: dict[type[Action], list[tuple[_Walk, Scene[Any], Perform]]] = {}
        for walk, (subject, looked_at) in zip(going, looks, strict=True):
            situation = walk.situation(self._tx, (looked_at.get("contact") or {}).get("timeZone"))
            decision = decide(walk.route, walk.position, looked_at, situation)
            match decision:
                case Perform():
                    scene = walk.scene(decision, subject, situation.calendar)
                    acting.setdefault(type(decision.action), []).append((walk, scene, decision))
                case Passed():
                    kind = "wait" if decision.outcome is StepOutcome.WAITED else "branch"
                    saw = decision.saw.model_dump(mode="json")
                    walk.took(Taken(decision.step, kind, decision.outcome, saw), decision)
                case Waits():
                    walk.answer = Answer(seconds=self._tx.real(decision.due.at - self._tx.now))
                    walk.stands(decision.due.at, waits=decision.due)
                case Parks():
                    walk.answer = _DONE
                    walk.stands(None, awaits=decision.awaits, waits=decision.due)
                case Finished():
                    walk.finished(decision)
                case Lost():
                    gone = Unable(StuckReason.DOCUMENT_UNREADABLE, f"no step '{decision.step}'")
                    walk.unable(self._tx, gone, decision.step)
        for performed in acting.values():
            await self._perform(performed)

    async def _perform(self, performed: Sequence[tuple["_Walk", Scene[Any], Perform]]) -> None:
        try:
            outcomes = await perform(self._tx, [scene for _, scene, _ in performed])
        except Unable as unable:
            walk, _, decision = performed[0]  # the only one, of one alone; of many it is not known which
            raise StepUnable(unable, decision.step, len(walk.taken)) from None
        for (walk, _, decision), did in zip(performed, outcomes, strict=True):
            if isinstance(did, Unable):
                walk.unable(self._tx, did, decision.step)
                continue
            for root, record in did.changed.items():
                self._records.changed(root, record)
            action = decision.action.type
            walk.took(Taken(decision.step, action, StepOutcome.DONE, did.saw, did.made_kind, did.made_id), decision)

    async def _look(self, going: Sequence["_Walk"]) -> list[tuple[Subject, dict[str, Any]]]:
        """The facts that each one's next step needs, as they are now."""
        roots = [needs(walk.route, walk.position) for walk in going]
        look_at_records = [walk.links for walk, of in zip(going, roots, strict=True) if of & _RECORDS]
        await self._records.read(self._tx, look_at_records)
        made = await self._made([walk for walk, of in zip(going, roots, strict=True) if "step" in of])
        looks = []
        for walk, of in zip(going, roots, strict=True):
            subject = self._records.subject(walk.links) if of & _RECORDS else Subject(walk.links, {})
            looked_at = dict(subject.facts)
            if "step" in of:
                looked_at["step"] = made[walk.execution.id]
            if "event" in of:
                looked_at["event"] = walk.event
            looks.append((subject, looked_at))
        return looks

    async def _made(self, asking: Sequence["_Walk"]) -> dict[UUID, dict[str, Any]]:
        """What the steps of each have made, those of this advance too."""
        if not asking:
            return {}
        before = await facts.made_by(self._tx, [walk.execution.id for walk in asking])
        of = {
            walk.execution.id: before.get(walk.execution.id, {})
            | {one.step: (one.made_kind, one.made_id) for one in walk.taken if one.made_kind and one.made_id}
            for walk in asking
        }
        found = await facts.as_they_are(self._tx, [one for made in of.values() for one in made.values()])
        return {
            execution: {step: found[id_] for step, (_, id_) in made.items() if id_ in found}
            for execution, made in of.items()
        }

    async def rest(self) -> dict[UUID, Answer | StepUnable]:
        """Writes where all of them stand; what has not come to rest goes on at once."""
        answers: dict[UUID, Answer | StepUnable] = dict.fromkeys(self._ids, _DONE)
        for walk in self._walks:
            if walk.answer is None:
                walk.answer = Answer(seconds=0)
                walk.stands(self._tx.now)
            answers[walk.execution.id] = walk.answer
        await executions.rest(self._tx, [walk.standing for walk in self._walks if walk.standing])
        return answers


_RECORDS = frozenset({"contact", "company", "deal"})


@lru_cache(maxsize=1000)
def _calendar(text: str, zone: str | None) -> Calendar:
    """A stored calendar for a contact in that zone; most of a batch have the same."""
    return Calendar.model_validate_json(text).model_copy(update={"contact_zone": zone})


class _Walk:
    """An execution while its steps are taken: where it stands, and what is to be written of it."""

    def __init__(self, execution: Record, message: Record | None) -> None:
        self.execution = execution
        self.route = definitions.route(execution.kind, execution.document)
        self.position = Position(execution.step, execution.anchor)
        self.links = Links.of(execution)
        self.meets = frozenset(id_ for id_ in self.links.columns().values() if id_)
        roots = {writes(place.step.action) for place in self.route.values() if isinstance(place.step, Act)}
        self.writes = frozenset(id_ for root in roots if root and (id_ := getattr(self.links, f"{root}_id")))
        self.enrolls = any(
            isinstance(place.step, Act) and isinstance(place.step.action, Enroll | TakeOut)
            for place in self.route.values()
        )
        """Whether it begins or ends enrollments of its contact."""
        self.taken: list[Taken] = []
        self.answer: Answer | StepUnable | None = None
        """None until it has come to rest."""
        self.standing: Rest | None = None
        """None where nothing is to be written."""
        self.pauses = [
            (datetime.fromisoformat(since), until and datetime.fromisoformat(until))
            for since, until in execution.pauses or ()
        ]
        self.paused = any(until is None for _, until in self.pauses)
        actor = "sequence" if execution.kind == Target.ENROLLMENT else "rule"
        self._origin = Origin(actor, execution.definition_id, tuple(execution.chain), execution.id)
        self._message: UUID | None = execution.message_id
        self._mailed = Mailed(message.due_at, message.accepted_at, message.over) if message else None

    @property
    def event(self) -> dict[str, Any]:
        """The event of a run, as facts."""
        row = self.execution
        return {"type": row.event_type, "before": row.event_before, "after": row.event_after}

    def situation(self, tx: Transaction, zone: str | None) -> Situation:
        return Situation(
            tx.now,
            _calendar(self.execution.calendar, zone),
            self._mailed,
            self.pauses,
        )

    def scene(self, decision: Perform, subject: Subject, calendar: Calendar) -> Scene[Any]:
        key, row = EffectKey(self.execution.id, decision.step, 1), self.execution
        return Scene(decision.action, key, self._origin, subject, calendar, self.position.anchor, row.destination_id)

    def took(self, taken: Taken, decision: Perform | Passed) -> None:
        self.taken.append(taken)
        self.position = decision.then
        if taken.made_kind is Kind.MESSAGE:
            self._message, self._mailed = taken.made_id, Mailed(self.position.anchor, None, over=False)
        elif taken.outcome is StepOutcome.WAITED:
            self._message, self._mailed = None, None

    def stands(self, due_at: datetime | None, *, awaits: Awaits | None = None, waits: Due | None = None) -> None:
        self.standing = Rest(
            self.execution,
            self.taken,
            self.position.step,
            self.position.anchor,
            message=self._message,
            due_at=due_at,
            awaits=awaits,
            waits=waits.model_dump(mode="json") if waits else None,
        )

    def stay(self) -> None:
        """Its sequence is paused. If it was resumed meanwhile, the relay finds that this one awaits what has come."""
        self.answer = _DONE
        if self.execution.awaits != Awaits.RESUME:
            self.stands(None, awaits=Awaits.RESUME)

    def finished(self, decision: Finished) -> None:
        """The message it has written last and where it stood are kept as they were."""
        reason = ExitReason.COMPLETED
        if decision.step is not None:
            self.taken.append(Taken(decision.step, "exit", StepOutcome.EXITED, {}))
            reason = ExitReason.EXITED
        row = self.execution
        self.answer = _DONE
        self.standing = Rest(row, self.taken, None, row.anchor, message=row.message_id, ended=reason)

    def unable(self, tx: Transaction, cause: Unable, step: str) -> None:
        """Keeps what it did before the step that only a person can help."""
        self.answer = StepUnable(cause, step, len(self.taken))
        if self.taken:
            self.stands(tx.now)


async def advance_reminder(tx: Transaction, id: UUID) -> Answer:
    """Fires a reminder whose time has come, and escalates one that was not answered."""
    reminder = await reminders.lock_due(tx, id)
    if reminder is None:
        return _DONE
    if tx.now < reminder.due_at:
        return Answer(seconds=tx.real(reminder.due_at - tx.now))
    if reminder.status == ReminderStatus.SCHEDULED:
        await _tell(tx, reminder, reminder.owner_id, "reminder")
        escalates_at = await _escalates_at(tx, reminder)
        await reminders.fired(tx, id, escalates_at)
        return Answer(seconds=tx.real(escalates_at - tx.now)) if escalates_at else _DONE
    manager = await identity.manager_of(tx, reminder.owner_id)
    await _tell(tx, reminder, manager or reminder.owner_id, "escalation")
    await reminders.escalated(tx, id)
    return _DONE


async def _tell(tx: Transaction, reminder: Record, user: UUID, reason: str) -> None:
    occurrence = reminder.snoozes + 1
    key = EffectKey(reminder.id, reason, occurrence)
    values = {
        "user_id": user,
        "reason": reason,
        "title": reminder.title,
        "reminder_id": reminder.id,
        "occurrence": occurrence,
        "execution_id": reminder.execution_id,
        "activity_id": reminder.activity_id,
        **Links.of(reminder).columns(),
    }
    await notifications.notify(tx, key.made("notification"), values)


async def _escalates_at(tx: Transaction, reminder: Record) -> Any:  # noqa: ANN401  (datetime or None)
    """Counted from the planned instant, so that a late reminder does not make a late escalation."""
    if reminder.escalate_after is None:
        return None
    amount = Amount.model_validate(reminder.escalate_after)
    wait = Wait.model_validate({"for": amount})
    return due(reminder.due_at, wait, await identity.calendar(tx)).at
