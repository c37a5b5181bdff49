"""The relay: each event is matched once, each decision is a row, and one that cannot be matched holds nothing up."""

import asyncio

import pytest

from domain.words import Target
from store import contacts, stops
from tests.driving import (
    act,
    advance,
    as_admin,
    drive,
    is_,
    make_deal,
    match_all,
    move,
    on_contact,
    on_stage,
    relay_of,
    start_run,
    switch_on,
    task,
    wait,
)
from tests.store.raw import add_events, connected, poison


async def test_two_relays_at_once_match_each_event_exactly_once(base):
    await switch_on(base, on_contact(wait()))
    for start in range(0, 300, 50):
        async with base.transaction() as tx:
            for number in range(start, start + 50):
                await contacts.create(tx, {"email": f"c{number}@example.com"})
    passes = await asyncio.gather(*(_until_empty(base, relay_of(base)) for _ in range(2)))
    assert sum(passes) == 300
    assert await base.value("SELECT count(*) FROM outbox") == 0
    assert await base.value("SELECT count(*) FROM executions") == 300
    assert await base.value("SELECT count(DISTINCT event_id) FROM executions") == 300


async def _until_empty(base, relay):
    count, deadline = 0, asyncio.get_running_loop().time() + 60
    while asyncio.get_running_loop().time() < deadline:
        count += await relay.once()
        if await base.value("SELECT count(*) FROM outbox") == 0:
            return count
    raise AssertionError("events are left after a minute")


async def test_an_event_starts_one_run_of_every_rule_that_wants_it(base):
    for number in range(3):
        await switch_on(base, on_stage(task()), f"Rule {number}")
    await switch_on(base, on_contact(task()), "Of contacts")
    await move(base, await make_deal(base))
    await match_all(base)
    assert await base.value("SELECT count(*) FROM executions") == 3
    assert await base.value("SELECT count(*) FROM refusals") == 0  # a rule for contacts has nothing to say to a deal


async def test_a_stage_rule_hears_only_its_stages_and_a_move_to_where_a_deal_stands_is_no_event(base):
    document = on_stage(task(), to=["proposal"]).model_dump(mode="json", by_alias=True)
    document["trigger"]["from"] = ["qualified"]
    await switch_on(base, type(on_stage(task())).model_validate(document))
    deal = await make_deal(base)
    for stage in ("proposal", "qualified", "qualified", "proposal", "proposal"):
        await move(base, deal, stage)
    await match_all(base)
    assert await base.value("SELECT count(*) FROM executions") == 1


async def test_what_decided_is_kept_with_a_run_and_with_a_refusal(base):
    await switch_on(base, on_stage(task(), conditions=is_("deal.valueCents", "gte", 1000)))
    for value in (1000, 999):
        await move(base, await make_deal(base, value_cents=value))
    await match_all(base)
    saw = {"holds": True, "path": "/conditions", "field": "deal.valueCents", "op": "gte", "expected": 1000, "saw": 1000}
    assert await base.value("SELECT saw FROM executions") == saw
    (refused,) = await base.rows("SELECT reason, saw FROM refusals")
    assert refused == {"reason": "conditions_not_met", "saw": saw | {"holds": False, "saw": 999}}


async def test_a_value_that_is_missing_is_refused_as_unknown_and_not_as_false(base):
    await switch_on(base, on_stage(task(), conditions=is_("contact.title", "eq", "CEO")))
    await move(base, await make_deal(base))
    await match_all(base)
    (refused,) = await base.rows("SELECT saw FROM refusals")
    assert (refused["saw"]["holds"], refused["saw"]["saw"]) == (None, None)


async def test_the_event_itself_can_be_asked_about(base):
    await switch_on(base, on_stage(task(), conditions=is_("event.before.stage", "eq", "lead")))
    deal = await make_deal(base)
    await move(base, deal)
    await move(base, deal, "qualified")
    await move(base, deal)
    await match_all(base)
    assert await base.value("SELECT count(*) FROM executions") == 1
    assert await base.value("SELECT count(*) FROM refusals") == 1


