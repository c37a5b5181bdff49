"""Definitions as documents: triggers, conditions and steps, one language for rules and sequences.

A document is immutable once it is a version. Step ids are the logical steps of effect keys,
so a step that keeps its id through an edit stays the same step.
"""

from collections import Counter
from collections.abc import Iterator
from datetime import date
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, JsonValue, StringConstraints, TypeAdapter, ValidationError
from pydantic.alias_generators import to_camel

from domain.conditions import MAX_DEPTH, MAX_LEAVES, Condition, depth, leaves
from domain.due import Amount, Wait, Zone
from domain.words import EventType, LeadSource, LeadStatus, Priority

MAX_STEPS = 100
MAX_NESTING = 10
"""Branches inside branches; far below what a JSON reader refuses, so that what was stored stays readable."""
StepId = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,39}$")]
Title = Annotated[str, Field(min_length=1, max_length=200)]
StageKey = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,39}$")]
Person = Literal["owner", "manager"] | UUID
"""The record's owner, that owner's manager, or a named user."""


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, alias_generator=to_camel, validate_by_name=True)


# --- triggers


class StageChanged(_Document):
    """A deal moved; empty lists mean any stage."""

    on: Literal[EventType.DEAL_STAGE_CHANGED]
    from_: Annotated[list[StageKey], Field(alias="from")] = []
    to: list[StageKey] = []


class ContactCreated(_Document):
    on: Literal[EventType.CONTACT_CREATED]


Trigger = Annotated[StageChanged | ContactCreated, Field(discriminator="on")]


# --- actions: a new one is a model here and its function in `activities/actions.py`


class CreateTask(_Document):
    type: Literal["create_task"]
    title: Title
    body: Annotated[str, Field(max_length=5000)] = ""
    assign_to: Person = "owner"
    due_in: Amount | None = None
    priority: Priority = Priority.NORMAL


class SetField(_Document):
    """Sets one field of the run's contact, company or deal, by the same verb as the API."""

    type: Literal["set_field"]
    field: Annotated[str, Field(pattern=r"^(contact|company|deal)\.[a-zA-Z]+$")]
    value: JsonValue


class MoveStage(_Document):
    type: Literal["move_stage"]
    to: StageKey


class Remind(_Document):
    """A reminder of its own, which goes on when the run has ended."""

    type: Literal["remind"]
    title: Title
    to: Person = "owner"
    after: Amount = Amount(amount=0, unit="minutes")
    escalate_after: Amount | None = None


class Notify(_Document):
    type: Literal["notify"]
    title: Title
    to: Person = "owner"


Action = Annotated[CreateTask | SetField | MoveStage | Remind | Notify, Field(discriminator="type")]


# --- steps


class Act(_Document):
    kind: Literal["act"]
    id: StepId
    action: Action


class WaitStep(_Document):
    kind: Literal["wait"]
    id: StepId
    wait: Wait


class Branch(_Document):
    """Both sides go on with the step after the branch; unknown takes `else`."""

    kind: Literal["branch"]
    id: StepId
    condition: Annotated[Condition, Field(alias="if")]
    then: list["Step"] = []
    else_: Annotated[list["Step"], Field(alias="else")] = []


class Exit(_Document):
    kind: Literal["exit"]
    id: StepId


Step = Annotated[Act | WaitStep | Branch | Exit, Field(discriminator="kind")]
Branch.model_rebuild()


class RuleDocument(_Document):
    """When (trigger), if (conditions), then (steps).

    Reading one checks its form only, so that what was stored stays readable when `check` learns more.
    """

    trigger: Trigger
    conditions: Condition | None = None
    steps: Annotated[list[Step], Field(min_length=1)]


def walk(steps: list[Step]) -> Iterator[Step]:
    """Every step of a tree, in reading order."""
    for step in steps:
        yield step
        if isinstance(step, Branch):
            yield from walk(step.then)
            yield from walk(step.else_)


FIELDS: dict[str, frozenset[str]] = {
    "contact": frozenset(
        [
            "id",
            "email",
            "firstName",
            "lastName",
            "phone",
            "title",
            "leadStatus",
            "leadSource",
            "leadScore",
            "tags",
            "ownerId",
            "companyId",
            "timeZone",
            "createdAt",
            "updatedAt",
        ]
    ),
    "company": frozenset(["id", "name", "domain", "industry", "size", "ownerId", "createdAt", "updatedAt"]),
    "deal": frozenset(
        [
            "id",
            "title",
            "valueCents",
            "currency",
            "pipeline",
            "stage",
            "probability",
            "outcome",
            "expectedCloseDate",
            "ownerId",
            "contactId",
            "companyId",
            "createdAt",
            "updatedAt",
        ]
    ),
    "event": frozenset({"before", "after", "type"}),
    "step": frozenset(),
}
"""What conditions may look at. `<root>.customFields.<name>`, `event.before|after.<field>` and
`step.<id>.<field>` (the record that step made) are open-ended."""

