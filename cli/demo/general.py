"""What holds of every story, whatever was done and whatever failed: queries that find what breaks it.

They need no values, and a database with `track_commit_timestamp`: what came before what is told by
commits, which nothing in the engine writes or reads. A story is judged when nothing is left to come.
"""

from collections.abc import Mapping

# The step of a version that an effect is of, wherever branches have put it.
_STEP = "jsonb_path_query_first(v.document, '$.** ? (@.id == $id)', jsonb_build_object('id', f.step))"
# A day may be an hour short where summer time begins; what counts in working days is longer than that.
_LENGTH = """
    CASE {amount} ->> 'unit' WHEN 'minutes' THEN interval '1 minute' WHEN 'hours' THEN interval '1 hour'
      WHEN 'weeks' THEN interval '167 hours' WHEN 'months' THEN interval '671 hours' ELSE interval '23 hours' END
    * ({amount} ->> 'amount')::float8
"""
# What a step counts from: the plan of the wait before it, else what began the execution.
_ANCHOR = """
    coalesce(
      (SELECT max((w.saw ->> 'at')::timestamptz) FROM effects w
       WHERE w.execution_id = f.execution_id AND w.outcome = 'waited' AND w.number < f.number),
      (SELECT e.at FROM events e WHERE x.kind = 'run' AND e.id = x.event_id), x.started_at)
"""
# A transaction reads what is switched on, and somebody may switch before it commits; one that idles is cut off after
# this long. One that is at work may take longer where the machine is busy: then the commits say what it could read.
_CUT_OFF = "(SELECT make_interval(secs => 5 * scale) FROM clock)"
_LISTED = (
    "(coalesce(v.document #> '{{trigger,{list}}}', '[]') = '[]' OR v.document #> '{{trigger,{list}}}' ? ({value}))"
)
_HEARS = " AND ".join(
    [
        "v.document #>> '{trigger,on}' = e.type",
        _LISTED.format(list="from", value="e.before ->> 'stage'"),
        _LISTED.format(list="to", value="e.after ->> 'stage'"),
        _LISTED.format(list="reasons", value="e.after ->> 'exitReason'"),
    ]
)

