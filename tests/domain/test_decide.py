# mypy: ignore-errors
"""The interpreter: any document, over any facts, walked by a clock that only ever jumps forward."""

import itertools
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from domain.conditions import Comparison
from domain.decide import (
    SLACK,
    Decision,
    Finished,
    Lost,
    Mailed,
    Parks,
    Passed,
    Perform,
    Position,
    Situation,
    Waits,
    decide,
    needs,
    places,
)
from domain.documents import Branch, CreateTask, Exit, RuleDocument, SendEmail, SequenceDocument, WaitStep, walk
from domain.due import LATEST, Calendar, due, kept_still
from domain.words import Awaits, StepOutcome
from tests.domain.strategies import anchors, calendars, documents, facts, sequences

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
        decision = decide(route, position, found, Situation(now, calendar))
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
        assert decide(places(document), position, found, Situation(now, calendar)) == decision


@slow
@given(walks, st.timedeltas(timedelta(0), timedelta(days=1)))
def test_waking_early_hears_wait_again_and_the_same_time(walked, early) -> None:
    document, found, _, calendar = walked
    for now, position, decision in drive(*walked):
        if isinstance(decision, Waits):
            for sooner in (max(now, decision.due.at - early - timedelta(microseconds=1)), position.anchor):
                assert decide(places(document), position, found, Situation(sooner, calendar)) == decision
            at_it = decide(places(document), position, found, Situation(decision.due.at, calendar))
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
        assert decide(route, position, enough, Situation(now, here)) == decision


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
            assert decide(route, Position(step, anchor), {}, Situation(now, Calendar())).step == step


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
        assert decide(places(FORKED), Position(gone, START), {}, Situation(START, Calendar())) == Lost(gone)


def test_the_end_of_the_document_is_the_end() -> None:
    assert decide(places(FORKED), Position(None, START), {}, Situation(START, Calendar())) == Finished(None)


def test_a_wait_is_over_at_its_instant_and_not_a_microsecond_sooner() -> None:
    route, over = places(rule(wait("w", 3))), START + timedelta(days=3)
    here = Position("w", START)
    before = decide(route, here, {}, Situation(over - timedelta(microseconds=1), Calendar()))
    assert isinstance(before, Waits)
    assert before.due.at == over
    at_it = decide(route, here, {}, Situation(over, Calendar()))
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
        decision = decide(route, position, {}, Situation(LATEST, Calendar()))
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


# --- mail that is on its way, and executions that are kept still

DAY, HOUR, TICK = timedelta(days=1), timedelta(hours=1), timedelta(microseconds=1)


def sequence(*steps: dict[str, object]) -> SequenceDocument:
    return SequenceDocument.model_validate({"steps": list(steps)})


def mail(id_: str, **more: object) -> dict[str, object]:
    return {"kind": "email", "id": id_, "subject": "Hello", "text": "Hello", **more}


def on_its_way(planned: datetime = START) -> Mailed:
    return Mailed(planned, None, over=False)


def arrived(left: datetime, planned: datetime = START) -> Mailed:
    return Mailed(planned, left, over=True)


CANCELLED = Mailed(START, None, over=True)
PATIENT = places(sequence(wait("w", 3), mail("later")))


def patient(now: datetime, mailed: Mailed | None = None, pauses: tuple = ()) -> Decision:
    return decide(PATIENT, Position("w", START), {}, Situation(now, Calendar(), mailed, pauses))


@pytest.mark.parametrize(
    ("step", "action", "roots"),
    [
        (mail("a"), {"type": "send_email", "subject": "Hello", "text": "Hello"}, {"contact", "company", "deal"}),
        ({"kind": "email", "id": "a", "text": "Hi", "thread": "same"},
         {"type": "send_email", "text": "Hi", "thread": "same"}, {"contact", "company", "deal"}),
        ({"kind": "task", "id": "a", "title": "Call", "dueIn": {"amount": 1, "unit": "days"}, "priority": "high"},
         {"type": "create_task", "title": "Call", "dueIn": {"amount": 1, "unit": "days"}, "priority": "high"},
         {"contact", "company", "deal"}),
    ],
)  # fmt: skip
def test_a_step_that_has_a_name_of_its_own_does_the_same_as_the_action(step, action, roots) -> None:
    route = places(sequence(step))
    asked = decide(route, Position("a", START), {}, Situation(START, Calendar()))
    model = SendEmail if action["type"] == "send_email" else CreateTask
    assert asked == Perform("a", model.model_validate(action), Position(None, START))
    assert needs(route, Position("a", START)) == roots


