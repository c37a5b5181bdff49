"""The interpreter: one step of one execution at one instant, pure and total."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from domain.conditions import Facts, Verdict, evaluate, leaves
from domain.documents import Act, Action, Branch, Document, Email, Exit, Step, Task, WaitStep
from domain.due import Calendar, Due, Until, Wait, due, kept_still
from domain.words import Awaits, StepOutcome

SLACK = timedelta(hours=1)
"""How late a mail may leave before the waits after it count from when it left, not from the plan."""


@dataclass(frozen=True)
class Position:
    """Where an execution stands: `step` is None past the end; `anchor` is what its next wait counts from."""

    step: str | None
    anchor: datetime


@dataclass(frozen=True)
class Place:
    """A step of a document, the id of the one that follows it, and its JSON pointer."""

    step: Step
    after: str | None
    path: str


Places = Mapping[str, Place]


def places(document: Document) -> Places:
    """Every step by id; what follows the last step of a branch's side is what follows the branch."""
    found: dict[str, Place] = {}

    def lay(steps: list[Step], after: str | None, path: str) -> None:
        for index, step in enumerate(steps):
            following = steps[index + 1].id if index + 1 < len(steps) else after
            here = f"{path}/{index}"
            found[step.id] = Place(step, following, here)
            if isinstance(step, Branch):
                lay(step.then, following, f"{here}/then")
                lay(step.else_, following, f"{here}/else")

    lay(document.steps, None, "/steps")
    return found


@dataclass(frozen=True)
class Mailed:
    """The last message of an execution: planned for `planned`, gone at `left`, `over` when no more becomes of it."""

    planned: datetime
    left: datetime | None
    over: bool


@dataclass(frozen=True)
class Situation:
    """What a step is taken in, beside the facts of the records."""

    now: datetime
    calendar: Calendar
    mailed: Mailed | None = None
    """None once the wait that counts from it is over."""
    pauses: Sequence[tuple[datetime, datetime | None]] = ()
    """When the execution was kept still, from and to; of one that goes on there is no end."""


@dataclass(frozen=True)
class Perform:
    """Do the action under the step's effect key, then stand at `then`."""

    step: str
    action: Action
    then: Position


@dataclass(frozen=True)
class Passed:
    """The step had no effect outside the execution: a branch taken, a wait that is over."""

    step: str
    outcome: StepOutcome
    saw: Verdict | Due
    then: Position


@dataclass(frozen=True)
class Waits:
    """Nothing is due before `due.at`."""

    step: str
    due: Due


@dataclass(frozen=True)
class Parks:
    """Nothing is due before a fact is recorded; `step` is None at the end of the document."""

    step: str | None
    awaits: Awaits
    due: Due | None


@dataclass(frozen=True)
class Finished:
    """No step is left; `step` is the exit that ended it, None at the end of the document."""

    step: str | None


@dataclass(frozen=True)
class Lost:
    """The position names a step this version does not have."""

    step: str


Decision = Perform | Passed | Waits | Parks | Finished | Lost


def needs(places: Places, position: Position) -> frozenset[str]:
    """The roots of the facts that the next step looks at."""
    place = places.get(position.step or "")
    match place and place.step:
        case Act() | Email() | Task():
            return frozenset({"contact", "company", "deal"})
        case Branch(condition=tree):
            return frozenset(leaf.field.partition(".")[0] for leaf in leaves(tree))
        case WaitStep(wait=Wait(until=Until(zone="contact"))):
            return frozenset({"contact"})
        case _:
            return frozenset()


def decide(places: Places, position: Position, facts: Facts, situation: Situation) -> Decision:
    """Exactly one step. The planned instant of a wait, not the present, anchors what comes after it."""
    if position.step is None:
        return _finish(None, situation)
    place = places.get(position.step)
    if place is None:
        return Lost(position.step)
    step = place.step
    onward = Position(place.after, position.anchor)
    match step:
        case Act() | Email() | Task():
            return Perform(step.id, step.action, onward)
        case WaitStep():
            return _wait(step, place, position, situation)
        case Branch():
            verdict = evaluate(step.condition, facts, f"{place.path}/if")
            side, outcome = (step.then, StepOutcome.THEN) if verdict.met else (step.else_, StepOutcome.ELSE)
            inside = Position(side[0].id, position.anchor) if side else onward
            return Passed(step.id, outcome, verdict, inside)
        case Exit():
            return _finish(step.id, situation)


def _finish(step: str | None, situation: Situation) -> Finished | Parks:
    """An execution is done only when its last message is."""
    if situation.mailed is not None and not situation.mailed.over:
        return Parks(step, Awaits.MESSAGE, None)
    return Finished(step)


def _wait(step: WaitStep, place: Place, position: Position, situation: Situation) -> Decision:
    """Counted from the plan of the mail before, unless that left much later; not over before it has left."""
    mailed, anchor = situation.mailed, position.anchor
    if mailed is not None and mailed.left is not None and mailed.left - mailed.planned > SLACK:
        anchor = max(anchor, mailed.left)
    until = due(anchor, step.wait, situation.calendar, kept_still(situation.pauses, anchor, situation.now))
    if situation.now < until.at:
        return Waits(step.id, until)
    if mailed is not None and not mailed.over:
        return Parks(step.id, Awaits.MESSAGE, until)
    return Passed(step.id, StepOutcome.WAITED, until, Position(place.after, until.at))
