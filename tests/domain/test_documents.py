# ruff: noqa: E501  (parameters come from tables and strategies; a row a line)
# mypy: ignore-errors
"""Documents: what may be said, what is refused and with which words, and what survives storage."""

import copy
import json
import time
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from pydantic import ValidationError

from domain.conditions import MAX_DEPTH, MAX_LEAVES
from domain.documents import (
    FIELDS,
    MAX_NESTING,
    MAX_STEPS,
    WRITABLE,
    Act,
    RuleDocument,
    SequenceDocument,
    SetField,
    check,
    walk,
    writable,
)
from domain.words import EventType
from tests.domain.strategies import documents, sequences

slow = settings(max_examples=30, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])

GOOD: dict[str, Any] = {
    "trigger": {"on": "deal.stage_changed", "from": ["lead"], "to": ["proposal"]},
    "conditions": {
        "all": [
            {"field": "deal.valueCents", "op": "gte", "value": 1_000_000},
            {"not": {"any": [{"field": "contact.tags", "op": "contains", "value": "vip"},
                             {"field": "deal.customFields.frozen", "op": "is_not_empty"}]}},
            {"field": "event.before.stage", "op": "ne", "value": "closed_won"},
        ]
    },
    "steps": [
        {"kind": "act", "id": "call", "action": {
            "type": "create_task", "title": "Call them", "dueIn": {"amount": 3, "unit": "business_days"},
            "priority": "high"}},
        {"kind": "wait", "id": "patience", "wait": {
            "for": {"amount": 3, "unit": "business_days"},
            "until": {"at": "09:00", "weekdays": ["mon"], "zone": "contact"}}},
        {"kind": "branch", "id": "called", "if": {"field": "step.call.completedAt", "op": "is_empty"},
         "then": [
             {"kind": "act", "id": "nudge", "action": {
                 "type": "remind", "title": "Call!", "escalateAfter": {"amount": 1, "unit": "hours"}}},
             {"kind": "act", "id": "tell", "action": {
                 "type": "notify", "title": "Quiet deal", "to": "01890000-0000-7000-8000-000000000001"}},
         ],
         "else": [{"kind": "exit", "id": "fine"}]},
        {"kind": "act", "id": "mark", "action": {"type": "set_field", "field": "contact.leadStatus", "value": "contacted"}},
        {"kind": "act", "id": "move", "action": {"type": "move_stage", "to": "negotiation"}},
    ],
}  # fmt: skip


def changed(path: str, value: object) -> dict[str, Any]:
    """The good document with one thing changed; a `+` at the end adds to a list."""
    document = copy.deepcopy(GOOD)
    *parts, last = [int(part) if part.isdigit() else part for part in path.split("/")]
    here: Any = document
    for part in parts:
        here = here[part]
    if last == "+":
        here.append(value)
    else:
        here[last] = value
    return document


def test_a_good_document_is_read_and_has_no_problems() -> None:
    document = RuleDocument.model_validate(GOOD)
    assert check(document) == []
    assert [step.id for step in walk(document.steps)] == [
        "call", "patience", "called", "nudge", "tell", "fine", "mark", "move",
    ]  # fmt: skip


def test_the_smallest_document_is_a_trigger_and_a_step() -> None:
    document = {"trigger": {"on": "contact.created"}, "steps": [{"kind": "exit", "id": "a"}]}
    assert check(RuleDocument.model_validate(document)) == []


