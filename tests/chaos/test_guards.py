"""The table of guards is true of the product as it is, and told; that the judge misses each is `tests.chaos.guards`."""

import re

import pytest

from runtime.folders import CHECKOUT
from tests.chaos.guards import GUARDS, MOMENTS, NAMES

DOCUMENTED = (CHECKOUT / "docs" / "crashes.md").read_text()


@pytest.mark.parametrize("guard", GUARDS, ids=[guard.words for guard in GUARDS])
def test_what_is_taken_out_is_there_once_and_shows_in_a_moment_by_an_invariants_name(guard):
    for cut in guard.cuts:
        assert (CHECKOUT / cut.path).read_text().count(cut.old) == 1, cut.old
        assert cut.new != cut.old
    assert guard.moment in re.findall(r"^async def (test_\w+)", (CHECKOUT / MOMENTS).read_text(), re.MULTILINE)
    assert f"| {guard.words} | `{guard.moment}` | {'; '.join(guard.breaks)} |" in DOCUMENTED
    assert guard.breaks
    assert set(guard.breaks) <= set(NAMES)


def test_every_invariant_has_a_guard_but_for_those_that_are_known_to_have_none_of_their_own():
    """These hold by the commit alone, or where one is read that is unique; `test_judge` breaks them by hand."""
    assert set(NAMES) - {name for guard in GUARDS for name in guard.breaks} == {
        "every enrollment is of the version that was on when it began",
        "every enrollment that was answered is there",
        "every version that was published is there, and was switched on",
    }


def test_every_moment_has_a_guard():
    moments = re.findall(r"^async def (test_\w+)", (CHECKOUT / MOMENTS).read_text(), re.MULTILINE)
    assert {guard.moment for guard in GUARDS} == set(moments)
