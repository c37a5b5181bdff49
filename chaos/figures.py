"""What happened in a storm, in numbers: the tables and the mail server's own log."""

from collections import defaultdict
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

from cli.demo.judge import Tables
from cli.demo.mail_server import received

_UNCERTAIN = """
    SELECT * FROM (
        SELECT i.message_id, t.outcome, t.claimed_real AS since,
               lead(t.claimed_real) OVER (PARTITION BY t.org_id, t.intent_id ORDER BY t.number) AS until
        FROM attempts t JOIN intents i ON i.id = t.intent_id
        WHERE EXISTS (SELECT 1 FROM events e WHERE e.subject_id = i.id AND e.type = 'message.uncertain')
    ) told
    WHERE outcome IS DISTINCT FROM 'refused'
"""


async def counts(tables: Tables, log: Path) -> Mapping[str, object]:
    """Mails, and those nobody knew the fate of: how many, and how many of their attempts the mail server never kept."""
    mails = received(log)
    kept = defaultdict[str, list[datetime]](list)
    for mail in mails:
        kept[mail.message_id].append(mail.at)
    attempts = await tables.fetch(_UNCERTAIN)
    without = sum(
        not any(row["since"] <= at and (row["until"] is None or at < row["until"]) for at in kept[row["message_id"]])
        for row in attempts
    )
    told = await tables.value("SELECT count(*) FROM events WHERE type = 'message.uncertain'")
    return {
        "mails": len(mails),
        "uncertain": f"{told}; attempts of theirs that never reached the mail server: {without} of {len(attempts)}",
    }
