# ruff: noqa: FBT001  (parameters come from tables and strategies)
# mypy: ignore-errors
"""Conditions: what each operator says of each type, three-valued logic, and the leaf that decided."""

import json
import time
from decimal import Decimal
from typing import Any as Anything

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from domain.conditions import (
    CONDITION,
    MAX_DEPTH,
    MAX_LEAVES,
    MAX_VALUES,
    All,
    Any,
    Comparison,
    Condition,
    Not,
    Verdict,
    depth,
    evaluate,
    leaves,
    look_up,
)
from tests.domain.strategies import comparisons, facts, json_values, trees

T, F, U = True, False, None
NO_VALUE = ("is_empty", "is_not_empty")


def ask(saw: object, op: str, value: object = None) -> bool | None:
    leaf = Comparison.model_validate({"field": "deal.x", "op": op, "value": value})
    return evaluate(leaf, {"deal": {"x": saw}}).holds


SAW_OP_VALUE = [
    # equality: text without case, numbers by value, true is not 1, and no type is another
    ("Proposal", "eq", "proposal", T), ("STRASSE", "eq", "straße", T), ("a", "eq", "b", F), ("", "eq", "a", F),
    (5, "eq", 5, T), (5, "eq", 5.0, T), (5, "eq", 6, F), (0.1, "eq", 0.1, T), (10**20, "eq", 10**20, T),
    (True, "eq", True, T), (True, "eq", False, F), (True, "eq", 1, F), (1, "eq", True, F), (0, "eq", False, F),
    ("5", "eq", 5, F), (["a"], "eq", "a", F), ({"a": 1}, "eq", "a", F), ("2026-01-01", "eq", "2026-01-01", T),
    # order: numbers, also written as text, and instants; anything else is unknown
    (6, "gt", 5, T), (5, "gt", 5, F), (5, "gte", 5, T), (4, "lt", 5, T), (5, "lt", 5, F), (5, "lte", 5, T),
    ("6", "gt", 5, T), (6, "gt", "5", T), (0.3, "gt", 0.1, T), (2**53 + 1, "gt", 2**53, T), (-1, "lt", 0, T),
    ("2026-02-01", "gt", "2026-01-31", T), ("2026-01-31", "lt", "2026-01-31T00:00:01Z", T),
    ("2026-01-01T00:30:00+01:00", "lt", "2026-01-01", T), ("2026-01-01T00:00:00Z", "gte", "2026-01-01", T),
    ("9999-12-31T23:59:59-14:00", "gt", "0001-01-01T00:00+14:00", T),
    ("abc", "gt", 5, U), ("", "gt", 5, U), (True, "gt", 0, U), ([9], "gt", 5, U), ({"a": 9}, "gt", 5, U),
    (5, "gt", "2026-01-01", U), ("2026-01-01", "lt", 5, U), ("2026-13-45", "lt", 5, U), ("NaN", "gt", 5, U),
    ("Infinity", "gt", 5, U), ("sNaN", "lte", 5, U), (float("nan"), "gt", 5, U), (float("inf"), "gt", 5, U),
    # lists of values
    ("a", "in", ["A", "b"], T), ("c", "in", ["a", "b"], F), (5, "in", [1, 5], T), (1, "in", [True], F),
    ("a", "in", [], F), ("c", "not_in", ["a", "b"], T), ("a", "not_in", ["a"], F), ("a", "not_in", [], T),
    (["a"], "in", ["a"], F), (True, "in", [True], T),
    # contains: a piece of text, or a member of a list
    ("Big Deal", "contains", "big", T), ("Big Deal", "contains", "small", F), ("a.c", "contains", ".", T),
    ("abc", "contains", ".*", F), ("(((", "contains", "(", T), (["a", "B"], "contains", "b", T),
    (["ab"], "contains", "a", F), ([1, 2], "contains", 2, T), ([], "contains", "a", F), (12, "contains", "1", F),
    ("Big Deal", "not_contains", "big", F), (["a"], "not_contains", "b", T), ([True], "contains", 1, F),
    # emptiness: what is not there, and what is there and empty
    ("", "is_empty", U, T), ([], "is_empty", U, T), ({}, "is_empty", U, T), ("a", "is_empty", U, F),
    (0, "is_empty", U, F), (False, "is_empty", U, F), ([0], "is_empty", U, F), (" ", "is_empty", U, F),
    ("", "is_not_empty", U, F), ([], "is_not_empty", U, F), ("a", "is_not_empty", U, T), (0, "is_not_empty", U, T),
    (False, "is_not_empty", U, T), ({"a": 1}, "is_not_empty", U, T),
]  # fmt: skip


