"""Definitions as documents: triggers, conditions and steps, one language for rules and sequences.

A document is immutable once it is a version. Step ids are the logical steps of effect keys,
so a step that keeps its id through an edit stays the same step.
"""

from collections import Counter
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    JsonValue,
    StringConstraints,
    Tag,
    TypeAdapter,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)
from pydantic.alias_generators import to_camel
from pydantic_core import PydanticCustomError

from domain.conditions import MAX_DEPTH, MAX_LEAVES, Condition, depth, leaves
from domain.due import Amount, Wait, Zone
from domain.templates import Content
from domain.templates import problems as template_problems
from domain.words import EventType, ExitReason, LeadSource, LeadStatus, Priority

MAX_STEPS = 100
MAX_NESTING = 10
"""Branches inside branches; far below what a JSON reader refuses, so that what was stored stays readable."""
StepId = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,39}$")]
Title = Annotated[str, Field(min_length=1, max_length=200)]
StageKey = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,39}$")]


def _as_person(value: object, known: ValidatorFunctionWrapHandler) -> object:
    try:
        return known(value)
    except ValidationError:
        raise PydanticCustomError("bad_person", "Input should be 'owner', 'manager' or the id of a user") from None


Person = Annotated[Literal["owner", "manager"] | UUID, WrapValidator(_as_person)]
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


class MessageAnswered(_Document):
    """Somebody answered a mail, or it came back; the run is about its contact and deal."""

    on: Literal[EventType.MESSAGE_REPLIED, EventType.MESSAGE_BOUNCED, EventType.MESSAGE_COMPLAINED]


class EnrollmentEnded(_Document):
    """An enrollment ended, in one of these ways; an empty list means any."""

    on: Literal[EventType.ENROLLMENT_ENDED]
    reasons: list[ExitReason] = []


Trigger = Annotated[StageChanged | ContactCreated | MessageAnswered | EnrollmentEnded, Field(discriminator="on")]


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


class _Mailing(_Document):
    """One mail: a stored `template`, or a subject with text, html or both.

    `thread` "same" answers the execution's mail before, under its subject unless one is given.
    """

    template: UUID | None = None
    subject: str | None = None
    text: str | None = None
    html: str | None = None
    thread: Literal["new", "same"] = "new"

    @model_validator(mode="after")
    def _one_content(self) -> "_Mailing":
        inline = any(part is not None for part in (self.subject, self.text, self.html))
        if (self.template is not None) == inline:
            msg = "a mail has either a 'template', or a 'subject' with 'text' or 'html'"
            raise ValueError(msg)
        if inline and self.thread == "new" and not (self.subject or "").strip():
            msg = "a mail that begins a thread needs a 'subject'"
            raise ValueError(msg)
        try:
            self.content  # noqa: B018  (its limits are checked with the document's)
        except ValidationError as error:
            raise ValueError(error.errors()[0]["msg"].removeprefix("Value error, ")) from None
        return self

    @property
    def content(self) -> Content | None:
        """What is to be rendered; None where a stored template says it. An empty subject is the thread's."""
        if self.template is not None:
            return None
        return Content(subject=self.subject or "", text=self.text, html=self.html)


class SendEmail(_Mailing):
    """One mail to the contact, written now and sent by the mailbox at its pace."""

    type: Literal["send_email"]


class Enroll(_Document):
    """Enrolls the contact in a sequence; where it may not be, the step's effect says why."""

    type: Literal["enroll"]
    sequence: UUID


class TakeOut(_Document):
    """Takes the contact out of a sequence, or of every sequence where none is named."""

    type: Literal["take_out"]
    sequence: UUID | None = None


Action = Annotated[
    CreateTask | SetField | MoveStage | Remind | Notify | SendEmail | Enroll | TakeOut, Field(discriminator="type")
]


# --- steps


class Act(_Document):
    kind: Literal["act"]
    id: StepId
    action: Action


