"""The mail, held against the mail server's own log and what the town and the desk did."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from chaos.told import Told
from cli.demo.judge import Tables, Verdict
from cli.demo.judge import judge as ask
from cli.demo.mail_judge import Logged, logged

A_HANDFUL = 5
"""So many messages, and as many more for each hundred, may be uncertain though their server never had them: whoever
had claimed them was killed before the call."""
_LEFT = ("accepted", "bounced", "complained")

_MAILS = """
    SELECT i.id, i.execution_id, i.step, i.message_id, i.status, i.reason, min(t.claimed_real) AS first_claim,
      EXISTS (SELECT FROM events e WHERE e.subject_id = i.id AND e.type = 'message.uncertain') AS was_uncertain
    FROM intents i LEFT JOIN attempts t ON t.intent_id = i.id GROUP BY i.org_id, i.id
"""
# What was inside when somebody answered: whatever had claimed a mail by then had surely committed.
_INSIDE = """
    WITH told AS (
      SELECT * FROM unnest(
        :emails::text[], :does::text[], :letters::uuid[], :begun::timestamptz[], :acknowledged::timestamptz[]
      ) AS one (email, does, letter, begun, acknowledged)
    ), inside AS (
      SELECT DISTINCT told.*, x.id AS enrollment, x.exit_reason,
        told.does IN ('reply', 'encrypted') AND v.document @> '{"stopOnReply": false}' AS goes_on
      FROM told JOIN contacts c ON c.email = told.email
      JOIN executions x ON x.contact_id = c.id AND x.kind = 'enrollment' JOIN versions v ON v.id = x.version_id
      JOIN events started ON started.subject_id = x.id AND started.type = 'enrollment.started'
      WHERE pg_xact_commit_timestamp(started.xmin) < told.begun
    )
