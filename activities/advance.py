"""`advance`: what is due on one row, done in one transaction. Anyone may call it at any time."""

import time
from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

import structlog
from temporalio import activity
from temporalio.exceptions import ApplicationError

from activities.actions import Scene, Unable, perform
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
from domain.due import Amount, Calendar, Due, Wait, due
from domain.keys import EffectKey
from domain.words import Awaits, ExitReason, Kind, ReminderStatus, StepOutcome, StuckReason, Target
from store import definitions, executions, facts, identity, notifications, reminders
from store.errors import is_transient
from store.events import Record
from store.executions import Taken
from store.facts import Links, Subject
from store.transaction import Database, Origin, Transaction
from workflows.contracts import ADVANCE, Answer, Waiter

MAX_STEPS = 50
"""Steps one transaction may take; a longer walk goes on in the next."""
MAX_SECONDS = 1.0
"""How long it may be at it: well within the time an attempt has, so that a slow database makes it slow and no more."""

_DONE = Answer(done=True)

log = structlog.get_logger()


class StepUnable(Exception):  # noqa: N818  (an outcome: the execution becomes stuck)
    """A step that only a person can help, and how many steps of this advance before it went well."""

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
                async with self._database.transaction(waiter.org, lock_seconds=1) as tx:
                    return await advance_reminder(tx, waiter.id)
            return await self._run(waiter)
        except Exception as error:  # noqa: BLE001  (every error leaves as a code: its text may hold personal data)
            code = "database_busy" if is_transient(error) else "unexpected_error"
            log.warning("advance_failed", kind=waiter.kind, id=str(waiter.id), code=code, error=type(error).__name__)
            raise ApplicationError(code, type=code) from None

    async def _run(self, waiter: Waiter) -> Answer:
        try:
            async with self._database.transaction(waiter.org, lock_seconds=1) as tx:
                return await advance_run(tx, waiter.id)
        except StepUnable as unable:
            return await self._stick(waiter, unable.cause, unable.step, unable.steps)
        except Exception as error:
            if is_transient(error):
                raise
            log.exception("run_failed", id=str(waiter.id))
            cause = Unable(StuckReason.UNEXPECTED_ERROR, f"{type(error).__name__}: {error}")
            return await self._stick(waiter, cause, None, 0)

    async def _stick(self, waiter: Waiter, cause: Unable, step: str | None, steps: int) -> Answer:
        """Keeps the steps that went well, then hands the run to a person, each in its own transaction.

        Another may have helped the `step` in between and gone past it: then the run is looked at again.
        """
        if steps:
            async with self._database.transaction(waiter.org, lock_seconds=1) as tx:
                await advance_run(tx, waiter.id, most=steps)
        async with self._database.transaction(waiter.org, lock_seconds=1) as tx:
            owner = await identity.who_mends(tx, waiter.id)
            stuck = await executions.get_stuck(tx, waiter.id, cause.reason, cause.detail, owner, step=step)
        return _DONE if stuck else Answer(seconds=0)


async def advance_run(tx: Transaction, id: UUID, *, most: int = MAX_STEPS) -> Answer:
    """Takes every step that is due, of a run or an enrollment: at most `most`, and for a second.

    Raises `StepUnable`; nothing is written then. One that awaits a fact needs no workflow: whoever
    records the fact wakes it.
    """
    execution = await executions.lock_due(tx, id)
    if execution is None:
        return _DONE
    walk = _Walk(execution, await executions.last_message(tx, execution))
    if walk.paused:
        return await _stay(tx, walk)
    acting = tx.acting(Origin(walk.actor, execution.definition_id, tuple(execution.chain), execution.id))
    started = time.monotonic()
    for _ in range(most):
        if walk.taken and time.monotonic() - started > MAX_SECONDS:
            break
        subject, looked_at = await _look(tx, execution, needs(walk.route, walk.position))
        situation = walk.situation(tx, (looked_at.get("contact") or {}).get("timeZone"))
        decision = decide(walk.route, walk.position, looked_at, situation)
        match decision:
            case Perform() | Passed():
                try:
                    taken = await _take(acting, execution, decision, walk.position, subject, situation.calendar)
                except Unable as unable:
                    raise StepUnable(unable, decision.step, len(walk.taken)) from None
                walk.took(taken, decision)
            case Waits() | Parks() | Finished():
                return await _rest(tx, walk, decision)
            case Lost():
                gone = Unable(StuckReason.DOCUMENT_UNREADABLE, f"no step '{decision.step}'")
                raise StepUnable(gone, decision.step, len(walk.taken))
    await walk.stand(tx, due_at=tx.now)
    return Answer(seconds=0)


