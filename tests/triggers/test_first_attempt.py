"""The relay's first attempt on or off: the same rows, over a table of rules and over generated ones."""

import itertools
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from domain.documents import RuleDocument, check
from store import contacts
from tests.driving import (
    act,
    as_admin,
    branch,
    drive,
    is_,
    leave,
    make_deal,
    move,
    next_monday,
    on_contact,
    on_stage,
    sight,
    switch_on,
    task,
    wait,
)

RICH = is_("deal.valueCents", "gte", 1000)
UNDONE = is_("step.task.completedAt", "is_empty")
HOUR = {"amount": 1, "unit": "hours"}
NOTIFY = act("tell", "notify", title="Look")
IN_PROPOSAL = is_("deal.stage", "eq", "proposal")
UNTIL = {"kind": "wait", "id": "until", "wait": {"until": {"at": "09:00", "weekdays": ["wed"], "zone": "contact"}}}

RULES: dict[str, list[RuleDocument]] = {
    "one task": [on_stage(task())],
    "every action": [
        on_stage(
            task(priority="high", dueIn={"amount": 2, "unit": "business_days"}),
            act("set", "set_field", field="deal.title", value="Renamed"),
            act("remind", "remind", title="Ring", after=HOUR, escalateAfter=HOUR),
            act("notify", "notify", title="Look", to="manager"),
            act("on", "move_stage", to="negotiation"),
        )
    ],
    "waits of every unit": [
        on_stage(*(wait(f"w-{unit}".replace("_", "-"), 2, unit) for unit in
                   ("minutes", "hours", "days", "weeks", "months", "business_days")), task(), UNTIL, task("last"))
    ],
    "branches and an exit": [
        on_stage(
            branch("rich", RICH, [task("big"), wait("w", 1), branch("still", IN_PROPOSAL, [leave()], [task("gone")])],
                   [act("tell", "notify", title="Small")]),
            task("after"),
        )
    ],
    "asks about what a step made": [
        on_stage(task(), wait("w", 1), branch("done", UNDONE, [act("r", "remind", title="Late")]))
    ],
    "refusals": [on_stage(task(), conditions=RICH), on_stage(task(), conditions={"not": RICH})],
    "a chain of rules": [
        on_stage(act("a", "move_stage", to="negotiation"), to=["proposal"]),
        on_stage(task(), act("b", "move_stage", to="closed_won"), to=["negotiation"]),
        on_stage(act("c", "notify", title="Won"), to=["closed_won"]),
    ],
    "its own consequence": [on_stage(act("a", "move_stage", to="negotiation"), to=["proposal", "negotiation"])],
    "stuck at once": [on_stage(act("set", "set_field", field="company.name", value="Initech"))],
    "stuck after steps": [on_stage(task(), NOTIFY, act("on", "move_stage", to="nowhere"), task("never"))],
    "stuck after a wait": [on_stage(task(), wait("w", 1), act("set", "set_field", field="contact.title", value="CEO"))],
    "for contacts": [on_contact(act("set", "set_field", field="contact.title", value="New"), wait("w", 1), leave())],
}  # fmt: skip


async def played(base, documents, *, first_attempt):
    """An organization in which the rules are on and the same things happen; every row that came of it."""
    found = await base.another()
    await as_admin(base, "UPDATE clock SET shift = '0'")  # so that both ways see the same calendar
    await next_monday(found)
    for number, document in enumerate(documents):
        await switch_on(found, document, f"Rule {number}")
    for title, worth in (("Little", 10), ("Big", 100_000)):
        await move(found, await make_deal(found, title, value_cents=worth))
    async with found.transaction() as tx:
        await contacts.create(tx, {"email": "jo@example.com", "owner_id": found.rep})
    nobodys = await make_deal(found, "Nobody's", owner_id=None)
    await move(found, nobodys)
    await drive(found, first_attempt=first_attempt)
    return await sight(found)