"""
_QUERIES: Mapping[str, str] = {
    "no mail was claimed after a reply or an unsubscription was answered": """
        SELECT inside.email, inside.does, t.intent_id FROM inside
        JOIN intents i ON i.execution_id = inside.enrollment JOIN attempts t ON t.intent_id = i.id
        WHERE inside.does IN ('reply', 'encrypted', 'one_click', 'page') AND t.claimed_real > inside.acknowledged
          AND NOT inside.goes_on
    """,
    "every unsubscription had ended what it should when it was answered": """
        SELECT inside.email, inside.enrollment, inside.exit_reason FROM inside
        LEFT JOIN events e ON e.subject_id = inside.enrollment AND e.type = 'enrollment.ended'
        WHERE inside.does IN ('one_click', 'page')
          AND (e.id IS NULL OR pg_xact_commit_timestamp(e.xmin) > inside.acknowledged)
    """,
    "every reply and bounce had ended what it should when it was read": """
        SELECT inside.email, inside.does, inside.enrollment, inside.exit_reason FROM inside
        LEFT JOIN events e ON e.subject_id = inside.enrollment AND e.type = 'enrollment.ended'
        JOIN letters l ON l.id = inside.letter
        WHERE inside.does IN ('reply', 'encrypted', 'bounce') AND NOT inside.goes_on
          AND (e.id IS NULL OR pg_xact_commit_timestamp(e.xmin) > pg_xact_commit_timestamp(l.xmin)
            OR e.xmin = l.xmin
              AND inside.exit_reason <> CASE inside.does WHEN 'bounce' THEN 'bounced' ELSE 'replied' END)
    """,
    "every letter that was answered was taken for what it is": """
        SELECT told.email, told.does, l.kind, l.status FROM told LEFT JOIN letters l ON l.id = told.letter
        WHERE told.letter IS NOT NULL AND l.kind IS DISTINCT FROM CASE told.does
            WHEN 'out_of_office' THEN 'auto_reply' WHEN 'bounce' THEN 'bounce' ELSE 'reply' END
    """,
    "every letter is kept once, and a forged one not at all": """
        SELECT l.id FROM letters l WHERE l.id NOT IN (SELECT letter FROM told WHERE letter IS NOT NULL)
        UNION ALL SELECT letter FROM told WHERE letter IS NOT NULL GROUP BY letter HAVING count(*) > 1
        UNION ALL SELECT letter FROM told WHERE does = 'forged' AND letter IS NOT NULL
    """,
    "every bounced and every unsubscribed address is suppressed": """
        SELECT told.email, told.does, a.suppressed FROM told JOIN contacts c ON c.email = told.email
        JOIN intents i ON i.contact_id = c.id JOIN addresses a ON a.id = i.address_id
        WHERE told.does IN ('bounce', 'one_click', 'page') AND a.suppressed IS NULL
    """,
    "no mail was sent again but where it was refused for certain, or a person said so": """
        SELECT t.intent_id, t.number FROM attempts t
        JOIN attempts before ON before.intent_id = t.intent_id AND before.number = t.number - 1
        WHERE before.outcome IS DISTINCT FROM 'refused' AND t.intent_id <> ALL (:again::uuid[])
    """,
}

ANSWERED: Mapping[str, str] = {name: _INSIDE + query for name, query in _QUERIES.items()}


async def mail(tables: Tables, log: Path, told: Told) -> list[Verdict]:
    """Everything that is promised of mail to those who get it."""
    values = given(told)
    return [
        *await ask(tables, ANSWERED, **values),
        *in_the_log(await tables.fetch(_MAILS), logged(log), values["again"]),
    ]


def given(told: Told) -> dict[str, Any]:
    """The values that the queries of `ANSWERED` name; `again` are messages that a person had sent once more."""
    answered = told.answered
    return {
        "emails": [one.email for one in answered],
        "does": [one.does.value for one in answered],
        "letters": [one.letter for one in answered],
        "begun": [one.begun for one in answered],
        "acknowledged": [one.acknowledged for one in answered],
        "again": [one.message for one in told.desk.settled if one.taken and not one.sent],
    }


def in_the_log(mails: Sequence[Mapping[str, Any]], log: Sequence[Logged], again: Collection[str]) -> list[Verdict]:
    """The rows against the log; `again` are the ids of messages that a person had sent once more."""
    copies = Counter(one.message_id for one in log)
    by_message_id = {mail["message_id"]: mail for mail in mails if mail["message_id"]}
    of_step = Counter[tuple[object, object]]()
    for id_, many in copies.items():
        if id_ in by_message_id and str(by_message_id[id_]["id"]) not in again:
            of_step[by_message_id[id_]["execution_id"], by_message_id[id_]["step"]] += many
    twice = [
        {"messageId": id_, "times": many}
        for id_, many in copies.items()
        if many > 1 and _id(by_message_id, id_) not in again
    ]
    twice += [
        {"execution": execution, "step": step, "times": many} for (execution, step), many in of_step.items() if many > 1
    ]
    missing = [dict(mail) for mail in mails if mail["status"] in _LEFT and not copies[mail["message_id"]]]
    unknown = [
        {"messageId": id_, **(dict(by_message_id[id_]) if id_ in by_message_id else {})}
        for id_ in copies
        if id_ not in by_message_id
        or not (by_message_id[id_]["status"] in (*_LEFT, "uncertain") or _id(by_message_id, id_) in again)
    ]
    unclaimed = [
        {"messageId": one.message_id, "at": one.at}
        for one in log
        if one.message_id in by_message_id
        and (
            by_message_id[one.message_id]["first_claim"] is None
            or one.at < by_message_id[one.message_id]["first_claim"]
        )
    ]
    groundless = [dict(mail) for mail in mails if mail["was_uncertain"] and not copies[mail["message_id"]]]
    return [
        Verdict("no mail was sent twice, by its Message-ID or by its step, but where a person said again", twice),
        Verdict("every mail that is said to have left is in the mail server's log", missing),
        Verdict("whatever is in the mail server's log is said to have left, or is uncertain", unknown),
        Verdict("nothing is in the mail server's log without a claim before it", unclaimed),
        Verdict(
            "messages are uncertain only where their server may have had them, but for a handful",
            groundless if len(groundless) > A_HANDFUL * (1 + len(mails) / 100) else [],
        ),
    ]


def _id(mails: Mapping[str, Mapping[str, Any]], message_id: str) -> str | None:
    return str(mails[message_id]["id"]) if message_id in mails else None
