"""A calm story holds every invariant, and each invariant is broken by what it is there to see."""

import json
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import asyncpg
import pytest
from temporalio.client import Client

from chaos import judge, kept, mail
from chaos.judge import INVARIANTS, overdue, workflows
from chaos.kept import CHANGES, KEPT, changed, follows
from chaos.mail import ANSWERED, in_the_log
from chaos.plan import Act, plan
from cli.demo.judge import Tables, numbered
from cli.demo.mail_judge import Logged

pytestmark = pytest.mark.timeout(300)
"""Whichever comes first lives the story through."""
QUERIES = {**INVARIANTS, **KEPT, **ANSWERED}


class Tampered(Tables):
    """The tables as one transaction sees them, which is rolled back."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self._connection = connection

    async def fetch(self, query: str, *values: object) -> list[Mapping[str, Any]]:
        return list(await self._connection.fetch(query, *values))


@asynccontextmanager
async def tampered(story) -> AsyncIterator[asyncpg.Connection]:
    """Neither foreign keys nor unique indexes see what is done."""
    connection = await asyncpg.connect(story.url)
    transaction = connection.transaction()
    await transaction.start()
    await connection.execute("SET LOCAL session_replication_role = replica")
    try:
        yield connection
    finally:
        await transaction.rollback()
        await connection.close()


def copied(table: str, where: str, **changes: str) -> str:
    """A second row as the first that is found, but for these columns, given in SQL."""
    differ = ", ".join(f"'{name}', {value}" for name, value in changes.items())
    return (
        f"INSERT INTO {table} OVERRIDING SYSTEM VALUE"
        f" SELECT (jsonb_populate_record(r, jsonb_build_object({differ}))).* FROM {table} r WHERE {where} LIMIT 1"
    )


def another_version(kind: str) -> str:
    """One execution walks a version that was never switched on."""
    one = f"(SELECT id FROM executions WHERE kind = '{kind}' ORDER BY id LIMIT 1)"
    of_it = f"r.id = (SELECT version_id FROM executions WHERE id = {one})"
    made = copied("versions", of_it, id="gen_random_uuid()", number="1000")
    return f"{made}; UPDATE executions SET version_id = (SELECT id FROM versions WHERE number = 1000) WHERE id = {one}"


NEW = "gen_random_uuid()"
AGAIN = copied("attempts", "outcome = 'accepted'", number="number + 1", token=NEW)
CLAIMED_LATE = "UPDATE attempts SET claimed_real = clock_timestamp()"
OF_THOSE_WHO = """intent_id IN (
    SELECT i.id FROM intents i JOIN executions x ON x.id = i.execution_id WHERE x.exit_reason = '{}')"""
OPEN = "UPDATE executions SET status = 'open', exit_reason = NULL, ended_at = NULL, due_at = anchor"
STUCK = "UPDATE executions SET status = 'stuck', exit_reason = NULL, ended_at = NULL,"
STILL = """
    UPDATE attempts SET claimed_real = s.since + interval '0.2 s',
      claimed_at = base_business + (s.since + interval '0.1 s' - base_real) * scale
    FROM clock, (SELECT '{since}'::timestamptz AS since) s
