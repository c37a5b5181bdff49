"""The invariants of the design: one test each, which fails when its guard is taken out."""

import asyncio
from datetime import timedelta

import httpx2
from pydantic import SecretStr
from sqlalchemy import text

from activities.send import Links, Send
from api.app import create_app
from domain.words import Role, Target
from runtime.doctor import repair
from runtime.settings import Settings
from store import contacts, definitions, identity, reminders, stops
from tests.driving import (
    advance,
    as_admin,
    blocked,
    enrolled,
    is_,
    mail,
    make_deal,
    make_mailbox,
    match_all,
    move,
    on_contact,
    on_stage,
    relay_of,
    sequence,
    start_run,
    switch_on,
    task,
    until,
    wait,
)
from tests.mailing import mail_server
from tests.store.raw import connected, poison, tenant_tables
from triggers.sweep import Sweep

ANY_NUMBER = 8


async def steps(base):
    return [row["step"] for row in await base.rows("SELECT step FROM effects ORDER BY execution_id, number")]


async def test_invariant_1_advance_may_be_called_by_anyone_any_number_of_times_and_does_only_what_is_due(base):
    run = await start_run(base, on_stage(task("now"), wait("pause", 1, "days"), task("later")))
    async with base.transaction() as tx:
        values = {"owner_id": base.rep, "title": "Ring", "due_at": tx.now + timedelta(days=1)}
        made = await reminders.create(tx, values)
    assert made is not None
    reminder = made.id

    async def everyone():
        looks = [(run, "run"), (reminder, "reminder")] * ANY_NUMBER
        return await asyncio.gather(*(advance(base, *look) for look in looks))

    told = "SELECT count(*) FROM notifications"
    for passes, expected, count in (
        (timedelta(0), ["now"], 0),
        (timedelta(hours=23), ["now"], 0),
        (timedelta(hours=1), ["now", "pause", "later"], 1),
        (timedelta(days=99), ["now", "pause", "later"], 1),
    ):
        await base.pass_time(passes)
        await everyone()
        assert await steps(base) == expected
        assert await base.value(told) == count
    assert await base.rows("SELECT status, stuck_detail FROM executions") == [{"status": "ended", "stuck_detail": None}]


async def test_invariant_2_every_open_row_can_be_recovered_from_the_database_alone(base):
    run = await start_run(base, on_stage(wait("pause", 1, "days"), task()))
    await advance(base, run)
    async with base.transaction() as tx:
        values = {"owner_id": base.rep, "title": "Ring", "due_at": tx.now + timedelta(days=2)}
        made = await reminders.create(tx, values)
    assert made is not None
    reminder = made.id
    await lose_everything(base)

    # Everything that is open, at once, when a person asks.
    settings = Settings(database_url=SecretStr(base.app_url), relay_database_url=SecretStr(base.relay_url))
    await repair(settings, dry=True)
    assert await woken(base) == set()
    await repair(settings, dry=False)
    assert await woken(base) == {("run", run), ("reminder", reminder)}

    # What is overdue, by itself.
    await lose_everything(base)
    sweep = Sweep(base.crossing, base.app)
    for passes, target in ((timedelta(days=1, seconds=61), ("run", run)), (timedelta(days=1), ("reminder", reminder))):
        await base.pass_time(passes)
        await sweep.once()
        assert await woken(base) == {target}
        await advance(base, target[1], target[0])
        await lose_everything(base)
    assert await base.value("SELECT status FROM executions") == "ended"
    assert await base.value("SELECT status FROM reminders") == "fired"

    # There is no open row that nothing would ever come for.
    assert await base.rows("SELECT id FROM executions WHERE status = 'open' AND due_at IS NULL") == []
    for lost in ("UPDATE executions SET status = 'open', exit_reason = NULL, ended_at = NULL, due_at = NULL",
                 "UPDATE reminders SET status = 'scheduled', due_at = NULL"):  # fmt: skip
        outcome = await asyncio.gather(as_admin(base, lost), return_exceptions=True)
        assert "violates check constraint" in str(outcome[0])


