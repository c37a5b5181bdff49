# mypy: ignore-errors
"""What is only kept for a while goes when its time is over, and nothing else goes."""

from datetime import timedelta
from uuid import uuid4

import pytest
from sqlalchemy import event

from domain.inbound_mail import Letter as Parsed
from domain.inbound_mail import LetterKind
from domain.words import NotEnrolled, ReminderStatus, Target
from store import enrollments, intents, letters, reminders, retention, stops
from tests.driving import (
    act,
    advance,
    as_admin,
    claimed,
    drive,
    enroll,
    enrolled,
    letter,
    mail,
    make_deal,
    make_mailbox,
    match_all,
    move,
    on_stage,
    receive,
    reply_to,
    sender,
    sequence,
    switch_on,
    task,
    the_execution,
    the_message,
    wait,
    written,
)
from tests.store.raw import Rows, add_events, connected, insert_all, tenant_tables
from triggers.sweep import Retention

KEPT = {  # the table → the column, the days, whose clock
    "inbox": ("received_at", 30, "clock_timestamp()"),
    "idempotency_keys": ("created_at", 2, "clock_timestamp()"),
    "outbox": ("failed_at", 90, "clock_timestamp()"),
    "wakes": ("failed_at", 90, "clock_timestamp()"),
    "notifications": ("read_at", 90, "business_now()"),
    "notifications, read or not": ("created_at", 365, "business_now()"),
    "refusals": ("at", 365, "business_now()"),
}
HISTORY = timedelta(days=400)


async def counts(base):
    async with connected(base.admin_url) as admin:
        return {table: await admin.fetchval(f"SELECT count(*) FROM {table}") for table in await tenant_tables(admin)}


async def filled(base):
    async with connected(base.app_url, base.org) as mine:
        await insert_all(mine, Rows(base))
    return await counts(base)


async def aged(base, by):
    for table, (column, days, now) in KEPT.items():
        of = table.split(",")[0]
        await as_admin(base, f"UPDATE {of} SET {column} = {now} - interval '{days} days' + interval '{by}'")


def cleaning(base, history=HISTORY):
    return Retention(base.crossing, base.app, history)


def test_the_periods_are_those_that_are_promised():
    kept = [(k.table.name, k.column, k.period, k.real) for k in retention.KEPT]
    assert kept == [
        (table.split(",")[0], column, timedelta(days=days), now == "clock_timestamp()")
        for table, (column, days, now) in KEPT.items()
    ]


async def test_nothing_goes_before_its_time(base):
    before = await filled(base)
    await aged(base, "1 minute")
    assert await cleaning(base).once() == 0
    assert await counts(base) == before


@pytest.mark.parametrize("table", KEPT)
async def test_what_is_past_its_time_goes_and_nothing_else(base, table):
    before = await filled(base)
    column, days, now = KEPT[table]
    of = table.split(",")[0]
    await as_admin(base, f"UPDATE {of} SET {column} = {now} - interval '{days} days' - interval '1 minute'")
    assert await cleaning(base).once() == 1
    assert await counts(base) == before | {of: 0}
    assert await cleaning(base).once() == 0


async def test_events_and_wakes_that_still_wait_stay_however_old(base):
    before = await filled(base)
    for table in ("outbox", "wakes"):
        await as_admin(base, f"UPDATE {table} SET created_at = clock_timestamp() - interval '4000 days'")
    await as_admin(base, "DELETE FROM refusals")
    await as_admin(base, "DELETE FROM notifications")
    await base.pass_time(timedelta(days=4000))  # business time is not what machines repeat themselves by
    await cleaning(base).once()
    assert await counts(base) == before | {"refusals": 0, "notifications": 0}


@pytest.mark.parametrize("table", KEPT)
async def test_each_organizations_old_rows_go_and_no_neighbours(base, table):
    await filled(base)
    other = await base.another()
    async with connected(base.app_url, other.org) as theirs:
        await insert_all(theirs, Rows(other))
    of = table.split(",")[0]
    await as_admin(base, f"UPDATE {of} SET {KEPT[table][0]} = '2020-01-01' WHERE org_id = $1", base.org)
    await as_admin(base, "UPDATE notifications SET created_at = business_now() WHERE org_id = $1", other.org)
    assert await cleaning(base).once() == 1
    assert await base.value(f"SELECT count(*) FROM {of}") == 0
    assert await other.value(f"SELECT count(*) FROM {of}") == 1