class Email(_Mailing):
    """The step that sequences are made of; the same as the action `send_email`."""

    kind: Literal["email"]
    id: StepId

    @property
    def action(self) -> SendEmail:
        return SendEmail(type="send_email", **self.model_dump(exclude={"kind", "id"}))


class Task(_Document):
    """A task for a person; the same as the action `create_task`."""

    kind: Literal["task"]
    id: StepId
    title: Title
    body: Annotated[str, Field(max_length=5000)] = ""
    assign_to: Person = "owner"
    due_in: Amount | None = None
    priority: Priority = Priority.NORMAL

    @property
    def action(self) -> CreateTask:
        return CreateTask(type="create_task", **self.model_dump(exclude={"kind", "id"}))


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


Step = Annotated[Act | Email | Task | WaitStep | Branch | Exit, Field(discriminator="kind")]
Branch.model_rebuild()


class RuleDocument(_Document):
    """When (trigger), if (conditions), then (steps).

    Reading one checks its form only, so that what was stored stays readable when `check` learns more.
    """

    trigger: Trigger
    conditions: Condition | None = None
    steps: Annotated[list[Step], Field(min_length=1)]


class ExitWhen(_Document):
    """What ends an enrollment from outside: a change of its contact or deal, decided by the match.

    `to` names the stages entered, for a stage change; `changed` the fields, any of which must have
    changed; `if` is asked of the records as they are then, and of the `event`.
    """

    on: Literal[EventType.DEAL_STAGE_CHANGED, EventType.DEAL_UPDATED, EventType.CONTACT_UPDATED]
    to: list[StageKey] = []
    changed: Annotated[list[Annotated[str, Field(max_length=80)]], Field(max_length=20)] = []
    condition: Annotated[Condition | None, Field(alias="if")] = None

    @model_validator(mode="after")
    def _stages(self) -> "ExitWhen":
        if self.to and self.on != EventType.DEAL_STAGE_CHANGED:
            msg = "'to' names stages, which only a deal.stage_changed enters"
            raise ValueError(msg)
        return self


def _again(value: object) -> str | None:
    if isinstance(value, str):
        return "a word"
    return "a time" if isinstance(value, Mapping | Amount) else None


Again = Annotated[
    Annotated[Literal["never", "always"], Tag("a word")] | Annotated[Amount, Tag("a time")],
    Discriminator(
        _again,
        custom_error_type="bad_again",
        custom_error_message="Input should be 'never', 'always' or an amount of time",
    ),
]


class SequenceDocument(_Document):
    """What happens to an enrolled contact, and what ends it early.

    `again` says whether who has been through may be enrolled again: never, always, or an amount of
    time after the last enrollment ended. `mailbox` sends; left out, it is chosen at enrollment.
    """

    steps: Annotated[list[Step], Field(min_length=1)]
    exits: Annotated[list[ExitWhen], Field(max_length=20)] = []
    again: Again = "never"
    mailbox: UUID | None = None
    stop_on_reply: bool = True


Document = RuleDocument | SequenceDocument


def walk(steps: list[Step]) -> Iterator[Step]:
    """Every step of a tree, in reading order."""
    for step in steps:
        yield step
        if isinstance(step, Branch):
            yield from walk(step.then)
            yield from walk(step.else_)


@dataclass(frozen=True)
class References:
    """What a document names that lives outside of it."""

    stages: frozenset[str]
    templates: frozenset[UUID]
    mailboxes: frozenset[UUID]
    sequences: frozenset[UUID]
    users: frozenset[UUID]


def sends_mail(document: Document) -> bool:
    return any(isinstance(step, Act | Email) and isinstance(step.action, SendEmail) for step in walk(document.steps))