@pytest.mark.parametrize(
    ("path", "value", "at", "says"),
    [
        ("name", "x", "name", "Extra inputs"),
        ("trigger/when", "x", "trigger.deal.stage_changed.when", "Extra inputs"),
        ("trigger/on", "deal.won", "trigger", "deal.stage_changed"),
        ("trigger/to", ["Proposal!"], "trigger.deal.stage_changed.to.0", "pattern"),
        ("trigger", None, "trigger", "dictionary"),
        ("conditions/all/0/field", "valueCents", "conditions.all of.all.0.a comparison.field", "pattern"),
        ("conditions/all/0/op", "like", "conditions.all of.all.0.a comparison.op", "Input should be 'eq'"),
        ("conditions/all", [], "conditions.all of.all", "at least 1 item"),
        ("steps", [], "steps", "at least 1 item"),
        ("steps", None, "steps", "list"),
        ("conditions/all/0", {"deal.stage": "x"}, "conditions.all of.all.0", "A condition is an object with"),
        ("conditions/all/1/not", [], "conditions.all of.all.1.none of.not", "A condition is an object with"),
        ("steps/0/kind", "fax", "steps.0", "'act', 'email', 'task', 'wait', 'branch', 'exit'"),
        ("steps/0/id", "Call me", "steps.0.act.id", "pattern"),
        ("steps/0/id", "c/1", "steps.0.act.id", "pattern"),
        ("steps/0/id", "x" * 41, "steps.0.act.id", "pattern"),
        ("steps/0/label", "x", "steps.0.act.label", "Extra inputs"),
        ("steps/0/action/type", "fax", "steps.0.act.action", "'create_task', 'set_field', 'move_stage', 'remind'"),
        ("steps/0/action/title", "", "steps.0.act.action.create_task.title", "at least 1 character"),
        ("steps/0/action/title", "x" * 201, "steps.0.act.action.create_task.title", "at most 200"),
        (
            "steps/0/action/assignTo",
            "boss",
            "steps.0.act.action.create_task.assignTo",
            "'owner', 'manager' or the id of a user",
        ),
        ("steps/0/action/priority", "urgent", "steps.0.act.action.create_task.priority", "'low', 'normal' or 'high'"),
        ("steps/0/action/dueIn/unit", "years", "steps.0.act.action.create_task.dueIn.unit", "business_days"),
        ("steps/0/action/colour", "red", "steps.0.act.action.create_task.colour", "Extra inputs"),
        ("steps/1/wait/for/amount", -1, "steps.1.wait.wait.for.amount", "greater than or equal to 0"),
        ("steps/1/wait", {}, "steps.1.wait.wait", "a wait needs 'for', 'until' or both"),
        ("steps/1/wait/until/zone", "Mars", "steps.1.wait.wait.until.zone", "'Mars' is not a time zone"),
        ("steps/2/if", None, "steps.2.branch.if", "A condition is an object with"),
        ("steps/2/then/0/action/to", 5, "steps.2.branch.then.0.act.action.remind.to", "the id of a user"),
        ("steps/2/else/0/kind", "stop", "steps.2.branch.else.0", "'act', 'email', 'task', 'wait', 'branch', 'exit'"),
        ("steps/3/action/field", "rule.name", "steps.3.act.action.set_field.field", "pattern"),
        ("steps/4/action/to", "Closed Won", "steps.4.act.action.move_stage.to", "pattern"),
    ],
)
def test_a_malformed_document_is_refused_where_it_is_wrong(path, value, at, says) -> None:
    with pytest.raises(ValidationError) as error:
        RuleDocument.model_validate(changed(path, value))
    found = [(".".join(map(str, one["loc"])), one["msg"]) for one in error.value.errors()]
    assert any(loc.startswith(at) and says in message for loc, message in found), found


def exits(id_: str) -> dict[str, str]:
    return {"kind": "exit", "id": id_}


def leaf(field: str) -> dict[str, str]:
    return {"field": field, "op": "is_empty"}


def sets(field: str, value: object) -> dict[str, Any]:
    return {"kind": "act", "id": "sets", "action": {"type": "set_field", "field": field, "value": value}}


def nested(kind: str, depth: int) -> dict[str, Any]:
    tree: dict[str, Any] = leaf("deal.stage")
    for _ in range(depth - 1):
        tree = {kind: tree if kind == "not" else [tree]}
    return tree


def branches(depth: int) -> dict[str, Any]:
    step: dict[str, Any] = exits("innermost")
    for number in range(depth):
        step = {"kind": "branch", "id": f"b{number}", "if": leaf("deal.stage"), "then": [step]}
    return step


