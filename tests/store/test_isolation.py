"""No transaction sees two organizations; proven by raw SQL as the app's and the relay's own roles."""

from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from store import contacts
from tests.driving import as_admin
from tests.store.raw import Rows, connected, insert, insert_all, org_column, tenant_tables

FORBIDDEN = asyncpg.InsufficientPrivilegeError

APART: dict[str, dict[str, Any]] = {
    "destinations": {"name": "Another"}, "letters": {"key": bytes(32)}, "attempts": {"number": 2},
    "activities": {"type": "task"}, "versions": {"number": 2}, "effects": {"number": 2},
    "contacts": {"email": "other@example.com"}, "inbox": {"message_id": "m2"},
}  # fmt: skip
"""What tells a second row of a table from the first."""

RELAY_MAY_READ = {
    "alembic_version": {"version_num"},
    "clock": {"singleton", "base_real", "base_business", "scale", "shift", "test"},
    "organizations": {"id", "sending_stopped_at"},
    "outbox": {"org_id", "id", "failed_at", "created_at"},
    "wakes": {"org_id", "id", "kind", "target_id", "failed_at", "created_at"},
    "definitions": {"org_id", "id", "status"},
    "executions": {"org_id", "id", "kind", "definition_id", "status", "due_at", "awaits", "held_since", "sweep_after"},
    "reminders": {"org_id", "id", "status", "due_at", "sweep_after"},
    "intents": {"org_id", "id", "destination_id", "status", "due_at", "not_before", "deadline"},
    "destinations": {"org_id", "id", "paused_at", "retry_at", "deleted_at", "sweep_after"},
    "letters": {"org_id", "id", "status", "received_at"},
}


async def test_without_an_organization_every_table_shows_no_row_and_takes_none(base):
    rows = Rows(base)
    async with connected(base.app_url, base.org) as mine:
        await insert_all(mine, rows)
    async with connected(base.app_url) as nobody, connected(base.admin_url) as admin:
        for table in await tenant_tables(admin):
            assert await admin.fetchval(f"SELECT count(*) FROM {table}") > 0, f"{table} is empty: nothing was proven"
            assert await nobody.fetchval(f"SELECT count(*) FROM {table}") == 0, table
            with pytest.raises(FORBIDDEN):
                await nobody.execute(f"INSERT INTO {table} ({org_column(table)}) VALUES ($1)", base.org)


async def test_an_organization_sees_and_touches_no_row_of_another(base):
    async with connected(base.app_url, base.org) as mine:
        await insert_all(mine, Rows(base))
    other = await base.another()
    async with connected(base.app_url, other.org) as theirs, connected(base.admin_url) as admin:
        for table in await tenant_tables(admin):
            column = org_column(table)
            seen = await theirs.fetch(f"SELECT {column} FROM {table}")
            assert {row[0] for row in seen} <= {other.org}, table
            for statement in (f"UPDATE {table} SET {column} = {column}", f"DELETE FROM {table}"):
                try:
                    done = await theirs.execute(f"{statement} WHERE {column} = $1", base.org)
                except FORBIDDEN:
                    continue
                assert done.endswith(" 0"), f"{statement}: {done}"
            with pytest.raises(FORBIDDEN):
                await theirs.execute(f"INSERT INTO {table} ({column}) VALUES ($1)", base.org)


async def test_an_organization_cannot_give_its_rows_to_another(base):
    other = await base.another()
    async with connected(base.app_url, base.org) as mine:
        await insert_all(mine, Rows(base))
        with pytest.raises(FORBIDDEN, match="row-level security"):
            await mine.execute("UPDATE wakes SET org_id = $1", other.org)


async def test_the_organization_ends_with_its_transaction_so_a_pooled_connection_carries_none(base):
    async with base.transaction() as tx:
        await contacts.create(tx, {"email": "a@example.com"})
    for _ in range(3):
        async with base.app.crossing() as connection:
            assert (await connection.exec_driver_sql("SELECT count(*) FROM contacts")).scalar_one() == 0