# --- loops


async def test_a_rule_is_refused_its_own_consequence(base):
    await switch_on(base, on_stage(act("back", "move_stage", to="negotiation"), to=["proposal", "negotiation"]))
    await move(base, await make_deal(base))
    await match_all(base)
    assert await base.value("SELECT count(*) FROM executions") == 1
    assert [row["reason"] for row in await base.rows("SELECT reason FROM refusals")] == ["own_consequence"]
    assert await base.value("SELECT stage FROM deals") == "negotiation"


async def test_two_rules_that_feed_each_other_run_once_each(base):
    await switch_on(base, on_stage(act("a", "move_stage", to="negotiation"), to=["proposal"]), "There")
    await switch_on(base, on_stage(act("b", "move_stage", to="proposal"), to=["negotiation"]), "Back")
    await move(base, await make_deal(base))
    await match_all(base)
    assert await base.value("SELECT count(*) FROM executions") == 2
    assert [row["reason"] for row in await base.rows("SELECT reason FROM refusals")] == ["own_consequence"]


async def test_the_sixth_rule_of_a_chain_is_refused(base):
    path = ["qualified", "proposal", "negotiation", "closed_won", "closed_lost", "lead"]
    for here, there in zip(path, [*path[1:], "qualified"], strict=True):
        await switch_on(base, on_stage(act("on", "move_stage", to=there), to=[here]), f"At {here}")
    await move(base, await make_deal(base), "qualified")
    await match_all(base)
    assert await base.value("SELECT count(*) FROM executions") == 5
    assert [row["reason"] for row in await base.rows("SELECT reason FROM refusals")] == ["chain_too_deep"]
    depths = await base.rows("SELECT cardinality(chain) AS depth FROM executions ORDER BY 1")
    assert [row["depth"] for row in depths] == [1, 2, 3, 4, 5]
    assert await base.value("SELECT stage FROM deals") == "lead"


# --- what cannot be matched


async def test_a_poisonous_event_keeps_its_error_after_two_attempts_and_the_others_flow(base):
    await switch_on(base, on_stage(task()))
    good = [await make_deal(base, f"Deal {number}") for number in range(4)]
    await match_all(base)
    for deal in good[:2]:
        await move(base, deal)
    await poison(base)
    for deal in good[2:]:
        await move(base, deal)
    relay = relay_of(base)
    await relay.once()
    assert await base.value("SELECT count(*) FROM executions") == 4
    (row,) = await base.rows("SELECT attempts, error, failed_at FROM outbox WHERE attempts > 0")
    assert (row["attempts"], row["failed_at"]) == (1, None)
    await relay.once()
    (row,) = await base.rows("SELECT attempts, error, failed_at FROM outbox WHERE attempts > 0")
    assert row["attempts"] == 2
    assert row["failed_at"] is not None
    assert "executions_org_id_deal_id_fkey" in row["error"]
    await match_all(base)
    assert await base.value("SELECT attempts FROM outbox") == 2


async def test_a_document_that_cannot_be_read_holds_up_its_own_organization_only_and_loses_nothing(base):
    other = await base.another()
    for one in (base, other):
        await switch_on(one, on_stage(task()))
        await move(one, await make_deal(one))
    kept = await base.value("SELECT document::text FROM versions")
    await as_admin(base, 'UPDATE versions SET document = \'{"steps": "none"}\' WHERE org_id = $1', base.org)
    relay = relay_of(base)
    for _ in range(3):
        await relay.once()
    assert await other.value("SELECT count(*) FROM executions") == 1
    rows = await base.rows("SELECT attempts, error FROM outbox")
    assert [(row["attempts"], "ValidationError" in row["error"]) for row in rows] == [(2, True)]
    await as_admin(base, "UPDATE versions SET document = $2::text::jsonb WHERE org_id = $1", base.org, kept)
    await base.rows("UPDATE outbox SET attempts = 0, failed_at = NULL RETURNING id")
    await match_all(base)
    assert await base.value("SELECT count(*) FROM executions") == 1


