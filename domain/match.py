"""Matching: what one event means to one rule, pure."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from domain.conditions import Facts, Verdict, evaluate
from domain.documents import RuleDocument, StageChanged
from domain.words import Refusal

MAX_CHAIN = 5
"""How many rules may follow from one another before the next is refused."""


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
    return True


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