FORK = {"kind": "branch", "id": "fork", "if": leaf("deal.stage"), "then": [exits("x1")], "else": [exits("x2")]}
DEEP_FORK = {"kind": "branch", "id": "outer", "if": leaf("deal.stage"), "then": [FORK], "else": [exits("x3")]}


@pytest.mark.parametrize(
    ("path", "value", "problem"),
    [
        ("steps/4/id", "nudge", "step id 'nudge' is used twice"),
        ("steps/2/else/0/id", "call", "step id 'call' is used twice"),
        ("steps/+", sets("contact.email", "a@example.com"), "step 'sets' sets 'contact.email', which no rule may set"),
        ("steps/+", sets("deal.stage", "lead"), "step 'sets' sets 'deal.stage', which no rule may set"),
        ("steps/+", sets("deal.ownerId", "x"), "step 'sets' sets 'deal.ownerId', which no rule may set"),
        ("steps/+", sets("deal.orgId", "x"), "step 'sets' sets 'deal.orgId', which no rule may set"),
        ("steps/+", sets("contact.leadStatus", "hot"), "step 'sets' sets 'contact.leadStatus' to a value it cannot have"),
        ("steps/+", sets("deal.valueCents", -1), "step 'sets' sets 'deal.valueCents' to a value it cannot have"),
        ("conditions", leaf("deal.colour"), "'deal.colour' is not a field of deal"),
        ("conditions", leaf("deal.stage.name"), "'deal.stage.name' is not a field of deal"),
        ("conditions", leaf("event.customFields.x"), "'event.customFields.x' is not a field of event"),
        ("conditions", leaf("event.type.x"), "'event.type.x' is not a field of event"),
        ("conditions", leaf("rule.name"), "'rule.name' is not a field; it must begin with one of contact, company, deal"),
        ("conditions", leaf("step.call.id"), "'step.call.id' looks at a step, but is asked before any step is taken"),
        ("conditions", {"not": {"any": [leaf("deal.stage"), leaf("deal.x")]}}, "'deal.x' is not a field of deal"),
        ("steps/2/if", leaf("contact.shoeSize"), "step 'called': 'contact.shoeSize' is not a field of contact"),
        ("steps/2/if", leaf("step.gone.id"), "step 'called': 'step.gone.id' names the step 'gone', which does not exist"),
        ("conditions", nested("not", MAX_DEPTH + 1), f"conditions are nested deeper than {MAX_DEPTH}"),
        ("conditions", nested("all", MAX_DEPTH + 1), f"conditions are nested deeper than {MAX_DEPTH}"),
        ("conditions", nested("any", 60), f"conditions are nested deeper than {MAX_DEPTH}"),
        ("conditions", {"all": [{"any": [leaf("deal.stage")] * 17}] * 3}, f"51 comparisons; at most {MAX_LEAVES} are allowed"),
        ("steps", [exits(f"e{n}") for n in range(MAX_STEPS + 1)], f"101 steps; at most {MAX_STEPS} are allowed"),
        ("steps", [branches(MAX_NESTING + 1)], f"step 'innermost' is inside more than {MAX_NESTING} branches"),
        ("steps", [exits("a"), exits("b")], "step 'b' can never be reached"),
        ("steps", [FORK, exits("b")], "step 'b' can never be reached"),
        ("steps", [DEEP_FORK, exits("b")], "step 'b' can never be reached"),
        ("steps/2/else/+", exits("b"), "step 'b' can never be reached"),
    ],
)  # fmt: skip
def test_a_document_that_cannot_work_is_told_why_by_name(path, value, problem) -> None:
    document = RuleDocument.model_validate(changed(path, value))
    problems = check(document)
    assert len(problems) == 1, problems
    assert problems[0].startswith(problem)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("conditions", nested("not", MAX_DEPTH)),
        ("conditions", {"all": [{"any": [leaf("deal.stage")] * 10}] * 5}),
        ("conditions", leaf("contact.customFields.a.b.c")),
        ("conditions", leaf("event.after.customFields.plan")),
        ("steps", [*({"kind": "wait", "id": f"w{n}", "wait": {"until": {"at": "09:00"}}} for n in range(MAX_STEPS))]),
        ("steps", [branches(MAX_NESTING)]),
        ("steps", [{**FORK, "else": []}, exits("b")]),
        ("steps/2/then", []),
    ],
)
def test_what_is_just_within_the_limits_is_accepted(path, value) -> None:
    assert check(RuleDocument.model_validate(changed(path, value))) == []