async def test_every_table_forces_row_level_security_and_has_a_policy_for_the_app(base):
    async with connected(base.admin_url) as admin:
        for table in await tenant_tables(admin):
            flags = await admin.fetchrow(
                "SELECT relrowsecurity, relforcerowsecurity FROM pg_class WHERE oid = $1::text::regclass", table
            )
            assert tuple(flags) == (True, True), table
            policies = await admin.fetch(
                "SELECT qual, with_check, cmd FROM pg_policies"
                " WHERE tablename = $1 AND 'drumbeat_app' = ANY(roles) AND permissive = 'PERMISSIVE'",
                table,
            )
            assert [(row["qual"], row["with_check"], row["cmd"]) for row in policies] == [
                (f"({org_column(table)} = app_org())", None, "ALL")
            ], table
        public = await admin.fetch("SELECT tablename FROM pg_policies WHERE 'public' = ANY(roles)")
        assert public == []


@pytest.mark.parametrize("role", ["drumbeat_app", "drumbeat_relay"])
async def test_a_login_role_owns_nothing_and_bypasses_nothing(base, role):
    async with connected(base.admin_url) as admin:
        powers = await admin.fetchrow(
            "SELECT rolsuper, rolbypassrls, rolcreaterole, rolcreatedb, rolreplication FROM pg_roles"
            " WHERE rolname = $1",
            role,
        )
        assert not any(powers.values())
        memberships = "SELECT count(*) FROM pg_auth_members WHERE member = $1::text::regrole"
        assert await admin.fetchval(memberships, role) == 0
        for catalogue, owner in (
            ("pg_class", "relowner"), ("pg_proc", "proowner"), ("pg_namespace", "nspowner"), ("pg_type", "typowner"),
            ("pg_database", "datdba"),
        ):  # fmt: skip
            owned = f"SELECT count(*) FROM {catalogue} WHERE {owner} = $1::text::regrole"
            assert await admin.fetchval(owned, role) == 0, catalogue
        for what in (
            "has_schema_privilege($1, 'public', 'CREATE')",
            "has_database_privilege($1, current_database(), 'CREATE')",
        ):
            assert await admin.fetchval(f"SELECT {what}", role) is False, what
        truncatable = await admin.fetch(
            "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
            " AND has_table_privilege($1, oid, 'TRUNCATE, REFERENCES, TRIGGER')",
            role,
        )
        assert truncatable == []


async def test_the_owner_of_the_tables_cannot_log_in(base):
    async with connected(base.admin_url) as admin:
        owners = await admin.fetch(
            "SELECT DISTINCT relowner::regrole::text AS owner FROM pg_class"
            " WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace AND relname <> 'alembic_version'"
        )
        assert [row["owner"] for row in owners] == ["drumbeat_owner"]
        flags = await admin.fetchrow("SELECT rolcanlogin, rolbypassrls FROM pg_roles WHERE rolname = 'drumbeat_owner'")
        assert tuple(flags) == (False, False)


async def test_the_relay_role_reads_exactly_the_listed_columns_and_writes_nothing(base):
    async with connected(base.admin_url) as admin:
        readable = await admin.fetch("""
          SELECT c.relname, a.attname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
          WHERE c.relkind IN ('r','v','m') AND c.relnamespace = 'public'::regnamespace AND a.attnum > 0
            AND has_column_privilege('drumbeat_relay', c.oid, a.attnum, 'SELECT')""")
        found: dict[str, set[str]] = {}
        for row in readable:
            found.setdefault(row["relname"], set()).add(row["attname"])
        assert {table: columns for table, columns in found.items() if columns} == {
            table: columns for table, columns in RELAY_MAY_READ.items() if table in found
        }
        assert set(RELAY_MAY_READ) - set(found) <= {"alembic_version"}
        writable = await admin.fetch("""
          SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace
          AND (has_any_column_privilege('drumbeat_relay', oid, 'INSERT, UPDATE')
               OR has_table_privilege('drumbeat_relay', oid, 'DELETE'))""")
        assert writable == []


async def test_the_relay_role_is_refused_every_payload(base):
    async with connected(base.app_url, base.org) as mine:
        await insert_all(mine, Rows(base))
    async with connected(base.relay_url) as relay:
        assert await relay.fetchval("SELECT count(id) FROM outbox") == 1
        for query in (
            "SELECT * FROM events", "SELECT id FROM contacts", "SELECT error FROM outbox",
            "SELECT event_id FROM outbox",
            "SELECT error FROM wakes", "SELECT saw FROM executions", "SELECT title FROM reminders",
            "SELECT name FROM organizations", "SELECT rendered FROM intents", "SELECT raw FROM letters",
            "SELECT sealed_password FROM destinations", "SELECT hash FROM addresses",
            "SELECT address_salt FROM organizations", "SELECT document FROM versions", "SELECT hash FROM api_keys",
            "SELECT sealed_secret FROM sources", "SELECT * FROM outbox", "DELETE FROM outbox",
            "SELECT * FROM resolve_api_key('\\x00')", "SELECT * FROM resolve_source(gen_random_uuid())",
            "SELECT resolve_message(gen_random_uuid())", "SELECT resolve_organization(NULL)",
            "SELECT advance_clock('1 day')",
        ):  # fmt: skip
            with pytest.raises(FORBIDDEN):
                await relay.fetch(query)


