"""The loops that run for years: a pass that fails is tried again, a hint saves the pause, and an end is heard."""

import asyncio

from store import hints
from tests.driving import make_contact
from triggers import loops
from triggers.loops import repeat

LONG = 600.0
"""A pause that no test would live to see the end of."""


async def test_after_an_empty_pass_a_hint_brings_the_next_at_once():
    stopping, hint = asyncio.Event(), asyncio.Event()
    passes: list[int] = []

    async def once():
        passes.append(len(passes))
        if len(passes) == 3:
            stopping.set()
        asyncio.get_running_loop().call_soon(hint.set)
        return 0

    await asyncio.wait_for(repeat("test", once, pause=LONG, stopping=stopping, hint=hint), 5)
    assert passes == [0, 1, 2]


async def test_while_there_is_something_to_do_there_is_no_pause():
    stopping, found = asyncio.Event(), [50, 50, 50, 0]

    async def once():
        if len(found) == 1:
            stopping.set()
        return found.pop(0)

    await asyncio.wait_for(repeat("test", once, pause=LONG, stopping=stopping), 5)
    assert found == []


async def test_a_pass_that_fails_is_tried_again_and_ends_nothing():
    stopping = asyncio.Event()
    tries: list[int] = []

    async def once():
        tries.append(1)
        if len(tries) < 3:
            raise OSError("the database is away")
        stopping.set()
        return 0

    await asyncio.wait_for(repeat("test", once, pause=LONG, stopping=stopping), 10)
    assert len(tries) == 3


async def test_a_pass_that_fails_for_hours_is_tried_again_every_five_seconds(monkeypatch):
    stopping = asyncio.Event()
    pauses: list[float] = []

    async def rest(seconds, *_):
        pauses.append(seconds)
        if len(pauses) == 1200:
            stopping.set()

    async def once():
        raise OSError("the database is away")

    monkeypatch.setattr(loops, "_rest", rest)
    await asyncio.wait_for(repeat("test", once, pause=LONG, stopping=stopping), 10)
    assert pauses[:5] == [0.5, 1, 2, 4, 5]
    assert set(pauses[5:]) == {5}


async def test_an_end_is_heard_in_the_middle_of_a_pause():
    stopping, resting = asyncio.Event(), asyncio.Event()

    async def once():
        resting.set()
        return 0

    going = asyncio.create_task(repeat("test", once, pause=LONG, stopping=stopping))
    await asyncio.wait_for(resting.wait(), 5)
    stopping.set()
    await asyncio.wait_for(going, 5)


async def test_many_hints_are_given_as_one_and_none_is_left_out():
    given, telling, may_go = [], asyncio.Event(), asyncio.Event()

    async def tell(channels):
        given.append(channels)
        telling.set()
        await may_go.wait()

    hinting = hints.Hinting(tell)
    hinting.soon([])
    hinting.soon([hints.OUTBOX])
    await asyncio.wait_for(telling.wait(), 5)
    for _ in range(100):
        hinting.soon([hints.WAKES, hints.OUTBOX])
    may_go.set()
    await asyncio.wait_for(hinting.close(), 5)
    assert given == [[hints.OUTBOX], [hints.OUTBOX, hints.WAKES]]


async def test_a_fact_is_hinted_at_when_it_commits_and_again_after_the_connection_was_lost(base):
    stopping, outbox, wakes = asyncio.Event(), asyncio.Event(), asyncio.Event()
    channels = {hints.OUTBOX: outbox, hints.WAKES: wakes}
    listening = asyncio.create_task(hints.listen(base.relay_url, channels, stopping))
    for event in channels.values():
        await asyncio.wait_for(event.wait(), 10)  # set at the beginning, since notices may have been missed
        event.clear()
    await make_contact(base, "one@example.com")
    await asyncio.wait_for(outbox.wait(), 10)
    assert not wakes.is_set()
    async with base.crossing.crossing() as connection:
        await connection.exec_driver_sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE usename = current_user AND pid <> pg_backend_pid()"
        )
    await asyncio.wait_for(wakes.wait(), 10)
    outbox.clear()
    await make_contact(base, "two@example.com")
    await asyncio.wait_for(outbox.wait(), 10)
    stopping.set()
    await asyncio.wait_for(listening, 5)


async def test_what_comes_within_a_moment_of_a_look_is_dealt_with_together():
    stopping, hint, waiting, looks = asyncio.Event(), asyncio.Event(), 2, []

    async def once():
        nonlocal waiting
        found, waiting = waiting, 0
        looks.append(found)
        if len(looks) == 2:  # nothing was left
            for seconds in (0.0, 0.01):
                asyncio.get_running_loop().call_later(seconds, more)
        if len(looks) == 3:
            stopping.set()
        return found

    def more():
        nonlocal waiting
        waiting += 1
        hint.set()

    await asyncio.wait_for(repeat("test", once, pause=LONG, stopping=stopping, hint=hint, apart=0.3), 10)
    assert looks == [2, 0, 2]