def test_every_problem_is_told_at_once_and_always_in_the_same_order() -> None:
    twins = [sets("deal.stage", "x"), sets("deal.stage", "x"), exits("a"), exits("a")]
    document = RuleDocument.model_validate({**GOOD, "conditions": leaf("deal.x"), "steps": twins})
    assert check(document) == [
        "step id 'sets' is used twice",
        "step id 'a' is used twice",
        "'deal.x' is not a field of deal",
        "step 'sets' sets 'deal.stage', which no rule may set",
        "step 'sets' sets 'deal.stage', which no rule may set",
        "step 'a' can never be reached",
    ]


FITTING = [
    ("contact.firstName", "Ada", "Ada"), ("contact.firstName", None, None), ("contact.phone", "", ""),
    ("contact.leadStatus", "qualified", "qualified"), ("contact.leadSource", "partner", "partner"),
    ("contact.timeZone", "Europe/Berlin", "Europe/Berlin"), ("contact.timeZone", None, None),
    ("company.name", "Acme", "Acme"), ("company.domain", "Acme.COM", "acme.com"), ("company.size", None, None),
    ("deal.valueCents", 0, 0), ("deal.valueCents", 10**15, 10**15), ("deal.currency", "EUR", "EUR"),
    ("deal.expectedCloseDate", None, None), ("deal.title", "x" * 255, "x" * 255),
]  # fmt: skip


@pytest.mark.parametrize(("field", "value", "typed"), FITTING)
def test_a_fitting_value_may_be_set(field, value, typed) -> None:
    assert writable(SetField(type="set_field", field=field, value=value)) == typed


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("contact.firstName", ""), ("contact.firstName", 5), ("contact.firstName", "x" * 256), ("contact.phone", "0" * 51),
        ("contact.leadStatus", None), ("contact.leadStatus", ""), ("contact.leadSource", None),
        ("contact.timeZone", "Mars"), ("company.name", None), ("company.name", ["a"]), ("deal.title", None),
        ("deal.valueCents", None), ("deal.valueCents", 1.5), ("deal.valueCents", True), ("deal.valueCents", "12"),
        ("deal.valueCents", 10**15 + 1), ("deal.valueCents", float("inf")), ("deal.currency", None),
        ("deal.currency", "eur"), ("deal.currency", "EURO"), ("deal.currency", "EUR\n"),
        ("deal.expectedCloseDate", "soon"), ("deal.expectedCloseDate", "2026-02-30"), ("deal.expectedCloseDate", {}),
    ],
)  # fmt: skip
def test_a_value_that_the_record_could_not_hold_is_refused(field, value) -> None:
    with pytest.raises(ValueError, match=f"sets '{field}' to a value it cannot have"):
        writable(SetField(type="set_field", field=field, value=value))


def test_what_may_be_set_may_be_looked_at() -> None:
    for root, fields in WRITABLE.items():
        assert fields.keys() <= FIELDS[root]


def test_every_event_a_rule_may_listen_to_is_one_that_happens() -> None:
    schema = RuleDocument.model_json_schema(by_alias=True)
    heard = set(schema["properties"]["trigger"]["discriminator"]["mapping"])
    assert heard == {
        EventType.DEAL_STAGE_CHANGED, EventType.CONTACT_CREATED, EventType.MESSAGE_REPLIED,
        EventType.MESSAGE_BOUNCED, EventType.MESSAGE_COMPLAINED, EventType.ENROLLMENT_ENDED,
    }  # fmt: skip


