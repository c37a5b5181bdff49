# mypy: ignore-errors
"""A great many are paused and resumed at once: small transactions, each step once, and nobody else waits."""

import asyncio
import random
from datetime import timedelta
from uuid import uuid4

import pytest

from activities.advance import advance_all
from domain.words import Kind, Target
from store import contacts, definitions, stops
from tests.driving import as_admin, enroll, make_mailbox, publish, sequence, task, wait
from triggers import sweep
from triggers.sweep import Resumption

SEED = 11
ROWS = 500
"""Of a call to enroll, and of an advance of many."""


async def inside(base, count, name="Sequence"):
    """So many enrolled in a sequence that begins with a wait: the sequence and the enrollments."""
    made = await publish(base, sequence(wait("wait", 1, "days"), task(), wait("after", 1, "days"), task("last")), name)
    found = []
    for start in range(0, count, ROWS):
        people = [uuid4() for _ in range(min(ROWS, count - start))]
        async with base.transaction() as tx:
            rows = [{"id": one, "email": f"{one}@example.com", "owner_id": base.rep} for one in people]
            await contacts.create_many(tx.unheard(), rows)
        found += [one.enrollment for one in await enroll(base, made, *people)]
    return made, found


async def pause(base, made):
    async with base.transaction() as tx:
        await definitions.pause(tx, made, expected=None, kind=Kind.SEQUENCE)


async def resume(base, made):
    async with base.transaction() as tx:
        await definitions.activate(tx, made, None, expected=None, kind=Kind.SEQUENCE)


async def look_at(base, ids):
    """What their workflows do when they are poked, or when a timer fires."""
    for start in range(0, len(ids), ROWS):
        async with base.transaction() as tx:
            await advance_all(tx, ids[start : start + ROWS])


async def kept(base):
    return await base.value("SELECT count(*) FROM executions WHERE awaits = 'resume'")


async def dispatched(base):
    """Pokes for every wake there is; who was poked, each as often as it was."""
    rows = await as_admin(base, "DELETE FROM wakes WHERE org_id = $1 RETURNING target_id", base.org)
    return [row["target_id"] for row in rows]


async def has_waited(base, count, name="Sequence"):
    """As `inside`, paused, and looked at when the wait would have been over."""
    made, ids = await inside(base, count, name)
    await look_at(base, ids)
    await pause(base, made)
    await base.pass_time(timedelta(days=2))
    await look_at(base, ids)
    assert await kept(base) == count
    await dispatched(base)
    return made, ids


@pytest.fixture
async def box(base):
    return await make_mailbox(base)


async def test_a_pause_takes_four_statements_and_a_resume_seven_however_many_are_inside(base, statements, box):
    taken = []
    for count in (1, 200):
        made, ids = await inside(base, count, f"Of {count}")
        await look_at(base, ids)
        statements()
        await pause(base, made)
        paused = len(statements())
        await look_at(base, ids)
        statements()
        await resume(base, made)
        taken.append((paused, len(statements())))
    # The sequence, its activation, the pause, its status; the sequence, version, pause, mailboxes, activations, status.
    assert taken == [(4, 7), (4, 7)]


async def test_those_who_were_kept_still_go_on_batch_by_batch_as_they_are_poked(base, box, monkeypatch):
    monkeypatch.setattr(sweep, "BATCH", 4)
    made, ids = await has_waited(base, 10)
    resumption = Resumption(base.crossing, base.app)
    assert await resumption.once() == 0
    await resume(base, made)
    batches = []
    while await kept(base):
        await resumption.once()
        assert await resumption.once() == 0  # as many wait for their poke
        batches.append(await dispatched(base))
    assert [len(one) for one in batches] == [4, 4, 2]
    assert sorted(one for batch in batches for one in batch) == sorted(ids)
    assert await resumption.once() == 0


async def test_a_batch_takes_one_statement(base, box, statements):
    made, _ = await has_waited(base, 100)
    await resume(base, made)
    statements()
    assert await Resumption(base.crossing, base.app).once() == 100
    assert len(statements()) == 1  # besides the look across organizations, which is another connection's


