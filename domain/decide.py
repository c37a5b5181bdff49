"""The interpreter: one step of one execution at one instant, pure and total."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from domain.conditions import Facts, Verdict, evaluate, leaves
from domain.documents import Act, Action, Branch, Exit, RuleDocument, Step, WaitStep
from domain.due import Calendar, Due, Until, Wait, due
from domain.words import StepOutcome


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


def places(document: RuleDocument) -> Places:
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
class Finished:
    """No step is left; `step` is the exit that ended it, None at the end of the document."""

    step: str | None


@dataclass(frozen=True)
class Lost:
    """The position names a step this version does not have."""

    step: str


Decision = Perform | Passed | Waits | Finished | Lost


def needs(places: Places, position: Position) -> frozenset[str]:
    """The roots of the facts that the next step looks at."""
    place = places.get(position.step or "")
    match place and place.step:
        case Act():
            return frozenset({"contact", "company", "deal"})
        case Branch(condition=tree):
            return frozenset(leaf.field.partition(".")[0] for leaf in leaves(tree))
        case WaitStep(wait=Wait(until=Until(zone="contact"))):
            return frozenset({"contact"})
        case _:
            return frozenset()


def decide(places: Places, position: Position, facts: Facts, now: datetime, calendar: Calendar) -> Decision:
    """Exactly one step. The planned instant of a wait, not `now`, anchors what comes after it."""
    if position.step is None:
        return Finished(None)
    place = places.get(position.step)
    if place is None:
        return Lost(position.step)
    step = place.step
    onward = Position(place.after, position.anchor)
    match step:
        case Act():
            return Perform(step.id, step.action, onward)
        case WaitStep():
            until = due(position.anchor, step.wait, calendar)
            if now < until.at:
                return Waits(step.id, until)
            return Passed(step.id, StepOutcome.WAITED, until, Position(place.after, until.at))
        case Branch():
            verdict = evaluate(step.condition, facts, f"{place.path}/if")
            side, outcome = (step.then, StepOutcome.THEN) if verdict.met else (step.else_, StepOutcome.ELSE)
            inside = Position(side[0].id, position.anchor) if side else onward
            return Passed(step.id, outcome, verdict, inside)
        case Exit():
            return Finished(step.id)
