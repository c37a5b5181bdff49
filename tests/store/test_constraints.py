"""What the database itself refuses, whoever writes; raw SQL as the app's role."""

from datetime import timedelta
from uuid import uuid4

import asyncpg
import pytest

from tests.store.raw import AT, Rows, connected, insert, insert_all

BAD_VALUES = [
    ("users", "role", "owner"),
    ("users", "email", "Uma@example.com"),
    ("api_keys", "role", "root"),
    ("api_keys", "hash", b"short"),
    ("companies", "annual_revenue_cents", -1),
    ("companies", "name", ""),
    ("companies", "domain", "Initech.com"),
    ("companies", "custom_fields", "[]"),
    ("contacts", "lead_status", "hot"),
    ("contacts", "lead_source", "friend"),
    ("contacts", "lead_score", 101),
    ("contacts", "lead_score", -1),
    ("contacts", "email", "Jane@x.com"),
    ("contacts", "email", " jane@x.com"),
    ("contacts", "email", "a@b"),
    ("contacts", "email", "nobody"),
    ("contacts", "phone", "0" * 51),
    ("contacts", "tags", ["vip", None]),
    ("contacts", "custom_fields", '"text"'),
    ("contacts", "revision", 0),
    ("stages", "kind", "maybe"),
    ("stages", "probability", 101),
    ("stages", "key", "Upper Case"),
    ("deals", "value_cents", -1),
    ("deals", "currency", "usd"),
    ("deals", "currency", "EURO"),
    ("deals", "probability", 101),
    ("deals", "probability", -1),
    ("deals", "outcome", "drawn"),
    ("deals", "outcome", "won"),  # without won_at
    ("deals", "won_at", AT),  # without an outcome
    ("deals", "title", ""),
    ("activities", "type", "fax"),
    ("activities", "direction", "sideways"),
    ("activities", "duration_seconds", -1),
    ("activities", "priority", "urgent"),
    ("activities", "subject", ""),
    ("activities", "due_at", AT),  # only a task is due
    ("events", "actor_kind", "ghost"),
    ("events", "number", 0),
    ("wakes", "kind", "dream"),
    ("definitions", "kind", "spell"),
    ("definitions", "status", "on"),
    ("versions", "number", 0),
    ("activations", "until", AT - timedelta(days=1)),
    ("executions", "kind", "walk"),
    ("executions", "status", "lost"),
    ("executions", "status", "ended"),  # without a reason
    ("executions", "status", "stuck"),  # without a reason
    ("executions", "due_at", None),  # an open one is due some time
    ("executions", "exit_reason", "bored"),
    ("executions", "stuck_reason", "record_missing"),  # of one that is open
    ("effects", "outcome", "perhaps"),
    ("effects", "visit", 0),
    ("effects", "made_kind", "activity"),  # without what was made
    ("refusals", "reason", "mood"),
    ("reminders", "status", "lost"),
    ("reminders", "due_at", None),  # a scheduled one is due
    ("reminders", "status", "done"),  # with a due time left
    ("notifications", "reason", "whim"),
    ("notifications", "reminder_id", uuid4()),  # without its occurrence
    ("inbox", "message_id", ""),
    ("idempotency_keys", "key", ""),
]


@pytest.mark.parametrize(("table", "column", "value"), BAD_VALUES)
async def test_a_value_outside_its_vocabulary_or_range_is_refused(base, table, column, value):
    rows = Rows(base)
    async with connected(base.app_url, base.org) as connection:
        await insert_all(connection, rows, until=table)
        with pytest.raises(asyncpg.CheckViolationError):
            await insert(connection, table, {**rows.of(table), column: value})
        await insert(connection, table, rows.of(table))  # the row was bad for that value alone


NULLS = [
    ("events", "before"), ("events", "at"), ("deals", "stage"), ("contacts", "revision"), ("effects", "saw"),
    ("executions", "anchor"), ("reminders", "owner_id"), ("users", "name"), ("versions", "document"),
]  # fmt: skip


@pytest.mark.parametrize(("table", "column"), NULLS)
async def test_what_must_be_there_must_be_there(base, table, column):
    rows = Rows(base)
    async with connected(base.app_url, base.org) as connection:
        await insert_all(connection, rows, until=table)
        with pytest.raises(asyncpg.NotNullViolationError):
            await insert(connection, table, {**rows.of(table), column: None})


