"""A malformed document is told in one sentence for each fault, at the place where it is wrong."""

import json
import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from api.problems import Problem
from domain.documents import RuleDocument, SequenceDocument

LEAF = {"field": "deal.valueCents", "op": "gte", "value": 1000}
LAST = {"kind": "exit", "id": "last"}
STEPS = "'act', 'email', 'task', 'wait', 'branch' or 'exit'"
ACTIONS = "'create_task', 'set_field', 'move_stage', 'remind', 'notify', 'send_email', 'enroll' or 'take_out'"
CONDITION = "A condition is an object with 'field' and 'op', or with 'all', 'any' or 'not'"
PERSON = "Input should be 'owner', 'manager' or the id of a user"
TRIGGERS = (
    "'deal.stage_changed', 'contact.created', 'message.replied', 'message.bounced', 'message.complained'"
    " or 'enrollment.ended'"
)
UNKNOWN, REQUIRED, OBJECT = "Extra inputs are not permitted", "Field required", "Input should be an object"
UGLY = re.compile(
    r"function-|tagged-union|literal\[|nullable|<|value error|\b(?:[A-Z][a-z]+){2,}\b|_?Mailing|Input tag"
)


def conditions(tree):
    return {"conditions": tree}


def steps(*some):
    return {"steps": [*some, LAST]}


def act(**action):
    return steps({"kind": "act", "id": "a", "action": action})


def wait(**wait):
    return steps({"kind": "wait", "id": "w", "wait": wait})


def email(**mail):
    return steps({"kind": "email", "id": "m", **mail})


def branch(**more):
    return steps({"kind": "branch", "id": "b", "if": LEAF, **more})


