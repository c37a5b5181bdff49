# mypy: ignore-errors
"""Matching: one event, one rule, at most one decision, with the reason and what was seen."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from domain.conditions import evaluate
from domain.documents import RuleDocument, SequenceDocument
from domain.match import HEARD, MAX_CHAIN, Activation, Event, ExitMet, Refused, Rule, Start, listens, match, match_exit
from domain.words import Refusal
from tests.domain.strategies import documents, facts, ids, sequences

RULE, OTHER = ids(1), [ids(n) for n in range(100, 110)]
V1, V2, V3 = ids(11), ids(12), ids(13)
NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
TICK = timedelta(microseconds=1)
BIG = {"field": "deal.valueCents", "op": "gte", "value": 1000}


def document(conditions: object = None, to: tuple[str, ...] = (), from_: tuple[str, ...] = ()) -> RuleDocument:
    return RuleDocument.model_validate(
        {
            "trigger": {"on": "deal.stage_changed", "from": list(from_), "to": list(to)},
            "conditions": conditions,
            "steps": [{"kind": "exit", "id": "a"}],
        }
    )


WELCOME = RuleDocument.model_validate({"trigger": {"on": "contact.created"}, "steps": [{"kind": "exit", "id": "a"}]})


def moved(
    before: str | None = "lead", after: str = "proposal", at: datetime = NOON, chain: tuple[UUID, ...] = ()
) -> Event:
    return Event(ids(2), "deal.stage_changed", "deal", ids(3), at, {"stage": before}, {"stage": after}, chain)


def active(
    doc: RuleDocument, since: timedelta = -timedelta(days=1), until: timedelta | None = None, version: UUID = V1
) -> Activation:
    return Activation(version, doc, NOON + since, None if until is None else NOON + until)


def rule(*activations: Activation) -> Rule:
    return Rule(RULE, activations)


@pytest.mark.parametrize(
    ("from_", "to", "before", "after", "heard"),
    [
        ((), (), "lead", "proposal", True),
        ((), (), None, "lead", True),
        ((), ("proposal",), "lead", "proposal", True),
        ((), ("proposal",), "proposal", "lead", False),
        ((), ("won", "proposal"), "lead", "proposal", True),
        (("lead",), (), "lead", "proposal", True),
        (("lead",), (), "won", "proposal", False),
        (("lead",), (), None, "proposal", False),
        (("lead",), ("proposal",), "lead", "proposal", True),
        (("lead",), ("proposal",), "lead", "won", False),
        (("lead",), ("proposal",), "won", "proposal", False),
    ],
)
def test_a_trigger_hears_moves_between_the_stages_it_names(from_, to, before, after, heard) -> None:
    doc, event = document(to=to, from_=from_), moved(before, after)
    assert listens(doc, event) is heard
    assert match(event, rule(active(doc)), {}) == (Start(RULE, V1, doc, None) if heard else None)


def test_a_trigger_hears_only_its_own_kind_of_event() -> None:
    created = Event(ids(2), "contact.created", "contact", ids(3), NOON, {}, {})
    assert match(created, rule(active(WELCOME)), {}) == Start(RULE, V1, WELCOME, None)
    assert match(created, rule(active(document())), {}) is None
    assert match(moved(), rule(active(WELCOME)), {}) is None


def test_an_event_that_says_nothing_of_stages_passes_no_stage_filter() -> None:
    bare = Event(ids(2), "deal.stage_changed", "deal", ids(3), NOON, {}, {})
    assert match(bare, rule(active(document(to=("proposal",)))), {}) is None


@pytest.mark.parametrize(
    ("trigger", "type_", "after", "heard"),
    [
        ({"on": "message.replied"}, "message.replied", {}, True),
        ({"on": "message.replied"}, "message.bounced", {}, False),
        ({"on": "message.bounced"}, "message.bounced", {}, True),
        ({"on": "enrollment.ended"}, "enrollment.ended", {"exitReason": "replied"}, True),
        ({"on": "enrollment.ended"}, "enrollment.ended", {}, True),
        ({"on": "enrollment.ended"}, "enrollment.started", {"exitReason": "replied"}, False),
        ({"on": "enrollment.ended", "reasons": ["completed", "replied"]}, "enrollment.ended",
         {"exitReason": "replied"}, True),
        ({"on": "enrollment.ended", "reasons": ["completed"]}, "enrollment.ended", {"exitReason": "replied"}, False),
        ({"on": "enrollment.ended", "reasons": ["completed"]}, "enrollment.ended", {}, False),
    ],
)  # fmt: skip
def test_a_trigger_hears_of_answers_and_of_enrollments_that_ended_in_the_ways_it_names(
    trigger, type_, after, heard
) -> None:
    doc = RuleDocument.model_validate({"trigger": trigger, "steps": [{"kind": "exit", "id": "a"}]})
    event = Event(ids(2), type_, "message", ids(3), NOON, {}, after)
    assert match(event, rule(active(doc)), {}) == (Start(RULE, V1, doc, None) if heard else None)


HOUR = timedelta(hours=1)
DOC1, DOC2 = document(), document(conditions=BIG)
FACTS = {"deal": {"valueCents": 5000}}


@pytest.mark.parametrize(
    ("activations", "decision"),
    [
        # one stretch: from its first instant on, and up to but without its last
        ([active(DOC1, timedelta(0))], (Start, V1)),
        ([active(DOC1, TICK)], (Refused, V1)),
        ([active(DOC1, -HOUR, TICK)], (Start, V1)),
        ([active(DOC1, -HOUR, timedelta(0))], (Refused, V1)),
        ([active(DOC1, timedelta(0), timedelta(0))], (Refused, V1)),
        # never on
        ([], None),
        # in the gap of a pause, and after it
        ([active(DOC1, HOUR), active(DOC1, -2 * HOUR, -HOUR)], (Refused, V1)),
        ([active(DOC1, -HOUR), active(DOC1, -3 * HOUR, -2 * HOUR)], (Start, V1)),
        # paused for good
        ([active(DOC1, -2 * HOUR, -HOUR)], (Refused, V1)),
        # switched to version 2 after the event, before it was matched; at the event; and before it
        ([active(DOC2, HOUR, version=V2), active(DOC1, -HOUR, HOUR)], (Start, V1)),
        ([active(DOC2, timedelta(0), version=V2), active(DOC1, -HOUR, timedelta(0))], (Start, V2)),
        ([active(DOC2, -HOUR, version=V2), active(DOC1, -2 * HOUR, -HOUR)], (Start, V2)),
        # back to version 1, which counts from then
        ([active(DOC1, -HOUR), active(DOC2, -2 * HOUR, -HOUR, V2), active(DOC1, -3 * HOUR, -2 * HOUR)], (Start, V1)),
        # in a gap the latest version is the one that is named
        ([active(DOC2, HOUR, version=V2), active(DOC1, -2 * HOUR, -HOUR)], (Refused, V2)),
    ],
)
def test_the_version_is_the_one_that_was_on_when_the_event_was_recorded(activations, decision) -> None:
    found = match(moved(), rule(*activations), FACTS)
    if decision is None:
        assert found is None
        return
    assert (type(found), found.version, found.rule) == (*decision, RULE)
    if isinstance(found, Refused):
        assert found.reason is Refusal.NOT_ACTIVE_THEN
        assert found.saw is None
    else:
        assert found.document is next(one.document for one in activations if one.version == found.version)


def test_the_trigger_that_counts_is_that_of_the_version_that_was_on() -> None:
    narrow, wide = document(to=("won",)), document()
    widened_later = rule(active(wide, HOUR, version=V2), active(narrow, -HOUR, HOUR))
    assert match(moved(), widened_later, {}) is None
    narrowed_later = rule(active(narrow, HOUR, version=V2), active(wide, -HOUR, HOUR))
    assert match(moved(), narrowed_later, {}) == Start(RULE, V1, wide, None)


@pytest.mark.parametrize(
    ("chain", "reason"),
    [
        ((), None),
        ((OTHER[0],), None),
        (tuple(OTHER[: MAX_CHAIN - 1]), None),
        (tuple(OTHER[:MAX_CHAIN]), Refusal.CHAIN_TOO_DEEP),
        (tuple(OTHER), Refusal.CHAIN_TOO_DEEP),
        ((RULE,), Refusal.OWN_CONSEQUENCE),
        ((RULE, OTHER[0]), Refusal.OWN_CONSEQUENCE),
        ((OTHER[0], RULE), Refusal.OWN_CONSEQUENCE),
        ((*OTHER, RULE), Refusal.OWN_CONSEQUENCE),
    ],
)
def test_a_rule_does_not_answer_itself_nor_a_chain_that_is_too_long(chain, reason) -> None:
    doc = document()
    expected = Refused(RULE, V1, reason) if reason else Start(RULE, V1, doc, None)
    assert match(moved(chain=chain), rule(active(doc)), {}) == expected


def test_rules_that_call_one_another_in_a_ring_come_to_an_end() -> None:
    ring = [Rule(one, (active(document()),)) for one in OTHER[: MAX_CHAIN + 3]]
    chain: tuple[UUID, ...] = ()
    for one in ring * 3:
        if isinstance(match(moved(chain=chain), one, {}), Start):
            chain = (*chain, one.id)
    assert len(chain) == MAX_CHAIN


@pytest.mark.parametrize(
    ("conditions", "deal", "holds", "path", "saw"),
    [
        (BIG, {"valueCents": 5000}, True, "/conditions", 5000),
        (BIG, {"valueCents": 10}, False, "/conditions", 10),
        (BIG, {}, None, "/conditions", None),
        (BIG, None, None, "/conditions", None),
        ({"all": [{"field": "deal.title", "op": "is_not_empty"}, BIG]}, {"title": "x", "valueCents": 1}, False,
         "/conditions/all/1", 1),
        ({"not": BIG}, {"valueCents": 10}, True, "/conditions/not", 10),
        ({"not": BIG}, {}, None, "/conditions/not", None),
    ],
)  # fmt: skip
def test_conditions_that_do_not_hold_refuse_with_the_comparison_and_what_it_saw(
    conditions, deal, holds, path, saw
) -> None:
    doc = document(conditions)
    found = match(moved(), rule(active(doc)), {"deal": deal})
    assert (found.saw.holds, found.saw.path, found.saw.field, found.saw.saw) == (holds, path, "deal.valueCents", saw)
    if holds:
        assert isinstance(found, Start)
    else:
        assert isinstance(found, Refused)
        assert found.reason is Refusal.CONDITIONS_NOT_MET


def test_a_reason_that_needs_no_facts_comes_before_the_conditions() -> None:
    unmet = rule(active(document(BIG)))
    assert match(moved(chain=(RULE,)), unmet, {}).reason is Refusal.OWN_CONSEQUENCE
    assert match(moved(chain=tuple(OTHER)), unmet, {}).reason is Refusal.CHAIN_TOO_DEEP
    asleep = rule(active(document(BIG), HOUR))
    assert match(moved(chain=(RULE,)), asleep, {}).reason is Refusal.NOT_ACTIVE_THEN


@st.composite
def histories(draw: st.DrawFn) -> Rule:
    """A rule with versions that were switched on and off, latest first, as they are stored."""
    marks = sorted(draw(st.lists(st.integers(-50, 50), min_size=1, max_size=6)))
    stretches = []
    for number, mark in enumerate(marks):
        last = number == len(marks) - 1
        end = draw(st.integers(mark, 60 if last else marks[number + 1]))
        until = None if last and draw(st.booleans()) else timedelta(minutes=end)
        doc = draw(documents(depth=1) if draw(st.booleans()) else st.just(document(BIG)))
        stretches.append(active(doc, timedelta(minutes=mark), until, ids(20 + number)))
    return rule(*reversed(stretches))


events = st.builds(
    Event,
    id=st.uuids(),
    type=st.sampled_from(["deal.stage_changed", "contact.created", "deal.updated"]),
    subject_kind=st.just("deal"),
    subject_id=st.uuids(),
    at=st.integers(-60, 70).map(lambda minutes: NOON + timedelta(minutes=minutes)),
    before=st.fixed_dictionaries({}, optional={"stage": st.sampled_from(["lead", "proposal"])}),
    after=st.fixed_dictionaries({}, optional={"stage": st.sampled_from(["proposal", "closed_won"])}),
    chain=st.lists(st.sampled_from([RULE, *OTHER]), max_size=7).map(tuple),
)


@settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(events, histories(), facts())
def test_there_is_at_most_one_decision_and_it_is_always_the_same(event, history, found) -> None:
    decision = match(event, history, found)
    assert match(event, history, found) == decision
    on = [one for one in history.activations if one.since <= event.at and (one.until is None or event.at < one.until)]
    assert len(on) <= 1
    concerned = bool(on or history.activations) and listens((on or history.activations)[0].document, event)
    assert (decision is not None) is concerned
    if isinstance(decision, Start):
        assert decision.version == on[0].version
        assert RULE not in event.chain
        assert len(event.chain) < MAX_CHAIN
        tree = decision.document.conditions
        assert tree is None or evaluate(tree, found).met
    if isinstance(decision, Refused):
        assert decision.rule == RULE
        assert (decision.saw is not None) is (decision.reason is Refusal.CONDITIONS_NOT_MET)


# --- exits of sequences


def leaving(*exits: dict[str, object]) -> SequenceDocument:
    return SequenceDocument.model_validate({"steps": [{"kind": "exit", "id": "a"}], "exits": list(exits)})


def updated(kind: str, before: dict[str, object], after: dict[str, object]) -> Event:
    return Event(ids(2), f"{kind}.updated", kind, ids(3), NOON, before, after)


WON = {"on": "deal.stage_changed", "to": ["won"]}
OWNED = {"on": "contact.updated", "changed": ["ownerId"]}


@pytest.mark.parametrize(
    ("exit_", "event", "met"),
    [
        ({"on": "deal.stage_changed"}, moved(), True),
        ({"on": "deal.stage_changed"}, updated("deal", {"stage": "lead"}, {"stage": "won"}), False),
        (WON, moved(after="won"), True),
        (WON, moved(before="won", after="lead"), False),
        ({**WON, "to": ["lost", "won"]}, moved(after="won"), True),
        (WON, Event(ids(2), "deal.stage_changed", "deal", ids(3), NOON, {}, {}), False),
        ({"on": "contact.updated"}, updated("contact", {"phone": "1"}, {"phone": "2"}), True),
        ({"on": "contact.updated"}, updated("deal", {"title": "1"}, {"title": "2"}), False),
        (OWNED, updated("contact", {"ownerId": 1}, {"ownerId": 2}), True),
        (OWNED, updated("contact", {"ownerId": 1}, {"ownerId": None}), True),
        (OWNED, updated("contact", {"ownerId": None}, {"ownerId": 1}), True),
        (OWNED, updated("contact", {}, {"ownerId": 1}), True),
        # written again as it was, or not written at all
        (OWNED, updated("contact", {"ownerId": 1}, {"ownerId": 1}), False),
        (OWNED, updated("contact", {}, {"ownerId": None}), False),
        (OWNED, updated("contact", {"phone": "1"}, {"phone": "2"}), False),
        (OWNED, updated("contact", {"ownerId": 1}, {}), False),
        # any of them
        ({"on": "deal.updated", "changed": ["title", "valueCents"]},
         updated("deal", {"title": "a", "valueCents": 1}, {"title": "a", "valueCents": 2}), True),
        ({"on": "deal.stage_changed", "to": ["won"], "changed": ["stage"]}, moved(after="won"), True),
        ({"on": "deal.stage_changed", "to": ["won"], "changed": ["title"]}, moved(after="won"), False),
    ],
)  # fmt: skip
def test_an_exit_is_met_by_the_change_it_names(exit_, event, met) -> None:
    assert match_exit(event, leaving(exit_), {}) == (ExitMet(1, None) if met else None)


@pytest.mark.parametrize(("deal", "met"), [({"valueCents": 5000}, True), ({"valueCents": 10}, False), ({}, False)])
def test_an_exit_with_a_condition_is_met_where_that_holds_and_keeps_what_it_saw(deal, met) -> None:
    found = match_exit(moved(after="won"), leaving({"on": "contact.updated"}, {**WON, "if": BIG}), {"deal": deal})
    assert (found is not None) is met
    if met:
        assert (found.number, found.saw.path, found.saw.saw) == (2, "/exits/1/if", 5000)


def test_an_exits_condition_may_look_at_what_changed() -> None:
    dropped = {"on": "deal.stage_changed", "if": {"field": "event.before.stage", "op": "eq", "value": "proposal"}}
    for before, number in (("proposal", 1), ("lead", None)):
        event = moved(before=before, after="lead")
        met = match_exit(event, leaving(dropped), {"event": {"before": event.before, "after": event.after}})
        assert (met and met.number) == number


def test_the_first_exit_that_is_met_is_the_one_that_counts() -> None:
    never = {**WON, "if": {"field": "deal.title", "op": "eq", "value": "x"}}
    assert match_exit(moved(after="won"), leaving(never, WON, {"on": "deal.stage_changed"}), {}).number == 2
    assert match_exit(moved(after="won"), leaving({"on": "deal.stage_changed"}, WON), {}).number == 1
    assert match_exit(moved(), leaving(), {}) is None


changes = st.builds(
    Event,
    id=st.uuids(),
    type=st.sampled_from(["deal.stage_changed", "deal.updated", "contact.updated", "contact.created"]),
    subject_kind=st.just("deal"),
    subject_id=st.uuids(),
    at=st.just(NOON),
    before=st.dictionaries(st.sampled_from(["stage", "ownerId", "valueCents"]), st.sampled_from(["lead", 1, None])),
    after=st.dictionaries(st.sampled_from(["stage", "ownerId", "valueCents"]), st.sampled_from(["proposal", 1, None])),
)


@settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(changes, sequences(depth=1), facts())
def test_an_exit_is_met_exactly_when_all_that_it_asks_is_so(event, document, found) -> None:
    def asked(exit_) -> bool:
        differs = [name for name in event.after if event.after[name] != event.before.get(name)]
        return (
            exit_.on == event.type
            and (not exit_.to or event.after.get("stage") in exit_.to)
            and (not exit_.changed or bool(set(exit_.changed) & set(differs)))
            and (exit_.condition is None or evaluate(exit_.condition, found).met)
        )

    met = [number for number, exit_ in enumerate(document.exits, 1) if asked(exit_)]
    decision = match_exit(event, document, found)
    assert match_exit(event, document, found) == decision
    assert (decision and decision.number) == (met[0] if met else None)


def test_what_is_heard_is_what_triggers_name_and_what_exits_may_follow_from():
    assert sorted(HEARD) == [
        "contact.created",
        "contact.updated",
        "deal.stage_changed",
        "deal.updated",
        "enrollment.ended",
        "message.bounced",
        "message.complained",
        "message.replied",
    ]
