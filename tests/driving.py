"""What the tests of rules share: documents in a line, rows driven to their end, and rows told without their ids."""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import datetime, timedelta
from typing import Any, TypeVar
from uuid import UUID, uuid4
from zoneinfo import ZoneInfo

import asyncpg
from sqlalchemy import text

from activities.advance import Advance
from activities.send import Links as SendLinks
from activities.send import Send
from domain.documents import RuleDocument, SequenceDocument
from domain.link_tokens import Purpose, reply_address, subkey, token
from domain.words import Kind
from store import contacts, deals, definitions, enrollments, intents, letters, mailboxes, sending
from store.transaction import Origin
from tests.conftest import Base
from triggers.dispatch import Dispatch, TemporalAway
from triggers.relay import Relay
from workflows.contracts import Waiter

T = TypeVar("T")
Json = dict[str, Any]
MASTER = bytes(32)


async def until(check: Callable[[], Awaitable[T | None]], what: str, seconds: float = 20) -> T:
    """The first answer of `check` that is true; fails with `what` after `seconds`."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if answer := await check():
            return answer
        await asyncio.sleep(0.02)
    raise AssertionError(f"{what}: not within {seconds} s")


# --- documents


def act(step: str, type_: str, **fields: Any) -> Json:
    return {"kind": "act", "id": step, "action": {"type": type_, **fields}}


def task(step: str = "task", title: str = "Call back", **fields: Any) -> Json:
    return act(step, "create_task", title=title, **fields)


def wait(step: str = "wait", amount: int = 3, unit: str = "days") -> Json:
    return {"kind": "wait", "id": step, "wait": {"for": {"amount": amount, "unit": unit}}}


def branch(step: str, condition: Json, then: Sequence[Json] = (), otherwise: Sequence[Json] = ()) -> Json:
    return {"kind": "branch", "id": step, "if": condition, "then": [*then], "else": [*otherwise]}


def mail(step: str = "mail", subject: str = "Hello", text: str = "Hello there", **fields: Any) -> Json:
    inline = {"text": text} if fields.get("thread") == "same" else {"subject": subject, "text": text}
    if "template" in fields:
        inline = {}
    return {"kind": "email", "id": step, **inline, **fields}


def leave(step: str = "leave") -> Json:
    return {"kind": "exit", "id": step}


def is_(field: str, op: str, value: Any = None) -> Json:
    return {"field": field, "op": op} if value is None else {"field": field, "op": op, "value": value}


def on_stage(*steps: Json, to: Sequence[str] = ("proposal",), conditions: Json | None = None) -> RuleDocument:
    """A rule for deals that enter a stage."""
    trigger = {"on": "deal.stage_changed", "to": [*to]}
    return RuleDocument.model_validate({"trigger": trigger, "conditions": conditions, "steps": steps})


def on_contact(*steps: Json, conditions: Json | None = None) -> RuleDocument:
    trigger = {"on": "contact.created"}
    return RuleDocument.model_validate({"trigger": trigger, "conditions": conditions, "steps": steps})


def sequence(*steps: Json, **fields: Any) -> SequenceDocument:
    return SequenceDocument.model_validate({"steps": steps, **fields})


# --- moving


async def make_mailbox(base: Base, name: str = "Sales", **values: Any) -> UUID:
    """A mailbox of nobody's own; by default its mail stays in the local outbox."""
    row = {"name": name, "from_name": "Sal", "from_email": "sal@example.com", "transport": "outbox", **values}
    async with base.transaction() as tx:
        made: UUID = (await mailboxes.create(tx, row, None, bytes(32))).id
    return made


async def publish(base: Base, document: SequenceDocument, name: str = "Sequence") -> UUID:
    """An active sequence; its id. The organization has a postal address from then on."""
    async with base.transaction() as tx:
        await sending.set_postal_address(tx, "1 Main Street, Springfield")
        made: UUID = (await definitions.create(tx, name, document)).id
        await definitions.activate(tx, made, None, expected=None, kind=Kind.SEQUENCE)
    return made


async def make_contact(base: Base, email: str | None = "jo@example.com", **values: Any) -> UUID:
    async with base.transaction() as tx:
        row = {"email": email, "first_name": "Jo", "owner_id": base.rep, **values}
        made: UUID = (await contacts.create(tx, row)).id
    return made


async def enroll(base: Base, sequence: UUID, *people: UUID, **options: Any) -> list[enrollments.Answered]:
    async with base.transaction() as tx:
        return await enrollments.enroll(tx, sequence, [enrollments.Asked(one) for one in people], **options)


