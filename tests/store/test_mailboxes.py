# mypy: ignore-errors
"""Mailboxes: whose mail they send, at what pace, and what keeps them still."""

from datetime import timedelta

import pytest

from domain.words import Kind
from store import definitions, enrollments, intents, mailboxes, sending
from store.intents import Claim
from tests.driving import (
    advance,
    as_admin,
    claimed,
    enroll,
    mail,
    make_contact,
    make_mailbox,
    next_monday,
    publish,
    sender,
    sequence,
)


@pytest.fixture
async def send(base):
    async with sender(base) as made:
        yield made


async def several(base, count, name="Sequence", **options):
    """So many mails that are due; their sequence's id."""
    made = await publish(base, sequence(mail()), name)
    for number in range(count):
        (one,) = await enroll(base, made, await make_contact(base, f"{name}{number}@example.com".lower()), **options)
        await advance(base, one.enrollment, "enrollment")
    return made


async def counted(base):
    rows = await base.rows("SELECT status, count(*) AS many FROM intents GROUP BY 1")
    return {row["status"]: row["many"] for row in rows}


async def verdict(base, box):
    async with base.transaction() as tx:
        return intents.may_send(tx, await intents.mailbox(tx, box))


async def later(base, seconds):
    """As if every claim had been taken so much earlier."""
    await as_admin(base, f"UPDATE attempts SET claimed_real = claimed_real - interval '{seconds} seconds'")


@pytest.mark.parametrize(
    ("pace", "most", "window"),
    [
        ({"perMinute": 3}, 3, 60),
        ({"perHour": 4}, 4, 3600),
        ({"perDay": 5}, 5, 86_400),
        ({"perMinute": 2, "perHour": 3}, 2, 60),
    ],
)
async def test_a_cap_lets_as_many_through_as_it_says_in_any_stretch_of_its_length(base, send, pace, most, window):
    box = await make_mailbox(base, pace=pace)
    await several(base, 8)
    answer = await send.empty(base.org, box)
    assert window - 30 < answer.seconds <= window
    assert await counted(base) == {"accepted": most, "pending": 8 - most}
    await later(base, window - 30)
    assert 0 < (await send.empty(base.org, box)).seconds <= 30
    assert (await counted(base))["accepted"] == most
    await later(base, 31)
    await send.empty(base.org, box)
    caps = {"perMinute": 60, "perHour": 3600, "perDay": 86_400}
    for cap, number in pace.items():
        crowd = await base.value(
            "SELECT max(crowd) FROM (SELECT count(*) OVER (ORDER BY claimed_real RANGE BETWEEN CURRENT ROW"
            f" AND interval '{caps[cap] - 0.001} seconds' FOLLOWING) AS crowd FROM attempts) AS crowds"
        )
        assert crowd <= number
    assert (await counted(base))["accepted"] == min(
        8, *(most * 2, *(pace.get("perHour", 9),)) if len(pace) > 1 else (most * 2,)
    )


async def test_the_window_rolls_so_that_each_claim_frees_its_place_when_it_is_old_enough(base):
    box = await make_mailbox(base, pace={"perMinute": 2})
    await several(base, 3)
    ids = [row["id"] for row in await base.rows("SELECT id FROM intents ORDER BY id")]
    assert isinstance(await claimed(base, ids[0], box), Claim)
    await later(base, 40)
    assert isinstance(await claimed(base, ids[1], box), Claim)
    refused = await claimed(base, ids[2], box)
    assert (refused.reason, 15 < refused.seconds <= 20) == ("per_minute", True)  # until the first is a minute old
    await later(base, 20)
    assert isinstance(await claimed(base, ids[2], box), Claim)


async def test_mails_keep_their_distance(base, send):
    box = await make_mailbox(base, pace={"spacing": 90})
    await several(base, 4)
    for sent in (1, 2, 3):
        answer = await send.empty(base.org, box)
        assert (await counted(base))["accepted"] == sent
        assert 60 < answer.seconds <= 90
        assert 60 < (await send.empty(base.org, box)).seconds <= 90
        assert (await counted(base))["accepted"] == sent
        await later(base, 90)


async def test_a_mailbox_sends_in_its_hours_only(base, send):
    monday = await next_monday(base)  # 9:00 in Berlin
    hours = [{"weekdays": ["mon", "tue"], "opens": "10:00", "closes": "11:00"}]
    box = await make_mailbox(base, pace={"hours": hours})
    await several(base, 1)
    answer = await send.empty(base.org, box)
    assert 3500 < answer.seconds <= 3600
    now = await base.value("SELECT business_now()")
    await base.pass_time(monday + timedelta(hours=1) - now - timedelta(seconds=1))
    answer = await verdict(base, box)
    assert (answer.limit, answer.seconds <= 1) == ("hours", True)
    await base.pass_time(timedelta(seconds=1))
    await send.empty(base.org, box)
    assert await counted(base) == {"accepted": 1}


