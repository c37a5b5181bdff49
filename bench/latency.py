"""How late: timers at their time, effects after their event, claims after a stop.

Instants are those of the server's own commits; the machine's clock is the same for all.
"""

import asyncio
import base64
import time
from typing import Any
from uuid import UUID

import httpx2

from bench import job, textbook
from bench.bed import Bed, Eyes, Size, bed, paced, percentile, task, wait
from bench.rows import Row
from domain.link_tokens import subkey
from runtime.progress import say
from store import letters
from store.transaction import Origin

SCALE = 60
"""A minute of business time is a second."""
DUE = 20.0
POSTED = 50.0
REPLIES = 10.0
"""A second: runs that fall due, events posted, people who answer."""
MAILS = 12
EFFECT_MS = 50.0
"""From an event posted to its effect committed: the most that half of them may take."""

LATENESS = """
SELECT 1000 * extract(epoch FROM pg_xact_commit_timestamp(s.xmin) - c.base_real
  - (coalesce(e.at, x.started_at) + make_interval(mins => $2) - c.base_business) / c.scale)::float AS ms
FROM clock c, effects s JOIN executions x ON x.id = s.execution_id LEFT JOIN events e ON e.id = x.event_id
WHERE s.step = $1 AND x.definition_id = $3
"""
"""Of a step that is due so many minutes after each execution of a definition began, in real milliseconds."""
_THEIRS = """
SELECT 1000 * (extract(epoch FROM pg_xact_commit_timestamp(b.xmin) - pg_xact_commit_timestamp(a.xmin)) - 1)::float AS ms
FROM tasks a JOIN tasks b USING (job) WHERE a.step = 0 AND b.step = 1 AND job < $1
"""
_EFFECT = """
SELECT x.contact_id, extract(epoch FROM pg_xact_commit_timestamp(s.xmin))::float AS at
FROM effects s JOIN executions x ON x.id = s.execution_id WHERE s.step = 'now'
"""
_THEIR_EFFECT = "SELECT job, extract(epoch FROM pg_xact_commit_timestamp(xmin))::float AS at FROM tasks WHERE job >= $1"
_OVER = "SELECT count(*) FROM executions WHERE status = 'ended'"
_CLAIMED = """
SELECT extract(epoch FROM max(t.claimed_real))::float FROM attempts t JOIN intents i ON i.id = t.intent_id
WHERE i.contact_id = $1
"""


async def rows(size: Size) -> list[Row]:
    seconds = size.of(4, 15, 60)
    async with bed(scale=SCALE) as one:
        await one.stack.postgres.create_database("textbook")
        url = one.stack.postgres.admin_url("textbook")
        await job.make_tables(url)
        async with one.beside("textbook", "bench.textbook", url), Eyes.on(url) as eyes:
            timers = await _timers(one, eyes, int(DUE * seconds))
            effects = await _effects(one, eyes, int(POSTED * seconds), first=int(DUE * seconds))
        return [*timers, *effects, *await _quiet(one, size.of(20, 100, 300))]


async def _timers(one: Bed, eyes: Eyes, count: int) -> list[Row]:
    """A run and a workflow each wait a second; both are begun at the same pace, one after the other."""
    rule = await one.office.rule(wait("wait", 1), task("late"))
    already = await one.value(_OVER)

    async def create(_: int) -> None:
        await one.office.people(1, heard=True)

    rate = await paced(DUE, count, create)
    await one.until(_OVER, already + count, "runs", already=already)
    ours = [row["ms"] for row in await one.rows(LATENESS, "late", 1, rule)]
    await one.office.archive(rule)
    client = await one.client()

    async def start(number: int) -> None:
        await textbook.start(client, [textbook.Job(number, 1.0, 2)])

    their_rate = await paced(DUE, count, start)
    while await eyes.value(job.DONE, 1) < count:  # noqa: ASYNC110  (in the database)
        await asyncio.sleep(0.2)
    theirs = [row["ms"] for row in await eyes.rows(_THEIRS, count)]
    _tell("timers", ours, theirs)
    note = f"{count} due at {rate:.1f} a second; the textbook's at {their_rate:.1f}"
    return [
        Row.less(
            f"timer.lateness_p{share * 100:.0f}_ms", percentile(ours, share), "ms", percentile(theirs, share), note=note
        )
        for share in (0.5, 0.99)
    ]