class _Walk:
    """An execution while its steps are taken: where it stands, and what is to be written of it."""

    def __init__(self, execution: Record, message: Record | None) -> None:
        self.execution = execution
        self.actor = "sequence" if execution.kind == Target.ENROLLMENT else "rule"
        self.route = definitions.route(execution.kind, execution.document)
        self.position = Position(execution.step, execution.anchor)
        self.taken: list[Taken] = []
        self.pauses = [
            (datetime.fromisoformat(since), until and datetime.fromisoformat(until))
            for since, until in execution.pauses or ()
        ]
        self.paused = any(until is None for _, until in self.pauses)
        self._calendar = Calendar.model_validate(execution.calendar)
        self._message: UUID | None = execution.message_id
        self._mailed = Mailed(message.due_at, message.accepted_at, message.over) if message else None

    def situation(self, tx: Transaction, zone: str | None) -> Situation:
        return Situation(
            tx.now,
            self._calendar.model_copy(update={"contact_zone": zone}),
            self._mailed,
            self.pauses,
        )

    def took(self, taken: Taken, decision: Perform | Passed) -> None:
        self.taken.append(taken)
        self.position = decision.then
        if taken.made_kind is Kind.MESSAGE:
            self._message, self._mailed = taken.made_id, Mailed(self.position.anchor, None, over=False)
        elif taken.outcome is StepOutcome.WAITED:
            self._message, self._mailed = None, None

    async def stand(
        self, tx: Transaction, *, due_at: datetime | None, awaits: Awaits | None = None, waits: Due | None = None
    ) -> None:
        await executions.record(tx, self.execution, self.taken)
        await executions.stand(
            tx,
            self.execution,
            steps=len(self.taken),
            step=self.position.step,
            anchor=self.position.anchor,
            message=self._message,
            due_at=due_at,
            awaits=awaits,
            waits=waits.model_dump(mode="json") if waits else None,
        )


async def _rest(tx: Transaction, walk: _Walk, decision: Waits | Parks | Finished) -> Answer:
    """Writes where a walk comes to rest, for now or for good."""
    match decision:
        case Waits():
            await walk.stand(tx, due_at=decision.due.at, waits=decision.due)
            return Answer(seconds=tx.real(decision.due.at - tx.now))
        case Parks():
            return await _park(tx, walk, decision)
        case Finished():
            return await _finish(tx, walk.execution, walk.taken, decision)


async def _stay(tx: Transaction, walk: _Walk) -> Answer:
    """Its sequence is paused; unless it was resumed while this waited for the execution's lock."""
    if walk.execution.awaits == Awaits.RESUME:
        return _DONE
    if not await definitions.is_paused(tx, walk.execution.definition_id):
        return Answer(seconds=0)
    return await _park(tx, walk, Parks(walk.execution.step, Awaits.RESUME, None))


async def _park(tx: Transaction, walk: _Walk, decision: Parks) -> Answer:
    await walk.stand(tx, due_at=None, awaits=decision.awaits, waits=decision.due)
    return _DONE


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


async def _look(tx: Transaction, execution: Record, roots: frozenset[str]) -> tuple[Subject, Mapping[str, Any]]:
    """The facts the next step needs, as they are now."""
    looked_at: dict[str, Any] = {}
    subject = Subject(Links.of(execution), {})
    if roots & {"contact", "company", "deal"}:
        (subject,) = await facts.subjects(tx, [subject.links])
        looked_at.update(subject.facts)
    if "step" in roots:
        looked_at["step"] = await facts.made_by(tx, execution.id)
    if "event" in roots:
        looked_at["event"] = {
            "type": execution.event_type,
            "before": execution.event_before,
            "after": execution.event_after,
        }
    return subject, looked_at


async def _take(
    tx: Transaction,
    execution: Record,
    decision: Perform | Passed,
    position: Position,
    subject: Subject,
    calendar: Calendar,
) -> Taken:
    if isinstance(decision, Passed):
        kind = "wait" if decision.outcome is StepOutcome.WAITED else "branch"
        return Taken(decision.step, kind, decision.outcome, decision.saw.model_dump(mode="json"))
    key = EffectKey(execution.id, decision.step, 1)
    did = await perform(tx, decision.action, Scene(key, subject, calendar, position.anchor, execution.destination_id))
    return Taken(decision.step, decision.action.type, StepOutcome.DONE, did.saw, did.made_kind, did.made_id)


async def _finish(tx: Transaction, execution: Record, taken: list[Taken], decision: Finished) -> Answer:
    exited = decision.step is not None
    if decision.step is not None:
        taken.append(Taken(decision.step, "exit", StepOutcome.EXITED, {}))
    await executions.record(tx, execution, taken)
    reason = ExitReason.EXITED if exited else ExitReason.COMPLETED
    await executions.end(tx, execution, reason, steps=len(taken))
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