def references(document: Document) -> References:
    """Everything a document counts on being there."""
    actions = [step.action for step in walk(document.steps) if isinstance(step, Act | Email | Task)]
    moved_to = {action.to for action in actions if isinstance(action, MoveStage)}
    people = [action.assign_to for action in actions if isinstance(action, CreateTask)]
    people += [action.to for action in actions if isinstance(action, Remind | Notify)]
    watched: set[str] = set()
    mailboxes: set[UUID] = set()
    if isinstance(document, SequenceDocument):
        watched = {stage for exit_ in document.exits for stage in exit_.to}
        mailboxes = {document.mailbox} if document.mailbox else set()
    elif isinstance(document.trigger, StageChanged):
        watched = {*document.trigger.from_, *document.trigger.to}
    named = (action.template for action in actions if isinstance(action, SendEmail))
    sequences = (action.sequence for action in actions if isinstance(action, Enroll | TakeOut))
    return References(
        frozenset(moved_to | watched),
        frozenset(one for one in named if one is not None),
        frozenset(mailboxes),
        frozenset(one for one in sequences if one is not None),
        frozenset(one for one in people if isinstance(one, UUID)),
    )


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


def check(document: Document) -> list[str]:
    """What is wrong with a well-formed document, in sentences; empty when it may be switched on."""
    steps = list(walk(document.steps))
    if len(steps) > MAX_STEPS:
        return [f"{len(steps)} steps; at most {MAX_STEPS} are allowed"]
    uses = Counter(step.id for step in steps)
    problems = [f"step id '{id_}' is used twice" for id_, times in uses.items() if times > 1]
    problems += [f"step '{id_}' is inside more than {MAX_NESTING} branches" for id_ in _too_deep(document.steps)]
    if isinstance(document, RuleDocument):
        if document.conditions is not None:
            problems += _check_tree(document.conditions, set())
    else:
        problems += _check_exits(document.exits)
    lonely = set(_lonely(document.steps))
    for step in steps:
        if isinstance(step, Branch):
            asked = list(_check_tree(step.condition, set(uses)))
            if isinstance(document, SequenceDocument):
                asked += _check_no_event(step.condition)
            problems += [f"step '{step.id}': {one}" for one in asked]
        if isinstance(step, Act | Email | Task):
            problems += [f"step '{step.id}' {one}" for one in _check_action(step.action, lonely=step.id in lonely)]
    problems += [f"step '{id_}' can never be reached" for id_ in _unreachable(document.steps)]
    return problems


def _check_exits(exits: list[ExitWhen]) -> Iterator[str]:
    for number, one in enumerate(exits, 1):
        if one.condition is not None:
            yield from (f"exit {number}: {problem}" for problem in _check_tree(one.condition, set()))
        unknown = [name for name in one.changed if name not in FIELDS[one.on.partition(".")[0]]]
        yield from (f"exit {number}: '{name}' is not a field of the record it watches" for name in unknown)


def _check_action(action: Action, *, lonely: bool) -> Iterator[str]:
    if isinstance(action, SetField):
        try:
            writable(action)
        except ValueError as error:
            yield str(error)
    if isinstance(action, SendEmail):
        if lonely:
            yield "answers a mail before it, and there may be none"
        if action.content is not None:
            content = action.content.model_copy(update={"subject": action.subject or "the thread's own"})
            first = action.thread == "new"
            yield from (
                f"has a mail that cannot be sent: {one}" for one in template_problems(content, FIELDS, first=first)
            )


def _lonely(steps: list[Step], *, mailed: bool = False) -> Generator[str, None, bool]:
    """Steps that answer a mail where some way to them has none; at last, whether every way on has one."""
    for step in steps:
        if isinstance(step, Branch):
            then = yield from _lonely(step.then, mailed=mailed)
            otherwise = yield from _lonely(step.else_, mailed=mailed)
            mailed = then and otherwise
        elif isinstance(step, Exit):
            mailed = True  # no way leads on
        elif isinstance(step, Act | Email | Task) and isinstance(step.action, SendEmail):
            if step.action.thread == "same" and not mailed:
                yield step.id
            mailed = True
    return mailed


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


def _check_no_event(tree: Condition) -> Iterator[str]:
    for leaf in leaves(tree):
        if leaf.field.partition(".")[0] == "event":
            yield f"'{leaf.field}' looks at an event, and no event starts an enrollment"


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
