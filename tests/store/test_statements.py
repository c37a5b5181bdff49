"""How many statements the engine's work takes, exactly: BEGIN, the org setting and COMMIT not counted."""

from datetime import timedelta
from uuid import uuid4

from store import contacts
from tests.driving import (
    act,
    advance,
    branch,
    enroll,
    enrolled,
    is_,
    mail,
    make_deal,
    make_mailbox,
    match_all,
    move,
    on_stage,
    publish,
    relay_of,
    sender,
    sequence,
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


async def test_a_task_takes_four_and_a_wait_that_is_over_adds_none(base, statements):
    run = await start_run(base, on_stage(task(), wait("wait", 1)))
    assert await of_advance(base, statements, run) == 4  # lock, facts, task with event, effect with where it stands
    await base.pass_time(timedelta(days=1))
    assert await of_advance(base, statements, run) == 2  # lock, effect with end


async def test_three_steps_with_two_waits_take_twelve_statements_in_their_three_wakes(base, statements):
    tell = act("tell", "notify", title="Look")
    remind = act("remind", "remind", title="Ring")
    run = await start_run(base, on_stage(task(), wait("one", 1), tell, wait("two", 1), remind))
    taken = []
    for _ in range(3):
        taken.append(await of_advance(base, statements, run))
        await base.pass_time(timedelta(days=1))
    assert taken == [4, 4, 4]  # and a statement that opens, a BEGIN and a COMMIT each
    assert await base.value("SELECT status FROM executions") == "ended"


async def test_each_action_takes_its_verb_and_all_share_lock_facts_and_end(base, statements):
    # The stage that a deal is moved to is looked up; what a step has written is known to the next.
    run = await start_run(base, on_stage(*ALL_ACTIONS))
    assert await of_advance(base, statements, run) == 3 + 5 + 1


async def test_branches_write_nothing_of_their_own(base, statements):
    run = await start_run(base, on_stage(branch("b", IN_THE_STAGE, [branch("c", IN_THE_STAGE)])))
    assert await of_advance(base, statements, run) == 3


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
        # Take, rules, facts, runs, exits, wakes.
        assert await relayed(base, statements, count) == 6


async def test_a_batch_that_is_refused_takes_five_and_one_that_concerns_nobody_three(base, statements):
    assert await relayed(base, statements, 3) == 3  # no rule at all: take, rules, exits
    await switch_on(base, on_stage(wait(), to=["negotiation"]))
    assert await relayed(base, statements, 3) == 3  # no rule hears of these: no facts are read
    await switch_on(base, on_stage(wait(), conditions=is_("deal.valueCents", "gt", 1)), "Other")
    assert await relayed(base, statements, 3) == 5


async def test_a_batch_of_runs_of_three_steps_is_matched_and_finished_in_eleven_statements(base, statements):
    await switch_on(base, on_stage(task(), act("set", "set_field", field="deal.title", value="New"),
                                   act("tell", "notify", title="Look")))  # fmt: skip
    for count in (1, 5, 50):
        # The five of the match but for the wakes, as nothing is left to wait for; then lock, facts, tasks with events,
        # deals with events, notifications, effects with ends. Beside them a savepoint and its release.
        assert await relayed(base, statements, count, first_attempt=True) == 5 + 6


async def test_an_email_step_takes_six_statements(base, statements):
    await make_mailbox(base)
    id_ = await enrolled(base, sequence(mail(), wait()))
    statements()
    await advance(base, id_, "enrollment")
    # Lock, contact, mailboxes, address, message with its mailbox's wake, effect with where it stands.
    assert len(statements()) == 6


async def test_a_look_at_an_enrollment_that_waits_after_its_mail_takes_three(base, statements):
    await make_mailbox(base)
    id_ = await enrolled(base, sequence(mail(), wait()))
    await advance(base, id_, "enrollment")
    statements()
    await advance(base, id_, "enrollment")
    assert len(statements()) == 3  # lock, its last message, where it stands


async def test_an_email_is_claimed_sent_and_recorded_in_twenty_statements(base, statements):
    box = await make_mailbox(base)
    id_ = await enrolled(base, sequence(mail(), wait()))
    await advance(base, id_, "enrollment")
    async with sender(base) as send:
        statements()
        assert await send._one(base.org, box) == 0
    # To find it: expired claims, mailbox, next message, message, contact, owner, thread, address.
    # To claim it: two locks, what forbids it, mailbox, claim with attempt.
    # To record it: execution, message, message, attempt, mailbox, number, event, activity with event.
    assert len(statements()) == 8 + 4 + 8


async def test_ten_statements_enroll_one_and_five_hundred(base, statements):
    await make_mailbox(base)
    made = await publish(base, sequence(wait()))
    taken = []
    for count in (1, 500):
        people = [uuid4() for _ in range(count)]
        async with base.transaction() as tx:
            await contacts.create_many(tx, [{"id": one, "email": f"{one}@example.com"} for one in people])
        statements()
        await enroll(base, made, *people)
        taken.append(len(statements()))
    # Sequence, version, contacts, addresses, those before, calendar, mailboxes; then enrollments, events, wakes.
    assert taken == [10, 10]
