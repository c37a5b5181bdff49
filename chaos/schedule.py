"""What goes wrong, and when: drawn from a seed, so that the same seed always brings the same storm."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from random import Random

RELAYS = ("relay-1", "relay-2")
WORKERS = ("worker-1", "worker-2")
SERVERS = ("postgres", "temporal")
LINKS = (
    "clients-api",
    "api-postgres",
    *(f"{name}-{server}" for name in (*RELAYS, *WORKERS) for server in SERVERS),
    "workers-mail",
)
"""Who speaks to whom through a proxy."""


class Kind(StrEnum):
    """What may happen; `Fault.detail` is what it needs besides a victim and a time."""

    KILL = "kill"
    """`kill -9`; whoever hosts it starts it again."""
    OUTAGE = "outage"
    """`kill -9`, and it stays away."""
    FREEZE = "freeze"
    """SIGSTOP, then SIGCONT."""
    KILL_FROZEN = "kill_frozen"
    """SIGSTOP, then `kill -9`."""
    CUT = "cut"
    """Every connection reset, and new ones for a while."""
    TEAR = "tear"
    """Connections reset after so many bytes, in the middle of what is said."""
    SILENCE = "silence"
    """Nothing arrives for a while, then all of it."""
    DELAY = "delay"
    """Everything takes half a second longer, each way."""
    MOOD = "mood"
    """The mail server is in the mood that `detail` names."""
    CLOCK = "clock"
    """A worker is started again with its clock `detail` seconds off."""
    DEPLOY = "deploy"
    """Every worker is replaced by one with a workflow that disagrees with history; then that is rolled back."""
    RAMP = "ramp"
    """One worker after the other is replaced by one of the next release, both at work in between; scenarios only."""
    FULL = "full"
    """A store's disk has not a byte left; scenarios only."""


THE_LOG_TOO = "the log too"
"""Of a full disk of PostgreSQL's: that it has used up the files of its log that were there."""


@dataclass(frozen=True)
class Fault:
    """`at` and `seconds` are real seconds: of the storm's begin, and for how long."""

    at: float
    kind: Kind
    victim: str
    seconds: float = 0.0
    detail: str = ""

    @property
    def end(self) -> float:
        return self.at + self.seconds

    def __str__(self) -> str:
        """As it is said while it happens."""
        lasting = f" for {self.seconds:.0f} s" if self.seconds else ""
        return f"{self.kind.replace('_', ' ')} {self.victim}{f' {self.detail}' if self.detail else ''}{lasting}"


WEIGHTS: Mapping[Kind, int] = {
    Kind.KILL: 30,
    Kind.OUTAGE: 8,
    Kind.FREEZE: 12,
    Kind.KILL_FROZEN: 6,
    Kind.CUT: 10,
    Kind.TEAR: 8,
    Kind.SILENCE: 8,
    Kind.DELAY: 6,
    Kind.MOOD: 12,
    Kind.CLOCK: 6,
    Kind.DEPLOY: 5,
}
MOODS = ("slow", "stalling", "busy", "closing", "dropping")
EVERY = 3.0
"""Mean seconds from one fault to the next."""
CALM = 2.0
"""Seconds at the begin in which nothing goes wrong."""
LONGEST = 50.0
"""Longer than any deadline of the product: a claim's are 30 and 15 seconds."""
_REST = 5.0
"""Seconds that what all depend on is left alone at the least."""
AT_ONCE = 4
"""Faults that last, under way at the same time."""
_FREEZES: Mapping[str, tuple[float, float]] = {
    # Clients wait for a minute in all, and other things go wrong for them as well.
    "api": (8, 14),
    "temporal": (8, 14),
    # Shorter than a mail server is waited for: what it took in and has not kept yet is kept before a person looks.
    "mail": (8, 16),
}
_LONG_FREEZE = (47.0, LONGEST)
_SECONDS: Mapping[Kind, tuple[float, float]] = {
    Kind.KILL: (0, 0),
    Kind.OUTAGE: (3, 8),
    Kind.KILL_FROZEN: (6, 20),
    Kind.CUT: (0, 3),
    Kind.TEAR: (4, 8),
    Kind.SILENCE: (3, 14),
    Kind.DELAY: (6, 14),
    Kind.MOOD: (4, 12),
    Kind.CLOCK: (12, 25),
    Kind.DEPLOY: (8, 10),
}
_PROCESSES = ("api", *RELAYS, *WORKERS, *SERVERS, "mail")
_VICTIMS: Mapping[Kind, Sequence[str]] = {
    Kind.KILL: _PROCESSES,
    Kind.OUTAGE: SERVERS,
    Kind.FREEZE: ("api", *RELAYS, *WORKERS, *WORKERS, "temporal", "mail"),
    Kind.KILL_FROZEN: ("api", *RELAYS, *WORKERS, "temporal", "mail"),
    Kind.CUT: LINKS,
    Kind.TEAR: LINKS,
    Kind.SILENCE: LINKS,
    Kind.DELAY: LINKS,
    Kind.MOOD: ("mail",),
    Kind.CLOCK: WORKERS,
    Kind.DEPLOY: ("workers",),
}


