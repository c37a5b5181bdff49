# mypy: ignore-errors
"""How PostgreSQL finds rows among many: whatever the engine does about one, it reads no table from end to end."""

import re

import asyncpg
from sqlalchemy import event
from uuid_utils.compat import uuid7

from domain.words import Target
from store import companies, contacts, deals, enrollments, stops
from store.pages import Span
from tests.driving import (
    act,
    advance,
    as_admin,
    attempt_all,
    branch,
    enroll,
    is_,
    letter,
    mail,
    make_contact,
    make_deal,
    make_mailbox,
    match_all,
    move,
    on_stage,
    publish,
    receive,
    sender,
    sequence,
    switch_on,
    task,
    wait,
)

MANY = 1_500
LARGE = ("contacts", "deals", "executions", "events", "effects", "addresses", "intents", "activities")
ACTS = (
    task(), act("note", "notify", title="Look"), act("call", "remind", title="Ring"),
    act("field", "set_field", field="contact.title", value="CEO"),
    branch("b", is_("company.name", "eq", "Initech"), [task("c")]),
)  # fmt: skip


async def crowd(base, sequence_id):
    """Thousands of records, each contact enrolled, past its first steps and asleep."""
    async with base.transaction() as tx:
        company = (await companies.create(tx, {"name": "Initech"})).id
        people = [
            {"id": uuid7(), "email": f"p{n}@example.com", "is_active": True, "company_id": company, "tags": [],
             "custom_fields": {}, "metadata": {}, "owner_id": base.rep}
            for n in range(MANY)
        ]  # fmt: skip
        await contacts.create_many(tx.unheard(), people)
        await deals.create_many(
            tx.unheard(),
            [
                {"id": uuid7(), "external_id": str(n), "title": f"Deal {n}", "pipeline": "default", "stage": "lead",
                 "owner_id": base.rep, "value_cents": 1000, "currency": "USD", "expected_close_date": None,
                 "contact_id": one["id"], "company_id": company}
                for n, one in enumerate(people)
            ],
        )  # fmt: skip
    for start in range(0, MANY, 500):
        async with base.transaction() as tx:
            asked = [enrollments.Asked(one["id"]) for one in people[start : start + 500]]
            await enrollments.enroll(tx, sequence_id, asked)
    while await base.value("SELECT count(*) FROM executions WHERE due_at <= business_now()"):
        await attempt_all(base)
        await as_admin(
            base, "DELETE FROM wakes w USING executions x WHERE x.id = w.target_id AND x.due_at > business_now()"
        )
    await base.rows("DELETE FROM wakes RETURNING id")
    return company


async def test_what_is_about_one_reads_no_table_whole(base):
    box = await make_mailbox(base)
    await switch_on(base, on_stage(*ACTS))
    met = {"on": "deal.stage_changed", "to": ["negotiation"]}
    busy = await publish(base, sequence(task(), mail(), wait("w", 9), task("last"), exits=[met]), "Busy")
    company = await crowd(base, busy)
    await as_admin(base, "VACUUM ANALYZE")
    asked = {}

    @event.listens_for(base.app.engine.sync_engine, "before_cursor_execute")
    def note(_conn, _cursor, statement, values, *_):
        asked.setdefault(statement, values)

    person = await make_contact(base, company_id=company)
    async with base.transaction() as tx:
        assert await contacts.by_email(tx, "jo@example.com")
        assert await contacts.by_emails(tx, ["jo@example.com", "p1@example.com"])
        assert (await contacts.search(tx, Span(limit=5), email="jo@example.com")).records
    deal = await make_deal(base, contact_id=person)
    await move(base, deal)
    await match_all(base)
    (answered,) = await enroll(base, busy, person)
    await attempt_all(base)
    await send_mine(base, box, answered.enrollment)
    await advance(base, answered.enrollment, Target.ENROLLMENT)
    await move(base, deal, "negotiation")
    await match_all(base)
    other = await make_contact(base, "other@example.com")
    (answered,) = await enroll(base, busy, other)
    await attempt_all(base)
    for verb in (enrollments.pause, enrollments.resume):
        async with base.transaction() as tx:
            await verb(tx, answered.enrollment)
    await receive(base, letter(frm="Other <other@example.com>"))
    async with base.transaction() as tx:
        await stops.stop(tx, answered.enrollment, Target.ENROLLMENT, None)

    found = await whole_reads(base, asked)
    assert not found, "\n\n".join(found)


async def send_mine(base, box, enrollment):
    """Its mail is the next; those of the others are later."""
    await as_admin(base, "UPDATE intents SET due_at = due_at + interval '9 days' WHERE execution_id <> $1", enrollment)
    async with sender(base) as send:
        await send.empty(base.org, box)
    assert await base.value("SELECT status FROM intents WHERE execution_id = :id", id=enrollment) == "accepted"


SCANS = re.compile(r"Bitmap (?:Heap|Index) Scan on .*rows=(\d+)")
"""Of a plain scan of an index the plan does not tell how much is read: a merge stops where it has what it wants."""


def reads_whole(plan):
    """Whether it expects to read a large table from end to end, or an organization's part of one by an index."""
    return any(f"Seq Scan on {table}" in plan for table in LARGE) or any(int(n) > MANY / 2 for n in SCANS.findall(plan))


async def whole_reads(base, asked):
    """The statements whose plan reads a large table from end to end, with the plan, by either kind of plan."""
    found = []
    connection = await asyncpg.connect(base.app_url)
    try:
        for mode in ("auto", "force_generic_plan"):
            async with connection.transaction():
                setting = "SELECT set_config('app.org', $1, true), set_config('plan_cache_mode', $2, true)"
                await connection.execute(setting.replace("$1", f"'{base.org}'").replace("$2", f"'{mode}'"))
                for statement, values in asked.items():
                    if not statement.startswith(("SELECT", "WITH", "INSERT", "UPDATE", "DELETE")):
                        continue
                    plan = "\n".join(row[0] for row in await connection.fetch("EXPLAIN " + statement, *values))
                    if reads_whole(plan):
                        found.append(f"{mode}: {statement}\n{plan}")
    finally:
        await connection.close()
    return found