def test_the_json_schema_names_fields_as_the_api_does() -> None:
    schema = RuleDocument.model_json_schema(by_alias=True)
    defined = schema["$defs"]
    assert json.loads(json.dumps(schema)) == schema
    assert set(defined["Branch"]["properties"]) == {"kind", "id", "if", "then", "else"}
    assert set(defined["Wait"]["properties"]) == {"for", "until"}
    assert set(defined["StageChanged"]["properties"]) == {"on", "from", "to"}
    assert {"assignTo", "dueIn"} <= set(defined["CreateTask"]["properties"])
    assert all(one.get("additionalProperties") is False for one in defined.values() if one.get("type") == "object")


@slow
@given(documents())
def test_any_document_is_the_same_after_a_trip_through_storage(document) -> None:
    stored = json.dumps(document.model_dump(mode="json", by_alias=True, exclude_defaults=True), allow_nan=False)
    assert RuleDocument.model_validate_json(stored) == document
    assert RuleDocument.model_validate(json.loads(stored)) == document
    again = RuleDocument.model_validate_json(stored).model_dump(mode="json", by_alias=True, exclude_defaults=True)
    assert json.loads(stored) == again


@slow
@given(documents())
def test_the_documents_made_up_for_these_tests_are_good_ones(document) -> None:
    assert check(document) == []


@slow
@given(documents())
def test_what_check_allows_to_be_set_can_be_set(document) -> None:
    for step in walk(document.steps):
        if isinstance(step, Act) and isinstance(step.action, SetField):
            writable(step.action)


def test_the_deepest_document_that_passes_the_check_can_be_read_back_from_storage() -> None:
    """The JSON reader refuses what is nested too deep; a stored version that it refuses would stop its organization."""
    for depth in range(1, 90):
        document = RuleDocument.model_validate({**GOOD, "steps": [branches(depth)]})
        if check(document) == []:
            stored = json.dumps(document.model_dump(mode="json", by_alias=True, exclude_defaults=True))
            assert RuleDocument.model_validate_json(stored) == document
    assert len(stored) > 10 * MAX_NESTING


def test_a_document_of_a_megabyte_is_refused_quickly() -> None:
    document = RuleDocument.model_validate({**GOOD, "steps": [exits(f"e{n}") for n in range(40_000)]})
    began = time.perf_counter()
    assert check(document) == ["40000 steps; at most 100 are allowed"]
    assert time.perf_counter() - began < 1


def test_a_document_cannot_be_changed_once_it_is_read() -> None:
    document = RuleDocument.model_validate(GOOD)
    with pytest.raises(ValidationError):
        document.conditions = None


# --- sequences and mail

ID = "01890000-0000-7000-8000-000000000001"
HELLO = {
    "kind": "email",
    "id": "hello",
    "subject": "Hello {{ contact.firstName or 'there' }}",
    "text": "Shall we talk?",
}
AGAIN = {"kind": "email", "id": "again", "text": "Did you see my mail?", "thread": "same"}


def sequence(*steps: dict[str, Any], **more: object) -> dict[str, Any]:
    return {"steps": list(steps), **more}


def fork(then: list[dict[str, Any]], otherwise: list[dict[str, Any]], id_: str = "fork") -> dict[str, Any]:
    return {"kind": "branch", "id": id_, "if": leaf("deal.stage"), "then": then, "else": otherwise}


def sends(id_: str, **mail: object) -> dict[str, Any]:
    return {"kind": "act", "id": id_, "action": {"type": "send_email", **mail}}


def test_a_sequence_says_little_where_the_usual_will_do() -> None:
    document = SequenceDocument.model_validate(sequence(HELLO))
    assert check(document) == []
    assert (document.exits, document.again, document.mailbox, document.stop_on_reply) == ([], "never", None, True)


def test_a_good_sequence_is_read_and_has_no_problems() -> None:
    given_ = sequence(
        HELLO,
        {"kind": "wait", "id": "w", "wait": {"for": {"amount": 3, "unit": "business_days"}}},
        AGAIN,
        {"kind": "task", "id": "call", "title": "Call", "assignTo": "manager", "dueIn": {"amount": 1, "unit": "days"}},
        {"kind": "act", "id": "off", "action": {"type": "take_out"}},
        {"kind": "act", "id": "on", "action": {"type": "enroll", "sequence": ID}},
        sends("last", template=ID),
        exits=[
            {"on": "deal.stage_changed", "to": ["closed_won"]},
            {"on": "contact.updated", "changed": ["ownerId"], "if": leaf("event.after.ownerId")},
        ],
        again={"amount": 90, "unit": "days"}, mailbox=ID, stopOnReply=False,
    )  # fmt: skip
    document = SequenceDocument.model_validate(given_)
    assert check(document) == []
    assert document.model_dump(mode="json", by_alias=True, exclude_defaults=True) == given_