async def test_a_database_that_is_busy_is_not_the_events_fault(base):
    await switch_on(base, on_stage(task()))
    await move(base, await make_deal(base))
    relay = relay_of(base)
    async with connected(base.admin_url) as admin, admin.transaction():
        await admin.execute("LOCK TABLE executions IN ACCESS EXCLUSIVE MODE")  # as an upgrade does
        for _ in range(2):
            await relay.once()
    assert [(row["attempts"], row["error"]) for row in await base.rows("SELECT attempts, error FROM outbox")] == [
        (0, None)
    ]
    await match_all(base)
    assert await base.value("SELECT count(*) FROM activities") == 1


async def test_a_lock_held_by_another_leaves_the_run_to_its_workflow_and_the_event_matched(base):
    await switch_on(base, on_stage(task()))
    deal = await make_deal(base)
    await move(base, deal)
    async with base.transaction() as holder:
        await holder.connection.exec_driver_sql("SELECT id FROM deals FOR NO KEY UPDATE")
        await relay_of(base).once()
    assert await base.value("SELECT count(*) FROM outbox") == 0
    (run,) = await base.rows("SELECT id, status, steps_taken FROM executions")
    assert (run["status"], run["steps_taken"]) == ("open", 0)
    assert await base.value("SELECT target_id FROM wakes") == run["id"]
    assert (await advance(base, run["id"])).done
    assert await base.value("SELECT count(*) FROM activities") == 1


# --- the first attempt


async def test_what_the_relay_finishes_itself_never_asks_for_a_workflow(base):
    await switch_on(base, on_stage(task()))
    await move(base, await make_deal(base))
    await match_all(base)
    assert await base.value("SELECT status FROM executions") == "ended"
    assert await base.value("SELECT count(*) FROM wakes") == 0


async def test_what_must_wait_is_left_standing_at_its_wait_with_a_wake(base):
    await switch_on(base, on_stage(task(), wait("pause"), task("again")))
    await move(base, await make_deal(base))
    await match_all(base)
    (run,) = await base.rows("SELECT id, status, step, steps_taken FROM executions")
    assert (run["status"], run["step"], run["steps_taken"]) == ("open", "pause", 1)
    assert await base.value("SELECT target_id FROM wakes") == run["id"]


async def test_consequences_of_a_first_attempt_are_matched_in_turn(base):
    await switch_on(base, on_stage(act("on", "move_stage", to="negotiation"), to=["proposal"]), "First")
    await switch_on(base, on_stage(task(), to=["negotiation"]), "Second")
    await move(base, await make_deal(base))
    await match_all(base)
    assert await base.value("SELECT count(*) FROM activities") == 1
    assert await base.value("SELECT array_length(chain, 1) FROM events WHERE type = 'task.created'") == 2


async def test_a_run_stopped_before_it_was_looked_at_does_nothing(base):
    run = await start_run(base, on_stage(task()))
    async with base.transaction() as tx:
        await stops.stop(tx, run, Target.RUN, None)
    await drive(base)
    assert await base.value("SELECT count(*) FROM effects") == 0


@pytest.mark.parametrize("first_attempt", [True, False])
async def test_an_event_that_concerns_nobody_is_simply_gone(base, first_attempt):
    await add_events(base, 3)
    await match_all(base, first_attempt=first_attempt)
    assert await base.value("SELECT count(*) FROM outbox") == 0
    assert await base.value("SELECT count(*) FROM events") == 3


async def test_a_deal_deleted_before_its_event_was_matched_starts_nothing_that_fails(base):
    await switch_on(base, on_stage(task()))
    deal = await make_deal(base)
    await move(base, deal)
    await base.rows("UPDATE deals SET deleted_at = business_now() RETURNING id")
    await match_all(base, first_attempt=False)
    (run,) = await base.rows("SELECT id, deal_id FROM executions")
    assert run["deal_id"] == deal
    await advance(base, run["id"])
    assert await base.value("SELECT stuck_reason FROM executions") == "nobody_to_assign"
