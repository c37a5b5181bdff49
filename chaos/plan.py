"""The plan of the traffic: who does what at which second, drawn up-front, so that a seed can be played again."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from random import Random
from typing import Any

from chaos.documents import RULES, SEQUENCES
from cli.demo.campaign import MAILBOXES

OWNERS = 3
_STAGES = ("lead", "qualified", "proposal", "negotiation", "closed_won", "closed_lost")
_CALLED_OFF = 10_000
"""Reminders from this number on are called off."""
_FORWARD = {"lead": "qualified", "qualified": "proposal", "proposal": "negotiation"}
_STOPPED, _PAUSED = _CERTAIN = (0, 1)
"""The first two people, so that no plan is without a stop and a pause: they are long enough inside."""


class Act(StrEnum):
    """What the organization and the systems around it do."""

    CONTACT = "contact"
    DEAL = "deal"
    WEBHOOK = "webhook"
    FORGE = "forge"
    ENROLL = "enroll"
    MOVE = "move"
    EDIT_CONTACT = "edit_contact"
    EDIT_DEAL = "edit_deal"
    STOP = "stop"
    PAUSE_ENROLLMENT = "pause_enrollment"
    PAUSE_SEQUENCE = "pause_sequence"
    PAUSE_MAILBOX = "pause_mailbox"
    STOP_SENDING = "stop_sending"
    PUBLISH_SEQUENCE = "publish_sequence"
    PUBLISH_RULE = "publish_rule"
    COMPLETE_TASK = "complete_task"
    REMIND = "remind"
    SNOOZE = "snooze"
    CANCEL_REMINDER = "cancel_reminder"


@dataclass(frozen=True)
class Planned:
    """`who` is the number of what it is about: a person, deal, web visitor, sequence, rule or mailbox."""

    second: float
    act: Act
    who: int = 0
    said: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """Sorted by second."""

    acts: tuple[Planned, ...]
    people: int
    visitors: int

    @property
    def emails(self) -> list[str]:
        """Everybody who may get mail."""
        return [person(n) for n in range(self.people)] + [visitor(n) for n in range(self.visitors)]


def person(number: int) -> str:
    return f"person-{number}@example.org"


def visitor(number: int) -> str:
    return f"visitor-{number}@example.org"


def plan(seed: int, seconds: float, busy: float = 1.0) -> Plan:
    """New people stop coming at two thirds of the time, and whatever is paused goes on before its end.

    `busy` is how many come, against a storm's usual.
    """
    return _Drawing(seed, seconds, busy).plan()


class _Drawing:
    def __init__(self, seed: int, seconds: float, busy: float) -> None:
        self._dice = Random(f"traffic {seed}")
        self._seconds = seconds
        self._people = max(30, round(busy * seconds * 0.9))
        self._visitors = max(6, round(busy * seconds / 3))

    def plan(self) -> Plan:
        acts = [
            *self._persons(),
            *self._web(),
            *self._desk(),
            *self._pauses(),
            *self._publishing(),
        ]
        return Plan(tuple(sorted(acts, key=lambda one: one.second)), self._people, self._visitors)

    def _persons(self) -> Iterator[Planned]:
        dice, latest = self._dice, self._seconds * 0.66
        for who in range(self._people):
            at = 0.0 if who < self._people // 4 else dice.uniform(0, latest)
            yield Planned(at, Act.CONTACT, who, {"owner": dice.randrange(OWNERS)})
            if dice.random() < 0.6:
                yield from self._deal(who, at)
            if who in _CERTAIN or dice.random() < 0.8:
                yield from self._enrolled(who, at)
            for number in range(dice.choice((0, 0, 1, 2))):
                said: dict[str, Any] = {"title": f"Title {number} of {who}"}
                if dice.random() < 0.6:
                    said["leadStatus"] = dice.choices(("qualified", "contacted", "unqualified"), (6, 3, 1))[0]
                yield Planned(self._after(at, 6), Act.EDIT_CONTACT, who, said)

    def _enrolled(self, who: int, at: float) -> Iterator[Planned]:
        """Alone or with others, who are asked for once more by mistake; some of them are taken out or paused."""
        dice = self._dice
        sequence = 0 if who in _CERTAIN else dice.choices((0, 1), (3, 2))[0]
        begun = at + dice.uniform(0.1, 2)
        others = [dice.randrange(self._people) for _ in range(dice.choice((0, 0, 0, 4)))]
        yield Planned(begun, Act.ENROLL, who, {"sequence": sequence, "others": others})
        if dice.random() < 0.15:
            yield Planned(
                min(begun + dice.uniform(0, 8), self._seconds * 0.8),
                Act.ENROLL,
                who,
                {"sequence": sequence, "others": []},
            )
        if who == _STOPPED or dice.random() < 0.10:
            yield Planned(self._after(begun, 2 if who == _STOPPED else 8), Act.STOP, who, {"sequence": sequence})
        if who == _PAUSED or dice.random() < 0.15:
            lasts = dice.uniform(0.5, 4)
            said = {"sequence": sequence, "lasts": lasts}
            yield Planned(
                min(self._after(begun, 2 if who == _PAUSED else 8), self._seconds - lasts),
                Act.PAUSE_ENROLLMENT,
                who,
                said,
            )

    def _deal(self, who: int, at: float) -> Iterator[Planned]:
        """A deal of a person goes its way, now and then back and forth."""
        dice = self._dice
        at += dice.uniform(0.1, 2)
        yield Planned(at, Act.DEAL, who, {"valueCents": dice.randrange(500_000, 5_000_000)})
        stage = "lead"
        for _ in range(dice.randrange(7)):
            following = at + dice.uniform(0.2, 4)
            if following > self._seconds * 0.8:
                break
            at = following
            if stage == "negotiation":
                stage = dice.choice(("closed_won", "closed_lost", "proposal"))
            else:
                stage = _FORWARD.get(stage, "qualified") if dice.random() < 0.8 else dice.choice(_STAGES[:3])
            yield Planned(at, Act.MOVE, who, {"stage": stage})
        if dice.random() < 0.3:
            yield Planned(self._after(at, 5), Act.EDIT_DEAL, who, {"valueCents": dice.randrange(500_000, 5_000_000)})

    def _web(self) -> Iterator[Planned]:
        """Each visitor's messages, of which some are doubled, overtaken by the next, or replayed later; some forged."""
        dice, latest = self._dice, self._seconds * 0.66
        for who in range(self._visitors):
            at = dice.uniform(0, latest)
            times = [at]
            for _ in range(dice.choice((0, 1, 2))):
                times.append(times[-1] + dice.uniform(0.1, 3))
            if dice.random() < 0.4:  # a later one is posted first
                times.reverse()
            for number, when in enumerate(times):
                posts = 2 if dice.random() < 0.5 else 1
                said = {"number": number, "posts": posts}
                yield Planned(min(when, self._seconds * 0.8), Act.WEBHOOK, who, said)
                if dice.random() < 0.4:
                    replayed = min(when + dice.uniform(1, 6), self._seconds * 0.9)
                    yield Planned(replayed, Act.WEBHOOK, who, said)
            if dice.random() < 0.2:
                yield Planned(at, Act.FORGE, who)

    def _desk(self) -> Iterator[Planned]:
        """Tasks are done, reminders made, put off and called off; `which` draws one of those there are then."""
        often = {Act.COMPLETE_TASK: 0.5, Act.REMIND: 0.2, Act.SNOOZE: 0.15}
        for act, a_second in often.items():
            for number in range(max(2, round(self._seconds * a_second))):
                when = self._dice.uniform(1, self._seconds * 0.9)
                said = {"which": self._dice.random(), "hours": self._dice.uniform(1, 24), "number": number}
                yield Planned(when, act, self._dice.randrange(OWNERS), said)
        for number in range(_CALLED_OFF, _CALLED_OFF + max(2, round(self._seconds * 0.08))):
            when = self._dice.uniform(0, self._seconds * 0.8)
            said = {"hours": self._dice.uniform(6, 24), "number": number}
            yield Planned(when, Act.REMIND, self._dice.randrange(OWNERS), said)
            yield Planned(self._after(when, 4), Act.CANCEL_REMINDER, said={"number": number})

    def _pauses(self) -> Iterator[Planned]:
        of = {
            Act.PAUSE_SEQUENCE: len(SEQUENCES),
            Act.PAUSE_MAILBOX: MAILBOXES,
            Act.STOP_SENDING: 1,
        }
        for act, many in of.items():
            for _ in range(max(1, round(self._seconds / 25))):
                lasts = self._dice.uniform(1.5, 4)
                when = self._dice.uniform(1, max(1.1, self._seconds * 0.9 - lasts))
                yield Planned(when, act, self._dice.randrange(many), {"lasts": lasts})

    def _publishing(self) -> Iterator[Planned]:
        """Every definition is published anew now and then, the first two of each for certain."""
        for act, many in ((Act.PUBLISH_SEQUENCE, len(SEQUENCES)), (Act.PUBLISH_RULE, len(RULES))):
            for number in range(max(2, round(self._seconds / 12))):
                when = self._dice.uniform(self._seconds * 0.2, self._seconds * 0.85)
                who = number if number < 2 else self._dice.randrange(many)
                yield Planned(when, act, who)

    def _after(self, at: float, within: float) -> float:
        """Some seconds later, but before nine tenths of the time."""
        return min(at + self._dice.uniform(0.3, within), max(at + 0.1, self._seconds * 0.9))
