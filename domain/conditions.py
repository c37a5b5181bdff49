"""Conditions: one tree that is evaluated, and that explains the leaf that decided.

Logic is three-valued: a comparison on a value that is missing is *unknown*, and unknown is
not true. `is_empty` and `is_not_empty` are the two questions a missing value does answer.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Annotated, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    JsonValue,
    Tag,
    TypeAdapter,
    ValidationInfo,
    field_validator,
)
from pydantic.alias_generators import to_camel
from pydantic_core import PydanticSerializationError, to_jsonable_python

Facts = Mapping[str, object]
"""What a decision may look at: root name (`deal`, `contact`, `event`, …) → nested mapping of JSON values."""

Operator = Literal[
    "eq", "ne", "gt", "gte", "lt", "lte", "in", "not_in",
    "contains", "not_contains", "is_empty", "is_not_empty",
]  # fmt: skip

MAX_DEPTH = 5
MAX_LEAVES = 50
MAX_VALUES = 1000
_HUGE = 1e300
"""No number so large, infinite or undefined is compared with or shown: JSON and its readers refuse some."""
_PATH = r"^[a-z][a-zA-Z0-9_]*(\.[a-zA-Z0-9_-]+){1,4}$"


class _Node(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, alias_generator=to_camel, validate_by_name=True)


class Comparison(_Node):
    """`field` is a dotted path into the facts, such as `deal.valueCents`; `value` is what to compare with."""

    field: Annotated[str, Field(pattern=_PATH, max_length=120)]
    op: Operator
    value: Annotated[JsonValue, Field(validate_default=True)] = None

    @field_validator("value")
    @classmethod
    def _fits_operator(cls, value: JsonValue, info: ValidationInfo) -> JsonValue:
        problem = _misfit(info.data["op"], value) if "op" in info.data else None
        if problem is not None:
            raise ValueError(problem)
        return value


class All(_Node):
    all: Annotated[list["Condition"], Field(min_length=1, max_length=20)]


class Any(_Node):
    any: Annotated[list["Condition"], Field(min_length=1, max_length=20)]


class Not(_Node):
    not_: Annotated["Condition", Field(alias="not")]


_KEYS = {
    "field": "a comparison", "op": "a comparison", "value": "a comparison",
    "all": "all of", "any": "any of", "not": "none of", "not_": "none of",
}  # fmt: skip
_KINDS: dict[type, str] = {Comparison: "a comparison", All: "all of", Any: "any of", Not: "none of"}


def _kind(value: object) -> str | None:
    """Which condition a value is meant to be: then only what is wrong with that one is told."""
    if isinstance(value, Mapping):
        return next((_KEYS[key] for key in value if key in _KEYS), None)
    return _KINDS.get(type(value))


Condition = Annotated[
    Annotated[Comparison, Tag("a comparison")]
    | Annotated[All, Tag("all of")]
    | Annotated[Any, Tag("any of")]
    | Annotated[Not, Tag("none of")],
    Discriminator(
        _kind,
        custom_error_type="bad_condition",
        custom_error_message="A condition is an object with 'field' and 'op', or with 'all', 'any' or 'not'",
    ),
]
CONDITION: TypeAdapter[Condition] = TypeAdapter(Condition)
for _model in (All, Any, Not):
    _model.model_rebuild()


class Verdict(BaseModel):
    """Whether a tree held, and the comparison that decided it (`path` points into the document)."""

    model_config = ConfigDict(frozen=True)

    holds: bool | None
    """None: unknown, because the deciding value is missing; counts as not met."""
    path: str = ""
    field: str | None = None
    op: str | None = None
    expected: JsonValue = None
    saw: JsonValue = None

    @property
    def met(self) -> bool:
        return self.holds is True


def leaves(tree: Condition) -> Iterator[Comparison]:
    """Every comparison of a tree, in reading order."""
    match tree:
        case Comparison():
            yield tree
        case All(all=parts) | Any(any=parts):
            for part in parts:
                yield from leaves(part)
        case Not(not_=part):
            yield from leaves(part)


def depth(tree: Condition) -> int:
    match tree:
        case All(all=parts) | Any(any=parts):
            return 1 + max(depth(part) for part in parts)
        case Not(not_=part):
            return 1 + depth(part)
        case _:
            return 1


def look_up(facts: Facts, path: str) -> object:
    """The value at a dotted path; None where any part is missing."""
    value: object = facts
    for name in path.split("."):
        if not isinstance(value, Mapping):
            return None
        value = value.get(name)
    return value


def evaluate(tree: Condition, facts: Facts, path: str = "") -> Verdict:
    """Total: any tree over any facts gives a verdict, never an error."""
    match tree:
        case Comparison():
            saw = look_up(facts, tree.field)
            return Verdict(
                holds=_compare(tree.op, saw, tree.value),
                path=path,
                field=tree.field,
                op=tree.op,
                expected=tree.value,
                saw=_shown(saw),
            )
        case All(all=parts):
            return _first(parts, facts, f"{path}/all", decides=False)
        case Any(any=parts):
            return _first(parts, facts, f"{path}/any", decides=True)
        case Not(not_=part):
            verdict = evaluate(part, facts, f"{path}/not")
            flipped = None if verdict.holds is None else not verdict.holds
            return verdict.model_copy(update={"holds": flipped})


def _first(parts: list[Condition], facts: Facts, path: str, *, decides: bool) -> Verdict:
    """Kleene logic: the first part that decides, else the first unknown, else the last."""
    unknown: Verdict | None = None
    verdict = Verdict(holds=not decides, path=path)
    for index, part in enumerate(parts):
        verdict = evaluate(part, facts, f"{path}/{index}")
        if verdict.holds is decides:
            return verdict
        if verdict.holds is None and unknown is None:
            unknown = verdict
    return unknown or verdict


def _compare(op: Operator, saw: object, expected: JsonValue) -> bool | None:
    empty = saw is None or saw in ("", [], {})
    if op == "is_empty":
        return empty
    if op == "is_not_empty":
        return not empty
    if saw is None:
        return None
    if op in _ORDERINGS:
        left, right = _ordered(saw), _ordered(expected)
        if left is None or right is None or type(left) is not type(right):
            return None
        return _ORDERINGS[op](left, right)
    if op in ("in", "not_in"):
        found = any(_same(saw, one) for one in expected) if isinstance(expected, list) else False
        return found is (op == "in")
    if op in ("contains", "not_contains"):
        return _contains(saw, expected) is (op == "contains")
    return _same(saw, expected) is (op == "eq")


_ORDERINGS: dict[str, Callable[[object, object], bool]] = {
    "gt": lambda left, right: left > right,  # type: ignore[operator]  # both sides have one ordered type
    "gte": lambda left, right: left >= right,  # type: ignore[operator]  # same
    "lt": lambda left, right: left < right,  # type: ignore[operator]  # same
    "lte": lambda left, right: left <= right,  # type: ignore[operator]  # same
}


def _misfit(op: Operator, value: JsonValue) -> str | None:
    """Why the operator cannot compare with this value."""
    if op in ("in", "not_in") and not isinstance(value, list):
        return f"'{op}' compares with a list"
    values = value if isinstance(value, list) else [value]
    if isinstance(value, list) and any(isinstance(one, list | dict | None) for one in values):
        return f"'{op}' compares with a list of single values"
    if len(values) > MAX_VALUES:
        return f"'{op}' compares with at most {MAX_VALUES} values"
    if any(isinstance(one, int | float) and not abs(one) < _HUGE for one in values):
        return f"'{op}' compares with a number below {_HUGE:g}"
    if op in ("is_empty", "is_not_empty") and value is not None:
        return f"'{op}' takes no value"
    if op in _ORDERINGS and _ordered(value) is None:
        return f"'{op}' compares with a number, a date or a time"
    if op in ("eq", "ne", "contains", "not_contains") and isinstance(value, list | dict | None):
        return f"'{op}' compares with one value; use 'in' for several, 'is_empty' for none"
    return None


def _ordered(value: object) -> Decimal | datetime | None:
    """A number, or an instant of an ISO date or time (UTC where it names no zone); None if neither."""
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, int | float | Decimal):
        exact = Decimal(str(value)) if isinstance(value, float) else Decimal(value)
        return exact if exact.is_finite() else None
    if isinstance(value, str):
        if re.match(r"\d{4}-\d{2}-\d{2}", value):
            try:
                instant = datetime.fromisoformat(value)
            except ValueError:
                return None
            return instant if instant.tzinfo else instant.replace(tzinfo=UTC)
        try:
            number = Decimal(value)
        except InvalidOperation:
            return None
        return number if number.is_finite() else None
    return None


def _same(saw: object, expected: JsonValue) -> bool:
    """Text compares without case, numbers by value, and true is not 1."""
    if isinstance(saw, str) and isinstance(expected, str):
        return saw.casefold() == expected.casefold()
    if isinstance(saw, bool) or isinstance(expected, bool):
        return saw is expected
    return saw == expected


def _contains(saw: object, expected: JsonValue) -> bool:
    if isinstance(saw, str):
        return str(expected).casefold() in saw.casefold()
    if isinstance(saw, list):
        return any(_same(one, expected) for one in saw)
    return False


def _shown(value: object) -> JsonValue:
    """A value as JSON can carry it; its type's name for what JSON cannot."""
    if isinstance(value, int | float) and not abs(value) < _HUGE:
        return "a number too large to show"
    if value is None or isinstance(value, str | int | float):
        return value
    try:
        shown: JsonValue = to_jsonable_python(value, fallback=str)
    except (PydanticSerializationError, ValueError, RecursionError):
        return type(value).__name__
    return shown