async def test_another_organization_and_another_sequence_do_not_wait_for_many(base, box, monkeypatch):
    monkeypatch.setattr(sweep, "BATCH", 4)
    many, _ = await has_waited(base, 10, "Many")
    other = await base.another()
    await make_mailbox(other)
    few, (one,) = await has_waited(other, 1)
    await resume(base, many)
    await resume(other, few)
    assert await Resumption(base.crossing, base.app).once() == 4 + 1
    assert await dispatched(other) == [one]


async def test_a_pause_in_the_middle_of_a_resume_keeps_those_who_had_not_gone_on(base, box, monkeypatch):
    monkeypatch.setattr(sweep, "BATCH", 4)
    made, ids = await has_waited(base, 10)
    resumption = Resumption(base.crossing, base.app)
    await resume(base, made)
    assert await resumption.once() == 4
    await pause(base, made)
    assert await resumption.once() == 0
    await look_at(base, await dispatched(base))  # these were poked too late
    assert await kept(base) == 10
    assert await base.value("SELECT count(*) FROM effects") == 0
    await resume(base, made)
    await everything_done(base, ids)


async def test_a_resume_waits_for_nobody_and_finds_who_stays_while_it_commits(base, box):
    made, (one,) = await inside(base, 1)
    await pause(base, made)
    async with base.transaction() as tx:
        await advance_all(tx, [one])
        async with asyncio.timeout(4):  # less than it would wait for a lock
            await resume(base, made)
    assert await kept(base) == 1  # it had seen the pause
    await dispatched(base)
    assert await Resumption(base.crossing, base.app).once() == 1
    assert await dispatched(base) == [one]


async def test_who_is_being_stopped_while_a_batch_goes_on_holds_nobody_up(base, box):
    made, ids = await has_waited(base, 5)
    await resume(base, made)
    async with base.transaction() as tx:
        await stops.locked(tx, ids[0], Target.ENROLLMENT)
        assert await Resumption(base.crossing, base.app).once() == 4
    assert await Resumption(base.crossing, base.app).once() == 1


async def everything_done(base, ids):
    """Lets time pass and everybody be poked, until all are through; each step was taken once."""
    resumption = Resumption(base.crossing, base.app)
    for _ in range(4):
        while await kept(base):
            await resumption.once()
            await look_at(base, await dispatched(base))
        await look_at(base, ids)
        await base.pass_time(timedelta(days=3))
    await look_at(base, ids)
    taken = await base.rows(
        "SELECT x.status, x.exit_reason, x.steps_taken, count(*) AS people FROM executions x GROUP BY 1, 2, 3"
    )
    assert taken == [{"status": "ended", "exit_reason": "completed", "steps_taken": 4, "people": len(ids)}]
    made = "SELECT count(*) AS tasks, count(DISTINCT (execution_id, subject, id)) AS each FROM activities"
    assert await base.rows(made) == [{"tasks": 2 * len(ids), "each": 2 * len(ids)}]
    assert await base.value("SELECT count(*) FROM effects") == 4 * len(ids)
    assert await base.value("SELECT count(*) FROM wakes") == 0


@pytest.mark.timeout(1800)
async def test_many_are_paused_and_resumed_again_and_again_while_their_waits_end_and_each_step_is_taken_once(
    base, box, thorough
):
    """A hundred thousand with `--thorough`: pauses, resumes, timers and pokes, all at once."""
    made, ids = await inside(base, 100_000 if thorough else 400)
    chance = random.Random(SEED)  # noqa: S311  (chance, not secrets)
    resumption = Resumption(base.crossing, base.app)
    over = asyncio.Event()

    async def changing_their_mind():
        for _ in range(6):
            await pause(base, made)
            await base.pass_time(timedelta(hours=chance.randint(1, 30)))
            await look_at(base, chance.sample(ids, len(ids) // 3))
            await resume(base, made)
        over.set()

    async def relay():
        while not over.is_set():
            await resumption.once()
            await look_at(base, await dispatched(base))

    await asyncio.gather(changing_their_mind(), relay(), relay())
    await everything_done(base, ids)