async def lose_everything(base):
    """What Temporal knew, and every wake."""
    await base.rows("DELETE FROM wakes RETURNING id")


async def woken(base):
    return {(row["kind"], row["target_id"]) for row in await base.rows("SELECT kind, target_id FROM wakes")}


async def test_invariant_3_a_decision_is_recorded_before_it_is_acted_on_and_never_taken_twice(base):
    rule = await switch_on(base, on_contact(wait("pause", 1), task(), conditions=is_("contact.title", "eq", "CEO")))
    async with base.transaction() as tx:
        for number in range(60):
            await contacts.create(tx, {"email": f"c{number}@example.com", "title": "CEO", "owner_id": base.rep})
        await contacts.create(tx, {"email": "other@example.com", "title": "CTO"})
    matched = await asyncio.gather(*(relay_of(base).once() for _ in range(2)))
    await match_all(base)
    assert sum(matched) <= 61, "an event was matched by both"
    assert await base.value("SELECT count(*) FROM executions") == 60

    # The same events again: a restored queue, a second relay that came late.
    again = "INSERT INTO outbox (org_id, event_id) SELECT org_id, id FROM events RETURNING id"
    await base.rows(again)
    await match_all(base)
    assert await base.value("SELECT count(*) FROM outbox") == 0, "a decision that is there already is no error"
    assert await base.value("SELECT count(*) FROM executions") == 60
    assert await base.value("SELECT count(*) FROM refusals") == 1

    # The version stays the one that was chosen, and what it saw is there from the beginning.
    async with base.transaction() as tx:
        await definitions.add_version(tx, rule, on_contact(task("new")), expected=None)
        await definitions.activate(tx, rule, None, expected=None)
    await base.rows(again)
    await match_all(base)
    await base.pass_time(timedelta(days=1))
    runs = await base.rows("SELECT x.id, x.saw, v.number FROM executions x JOIN versions v ON v.id = x.version_id")
    assert {(run["number"], run["saw"]["saw"]) for run in runs} == {(1, "CEO")}
    for run in runs:
        await asyncio.gather(*(advance(base, run["id"]) for _ in range(2)))
    assert await base.value("SELECT count(*) FROM effects") == 2 * 60
    assert await base.value("SELECT count(*) FROM activities") == 60
    assert await base.value("SELECT count(*) FROM executions WHERE status = 'ended'") == 60
    assert await base.value("SELECT count(*) FROM effects WHERE saw = '{}'") == 0


async def test_invariant_4_a_persons_stop_holds_from_its_commit_on(base):
    document = on_stage(wait("pause", 1), task())
    before, during = await start_run(base, document, "One"), await start_run(base, document, "Two")
    for run in (before, during):
        await advance(base, run)
    await base.pass_time(timedelta(days=1))
    async with base.transaction() as tx:
        await stops.stop(tx, before, Target.RUN, "asked")
    await advance(base, before)

    async with base.transaction() as tx:
        await stops.stop(tx, during, Target.RUN, "asked")
        going = asyncio.create_task(advance(base, during))
        await until(lambda: blocked(base), "the advance to wait for the stop", 3)
    await going
    stopped = "SELECT count(*) FROM effects WHERE execution_id = ANY(:runs)"
    assert await base.value(stopped, runs=[before, during]) == 0
    rows = await base.rows("SELECT status, exit_reason FROM executions WHERE id = ANY(:runs)", runs=[before, during])
    assert rows == [{"status": "ended", "exit_reason": "stopped"}] * 2