async def test_a_great_many_go_in_batches(base, monkeypatch):
    monkeypatch.setattr(retention, "BATCH", 10)
    await as_admin(
        base,
        "INSERT INTO idempotency_keys (org_id, caller, route, key, body_hash, created_at)"
        " SELECT $1, $2, 'r', 'k' || n, '', '2020-01-01' FROM generate_series(1, 25) n",
        base.org,
        uuid4(),
    )
    gone = []
    for _ in range(4):
        async with base.transaction() as tx:
            gone.append(await retention.let_go_by_age(tx, HISTORY))
    assert gone == [10, 10, 5, 0]


@pytest.mark.parametrize("status", ["read", "settled"])
async def test_a_letters_raw_form_goes_half_a_year_after_it_was_read(base, status):
    before = await filled(base)
    await as_admin(base, "UPDATE notifications SET created_at = business_now()")
    await as_admin(base, "UPDATE refusals SET at = business_now()")
    await as_admin(base, f"UPDATE letters SET raw = 'came', status = '{status}', read_at = business_now()")
    await base.pass_time(timedelta(days=179))
    assert await cleaning(base).once() == 0
    await base.pass_time(timedelta(days=2))
    assert await cleaning(base).once() == 1
    assert await base.value("SELECT raw FROM letters") == b""
    assert await counts(base) == before
    assert await cleaning(base).once() == 0


@pytest.mark.parametrize("status", ["received", "unreadable"])
async def test_a_letter_that_nobody_has_understood_is_kept_as_it_came(base, status):
    await filled(base)
    await as_admin(base, f"UPDATE letters SET raw = 'came', status = '{status}', read_at = '2020-01-01'")
    await cleaning(base).once()
    assert await base.value("SELECT raw FROM letters") == b"came"


# --- the history: what is over


GONE = ("effects", "intents", "attempts", "pauses", "letters", "events", "notifications", "reminders")
STAY = ("contacts", "deals", "companies", "addresses", "activities", "definitions", "versions", "users")
FOLLOWED = sequence(mail(), wait(), mail("two"))


async def left(base, *tables):
    found = await counts(base)
    return {table: found[table] for table in tables}


async def answered(base, box, message):
    """Someone answers a message, and the answer is read."""
    id_, _ = await receive(base, letter(to=reply_to(message)))
    read = Parsed(kind=LetterKind.REPLY, text="words", full_text="words", subject="Re: Hello")
    async with base.transaction() as tx:
        await letters.understood(tx, id_, read)


async def an_enrollment(base, box):
    """Paused, resumed, written to, and ended by an answer; its id and its message's."""
    inside = await enrolled(base, FOLLOWED)
    for verb in (enrollments.pause, enrollments.resume):
        async with base.transaction() as tx:
            await verb(tx, inside)
    await advance(base, inside, "enrollment")
    async with sender(base) as send:
        await send.empty(base.org, box)
    message = await base.value("SELECT id FROM intents")
    await answered(base, box, message)
    return inside, message


async def a_run(base):
    """One that made a task, a reminder that was closed, and a notification; its id."""
    steps = task(), act("ring", "remind", title="Ring"), act("tell", "notify", title="Look")
    await switch_on(base, on_stage(*steps))
    await move(base, await make_deal(base))
    await drive(base)
    async with base.transaction() as tx:
        await reminders.close(tx, await base.value("SELECT id FROM reminders"), ReminderStatus.DONE)
    return await base.value("SELECT id FROM executions WHERE kind = 'run'")


async def let_go(base):
    """Until nothing more goes; how many rows."""
    count = 0
    while found := await cleaning(base).once():
        count += found
    return count