@pytest.mark.parametrize(("saw", "op", "value", "holds"), SAW_OP_VALUE)
def test_an_operator_answers_for_the_type_it_sees(saw, op, value, holds) -> None:
    assert ask(saw, op, value) is holds


OPERATORS = [
    ("eq", 1), ("ne", 1), ("gt", 1), ("gte", 1), ("lt", 1), ("lte", 1), ("in", [1]), ("not_in", [1]), ("contains", "a"),
    ("not_contains", "a"), ("is_empty", None), ("is_not_empty", None),
]  # fmt: skip
NOWHERE = [{}, {"deal": None}, {"deal": {}}, {"deal": {"x": None}}, {"deal": "text"}, {"deal": [1]}, {"x": 1}]


@pytest.mark.parametrize("found", NOWHERE)
@pytest.mark.parametrize(("op", "value"), OPERATORS)
def test_a_missing_value_is_unknown_to_all_but_the_questions_of_emptiness(op, value, found) -> None:
    expected = {"is_empty": True, "is_not_empty": False}.get(op)
    verdict = evaluate(Comparison(field="deal.x", op=op, value=value), found)
    assert (verdict.holds, verdict.saw) == (expected, None)
    assert verdict.met is (expected is True)


@given(json_values, comparisons(st.just("deal.x")))
def test_each_negated_operator_is_the_negation_of_its_twin(saw: object, leaf: Comparison) -> None:
    twins = {
        "eq": "ne",
        "in": "not_in",
        "contains": "not_contains",
        "is_empty": "is_not_empty",
        "gt": "lte",
        "gte": "lt",
    }
    twin = {**twins, **{b: a for a, b in twins.items()}}[leaf.op]
    one, other = ask(saw, leaf.op, leaf.value), ask(saw, twin, leaf.value)
    assert other is (None if one is None else not one)


AND = {(T, T): T, (T, F): F, (T, U): U, (F, F): F, (F, U): F, (U, U): U}
OR = {(T, T): T, (T, F): T, (T, U): T, (F, F): F, (F, U): U, (U, U): U}
NOT = {T: F, F: T, U: U}
BOTH_WAYS = [(*pair, AND[pair], OR[pair]) for pair in AND]
BOTH_WAYS += [(b, a, both, either) for a, b, both, either in BOTH_WAYS if a is not b]


def named(number: int) -> Comparison:
    return Comparison(field=f"deal.x{number}", op="eq", value=True)


def valued(*values: bool | None) -> dict[str, dict[str, bool | None]]:
    return {"deal": {f"x{number}": value for number, value in enumerate(values)}}


@pytest.mark.parametrize(("left", "right", "both", "either"), BOTH_WAYS)
def test_all_and_any_are_kleenes(left, right, both, either) -> None:
    pair = [named(0), named(1)]
    assert evaluate(All(all=pair), valued(left, right)).holds is both
    assert evaluate(Any(any=pair), valued(left, right)).holds is either


@pytest.mark.parametrize(("value", "negated"), NOT.items())
def test_not_of_unknown_is_unknown(value, negated) -> None:
    assert evaluate(Not(not_=named(0)), valued(value)).holds is negated
    assert evaluate(Not(not_=Not(not_=named(0))), valued(value)).holds is value