@pytest.mark.parametrize("table", ["events", "effects", "versions", "refusals"])
async def test_history_can_be_neither_changed_nor_deleted_by_the_app(base, table):
    """But for what is old, of which retention lets go."""
    async with connected(base.app_url, base.org) as mine:
        await insert_all(mine, Rows(base))
        columns = await mine.fetch(
            "SELECT attname FROM pg_attribute WHERE attrelid = $1::text::regclass AND attnum > 0", table
        )
        for column in (row["attname"] for row in columns):
            with pytest.raises(FORBIDDEN):
                await mine.execute(f"UPDATE {table} SET {column} = {column}")
        with pytest.raises(FORBIDDEN):
            await mine.execute(f"TRUNCATE {table} CASCADE")
        if table == "versions":
            with pytest.raises(FORBIDDEN):
                await mine.execute("DELETE FROM versions")
            return
        age = f"UPDATE {table} SET at = business_now() - interval '{365 if table == 'refusals' else 400} days'"
        await as_admin(base, f"{age} + interval '1 minute'")
        assert await mine.execute(f"DELETE FROM {table}") == "DELETE 0"
        await as_admin(base, f"{age} - interval '1 minute'")
        if table == "events":  # as far as the guard goes; something refers to it
            with pytest.raises(asyncpg.ForeignKeyViolationError):
                await mine.execute("DELETE FROM events")
            return
        assert await mine.execute(f"DELETE FROM {table}") == "DELETE 1"


NOT_OVER = {  # the table → what makes an old row one that must stay
    "executions": "status = 'open'", "pauses": "since = business_now()", "intents": "updated_at = business_now()",
    "attempts": "claimed_at = business_now()", "letters": "status = 'unreadable'", "reminders": "due_at = '2020-01-01'",
}  # fmt: skip


@pytest.mark.parametrize("table", NOT_OVER)
async def test_what_is_not_over_cannot_be_deleted_by_the_app(base, table):
    async with connected(base.app_url, base.org) as mine:
        await insert_all(mine, Rows(base))
        await as_admin(base, f"UPDATE {table} SET {NOT_OVER[table]}")
        assert await mine.execute(f"DELETE FROM {table}") == "DELETE 0"


async def test_an_activation_can_only_be_closed_and_a_stored_webhook_only_answered(base):
    async with connected(base.app_url, base.org) as mine:
        await insert_all(mine, Rows(base))
        await mine.execute("UPDATE activations SET until = since")
        await mine.execute("UPDATE inbox SET status = 202")
        for statement in (
            "UPDATE activations SET since = now()", "UPDATE activations SET version_id = version_id",
            "DELETE FROM activations", "UPDATE inbox SET body = ''", "UPDATE inbox SET message_id = 'x'",
        ):  # fmt: skip
            with pytest.raises(FORBIDDEN):
                await mine.execute(statement)


async def test_every_security_definer_function_is_listed_and_pins_its_search_path(base):
    async with connected(base.admin_url) as admin:
        functions = await admin.fetch(
            "SELECT proname, proconfig, has_function_privilege('public', oid, 'EXECUTE') AS open FROM pg_proc"
            " WHERE pronamespace = 'public'::regnamespace AND prosecdef ORDER BY proname"
        )
        assert [row["proname"] for row in functions] == [
            "advance_clock", "resolve_api_key", "resolve_message", "resolve_organization", "resolve_source",
        ]  # fmt: skip
        for row in functions:
            assert row["proconfig"] == ["search_path=pg_catalog, pg_temp"], row["proname"]
            assert row["open"] is False, row["proname"]


async def test_a_bad_organization_setting_is_an_error_and_not_a_way_in(base):
    async with connected(base.app_url) as mine:
        await mine.execute("SELECT set_config('app.org', 'x', false)")
        with pytest.raises(asyncpg.InvalidTextRepresentationError):
            await mine.fetch("SELECT * FROM contacts")
        await mine.execute("SELECT set_config('app.org', '', false)")
        assert await mine.fetch("SELECT * FROM contacts") == []


