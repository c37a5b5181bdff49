"""The judge of the mail: its own SQL, the mail server's own log, and what the town was told.

What came before what is told by the database's commit timestamps, which nothing in the engine
writes or reads. A claim's own instant lies before its commit, and a stop that commits first makes
the claim impossible; so a claim later than the commit of a stop breaks a promise, by any margin.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

from cli.demo.campaign import DAYS_BEFORE, ROUTES, Campaign, Made
from cli.demo.judge import Tables, Verdict, judge, numbered
from cli.demo.town import Answered, Does

POSTGRES_OPTIONS: Mapping[str, str] = {"track_commit_timestamp": "on"}
"""What the database must be told when it starts, for these queries."""

INVARIANTS: Mapping[str, str] = {
    "every mail came to an end": """
        SELECT id, status FROM intents WHERE status NOT IN ('accepted', 'cancelled', 'bounced')
    """,
    "every enrollment that went to its end sent every mail of its way": """
        SELECT x.id, count(f.made_id), count(i.id) FROM executions x
        JOIN effects f ON f.execution_id = x.id AND f.made_kind = 'message'
        LEFT JOIN intents i ON i.id = f.made_id AND i.status IN ('accepted', 'bounced')
        WHERE x.kind = 'enrollment' AND x.exit_reason = 'completed'
        GROUP BY x.id, x.definition_id
        HAVING count(i.id) <> count(f.made_id)
            OR count(f.made_id) <> CASE x.definition_id WHEN :sequence THEN 4 ELSE 2 END
    """,
    "a mail was claimed once unless the claim before it was refused for certain, or a person said so": """
        SELECT t.intent_id, t.number FROM attempts t
        JOIN attempts before ON before.intent_id = t.intent_id AND before.number = t.number - 1
        WHERE before.outcome IS DISTINCT FROM 'refused' AND t.intent_id <> ALL (:sent_again::uuid[])
    """,
    # Events are matched in their order, so what a run of a later one did tells that the relay had come so far; a relay
    # that was killed three times on a busy machine is away for longer than any seconds that one would grant it.
    "who was won was not written on to: a stage exit ended the enrollment": """
        SELECT x.id FROM events won JOIN deals d ON d.id = won.subject_id
        JOIN executions x ON x.kind = 'enrollment' AND x.contact_id = d.contact_id
          AND (x.deal_id IS NULL OR x.deal_id = d.id)
        JOIN events begun ON begun.subject_id = x.id AND begun.type = 'enrollment.started'
        JOIN events ended ON ended.subject_id = x.id AND ended.type = 'enrollment.ended'
        WHERE won.type = 'deal.stage_changed' AND won.after ->> 'stage' = 'closed_won'
          AND pg_xact_commit_timestamp(begun.xmin) < pg_xact_commit_timestamp(won.xmin)
          AND pg_xact_commit_timestamp(ended.xmin) > interval '30 seconds' + coalesce((
              SELECT min(pg_xact_commit_timestamp(f.xmin)) FROM events later
              JOIN executions run ON run.event_id = later.id JOIN effects f ON f.execution_id = run.id
              WHERE pg_xact_commit_timestamp(later.xmin) > pg_xact_commit_timestamp(won.xmin)
          ), pg_xact_commit_timestamp(won.xmin))
    """,
    "who was lost was taken out of Terms, by the rule's own step": """
        SELECT x.id FROM executions run JOIN effects f ON f.execution_id = run.id AND f.action = 'take_out'
        JOIN executions x ON x.contact_id = run.contact_id AND x.definition_id = :terms
        JOIN events begun ON begun.subject_id = x.id AND begun.type = 'enrollment.started'
        JOIN events ended ON ended.subject_id = x.id AND ended.type = 'enrollment.ended'
        WHERE pg_xact_commit_timestamp(begun.xmin) < pg_xact_commit_timestamp(f.xmin)
          AND pg_xact_commit_timestamp(ended.xmin) > pg_xact_commit_timestamp(f.xmin)
    """,
    "every deal in Negotiation was thanked once and tried with Terms once": """
        SELECT e.id, count(DISTINCT i.id), count(f.step) FROM events e
        LEFT JOIN executions x ON x.event_id = e.id AND x.definition_id = :negotiation
        LEFT JOIN intents i ON i.execution_id = x.id
        LEFT JOIN effects f ON f.execution_id = x.id AND f.action = 'enroll'
        WHERE e.type = 'deal.stage_changed' AND e.after ->> 'stage' = 'negotiation'
        GROUP BY e.id HAVING count(DISTINCT i.id) <> 1 OR count(f.step) <> 1
    """,
}

_MAILS = """
    SELECT i.id, i.message_id, i.status, min(t.claimed_real) AS first_claim,
           max(t.claimed_real) AS last_claim, max(pg_xact_commit_timestamp(e.xmin)) AS stopped
    FROM intents i LEFT JOIN attempts t ON t.intent_id = i.id
    LEFT JOIN events e ON e.subject_id = i.execution_id AND e.type = 'enrollment.ended'
      AND e.after ->> 'exitReason' NOT IN ('completed', 'exited')
    GROUP BY i.org_id, i.id