@pytest.mark.parametrize("shape", [lambda mail: {"kind": "email", "id": "a", **mail}, lambda mail: sends("a", **mail)])
@pytest.mark.parametrize(
    ("mail", "says"),
    [
        ({}, "either a 'template'"),
        ({"thread": "same"}, "either a 'template'"),
        ({"template": ID, "subject": "S", "text": "T"}, "either a 'template'"),
        ({"template": ID, "text": "T"}, "either a 'template'"),
        ({"template": ID, "html": "T"}, "either a 'template'"),
        # the template's own is the one that is sent
        ({"template": ID, "subject": "S"}, "either a 'template'"),
        ({"subject": "S"}, "a mail needs 'text', 'html' or both"),
        ({"subject": "S", "text": " \n"}, "a mail needs 'text', 'html' or both"),
        ({"subject": "S", "text": "", "html": ""}, "a mail needs 'text', 'html' or both"),
        ({"text": "T"}, "a mail that begins a thread needs a 'subject'"),
        ({"text": "T", "subject": ""}, "a mail that begins a thread needs a 'subject'"),
        ({"text": "T", "subject": " \t"}, "a mail that begins a thread needs a 'subject'"),
        ({"subject": "S", "text": "x" * (256 * 1024 + 1)}, "a mail's source is at most 256 KB in all"),
        ({"subject": "S", "text": "x" * 200_000, "html": "x" * 200_000}, "a mail's source is at most 256 KB in all"),
        ({"subject": "S", "text": "T", "thread": "other"}, "Input should be 'new' or 'same'"),
        ({"template": "welcome"}, "valid UUID"),
        ({"subject": "S", "text": "T", "from": "a@x.com"}, "Extra inputs"),
        ({"subject": 5, "text": "T"}, "valid string"),
    ],
)
def test_a_mail_has_one_content_and_says_what_it_lacks(shape, mail, says) -> None:
    with pytest.raises(ValidationError) as error:
        SequenceDocument.model_validate(sequence(shape(mail)))
    (found,) = error.value.errors()
    assert found["msg"].removeprefix("Value error, ").startswith(("a mail", "Input", "Extra"))
    assert says in found["msg"]


@pytest.mark.parametrize(
    "mail",
    [
        {"template": ID}, {"template": ID, "thread": "same"}, {"subject": "S", "html": "<p>T</p>"},
        {"subject": "S", "text": "T", "html": "<p>T</p>"}, {"text": "T", "thread": "same"},
        {"subject": "", "text": "T", "thread": "same"}, {"subject": "S", "text": "T", "thread": "same"},
    ],
)  # fmt: skip
def test_a_mail_with_one_content_is_read_the_same_as_a_step_and_as_an_action(mail) -> None:
    document = SequenceDocument.model_validate(
        sequence(HELLO, {"kind": "email", "id": "a", **mail}, sends("b", **mail))
    )
    assert check(document) == []
    _, step, act = document.steps
    assert step.action == act.action
    assert (step.content is None) is ("template" in mail)


def test_a_mail_without_a_subject_has_that_of_the_thread() -> None:
    step = SequenceDocument.model_validate(sequence(HELLO, AGAIN)).steps[1]
    assert step.content.subject == ""


WAIT = {"kind": "wait", "id": "w", "wait": {"for": {"amount": 1, "unit": "days"}}}
LEAVE = exits("leave")
OTHER = {**HELLO, "id": "other"}


