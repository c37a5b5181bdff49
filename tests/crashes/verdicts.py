"""What must be true after a crash: nothing is lost, doubled or done after a stop.

The general invariants are the judge's of every story. The picture is every row that people would see, without ids and
instants, and every mail of the mail server's log: a story that was crashed into ends with the same as one that was not.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from chaos.judge import INVARIANTS
from chaos.mail import _MAILS, ANSWERED, given, in_the_log
from cli.demo.judge import Tables, Verdict
from cli.demo.judge import judge as ask
from cli.demo.mail_judge import Logged
from tests.crashes.product import Product

Picture = Mapping[str, Sequence[str]]

_UNSWEPT = """
  SELECT id, sweeps FROM executions WHERE sweeps > 0 UNION ALL SELECT id, sweeps FROM reminders WHERE sweeps > 0
  UNION ALL SELECT id, sweeps FROM destinations WHERE sweeps > 0
"""
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
    # Of an enrollment's mail of which nothing is known its owner is told, and settles it.
    "notifications": f"""
      SELECT n.reason, n.title, n.occurrence, {_WHO} AS who FROM notifications n {_ABOUT.format("n")}
      WHERE n.reason <> 'stuck' OR n.title NOT LIKE '%message uncertain'""",
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


class _Here(Tables):
    """The tables by the one connection a product has for them: a new one each time costs more than the queries."""

    def __init__(self, product: Product) -> None:
        super().__init__("")
        self._product = product

    async def fetch(self, query: str, *values: object) -> list[Mapping[str, Any]]:
        return await self._product.rows(query, *values)


async def judged(product: Product, reference: Picture | None) -> list[Verdict]:
    """Every invariant, and the picture against the reference's if there is one yet."""
    tables, told = _Here(product), given(product.told)
    log = [Logged(mail.message_id, mail.at) for mail in product.received()]
    verdicts = [
        *await ask(tables, INVARIANTS),
        *await ask(tables, ANSWERED, **told),
        *await ask(tables, {"nothing had to be found by the sweep": _UNSWEPT}),
        Verdict("what waits for a time has a workflow that waits with it", product.untimed),
        *in_the_log(await tables.fetch(_MAILS), log, told["again"]),
    ]
    return verdicts if reference is None else [*verdicts, *_compared(await picture(product), reference)]


def _compared(found: Picture, reference: Picture) -> list[Verdict]:
    verdicts = []
    for name, lines in reference.items():
        expected, now = Counter(lines), Counter(found[name])
        wrong = [f"lost: {line}" for line in (expected - now).elements()]
        wrong += [f"doubled or new: {line}" for line in (now - expected).elements()]
        verdicts.append(Verdict(f"{name} are as if nothing had crashed", wrong[:3]))
    return verdicts
