# mypy: ignore-errors
"""The interpreter: any document, over any facts, walked by a clock that only ever jumps forward."""

from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from domain.conditions import Comparison
from domain.decide import (
    Decision,
    Finished,
    Lost,
    Passed,
    Perform,
    Position,
    Waits,
    decide,
    needs,
    places,
)
from domain.documents import Branch, Exit, RuleDocument, WaitStep, walk
from domain.due import LATEST, Calendar, due
from domain.words import StepOutcome
from tests.domain.strategies import anchors, calendars, documents, facts

slow = settings(max_examples=30, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
START = datetime(2026, 3, 2, 9, tzinfo=UTC)


def drive(
    document: RuleDocument,
    found: dict[str, object],
    start: datetime,
    calendar: Calendar,
    late: Callable[[int], timedelta] = lambda _: timedelta(0),
) -> list[tuple[datetime, Position, Decision]]:
    """Walks to the end, each wait woken `late` after its time; what was decided where and when."""
    route = places(document)
    position, now, taken = Position(document.steps[0].id, start), start, []
    for count in range(10_000):
        decision = decide(route, position, found, now, calendar)
        taken.append((now, position, decision))
        match decision:
            case Waits():
                assert decision.due.at > now
                now = decision.due.at + late(count)
            case Perform() | Passed():
                position = decision.then
            case Finished() | Lost():
                return taken
    raise AssertionError("the walk does not end")


walks = st.tuples(documents(), facts(), anchors, calendars)
lateness = st.lists(st.timedeltas(timedelta(0), timedelta(days=40)), min_size=1, max_size=5)


@slow
@given(walks)
def test_a_walk_ends_and_visits_each_step_once(walked) -> None:
    document, *_ = walked
    taken = drive(*walked)
    assert isinstance(taken[-1][2], Finished)
    known = {step.id: step for step in walk(document.steps)}
    visits = Counter(decision.step for _, _, decision in taken if isinstance(decision, Perform | Passed))
    assert max(visits.values(), default=1) == 1
    assert visits.keys() <= known.keys()
    assert all(decision.step == position.step for _, position, decision in taken[:-1])


@slow
@given(walks, lateness)
def test_nothing_is_done_before_the_waits_before_it_are_over(walked, late) -> None:
    document, _, _, calendar = walked
    known = {step.id: step for step in walk(document.steps)}
    for now, position, decision in drive(*walked, late=lambda n: late[n % len(late)]):
        assert now >= position.anchor
        if isinstance(decision, Passed) and decision.outcome is StepOutcome.WAITED:
            over = due(position.anchor, known[decision.step].wait, calendar)
            assert decision.saw == over
            assert position.anchor <= over.at <= now
            assert decision.then.anchor == over.at
        elif isinstance(decision, Perform | Passed):
            assert decision.then.anchor == position.anchor


@slow
@given(walks, lateness)
def test_lateness_does_not_add_up(walked, late) -> None:
    def planned(taken: list[tuple[datetime, Position, Decision]]) -> list[object]:
        return [(p, d) for _, p, d in taken if not isinstance(d, Waits)]

    def promised(taken: list[tuple[datetime, Position, Decision]]) -> dict[str, datetime]:
        return {d.step: d.due.at for _, _, d in taken if isinstance(d, Waits)}

    on_time, delayed = drive(*walked), drive(*walked, late=lambda n: late[n % len(late)])
    assert planned(delayed) == planned(on_time)
    assert promised(delayed).items() <= promised(on_time).items()


@slow
@given(walks)
def test_deciding_again_at_the_same_place_and_time_decides_the_same(walked) -> None:
    document, found, _, calendar = walked
    for now, position, decision in drive(*walked):
        assert decide(places(document), position, found, now, calendar) == decision


@slow
@given(walks, st.timedeltas(timedelta(0), timedelta(days=1)))
def test_waking_early_hears_wait_again_and_the_same_time(walked, early) -> None:
    document, found, _, calendar = walked
    for now, position, decision in drive(*walked):
        if isinstance(decision, Waits):
            for sooner in (max(now, decision.due.at - early - timedelta(microseconds=1)), position.anchor):
                assert decide(places(document), position, found, sooner, calendar) == decision
            at_it = decide(places(document), position, found, decision.due.at, calendar)
            assert isinstance(at_it, Passed)


@slow
@given(walks)
def test_a_step_decides_the_same_with_no_more_than_the_facts_it_names(walked) -> None:
    document, found, _, calendar = walked
    route = places(document)
    for now, position, decision in drive(*walked):
        named = needs(route, position)
        enough = {root: value for root, value in found.items() if root in named}
        here = calendar if "contact" in named else calendar.model_copy(update={"contact_zone": None})
        assert decide(route, position, enough, now, here) == decision


@slow
@given(walks)
def test_a_branch_takes_then_when_met_and_else_otherwise_and_both_lead_on(walked) -> None:
    document, *_ = walked
    route = places(document)
    for _, position, decision in drive(*walked):
        step = route[position.step].step if position.step else None
        if isinstance(step, Branch):
            side = step.then if decision.saw.met else step.else_
            assert decision.outcome is (StepOutcome.THEN if decision.saw.met else StepOutcome.ELSE)
            assert decision.then.step == (side[0].id if side else route[step.id].after)


@slow
@given(walks)
def test_the_reason_of_a_branch_points_into_the_document(walked) -> None:
    document, *_ = walked
    stored = document.model_dump(mode="json", by_alias=True)
    for _, _, decision in drive(*walked):
        if isinstance(decision, Passed) and decision.outcome is not StepOutcome.WAITED:
            leaf = stored
            for part in decision.saw.path.split("/")[1:]:
                leaf = leaf[int(part)] if isinstance(leaf, list) else leaf[part]
            assert Comparison.model_validate(leaf) == Comparison(
                field=decision.saw.field, op=decision.saw.op, value=decision.saw.expected
            )


@slow
@given(documents(), anchors)
def test_every_place_can_be_decided_from(document, now) -> None:
    """Total: an execution may stand anywhere, with no facts at all, long before or after."""
    route = places(document)
    for step in route:
        for anchor in (now, now - timedelta(days=9000), now + timedelta(days=9000), LATEST):
            assert decide(route, Position(step, anchor), {}, now, Calendar()).step == step


def rule(*steps: dict[str, object]) -> RuleDocument:
    return RuleDocument.model_validate({"trigger": {"on": "deal.stage_changed"}, "steps": list(steps)})


def notify(id_: str) -> dict[str, object]:
    return {"kind": "act", "id": id_, "action": {"type": "notify", "title": id_}}


def wait(id_: str, amount: int, unit: str = "days") -> dict[str, object]:
    return {"kind": "wait", "id": id_, "wait": {"for": {"amount": amount, "unit": unit}}}


def branch(id_: str, then: list[object], otherwise: list[object]) -> dict[str, object]:
    condition = {"field": "deal.stage", "op": "eq", "value": "proposal"}
    return {"kind": "branch", "id": id_, "if": condition, "then": then, "else": otherwise}


EXIT = {"kind": "exit", "id": "out"}
FORKED = rule(
    notify("first"), branch("fork", [notify("yes"), branch("inner", [], [notify("no")])], [EXIT]), notify("last")
)


@pytest.mark.parametrize(
    ("stage", "path", "ended_by"),
    [
        ("proposal", ["first", "fork", "yes", "inner", "last"], None),
        ("lead", ["first", "fork"], "out"),
        (None, ["first", "fork"], "out"),
    ],
)
def test_an_unknown_condition_takes_else_and_an_exit_ends_the_walk(stage, path, ended_by) -> None:
    taken = [decision for *_, decision in drive(FORKED, {"deal": {"stage": stage}}, START, Calendar())]
    assert [decision.step for decision in taken[:-1]] == path
    assert taken[-1] == Finished(ended_by)
    if stage is None:
        assert taken[1].saw.holds is None


def test_a_step_that_this_version_lacks_is_lost_not_guessed() -> None:
    for gone in ("gone", ""):
        assert decide(places(FORKED), Position(gone, START), {}, START, Calendar()) == Lost(gone)


def test_the_end_of_the_document_is_the_end() -> None:
    assert decide(places(FORKED), Position(None, START), {}, START, Calendar()) == Finished(None)


def test_a_wait_is_over_at_its_instant_and_not_a_microsecond_sooner() -> None:
    route, over = places(rule(wait("w", 3))), START + timedelta(days=3)
    here = Position("w", START)
    before = decide(route, here, {}, over - timedelta(microseconds=1), Calendar())
    assert isinstance(before, Waits)
    assert before.due.at == over
    at_it = decide(route, here, {}, over, Calendar())
    assert isinstance(at_it, Passed)
    assert at_it.then == Position(None, over)


def test_a_clock_that_jumps_past_everything_does_everything_in_its_order_and_on_plan() -> None:
    document = rule(notify("a"), wait("w1", 1), notify("b"), wait("w2", 2), notify("c"))
    late = drive(document, {}, START, Calendar(), late=lambda _: timedelta(days=365))
    assert [d.step for *_, d in late] == ["a", "w1", "w1", "b", "w2", "c", None]
    assert [p.anchor - START for _, p, d in late if isinstance(d, Perform)] == [
        timedelta(0), timedelta(days=1), timedelta(days=3),
    ]  # fmt: skip


def test_a_hundred_of_the_longest_waits_end_in_a_wait_not_in_an_error() -> None:
    document = rule(*(wait(f"w{n}", 1000, "months") for n in range(100)))
    position, route = Position("w0", START), places(document)
    for _ in range(100):
        decision = decide(route, position, {}, LATEST, Calendar())
        position = decision.then
    assert position.anchor == LATEST


@given(documents())
@slow
def test_places_agree_with_reading_order(document) -> None:
    route = places(document)
    order = [step.id for step in walk(document.steps)]
    assert list(route) == order
    for id_, place in route.items():
        assert place.step.id == id_
        assert place.after is None or order.index(place.after) > order.index(id_)
        assert isinstance(place.step, Branch | WaitStep | Exit) or needs(route, Position(id_, START))
    stored = document.model_dump(mode="json", by_alias=True)
    for id_, place in route.items():
        found = stored
        for part in place.path.split("/")[1:]:
            found = found[int(part)] if isinstance(found, list) else found[part]
        assert found["id"] == id_


def test_what_follows_a_side_is_what_follows_its_branch() -> None:
    after = {id_: place.after for id_, place in places(FORKED).items()}
    assert after == {
        "first": "fork", "fork": "last", "yes": "inner", "inner": "last", "no": "last", "out": "last", "last": None,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("step", "named"),
    [
        (notify("a"), {"contact", "company", "deal"}),
        (branch("a", [], []), {"deal"}),
        ({**branch("a", [], []), "if": {"all": [
            {"field": "event.type", "op": "is_empty"}, {"not": {"field": "step.b.id", "op": "is_empty"}}]}},
         {"event", "step"}),
        (wait("a", 1), set()),
        ({"kind": "wait", "id": "a", "wait": {"until": {"at": "09:00"}}}, set()),
        ({"kind": "wait", "id": "a", "wait": {"until": {"at": "09:00", "zone": "contact"}}}, {"contact"}),
        ({"kind": "exit", "id": "a"}, set()),
    ],
)  # fmt: skip
def test_a_step_names_the_facts_it_looks_at(step, named) -> None:
    assert needs(places(rule(step)), Position("a", START)) == named
    assert needs(places(rule(step)), Position(None, START)) == frozenset()