async def enrolled(base: Base, document: SequenceDocument, email: str = "jo@example.com", **options: Any) -> UUID:
    """One contact enrolled in a new sequence; the enrollment's id."""
    (answered,) = await enroll(base, await publish(base, document), await make_contact(base, email), **options)
    assert answered.enrollment is not None, answered.reason
    return answered.enrollment


_ELSEWHERE = """
  WITH made AS (INSERT INTO pipelines VALUES (:org, 'other', 'Other') ON CONFLICT DO NOTHING RETURNING org_id)
  INSERT INTO stages SELECT org_id, 'other', 'nowhere', 'Nowhere', 1, 0, 'open' FROM made"""


async def switch_on(base: Base, document: RuleDocument, name: str = "Rule") -> UUID:
    """An active rule; its id. The stage `nowhere` is of a pipeline that no deal is in."""
    async with base.transaction() as tx:
        await tx.execute(text(_ELSEWHERE), {"org": tx.org})
        rule: UUID = (await definitions.create(tx, name, document)).id
        await definitions.activate(tx, rule, None, expected=None)
    return rule


async def make_deal(base: Base, title: str = "Big one", **values: Any) -> UUID:
    async with base.transaction() as tx:
        made: UUID = (await deals.create(tx, {"title": title, "owner_id": base.rep, **values})).id
    return made


async def move(base: Base, deal: UUID, stage: str = "proposal") -> None:
    async with base.transaction() as tx:
        await deals.move_stage(tx, deal, stage)


def relay_of(base: Base, *, first_attempt: bool = True) -> Relay:
    return Relay(base.crossing, base.app, first_attempt=first_attempt)


async def match_all(base: Base, *, first_attempt: bool = True) -> None:
    """Relays until a pass finds nothing and no event is left that one could take."""
    relay = relay_of(base, first_attempt=first_attempt)
    left = "SELECT count(*) FROM outbox WHERE failed_at IS NULL"
    for _ in range(100):
        if await relay.once() == 0 and await base.value(left) == 0:
            return
    raise AssertionError("events are left after 100 passes")


async def advance(base: Base, id_: UUID, kind: str = "run") -> Any:
    """What the activity function answers for a row."""
    waiter = Waiter.model_validate({"org": base.org, "kind": kind, "id": id_})
    return await Advance(base.app).advance(waiter)


async def start_run(base: Base, document: RuleDocument, name: str = "Rule", **values: Any) -> UUID:
    """A deal moved to proposal under a new rule, matched and left to its workflow; the run's id."""
    await switch_on(base, document, name)
    await move(base, await make_deal(base, **values))
    await match_all(base, first_attempt=False)
    run: UUID = await base.value("SELECT id FROM executions ORDER BY started_at DESC, id DESC LIMIT 1")
    return run


OPEN = """
  SELECT kind, id, due_at, coalesce(event_id, id) AS began, definition_id FROM executions
  WHERE status = 'open' AND due_at IS NOT NULL AND held_since IS NULL
  UNION ALL SELECT 'reminder', id, due_at, id, id FROM reminders WHERE due_at IS NOT NULL
  ORDER BY due_at, began, definition_id"""
"""In the order in which a relay takes what is due at once: by events, then rules."""


async def attempt_all(base: Base) -> None:
    """Takes the steps of what was woken and is due, as the relay does while Temporal is away; other wakes stay."""

    async def nobody() -> Any:
        raise TemporalAway

    with suppress(TemporalAway):
        await Dispatch(base.crossing, base.app, nobody, "nobody").once()


async def drive(base: Base, *, first_attempt: bool = True) -> None:
    """Everything to its end, without Temporal: relays, calls `advance` on what is due, moves the clock."""
    for _ in range(500):
        await match_all(base, first_attempt=first_attempt)
        if first_attempt:
            await attempt_all(base)
            await match_all(base)
        waiting = await base.rows(OPEN)
        if not waiting:
            return
        now = await base.value("SELECT business_now()")
        due = [row for row in waiting if row["due_at"] <= now]
        for row in due:
            await advance(base, row["id"], row["kind"])
        if not due:
            await base.pass_time(waiting[0]["due_at"] - now)
    raise AssertionError("rows are open after 500 rounds")


async def next_monday(base: Base) -> datetime:
    """Moves the clock to a Monday 9:00 of the organization, so that two runs see the same days."""
    now: datetime = await base.value("SELECT business_now()")
    local = now.astimezone(ZoneInfo("Europe/Berlin"))
    monday = (local + timedelta(days=7 - local.weekday())).replace(hour=9, minute=0, second=0, microsecond=0)
    return await base.pass_time(monday - now)