def kleene(tree: Condition, values: dict[str, bool | None]) -> bool | None:
    """The textbook: false < unknown < true; all is the least, any the greatest, not turns round."""
    order = [F, U, T]
    match tree:
        case Comparison():
            return values[tree.field]
        case All(all=parts):
            return order[min(order.index(kleene(part, values)) for part in parts)]
        case Any(any=parts):
            return order[max(order.index(kleene(part, values)) for part in parts)]
        case Not(not_=part):
            return order[2 - order.index(kleene(part, values))]


def number_leaves(tree: Condition) -> Condition:
    """The same shape, with a field of its own in each leaf."""
    count = iter(range(10_000))

    def again(part: Condition) -> Condition:
        match part:
            case All(all=parts):
                return All(all=[again(one) for one in parts])
            case Any(any=parts):
                return Any(any=[again(one) for one in parts])
            case Not(not_=one):
                return Not(not_=again(one))
            case _:
                return named(next(count))

    return again(tree)


shapes = trees(st.just(named(0)), 4).map(number_leaves)


@st.composite
def decided(draw: st.DrawFn) -> tuple[Condition, dict[str, bool | None]]:
    tree = draw(shapes)
    return tree, {leaf.field: draw(st.sampled_from([T, F, U])) for leaf in leaves(tree)}


def told(values: dict[str, bool | None]) -> dict[str, dict[str, bool | None]]:
    return {"deal": {field.removeprefix("deal."): value for field, value in values.items()}}


@given(decided())
def test_any_tree_says_what_the_textbook_says(case) -> None:
    tree, values = case
    assert evaluate(tree, told(values)).holds is kleene(tree, values)


def resolve(document: Anything, pointer: str) -> Anything:
    for part in pointer.split("/")[1:]:
        document = document[int(part)] if isinstance(document, list) else document[part]
    return document


@given(trees(comparisons()), facts())
def test_the_path_leads_to_the_comparison_that_decided(tree, found) -> None:
    verdict = evaluate(tree, found, "/conditions")
    document = {"conditions": CONDITION.dump_python(tree, mode="json", by_alias=True)}
    leaf = resolve(document, verdict.path)
    assert (verdict.field, verdict.op, verdict.expected) == (leaf["field"], leaf["op"], leaf["value"])
    alone = evaluate(Comparison.model_validate(leaf), found)
    assert alone.saw == verdict.saw
    turned = verdict.path.split("/").count("not") % 2
    assert verdict.holds is (NOT[alone.holds] if turned else alone.holds)


def settle(tree: Condition, want: bool, values: dict[str, bool | None]) -> None:
    """Gives every leaf of a tree the value that makes the tree `want`."""
    match tree:
        case Comparison():
            values[tree.field] = want
        case All(all=parts) | Any(any=parts):
            for part in parts:
                settle(part, want, values)
        case Not(not_=part):
            settle(part, not want, values)


def settle_after(tree: Condition, pointer: list[str], values: dict[str, bool | None]) -> None:
    """Makes what is read after the leaf at `pointer` of no matter: true under `all`, false under `any`."""
    match tree:
        case All(all=parts) | Any(any=parts):
            place = int(pointer[1])
            for part in parts[place + 1 :]:
                settle(part, isinstance(tree, All), values)
            settle_after(parts[place], pointer[2:], values)
        case Not(not_=part):
            settle_after(part, pointer[1:], values)


@given(decided())
def test_the_leaf_that_is_named_is_one_that_matters(case) -> None:
    """With nothing after it that decides, the verdict stays; with its fact turned too, it changes."""
    tree, values = case
    verdict = evaluate(tree, told(values))
    settle_after(tree, verdict.path.split("/")[1:], values)
    assert evaluate(tree, told(values)).holds is verdict.holds
    turned = [{**values, verdict.field: other} for other in (T, F, U)]
    assert any(evaluate(tree, told(one)).holds is not verdict.holds for one in turned)