CASES = {
    "trigger": [
    ({"trigger": {"on": "moon.rises"}}, {"/trigger/on": f"Input should be {TRIGGERS}"}),
    ({"trigger": {"on": 5}}, {"/trigger/on": f"Input should be {TRIGGERS}"}),
    ({"trigger": {}}, {"/trigger/on": REQUIRED}),
    ({"trigger": "contact.created"}, {"/trigger": OBJECT}),
    ({"trigger": {"on": "deal.stage_changed", "when": 1}}, {"/trigger/when": UNKNOWN}),
    ({"trigger": {"on": "deal.stage_changed", "to": ["Won!"]}}, {"/trigger/to/0": "String should match pattern"}),
    ({"colour": "red"}, {"/colour": UNKNOWN}),
    ],
    "conditions": [
    (conditions({**LEAF, "op": "resembles"}), {"/conditions/op": "Input should be 'eq', 'ne', 'gt'"}),
    (conditions({"field": "deal.stage"}), {"/conditions/op": REQUIRED}),
    (conditions({"op": "eq", "value": 1}), {"/conditions/field": REQUIRED}),
    (conditions({"value": 1}), {"/conditions/field": REQUIRED, "/conditions/op": REQUIRED}),
    (conditions({"field": "deal.stage", "op": "eq"}), {"/conditions/value": "'eq' compares with one value"}),
    (conditions({"field": "deal.stage", "op": "in"}), {"/conditions/value": "'in' compares with a list"}),
    (conditions({**LEAF, "value": "much"}), {"/conditions/value": "'gte' compares with a number, a date or a time"}),
    (conditions({**LEAF, "op": "is_empty"}), {"/conditions/value": "'is_empty' takes no value"}),
    (conditions({**LEAF, "field": "stage"}), {"/conditions/field": "String should match pattern"}),
    (conditions({**LEAF, "colour": "red"}), {"/conditions/colour": UNKNOWN}),
    (conditions({**LEAF, "all": [LEAF]}), {"/conditions/all": UNKNOWN}),
    (conditions({"all": [LEAF], "any": [LEAF]}), {"/conditions/any": UNKNOWN}),
    (conditions({"all": []}), {"/conditions/all": "List should have at least 1 item"}),
    (conditions({"all": LEAF}), {"/conditions/all": "Input should be a valid list"}),
    (conditions({}), {"/conditions": CONDITION}),
    (conditions([]), {"/conditions": CONDITION}),
    (conditions("deal.stage = won"), {"/conditions": CONDITION}),
    (conditions({"deal.stage": "won"}), {"/conditions": CONDITION}),
    (conditions({"not": None}), {"/conditions/not": CONDITION}),
    (conditions({"not": {"any": [LEAF, {"all": [LEAF, 5]}]}}), {"/conditions/not/any/1/all/1": CONDITION}),
    (
        conditions({"any": [{**LEAF, "op": "like"}, {"not": {**LEAF, "value": None}}, {"or": []}]}),
        {
            "/conditions/any/0/op": "Input should be 'eq'",
            "/conditions/any/1/not/value": "'gte' compares with",
            "/conditions/any/2": CONDITION,
        },
    ),
    ],
    "steps": [
    ({"steps": []}, {"/steps": "List should have at least 1 item"}),
    ({"steps": LAST}, {"/steps": "Input should be a valid list"}),
    (steps("exit"), {"/steps/0": OBJECT}),
    (steps({"kind": "dance", "id": "a"}), {"/steps/0/kind": f"Input should be {STEPS}"}),
    (steps({"id": "a"}), {"/steps/0/kind": REQUIRED}),
    (steps({"kind": "exit"}), {"/steps/0/id": REQUIRED}),
    (steps({"kind": "exit", "id": "a", "label": "x"}), {"/steps/0/label": UNKNOWN}),
    (steps({"kind": "exit", "id": "a", "exit": {"exit": 1}}), {"/steps/0/exit": UNKNOWN}),
    (steps({"kind": "exit", "id": "A b"}), {"/steps/0/id": "String should match pattern"}),
    (steps({"kind": "act", "id": "a"}), {"/steps/0/action": REQUIRED}),
    (act(type="fax"), {"/steps/0/action/type": f"Input should be {ACTIONS}"}),
    (act(title="T"), {"/steps/0/action/type": REQUIRED}),
    (act(type="notify"), {"/steps/0/action/title": REQUIRED}),
    (act(type="notify", title="T", colour="red"), {"/steps/0/action/colour": UNKNOWN}),
    (act(type="notify", title="T", to="boss"), {"/steps/0/action/to": PERSON}),
    (act(type="notify", title="T", to=5), {"/steps/0/action/to": PERSON}),
    (act(type="create_task", title="T", priority="urgent"), {"/steps/0/action/priority": "'low', 'normal' or 'high'"}),
    (act(type="create_task", title="T", dueIn=3), {"/steps/0/action/dueIn": OBJECT}),
    (act(type="enroll", sequence="<b>"), {"/steps/0/action/sequence": "Input should be a valid UUID"}),
    (act(type="set_field", field="rule.name"), {
        "/steps/0/action/field": "String should match pattern", "/steps/0/action/value": REQUIRED,
    }),
    ],
    "waits": [
    (steps({"kind": "wait", "id": "w"}), {"/steps/0/wait": REQUIRED}),
    (wait(), {"/steps/0/wait": "a wait needs 'for', 'until' or both"}),
    (wait(wait={}), {"/steps/0/wait/wait": UNKNOWN}),
    (
        wait(wait={"for": {}}, **{"for": {"amount": -1}}),
        {
            "/steps/0/wait/wait": UNKNOWN,
            "/steps/0/wait/for/amount": "greater than or equal to 0",
            "/steps/0/wait/for/unit": REQUIRED,
        },
    ),
    (wait(until={"at": "9:00"}), {"/steps/0/wait/until/at": "String should match pattern"}),
    (wait(until={"at": "09:00", "zone": "Mars"}), {"/steps/0/wait/until/zone": "'Mars' is not a time zone"}),
    (wait(until={"at": "09:00", "zone": 5}), {"/steps/0/wait/until/zone": "Input should be a valid string"}),
    ],
    "mail": [
    (email(), {"/steps/0": "a mail has either a 'template', or a 'subject' with 'text' or 'html'"}),
    (email(subject="S", text=" "), {"/steps/0": "a mail needs 'text', 'html' or both"}),
    (email(text="T"), {"/steps/0": "a mail that begins a thread needs a 'subject'"}),
    (email(subject="S", text="T", thread="old"), {"/steps/0/thread": "Input should be 'new' or 'same'"}),
    (email(subject="S", text="T", email=1), {"/steps/0/email": UNKNOWN}),
    (act(type="send_email"), {"/steps/0/action": "a mail has either a 'template'"}),
    ],
    "branches": [
    (branch(**{"if": None}), {"/steps/0/if": CONDITION}),
    (steps({"kind": "branch", "id": "b"}), {"/steps/0/if": REQUIRED}),
    (branch(then=LAST), {"/steps/0/then": "Input should be a valid list"}),
    (branch(then=[LAST, {"kind": "stop"}]), {"/steps/0/then/1/kind": f"Input should be {STEPS}"}),
    (
        branch(then=[{"kind": "branch", "id": "c", "if": {"not": {"op": "eq", "value": 1}}, "else": [{"id": "x"}]}]),
        {"/steps/0/then/0/if/not/field": REQUIRED, "/steps/0/then/0/else/0/kind": REQUIRED},
    ),
    ],
}  # fmt: skip


