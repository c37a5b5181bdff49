from itertools import combinations

import pytest

from chaos.schedule import LONGEST, RELAYS, SERVERS, WEIGHTS, WORKERS, Kind, schedule

A_SLICE, USUAL = 60.0, 300.0


def together(faults):
    """Pairs that last and are under way at the same time, the earlier first."""
    lasting = [fault for fault in faults if fault.seconds]
    return [(one, other) for one, other in combinations(lasting, 2) if one.at <= other.at < one.end]


@pytest.mark.parametrize("seconds", [A_SLICE, USUAL])
def test_the_same_seed_brings_the_same_storm_and_another_brings_another(seconds):
    assert schedule(7, seconds) == schedule(7, seconds)
    assert schedule(7, seconds) != schedule(8, seconds)


def test_every_kind_comes_within_twenty_seeds_of_a_slice_and_in_a_storm_of_usual_length_nearly_all():
    assert {fault.kind for seed in range(20) for fault in schedule(seed, A_SLICE)} == set(WEIGHTS)
    for seed in range(20):
        assert len({fault.kind for fault in schedule(seed, USUAL)}) >= len(WEIGHTS) - 2


def test_every_process_is_killed_frozen_and_cut_off_within_twenty_storms():
    storms = [fault for seed in range(20) for fault in schedule(seed, USUAL)]
    everybody = {"api", *RELAYS, *WORKERS, "temporal", "mail"}
    for kind in (Kind.KILL, Kind.FREEZE, Kind.KILL_FROZEN):
        assert {fault.victim for fault in storms if fault.kind is kind} >= everybody
    assert {fault.detail for fault in storms if fault.kind is Kind.MOOD} == {
        "slow", "stalling", "busy", "closing", "dropping"
    }  # fmt: skip


@pytest.mark.parametrize("seed", range(20))
def test_a_storm_leaves_somebody_to_work_and_is_over_soon_after_its_time(seed):
    faults = schedule(seed, USUAL)
    assert faults == sorted(faults, key=lambda fault: fault.at)
    assert all(0 < fault.at < USUAL and fault.end < USUAL + LONGEST for fault in faults)
    for one, other in together([fault for fault in faults if fault.kind is not Kind.MOOD]):
        assert one.victim != other.victim
        for group in (RELAYS, WORKERS):
            assert {one.victim, other.victim} != set(group)
    for server in SERVERS:
        assert sum(fault.seconds for fault in faults if fault.victim == server) < USUAL / 2