@pytest.mark.parametrize(
    ("left", "due_after"),
    [
        (None, 3 * DAY),
        (START - HOUR, 3 * DAY),
        (START, 3 * DAY),
        (START + SLACK, 3 * DAY),
        (START + SLACK + TICK, 3 * DAY + SLACK + TICK),
        (START + 2 * DAY, 5 * DAY),
        (START + 30 * DAY, 33 * DAY),
    ],
)
def test_a_mail_that_left_late_by_more_than_the_slack_moves_what_the_wait_counts_from(left, due_after) -> None:
    mailed = CANCELLED if left is None else arrived(left)
    waits = patient(START + due_after - TICK, mailed)
    assert isinstance(waits, Waits)
    assert waits.due.at == START + due_after
    passed = patient(START + due_after, mailed)
    assert isinstance(passed, Passed)
    assert passed.then == Position("later", START + due_after)


def test_how_late_a_mail_is_counts_from_its_own_plan_not_from_where_the_execution_stands() -> None:
    on_plan = Mailed(START + 5 * DAY, START + 5 * DAY, over=True)
    assert patient(START, on_plan).due.at == START + 3 * DAY
    before = Mailed(START - 5 * DAY, START - 2 * DAY, over=True)
    assert patient(START, before).due.at == START + 3 * DAY


def test_a_wait_after_a_mail_waits_as_planned_parks_while_that_is_unsent_and_counts_from_when_it_left() -> None:
    unsent, over = on_its_way(), START + 3 * DAY
    assert patient(over - TICK, unsent) == patient(over - TICK)
    for now in (over, over + 40 * DAY):
        parked = patient(now, unsent)
        assert parked == Parks("w", Awaits.MESSAGE, patient(START).due)
    late = over + 2 * DAY
    again = patient(late, arrived(late))
    assert isinstance(again, Waits)
    assert again.due.at == late + 3 * DAY


def test_a_mail_that_was_cancelled_holds_up_nothing() -> None:
    assert isinstance(patient(START + 3 * DAY, CANCELLED), Passed)


@pytest.mark.parametrize("standing", [None, "out"])
def test_an_execution_is_done_only_when_its_last_message_is(standing) -> None:
    route = places(sequence(mail("a"), EXIT))
    for mailed, decided in (
        (None, Finished(standing)),
        (on_its_way(), Parks(standing, Awaits.MESSAGE, None)),
        (Mailed(START, START, over=False), Parks(standing, Awaits.MESSAGE, None)),
        (CANCELLED, Finished(standing)),
        (arrived(START), Finished(standing)),
    ):
        assert decide(route, Position(standing, START), {}, Situation(START, Calendar(), mailed)) == decided


def test_an_unsent_mail_holds_up_neither_mail_nor_task_nor_branch() -> None:
    route = places(sequence(mail("a"), mail("b"), {"kind": "task", "id": "t", "title": "T"}, branch("f", [], [])))
    for step in ("a", "b", "t", "f"):
        here = Position(step, START)
        held = decide(route, here, {}, Situation(START, Calendar(), on_its_way()))
        assert held == decide(route, here, {}, Situation(START, Calendar()))


@pytest.mark.parametrize(
    ("pauses", "due_after"),
    [
        ([], 3 * DAY),
        ([(START + HOUR, START + 2 * HOUR)], 3 * DAY + HOUR),
        ([(START - DAY, START + HOUR)], 3 * DAY + HOUR),
        ([(START - DAY, START)], 3 * DAY),
        ([(START + HOUR, START + DAY), (START + 2 * HOUR, START + 3 * HOUR)], 3 * DAY + 23 * HOUR),
    ],
)
def test_a_wait_is_longer_by_the_time_that_the_execution_was_kept_still(pauses, due_after) -> None:
    waits = patient(START + due_after - TICK, pauses=tuple(pauses))
    assert isinstance(waits, Waits)
    assert waits.due.at == START + due_after
    assert isinstance(patient(START + due_after, pauses=tuple(pauses)), Passed)