async def test_a_reference_to_a_row_of_another_organization_is_refused(base):
    mine, other = Rows(base), await base.another()
    theirs = Rows(other)
    async with connected(base.app_url, base.org) as connection:
        await insert_all(connection, mine)
    async with connected(base.app_url, other.org) as connection:
        await insert_all(connection, theirs)
        second = {**theirs.of("events"), "id": uuid4(), "number": 2}
        await insert(connection, "events", second)
        for table, column, foreign in (
            ("users", "manager_id", mine.user), ("api_keys", "user_id", mine.user),
            ("companies", "owner_id", mine.user),
            ("contacts", "company_id", mine.company), ("contacts", "owner_id", mine.user),
            ("deals", "contact_id", mine.contact), ("deals", "company_id", mine.company),
            ("deals", "owner_id", mine.user),
            ("activities", "deal_id", mine.deal), ("activities", "assignee_id", mine.user),
            ("outbox", "event_id", mine.event), ("versions", "definition_id", mine.rule),
            ("executions", "event_id", mine.event), ("executions", "version_id", mine.version),
            ("executions", "deal_id", mine.deal), ("effects", "execution_id", mine.run),
            ("refusals", "event_id", mine.event), ("reminders", "owner_id", mine.user),
            ("reminders", "activity_id", mine.activity), ("notifications", "user_id", mine.user),
            ("inbox", "source_id", mine.source), ("destinations", "owner_id", mine.user),
            ("intents", "destination_id", mine.mailbox), ("intents", "execution_id", mine.run),
            ("intents", "contact_id", mine.contact), ("intents", "address_id", mine.address),
            ("attempts", "intent_id", mine.message), ("letters", "intent_id", mine.message),
            ("letters", "contact_id", mine.contact), ("holds", "letter_id", mine.letter),
            ("holds", "execution_id", mine.run), ("pauses", "execution_id", mine.run),
        ):  # fmt: skip
            row = {**theirs.of(table), **({"event_id": second["id"]} if table == "executions" else {}), column: foreign}
            for key in ("id", "step"):
                if key in row:
                    row[key] = uuid4() if key == "id" else "another"
            row |= APART.get(table, {})
            with pytest.raises(asyncpg.ForeignKeyViolationError):
                await insert(connection, table, row)


async def test_every_foreign_key_between_tables_of_organizations_carries_the_organization(base):
    async with connected(base.admin_url) as admin:
        keys = await admin.fetch("""
          SELECT k.conname, k.conrelid::regclass::text AS from, k.confrelid::regclass::text AS to,
            (SELECT attname FROM pg_attribute WHERE attrelid = k.conrelid AND attnum = k.conkey[1]) AS first,
            (SELECT attname FROM pg_attribute WHERE attrelid = k.confrelid AND attnum = k.confkey[1]) AS onto,
            cardinality(k.conkey) AS width
          FROM pg_constraint k WHERE k.contype = 'f' AND k.connamespace = 'public'::regnamespace""")
        assert len(keys) > 30
        for key in keys:
            wanted = ("org_id", "id") if key["to"] == "organizations" else ("org_id", "org_id")
            assert (key["first"], key["onto"]) == wanted, key["conname"]
            assert key["width"] > 1 or key["to"] == "organizations", key["conname"]


async def test_every_primary_key_and_every_list_index_begins_with_the_organization(base):
    across = {
        # What is looked up before the organization is known, and what is swept across all.
        "organizations_pkey", "organizations_slug_key", "api_keys_hash_key", "sources_id_key", "executions_overdue",
        "reminders_overdue", "intents_overdue", "intents_claimed", "letters_received",
    }  # fmt: skip
    async with connected(base.admin_url) as admin:
        indexes = await admin.fetch("""
          SELECT i.indexrelid::regclass::text AS name, a.attname AS first, am.amname AS kind
          FROM pg_index i JOIN pg_class t ON t.oid = i.indrelid JOIN pg_class x ON x.oid = i.indexrelid
          JOIN pg_am am ON am.oid = x.relam LEFT JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum = i.indkey[0]
          WHERE t.relnamespace = 'public'::regnamespace AND t.relname NOT IN ('clock', 'alembic_version')""")
    odd = {row["name"] for row in indexes if row["kind"] == "btree" and row["first"] != "org_id"}
    assert odd == across
