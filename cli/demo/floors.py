"""The floors: what must have happened at the least for the other verdicts to mean anything.

Nothing is lost where everything was refused, and no mail is sent twice where none is. The figures are what the
story makes certain, whatever the seed and the misfortune.
"""

from collections import Counter
from collections.abc import Mapping, Sequence

from cli.demo.campaign import ENROLLED, STOPPED_BY_HAND, Campaign, Made
from cli.demo.judge import Tables, Verdict, numbered
from cli.demo.mail_judge import Logged
from cli.demo.story import FORGED, FURTHER, KILLS, WEBHOOKS, WON, Told
from cli.demo.town import SHARES, Answered, Does, how_many

_ANSWERING = sum(how_many(share, ENROLLED) for share in SHARES.values())
_TO_THE_END = ENROLLED - _ANSWERING - STOPPED_BY_HAND - WON
"""Whom nothing can stop: who never answers, is not called back by hand and does not win a deal."""
_MAILS_OF_THE_WAY = 4

FLOORS: Mapping[str, int] = {
    "contacts enrolled": ENROLLED,
    "enrolled by a rule": 1,
    "taken out by a rule": 1,
    "enrolled once more, and refused": 1,
    "completed": _TO_THE_END,
    "replied": 1,
    "bounced": 1,
    "unsubscribed": 1,
    "exit_met": 1,
    "stopped": STOPPED_BY_HAND,
    "mails in the mail server's log": _TO_THE_END * _MAILS_OF_THE_WAY + _ANSWERING,
    "mails uncertain": 1,
    **{f"what people do: {does}": 1 for does in Does},
    "moved to proposal": FURTHER,
    "moved to negotiation": FURTHER,
    "moved to closed_won": WON,
    "moved to closed_lost": WON,
    "runs of the stage rule": 1,
    "deals too small for it": 1,
    "tasks of it that were done": 1,
    "reminders fired": 1,
    "managers told": 1,
    "contacts of webhooks": WEBHOOKS,
    "webhooks forged, and refused": FORGED,
    **{f"kills of {name}": times for name, times in KILLS.items()},
}

_COUNTED = """
    SELECT 'contacts enrolled' AS what, count(DISTINCT contact_id) AS n FROM executions WHERE definition_id = :sequence
    UNION ALL SELECT exit_reason, count(*) FROM executions WHERE definition_id = :sequence GROUP BY 1
    UNION ALL SELECT 'enrolled by a rule', count(*) FROM executions
      WHERE definition_id = :terms AND started_by_kind = 'rule'
    UNION ALL SELECT 'taken out by a rule', count(*) FROM effects WHERE action = 'take_out'
    UNION ALL SELECT 'mails uncertain', count(*) FROM events WHERE type = 'message.uncertain'
    UNION ALL SELECT 'moved to ' || (after ->> 'stage'), count(*) FROM events
      WHERE type = 'deal.stage_changed' GROUP BY 1
    UNION ALL SELECT 'runs of the stage rule', count(*) FROM executions WHERE definition_id = :rule
    UNION ALL SELECT 'deals too small for it', count(*) FROM refusals WHERE definition_id = :rule
    UNION ALL SELECT 'tasks of it that were done', count(*) FROM activities a JOIN executions x ON x.id = a.execution_id
      WHERE x.definition_id = :rule AND a.completed_at IS NOT NULL
    UNION ALL SELECT 'reminders fired', count(*) FROM notifications WHERE reason = 'reminder'
    UNION ALL SELECT 'managers told', count(*) FROM notifications WHERE reason = 'rule'
    UNION ALL SELECT 'contacts of webhooks', count(*) FROM contacts WHERE email = ANY (:webhooks)
"""


async def count(
    tables: Tables,
    made: Made,
    rule: str,
    told: Told,
    campaign: Campaign,
    answered: Sequence[Answered],
    log: Sequence[Logged],
) -> dict[str, int]:
    """How often each of `FLOORS` happened; `rule` is the stage rule's id."""
    given = {"sequence": made.sequence, "terms": made.terms, "rule": rule, "webhooks": told.webhooks}
    rows = await tables.fetch(*numbered(_COUNTED, given))
    does = Counter(one.does for one in answered)
    counted = {
        **{row["what"]: row["n"] for row in rows},
        "enrolled once more, and refused": campaign.refused.count("already_enrolled"),
        "mails in the mail server's log": len({mail.message_id for mail in log}),
        **{f"what people do: {each}": does[each] for each in Does},
        "webhooks forged, and refused": told.forged_statuses.count(401),
        **{f"kills of {name}": told.killed[name] for name in KILLS},
    }
    return {name: counted.get(name, 0) for name in FLOORS}


def enough(counted: Mapping[str, int]) -> Verdict:
    few = [f"{name}: {counted[name]}, not {least}" for name, least in FLOORS.items() if counted[name] < least]
    return Verdict("as much happened as the story makes certain", few)
