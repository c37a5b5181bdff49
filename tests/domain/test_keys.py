# mypy: ignore-errors
"""Keys never change: a key made today must name the same effect after every release."""

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.keys import EffectKey, workflow_id

EXECUTION = UUID("01890000-0000-7000-8000-000000000001")
KINDS = ("task", "reminder", "notification", "message")
steps = st.from_regex(r"[a-z][a-z0-9_-]{0,39}", fullmatch=True)
keys = st.builds(EffectKey, st.uuids(), steps, st.integers(0, 10**9))


@pytest.mark.parametrize(
    ("step", "visit", "kind", "id_"),
    [
        ("call", 1, "task", "bffe889a-6871-5b92-9aea-99c7d840e9a1"),
        ("call", 2, "task", "23cfc9aa-81a1-51c9-9e39-8b150ed425d8"),
        ("call", 1, "reminder", "95f526d6-4dae-530c-90c8-4780ee957df4"),
        ("tell-the_owner", 1, "notification", "5c4cd757-fcd5-5f0c-ad07-395c94837469"),
    ],
)
def test_an_effect_made_before_this_release_keeps_its_id(step, visit, kind, id_) -> None:
    assert EffectKey(EXECUTION, step, visit).made(kind) == UUID(id_)


@given(keys, st.sampled_from(KINDS))
def test_an_effect_tried_again_is_the_same_effect(key: EffectKey, kind: str) -> None:
    assert EffectKey(*key).made(kind) == key.made(kind)


@given(st.tuples(keys, st.sampled_from(KINDS)), st.tuples(keys, st.sampled_from(KINDS)))
def test_two_effects_have_two_ids(one, other) -> None:
    assert (one[0].made(one[1]) == other[0].made(other[1])) is (one == other)


def test_neither_step_nor_visit_runs_into_its_neighbour() -> None:
    tried = [
        EffectKey(EXECUTION, step, visit).made(kind)
        for step in ("a", "a1", "a-1", "a_1", "a11")
        for visit in (1, 11, 111)
        for kind in KINDS
    ]
    assert len(set(tried)) == len(tried)


@pytest.mark.parametrize("target", ["run", "reminder"])
def test_a_workflow_is_named_after_its_row_and_nothing_else(target: str) -> None:
    assert workflow_id(target, EXECUTION) == f"{target}-01890000-0000-7000-8000-000000000001"