"""

_WAITS = """
    SELECT x.id, i.step, i.due_at, i.accepted_at, min(t.claimed_at) AS claimed_at
    FROM executions x JOIN intents i ON i.execution_id = x.id JOIN attempts t ON t.intent_id = i.id
    WHERE x.kind = 'enrollment' AND i.accepted_at IS NOT NULL GROUP BY x.id, i.org_id, i.id ORDER BY x.id, i.due_at
"""

# What was inside when somebody answered: whatever had claimed a mail by then had surely committed.
_INSIDE = """
    WITH told AS (
      SELECT * FROM unnest(
        :emails::text[], :does::text[], :letters::uuid[], :begun::timestamptz[], :acknowledged::timestamptz[]
      ) AS one (email, does, letter, begun, acknowledged)
    ), inside AS (
      SELECT DISTINCT told.*, x.id AS enrollment, x.exit_reason, x.exit_note FROM told
      JOIN contacts c ON c.email = told.email
      JOIN executions x ON x.contact_id = c.id AND x.kind = 'enrollment'
      JOIN intents i ON i.execution_id = x.id JOIN attempts t ON t.intent_id = i.id AND t.claimed_real < told.begun
    )
"""
_TOLD: Mapping[str, str] = {
    "no mail was claimed after a reply or an unsubscription was acknowledged": """
        SELECT inside.email, inside.does, t.intent_id FROM inside
        JOIN intents i ON i.execution_id = inside.enrollment JOIN attempts t ON t.intent_id = i.id
        WHERE inside.does IN ('reply', 'encrypted', 'one_click', 'page') AND t.claimed_real > inside.acknowledged
    """,
    "every unsubscription had ended what it should by its acknowledgement": """
        SELECT inside.email, inside.exit_reason FROM inside
        LEFT JOIN events e ON e.subject_id = inside.enrollment AND e.type = 'enrollment.ended'
        WHERE inside.does IN ('one_click', 'page')
          AND (e.id IS NULL OR pg_xact_commit_timestamp(e.xmin) > inside.acknowledged
               OR pg_xact_commit_timestamp(e.xmin) > inside.begun
                 AND inside.exit_reason NOT IN ('unsubscribed', 'exit_met', 'stopped', 'completed'))
    """,
    "every reply and bounce had ended what it should when it was read, for its reason": """
        SELECT inside.email, inside.does, inside.exit_reason FROM inside
        LEFT JOIN events e ON e.subject_id = inside.enrollment AND e.type = 'enrollment.ended'
        JOIN letters l ON l.id = inside.letter
        WHERE inside.does IN ('reply', 'encrypted', 'bounce')
          AND (e.id IS NULL OR pg_xact_commit_timestamp(e.xmin) > pg_xact_commit_timestamp(l.xmin)
               OR e.xmin = l.xmin
                 AND inside.exit_reason <> CASE inside.does WHEN 'bounce' THEN 'bounced' ELSE 'replied' END)
    """,
    "every letter was taken for what it is": """
        SELECT told.email, told.does, l.kind, l.status FROM told LEFT JOIN letters l ON l.id = told.letter
        WHERE told.letter IS NOT NULL
          AND l.kind IS DISTINCT FROM CASE told.does
            WHEN 'out_of_office' THEN 'auto_reply' WHEN 'bounce' THEN 'bounce' ELSE 'reply' END
    """,
    "every bounced and every unsubscribed address is suppressed": """
        SELECT told.email, told.does, a.suppressed FROM told JOIN contacts c ON c.email = told.email
        JOIN intents i ON i.contact_id = c.id JOIN addresses a ON a.id = i.address_id
        WHERE told.does IN ('bounce', 'one_click', 'page') AND a.suppressed IS NULL
    """,
    "each letter is kept once, and a forged one not at all": """
        SELECT count(*) FROM letters
        HAVING count(*) <> (SELECT count(DISTINCT letter) FROM told)
            OR EXISTS (SELECT 1 FROM told WHERE does = 'forged' AND letter IS NOT NULL)
    """,
}


@dataclass(frozen=True)
class Logged:
    """One mail of the mail server's log, as the judge reads it."""

    message_id: str
    at: datetime