async def test_in_time_lapse_hours_pass_faster_and_caps_do_not(time_lapse):
    opens = {"weekdays": ["mon"], "opens": "00:00", "closes": "00:01"}
    box = await make_mailbox(time_lapse, pace={"hours": [opens]})
    answer = await verdict(time_lapse, box)
    if answer.__class__.__name__ == "NotYet":  # but for a fraction of a second a week
        assert answer.seconds <= 7 * 86_400 / 21_600
    paced = await make_mailbox(time_lapse, "Paced", pace={"perMinute": 1})
    await several(time_lapse, 2, mailbox=paced)
    async with sender(time_lapse) as send:
        answer = await send.empty(time_lapse.org, paced)
    assert 40 < answer.seconds <= 60
    assert await counted(time_lapse) == {"accepted": 1, "pending": 1}


# --- what keeps them still


async def test_nothing_is_claimed_while_sending_is_stopped_and_all_goes_at_the_resume(base, send):
    box = await make_mailbox(base)
    await several(base, 2)
    async with base.transaction() as tx:
        await sending.stop(tx, "an accident")
    await send.empty(base.org, box)
    assert await counted(base) == {"pending": 2}
    await base.rows("DELETE FROM wakes RETURNING id")
    async with base.transaction() as tx:
        await sending.resume(tx)
    assert await base.rows("SELECT kind, target_id FROM wakes") == [{"kind": "mailbox", "target_id": box}]
    await send.empty(base.org, box)
    assert await counted(base) == {"accepted": 2}


async def test_nothing_is_claimed_while_a_mailbox_is_paused_and_its_resume_wakes_it(base, send):
    box = await make_mailbox(base)
    await several(base, 2)
    async with base.transaction() as tx:
        await mailboxes.pause(tx, box)
    assert (await send.empty(base.org, box)).done
    assert await counted(base) == {"pending": 2}
    await base.rows("DELETE FROM wakes RETURNING id")
    async with base.transaction() as tx:
        await mailboxes.resume(tx, box)
    assert await base.rows("SELECT kind, target_id FROM wakes") == [{"kind": "mailbox", "target_id": box}]
    await send.empty(base.org, box)
    assert await counted(base) == {"accepted": 2}


async def test_the_mail_of_a_paused_sequence_lets_that_of_others_through_the_same_pass(base, send):
    box = await make_mailbox(base)
    still = await several(base, 2, "Still")
    await several(base, 2, "Going")
    async with base.transaction() as tx:
        await definitions.pause(tx, still, expected=None, kind=Kind.SEQUENCE)
    assert (await send.empty(base.org, box)).done
    rows = await base.rows(
        "SELECT i.status, x.definition_id = :still AS still FROM intents i JOIN executions x ON x.id = i.execution_id",
        still=still,
    )
    assert {(row["still"], row["status"]) for row in rows} == {(True, "pending"), (False, "accepted")}
    async with base.transaction() as tx:
        await definitions.activate(tx, still, None, expected=None, kind=Kind.SEQUENCE)
    assert {"kind": "mailbox", "target_id": box} in await base.rows("SELECT kind, target_id FROM wakes")
    assert (await send.empty(base.org, box)).done
    assert await counted(base) == {"accepted": 4}


async def test_a_resume_floods_nobody(base, send):
    box = await make_mailbox(base, pace={"perMinute": 2})
    made = await several(base, 6)
    people = [row["id"] for row in await base.rows("SELECT id FROM executions")]
    async with base.transaction() as tx:
        for one in people:
            await enrollments.pause(tx, one)
    await base.pass_time(timedelta(days=30))
    async with base.transaction() as tx:
        for one in people:
            await enrollments.resume(tx, one)
    async with base.transaction() as tx:
        await definitions.pause(tx, made, expected=None, kind=Kind.SEQUENCE)
        await definitions.activate(tx, made, None, expected=None, kind=Kind.SEQUENCE)
    await send.empty(base.org, box)
    assert await counted(base) == {"accepted": 2, "pending": 4}


async def test_the_owners_own_mailbox_sends_else_the_oldest_that_is_nobodys(base):
    first = await make_mailbox(base, "First")
    await make_mailbox(base, "Second")
    own = await make_mailbox(base, "Rob's", owner_id=base.rep)
    async with base.transaction() as tx:
        senders = await mailboxes.senders(tx)
    assert senders.choose(base.rep, None) == own
    assert senders.choose(base.manager, None) == first
    assert senders.choose(None, None) == first
    assert senders.choose(base.rep, first) == first