DUPLICATES = [
    ("organizations", {"slug"}, {}),
    ("users", {"email"}, {}),
    ("api_keys", {"hash"}, {}),
    ("contacts", {"email"}, {}),
    ("contacts", {"external_id"}, {"external_id": "hs-1", "email": None}),
    ("companies", {"external_id"}, {"external_id": "hs-1"}),
    ("deals", {"external_id"}, {"external_id": "hs-1"}),
    ("stages", {"position"}, {"key": "again"}),
    ("events", {"subject_id", "number"}, {}),
    ("definitions", {"name"}, {"name": "RULE"}),
    ("versions", {"number"}, {}),
    ("activations", {"until"}, {}),
    ("executions", {"definition_id", "event_id"}, {}),
    ("effects", {"step", "visit"}, {"number": 2}),
    ("effects", {"number"}, {"step": "another"}),
    ("refusals", {"event_id"}, {}),
    ("inbox", {"message_id"}, {}),
]


@pytest.mark.parametrize(("table", "_because", "also"), DUPLICATES)
async def test_a_second_of_what_there_may_be_one_of_is_refused(base, table, _because, also):
    rows = Rows(base)
    async with connected(base.app_url, base.org) as connection:
        await insert_all(connection, rows)
        if table == "organizations":
            new = uuid4()
            await connection.execute("SELECT set_config('app.org', $1, false)", str(new))
            row = {"id": new, "name": "Copy", "slug": await _slug(base), "created_at": AT}
            with pytest.raises(asyncpg.UniqueViolationError):
                await insert(connection, table, row)
            return
        kept = {**rows.of(table), **also}
        if "external_id" in also:
            await insert(connection, table, {**kept, "id": uuid4()})
        second = {**kept, **({"id": uuid4()} if "id" in kept else {})}
        if table in ("users", "api_keys"):
            column = "email" if table == "users" else "hash"
            second[column] = await connection.fetchval(f"SELECT {column} FROM {table} LIMIT 1")
        with pytest.raises(asyncpg.UniqueViolationError):
            await insert(connection, table, second)


async def test_an_address_is_free_again_once_its_contact_is_deleted(base):
    rows = Rows(base)
    async with connected(base.app_url, base.org) as connection:
        await insert_all(connection, rows)
        await connection.execute("UPDATE contacts SET deleted_at = now()")
        await insert(connection, "contacts", {**rows.of("contacts"), "id": uuid4()})


async def test_two_organizations_may_know_the_same_person(base):
    other = await base.another()
    for one in (base, other):
        async with connected(base.app_url, one.org) as connection:
            await insert_all(connection, Rows(one))


async def test_a_stage_in_use_cannot_be_deleted_and_a_deal_cannot_stand_outside_its_pipeline(base):
    rows = Rows(base)
    async with connected(base.app_url, base.org) as connection:
        await insert_all(connection, rows)
        with pytest.raises(asyncpg.ForeignKeyViolationError):
            await connection.execute("DELETE FROM stages WHERE key = 'lead'")
        with pytest.raises(asyncpg.ForeignKeyViolationError):
            await connection.execute("UPDATE deals SET stage = 'nowhere'")
        await connection.execute("DELETE FROM stages WHERE key = 'extra'")
        await connection.execute("UPDATE stages SET name = 'Renamed', position = position + 100")
        assert await connection.fetchval("SELECT count(*) FROM deals") == 1


async def test_a_deal_is_in_dollars_and_worth_nothing_unless_said(base):
    rows = Rows(base)
    async with connected(base.app_url, base.org) as connection:
        await insert_all(connection, rows)
        deal = await connection.fetchrow("SELECT value_cents, currency FROM deals")
        assert tuple(deal) == (0, "USD")


async def test_one_reminder_is_told_once_for_each_occasion(base):
    rows = Rows(base)
    async with connected(base.app_url, base.org) as connection:
        await insert_all(connection, rows)
        told = {**rows.of("notifications"), "reason": "reminder", "reminder_id": rows.reminder}
        await insert(connection, "notifications", {**told, "id": uuid4(), "occurrence": 1})
        with pytest.raises(asyncpg.UniqueViolationError):
            await insert(connection, "notifications", {**told, "id": uuid4(), "occurrence": 1})
        await insert(connection, "notifications", {**told, "id": uuid4(), "occurrence": 2})


async def _slug(base):
    return await base.value("SELECT slug FROM organizations")