@pytest.mark.parametrize("part", CASES)
async def test_each_fault_of_a_rule_is_told_once_where_it_is(admin, part):
    for change, expected in CASES[part]:
        document = {"trigger": {"on": "contact.created"}, "steps": [LAST], **change}
        answer = await admin.post("/rules", json={"name": "R", "document": document})
        assert (answer.status_code, answer.json()["code"]) == (422, "VALIDATION_ERROR"), change
        faults = answer.json()["errors"]
        assert sorted(fault["pointer"] for fault in faults) == sorted(f"/document{pointer}" for pointer in expected)
        for fault in faults:
            assert expected[fault["pointer"].removeprefix("/document")] in fault["message"], change
            assert not UGLY.search(fault["message"])
            assert fault["in"] == "body"
        assert not UGLY.search(answer.json()["detail"])


async def test_a_new_version_is_told_its_faults_from_its_own_root(admin):
    made = await admin.post(
        "/rules", json={"name": "R", "document": {"trigger": {"on": "contact.created"}, "steps": [LAST]}}
    )
    wrong = {
        "trigger": {"on": "contact.created"},
        **conditions({"all": [{"field": "deal.stage", "op": "eq"}]}),
        **act(),
    }
    answer = await admin.put(f"/rules/{made.json()['rule']['id']}/document", json=wrong, headers={"If-Match": "*"})
    assert answer.status_code == 422
    assert {fault["pointer"] for fault in answer.json()["errors"]} == {
        "/conditions/all/0/value",
        "/steps/0/action/type",
    }


async def test_what_is_nested_too_deep_is_told_so_in_a_sentence(admin):
    tree = LEAF
    for _ in range(300):
        tree = {"not": tree}
    document = {"trigger": {"on": "contact.created"}, "conditions": tree, "steps": [LAST]}
    (fault,) = (await admin.post("/rules", json={"name": "R", "document": document})).json()["errors"]
    assert fault["pointer"].startswith("/document/conditions/not/not")
    assert fault["message"] == "Input is nested too deep"


async def test_each_fault_of_a_sequence_is_told_once_where_it_is(admin):
    for more, pointer, says in (
        ({"again": "sometimes"}, "/again", "Input should be 'never' or 'always'"),
        ({"again": 5}, "/again", "Input should be 'never', 'always' or an amount of time"),
        ({"again": {"amount": 5, "unit": "years"}}, "/again/unit", "Input should be 'minutes', 'hours'"),
        ({"again": {"unit": "days"}}, "/again/amount", REQUIRED),
        ({"exits": [{"on": "moon.rises"}]}, "/exits/0/on", "'deal.stage_changed', 'deal.updated' or 'contact.updated'"),
        ({"exits": [{"on": "deal.updated", "to": ["won"]}]}, "/exits/0", "'to' names stages"),
        ({"exits": [{"on": "deal.updated", "if": {"any": [{}]}}]}, "/exits/0/if/any/0", CONDITION),
        ({"mailbox": "sales"}, "/mailbox", "Input should be a valid UUID"),
    ):
        answer = await admin.post("/sequences", json={"name": "S", "document": {"steps": [LAST], **more}})
        (fault,) = answer.json()["errors"]
        assert fault["pointer"] == f"/document{pointer}"
        assert says in fault["message"]
        assert not UGLY.search(fault["message"])


