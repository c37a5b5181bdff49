"""Matching: what one event means to one rule, pure."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import get_args
from uuid import UUID

from domain.conditions import Facts, Verdict, evaluate
from domain.documents import EnrollmentEnded, ExitWhen, RuleDocument, SequenceDocument, StageChanged, Trigger
from domain.words import EventType, Refusal

MAX_CHAIN = 5
"""How many rules may follow from one another before the next is refused."""
CHANGES = frozenset({EventType.CONTACT_UPDATED, EventType.DEAL_UPDATED, EventType.DEAL_STAGE_CHANGED})
"""After these an enrollment may meet an exit."""
HEARD = CHANGES | frozenset(
    EventType(type_)
    for trigger in get_args(get_args(Trigger)[0])
    for type_ in get_args(trigger.model_fields["on"].annotation)
)
"""What can mean anything to a rule or to an enrollment. All else is recorded, and no relay is bothered with it."""


@dataclass(frozen=True)
class Event:
    """A recorded fact; `chain` holds the rules it is a consequence of, oldest first."""

    id: UUID
    type: str
    subject_kind: str
    subject_id: UUID
    at: datetime
    before: dict[str, object]
    after: dict[str, object]
    chain: tuple[UUID, ...] = ()


@dataclass(frozen=True)
class Activation:
    """A stretch of time in which one version was switched on; `until` is None while it is."""

    version: UUID
    document: RuleDocument
    since: datetime
    until: datetime | None


@dataclass(frozen=True)
class Rule:
    """A rule that is active or paused, with its activations, latest first."""

    id: UUID
    activations: Sequence[Activation] = field(default=())


@dataclass(frozen=True)
class Start:
    """Make a run of this version; `saw` is what decided it."""

    rule: UUID
    version: UUID
    document: RuleDocument
    saw: Verdict | None


@dataclass(frozen=True)
class Refused:
    rule: UUID
    version: UUID
    reason: Refusal
    saw: Verdict | None = None


def listens(document: RuleDocument, event: Event) -> bool:
    """Whether the trigger is about this event at all; where it is not, nothing is recorded."""
    trigger = document.trigger
    if trigger.on != event.type:
        return False
    if isinstance(trigger, StageChanged):
        left, entered = event.before.get("stage"), event.after.get("stage")
        return (not trigger.from_ or left in trigger.from_) and (not trigger.to or entered in trigger.to)
    if isinstance(trigger, EnrollmentEnded):
        return not trigger.reasons or event.after.get("exitReason") in trigger.reasons
    return True


def hears(rule: Rule, event: Event) -> bool:
    """Whether any version of a rule is about this event; where none is, `match` has nothing to decide."""
    return any(listens(active.document, event) for active in rule.activations)


def match(event: Event, rule: Rule, facts: Facts) -> Start | Refused | None:
    """At most one decision for (rule, event): start, a refusal with its reason, or not concerned.

    The version is the one that was switched on when the event was recorded, however late the
    event is matched.
    """
    then = next(
        (
            active
            for active in rule.activations
            if active.since <= event.at and (active.until is None or event.at < active.until)
        ),
        None,
    )
    chosen = then or (rule.activations[0] if rule.activations else None)
    if chosen is None or not listens(chosen.document, event):
        return None
    if then is None:
        return Refused(rule.id, chosen.version, Refusal.NOT_ACTIVE_THEN)
    if rule.id in event.chain:
        return Refused(rule.id, then.version, Refusal.OWN_CONSEQUENCE)
    if len(event.chain) >= MAX_CHAIN:
        return Refused(rule.id, then.version, Refusal.CHAIN_TOO_DEEP)
    conditions = then.document.conditions
    saw = evaluate(conditions, facts, "/conditions") if conditions else None
    if saw is not None and not saw.met:
        return Refused(rule.id, then.version, Refusal.CONDITIONS_NOT_MET, saw)
    return Start(rule.id, then.version, then.document, saw)


@dataclass(frozen=True)
class ExitMet:
    """The `number`-th exit of a sequence, from 1, ends an enrollment; `saw` is what decided it."""

    number: int
    saw: Verdict | None


def match_exit(event: Event, document: SequenceDocument, facts: Facts) -> ExitMet | None:
    """The first exit that an event meets; `facts` are the enrollment's own records as they are now."""
    for number, exit_ in enumerate(document.exits, 1):
        if exit_.on == event.type and _entered(exit_, event) and _changed(exit_, event):
            saw = evaluate(exit_.condition, facts, f"/exits/{number - 1}/if") if exit_.condition else None
            if saw is None or saw.met:
                return ExitMet(number, saw)
    return None


def _entered(exit_: ExitWhen, event: Event) -> bool:
    return not exit_.to or event.after.get("stage") in exit_.to


def _changed(exit_: ExitWhen, event: Event) -> bool:
    if not exit_.changed:
        return True
    return any(event.before.get(name) != event.after.get(name) for name in exit_.changed if name in event.after)