async def test_what_is_over_goes_as_a_whole_and_records_stay(base):
    inside, _ = await an_enrollment(base, await make_mailbox(base))
    await a_run(base)
    before = await counts(base)
    assert all(before[table] for table in (*GONE, *STAY) if table != "companies")
    assert before["executions"] == 2
    await base.pass_time(timedelta(days=399, hours=12))
    await let_go(base)
    for table in ("effects", "intents", "attempts", "letters", "executions"):
        assert (await left(base, table))[table] == before[table], table
    await base.pass_time(timedelta(days=2))
    await let_go(base)
    assert await left(base, *GONE) == dict.fromkeys(GONE, 0)
    assert await left(base, *STAY) == {table: before[table] for table in STAY}
    assert await base.value("SELECT count(*) FROM activities WHERE execution_id IS NOT NULL") == 0
    (stays,) = await base.rows("SELECT id, kind, exit_reason, let_go_at IS NOT NULL AS let_go FROM executions")
    assert stays == {"id": inside, "kind": "enrollment", "exit_reason": "replied", "let_go": True}


async def test_who_went_through_a_sequence_once_is_known_for_good(base):
    inside, _ = await an_enrollment(base, await make_mailbox(base))
    await base.pass_time(timedelta(days=4000))
    await let_go(base)
    told = await base.rows("SELECT definition_id, contact_id FROM executions")
    (answer,) = await enroll(base, told[0]["definition_id"], told[0]["contact_id"])
    assert (answer.reason, answer.existing) == (NotEnrolled.ENROLLED_BEFORE, inside)


async def test_what_sleeps_however_long_stays_with_the_event_it_came_of_and_goes_on(base):
    await switch_on(base, on_stage(task("a"), wait("w", 900), task("b")))
    await move(base, await make_deal(base))
    await match_all(base)
    run = await base.value("SELECT id FROM executions")
    await base.pass_time(timedelta(days=899))
    await let_go(base)
    assert await left(base, "executions", "effects", "events") == {"executions": 1, "effects": 1, "events": 1}
    await drive(base)
    told = await base.rows("SELECT status, exit_reason FROM executions WHERE id = :run", run=run)
    assert told == [{"status": "ended", "exit_reason": "completed"}]
    assert await base.value("SELECT count(*) FROM activities") == 2


@pytest.mark.parametrize("status", ["claimed", "uncertain"])
async def test_what_is_over_stays_while_it_is_not_known_what_became_of_its_mail(base, status):
    box = await make_mailbox(base)
    inside = await written(base, FOLLOWED)
    await claimed(base, (await the_message(base))["id"], box)
    async with base.transaction() as tx:
        await stops.stop(tx, inside, Target.ENROLLMENT, None)
    if status == "uncertain":
        await as_admin(base, "UPDATE intents SET deadline = clock_timestamp()")
        async with base.transaction() as tx:
            await intents.expire(tx, box)
    assert ((await the_execution(base))["status"], (await the_message(base))["status"]) == ("ended", status)
    await base.pass_time(timedelta(days=4000))
    await let_go(base)
    assert await left(base, "intents", "attempts") == {"intents": 1, "attempts": 1}
    assert (await the_execution(base))["let_go_at"] is None


async def test_a_late_answer_keeps_what_it_answers_until_it_is_old_itself(base):
    box = await make_mailbox(base)
    _, message = await an_enrollment(base, box)
    await base.pass_time(timedelta(days=399))
    await answered(base, box, message)
    await base.pass_time(timedelta(days=100))
    await let_go(base)
    assert await left(base, "letters", "intents", "attempts") == {"letters": 1, "intents": 1, "attempts": 1}
    await base.pass_time(timedelta(days=301))
    await let_go(base)
    assert await left(base, "letters", "intents", "attempts") == {"letters": 0, "intents": 0, "attempts": 0}


async def test_a_reminder_that_nobody_has_closed_goes_when_it_was_last_heard_of_long_ago(base):
    async with base.transaction() as tx:
        now = await base.value("SELECT business_now()")
        for days in (1, 500):
            await reminders.create(tx, {"owner_id": base.rep, "title": "Ring", "due_at": now + timedelta(days=days)})
    await drive(base)  # which takes five hundred days
    await let_go(base)
    assert await base.rows("SELECT status FROM reminders") == [{"status": "fired"}]