async def as_admin(base: Base, statement: str, *values: Any) -> list[Any]:
    """As the superuser, whom row-level security does not bind."""
    connection = await asyncpg.connect(base.admin_url)
    try:
        return list(await connection.fetch(statement, *values))
    finally:
        await connection.close()


@asynccontextmanager
async def kept_from(base: Base, rows: str, lock: str = "FOR UPDATE") -> AsyncIterator[None]:
    """Nobody else gets a lock on these rows until the block ends."""
    connection = await asyncpg.connect(base.admin_url)
    transaction = connection.transaction()
    await transaction.start()
    try:
        await connection.execute(f"{rows} {lock}")
        yield
    finally:
        await transaction.rollback()
        await connection.close()


async def blocked(base: Base) -> bool:
    """Whether a connection of the test's database waits for a lock."""
    waiting = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    return bool(await as_admin(base, waiting))


# --- telling rows without ids and instants

_SIGHT = {
    "runs": """
      SELECT d.name AS rule, coalesce(deals.title, contacts.email) AS about, v.number AS version, x.status, x.step,
        x.exit_reason, x.exit_note, x.steps_taken, x.saw, x.stuck_reason, x.stuck_detail, x.stuck_owner_id,
        cardinality(x.chain) AS depth, x.due_at, x.waits, e.type AS event, e.number AS event_number, e.at AS zero
      FROM executions x JOIN definitions d ON d.id = x.definition_id JOIN versions v ON v.id = x.version_id
      JOIN events e ON e.id = x.event_id LEFT JOIN deals ON deals.id = x.deal_id
      LEFT JOIN contacts ON contacts.id = x.contact_id""",
    "effects": """
      SELECT d.name AS rule, s.step, s.visit, s.number, s.action, s.outcome, s.saw, s.made_kind, e.at AS zero,
        e.type AS event, e.number AS event_number, coalesce(deals.title, contacts.email) AS about
      FROM effects s JOIN executions x ON x.id = s.execution_id JOIN definitions d ON d.id = x.definition_id
      JOIN events e ON e.id = x.event_id LEFT JOIN deals ON deals.id = x.deal_id
      LEFT JOIN contacts ON contacts.id = x.contact_id""",
    "refusals": """
      SELECT d.name AS rule, r.reason, r.saw, e.type AS event, e.number AS event_number, e.subject_kind, e.at AS zero
      FROM refusals r JOIN definitions d ON d.id = r.definition_id JOIN events e ON e.id = r.event_id""",
    "tasks": """
      SELECT t.subject, t.body, t.priority, t.assignee_id, t.due_at, deals.title AS about, e.at AS zero
      FROM activities t LEFT JOIN executions x ON x.id = t.execution_id LEFT JOIN events e ON e.id = x.event_id
      LEFT JOIN deals ON deals.id = t.deal_id""",
    "reminders": """
      SELECT r.title, r.owner_id, r.status, r.due_at, r.escalate_after, r.snoozes, deals.title AS about, e.at AS zero
      FROM reminders r LEFT JOIN executions x ON x.id = r.execution_id LEFT JOIN events e ON e.id = x.event_id
      LEFT JOIN deals ON deals.id = r.deal_id""",
    "notifications": """
      SELECT n.title, n.reason, n.user_id, n.occurrence, deals.title AS about FROM notifications n
      LEFT JOIN deals ON deals.id = n.deal_id""",
    "enrollments": """
      SELECT d.name AS sequence, c.email, x.status, x.step, x.exit_reason, x.steps_taken, x.started_by_kind,
        cardinality(x.chain) AS depth
      FROM executions x JOIN definitions d ON d.id = x.definition_id JOIN contacts c ON c.id = x.contact_id
      WHERE x.kind = 'enrollment'""",
    "messages": """
      SELECT d.name AS rule, i.step, i.visit, i.status, c.email, i.due_at, e.at AS zero
      FROM intents i JOIN executions x ON x.id = i.execution_id JOIN definitions d ON d.id = x.definition_id
      JOIN contacts c ON c.id = i.contact_id JOIN events e ON e.id = x.event_id""",
    "companies": "SELECT name, revision FROM companies",
    "deals": "SELECT title, stage, value_cents, currency, probability, outcome, revision FROM deals",
    "contacts": "SELECT email, first_name, title, lead_status, revision FROM contacts",
    "events": """
      SELECT events.type, number, before, after, actor_kind, cardinality(chain) AS depth,
        coalesce(deals.title, contacts.email, activities.subject) AS about
      FROM events LEFT JOIN deals ON deals.id = subject_id LEFT JOIN contacts ON contacts.id = subject_id
      LEFT JOIN activities ON activities.id = subject_id""",
    "set_aside": "SELECT attempts, error IS NULL AS fine FROM outbox",
}
_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