@pytest.mark.parametrize("rules", RULES)
async def test_both_ways_give_the_same_rows(base, rules):
    on = await played(base, RULES[rules], first_attempt=True)
    off = await played(base, RULES[rules], first_attempt=False)
    assert on == off
    assert on["runs"]


async def test_both_ways_give_the_same_rows_after_an_error_that_nobody_foresaw(base):
    await as_admin(
        base,
        "CREATE FUNCTION explode() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN IF NEW.subject = 'boom' THEN RAISE EXCEPTION 'boom'; END IF; RETURN NEW; END $$",
    )
    await as_admin(base, "CREATE TRIGGER explode BEFORE INSERT ON activities FOR EACH ROW EXECUTE FUNCTION explode()")
    try:
        rules = [on_stage(task(), NOTIFY, task("bad", title="boom")), on_stage(task("other"))]
        on = await played(base, rules, first_attempt=True)
        off = await played(base, rules, first_attempt=False)
    finally:
        await as_admin(base, "DROP FUNCTION explode CASCADE")
    assert on == off
    assert sum("'stuck_reason': 'unexpected_error'" in run for run in on["runs"]) == 2
    assert on["set_aside"] == []


# --- generated

AMOUNTS = st.builds(
    lambda amount, unit: {"amount": amount, "unit": unit},
    st.integers(0, 5),
    st.sampled_from(["minutes", "hours", "days", "business_days"]),
)
STAGES = st.sampled_from(["qualified", "proposal", "negotiation", "closed_won", "nowhere"])
ACTIONS = st.one_of(
    st.builds(lambda title, due: {"type": "create_task", "title": title, "dueIn": due}, st.sampled_from("AB"), AMOUNTS),
    st.builds(lambda to: {"type": "move_stage", "to": to}, STAGES),
    st.builds(lambda to: {"type": "notify", "title": "Look", "to": to}, st.sampled_from(["owner", "manager"])),
    st.builds(lambda after: {"type": "remind", "title": "Ring", "after": after, "escalateAfter": after}, AMOUNTS),
    st.builds(
        lambda field, value: {"type": "set_field", "field": field, "value": value},
        st.sampled_from(["deal.title", "contact.title", "company.name"]),
        st.sampled_from(["X", "Y"]),
    ),
)
TREES = st.sampled_from(
    [RICH, IN_PROPOSAL, {"not": RICH}, is_("contact.title", "is_empty"), is_("event.before.stage", "eq", "lead")]
)
LEAVES = st.one_of(
    st.builds(lambda action: {"kind": "act", "action": action}, ACTIONS),
    st.builds(lambda action: {"kind": "act", "action": action}, ACTIONS),
    st.builds(lambda amount: {"kind": "wait", "wait": {"for": amount}}, AMOUNTS),
    st.just({"kind": "exit"}),
)
STEPS = st.recursive(
    st.lists(LEAVES, min_size=1, max_size=4),
    lambda inner: st.builds(
        lambda before, tree, then, otherwise, after: [
            *before, {"kind": "branch", "if": tree, "then": then, "else": otherwise}, *after
        ],
        inner, TREES, inner, inner, inner,
    ),
    max_leaves=4,
)  # fmt: skip


@st.composite
def documents(draw):
    numbers = itertools.count(1)

    def named(steps: list[dict[str, Any]]) -> list[dict[str, Any]]:
        found = []
        for step in steps:
            sides = {side: named(step[side]) for side in ("then", "else") if side in step}
            found.append(step | {"id": f"s{next(numbers)}"} | sides)
        return found

    conditions = draw(st.none() | TREES)
    to = draw(st.lists(st.sampled_from(["proposal", "negotiation"]), max_size=2, unique=True))
    return on_stage(*named(draw(STEPS)), to=to, conditions=conditions)


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(rules=st.lists(documents().filter(lambda document: not check(document)), min_size=1, max_size=2))
async def test_both_ways_give_the_same_rows_for_generated_rules(base, rules):
    on = await played(base, rules, first_attempt=True)
    assert on == await played(base, rules, first_attempt=False)
