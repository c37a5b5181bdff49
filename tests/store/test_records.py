import asyncio
import itertools
from dataclasses import replace
from uuid import uuid4

from domain.words import EventType, Kind
from store import activities, contacts, deals, events
from store.errors import DuplicateEmail
from store.events import Fact


async def test_twenty_parallel_creates_of_one_address_make_one_contact(base):
    async def create(email):
        async with base.transaction() as tx:
            return (await contacts.create(tx, {"email": email})).id

    results = await asyncio.gather(*(create("a@x.com") for _ in range(20)), return_exceptions=True)
    made = [result for result in results if not isinstance(result, Exception)]
    refused = [result for result in results if isinstance(result, DuplicateEmail)]
    assert len(made) == 1
    assert [error.existing for error in refused] == made * 19


async def test_numbers_of_a_subject_run_without_a_gap_under_parallel_moves(base):
    async with base.transaction() as tx:
        deal = (await deals.create(tx, {"title": "Big one"})).id

    async def move(stage):
        async with base.transaction() as tx:
            return await deals.move_stage(tx, deal, stage)

    stages = ["qualified", "proposal", "negotiation", "lead"] * 8
    moved = await asyncio.gather(*(move(stage) for stage in stages))
    told = [change for change in moved if change.before is not None]
    events = await base.rows("SELECT number, before, after FROM events WHERE subject_id = :id ORDER BY number", id=deal)
    assert [event["number"] for event in events] == list(range(1, len(told) + 2))
    for earlier, later in itertools.pairwise(events[1:]):
        assert later["before"]["stage"] == earlier["after"]["stage"]
    assert await base.value("SELECT revision FROM deals") == len(events)


async def test_moving_a_deal_to_where_it_stands_makes_no_event(base):
    async with base.transaction() as tx:
        deal = await deals.create(tx, {"title": "Still"})
        changed = await deals.move_stage(tx, deal.id, "lead")
    assert changed.before is None
    assert await base.value("SELECT count(*) FROM events") == 1


async def test_a_fact_that_no_rule_and_no_enrollment_could_hear_is_recorded_and_not_queued(base):
    queued = "SELECT e.type FROM outbox o JOIN events e ON e.org_id = o.org_id AND e.id = o.event_id ORDER BY o.id"
    async with base.transaction() as tx:
        contact = await contacts.create(tx, {"email": "jo@example.com"})
        deal = await deals.create(tx, {"title": "New", "contact_id": contact.id})
        await activities.create_task(tx, {"subject": "Call", "contact_id": contact.id})
        await deals.move_stage(tx, deal.id, "proposal")
        heard = Fact(EventType.ENROLLMENT_ENDED, Kind.ENROLLMENT, uuid4(), 1, {}, {})
        await events.tell(tx, [replace(heard, type=EventType.ENROLLMENT_STARTED, subject=uuid4()), heard])
        assert tx.hints == {"drumbeat_outbox"}
    told = [row["type"] for row in await base.rows(queued)]
    assert sorted(told) == ["contact.created", "deal.stage_changed", "enrollment.ended"]
    assert await base.value("SELECT count(*) FROM events") == 6
    async with base.transaction() as tx:
        await deals.create(tx, {"title": "Another"})
        assert not tx.hints, "nor is the relay bothered"