async def sight(base: Base) -> dict[str, list[str]]:
    """Every row that rules wrote in an organization, with names for ids and offsets from the event for instants."""
    names = {str(base.admin): "admin", str(base.manager): "manager", str(base.rep): "rep"}
    found = {}
    for name, query in _SIGHT.items():
        rows = [dict(row) for row in await base.rows(query)]
        found[name] = sorted(str(_told(row, row.pop("zero", None), names)) for row in rows)
    return found


def _told(value: Any, zero: datetime | None, names: Mapping[str, str]) -> Any:
    if isinstance(value, Mapping):
        return {key: _told(one, zero, names) for key, one in value.items()}
    if isinstance(value, list):
        return [_told(one, zero, names) for one in value]
    if isinstance(value, UUID):
        value = str(value)
    if isinstance(value, str) and re.match(r"\d{4}-\d\d-\d\dT", value):
        value = datetime.fromisoformat(value)
    if isinstance(value, datetime):
        seconds = (value - zero).total_seconds() if zero else 0
        return "at once" if abs(seconds) < 60 else f"{round(seconds, -1):.0f} s after"
    if isinstance(value, str):
        return _ID.sub(lambda found: names.get(found[0], "an id"), value)
    return value


# --- mail


@asynccontextmanager
async def sender(base: Base, **options: Any) -> AsyncIterator[Send]:
    """What empties mailboxes, closed in the end."""
    made = Send(base.app, MASTER, SendLinks("https://crm.example.com", "reply.example.com"), **options)
    try:
        yield made
    finally:
        await made.close()


async def smtp_mailbox(base: Base, port: int, name: str = "Sales", **values: Any) -> UUID:
    """A mailbox whose mail leaves for a server on this machine."""
    return await make_mailbox(
        base, name, **{"transport": "smtp", "host": "127.0.0.1", "port": port, "security": "none", **values}
    )


async def written(base: Base, document: SequenceDocument, email: str = "jo@example.com", **options: Any) -> UUID:
    """An enrollment that has taken its first steps, so that its first mail is written; its id."""
    id_ = await enrolled(base, document, email, **options)
    await advance(base, id_, "enrollment")
    return id_


async def may_mail(base: Base) -> None:
    """The organization has what its mail must carry."""
    async with base.transaction() as tx:
        await sending.set_postal_address(tx, "1 Main Street, Springfield")


async def the_message(base: Base) -> Json:
    (found,) = await base.rows("SELECT * FROM intents")
    return dict(found)


async def the_execution(base: Base) -> Json:
    (found,) = await base.rows("SELECT * FROM executions")
    return dict(found)


async def claimed(base: Base, id_: UUID, box: UUID, *, call_seconds: float = 30) -> Any:
    """What the claim of a message to its contact's address answers."""
    email = await base.value(
        "SELECT email FROM contacts JOIN intents i ON i.contact_id = contacts.id WHERE i.id = :i", i=id_
    )
    async with base.transaction() as tx:
        return await intents.claim(
            tx,
            id_,
            box,
            message_id=f"<{id_}@example.com>",
            rendered={"subject": "Hello", "to_email": email},
            call_seconds=call_seconds,
        )


def letter(
    *headers: str, frm: str = "Jo <jo@example.com>", to: str = "sal@example.com", text: str = "Yes, gladly."
) -> bytes:
    """A mail that came in; a Message-ID of its own unless one is given."""
    given = [f"From: {frm}", f"To: {to}", "Subject: Re: Hello", *headers]
    if not any(line.lower().startswith("message-id:") for line in headers):
        given.append(f"Message-ID: <{uuid4()}@example.net>")
    return "\r\n".join([*given, "Content-Type: text/plain; charset=utf-8", "", text, ""]).encode()


def reply_to(message: UUID) -> str:
    """The address that a message asks to be answered at."""
    return reply_address(token(subkey(MASTER), message, Purpose.REPLY), "reply.example.com")


async def receive(base: Base, raw: bytes, *recipients: str) -> tuple[UUID, bool]:
    """A letter that came in; its id, and False if it was here before."""
    came = letters.envelope(raw, recipients=recipients, source=None, link_key=subkey(MASTER))
    async with base.transaction(Origin("recipient")) as tx:
        found, new = await letters.receive(tx, came)
    return found.id, new


async def numbers_run_on(base: Base) -> None:
    """The events of every subject are numbered 1..n."""
    rows = await base.rows(
        "SELECT subject_kind, subject_id, array_agg(number ORDER BY number) AS n FROM events GROUP BY 1, 2"
    )
    for row in rows:
        assert row["n"] == list(range(1, len(row["n"]) + 1)), row