def schedule(seed: int, seconds: float) -> list[Fault]:
    """The storm of a seed, in the order it comes; what begins in `seconds` may end later.

    Nobody has two troubles that last at the same time, one relay and one worker are always left to work, what
    all depend on is left alone for as long as it was away, and a deploy meets no other trouble of the workers.
    """
    dice = Random(f"storm {seed}")
    faults: list[Fault] = []
    at = CALM
    while at < seconds:
        drawn = _drawn(dice, round(at, 2))
        if _fits(drawn, faults):
            faults.append(drawn)
        at += dice.expovariate(1 / EVERY)
    return faults


def by_kind(faults: Sequence[Fault]) -> dict[str, int]:
    """How many there are of each kind."""
    return dict(sorted(Counter(str(fault.kind) for fault in faults).items()))


def _drawn(dice: Random, at: float) -> Fault:
    (kind,) = dice.choices(list(WEIGHTS), list(WEIGHTS.values()))
    victim = dice.choice(_VICTIMS[kind])
    bounds = _FREEZES.get(victim, _LONG_FREEZE) if kind is Kind.FREEZE else _SECONDS[kind]
    detail = ""
    match kind:
        case Kind.MOOD:
            detail = dice.choice(MOODS)
        case Kind.CLOCK:
            detail = dice.choice(("+300", "-300"))
        case Kind.TEAR:
            detail = str(dice.randrange(200, 6_000))
    return Fault(at, kind, victim, round(dice.uniform(*bounds), 2), detail)


def _fits(drawn: Fault, before: Sequence[Fault]) -> bool:
    under_way = [fault for fault in before if fault.end > drawn.at and fault.seconds]
    if len(under_way) >= AT_ONCE:
        return False
    troubled = {name for fault in under_way for name in _touched(fault)}
    touched = _touched(drawn)
    if drawn.seconds and any(set(group) <= troubled | touched for group in (RELAYS, WORKERS)):
        return drawn.kind is Kind.DEPLOY and not troubled & set(WORKERS)
    if touched & {*SERVERS, "mail"} and any(
        touched & _touched(fault) and drawn.at < fault.end + max(fault.seconds, _REST) for fault in before
    ):
        return False
    # `kill -9` of what is frozen or cut off is welcome; of what is kept away it would do nothing.
    held = {name for fault in under_way if fault.kind is Kind.OUTAGE for name in _touched(fault)}
    return not touched & (troubled if drawn.seconds else held)


def _touched(fault: Fault) -> set[str]:
    """The processes or links that a fault is about; a worker cut off is a worker in trouble."""
    if fault.kind is Kind.DEPLOY:
        return set(WORKERS)
    if fault.kind is Kind.MOOD:
        return {"mail's mood"}
    names = {fault.victim}
    if fault.victim in LINKS and fault.kind is not Kind.CUT:
        caller, _, callee = fault.victim.rpartition("-")
        names |= {caller} if callee in SERVERS else {caller, callee}
    return names
