"""The migrated schema: up, down and up again, what the queries name, and the indexes they use."""

import asyncpg
import pytest

from runtime.migrating import ClockError, downgrade, migrate
from store.tables import metadata
from tests.store.raw import Rows, connected, insert_all, tenant_tables

_SCHEMA = """
  SELECT c.relname, a.attname, format_type(a.atttypid, a.atttypmod) AS type, a.attnotnull,
    pg_get_expr(d.adbin, d.adrelid) AS fallback
  FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
  LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
  WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r','i') AND c.relname <> 'alembic_version'
  ORDER BY 1, 2"""
_THE_REST = (
    """SELECT conrelid::regclass::text, pg_get_constraintdef(oid) FROM pg_constraint
    WHERE connamespace = 'public'::regnamespace AND contype <> 'n' ORDER BY 1, 2""",
    "SELECT tablename, policyname, roles::text, cmd, qual FROM pg_policies ORDER BY 1, 2",
    "SELECT proname, prosrc, proacl::text FROM pg_proc WHERE pronamespace = 'public'::regnamespace ORDER BY 1",
    """SELECT relname, relacl::text FROM pg_class WHERE relnamespace = 'public'::regnamespace
    AND relname NOT LIKE 'alembic%' AND relkind = 'r' ORDER BY 1""",
    "SELECT tgname, tgrelid::regclass::text FROM pg_trigger WHERE NOT tgisinternal ORDER BY 1, 2",
)


async def test_the_schema_comes_goes_and_comes_back_the_same(empty_database):
    admin_url, app_url, relay_url = empty_database
    await migrate(admin_url, app_url, relay_url, test=True)
    async with connected(admin_url) as admin:
        first = [await admin.fetch(query) for query in (_SCHEMA, *_THE_REST)]
        await downgrade(admin_url)
        left = await admin.fetch(
            "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relname NOT LIKE 'alembic%'"
            " UNION ALL SELECT proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace"
        )
        assert left == []
        await migrate(admin_url, app_url, relay_url, test=True)
        assert [await admin.fetch(query) for query in (_SCHEMA, *_THE_REST)] == first


async def test_migrating_again_changes_nothing_and_cannot_change_the_clock(empty_database):
    await migrate(*empty_database, scale=60)
    async with connected(empty_database[0]) as admin:
        before = await admin.fetchrow("SELECT * FROM clock")
        await migrate(*empty_database, scale=60)
        for scale, test in ((1, False), (60, True)):
            with pytest.raises(ClockError, match="scale 60"):
                await migrate(*empty_database, scale=scale, test=test)
        assert await admin.fetchrow("SELECT * FROM clock") == before


async def test_the_tables_that_queries_name_are_the_migrated_ones_column_for_column(base):
    kinds = {
        "uuid": "UUID", "text": "TEXT", "jsonb": "JSONB", "boolean": "BOOLEAN", "integer": "INTEGER",
        "smallint": "SMALLINT", "bigint": "BIGINT", "bytea": "BYTEA", "date": "DATE", "tsvector": "TSVECTOR",
        "timestamp with time zone": "TIMESTAMP WITH TIME ZONE", "uuid[]": "UUID[]", "text[]": "TEXT[]",
    }  # fmt: skip
    async with connected(base.admin_url) as admin:
        rows = await admin.fetch(_SCHEMA)
        tables = await tenant_tables(admin)
    there = {(r["relname"], r["attname"]): kinds[r["type"]] for r in rows if r["relname"] in tables}
    from sqlalchemy.dialects import postgresql

    named = {
        (table.name, column.name): column.type.compile(dialect=postgresql.dialect())
        for table in metadata.tables.values()
        for column in table.columns
    }
    assert named == there