def test_a_pause_that_also_held_the_mail_is_not_counted_twice() -> None:
    pause = (START + HOUR, START + 2 * DAY)
    left = pause[1]
    waits = patient(left, arrived(left), (pause,))
    assert waits.due.at == left + 3 * DAY
    across = (pause, (left + HOUR, left + 2 * HOUR))
    assert patient(left + 2 * HOUR, arrived(left), across).due.at == left + 3 * DAY + HOUR


@st.composite
def situations(draw, start: datetime, calendar: Calendar) -> Situation:
    """Any instant, any state of the mail before, any pauses that are over."""
    instants = st.timedeltas(timedelta(days=-5), timedelta(days=60)).map(lambda shift: start + shift)
    mailed = draw(st.none() | st.builds(Mailed, instants, st.none() | instants, over=st.booleans()))
    ends = draw(st.lists(st.tuples(instants, instants).map(sorted).map(tuple), max_size=3))
    return Situation(draw(instants), calendar, mailed, tuple(ends))


@slow
@given(st.data(), sequences(), facts(), anchors, calendars)
def test_wherever_an_execution_stands_an_unsent_mail_lets_no_wait_pass_and_nothing_end(
    data, document, found, anchor, calendar
) -> None:
    route = places(document)
    position = Position(data.draw(st.sampled_from([None, *route])), anchor)
    here = data.draw(situations(anchor, calendar))
    decision = decide(route, position, found, here)
    assert decide(route, position, found, here) == decision
    assert decision.step == position.step
    step = route[position.step].step if position.step else None
    unsent = here.mailed is not None and not here.mailed.over
    if step is None or isinstance(step, Exit):
        assert decision == (Parks(position.step, Awaits.MESSAGE, None) if unsent else Finished(position.step))
    elif isinstance(step, WaitStep):
        late = here.mailed and here.mailed.left and here.mailed.left - here.mailed.planned > SLACK
        counted = max(anchor, here.mailed.left) if late else anchor
        over = due(counted, step.wait, calendar, kept_still(here.pauses, counted, here.now))
        if here.now < over.at:
            assert decision == Waits(step.id, over)
        elif unsent:
            assert decision == Parks(step.id, Awaits.MESSAGE, over)
        else:
            assert decision == Passed(step.id, StepOutcome.WAITED, over, Position(route[step.id].after, over.at))
    else:
        assert isinstance(decision, Perform | Passed)
        assert decision.then.anchor == anchor


@slow
@given(sequences(), facts(), anchors, calendars, st.lists(st.timedeltas(timedelta(0), timedelta(days=9)), min_size=1))
def test_a_sequence_ends_with_each_mail_gone_before_the_wait_after_it_is_over(
    document, found, start, calendar, delays
) -> None:
    """Mail takes its time; whoever records that it left wakes the execution."""
    route, mails = places(document), itertools.count()
    position, now, mailed, arrives = Position(document.steps[0].id, start), start, None, None
    for _ in range(10_000):
        if mailed is not None and not mailed.over and now >= arrives:
            mailed = Mailed(mailed.planned, arrives, over=True)
        decision = decide(route, position, found, Situation(now, calendar, mailed))
        match decision:
            case Perform(action=SendEmail()):
                position = decision.then
                mailed, arrives = Mailed(position.anchor, None, over=False), now + delays[next(mails) % len(delays)]
            case Perform():
                position = decision.then
            case Passed():
                assert decision.then.anchor >= position.anchor
                position = decision.then
                if decision.outcome is StepOutcome.WAITED:
                    assert mailed is None or mailed.over
                    mailed = None
            case Waits():
                assert decision.due.at > now
                now = decision.due.at
            case Parks():
                assert arrives > now
                now = arrives
            case Finished():
                assert mailed is None or mailed.over
                return
    raise AssertionError("the walk does not end")