# --- whatever is wrong, wherever

WHOLE = {
    "trigger": {"on": "deal.stage_changed", "from": ["lead"], "to": ["proposal"]},
    "conditions": {"all": [LEAF, {"not": {"any": [LEAF, {"field": "contact.tags", "op": "in", "value": ["a"]}]}}]},
    "steps": [
        {"kind": "act", "id": "a", "action": {
            "type": "create_task", "title": "T", "assignTo": "owner", "dueIn": {"amount": 3, "unit": "days"}}},
        {"kind": "wait", "id": "w", "wait": {
            "for": {"amount": 3, "unit": "days"}, "until": {"at": "09:00", "weekdays": ["mon"], "zone": "contact"}}},
        {"kind": "email", "id": "m", "subject": "S", "text": "T"},
        {"kind": "branch", "id": "b", "if": LEAF, "then": [LAST], "else": [
            {"kind": "act", "id": "e", "action": {"type": "send_email", "text": "T", "thread": "same"}}]},
    ],
}  # fmt: skip
SEQUENCE = {
    "steps": WHOLE["steps"], "again": {"amount": 3, "unit": "days"},
    "exits": [{"on": "deal.stage_changed", "to": ["won"], "if": WHOLE["conditions"]}],
}  # fmt: skip
KEYS = ["kind", "type", "on", "wait", "email", "if", "all", "not", "field", "amount", "act", "text", "x"]
odd = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.sampled_from(["", "wait", "email", "won", "<b>", "09:00"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=3),
    max_leaves=4,
)


def places(value, path=()):
    """Every place of a document, as a path."""
    yield path
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, one in inside:
        yield from places(one, (*path, name))


@st.composite
def spoiled(draw, whole):
    """The document with a few of its places taken away, replaced or added to."""
    document = json.loads(json.dumps(whole))
    for _ in range(draw(st.integers(1, 3))):
        *path, name = draw(st.sampled_from([path for path in places(document) if path]))
        here = document
        for part in path:
            here = here[part]
        if draw(st.booleans()) and isinstance(here, dict):
            here[draw(st.sampled_from(KEYS))] = draw(odd)
        elif draw(st.booleans()):
            here[name] = draw(odd)
        else:
            del here[name]
    return document


def told(model, document):
    """The faults of a document, each with what was found wrong where, as FastAPI hands it on."""
    try:
        model.model_validate(document)
    except ValidationError as error:
        errors = [{**one, "loc": ("body", *one["loc"])} for one in error.errors()]
        return [(fault, one) for fault, one in zip(Problem.of_body(errors, document).errors, errors, strict=True)]
    return []


@settings(deadline=None, max_examples=300, suppress_health_check=list(HealthCheck))
@given(st.tuples(st.just(RuleDocument), spoiled(WHOLE)) | st.tuples(st.just(SequenceDocument), spoiled(SEQUENCE)))
def test_every_pointer_leads_to_what_was_found_wrong_and_no_place_is_told_twice(case):
    model, document = case
    faults = told(model, document)
    pointers = [fault["pointer"] for fault, _ in faults]
    assert len(set(pointers)) == len(pointers)
    for fault, error in faults:
        assert not UGLY.search(fault["message"])
        *path, name = fault["pointer"].split("/")
        here = document
        for part in path[1:]:
            here = here[int(part)] if isinstance(here, list) else here[part]
        absent = isinstance(here, dict) and name not in here
        if absent:
            assert fault["code"] == "missing" or name == "value"
        else:
            found = here[int(name)] if isinstance(here, list) else here[name]
            tagged = "discriminator" in error.get("ctx", {})
            assert found == (error["input"][name] if tagged else error["input"])


def test_a_field_too_many_that_is_named_as_a_kind_is_told_at_its_own_place():
    document = {"steps": [{"kind": "exit", "id": "a"}], "exits": [{"kind": "wait", "wait": None}]}
    pointers = {fault["pointer"] for fault, _ in told(SequenceDocument, document)}
    assert pointers == {"/exits/0/on", "/exits/0/kind", "/exits/0/wait"}
