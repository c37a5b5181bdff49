"""What must be true after a crash: nothing is lost, doubled or done after a stop.

The general invariants are the demo's judges'. The picture is every row that people would see, without ids and
instants, and every mail of the mail server's log: a story that was crashed into ends with the same as one that was not.
"""

from collections import Counter
from collections.abc import Mapping, Sequence

from cli.demo import judge, mail_judge
from cli.demo.judge import Tables, Verdict
from cli.demo.mail_judge import Logged, in_the_log
from tests.crashes.product import Product

Picture = Mapping[str, Sequence[str]]

_OF_ROWS = (
    "no step was taken twice, and none is missing in between",
    "every run and enrollment came to an end, and nothing is stuck",
    "every reminder fired exactly once",
    "numbers of every subject run 1..n without a gap",
    "no event waits or was set aside",
    "no wake waits or was set aside",
    "no record points at another organization's",
)
_OF_MAIL = (
    "every mail came to an end",
    "no mail was claimed after the commit of what ended its enrollment",
    "no mail was claimed after the commit of its address's suppression",
    "nobody was in a sequence twice at once",
    "no mail was claimed before its planned instant",
    "a mail was claimed once unless the claim before it was refused for certain, or a person said so",
    "every letter was read, or settled by a person",
    "no letter holds anything any more",
    "messages, addresses and enrollments count their own events",
    "a letter ended nothing but what a reply may end",
)
_OWN = {
    "nothing was early": """
        SELECT execution_id FROM effects WHERE outcome = 'waited' AND at < (saw ->> 'at')::timestamptz
    """,
    "nothing had to be found by the sweep": """
        SELECT id, sweeps FROM executions WHERE sweeps > 0 UNION ALL SELECT id, sweeps FROM reminders WHERE sweeps > 0
        UNION ALL SELECT id, sweeps FROM destinations WHERE sweeps > 0
    """,
}
INVARIANTS = {
    **{name: judge.INVARIANTS[name] for name in _OF_ROWS},
    **{name: mail_judge.INVARIANTS[name] for name in _OF_MAIL},
    **_OWN,
}

_WHO = "coalesce(c.email, d.title, '')"
_ABOUT = "LEFT JOIN contacts c ON c.id = {0}.contact_id LEFT JOIN deals d ON d.id = {0}.deal_id"
_SIGHT = {
    "contacts": "SELECT email, first_name, last_name, lead_status, lead_source, revision FROM contacts",
    "deals": "SELECT title, stage, outcome, revision FROM deals",
    "executions": f"""
      SELECT x.kind, f.name, {_WHO} AS who, x.status, x.exit_reason, x.step, x.steps_taken, x.stuck_reason
      FROM executions x JOIN definitions f ON f.id = x.definition_id {_ABOUT.format("x")}""",
    "effects": f"""
      SELECT f.name, {_WHO} AS who, s.step, s.visit, s.number, s.action, s.outcome FROM effects s
      JOIN executions x ON x.id = s.execution_id JOIN definitions f ON f.id = x.definition_id {_ABOUT.format("x")}""",
    "refusals": "SELECT r.reason, f.name FROM refusals r JOIN definitions f ON f.id = r.definition_id",
    "activities": f"SELECT a.type, a.subject, a.completed_at, {_WHO} AS who FROM activities a {_ABOUT.format('a')}",
    "notifications": f"SELECT n.reason, n.title, n.occurrence, {_WHO} AS who FROM notifications n {_ABOUT.format('n')}",
    "reminders": f"SELECT r.title, r.status, {_WHO} AS who FROM reminders r {_ABOUT.format('r')}",
    "messages": """
      SELECT i.step, i.status, i.replied_at IS NOT NULL AS replied, c.email
      FROM intents i JOIN contacts c ON c.id = i.contact_id""",
    "addresses": "SELECT suppressed FROM addresses",
    "letters": "SELECT kind, status, matched_by FROM letters",
    "webhooks": "SELECT message_id, status FROM inbox",
    # What it took to find out about a mail, and who did, is no part of what came of it.
    "events": """
      SELECT type, CASE WHEN type NOT LIKE 'message.%' THEN actor_kind END AS by FROM events
      WHERE type <> 'message.uncertain'""",
    "passed over": "SELECT error FROM outbox WHERE failed_at IS NOT NULL",
}


async def picture(product: Product) -> Picture:
    """Every row a person would see, and every mail that arrived; one line each, sorted."""
    found = {name: [_told(row, product) for row in await product.rows(query)] for name, query in _SIGHT.items()}
    found["mail"] = [_told({"to": mail.recipients, "subject": mail.subject}, product) for mail in product.received()]
    return {name: sorted(lines) for name, lines in found.items()}


def _told(row: Mapping[str, object], product: Product) -> str:
    return ", ".join(f"{name} {value}" for name, value in row.items()).replace(product.domain, "example.net")


async def judged(product: Product, reference: Picture | None) -> list[Verdict]:
    """Every invariant, and the picture against the reference's if there is one yet."""
    tables = Tables(product.ground.urls(product.name)[0])
    verdicts = await judge.judge(tables, INVARIANTS, sent_again=product.settled)
    log = [Logged(mail.message_id, mail.at) for mail in product.received()]
    verdicts += in_the_log(await tables.fetch(mail_judge._MAILS), log)
    if reference is not None:
        verdicts += _compared(await picture(product), reference)
    return verdicts


def _compared(found: Picture, reference: Picture) -> list[Verdict]:
    verdicts = []
    for name, lines in reference.items():
        expected, now = Counter(lines), Counter(found[name])
        wrong = [f"lost: {line}" for line in (expected - now).elements()]
        wrong += [f"doubled or new: {line}" for line in (now - expected).elements()]
        verdicts.append(Verdict(f"{name} are as if nothing had crashed", wrong[:3]))
    return verdicts
