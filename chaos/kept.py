"""What was answered 2xx, held against the tables: by its own SQL, one query a promise."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from chaos.told import Kept, Told
from cli.demo.judge import Tables, Verdict
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
# Changes of one record by people, in their order, without those that changed nothing; and the same as events.
_IN_ORDER = """
    , wanted AS (
      SELECT subject, array_agg(value ORDER BY number) AS said FROM (
        SELECT subject, number, said ->> '{name}' AS value,
          lag(said ->> '{name}') OVER (PARTITION BY subject ORDER BY number) AS before
        FROM told WHERE kind = '{kind}' AND said ? '{name}') each
      WHERE value IS DISTINCT FROM coalesce(before, {at_first}) GROUP BY subject
    ), found AS (
      SELECT subject_id::text AS subject, array_agg(after ->> '{name}' ORDER BY number) AS recorded
      FROM events WHERE type = '{event}' AND after ? '{name}' AND actor_kind = 'user' GROUP BY subject_id
    )
    SELECT coalesce(wanted.subject, found.subject) AS subject, wanted.said, found.recorded
    FROM wanted FULL JOIN found ON found.subject = wanted.subject WHERE wanted.said IS DISTINCT FROM found.recorded
"""


def _in_order(kind: str, name: str, event: str, at_first: str) -> str:
    return _IN_ORDER.format(kind=kind, name=name, event=event, at_first=at_first)


KEPT: Mapping[str, str] = {
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
    "every move of a deal that was answered is recorded, once, in its order": _in_order(
        "move", "stage", "deal.stage_changed", "'lead'"
    ),
    "every edit of a contact that was answered is recorded, once, in its order": _in_order(
        "edit_contact", "title", "contact.updated", "''"
    ),
    "every edit of a deal that was answered is recorded, once, in its order": _in_order(
        "edit_deal", "valueCents", "deal.updated", "''"
    ),
    "every record has the last value that was answered": """
        SELECT kind, subject, said FROM (
          SELECT DISTINCT ON (kind, subject) told.* FROM told
          WHERE kind IN ('move', 'edit_contact', 'edit_deal') ORDER BY kind, subject, number DESC) latest
        WHERE NOT CASE kind
          WHEN 'move' THEN EXISTS (SELECT FROM deals WHERE id::text = subject AND stage = said ->> 'stage')
          WHEN 'edit_contact' THEN EXISTS (SELECT FROM contacts WHERE id::text = subject AND title = said ->> 'title')
          ELSE EXISTS (SELECT FROM deals WHERE id::text = subject AND value_cents::text = said ->> 'valueCents') END
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


async def kept(tables: Tables, told: Told) -> list[Verdict]:
    """Every answer is kept, and every request had one."""
    given = as_rows(told.kept) | {
        "scopes": [one.scope for one in told.still],
        "of": [one.subject for one in told.still],
        "since": [one.since for one in told.still],
        "until": [one.until for one in told.still],
        "forged": told.forged,
    }
    return [
        Verdict("every request was answered", told.gave_up),
        *await ask(tables, {name: _TOLD + query for name, query in KEPT.items()}, **given),
    ]


def as_rows(told: Sequence[Kept]) -> dict[str, Any]:
    """The values that `_TOLD` names."""
    return {
        "numbers": list(range(len(told))),
        "kinds": [str(one.kind) for one in told],
        "subjects": [one.subject for one in told],
        "begun": [one.begun for one in told],
        "acknowledged": [one.acknowledged for one in told],
        "said": [json.dumps(dict(one.said)) for one in told],
    }