"""
TAMPERINGS: list[tuple[str, str]] = [
    (
        "a rule made at most one run or one refusal of an event",
        """INSERT INTO refusals SELECT org_id, gen_random_uuid(), definition_id, version_id, event_id,
           'conditions_not_met', NULL, started_at FROM executions WHERE kind = 'run' LIMIT 1""",
    ),
    (
        "every event was decided by every rule that was on and listening when it was recorded",
        "DELETE FROM refusals WHERE id = (SELECT id FROM refusals LIMIT 1)",
    ),
    (
        "every event was decided by every rule that was on and listening when it was recorded",
        "DELETE FROM executions WHERE id = (SELECT id FROM executions WHERE kind = 'run' LIMIT 1)",
    ),
    (
        "every run is of the version that was on when its event was recorded, and of an event that it hears",
        another_version("run"),
    ),
    (
        "every run is of the version that was on when its event was recorded, and of an event that it hears",
        """UPDATE executions SET event_id = (SELECT id FROM events WHERE type = 'task.created' LIMIT 1)
           WHERE id = (SELECT id FROM executions WHERE kind = 'run' LIMIT 1)""",
    ),
    ("every enrollment is of the version that was on when it began", another_version("enrollment")),
    ("nobody was in a sequence twice at once", copied("executions", "kind = 'enrollment'", id=NEW)),
    (
        "no step was taken twice, and none is missing in between",
        "UPDATE effects SET number = number + 100 WHERE execution_id = (SELECT execution_id FROM effects LIMIT 1)",
    ),
    (
        "no step was taken twice, and none is missing in between",
        copied("effects", "true", visit="2", number="number + 100"),
    ),
    ("every step made what it says, once", "DELETE FROM notifications WHERE reason = 'rule'"),
    ("every step made what it says, once", "DELETE FROM activities WHERE type = 'task'"),
    ("every step made what it says, once", "DELETE FROM intents"),
    ("every step made what it says, once", "DELETE FROM reminders WHERE execution_id IS NOT NULL"),
    ("every step made what it says, once", "DELETE FROM executions WHERE started_by_kind = 'rule'"),
    (
        "nothing was made but by a step that says so",
        "UPDATE activities SET id = gen_random_uuid() WHERE execution_id IS NOT NULL AND type = 'task'",
    ),
    ("nothing was made but by a step that says so", copied("reminders", "execution_id IS NOT NULL", id=NEW)),
    ("nothing was made but by a step that says so", copied("notifications", "reason = 'rule'", id=NEW)),
    ("nothing was made but by a step that says so", copied("intents", "true", id=NEW, visit="2", message_id="NULL")),
    ("nothing was made but by a step that says so", copied("executions", "started_by_kind = 'rule'", id=NEW)),
    (
        "what happened to a record is told once",
        copied("events", "type = 'task.completed'", id=NEW, number="number + 100"),
    ),
    ("what happened to a record is told once", "DELETE FROM events WHERE type = 'enrollment.started'"),
    (
        "numbers of every subject run 1..n without a gap",
        """DELETE FROM events e WHERE number = 1 AND EXISTS (SELECT FROM events o WHERE o.subject_id = e.subject_id
           AND o.number = 2)""",
    ),
    ("messages, addresses and enrollments count their own events", "UPDATE intents SET revision = revision + 1"),
    ("every wait was waited out", "UPDATE effects SET at = at - interval '1 day' WHERE outcome = 'waited'"),
    (
        "every wait was waited out",
        """UPDATE effects SET saw = jsonb_set(saw, '{at}', to_jsonb((saw ->> 'at')::timestamptz - interval '20 hours'))
           WHERE outcome = 'waited'""",
    ),
    (
        "no wait after a mail was over before the mail had left",
        "UPDATE intents SET accepted_at = accepted_at + interval '30 days'",
    ),
    (
        "every reminder fired once for each time it was set, and escalated after that",
        "DELETE FROM notifications WHERE reason = 'reminder'",
    ),
    (
        "every reminder fired once for each time it was set, and escalated after that",
        f"DROP INDEX notifications_once; {copied('notifications', 'reminder_id IS NOT NULL', id=NEW)}",
    ),
    (
        "every reminder fired once for each time it was set, and escalated after that",
        "UPDATE notifications SET created_at = created_at - interval '30 days' WHERE reason = 'escalation'",
    ),
    (
        "no reminder of a step fired early",
        "UPDATE notifications SET created_at = created_at - interval '30 days' WHERE reason = 'reminder'",
    ),
    (
        "no mail was claimed before its planned instant",
        "UPDATE attempts SET claimed_at = claimed_at - interval '9 days'",
    ),
    ("no mail was claimed after the commit of what ended its enrollment or deleted its contact", CLAIMED_LATE),
    ("no mail was claimed after the commit of its address's suppression", CLAIMED_LATE),
    ("no attempt follows one that was accepted, or of which nothing is known", AGAIN),
    (
        "no attempt follows one that was accepted, or of which nothing is known",
        f"UPDATE attempts SET outcome = NULL, ended_at = NULL; {copied('attempts', 'true', number='number + 1')}",
    ),
    (
        "a message left only by an attempt, and is on the timeline once",
        "DELETE FROM activities WHERE metadata ? 'messageId'",
    ),
    ("a message left only by an attempt, and is on the timeline once", "DELETE FROM attempts"),
    (
        "a message left only by an attempt, and is on the timeline once",
        "UPDATE intents SET status = 'cancelled' WHERE status = 'accepted'",
    ),
    ("mailboxes kept their spacing", "UPDATE attempts SET claimed_real = '2026-01-01'"),
    ("mailboxes kept their caps", """UPDATE destinations SET pace = '{"perMinute": 1}'"""),
    ("mailboxes kept their caps", """UPDATE destinations SET pace = '{"perDay": 2}'"""),
    ("every letter was read, or settled by a person", "UPDATE letters SET status = 'unreadable'"),
    (
        "no letter holds anything any more",
        "INSERT INTO holds SELECT l.org_id, l.id, x.id, l.received_at FROM letters l, executions x LIMIT 1",
    ),
    (
        "a letter ended nothing but what a reply may end",
        "UPDATE letters SET kind = 'auto_reply' WHERE kind = 'reply'",
    ),
    (
        "every reply is on the timeline once, and its owner was told once",
        "DELETE FROM activities WHERE metadata ? 'letterId'",
    ),
    (
        "every reply is on the timeline once, and its owner was told once",
        copied("notifications", "reason = 'reply'", id=NEW),
    ),
    ("no event waits or was set aside", "INSERT INTO outbox (org_id, event_id) SELECT org_id, id FROM events LIMIT 1"),
    (
        "no wake waits or was set aside",
        "INSERT INTO wakes (org_id, kind, target_id) SELECT org_id, kind, id FROM executions LIMIT 1",
    ),
    (
        "every execution ended, or is kept still or stuck for a reason that is there",
        f"{OPEN} WHERE kind = 'run'",
    ),
    (
        "every execution ended, or is kept still or stuck for a reason that is there",
        f"{STUCK} stuck_reason = 'message_uncertain' WHERE kind = 'run'",
    ),
    (
        "every execution ended, or is kept still or stuck for a reason that is there",
        f"{STUCK} stuck_reason = 'unexpected_error' WHERE kind = 'run'",
    ),
    ("every message is over, or uncertain or failed and says why", "UPDATE intents SET status = 'pending'"),
    (
        "every message is over, or uncertain or failed and says why",
        "UPDATE intents SET status = 'uncertain', reason = NULL WHERE token IS NOT NULL",
    ),
    ("no reminder is left to fire", "UPDATE reminders SET status = 'scheduled', due_at = created_at"),
    ("every contact and deal that was made is there, once, as it was given", "DELETE FROM deals"),
    (
        "every contact and deal that was made is there, once, as it was given",
        "UPDATE contacts SET email = 'x@example.org' WHERE email = 'person-1@example.org'",
    ),
    (
        "every contact and deal that was made is there, once, as it was given",
        copied("deals", "true", id=NEW),
    ),
    (
        "every move of a deal that was answered is recorded, once, in its order, and the last is where it stands",
        "DELETE FROM events WHERE id = (SELECT id FROM events WHERE type = 'deal.stage_changed' LIMIT 1)",
    ),
    (
        "every move of a deal that was answered is recorded, once, in its order, and the last is where it stands",
        copied("events", "type = 'deal.stage_changed'", id=NEW, number="1000"),
    ),
    (
        "every edit of a contact that was answered is recorded, once, in its order, and the last is what is there",
        "DELETE FROM events WHERE type = 'contact.updated'",
    ),
    (
        "every edit of a deal that was answered is recorded, once, in its order, and the last is what is there",
        "DELETE FROM events WHERE type = 'deal.updated'",
    ),
    (CHANGES[0].promise, "UPDATE deals SET stage = 'lead'"),
    (CHANGES[1].promise, "UPDATE contacts SET title = 'before'"),
    (CHANGES[2].promise, "UPDATE deals SET value_cents = 1"),
    ("every enrollment that was answered is there", "DELETE FROM executions WHERE started_by_kind = 'user'"),
    (
        "every webhook that was answered is kept once, and was carried out once",
        "DELETE FROM inbox WHERE message_id = (SELECT message_id FROM inbox LIMIT 1)",
    ),
    (
        "every webhook that was answered is kept once, and was carried out once",
        copied("events", "actor_kind = 'source'", id=NEW, number="1000"),
    ),
    (
        "every webhook that was answered is kept once, and was carried out once",
        copied("inbox", "true", message_id="'another'"),
    ),
    ("nothing forged was taken", copied("contacts", "true", id=NEW, email="'{forged}'")),
    (
        "every stop that was answered had ended its enrollment, and nothing of it was claimed after",
        "UPDATE executions SET exit_reason = 'completed' WHERE exit_reason = 'stopped'",
    ),
    (
        "every stop that was answered had ended its enrollment, and nothing of it was claimed after",
        f"""{CLAIMED_LATE}; UPDATE intents SET step = 'late', execution_id = (
              SELECT id FROM executions WHERE exit_note = 'They called.' LIMIT 1)
            WHERE id = (SELECT intent_id FROM attempts LIMIT 1)""",
    ),
    (
        "every stop that was answered had ended its enrollment, and nothing of it was claimed after",
        "DELETE FROM executions",
    ),
    ("what was kept still took no step and sent nothing meanwhile", STILL),
    ("every version that was published is there, and was switched on", "DELETE FROM activations"),
    ("every version that was published is there, and was switched on", "DELETE FROM versions WHERE number > 1"),
    (
        "every task that was answered to be done is done, by one event",
        "DELETE FROM events WHERE type = 'task.completed'",
    ),
    ("every task that was answered to be done is done, by one event", "UPDATE activities SET completed_at = NULL"),
    (
        "every reminder that was made is there, and none that was called off fired after",
        "UPDATE reminders SET status = 'fired' WHERE status = 'cancelled'",
    ),
    ("every reminder that was made is there, and none that was called off fired after", "DELETE FROM reminders"),
    (
        "no reminder that people set fired before its time",
        "UPDATE notifications SET created_at = created_at - interval '30 days' WHERE reason = 'reminder'",
    ),
    ("each reminder was put off as often as was answered", "UPDATE reminders SET snoozes = snoozes + 1"),
    (
        "no mail was claimed after a reply or an unsubscription was answered",
        f"{CLAIMED_LATE} WHERE {OF_THOSE_WHO.format('unsubscribed')}",
    ),
    (
        "no mail was claimed after a reply or an unsubscription was answered",
        f"{CLAIMED_LATE} WHERE {OF_THOSE_WHO.format('replied')}",
    ),
    (
        "every unsubscription had ended what it should when it was answered",
        "DELETE FROM events WHERE type = 'enrollment.ended'",
    ),
    (
        "every reply and bounce had ended what it should when it was read",
        "DELETE FROM events WHERE type = 'enrollment.ended' AND after ->> 'exitReason' = 'replied'",
    ),
    (
        "every reply and bounce had ended what it should when it was read",
        "DELETE FROM events WHERE type = 'enrollment.ended' AND after ->> 'exitReason' = 'bounced'",
    ),
    ("every letter that was answered was taken for what it is", "UPDATE letters SET kind = 'complaint'"),
    ("every letter is kept once, and a forged one not at all", copied("letters", "true", id=NEW, key="sha256('x')")),
    (
        "every bounced and every unsubscribed address is suppressed",
        "UPDATE addresses SET suppressed = NULL, suppressed_at = NULL",
    ),
    ("no mail was sent again but where it was refused for certain, or a person said so", AGAIN),
]


def test_a_calm_story_holds_every_invariant(story):
    broken = {verdict.name: verdict.offending for verdict in story.verdicts if not verdict.holds}
    assert broken == {}
    assert set(QUERIES) < {verdict.name for verdict in story.verdicts}


def test_every_invariant_is_tampered_with():
    assert {name for name, _ in TAMPERINGS} == {*QUERIES, *(change.promise for change in CHANGES)}


@pytest.mark.parametrize(
    ("name", "sql"), TAMPERINGS, ids=[f"{name} #{number}" for number, (name, _) in enumerate(TAMPERINGS)]
)
async def test_the_judge_sees_what_breaks_an_invariant(story, name, sql):
    given = mail.given(story.told) if name in ANSWERED else kept.given(story.told)
    since = next(one.since for one in story.told.still if one.scope == "sending")
    async with tampered(story) as connection:
        await connection.execute(sql.replace("{since}", since.isoformat()).replace("{forged}", story.told.forged[0]))
        if name in QUERIES:
            assert await connection.fetch(*numbered(QUERIES[name], given))
        else:
            (change,) = [change for change in CHANGES if change.promise == name]
            certain = replace(story.told, repeats=Counter())  # on a busy machine a request may have been repeated
            assert not (await changed(Tampered(connection), certain, change)).holds


async def test_what_is_due_and_not_done_is_counted_unless_it_waits_for_somebody_else(story):
    async with tampered(story) as connection:
        tables = Tampered(connection)
        assert await overdue(tables) == 0
        await connection.execute("UPDATE destinations SET pace = '{}'")
        await connection.execute("UPDATE attempts SET claimed_real = claimed_real - interval '1 hour'")
        one = "id = (SELECT id FROM intents WHERE status = 'accepted' LIMIT 1)"
        await connection.execute(f"UPDATE intents SET status = 'pending' WHERE {one}")
        assert await overdue(tables) == 1
        assert await judge.left_to_come(tables) == 1
        for apart in ("paused_at = now()", "trouble = 'busy', trouble_since = now()", """pace = '{"perDay": 1}'"""):
            async with connection.transaction():
                await connection.execute(f"UPDATE destinations SET {apart}")
                assert await overdue(tables) == 0, apart
                await connection.execute(
                    "UPDATE destinations SET paused_at = NULL, trouble = NULL, trouble_since = NULL"
                )
                await connection.execute("UPDATE destinations SET pace = '{}'")
        await connection.execute(f"{OPEN} WHERE id = (SELECT id FROM executions LIMIT 1)")
        await connection.execute("INSERT INTO outbox (org_id, event_id) SELECT org_id, id FROM events LIMIT 1")
        assert await overdue(tables) == 3


async def test_a_workflow_that_runs_without_a_row_is_seen(story):
    address, namespace = story.temporal
    client = await Client.connect(address, namespace=namespace)
    id_ = f"run-{uuid4()}"
    handle = await client.start_workflow("Walk", id=id_, task_queue="nobody")
    tables = Tables(story.url)
    try:
        found: list[object] = []
        while not found:  # its list lags behind; the test's own time limit bounds it
            found = [*(await workflows(tables, story.temporal, patience=0)).offending]
    finally:
        await handle.terminate()
    assert found == [{"workflow": id_}]


NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
AFTER = Logged("<a>", NOON + timedelta(seconds=1))


def row(status="accepted", **values):
    return {"id": "a", "execution_id": "x", "step": "hello", "message_id": "<a>", "status": status, "reason": None,
            "first_claim": NOON, "was_uncertain": False, **values}  # fmt: skip


@pytest.mark.parametrize(
    ("rows", "log", "again", "broken"),
    [
        ([row()], [AFTER], [], []),
        ([row()], [AFTER, AFTER], [], [0]),
        ([row()], [AFTER, AFTER], ["a"], []),
        ([row(), row(id="b", message_id="<b>")], [AFTER, Logged("<b>", AFTER.at)], [], [0]),
        ([row()], [], [], [1]),
        ([row("cancelled")], [AFTER], [], [2]),
        ([row("cancelled")], [AFTER], ["a"], []),
        ([row("uncertain")], [AFTER], [], []),
        ([row("uncertain")], [], [], []),
        ([], [AFTER], [], [2]),
        ([row()], [Logged("<a>", NOON - timedelta(seconds=1))], [], [3]),
        ([row(id=n, message_id=str(n), status="uncertain", was_uncertain=True) for n in range(5)], [], [], []),
        ([row(id=n, message_id=str(n), status="uncertain", was_uncertain=True) for n in range(6)], [], [], [4]),
    ],
    ids=["well", "twice", "twice on a person's word", "one step twice", "lost", "cancelled", "cancelled later",
         "uncertain", "uncertain and not there", "unknown", "before its claim", "a handful", "more than a handful"],
)  # fmt: skip
def test_the_judge_holds_the_rows_against_the_mail_servers_log(rows, log, again, broken):
    assert [n for n, verdict in enumerate(in_the_log(rows, log, again)) if not verdict.holds] == broken


def test_a_request_without_an_answer_is_a_failure_of_its_own(story):
    (verdict,) = [verdict for verdict in story.verdicts if verdict.name == "every request was answered"]
    assert verdict.offending is story.told.gave_up


@pytest.mark.parametrize(
    ("said", "events", "there", "maybe", "holds"),
    [
        ("ab", "ab", "b", None, True),
        ("aab", "ab", "b", None, True),
        ("xa", "a", "a", None, True),
        ("ab", "a", "a", None, False),
        ("ab", "ba", "a", None, False),
        ("ab", "aab", "b", None, False),
        ("ab", "ab", "a", None, False),
        ("ab", "aba", "a", "ab", True),
        ("a", "cac", "c", "ac", True),
        ("ab", "ac", "c", "abc", False),
        ("ab", "abd", "d", "ab", False),
    ],
)
def test_what_was_answered_follows_in_order_unless_a_request_was_repeated(said, events, there, maybe, holds):
    assert follows(["x", *said], [*events], there, maybe) is holds


def test_a_seed_is_a_plan():
    assert plan(3, 60) == plan(3, 60)
    assert plan(3, 60) != plan(4, 60)


@pytest.mark.parametrize("seconds", [12.0, 60.0, 240.0])
def test_a_plan_has_every_kind_of_act_and_ends_in_time(seconds):
    acts = plan(1, seconds).acts
    assert {one.act for one in acts} == set(Act)
    assert [one.second for one in acts] == sorted(one.second for one in acts)
    assert all(0 <= one.second + one.said.get("lasts", 0) <= seconds for one in acts)
    assert max(one.second for one in acts if one.act is Act.CONTACT) <= seconds * 0.7
    json.dumps([dict(one.said) for one in acts])