@pytest.mark.parametrize(
    ("steps", "lonely"),
    [
        ([AGAIN], ["again"]),
        ([HELLO, AGAIN], []),
        ([HELLO, WAIT, AGAIN], []),
        ([AGAIN, HELLO], ["again"]),
        ([sends("first", template=ID), AGAIN], []),
        ([sends("a", text="T", thread="same"), AGAIN], ["a"]),
        ([HELLO, fork([AGAIN], [])], []),
        ([fork([HELLO, AGAIN], [])], []),
        # a mail of the one side is not before the other, nor always before what follows
        ([fork([HELLO], [AGAIN])], ["again"]),
        ([fork([HELLO], []), AGAIN], ["again"]),
        ([fork([], [HELLO]), AGAIN], ["again"]),
        ([fork([HELLO], [OTHER]), AGAIN], []),
        ([fork([HELLO], [WAIT, OTHER]), {**WAIT, "id": "w2"}, AGAIN], []),
        # but for a side that does not lead on
        ([fork([HELLO], [LEAVE]), AGAIN], []),
        ([fork([LEAVE], [HELLO]), AGAIN], []),
        ([fork([], [LEAVE]), AGAIN], ["again"]),
        ([fork([fork([HELLO], [LEAVE], "inner")], [OTHER]), AGAIN], []),
        ([fork([fork([HELLO], [], "inner")], [OTHER]), AGAIN], ["again"]),
    ],
)
def test_an_answer_needs_a_mail_before_it_on_every_way(steps, lonely) -> None:
    document = SequenceDocument.model_validate(sequence(*steps))
    assert check(document) == [f"step '{id_}' answers a mail before it, and there may be none" for id_ in lonely]


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        ({"exits": [{"on": "deal.updated", "if": leaf("deal.x")}]}, "exit 1: 'deal.x' is not a field of deal"),
        ({"exits": [{"on": "deal.updated"}, {"on": "deal.updated", "changed": ["size"]}]},
         "exit 2: 'size' is not a field of the record it watches"),
        ({"exits": [{"on": "contact.updated", "changed": ["valueCents"]}]},
         "exit 1: 'valueCents' is not a field of the record it watches"),
        ({"exits": [{"on": "deal.updated", "if": leaf("step.hello.id")}]},
         "exit 1: 'step.hello.id' looks at a step, but is asked before any step is taken"),
        ({"exits": [{"on": "deal.updated", "if": nested("all", MAX_DEPTH + 1)}]},
         f"exit 1: conditions are nested deeper than {MAX_DEPTH}"),
        ({"steps": [{**HELLO, "text": "{{ contact.shoeSize }}"}]}, "step 'hello' has a mail that cannot be sent: text, line 1"),
        ({"steps": [{**HELLO, "html": "<p>\n{% include 'x' %}"}]}, "step 'hello' has a mail that cannot be sent: html, line 2"),
        ({"steps": [{**HELLO, "subject": "Re: us"}]}, "step 'hello' has a mail that cannot be sent: subject, line 1"),
        ({"steps": [sends("a", subject="{{ x }}", text="T")]}, "step 'a' has a mail that cannot be sent: subject, line 1"),
        ({"steps": [fork([{**HELLO, "id": "fork"}], [])]}, "step id 'fork' is used twice"),
        ({"steps": [LEAVE, HELLO]}, "step 'hello' can never be reached"),
    ],
)  # fmt: skip
def test_a_sequence_that_cannot_work_is_told_why_by_name(more, problem) -> None:
    problems = check(SequenceDocument.model_validate({**sequence(HELLO), **more}))
    assert len(problems) == 1, problems
    assert problems[0].startswith(problem)


def test_an_answer_may_begin_as_answers_do() -> None:
    assert check(SequenceDocument.model_validate(sequence(HELLO, {**AGAIN, "subject": "Re: Hello"}))) == []