@pytest.mark.parametrize(
    ("tree", "values", "path"),
    [
        (named(0), [T], ""),
        (All(all=[named(0), named(1), named(2)]), [T, F, F], "/all/1"),
        (All(all=[named(0), named(1), named(2)]), [U, U, F], "/all/2"),
        (All(all=[named(0), named(1), named(2)]), [T, U, U], "/all/1"),
        (All(all=[named(0), named(1)]), [T, T], "/all/1"),
        (Any(any=[named(0), named(1), named(2)]), [F, T, T], "/any/1"),
        (Any(any=[named(0), named(1), named(2)]), [F, U, F], "/any/1"),
        (Any(any=[named(0), named(1)]), [F, F], "/any/1"),
        (Not(not_=All(all=[named(0), Any(any=[named(1), named(2)])])), [T, F, T], "/not/all/1/any/1"),
    ],
)
def test_the_first_leaf_that_decides_is_named_else_the_first_unknown(tree, values, path) -> None:
    assert evaluate(tree, valued(*values)).path == path


@given(trees(comparisons()), facts())
def test_evaluate_is_total_and_its_verdict_is_json(tree, found) -> None:
    verdict = evaluate(tree, found)
    assert Verdict.model_validate(json.loads(json.dumps(verdict.model_dump(mode="json")))) == verdict
    assert verdict.met is (verdict.holds is True)


class Odd:
    def __str__(self) -> str:
        return "odd"


ENDLESS: list[object] = []
ENDLESS.append(ENDLESS)
BURIED: list[object] = []
for _ in range(100_000):
    BURIED = [BURIED]


@pytest.mark.parametrize(("op", "value"), OPERATORS)
@pytest.mark.parametrize(
    "saw",
    [
        10**5000, -(10**5000), 1e308, float("nan"), float("inf"), Decimal("1e400"), "9" * 10_000, "1e999999999999",
        "1e99999999999999999999999", "\ud800", "\0", object(), Odd(), [Odd()], {"a": Odd()}, {1: 2}, {"a": {3}},
        [float("nan")], ENDLESS, BURIED, b"\xff", "2026-01-01" * 1000, "٢٠٢٦-01-01", "0000-00-00",
    ],
    ids=lambda saw: type(saw).__name__,
)  # fmt: skip
def test_a_hostile_value_gives_a_verdict(saw, op, value) -> None:
    verdict = evaluate(Comparison(field="deal.x", op=op, value=value), {"deal": {"x": saw}})
    assert verdict.holds in (True, False, None)
    assert len(repr(verdict)) < 50_000


def test_huge_numbers_compare_by_value() -> None:
    assert ask(10**5000, "gt", 1) is True
    assert ask("1e999999999", "gt", 10**200) is True
    assert ask("-1e999999999", "gt", "1e-999999999") is False


def refusal(document: object) -> str:
    with pytest.raises(ValidationError) as error:
        CONDITION.validate_python(document)
    return str(error.value)


@pytest.mark.parametrize(
    ("op", "value", "says"),
    [
        ("in", "a", "'in' compares with a list"),
        ("not_in", None, "'not_in' compares with a list"),
        ("in", [["a"]], "'in' compares with a list of single values"),
        ("in", [None], "'in' compares with a list of single values"),
        ("in", [{"a": 1}], "'in' compares with a list of single values"),
        ("in", [1] * (MAX_VALUES + 1), f"at most {MAX_VALUES} values"),
        ("is_empty", 1, "'is_empty' takes no value"),
        ("is_not_empty", False, "'is_not_empty' takes no value"),
        ("gt", "soon", "'gt' compares with a number, a date or a time"),
        ("gte", None, "'gte' compares with"),
        ("lt", True, "'lt' compares with"),
        ("lte", "NaN", "'lte' compares with"),
        ("lt", float("inf"), "'lt' compares with a number"),
        ("eq", float("nan"), "'eq' compares with a number"),
        ("eq", float("-inf"), "'eq' compares with a number"),
        ("eq", 10**400, "'eq' compares with a number"),
        ("in", [1, float("nan")], "'in' compares with a number"),
        ("eq", None, "'eq' compares with one value"),
        ("ne", ["a"], "'ne' compares with one value"),
        ("contains", {"a": 1}, "'contains' compares with one value"),
        ("matches", "a", "Input should be 'eq'"),
    ],
)
def test_a_value_that_does_not_fit_its_operator_is_refused(op, value, says) -> None:
    assert says in refusal({"field": "deal.x", "op": op, "value": value})