async def test_a_reminder_that_was_put_off_for_years_stays_as_long_after_it_acted_as_any(base):
    now = await base.value("SELECT business_now()")
    async with base.transaction() as tx:
        asked = {"owner_id": base.rep, "title": "Ring", "due_at": now, "escalate_after": {"amount": 1, "unit": "days"}}
        one = await reminders.create(tx, asked)
    await drive(base)
    assert await base.value("SELECT escalated_at IS NOT NULL FROM reminders")
    async with base.transaction() as tx:
        await reminders.snooze(tx, one.id, now + timedelta(days=1000))
    await as_admin(base, "UPDATE reminders SET escalate_after = NULL")
    await drive(base)
    await as_admin(base, "DELETE FROM notifications")
    await let_go(base)
    assert await left(base, "reminders") == {"reminders": 1}


async def test_what_one_organization_fails_at_does_not_keep_the_others(base, capsys):
    async def whole(one):
        await a_run(one)
        await one.pass_time(timedelta(days=1))

    await whole(base)
    other = await base.another()
    await whole(other)
    await base.pass_time(timedelta(days=4000))
    refuse = "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no'; END $$"
    await as_admin(base, refuse)
    await as_admin(
        base,
        f"CREATE TRIGGER refuse BEFORE DELETE ON effects FOR EACH ROW WHEN (OLD.org_id = '{base.org}')"
        " EXECUTE FUNCTION refuse()",
    )
    try:
        await let_go(base)
        assert await base.value("SELECT count(*) FROM effects") > 0
        assert await other.value("SELECT count(*) FROM effects") == 0
        assert "retention_failed" in capsys.readouterr().out
    finally:
        await as_admin(base, "DROP FUNCTION refuse CASCADE")
    await let_go(base)
    assert await base.value("SELECT count(*) FROM effects") == 0


async def test_events_wait_while_many_have_yet_to_be_matched(base, monkeypatch):
    monkeypatch.setattr(retention, "PAGE", 3)
    await add_events(base, 3)
    await base.pass_time(timedelta(days=4000))
    assert await cleaning(base).once() == 0
    await as_admin(base, "DELETE FROM outbox")
    await let_go(base)
    assert await left(base, "events") == {"events": 0}


async def test_the_history_goes_in_batches_from_the_oldest_on(base, monkeypatch):
    await a_run(base)
    await switch_on(base, on_stage(task("more"), to=("qualified",)), "Another")
    for number in range(5):
        await move(base, await make_deal(base, f"Deal {number}"), "qualified")
    await drive(base)
    await base.pass_time(timedelta(days=4000))
    monkeypatch.setattr(retention, "WHOLES", 2)
    monkeypatch.setattr(retention, "PAGE", 3)
    monkeypatch.setattr(retention, "BATCH", 4)
    gone = {}
    for part in retention.PARTS:
        batches = gone.setdefault(part.__name__, [])
        while not batches or batches[-1]:
            async with base.transaction() as tx:
                batches.append(await part(tx, HISTORY))
    assert gone["let_go_executions"] == [2, 2, 2, 0]
    assert max(gone["let_go_events"]) == 6
    assert await left(base, "executions", "effects", "events") == {"executions": 0, "effects": 0, "events": 0}


async def test_one_organizations_history_goes_and_no_neighbours(base):
    await a_run(base)
    await base.pass_time(timedelta(days=4000))
    other = await base.another()
    await a_run(other)
    (before,) = await other.rows("SELECT (SELECT count(*) FROM events) AS e, (SELECT count(*) FROM effects) AS f")
    await let_go(base)
    assert await base.value("SELECT count(*) FROM events") == 0
    assert await other.rows("SELECT (SELECT count(*) FROM events) AS e, (SELECT count(*) FROM effects) AS f") == [
        before
    ]


async def test_a_pass_that_finds_nothing_is_sixteen_statements(base):
    await a_run(base)
    seen = []

    def note(_connection, _cursor, statement, *_rest):
        seen.append(statement)

    event.listen(base.app.engine.sync_engine, "before_cursor_execute", note)
    assert await cleaning(base).once() == 0
    assert len(seen) == 3 + 1 + len(retention.KEPT) + 2 + 1 + 2


async def test_what_is_younger_cannot_be_deleted_whatever_is_asked_for(base):
    await a_run(base)
    before = await counts(base)
    await base.pass_time(timedelta(days=399))
    await cleaning(base, timedelta(days=1)).once()
    assert await left(base, "executions", "effects", "events") == {
        table: before[table] for table in ("executions", "effects", "events")
    }