@pytest.mark.parametrize(
    ("more", "at", "says"),
    [
        ({"trigger": {"on": "contact.created"}}, "trigger", "Extra inputs"),
        ({"conditions": None}, "conditions", "Extra inputs"),
        ({"steps": []}, "steps", "at least 1 item"),
        ({"again": "sometimes"}, "again.a word", "'never' or 'always'"),
        ({"again": 5}, "again", "'never', 'always' or an amount of time"),
        ({"again": None}, "again", "'never', 'always' or an amount of time"),
        ({"again": {"amount": -1, "unit": "days"}}, "again.a time.amount", "greater than or equal to 0"),
        ({"again": {"amount": 1}}, "again.a time.unit", "required"),
        ({"mailbox": "sales"}, "mailbox", "valid UUID"),
        ({"stopOnReply": "perhaps"}, "stopOnReply", "valid boolean"),
        ({"exits": [{"on": "deal.updated"}] * 21}, "exits", "at most 20"),
        ({"exits": [{"on": "contact.created"}]}, "exits.0.on", "contact.updated"),
        ({"exits": [{"on": "deal.updated", "to": ["lead"]}]}, "exits.0", "'to' names stages"),
        ({"exits": [{"on": "deal.stage_changed", "to": ["Closed Won"]}]}, "exits.0.to.0", "pattern"),
        ({"exits": [{"on": "deal.updated", "changed": ["x" * 81]}]}, "exits.0.changed.0", "at most 80"),
        ({"exits": [{"on": "deal.updated", "changed": ["title"] * 21}]}, "exits.0.changed", "at most 20"),
        ({"exits": [{"on": "deal.updated", "if": {"is": "won"}}]}, "exits.0.if", "A condition is an object with"),
    ],
)
def test_a_malformed_sequence_is_refused_where_it_is_wrong(more, at, says) -> None:
    with pytest.raises(ValidationError) as error:
        SequenceDocument.model_validate({**sequence(HELLO), **more})
    (found,) = error.value.errors()
    assert ".".join(map(str, found["loc"])) == at
    assert says in found["msg"]


def test_the_json_schema_of_a_sequence_names_fields_as_the_api_does() -> None:
    schema = SequenceDocument.model_json_schema()
    defined = schema["$defs"]
    assert json.loads(json.dumps(schema)) == schema
    assert set(schema["properties"]) == {"steps", "exits", "again", "mailbox", "stopOnReply"}
    assert schema["required"] == ["steps"]
    assert set(schema["properties"]["steps"]["items"]["discriminator"]["mapping"]) == {
        "act", "email", "task", "wait", "branch", "exit",
    }  # fmt: skip
    assert set(defined["Email"]["properties"]) == {"kind", "id", "template", "subject", "text", "html", "thread"}
    assert set(defined["ExitWhen"]["properties"]) == {"on", "to", "changed", "if"}
    assert [one["$ref"].rpartition("/")[2] for one in defined["Branch"]["properties"]["if"]["oneOf"]] == [
        "Comparison", "All", "Any", "Not",
    ]  # fmt: skip
    assert schema["properties"]["again"]["oneOf"] == [
        {"enum": ["never", "always"], "type": "string"}, {"$ref": "#/$defs/Amount"},
    ]  # fmt: skip
    assert all(one.get("additionalProperties") is False for one in defined.values() if one.get("type") == "object")


@slow
@given(sequences())
def test_the_sequences_made_up_for_these_tests_are_good_ones(document) -> None:
    assert check(document) == []


@slow
@given(sequences())
def test_any_sequence_is_the_same_after_a_trip_through_storage(document) -> None:
    stored = json.dumps(document.model_dump(mode="json", by_alias=True, exclude_defaults=True), allow_nan=False)
    assert SequenceDocument.model_validate_json(stored) == document
    assert SequenceDocument.model_validate(json.loads(stored)) == document
    again = SequenceDocument.model_validate_json(stored).model_dump(mode="json", by_alias=True, exclude_defaults=True)
    assert json.loads(stored) == again
    whole = document.model_dump(mode="json", by_alias=True)
    assert SequenceDocument.model_validate(whole) == document


@slow
@given(sequences())
def test_a_step_of_its_own_name_is_its_action_word_for_word(document) -> None:
    for step in walk(document.steps):
        if step.kind in ("email", "task"):
            shown = step.model_dump(mode="json", by_alias=True, exclude={"kind", "id"})
            assert step.action.model_dump(mode="json", by_alias=True, exclude={"type"}) == shown