@pytest.mark.parametrize("text", ["1e999", "-1e999", "NaN", "Infinity", "[1e999]"])
def test_json_does_not_smuggle_in_what_json_cannot_carry(text: str) -> None:
    op = "in" if text.startswith("[") else "eq"
    with pytest.raises(ValidationError):
        CONDITION.validate_json(f'{{"field":"deal.x","op":"{op}","value":{text}}}')


@pytest.mark.parametrize(
    "document",
    [
        {}, [], None, "deal.x", {"all": []}, {"any": []}, {"not": None}, {"all": [named(0)] * 21},
        {"all": [named(0)], "any": [named(0)]}, {"field": "deal.x", "op": "is_empty", "extra": 1},
        {"field": "deal", "op": "is_empty"}, {"field": "deal..x", "op": "is_empty"},
        {"field": "deal.x'; --", "op": "is_empty"}, {"field": "deal." + "x" * 120, "op": "is_empty"},
        {"field": "deal.a.b.c.d.e", "op": "is_empty"}, {"field": "deal.x\n", "op": "is_empty"},
    ],
)  # fmt: skip
def test_what_is_no_condition_is_refused(document) -> None:
    refusal(document)


def test_endless_nesting_is_refused_rather_than_followed() -> None:
    tree: dict[str, object] = {"field": "deal.x", "op": "is_empty"}
    for _ in range(5000):
        tree = {"not": tree}
    refusal(tree)


@given(trees(comparisons()))
def test_a_tree_is_the_same_after_a_trip_through_json(tree) -> None:
    assert CONDITION.validate_json(CONDITION.dump_json(tree, by_alias=True, exclude_defaults=True)) == tree
    assert CONDITION.validate_python(CONDITION.dump_python(tree, mode="json", by_alias=True)) == tree


@given(trees(comparisons()), facts())
def test_evaluating_changes_nothing_and_says_the_same_twice(tree, found) -> None:
    before = repr(found)
    assert repr(evaluate(tree, found)) == repr(evaluate(tree, found))
    assert repr(found) == before


def test_a_value_is_looked_up_only_in_mappings() -> None:
    found = {"deal": {"x": {"y": 1}, "": 2, "l": [{"z": 1}]}}
    assert look_up(found, "deal.x.y") == 1
    assert look_up(found, "deal.x.y.z") is None
    assert look_up(found, "deal.l.0") is None
    assert look_up(found, "deal.x.keys") is None


def test_a_tree_within_the_caps_is_quick_over_large_facts() -> None:
    text, members = "ab" * 50_000, ["x"] * 50_000
    each = [
        Comparison(field="deal.text", op="not_contains", value="ab" * 2000 + "c"),
        Comparison(field="deal.members", op="not_contains", value="y"),
        Comparison(field="deal.text", op="not_in", value=["ab" * 40] * MAX_VALUES),
        Comparison(field="deal.digits", op="gt", value=-1),
        Comparison(field="deal.text", op="ne", value="(a|b|ab)*c"),
    ]
    tree = All(all=[All(all=each * 4), All(all=each * 4), All(all=each * 2)])
    assert len(list(leaves(tree))) == MAX_LEAVES
    assert depth(tree) <= MAX_DEPTH
    found = {"deal": {"text": text, "members": members, "digits": "9" * 100_000}}
    began = time.perf_counter()
    assert evaluate(tree, found).met
    assert time.perf_counter() - began < 3
