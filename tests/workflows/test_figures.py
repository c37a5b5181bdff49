"""What waiting costs in Temporal, exactly, from real histories: what the design promises."""

from tests.driving import act, make_deal, match_all, move, on_stage, switch_on, task, wait


def waits(count, *more):
    """Each two real seconds: longer than any look may be late, so that each is one of its own."""
    return on_stage(*(wait(f"w{number}", 12, "hours") for number in range(count)), *more)


async def figures(hurrying, document):
    run = await hurrying.run(document, f"Rule {id(document)}")
    await hurrying.stands(run, status="ended")
    await hurrying.ends(run)
    return len(await hurrying.events(run)), await hurrying.transitions(run)


async def test_a_step_that_waits_costs_six_events_and_three_transitions(hurrying):
    one = await figures(hurrying, waits(1))
    await hurrying.base.rows("UPDATE definitions SET status = 'archived' RETURNING id")
    three = await figures(hurrying, waits(3))
    assert (three[0] - one[0], three[1] - one[1]) == (2 * 6, 2 * 3)


async def test_what_acts_without_waiting_costs_nothing_more(hurrying):
    bare = await figures(hurrying, waits(1))
    await hurrying.base.rows("UPDATE definitions SET status = 'archived' RETURNING id")
    busy = await figures(
        hurrying, waits(1, task("a"), act("n", "notify", title="Look"), task("b"), act("r", "remind", title="Ring"))
    )
    assert busy == bare


async def test_a_run_without_a_wait_is_seven_events_and_the_first_wait_adds_six(hurrying):
    none = await figures(hurrying, on_stage(task()))
    await hurrying.base.rows("UPDATE definitions SET status = 'archived' RETURNING id")
    one = await figures(hurrying, waits(1))
    # Started, signalled, task scheduled, started and completed, the local activity's marker, completed.
    assert none[0] == 7
    assert (one[0] - none[0], one[1] - none[1]) == (6, 3)


async def test_a_wait_that_the_relay_has_begun_is_not_looked_at_before_its_end(hurrying):
    by_its_workflow = await figures(hurrying, waits(1))
    await hurrying.base.rows("UPDATE definitions SET status = 'archived' RETURNING id")
    await switch_on(hurrying.base, waits(1), "Begun by the relay")
    await move(hurrying.base, await make_deal(hurrying.base, title="Another"))
    await match_all(hurrying.base)
    await hurrying.flow()
    run = await hurrying.base.value("SELECT id FROM executions WHERE status = 'open'")
    await hurrying.ends(run)
    # It begins then: no signal, no task that finds out when, with its marker, no timer of its own.
    assert len(await hurrying.events(run)) == by_its_workflow[0] - 1 - 4 - 2 == 6
