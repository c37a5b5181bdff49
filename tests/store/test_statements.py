"""How many statements the engine's work takes, exactly: BEGIN, the org setting and COMMIT not counted."""

from datetime import timedelta

from tests.driving import (
    act,
    advance,
    branch,
    is_,
    make_deal,
    match_all,
    move,
    on_stage,
    relay_of,
    start_run,
    switch_on,
    task,
    wait,
)

IN_THE_STAGE = is_("deal.stage", "eq", "proposal")
ALL_ACTIONS = (
    task(), act("m", "move_stage", to="negotiation"), act("r", "remind", title="Ring"),
    act("n", "notify", title="Look"), act("s", "set_field", field="deal.title", value="Renamed"),
)  # fmt: skip


async def of_advance(base, statements, run):
    statements()
    await advance(base, run)
    return len(statements())


async def test_a_look_at_a_run_that_still_waits_takes_two_statements(base, statements):
    run = await start_run(base, on_stage(wait(), task()))
    assert await of_advance(base, statements, run) == 2  # lock with document, event and calendar; where it stands
    assert await of_advance(base, statements, run) == 2


async def test_a_look_at_a_closed_run_takes_one(base, statements):
    run = await start_run(base, on_stage(task()))
    await advance(base, run)
    assert await of_advance(base, statements, run) == 1


async def test_a_task_takes_five_and_a_wait_that_is_over_adds_none(base, statements):
    run = await start_run(base, on_stage(task(), wait("wait", 1)))
    assert await of_advance(base, statements, run) == 5  # lock, facts, task with event, effect, where it stands
    await base.pass_time(timedelta(days=1))
    assert await of_advance(base, statements, run) == 3  # lock, effect, end


async def test_each_action_takes_its_facts_and_its_verb(base, statements):
    # Lock, effects and end are shared; facts and verb for each of five, and the stage a deal is moved to is looked up.
    run = await start_run(base, on_stage(*ALL_ACTIONS))
    assert await of_advance(base, statements, run) == 3 + 5 * 2 + 1


async def test_branches_read_facts_and_write_nothing_of_their_own(base, statements):
    run = await start_run(base, on_stage(branch("b", IN_THE_STAGE, [branch("c", IN_THE_STAGE)])))
    assert await of_advance(base, statements, run) == 3 + 2


async def relayed(base, statements, count, *, first_attempt=False):
    deals = [await make_deal(base) for _ in range(count)]
    await match_all(base)
    for deal in deals:
        await move(base, deal)
    statements()
    assert await relay_of(base, first_attempt=first_attempt).once() == count
    return len(statements())


async def test_a_batch_of_events_is_matched_in_six_statements_however_many_they_are(base, statements):
    await switch_on(base, on_stage(wait()))
    for count in (1, 5, 50):
        # Lock, rules, facts, runs, wakes, delete.
        assert await relayed(base, statements, count) == 6


async def test_a_batch_that_is_refused_takes_five_and_one_that_concerns_nobody_four(base, statements):
    assert await relayed(base, statements, 3) == 3  # no rule at all: lock, rules, delete
    await switch_on(base, on_stage(wait(), to=["negotiation"]))
    assert await relayed(base, statements, 3) == 4
    await switch_on(base, on_stage(wait(), conditions=is_("deal.valueCents", "gt", 1)), "Other")
    assert await relayed(base, statements, 3) == 5


async def test_the_first_attempt_adds_what_advance_takes_for_each_run(base, statements):
    await switch_on(base, on_stage(task()))
    assert await relayed(base, statements, 1, first_attempt=True) == 5 + 5  # no wake: nothing is left to wait for
    assert await relayed(base, statements, 10, first_attempt=True) == 5 + 5 * 10