async def test_invariant_5_nothing_leaves_but_from_a_claim_and_what_may_have_left_is_never_repeated(base, tmp_path):
    send = Send(base.app, bytes(32), Links("https://crm.example.com"))
    with mail_server(tmp_path / "mail.jsonl", "--drop-answer-of", "1") as server:
        box = await make_mailbox(base, transport="smtp", host="127.0.0.1", port=server.port, security="none")
        id_ = await enrolled(base, sequence(mail()))
        await advance(base, id_, "enrollment")
        assert server.received() == [], "it is written, and not claimed"
        await asyncio.gather(*(send.empty(base.org, box) for _ in range(ANY_NUMBER)))
        await send.empty(base.org, box)
        assert len(server.received()) == 1, "taken by the server, whose answer was lost: that is the end of it"
    await send.close()
    assert await base.value("SELECT status FROM intents") == "uncertain"
    assert await base.rows("SELECT number, outcome FROM attempts") == [{"number": 1, "outcome": "uncertain"}]
    assert await base.value("SELECT stuck_reason FROM executions") == "message_uncertain"


async def test_invariant_6_what_was_answered_is_committed_a_refusal_names_its_reason_and_bad_input_loses_nothing(base):
    async with base.transaction() as tx:
        _, token = await identity.create_key(tx, base.admin, "test", Role.ADMIN)
    await switch_on(base, on_stage(task(), conditions=is_("deal.valueCents", "gt", 100)))
    async with httpx2.AsyncClient(
        transport=httpx2.ASGITransport(create_app(base.app, bytes(32))),
        base_url="http://drumbeat/api/v1",
        headers={"Authorization": f"Bearer {token}"},
    ) as api:
        made = await api.post("/contacts", json={"email": "jo@example.com"})
        assert made.status_code == 201
        # Seen at once by somebody else entirely, with its event and the event's place in the queue.
        async with connected(base.app_url, base.org) as other:
            assert str(await other.fetchval("SELECT id FROM contacts")) == made.json()["contact"]["id"]
            assert await other.fetchval("SELECT count(*) FROM events e JOIN outbox o ON o.event_id = e.id") == 1
        again = await api.post("/contacts", json={"email": "JO@example.com"})
        assert (again.status_code, again.json()["code"]) == (409, "DUPLICATE_EMAIL")
        bad = await api.post("/contacts", json={"email": "jo@example.com", "shoeSize": 43})
        assert bad.status_code == 422
        assert "shoeSize" in bad.text
    assert await base.value("SELECT count(*) FROM contacts") == 1

    # A rule that does not start says why; an event that cannot be matched keeps its error, and the next one flows.
    await switch_on(base, on_stage(task()), "Always")
    await move(base, await make_deal(base, value_cents=1))
    await poison(base)
    await move(base, await make_deal(base, value_cents=1000))
    await match_all(base)
    assert [row["reason"] for row in await base.rows("SELECT reason FROM refusals")] == ["conditions_not_met"]
    assert await base.value("SELECT count(*) FROM executions") == 3
    (kept,) = await base.rows("SELECT error, failed_at FROM outbox")
    assert "executions_org_id_deal_id_fkey" in kept["error"]
    assert kept["failed_at"] is not None


async def test_invariant_7_no_transaction_sees_two_organizations(base):
    other = await base.another()
    for one in (base, other):
        run = await start_run(one, on_stage(task()))
        await advance(one, run)
    async with connected(base.admin_url) as admin:
        tables = await tenant_tables(admin)
    seen = 0
    for one in (base, other, base):  # on connections that served the other a moment ago
        async with one.transaction() as tx:
            for table in tables:
                column = "id" if table == "organizations" else "org_id"
                owners = set((await tx.execute(text(f"SELECT {column} FROM {table}"))).scalars())
                assert owners <= {one.org}, table
                seen += len(owners)
    assert seen > 30
    async with base.app.crossing() as nobody:  # what was set for a transaction ended with it
        for table in tables:
            assert (await nobody.execute(text(f"SELECT count(*) FROM {table}"))).scalar_one() == 0, table