_CUSTOM = frozenset({"contact", "company", "deal"})
"""The records that have custom fields."""
_SIDES = frozenset({("event", "before"), ("event", "after")})

_Line = Annotated[str, Field(min_length=1, max_length=255)]
_Domain = Annotated[str, StringConstraints(min_length=1, max_length=255, to_lower=True)]
_Cents = Annotated[int, Field(strict=True, ge=0, le=10**15)]
_TYPES: dict[str, dict[str, Any]] = {
    "contact": {
        "firstName": _Line | None, "lastName": _Line | None,
        "phone": Annotated[str, Field(max_length=50)] | None, "title": _Line | None,
        "leadStatus": LeadStatus, "leadSource": LeadSource, "timeZone": Zone | None,
    },
    "company": {
        "name": _Line, "domain": _Domain | None, "industry": _Line | None, "size": _Line | None,
    },
    "deal": {
        "title": _Line, "valueCents": _Cents,
        "currency": Annotated[str, Field(pattern="^[A-Z]{3}$")], "expectedCloseDate": date | None,
    },
}  # fmt: skip
WRITABLE: dict[str, dict[str, TypeAdapter[object]]] = {
    root: {name: TypeAdapter(type_) for name, type_ in fields.items()} for root, fields in _TYPES.items()
}
"""What `set_field` may set, and the type each value must have; null empties what may be empty."""


def writable(action: SetField) -> object:
    """The value of a `set_field`, typed. Raises `ValueError` for a field or value that no rule may set."""
    record, _, name = action.field.partition(".")
    if name not in WRITABLE[record]:
        msg = f"sets '{action.field}', which no rule may set"
        raise ValueError(msg)
    try:
        return WRITABLE[record][name].validate_python(action.value)
    except ValidationError as error:
        msg = f"sets '{action.field}' to a value it cannot have: {error.errors()[0]['msg']}"
        raise ValueError(msg) from None


def check(document: RuleDocument) -> list[str]:
    """What is wrong with a well-formed document, in sentences; empty when it may be switched on."""
    steps = list(walk(document.steps))
    if len(steps) > MAX_STEPS:
        return [f"{len(steps)} steps; at most {MAX_STEPS} are allowed"]
    uses = Counter(step.id for step in steps)
    problems = [f"step id '{id_}' is used twice" for id_, times in uses.items() if times > 1]
    problems += [f"step '{id_}' is inside more than {MAX_NESTING} branches" for id_ in _too_deep(document.steps)]
    if document.conditions is not None:
        problems += _check_tree(document.conditions, set())
    for step in steps:
        if isinstance(step, Branch):
            problems += [f"step '{step.id}': {one}" for one in _check_tree(step.condition, set(uses))]
        if isinstance(step, Act) and isinstance(step.action, SetField):
            try:
                writable(step.action)
            except ValueError as error:
                problems.append(f"step '{step.id}' {error}")
    problems += [f"step '{id_}' can never be reached" for id_ in _unreachable(document.steps)]
    return problems


def _check_tree(tree: Condition, ids: set[str]) -> Iterator[str]:
    if depth(tree) > MAX_DEPTH:
        yield f"conditions are nested deeper than {MAX_DEPTH}"
    compared = list(leaves(tree))
    if len(compared) > MAX_LEAVES:
        yield f"{len(compared)} comparisons; at most {MAX_LEAVES} are allowed"
    for leaf in compared:
        root, name, *rest = leaf.field.split(".")
        open_ended = (name == "customFields" and root in _CUSTOM) or (root, name) in _SIDES
        if root == "step":
            if not ids:
                yield f"'{leaf.field}' looks at a step, but is asked before any step is taken"
            elif name not in ids:
                yield f"'{leaf.field}' names the step '{name}', which does not exist"
        elif root not in FIELDS:
            yield f"'{leaf.field}' is not a field; it must begin with one of {', '.join(FIELDS)}"
        elif not open_ended and (name not in FIELDS[root] or rest):
            yield f"'{leaf.field}' is not a field of {root}"


def _too_deep(steps: list[Step], inside: int = 0) -> Iterator[str]:
    """The outermost steps that too many branches hold."""
    for step in steps:
        if inside > MAX_NESTING:
            yield step.id
        elif isinstance(step, Branch):
            yield from _too_deep([*step.then, *step.else_], inside + 1)


def _unreachable(steps: list[Step]) -> Iterator[str]:
    """Steps behind an exit, or behind a branch whose both sides always exit."""
    gone = False
    for step in steps:
        if gone:
            yield step.id
        if isinstance(step, Branch):
            yield from _unreachable(step.then)
            yield from _unreachable(step.else_)
        gone = gone or _always_exits(step)


def _always_exits(step: Step) -> bool:
    if isinstance(step, Branch):
        return all(any(_always_exits(s) for s in side) for side in (step.then, step.else_))
    return isinstance(step, Exit)
