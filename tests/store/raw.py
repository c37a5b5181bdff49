"""Raw SQL as the database's own roles, and one row for every table."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import asyncpg

from tests.conftest import Base

NOT_OF_AN_ORGANIZATION = {"clock", "alembic_version"}
AT = datetime(2026, 5, 4, 9, 0, tzinfo=UTC)


@asynccontextmanager
async def connected(url: str, org: UUID | None = None) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(url)
    try:
        if org is not None:
            await connection.execute("SELECT set_config('app.org', $1, false)", str(org))
        yield connection
    finally:
        await connection.close()


async def tenant_tables(connection: asyncpg.Connection) -> list[str]:
    """Every table of the schema but those named as belonging to no organization."""
    rows = await connection.fetch(
        "SELECT relname FROM pg_class WHERE relkind IN ('r','p') AND relnamespace = 'public'::regnamespace ORDER BY 1"
    )
    return [row["relname"] for row in rows if row["relname"] not in NOT_OF_AN_ORGANIZATION]


def org_column(table: str) -> str:
    return "id" if table == "organizations" else "org_id"


class Rows:
    """Valid rows of one organization, each changed as a test likes; ids of what they need are made once."""

    def __init__(self, base: Base) -> None:
        self.org, self.user = base.org, base.rep
        self.contact, self.company, self.deal, self.activity = uuid4(), uuid4(), uuid4(), uuid4()
        self.event, self.rule, self.version, self.run = uuid4(), uuid4(), uuid4(), uuid4()
        self.reminder, self.source = uuid4(), uuid4()
        self.address, self.mailbox, self.message, self.letter = uuid4(), uuid4(), uuid4(), uuid4()

    def of(self, table: str) -> dict[str, Any]:
        record = {"revision": 1, "created_at": AT, "updated_at": AT}
        rule = {"definition_id": self.rule, "version_id": self.version}
        every: dict[str, dict[str, Any]] = {
            "users": {"id": uuid4(), "email": f"{uuid4()}@example.com", "name": "Uma", "role": "rep", "created_at": AT},
            "api_keys": {
                "id": uuid4(), "user_id": self.user, "name": "key", "role": "rep", "hash": uuid4().bytes * 2,
                "created_at": AT,
            },
            "companies": {"id": self.company, "name": "Initech", **record},
            "contacts": {"id": self.contact, "email": "jo@example.com", "company_id": self.company, **record},
            "pipelines": {"key": "other", "name": "Other"},
            "stages": {
                "pipeline": "default", "key": "extra", "name": "Extra", "position": 99, "probability": 5,
                "kind": "open",
            },
            "deals": {
                "id": self.deal, "title": "Big one", "stage": "lead", "probability": 10, "contact_id": self.contact,
                "company_id": self.company, "owner_id": self.user, **record,
            },
            "activities": {
                "id": self.activity, "type": "note", "subject": "Met", "occurred_at": AT, "deal_id": self.deal,
                "contact_id": self.contact, "company_id": self.company, **record,
            },
            "events": {
                "id": self.event, "type": "deal.stage_changed", "subject_kind": "deal", "subject_id": self.deal,
                "number": 1, "at": AT, "before": "{}", "after": "{}", "actor_kind": "user",
            },
            "outbox": {"event_id": self.event},
            "wakes": {"kind": "run", "target_id": self.run},
            "definitions": {
                "id": self.rule, "kind": "rule", "name": "Rule", "status": "active", "revision": 1, "created_at": AT,
                "updated_at": AT,
            },
            "versions": {
                "id": self.version, "definition_id": self.rule, "number": 1, "document": "{}", "created_at": AT,
            },
            "activations": {"id": uuid4(), **rule, "since": AT},
            "executions": {
                "id": self.run, "kind": "run", **rule, "event_id": self.event, "deal_id": self.deal,
                "contact_id": self.contact, "company_id": self.company, "status": "open", "anchor": AT, "due_at": AT,
                "started_at": AT,
            },
            "effects": {
                "execution_id": self.run, "step": "task", "visit": 1, "number": 1, "action": "create_task",
                "outcome": "done", "saw": "{}", "at": AT,
            },
            "refusals": {
                "id": uuid4(), **rule, "event_id": self.event, "reason": "conditions_not_met", "at": AT,
            },
            "reminders": {
                "id": self.reminder, "owner_id": self.user, "title": "Ring", "status": "scheduled", "due_at": AT,
                "deal_id": self.deal, "contact_id": self.contact, "company_id": self.company,
                "activity_id": self.activity, "execution_id": self.run, "created_at": AT,
            },
            "notifications": {
                "id": uuid4(), "user_id": self.user, "reason": "rule", "title": "Look", "created_at": AT,
            },
            "addresses": {"id": self.address, "hash": uuid4().bytes * 2, **record},
            "templates": {"id": uuid4(), "name": "Hello", "content": "{}", **record},
            "destinations": {
                "id": self.mailbox, "kind": "mailbox", "name": "Sales", "from_name": "Sales",
                "from_email": "sales@example.com", "transport": "outbox", **record,
            },
            "pauses": {"id": uuid4(), "execution_id": self.run, "since": AT},
            "intents": {
                "id": self.message, "kind": "message", "destination_id": self.mailbox, "execution_id": self.run,
                "step": "hello", "visit": 1, "contact_id": self.contact, "address_id": self.address,
                "status": "pending", "due_at": AT, **record,
            },
            "attempts": {
                "intent_id": self.message, "number": 1, "destination_id": self.mailbox, "token": uuid4(), "saw": "{}",
                "claimed_at": AT, "claimed_real": AT,
            },
            "letters": {
                "id": self.letter, "source_id": self.source, "key": uuid4().bytes * 2, "raw": b"From: jo",
                "status": "received", "received_at": AT,
            },
            "holds": {"letter_id": self.letter, "execution_id": self.run, "since": AT},
            "sources": {"id": self.source, "name": "Forms", "sealed_secret": b"sealed", "created_at": AT},
            "inbox": {
                "source_id": self.source, "message_id": "m1", "body": b"{}", "status": 200, "answer": "{}",
            },
            "idempotency_keys": {"caller": uuid4(), "route": "POST /contacts", "key": "k1", "body_hash": b"hash"},
        }  # fmt: skip
        return {"org_id": self.org, **every[table]}


ORDER = (
    "users", "api_keys", "companies", "contacts", "pipelines", "stages", "deals", "activities", "events", "outbox",
    "wakes", "definitions", "versions", "activations", "executions", "effects", "refusals", "reminders",
    "notifications", "sources", "inbox", "idempotency_keys", "addresses", "templates", "destinations", "pauses",
    "intents", "attempts", "letters", "holds",
)  # fmt: skip


async def insert(connection: asyncpg.Connection, table: str, row: dict[str, Any]) -> None:
    names = ", ".join(row)
    places = ", ".join(f"${number}" for number in range(1, len(row) + 1))
    await connection.execute(f"INSERT INTO {table} ({names}) VALUES ({places})", *row.values())


async def insert_all(connection: asyncpg.Connection, rows: Rows, until: str | None = None) -> None:
    """One row in every table, or in those before `until`."""
    for table in ORDER:
        if table == until:
            return
        await insert(connection, table, rows.of(table))


_EVENT = "INSERT INTO events (org_id, id, type, subject_kind, subject_id, number, at, before, after, actor_kind)"
_QUEUED = "INSERT INTO outbox (org_id, event_id) SELECT org_id, id FROM made RETURNING id"


async def add_events(base: Base, count: int) -> None:
    """Outbox rows, each of an event of its own, about a contact that is not there."""
    await base.rows(
        f"""
        WITH made AS ({_EVENT} SELECT app_org(), gen_random_uuid(), 'contact.updated', 'contact', :subject, n,
            business_now(), '{{}}', '{{}}', 'system' FROM generate_series(1, :count) n RETURNING org_id, id)
        {_QUEUED}""",
        subject=uuid4(),
        count=count,
    )


async def poison(base: Base) -> None:
    """An event about a deal that is not there, which entered proposal: a run for it cannot be written."""
    await base.rows(
        f"""
        WITH made AS ({_EVENT} VALUES (app_org(), gen_random_uuid(), 'deal.stage_changed', 'deal', gen_random_uuid(), 1,
            business_now(), '{{"stage": "lead"}}', '{{"stage": "proposal"}}', 'system') RETURNING org_id, id)
        {_QUEUED}"""
    )