async def _effects(one: Bed, eyes: Eyes, count: int, *, first: int) -> list[Row]:
    """Contacts posted over HTTP; against workflows that are started directly, with no HTTP before them."""
    rule = await one.office.rule(task("now"))
    headers = {"Authorization": f"Bearer {await one.office.key()}"}
    posted: dict[UUID, float] = {}
    already = await one.value(_OVER)
    async with httpx2.AsyncClient(base_url=one.stack.api_url, headers=headers, trust_env=False, timeout=30) as http:

        async def post(number: int) -> None:
            at = time.time()
            body = {"email": f"posted{number}@example.com", "firstName": "Jo"}
            answer = await http.post("/api/v1/contacts", json=body)
            posted[UUID(answer.raise_for_status().json()["contact"]["id"])] = at

        rate = await paced(POSTED, count, post)
        await one.until(_OVER, already + count, "runs", already=already)
    await one.office.archive(rule)
    ours = [1000 * (row["at"] - posted[row["contact_id"]]) for row in await one.rows(_EFFECT)]
    client = await one.client()
    begun: dict[int, float] = {}

    async def start(number: int) -> None:
        begun[first + number] = time.time()
        await textbook.start(client, [textbook.Job(first + number, 0, 1)])

    their_rate = await paced(POSTED, count, start)
    while await eyes.value(job.DONE, 0) < first + count:  # noqa: ASYNC110  (in the database)
        await asyncio.sleep(0.2)
    found = await eyes.rows(_THEIR_EFFECT, first)
    theirs = [1000 * (row["at"] - begun[row["job"]]) for row in found]
    _tell("effects", ours, theirs)
    note = f"{count} posted at {rate:.1f} a second; workflows started at {their_rate:.1f}"
    return [
        Row.less(
            f"event_to_effect.p{share * 100:.0f}_ms",
            percentile(ours, share),
            "ms",
            percentile(theirs, share),
            most=most,
            note=note,
        )
        for share, most in ((0.5, EFFECT_MS), (0.99, None))
    ]


async def _quiet(one: Bed, people: int) -> list[Row]:
    """Everybody gets a mail a second, and everybody answers: claims after an answer was taken in."""
    box = await one.office.mailbox()
    steps: list[dict[str, Any]] = []
    for number in range(MAILS):
        mail = {"kind": "email", "id": f"mail{number}", "subject": "Hello", "text": "How are you?"}
        steps += [mail, wait(f"wait{number}", 1)]
    sequence = await one.office.sequence(*steps)
    ids = await one.office.people(people)
    await one.office.enroll(sequence, ids, box)
    emails = {row["id"]: row["email"] for row in await one.rows("SELECT id, email FROM contacts")}
    link_key = subkey(base64.b64decode(one.stack.environment()["DRUMBEAT_MASTER_KEY"]))
    taken: dict[UUID, float] = {}

    async def answer(number: int) -> None:
        head = f"From: {emails[ids[number]]}\r\nTo: sal@example.com\r\nSubject: Re: Hello\r\n"
        raw = f"{head}Message-ID: <{number}@example.net>\r\n\r\nYes, gladly.\r\n".encode()
        came = letters.envelope(raw, recipients=["sal@example.com"], source=None, link_key=link_key)
        async with one.office.database.transaction(one.office.org, Origin("recipient")) as tx:
            await letters.receive(tx, came)
        taken[ids[number]] = time.time()

    # Nobody answers before there is something to stop.
    await one.until("SELECT count(*) FROM attempts", people, "mails claimed")
    await paced(REPLIES, people, answer)
    open_ = "SELECT count(*) FROM executions WHERE definition_id = $1 AND status <> 'ended'"
    while await one.value(open_, sequence):  # noqa: ASYNC110  (in the database)
        await asyncio.sleep(0.2)
    after = [1000 * max(0.0, (await one.value(_CLAIMED, id_) or 0) - at) for id_, at in taken.items()]
    sent = await one.value("SELECT count(*) FROM attempts")
    note = f"{people} answers while {sent} mails were claimed"
    return [Row("exit_to_quiet.p99_ms", percentile(after, 0.99), "ms", most=0, note=note)]


def _tell(what: str, ours: list[float], theirs: list[float]) -> None:
    told = ", ".join(f"p{share * 100:.0f} {percentile(ours, share):.0f} ms" for share in (0.5, 0.99))
    other = ", ".join(f"p{share * 100:.0f} {percentile(theirs, share):.0f} ms" for share in (0.5, 0.99))
    say(f"  {len(ours)} {what}: {told}; the textbook's {other}")