USED = [
    # (what is asked, the index that answers it)
    ("SELECT id FROM contacts WHERE org_id = {org} AND email = 'a@x.com' AND deleted_at IS NULL", "contacts_email"),
    (
        "SELECT id FROM contacts WHERE org_id = {org} AND email = 'a@x.com' AND deleted_at IS NOT NULL",
        "contacts_email_of_deleted",
    ),
    (
        "SELECT id FROM contacts WHERE org_id = {org} AND external_id = 'x' AND deleted_at IS NULL",
        "contacts_external_id",
    ),
    ("SELECT id FROM contacts WHERE org_id = {org} AND is_active ORDER BY lead_score DESC LIMIT 9", "contacts_score"),
    ("SELECT id FROM contacts WHERE tags && '{{vip}}'", "contacts_tags"),
    ("SELECT id FROM contacts WHERE tags @> '{{vip,eu}}'", "contacts_tags"),
    ("""SELECT id FROM contacts WHERE custom_fields @> '{{"tier":"gold"}}'""", "contacts_custom_fields"),
    ("""SELECT id FROM deals WHERE custom_fields @> '{{"tier":"gold"}}'""", "deals_custom_fields"),
    ("""SELECT id FROM activities WHERE custom_fields @> '{{"tier":"gold"}}'""", "activities_custom_fields"),
    (
        "SELECT id FROM deals WHERE org_id = {org} AND pipeline = 'default' AND stage = 'lead' AND deleted_at IS NULL",
        "deals_stage",
    ),
    (
        "SELECT id FROM deals WHERE org_id = {org} AND expected_close_date < now()::date AND deleted_at IS NULL",
        "deals_close",
    ),
    (
        "SELECT id FROM activities WHERE org_id = {org} AND contact_id = {org} ORDER BY occurred_at DESC, id DESC",
        "activities_timeline",
    ),
    (
        "SELECT id FROM activities WHERE org_id = {org} AND deal_id = {org} ORDER BY occurred_at DESC, id DESC LIMIT 9",
        "activities_deal",
    ),
    (
        "SELECT id FROM activities WHERE org_id = {org} AND type = 'call' ORDER BY occurred_at DESC LIMIT 9",
        "activities_type",
    ),
    (
        """SELECT id FROM activities WHERE org_id = {org} AND assignee_id = {org} AND due_at < now()
        AND type = 'task' AND completed_at IS NULL""",
        "activities_open_tasks",
    ),
    ("SELECT id FROM activities WHERE search @@ plainto_tsquery('simple', 'price')", "activities_search"),
    ("SELECT id FROM executions WHERE org_id = {org} AND definition_id = {org} AND status = 'open'", "executions_list"),
    ("SELECT id FROM executions WHERE org_id = {org} AND deal_id = {org}", "executions_deal"),
    (
        "SELECT id FROM executions WHERE status = 'open' AND held_since IS NULL AND due_at < now()",
        "executions_overdue",
    ),
    ("SELECT id FROM reminders WHERE due_at < now()", "reminders_overdue"),
    ("SELECT id FROM reminders WHERE org_id = {org} AND deal_id = {org} AND due_at IS NOT NULL", "reminders_deal"),
    (
        "SELECT id FROM reminders WHERE org_id = {org} AND activity_id = {org} AND due_at IS NOT NULL",
        "reminders_activity",
    ),
    (
        "SELECT id FROM notifications WHERE org_id = {org} AND user_id = {org} ORDER BY id DESC LIMIT 9",
        "notifications_user",
    ),
    ("SELECT 1 FROM notifications WHERE org_id = {org} AND read_at < now()", "notifications_read"),
    ("SELECT 1 FROM notifications WHERE org_id = {org} AND created_at < now()", "notifications_age"),
    ("SELECT 1 FROM notifications WHERE org_id = {org} AND execution_id = {org}", "notifications_execution"),
    ("SELECT 1 FROM reminders WHERE org_id = {org} AND execution_id = {org}", "reminders_execution"),
    ("SELECT 1 FROM reminders WHERE org_id = {org} AND due_at IS NULL AND created_at < now()", "reminders_over"),
    ("SELECT 1 FROM letters WHERE org_id = {org} AND read_at < now()", "letters_read"),
    ("SELECT 1 FROM letters WHERE org_id = {org} AND read_at < now() AND length(raw) > 0", "letters_raw"),
    ("SELECT 1 FROM letters WHERE org_id = {org} AND intent_id = {org}", "letters_intent"),
    (
        """SELECT id FROM executions WHERE org_id = {org} AND status = 'ended' AND let_go_at IS NULL
        AND ended_at < now() ORDER BY ended_at""",
        "executions_ended",
    ),
    (
        "SELECT id FROM executions WHERE org_id = {org} AND definition_id = {org} AND event_id = {org}",
        "executions_of_event",
    ),
    ("SELECT 1 FROM inbox WHERE org_id = {org} AND received_at < now()", "inbox_age"),
    ("SELECT 1 FROM idempotency_keys WHERE org_id = {org} AND created_at < now()", "idempotency_keys_age"),
]