GENERAL: Mapping[str, str] = {
    # --- decisions
    "a rule made at most one run or one refusal of an event": """
        SELECT definition_id, event_id, count(*) FROM (
          SELECT definition_id, event_id FROM executions WHERE kind = 'run'
          UNION ALL SELECT definition_id, event_id FROM refusals) decided
        GROUP BY 1, 2 HAVING count(*) > 1
    """,
    "every event was decided by every rule that was on and listening when it was recorded": f"""
        SELECT e.id AS event, e.type, a.definition_id AS rule FROM events e
        JOIN activations a ON a.org_id = e.org_id AND a.since <= e.at AND (a.until IS NULL OR e.at < a.until)
        JOIN definitions d ON d.id = a.definition_id AND d.kind = 'rule' AND d.status IN ('active', 'paused')
        JOIN versions v ON v.id = a.version_id
        WHERE {_HEARS}
          AND NOT EXISTS (SELECT FROM executions x WHERE x.event_id = e.id AND x.definition_id = d.id)
          AND NOT EXISTS (SELECT FROM refusals r WHERE r.event_id = e.id AND r.definition_id = d.id)
    """,
    "every run is of the version that was on when its event was recorded, and of an event that it hears": f"""
        SELECT x.id, x.version_id, e.id AS event, e.at FROM executions x
        JOIN events e ON e.id = x.event_id JOIN versions v ON v.id = x.version_id
        WHERE x.kind = 'run' AND NOT ({_HEARS} AND EXISTS (
          SELECT FROM activations a WHERE a.version_id = x.version_id
            AND a.since <= e.at AND (a.until IS NULL OR e.at < a.until + {_CUT_OFF})))
    """,
    "every enrollment is of the version that was on when it began": f"""
        SELECT x.id, x.version_id, x.started_at FROM executions x
        WHERE x.kind = 'enrollment' AND NOT EXISTS (
          SELECT FROM activations a WHERE a.version_id = x.version_id
            AND (a.since <= x.started_at + {_CUT_OFF} OR EXISTS (
              SELECT FROM activations b JOIN events e ON e.subject_id = x.id AND e.type = 'enrollment.started'
              WHERE b.definition_id = a.definition_id AND b.until = a.since
                AND pg_xact_commit_timestamp(b.xmin) <= pg_xact_commit_timestamp(e.xmin)))
            AND (a.until IS NULL OR x.started_at < a.until + {_CUT_OFF}))
    """,
    "nobody was in a sequence twice at once": """
        SELECT a.id, b.id AS other FROM executions a
        JOIN executions b ON b.definition_id = a.definition_id AND b.contact_id = a.contact_id AND b.id > a.id
        WHERE a.kind = 'enrollment' AND b.kind = 'enrollment'
          AND a.started_at < coalesce(b.ended_at, 'infinity') AND b.started_at < coalesce(a.ended_at, 'infinity')
    """,
    # --- effects
    "no step was taken twice, and none is missing in between": """
        SELECT f.execution_id, count(*) FROM effects f JOIN executions x ON x.id = f.execution_id
        GROUP BY f.execution_id, x.steps_taken
        HAVING count(*) <> count(DISTINCT (f.step, f.visit)) OR max(f.number) <> count(*) OR min(f.number) <> 1
          OR count(*) <> x.steps_taken
    """,
    "every step made what it says, once": """
        SELECT f.execution_id, f.step, f.made_kind, f.made_id FROM effects f
        WHERE CASE f.made_kind
          WHEN 'activity' THEN (SELECT count(*) FROM activities WHERE id = f.made_id AND execution_id = f.execution_id)
          WHEN 'reminder' THEN (SELECT count(*) FROM reminders WHERE id = f.made_id AND execution_id = f.execution_id)
          WHEN 'notification' THEN (SELECT count(*) FROM notifications
            WHERE id = f.made_id AND execution_id = f.execution_id)
          WHEN 'message' THEN (SELECT count(*) FROM intents WHERE id = f.made_id
            AND (execution_id, step, visit) = (f.execution_id, f.step, f.visit))
          WHEN 'enrollment' THEN (SELECT count(*) FROM executions WHERE id = f.made_id AND kind = 'enrollment')
          ELSE (f.action NOT IN ('create_task', 'remind', 'notify', 'send_email')
            AND (f.action <> 'enroll' OR f.saw ? 'refused'))::int END <> 1
        UNION ALL
        SELECT NULL, NULL, made_kind, made_id FROM effects WHERE made_id IS NOT NULL
        GROUP BY made_kind, made_id HAVING count(*) > 1
    """,
    "nothing was made but by a step that says so": """
        SELECT 'task' AS made, id FROM activities a WHERE type = 'task' AND execution_id IS NOT NULL
          AND NOT EXISTS (SELECT FROM effects WHERE made_id = a.id)
        UNION ALL SELECT 'reminder', id FROM reminders r WHERE execution_id IS NOT NULL
          AND NOT EXISTS (SELECT FROM effects WHERE made_id = r.id)
        UNION ALL SELECT 'notification', id FROM notifications n WHERE reason = 'rule'
          AND NOT EXISTS (SELECT FROM effects WHERE made_id = n.id)
        UNION ALL SELECT 'message', id FROM intents i WHERE NOT EXISTS (SELECT FROM effects WHERE made_id = i.id)
        UNION ALL SELECT 'enrollment', id FROM executions x WHERE started_by_kind IN ('rule', 'sequence')
          AND NOT EXISTS (SELECT FROM effects WHERE made_id = x.id)
    """,
    "what happened to a record is told once": """
        SELECT e.type, e.subject_id, count(*) FROM events e
        WHERE e.type IN ('contact.created', 'contact.deleted', 'company.created', 'deal.created', 'task.created',
          'task.completed', 'activity.logged', 'enrollment.started', 'enrollment.ended', 'message.accepted',
          'message.replied')
        GROUP BY 1, 2 HAVING count(*) > 1
        UNION ALL
        SELECT 'untold', x.id, 0 FROM executions x WHERE x.kind = 'enrollment' AND (
          NOT EXISTS (SELECT FROM events WHERE subject_id = x.id AND type = 'enrollment.started')
          OR (x.status = 'ended') <> EXISTS (SELECT FROM events WHERE subject_id = x.id AND type = 'enrollment.ended'))
    """,
    "numbers of every subject run 1..n without a gap": """
        SELECT subject_kind, subject_id FROM events GROUP BY subject_kind, subject_id
        HAVING max(number) <> count(*) OR min(number) <> 1 OR count(DISTINCT number) <> count(*)
    """,
    "messages, addresses and enrollments count their own events": """
        SELECT id, revision FROM (
          SELECT id, revision, 'message' AS kind FROM intents UNION ALL SELECT id, revision, 'address' FROM addresses
          UNION ALL SELECT id, revision, 'enrollment' FROM executions WHERE kind = 'enrollment') counted
        WHERE revision <> (SELECT count(*) FROM events e WHERE (e.subject_kind, e.subject_id) = (kind, counted.id))
    """,
    # --- time
    "every wait was waited out": f"""
        SELECT f.execution_id, f.step, f.at, f.saw FROM effects f JOIN executions x ON x.id = f.execution_id
        JOIN versions v ON v.id = x.version_id
        CROSS JOIN LATERAL (SELECT {_STEP} #> '{{wait,for}}' AS amount) given
        WHERE f.outcome = 'waited' AND (f.at < (f.saw ->> 'at')::timestamptz
          OR (f.saw ->> 'at')::timestamptz < {_ANCHOR} + coalesce({_LENGTH.format(amount="given.amount")}, '0'))
    """,
    "no wait after a mail was over before the mail had left": """
        SELECT f.execution_id, f.step, i.id AS message, i.status FROM effects f
        JOIN effects m ON m.execution_id = f.execution_id AND m.made_kind = 'message' AND m.number < f.number
        JOIN intents i ON i.id = m.made_id
        WHERE f.outcome = 'waited' AND (i.accepted_at > f.at
          OR i.status IN ('pending', 'held', 'claimed', 'uncertain', 'failed'))
    """,
    "every reminder fired once for each time it was set, and escalated after that": """
        SELECT m.id, m.status, count(n.id) FROM reminders m
        LEFT JOIN notifications n ON n.reminder_id = m.id AND n.reason = 'reminder' AND n.occurrence = m.snoozes + 1
        GROUP BY m.id, m.status, m.fired_at
        HAVING count(n.id) <> CASE WHEN m.status IN ('fired', 'escalated') OR m.fired_at IS NOT NULL THEN 1 ELSE 0 END
        UNION ALL
        SELECT reminder_id, reason, count(*) FROM notifications WHERE reminder_id IS NOT NULL
        GROUP BY reminder_id, reason, occurrence HAVING count(*) > 1
        UNION ALL
        SELECT e.reminder_id, 'escalated before it fired', 1 FROM notifications e
        WHERE e.reason = 'escalation' AND NOT EXISTS (
          SELECT FROM notifications n WHERE (n.reminder_id, n.reason) = (e.reminder_id, 'reminder')
            AND n.occurrence = e.occurrence AND n.created_at <= e.created_at)
    """,
    "no reminder of a step fired early": f"""
        SELECT m.id, n.created_at FROM reminders m
        JOIN effects f ON f.made_id = m.id JOIN executions x ON x.id = f.execution_id
        JOIN versions v ON v.id = x.version_id
        JOIN notifications n ON n.reminder_id = m.id AND n.reason = 'reminder' AND n.occurrence = 1
        CROSS JOIN LATERAL (SELECT {_STEP} #> '{{action,after}}' AS amount) given
        WHERE n.created_at < {_ANCHOR} + coalesce({_LENGTH.format(amount="given.amount")}, '0')
    """,
    # --- mail
    "no mail was claimed before its planned instant": """
        SELECT t.intent_id FROM attempts t JOIN intents i ON i.id = t.intent_id WHERE t.claimed_at < i.due_at
    """,
    "no mail was claimed after the commit of what ended its enrollment or deleted its contact": """
        SELECT t.intent_id, t.number FROM attempts t JOIN intents i ON i.id = t.intent_id
        JOIN events e ON e.subject_id = i.execution_id AND e.type = 'enrollment.ended'
        WHERE t.claimed_real > pg_xact_commit_timestamp(e.xmin)
        UNION ALL
        SELECT t.intent_id, t.number FROM attempts t JOIN intents i ON i.id = t.intent_id
        JOIN events e ON e.subject_id = i.contact_id AND e.type = 'contact.deleted'
        WHERE t.claimed_real > pg_xact_commit_timestamp(e.xmin)
    """,
    "no mail was claimed after the commit of its address's suppression": """
        SELECT t.intent_id, t.number FROM attempts t JOIN intents i ON i.id = t.intent_id
        JOIN events e ON e.subject_id = i.address_id AND e.type = 'address.suppressed'
        WHERE t.claimed_real > pg_xact_commit_timestamp(e.xmin) AND NOT EXISTS (
          SELECT FROM events r
          WHERE r.subject_id = e.subject_id AND r.type = 'address.released' AND r.number > e.number)
    """,
    "no attempt follows one that was accepted, or of which nothing is known": """
        SELECT t.intent_id, t.number, before.outcome FROM attempts t
        JOIN attempts before ON before.intent_id = t.intent_id AND before.number < t.number
        WHERE before.outcome IS NULL OR before.outcome = 'accepted'
        UNION ALL
        SELECT i.id, i.attempts, i.status FROM intents i
        WHERE i.attempts <> (SELECT count(*) FROM attempts WHERE intent_id = i.id)
    """,
    "a message left only by an attempt, and is on the timeline once": """
        SELECT i.id, i.status FROM intents i WHERE i.status = 'accepted' AND (
          NOT EXISTS (SELECT FROM attempts WHERE intent_id = i.id AND outcome IN ('accepted', 'uncertain'))
          OR 1 <> (SELECT count(*) FROM events WHERE subject_id = i.id AND type = 'message.accepted')
          OR 1 <> (SELECT count(*) FROM activities WHERE metadata ->> 'messageId' = i.id::text))
        UNION ALL
        SELECT i.id, i.status FROM intents i JOIN attempts t ON t.intent_id = i.id AND t.outcome = 'accepted'
        WHERE i.status NOT IN ('accepted', 'bounced', 'complained')
    """,
    "mailboxes kept their spacing": """
        SELECT intent_id, gap FROM (
          SELECT intent_id, claimed_real - lag(claimed_real) OVER each AS gap, (d.pace ->> 'spacing')::float8 AS spacing
          FROM attempts t JOIN destinations d ON d.id = t.destination_id
          WINDOW each AS (PARTITION BY t.destination_id ORDER BY claimed_real)) paced
        WHERE gap < make_interval(secs => spacing)
    """,
    "mailboxes kept their caps": """
        SELECT intent_id FROM (
          SELECT t.intent_id, d.pace, count(*) OVER (each RANGE '1 minute' PRECEDING) AS a_minute,
            count(*) OVER (each RANGE '1 hour' PRECEDING) AS an_hour,
            count(*) OVER (each RANGE '1 day' PRECEDING) AS a_day
          FROM attempts t JOIN destinations d ON d.id = t.destination_id
          WINDOW each AS (PARTITION BY t.destination_id ORDER BY claimed_real)) paced
        WHERE a_minute > (pace ->> 'perMinute')::int OR an_hour > (pace ->> 'perHour')::int
          OR a_day > (pace ->> 'perDay')::int
    """,
    # --- letters
    "every letter was read, or settled by a person": """
        SELECT id, status FROM letters WHERE status NOT IN ('read', 'settled')
    """,
    "no letter holds anything any more": """
        SELECT letter_id, execution_id FROM holds
        UNION ALL SELECT NULL, id FROM executions WHERE held_since IS NOT NULL AND status <> 'ended'
    """,
    "a letter ended nothing but what a reply may end": """
        SELECT x.id, l.kind FROM executions x JOIN letters l ON x.exit_note = 'letter ' || l.id
        JOIN versions v ON v.id = x.version_id
        WHERE l.kind <> 'reply' OR x.exit_reason <> 'replied' OR v.document ->> 'stopOnReply' = 'false'
    """,
    "every reply is on the timeline once, and its owner was told once": """
        SELECT l.id FROM letters l WHERE l.kind = 'reply' AND l.contact_id IS NOT NULL
          AND 1 <> (SELECT count(*) FROM activities WHERE metadata ->> 'letterId' = l.id::text)
        UNION ALL
        SELECT contact_id FROM (
          SELECT contact_id, count(*) AS told FROM notifications WHERE reason = 'reply' GROUP BY 1) n
        WHERE told <> (SELECT count(*) FROM letters l WHERE l.kind = 'reply' AND l.contact_id = n.contact_id)
    """,
    # --- nothing is left lying
    "no event waits or was set aside": "SELECT id, event_id, error FROM outbox",
    "no wake waits or was set aside": "SELECT id, kind, target_id, error FROM wakes",
    "every execution ended, or is kept still or stuck for a reason that is there": """
        SELECT x.id, x.kind, x.status, x.step, x.awaits, x.stuck_reason, x.stuck_detail FROM executions x
        WHERE x.status = 'open' OR x.stuck_reason IN ('unexpected_error', 'document_unreadable')
          OR x.stuck_reason = 'message_uncertain'
            AND NOT EXISTS (SELECT FROM intents WHERE execution_id = x.id AND status = 'uncertain')
          OR x.stuck_reason = 'message_refused'
            AND NOT EXISTS (SELECT FROM intents WHERE execution_id = x.id AND status = 'failed')
          OR (x.status = 'paused') <> EXISTS (SELECT FROM pauses WHERE execution_id = x.id AND until IS NULL)
    """,
    "every message is over, or uncertain or failed and says why": """
        SELECT id, status, reason, detail, due_at FROM intents
        WHERE status IN ('pending', 'claimed') OR status IN ('uncertain', 'failed') AND reason IS NULL
          OR status = 'held' AND NOT EXISTS (SELECT FROM executions x WHERE x.id = execution_id AND x.status = 'paused')
    """,
    "no reminder is left to fire": "SELECT id, status, due_at FROM reminders WHERE due_at IS NOT NULL",
}
