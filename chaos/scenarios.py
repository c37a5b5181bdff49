"""Storms that are told instead of drawn: one case each, over the same processes, people and judge."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from chaos.schedule import THE_LOG_TOO, Fault, Kind


@dataclass(frozen=True)
class Scenario:
    """`faults` is asked for a length in seconds; `minutes` is the length where none is asked for."""

    says: str
    minutes: float
    faults: Callable[[float], Sequence[Fault]]
    busy: float = 1.0
    """How many people come, against a drawn storm's: a mailbox's pace is all that what has piled up waits for."""
    small_disks: bool = False
    """Whether the stores have small disks of their own, which can be filled."""
    temporal_on_postgres: bool = False
    """Whether Temporal keeps its histories in a PostgreSQL of its own."""


def _temporal_away(seconds: float) -> Sequence[Fault]:
    return [Fault(seconds / 12, Kind.OUTAGE, "temporal", seconds * 10 / 12)]


def _temporals_store_away(seconds: float) -> Sequence[Fault]:
    return [
        Fault(seconds * 0.1, Kind.OUTAGE, "temporal-postgres", seconds * 0.3),
        # Who is started while its store is away has to wait for it.
        Fault(seconds * 0.5, Kind.OUTAGE, "temporal-postgres", seconds * 0.15),
        Fault(seconds * 0.55, Kind.KILL, "temporal"),
        Fault(seconds * 0.8, Kind.KILL, "temporal-postgres"),
    ]


def _full_disks(seconds: float) -> Sequence[Fault]:
    return [
        Fault(seconds * 0.1, Kind.FULL, "postgres", seconds * 0.25),
        Fault(seconds * 0.45, Kind.FULL, "temporal", seconds * 0.25),
        Fault(seconds * 0.75, Kind.FULL, "postgres", seconds * 0.15, THE_LOG_TOO),
        Fault(seconds * 0.8, Kind.FULL, "temporal", seconds * 0.1),
    ]


def _slow_deploy(seconds: float) -> Sequence[Fault]:
    return [
        Fault(seconds * 0.1, Kind.RAMP, "workers", seconds * 0.6),
        Fault(seconds * 0.3, Kind.KILL, "worker-1"),
        Fault(seconds * 0.4, Kind.KILL, "worker-2"),
        Fault(seconds * 0.5, Kind.KILL_FROZEN, "worker-1", seconds * 0.1),
    ]


SCENARIOS: Mapping[str, Scenario] = {
    "temporal-away": Scenario(
        "Temporal is away for ten of twelve minutes, while everything falls due", 12, _temporal_away, busy=0.3
    ),
    "temporals-store-away": Scenario(
        "Temporal lives, and the PostgreSQL that keeps its histories does not",
        2,
        _temporals_store_away,
        temporal_on_postgres=True,
    ),
    "full-disks": Scenario(
        "the disk of our PostgreSQL is full, that of Temporal, both", 2, _full_disks, small_disks=True
    ),
    "slow-deploy": Scenario("workers of the next release work beside those of this one", 2, _slow_deploy),
}
"""By the names under which `make chaos` has them."""