_MANY = """
  SET session_replication_role = replica;
  INSERT INTO contacts (org_id, id, email, external_id, lead_score, tags, custom_fields, revision, created_at,
      updated_at)
    SELECT $1, gen_random_uuid(), 'c' || i || '@x.com', 'x' || i, i % 101, ARRAY['t' || i],
      jsonb_build_object('tier', 't' || i), 1, now(), now() FROM generate_series(1, 3000) i;
  INSERT INTO deals (org_id, id, title, stage, probability, expected_close_date, contact_id, custom_fields, revision,
      created_at, updated_at)
    SELECT $1, gen_random_uuid(), 'D' || i, CASE WHEN i < 30 THEN 'lead' ELSE 'proposal' END, 1, now()::date + i,
      gen_random_uuid(), jsonb_build_object('tier', 't' || i), 1, now(), now() FROM generate_series(1, 3000) i;
  INSERT INTO activities (org_id, id, type, subject, occurred_at, due_at, assignee_id, contact_id, deal_id,
      custom_fields, revision, created_at, updated_at)
    SELECT $1, gen_random_uuid(), CASE WHEN i % 50 = 0 THEN 'call' ELSE 'task' END, 'word' || i,
      now() + i * interval '1 minute', CASE WHEN i % 50 <> 0 THEN now() END,
      CASE WHEN i % 50 <> 0 THEN gen_random_uuid() END, gen_random_uuid(), gen_random_uuid(),
      jsonb_build_object('tier', 't' || i), 1, now(), now() FROM generate_series(1, 3000) i;
  INSERT INTO executions (org_id, id, kind, definition_id, version_id, event_id, contact_id, deal_id, status, anchor,
      due_at, started_at)
    SELECT $1, gen_random_uuid(), 'run', gen_random_uuid(), gen_random_uuid(), gen_random_uuid(), gen_random_uuid(),
      gen_random_uuid(), 'open', now(), now() + i * interval '1 minute', now() FROM generate_series(1, 3000) i;
  INSERT INTO reminders (org_id, id, owner_id, title, deal_id, activity_id, status, due_at, created_at)
    SELECT $1, gen_random_uuid(), gen_random_uuid(), 'R', gen_random_uuid(), gen_random_uuid(), 'scheduled',
      now() + i * interval '1 minute', now() FROM generate_series(1, 3000) i;
  INSERT INTO notifications (org_id, id, user_id, reason, title, created_at)
    SELECT $1, gen_random_uuid(), gen_random_uuid(), 'rule', 'N', now() FROM generate_series(1, 3000) i;
  INSERT INTO letters (org_id, id, key, raw, intent_id, status, received_at, read_at)
    SELECT $1, gen_random_uuid(), sha256(i::text::bytea), '', gen_random_uuid(), 'read', now(),
      now() + i * interval '1 minute' FROM generate_series(1, 3000) i;
  INSERT INTO inbox (org_id, source_id, message_id, body, status, answer, received_at)
    SELECT $1, gen_random_uuid(), 'm' || i, '', 200, '{}', now() + i * interval '1 min' FROM generate_series(1, 3000) i;
  INSERT INTO idempotency_keys (org_id, caller, route, key, body_hash, created_at)
    SELECT $1, gen_random_uuid(), 'r', 'k' || i, '', now() + i * interval '1 minute' FROM generate_series(1, 3000) i;
  ANALYZE"""


async def test_questions_asked_often_are_answered_from_their_indexes(base):
    missed = []
    async with connected(base.admin_url) as admin:
        for statement in _MANY.replace("$1", repr(str(base.org))).split(";\n"):
            await admin.execute(statement)
        await admin.execute("SET enable_seqscan = off")
        for query, index in USED:
            plan = "\n".join(row[0] for row in await admin.fetch("EXPLAIN " + query.format(org=repr(str(base.org)))))
            if index not in plan.split():
                missed.append(f"{index}:\n{plan}")
    assert not missed, "\n".join(missed)


async def test_a_note_is_found_by_a_word_in_it_on_its_object(base):
    rows = Rows(base)
    async with connected(base.app_url, base.org) as mine:
        await insert_all(mine, rows)
        found = "SELECT id FROM activities WHERE search @@ plainto_tsquery('simple', $1) AND deal_id = $2"
        assert await mine.fetchval(found, "met", rows.deal) == rows.activity
        assert await mine.fetchval(found, "missed", rows.deal) is None


@pytest.mark.usefixtures("impatient")
async def test_only_the_embedded_names_may_log_in_and_each_wait_is_bounded_by_the_role(base):
    for url in (base.app_url, base.relay_url):
        async with connected(url) as connection:
            settings = {
                name: await connection.fetchval(f"SHOW {name}")
                for name in ("idle_in_transaction_session_timeout", "statement_timeout", "lock_timeout")
            }
        assert settings == {
            "idle_in_transaction_session_timeout": "5s", "statement_timeout": "30s", "lock_timeout": "5s"
        }  # fmt: skip
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(base.app_url.replace("app-password", "wrong"))