def logged(log: Path) -> list[Logged]:
    """Its whole lines; one without its end was never answered."""
    lines = log.read_bytes().split(b"\n")[:-1] if log.exists() else []
    return [Logged(kept["messageId"], datetime.fromisoformat(kept["at"])) for kept in map(json.loads, lines)]


async def judge_mail(
    tables: Tables, log: Sequence[Logged], made: Made, told: Campaign, answered: Sequence[Answered]
) -> list[Verdict]:
    """Everything that is promised of enrollments, mail and letters."""
    again = [one.message for one in told.settled if one.taken and not one.sent]
    verdicts = await judge(
        tables,
        INVARIANTS,
        sequence=made.sequence,
        terms=made.terms,
        negotiation=made.negotiation,
        sent_again=again,
    )
    verdicts += await judge(
        tables,
        {name: _INSIDE + query for name, query in _TOLD.items()},
        emails=[one.email for one in answered],
        does=[one.does.value for one in answered],
        letters=[one.letter for one in answered],
        begun=[one.begun for one in answered],
        acknowledged=[one.acknowledged for one in answered],
    )
    mails = await tables.fetch(_MAILS)
    waits = await tables.fetch(_WAITS)
    routes = await tables.fetch(
        "SELECT x.id, x.exit_reason, array_agg(f.step ORDER BY f.number) AS steps FROM executions x"
        " JOIN effects f ON f.execution_id = x.id WHERE x.definition_id = $1 GROUP BY x.org_id, x.id",
        made.sequence,
    )
    enrolled = {str(row["id"]) for row in await tables.fetch("SELECT id FROM executions WHERE kind = 'enrollment'")}
    return [
        *verdicts,
        *in_the_log(mails, log),
        in_order(routes),
        not_early(waits),
        Verdict("every enrollment that was acknowledged exists", sorted({*told.enrolled.values()} - enrolled)[:3]),
    ]


def in_the_log(mails: Sequence[Mapping[str, Any]], log: Sequence[Logged]) -> list[Verdict]:
    """The rows against the mail server's own log."""
    copies = Counter(one.message_id for one in log)
    left = {mail["message_id"]: mail for mail in mails if mail["status"] in ("accepted", "bounced")}
    missing = [f"{mail['id']} {mail['status']}: {copies[id_]} times" for id_, mail in left.items() if copies[id_] != 1]
    unknown = [f"{id_}: {times} times" for id_, times in copies.items() if id_ not in left]
    late = [
        one.message_id
        for one in log
        if (mail := left.get(one.message_id)) is not None
        and (one.at < mail["first_claim"] or (mail["stopped"] is not None and mail["last_claim"] > mail["stopped"]))
    ]
    return [
        Verdict("every mail that left is in the mail server's log, exactly once", missing[:3]),
        Verdict("whatever is in the mail server's log is known to have left", unknown[:3]),
        Verdict("nothing is in that log without a claim before it, or by a claim after a stop", late[:3]),
    ]


def in_order(routes: Sequence[Mapping[str, Any]]) -> Verdict:
    wrong = []
    for row in routes:
        steps = tuple(row["steps"])
        whole = row["exit_reason"] == "completed"
        if not any(steps == route if whole else steps == route[: len(steps)] for route in ROUTES):
            wrong.append(f"{row['id']} {row['exit_reason']}: {' '.join(steps)}")
    return Verdict("every enrollment took the steps of its sequence in their order", wrong[:3])


_SLACK_SECONDS = 2 * 3600
"""An hour that a mail may be late before the next counts from it, and one of summer time."""


