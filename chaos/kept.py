"""What was answered 2xx, held against the tables: by its own SQL, one query a promise."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from chaos.told import Told
from cli.demo.judge import Tables, Verdict, numbered
from cli.demo.judge import judge as ask

# What was told, as rows: its number in the order it was done, its kind, subject, instants and what was said.
_TOLD = """
    WITH told AS (
      SELECT * FROM unnest(:numbers::int[], :kinds::text[], :subjects::text[], :begun::timestamptz[],
        :acknowledged::timestamptz[], :said::jsonb[]) AS one (number, kind, subject, begun, acknowledged, said)
    ), still AS (
      SELECT * FROM unnest(:scopes::text[], :of::text[], :since::timestamptz[], :until::timestamptz[])
        AS one (scope, subject, since, until)
    ), real AS (
      -- When a transaction began in real time, by the business time it read first.
      SELECT t.intent_id, t.number, t.destination_id, t.claimed_real, i.execution_id, x.definition_id,
        base_real + (t.claimed_at - base_business - shift) / scale AS began
      FROM attempts t JOIN intents i ON i.id = t.intent_id JOIN executions x ON x.id = i.execution_id, clock
    )
"""
_QUERIES: Mapping[str, str] = {
    "every contact and deal that was made is there, once, as it was given": """
        SELECT told.kind, told.subject FROM told
        LEFT JOIN contacts c ON told.kind = 'contact' AND c.id::text = told.subject
        LEFT JOIN deals d ON told.kind = 'deal' AND d.id::text = told.subject
        WHERE told.kind IN ('contact', 'deal') AND CASE told.kind
          WHEN 'contact' THEN c.email IS DISTINCT FROM told.said ->> 'email' OR (SELECT count(*) FROM contacts o
            WHERE lower(o.email) = c.email) <> 1
          ELSE d.title IS DISTINCT FROM told.said ->> 'title' OR (SELECT count(*) FROM deals o
            WHERE o.title = d.title) <> 1 END
    """,
    "every enrollment that was answered is there": """
        SELECT told.subject, told.said FROM told LEFT JOIN executions x ON x.id::text = told.subject
          AND x.contact_id::text = told.said ->> 'contact' AND x.definition_id::text = told.said ->> 'sequence'
        WHERE told.kind = 'enrollment' AND x.id IS NULL
    """,
    "every webhook that was answered is kept once, and was carried out once": """
        SELECT DISTINCT told.subject FROM told WHERE told.kind = 'webhook' AND (
          1 <> (SELECT count(*) FROM inbox WHERE message_id = told.subject AND status = 200)
          OR 1 <> (SELECT count(*) FROM events WHERE actor_kind = 'source' AND subject_kind = 'contact'
                   AND after ->> 'firstName' = told.said ->> 'firstName')
          OR 1 <> (SELECT count(*) FROM contacts WHERE email = told.said ->> 'email'))
        UNION ALL
        SELECT message_id FROM inbox WHERE message_id NOT IN (SELECT subject FROM told WHERE kind = 'webhook')
    """,
    "nothing forged was taken": """
        SELECT c.id FROM contacts c WHERE c.email = ANY (:forged::text[])
        UNION ALL SELECT NULL FROM told WHERE kind = 'forged'
    """,
    "every stop that was answered had ended its enrollment, and nothing of it was claimed after": """
        SELECT told.subject, x.status, x.exit_reason, t.intent_id FROM told
        JOIN executions x ON x.id::text = told.subject
        LEFT JOIN events e ON e.subject_id = x.id AND e.type = 'enrollment.ended'
        LEFT JOIN real t ON t.execution_id = x.id AND t.claimed_real > told.acknowledged
        WHERE told.kind = 'stop' AND (x.exit_reason IS DISTINCT FROM 'stopped' OR t.intent_id IS NOT NULL
          OR e.id IS NULL OR pg_xact_commit_timestamp(e.xmin) > told.acknowledged)
        UNION ALL
        SELECT told.subject, NULL, NULL, NULL FROM told
        WHERE kind = 'stop' AND NOT EXISTS (SELECT FROM executions x WHERE x.id::text = told.subject)
    """,
    "what was kept still took no step and sent nothing meanwhile": """
        SELECT still.scope, still.subject, t.intent_id, t.began AS at FROM still JOIN real t ON CASE still.scope
          WHEN 'enrollment' THEN t.execution_id::text = still.subject
          WHEN 'sequence' THEN t.definition_id::text = still.subject
          WHEN 'mailbox' THEN t.destination_id::text = still.subject ELSE true END
        WHERE t.began > still.since AND t.claimed_real < still.until
        UNION ALL
        SELECT still.scope, still.subject, f.execution_id, pg_xact_commit_timestamp(f.xmin)
        FROM still JOIN effects f ON still.scope = 'enrollment' AND f.execution_id::text = still.subject
        WHERE pg_xact_commit_timestamp(f.xmin) > still.since AND pg_xact_commit_timestamp(f.xmin) < still.until
    """,
    "every version that was published is there, and was switched on": """
        SELECT told.subject, told.said -> 'version' AS version FROM told WHERE told.kind = 'publish' AND NOT EXISTS (
          SELECT FROM versions v JOIN activations a ON a.version_id = v.id
          WHERE v.definition_id::text = told.subject AND v.number = (told.said ->> 'version')::int
            AND v.document -> 'steps' -> 0 ->> 'id' = told.said #>> '{document,steps,0,id}')
    """,
    "every task that was answered to be done is done, by one event": """
        SELECT DISTINCT told.subject FROM told WHERE told.kind = 'completion' AND (
          1 <> (SELECT count(*) FROM events WHERE subject_id::text = told.subject AND type = 'task.completed')
          OR NOT EXISTS (SELECT FROM activities WHERE id::text = told.subject AND completed_at IS NOT NULL))
    """,
    "every reminder that was made is there, and none that was called off fired after": """
        SELECT told.kind, told.subject FROM told LEFT JOIN reminders m ON m.id::text = told.subject
        WHERE told.kind IN ('reminder', 'snooze', 'cancellation') AND m.id IS NULL
        UNION ALL
        SELECT told.kind, told.subject FROM told JOIN reminders m ON m.id::text = told.subject
        LEFT JOIN notifications n ON n.reminder_id = m.id AND pg_xact_commit_timestamp(n.xmin) > told.acknowledged
        WHERE told.kind = 'cancellation' AND (m.status <> 'cancelled' OR n.id IS NOT NULL)
    """,
    "no reminder that people set fired before its time": """
        SELECT told.subject, told.said, n.created_at FROM (
          SELECT subject, said, number, row_number() OVER (PARTITION BY subject ORDER BY number)
            + (SELECT count(*) FROM effects WHERE made_id::text = subject) AS occurrence
          FROM told WHERE kind IN ('reminder', 'snooze')) told
        JOIN notifications n ON n.reminder_id::text = told.subject AND n.occurrence = told.occurrence
        WHERE n.reason = 'reminder'
          AND n.created_at < coalesce(told.said ->> 'dueAt', told.said ->> 'until')::timestamptz
    """,
    "each reminder was put off as often as was answered": """
        SELECT subject, count(*) FROM told JOIN reminders m ON m.id::text = subject WHERE kind = 'snooze'
        GROUP BY subject, m.snoozes HAVING count(*) <> m.snoozes
        UNION ALL SELECT id::text, snoozes FROM reminders
        WHERE snoozes > 0 AND id::text NOT IN (SELECT subject FROM told WHERE kind = 'snooze')
    """,
}

KEPT: Mapping[str, str] = {name: _TOLD + query for name, query in _QUERIES.items()}


@dataclass(frozen=True)
class Change:
    """How people change one field: the promise, their act, the field's name in the API, its event, and where it is."""

    promise: str
    act: str
    name: str
    event: str
    there: str
    at_first: str | None = None


CHANGES = (
    Change(
        "every move of a deal that was answered is recorded, once, in its order, and the last is where it stands",
        "move",
        "stage",
        "deal.stage_changed",
        "SELECT id::text, stage AS value FROM deals",
        "lead",
    ),
    Change(
        "every edit of a contact that was answered is recorded, once, in its order, and the last is what is there",
        "edit_contact",
        "title",
        "contact.updated",
        "SELECT id::text, title AS value FROM contacts",
    ),
    Change(
        "every edit of a deal that was answered is recorded, once, in its order, and the last is what is there",
        "edit_deal",
        "valueCents",
        "deal.updated",
        "SELECT id::text, value_cents::text AS value FROM deals",
    ),
)


async def kept(tables: Tables, told: Told) -> list[Verdict]:
    """Every answer is kept, and every request had one."""
    return [
        Verdict("every request was answered", told.gave_up),
        *await ask(tables, KEPT, **given(told)),
        *[await changed(tables, told, change) for change in CHANGES],
    ]


async def changed(tables: Tables, told: Told, change: Change) -> Verdict:
    """Whether what was answered is recorded in its order, each once, and the last of it is what is there.

    A request that had to be repeated may be carried out once more, late, as there is no key to know it by:
    of such a record no more is promised than that all that was answered is there and nothing that was not asked for.
    """
    query = """
        SELECT subject_id::text AS subject, array_agg(after ->> :name ORDER BY number) AS recorded FROM events
        WHERE type = :event AND after ->> :name IS NOT NULL AND actor_kind = 'user' GROUP BY subject_id
    """
    rows = await tables.fetch(*numbered(query, {"name": change.name, "event": change.event}))
    recorded = {row["subject"]: row["recorded"] for row in rows}
    there = {row["id"]: row["value"] for row in await tables.fetch(change.there)}
    said: dict[str, list[str]] = {}
    for one in told.of(change.act):
        said.setdefault(one.subject, []).append(str(one.said[change.name]))
    asked: dict[str, set[str]] = {}
    for request in told.asked:
        if change.name in request.said:
            asked.setdefault(request.subject, set()).add(str(request.said[change.name]))
    repeated = {request.subject for request in told.asked if request.path in told.repeats}
    wrong = []
    for subject in said.keys() | recorded.keys():
        answers, events, now = said.get(subject, []), recorded.get(subject, []), there.get(subject)
        maybe = asked.get(subject, set()) if subject in repeated else None
        if not follows([change.at_first, *answers], events, now, maybe):
            wrong.append({"subject": subject, "answered": answers, "recorded": events, "there": now})
    return Verdict(change.promise, wrong)


def follows(
    said: Sequence[str | None], events: Sequence[str], there: str | None, maybe: Collection[str] | None
) -> bool:
    """Whether events are what was said, from what was there at first; what says what is there already makes none.

    `maybe` is all that may be there where nothing is certain of the order.
    """
    made = [value for before, value in pairwise(said) if value != before]
    if maybe is None:
        return made == list(events) and (not events or there == events[-1])
    return {*made} <= {*events} <= {*maybe} and (not events or there in maybe)


def given(told: Told) -> dict[str, Any]:
    """The values that the queries of `KEPT` name."""
    return {
        "numbers": list(range(len(told.kept))),
        "kinds": [str(one.kind) for one in told.kept],
        "subjects": [one.subject for one in told.kept],
        "begun": [one.begun for one in told.kept],
        "acknowledged": [one.acknowledged for one in told.kept],
        "said": [json.dumps(dict(one.said)) for one in told.kept],
        "scopes": [one.scope for one in told.still],
        "of": [one.subject for one in told.still],
        "since": [one.since for one in told.still],
        "until": [one.until for one in told.still],
        "forged": told.forged,
    }
