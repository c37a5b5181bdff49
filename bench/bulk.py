"""Many at once: ten thousand people enrolled, and a thousand overdue rows found among a million."""

import asyncio
import time
from signal import SIGCONT, SIGSTOP

import httpx2

from bench.bed import Bed, Size, bed, percentile, wait
from bench.rows import Row
from runtime.progress import say
from store import queues
from store.transaction import Database
from triggers.sweep import PASS, Sweep

EACH = 1_000
"""Contacts of one call: the most there may be."""
TRIES = 5
"""Of a call that the API asks to be repeated, because the database did not answer in time."""
DUE = 1_000
_OPEN = """
INSERT INTO executions (org_id, id, kind, definition_id, version_id, contact_id, status, step, anchor, due_at,
  chain, started_at, steps_taken, revision, started_by_kind)
SELECT $1, uuidv7(), 'enrollment', $2, v.id, gen_random_uuid(), 'open', 'long', clock_timestamp(),
  CASE WHEN n <= $4 THEN clock_timestamp() - interval '1 hour' ELSE clock_timestamp() + n * interval '1 second' END,
  '{}', clock_timestamp(), 0, 1, 'user'
FROM generate_series(1, $3::bigint) n, versions v WHERE v.definition_id = $2
"""


async def rows(size: Size) -> list[Row]:
    async with bed() as one:
        return [
            *await _enrolled(one, size.of(2_000, 10_000, 10_000)),
            *await _swept(one, size.of(50_000, 1_000_000, 1_000_000)),
        ]


async def _enrolled(one: Bed, count: int) -> list[Row]:
    """Over HTTP, a call after the other, as a program would; their waits are begun meanwhile."""
    box = await one.office.mailbox()
    sequence = await one.office.sequence(wait("long", 1000, "days"))
    people = await one.office.people(count)
    headers = {"Authorization": f"Bearer {await one.office.key()}"}
    calls, repeated = [], 0
    async with httpx2.AsyncClient(base_url=one.stack.api_url, headers=headers, trust_env=False, timeout=120) as http:
        for start in range(0, count, EACH):
            body = {"contacts": [str(id_) for id_ in people[start : start + EACH]], "mailboxId": str(box)}
            key = {"Idempotency-Key": f"enroll-{start}"}
            began = time.monotonic()
            for _ in range(TRIES):
                answer = await http.post(f"/api/v1/sequences/{sequence}/enrollments", json=body, headers=key)
                if answer.status_code != httpx2.codes.SERVICE_UNAVAILABLE:
                    break
                repeated += 1
                await asyncio.sleep(float(answer.headers["Retry-After"]))
            calls.append(time.monotonic() - began)
            answer.raise_for_status()
    one.stack.service("relay").signal(SIGSTOP)  # what follows is not about putting them to sleep
    made = await one.value("SELECT count(*) FROM executions")
    say(f"  {made} enrolled in {sum(calls):.1f} s")
    return [
        Row("bulk.enroll", count / sum(calls), "/s", note=f"{count} people, {EACH} a call"),
        Row("bulk.enroll.call_p99_ms", 1000 * percentile(calls, 0.99), "ms"),
        Row("bulk.enroll.repeated", repeated, "calls", most=0),
        Row("bulk.enroll.missing", count - made, "people", most=0),
    ]


async def _swept(one: Bed, many: int) -> list[Row]:
    """Rows made by SQL, without the records they would be about: the sweep reads none of those."""
    await one.value("SET session_replication_role = replica")
    environment = one.stack.environment()
    crossing = Database.connect(environment["DRUMBEAT_RELAY_DATABASE_URL"])
    app = Database.connect(environment["DRUMBEAT_DATABASE_URL"])
    try:
        few_rows = max(2 * DUE, many // 100)
        few = await _passes(one, crossing, app, few_rows)
        found = await _passes(one, crossing, app, many)
    finally:
        await crossing.close()
        await app.close()
        one.stack.service("relay").signal(SIGCONT)
    note = f"{DUE} overdue among {many:,} open; the baseline is the same among {few_rows:,}"
    return [
        Row.less("sweep.query_ms", found[0], "ms", few[0], note=note),
        Row.less("sweep.pass_ms", found[1], "ms", few[1], note=f"{PASS} rows woken in a pass"),
    ]


async def _passes(one: Bed, crossing: Database, app: Database, many: int) -> tuple[float, float]:
    """Milliseconds of the query and of a pass, the medians of five."""
    await one.value("TRUNCATE executions, wakes CASCADE")
    definition = await one.value("SELECT id FROM definitions")
    await one.value(_OPEN, one.office.org, definition, many, DUE)
    await one.value("ANALYZE executions")
    queries, passes = [], []
    for _ in range(DUE // PASS):
        began = time.monotonic()
        async with crossing.crossing() as connection:
            await queues.overdue(connection, PASS)
        queries.append(time.monotonic() - began)
        began = time.monotonic()
        woken = await Sweep(crossing, app).once()
        passes.append(time.monotonic() - began)
        if woken != PASS:
            raise RuntimeError(f"{woken} rows were swept, not {PASS}")
    query, whole = 1000 * percentile(queries, 0.5), 1000 * percentile(passes, 0.5)
    say(f"  {many:,} open rows: {query:.1f} ms a query, {whole:.1f} ms a pass")
    return query, whole
