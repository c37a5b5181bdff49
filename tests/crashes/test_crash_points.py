import subprocess
import sys
from collections import Counter

import pytest

from runtime.folders import CHECKOUT
from tests.crashes.points import AFTER, BEFORE, KINDS
from tests.crashes.product import SERVICES
from tests.crashes.trials import table, trials
from tests.test_house_rules import MODULES, imports

UNREACHED = 0.1
"""The most of the crashes that may not happen, because batching differed from the reference's."""


@pytest.fixture(scope="module")
async def runs(temporal_server, tmp_path_factory):
    async with trials(tmp_path_factory.mktemp("crashes"), temporal_server.environment()) as found:
        yield found


@pytest.mark.timeout(900)
async def test_nothing_is_lost_doubled_or_sent_after_a_stop_wherever_a_process_is_killed(runs, thorough):
    """Every third point's first occurrence, every point's with `--thorough`; `make crashes` does all of them."""
    reference = await runs.reference()
    points = {(service, point) for service, found in reference.points.items() for point in found}
    assert {service for service, _ in points} == set(SERVICES)
    assert {point.split()[0] for _, point in points} == set(KINDS)
    sides = Counter(point.removesuffix(BEFORE).removesuffix(AFTER) for _, point in points)
    assert set(sides.values()) == {2}
    faults = reference.faults(first_only=True)[:: 1 if thorough else 3]
    outcomes = await runs.all(faults, reference, lambda _: None)
    told = "\n".join([table(reference, outcomes), *(str(one) for one in outcomes if not one.holds)])
    assert all(outcome.holds for outcome in outcomes), told
    assert sum(not outcome.reached for outcome in outcomes) <= UNREACHED * len(outcomes), told


@pytest.mark.parametrize("service", SERVICES)
def test_a_real_process_refuses_to_be_told_where_to_crash(service):
    told = subprocess.run(
        [sys.executable, "-m", "cli", service],
        cwd=CHECKOUT,
        env={"DRUMBEAT_CRASH_AT": "commit", "DRUMBEAT_DATABASE_URL": "postgresql://a:b@127.0.0.1:1/none"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert told.returncode == 1
    assert "DRUMBEAT_CRASH_AT is not a setting" in told.stderr


def test_no_room_of_the_product_knows_of_crash_points():
    assert [name for name, tree in MODULES.items() if any(one.startswith("tests") for one in imports(tree))] == []


def test_the_image_is_made_without_the_tests():
    assert "tests" in (CHECKOUT / ".dockerignore").read_text().splitlines()
