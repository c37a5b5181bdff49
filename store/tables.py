"""The tables as queries name them; the migrations hold their constraints, and a test that both agree."""

from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Date,
    DateTime,
    Identity,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    Table,
    Text,
    Uuid,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, TSVECTOR
from sqlalchemy.types import TypeEngine

metadata = MetaData()


def _table(name: str, /, **columns: TypeEngine[Any] | type[TypeEngine[Any]]) -> Table:
    """A table of one organization: (org_id, …) is its key."""
    return Table(
        name,
        metadata,
        Column("org_id", Uuid, nullable=False),
        *(Column(column, type_) for column, type_ in columns.items()),
    )


_at = DateTime(timezone=True)
_ids = ARRAY(Uuid)
_Columns = dict[str, TypeEngine[Any] | type[TypeEngine[Any]]]
_links: _Columns = {"contact_id": Uuid, "company_id": Uuid, "deal_id": Uuid}
_record: _Columns = {
    "external_id": Text, "custom_fields": JSONB, "revision": Integer, "created_by": Uuid,
    "created_at": _at, "updated_at": _at, "deleted_at": _at,
}  # fmt: skip
_swept: _Columns = {"sweeps": SmallInteger, "sweep_after": _at}

organizations = Table(
    "organizations",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("name", Text),
    Column("slug", Text),
    Column("calendar", JSONB),
    Column("settings", JSONB),
    Column("subscription_plan", Text),
    Column("created_at", _at),
    Column("postal_address", Text),
    Column("address_salt", LargeBinary),
    Column("sending_stopped_at", _at),
    Column("sending_stopped_by", Uuid),
    Column("sending_note", Text),
    Column("restored_since", _at),
    Column("restored_until", _at),
)
users = _table(
    "users", id=Uuid, email=Text, name=Text, role=Text, manager_id=Uuid, avatar_url=Text,
    is_active=Boolean, last_active_at=_at, created_at=_at,
)  # fmt: skip
api_keys = _table(
    "api_keys", id=Uuid, user_id=Uuid, name=Text, role=Text, hash=LargeBinary, created_at=_at,
    revoked_at=_at,
)  # fmt: skip
companies = _table(
    "companies", id=Uuid, name=Text, domain=Text, industry=Text, size=Text, location=Text,
    annual_revenue_cents=BigInteger, owner_id=Uuid, **_record,
)  # fmt: skip
contacts = _table(
    "contacts", id=Uuid, email=Text, first_name=Text, last_name=Text, phone=Text, title=Text,
    company_id=Uuid, owner_id=Uuid, lead_score=Integer, lead_status=Text, lead_source=Text,
    tags=ARRAY(Text), time_zone=Text, metadata=JSONB, is_active=Boolean, **_record,
)  # fmt: skip
pipelines = _table("pipelines", key=Text, name=Text)
stages = _table("stages", pipeline=Text, key=Text, name=Text, position=Integer, probability=Integer, kind=Text)
deals = _table(
    "deals", id=Uuid, title=Text, value_cents=BigInteger, currency=Text, pipeline=Text, stage=Text,
    probability=Integer, outcome=Text, lost_reason=Text, expected_close_date=Date,
    actual_close_date=Date, won_at=_at, lost_at=_at, contact_id=Uuid, company_id=Uuid,
    owner_id=Uuid, **_record,
)  # fmt: skip
activities = _table(
    "activities", id=Uuid, type=Text, subject=Text, body=Text, direction=Text,
    duration_seconds=Integer, occurred_at=_at, due_at=_at, priority=Text, assignee_id=Uuid,
    completed_at=_at, completed_by=Uuid, execution_id=Uuid, metadata=JSONB, search=TSVECTOR,
    **_links, **{name: type_ for name, type_ in _record.items() if name != "external_id"},
)  # fmt: skip
events = _table(
    "events", id=Uuid, type=Text, subject_kind=Text, subject_id=Uuid, number=Integer, at=_at,
    before=JSONB, after=JSONB, actor_kind=Text, actor_id=Uuid, chain=_ids, execution_id=Uuid,
)  # fmt: skip
definitions = _table(
    "definitions", id=Uuid, kind=Text, name=Text, status=Text, revision=Integer, created_by=Uuid,
    created_at=_at, updated_at=_at,
)  # fmt: skip
versions = _table(
    "versions", id=Uuid, definition_id=Uuid, number=Integer, document=JSONB, created_by=Uuid,
    created_at=_at,
)  # fmt: skip
activations = _table(
    "activations", id=Uuid, definition_id=Uuid, version_id=Uuid, since=_at, until=_at,
    activated_by=Uuid,
)  # fmt: skip
executions = _table(
    "executions", id=Uuid, kind=Text, definition_id=Uuid, version_id=Uuid, event_id=Uuid, **_links,
    status=Text, exit_reason=Text, exit_note=Text, step=Text, anchor=_at, due_at=_at, waits=JSONB,
    saw=JSONB, chain=_ids, steps_taken=Integer, stuck_reason=Text, stuck_detail=Text,
    stuck_owner_id=Uuid, started_at=_at, ended_at=_at, revision=Integer, awaits=Text, held_since=_at,
    message_id=Uuid, destination_id=Uuid, started_by_kind=Text, started_by_id=Uuid, let_go_at=_at, **_swept,
)  # fmt: skip
effects = _table(
    "effects", execution_id=Uuid, step=Text, visit=Integer, number=Integer, action=Text,
    outcome=Text, saw=JSONB, made_kind=Text, made_id=Uuid, at=_at,
)  # fmt: skip
refusals = _table(
    "refusals", id=Uuid, definition_id=Uuid, version_id=Uuid, event_id=Uuid, reason=Text, saw=JSONB,
    at=_at,
)  # fmt: skip
reminders = _table(
    "reminders", id=Uuid, owner_id=Uuid, title=Text, **_links, activity_id=Uuid, execution_id=Uuid,
    status=Text, due_at=_at, escalate_after=JSONB, fired_at=_at, escalated_at=_at, closed_at=_at,
    snoozes=Integer, created_by=Uuid, created_at=_at, **_swept,
)  # fmt: skip
notifications = _table(
    "notifications", id=Uuid, user_id=Uuid, reason=Text, title=Text, **_links, activity_id=Uuid,
    reminder_id=Uuid, occurrence=Integer, execution_id=Uuid, created_at=_at, read_at=_at,
)  # fmt: skip
addresses = _table(
    "addresses", id=Uuid, hash=LargeBinary, suppressed=Text, suppressed_at=_at,
    revision=Integer, created_at=_at, updated_at=_at,
)  # fmt: skip
templates = _table(
    "templates", id=Uuid, name=Text, content=JSONB, revision=Integer, created_by=Uuid, created_at=_at,
    updated_at=_at, deleted_at=_at,
)  # fmt: skip
destinations = _table(
    "destinations", id=Uuid, kind=Text, name=Text, owner_id=Uuid, from_name=Text, from_email=Text,
    transport=Text, host=Text, port=Integer, security=Text, username=Text, sealed_password=LargeBinary,
    pace=JSONB, paused_at=_at, trouble=Text, trouble_detail=Text, trouble_since=_at, failures=Integer,
    retry_at=_at, revision=Integer, created_by=Uuid, created_at=_at, updated_at=_at, deleted_at=_at,
    **_swept,
)  # fmt: skip
pauses = _table(
    "pauses", id=Uuid, definition_id=Uuid, execution_id=Uuid, since=_at, until=_at, paused_by=Uuid,
)  # fmt: skip
intents = _table(
    "intents", id=Uuid, kind=Text, destination_id=Uuid, execution_id=Uuid, step=Text, visit=Integer,
    contact_id=Uuid, address_id=Uuid, status=Text, reason=Text, detail=Text, due_at=_at, not_before=_at,
    attempts=Integer, refusals=Integer, token=Uuid, deadline=_at, message_id=Text, rendered=JSONB,
    accepted_at=_at, replied_at=_at, revision=Integer, created_at=_at, updated_at=_at,
)  # fmt: skip
attempts = _table(
    "attempts", intent_id=Uuid, number=Integer, destination_id=Uuid, token=Uuid, saw=JSONB,
    claimed_at=_at, claimed_real=_at, outcome=Text, answer=Text, ended_at=_at,
)  # fmt: skip
letters = _table(
    "letters", id=Uuid, source_id=Uuid, key=LargeBinary, raw=LargeBinary, recipient=Text, from_email=Text,
    subject=Text, matched_by=Text, intent_id=Uuid, contact_id=Uuid, status=Text, kind=Text, text=Text,
    detail=Text, received_at=_at, read_at=_at, settled_by=Uuid,
)  # fmt: skip
holds = _table("holds", letter_id=Uuid, execution_id=Uuid, since=_at)
sources = _table(
    "sources", id=Uuid, name=Text, sealed_secret=LargeBinary, created_by=Uuid, created_at=_at,
    revoked_at=_at,
)  # fmt: skip
inbox = _table(
    "inbox", source_id=Uuid, message_id=Text, body=LargeBinary, status=Integer, answer=JSONB,
    received_at=_at,
)  # fmt: skip
idempotency_keys = _table(
    "idempotency_keys", caller=Uuid, route=Text, key=Text, body_hash=LargeBinary, status=Integer,
    answer=JSONB, created_at=_at,
)  # fmt: skip


def _queue(name: str, /, **columns: TypeEngine[Any] | type[TypeEngine[Any]]) -> Table:
    """A queue: rows are numbered by the database, and deleted when done."""
    return Table(
        name,
        metadata,
        Column("org_id", Uuid, nullable=False),
        Column("id", BigInteger, Identity(always=True)),
        *(Column(column, type_) for column, type_ in columns.items()),
        Column("error", Text),
        Column("failed_at", _at),
        Column("created_at", _at),
    )


outbox = _queue("outbox", event_id=Uuid, attempts=SmallInteger)
wakes = _queue("wakes", kind=Text, target_id=Uuid)