def not_early(waits: Sequence[Mapping[str, Any]]) -> Verdict:
    """Sorted by enrollment and plan: each mail was claimed its wait after the one before it had left."""
    wrong = []
    for before, mail in pairwise(waits):
        if before["id"] == mail["id"]:
            apart = (mail["claimed_at"] - before["accepted_at"]).total_seconds()
            if apart < DAYS_BEFORE[mail["step"]] * 86_400 - _SLACK_SECONDS:
                wrong.append(f"{mail['id']} {mail['step']}: {apart / 86_400:.2f} days after the mail before")
    return Verdict("every wait between two mails was waited out, in order", wrong[:3])


async def figures(
    tables: Tables, log: Sequence[Logged], told: Campaign, answered: Sequence[Answered], scale: float
) -> dict[str, object]:
    """What happened with mail, for the report."""
    count = Counter(one.does for one in answered)
    ends = await tables.fetch(
        "SELECT exit_reason, count(*) AS n FROM executions WHERE kind = 'enrollment' GROUP BY 1 ORDER BY 1"
    )
    row = await tables.row(
        *numbered(
            """
            SELECT count(*) AS mails, percentile_cont(0.5) WITHIN GROUP (ORDER BY late) AS p50,
                   percentile_cont(0.95) WITHIN GROUP (ORDER BY late) AS p95, max(late) AS most
            FROM (SELECT extract(epoch FROM accepted_at - due_at) * 1000 / :scale AS late
                  FROM intents WHERE accepted_at IS NOT NULL) measured
            """,
            {"scale": scale},
        )
    )
    stopped = {mail["message_id"]: mail["stopped"] for mail in await tables.fetch(_MAILS) if mail["stopped"]}
    under_way = sum(one.message_id in stopped and one.at > stopped[one.message_id] for one in log)
    return {
        "enrolled": f"{sum(end['n'] for end in ends)}; " + ", ".join(f"{e['n']} {e['exit_reason']}" for e in ends),
        "enrolled again": f"{len(told.refused)} times refused ({', '.join(sorted(set(told.refused)))})",
        "mails accepted": row["mails"],
        "mails in the server's log": f"{len(log)}, {under_way} of them under way when they were stopped",
        "mails late by": ", ".join(f"{name} {float(row[name] or 0):.0f} ms" for name in ("p50", "p95", "most"))
        + " (outages included)",
        "answers": f"{count[Does.REPLY] + count[Does.ENCRYPTED]} replies ({told.letters_settled} encrypted, settled by"
        f" a person), {count[Does.ONE_CLICK]} one-click and {count[Does.PAGE]} page unsubscribes,"
        f" {count[Does.BOUNCE]} bounces, {count[Does.OUT_OF_OFFICE]} out of office, {count[Does.FORGED]} forged",
        "stopped by hand": len(told.stopped),
    }


_UNCERTAIN = """
    SELECT i.step, c.email, i.status, next.type AS next, next.after ->> 'reason' AS reason
    FROM events e JOIN intents i ON i.id = e.subject_id JOIN contacts c ON c.id = i.contact_id
    LEFT JOIN events next ON next.subject_id = e.subject_id AND next.number = e.number + 1
    WHERE e.type = 'message.uncertain' ORDER BY e.at, e.id
"""
_SETTLED: Mapping[tuple[str, str | None], str] = {
    ("message.accepted", "settled_by_a_person"): "in the log, as a person found",
    ("message.accepted", "replied_to"): "it was answered",
    ("message.accepted", "no_answer"): "the server's answer was recorded late",
    ("message.accepted", None): "not in the log, sent again",
    ("message.uncertain", "no_answer"): "not in the log, sent again, and uncertain again",
    ("message.bounced", "bounced"): "it bounced",
}
"""By the event that followed and its reason."""


async def uncertain(tables: Tables) -> list[str]:
    """Every time that a message was uncertain, with how that was settled."""
    return [settled(row) for row in await tables.fetch(_UNCERTAIN)]


def settled(row: Mapping[str, Any]) -> str:
    known = f"{row['next']}, {row['reason']}" if row["next"] else "nothing yet"
    how = _SETTLED.get((row["next"], row["reason"]), known)
    return f"{row['step']} to {row['email']}: {how}; it is {row['status']}"
