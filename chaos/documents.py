"""The sequences and rules of the organization under chaos, in the versions it publishes while people are inside."""

from collections.abc import Mapping
from typing import Any

from cli.demo.campaign import mail_step, wait_step

Document = dict[str, Any]


def _hours(id_: str, hours: int) -> Document:
    return {"kind": "wait", "id": id_, "wait": {"for": {"amount": hours, "unit": "hours"}}}


def _act(id_: str, type_: str, **fields: object) -> Document:
    return {"kind": "act", "id": id_, "action": {"type": type_, **fields}}


def _if_done(id_: str, then: str) -> Document:
    condition = {"field": "step.task.completedAt", "op": "is_not_empty"}
    return {"kind": "branch", "id": id_, "if": condition, "then": [{"kind": "exit", "id": then}]}


def _welcome(version: int) -> Document:
    """Up to three days; its second version is another way through."""
    middle: list[Document] = [wait_step("a-day", 1), mail_step("nudge", None, "did you find a moment?")]
    if version % 2 == 0:
        middle = [_hours("half-a-day", 12), mail_step("story", "A story", "this is how others do it.")]
    return {
        "steps": [
            mail_step("hello", "A question, {{ contact.firstName }}", f"may I ask how you do this? ({version})"),
            *middle,
            {"kind": "task", "id": "call", "title": "Call them", "dueIn": {"amount": 1, "unit": "business_days"}},
            wait_step("another-day", 1),
            {
                "kind": "branch",
                "id": "known",
                "if": {"field": "contact.leadStatus", "op": "eq", "value": "qualified"},
                "then": [mail_step("offer", "An offer", "here is what it would cost.")],
                "else": [mail_step("ideas", "Three ideas", "here is what others did.")],
            },
            _hours("hours", 18),
            mail_step("goodbye", None, "I shall not write again."),
        ],
        "exits": [
            {"on": "deal.stage_changed", "to": ["closed_won"]},
            {
                "on": "contact.updated",
                "changed": ["leadStatus"],
                "if": {"field": "contact.leadStatus", "op": "eq", "value": "unqualified"},
            },
        ],
        "again": {"amount": 1, "unit": "days"},
    }


def _chase(version: int) -> Document:
    """Over business days; whoever has been through may come again at once."""
    return {
        "steps": [
            mail_step("first", "Your request", f"we have it. ({version})"),
            _hours("six-hours", 6),
            _act("remind", "remind", title="Look at the request", escalateAfter={"amount": 1, "unit": "days"}),
            {"kind": "wait", "id": "a-day", "wait": {"for": {"amount": 1, "unit": "business_days"}}},
            mail_step("second", None, "is there anything you miss?"),
            _hours("more-hours", 30 if version % 2 else 20),
            _act("tell", "notify", title="A request is through"),
            mail_step("third", "One last thing", "you know where to find us."),
        ],
        "again": "always",
    }


def _terms(version: int) -> Document:
    """Goes on when it is answered."""
    return {
        "steps": [
            mail_step("terms", "Our terms", f"here are our terms. ({version})"),
            wait_step("two-days", 2),
            mail_step("questions", None, "is anything in them unclear?"),
        ],
        "exits": [{"on": "deal.stage_changed", "to": ["closed_won", "closed_lost"]}],
        "again": "always",
        "stopOnReply": False,
    }


_SEQUENCES = (("Welcome", _welcome), ("Chase", _chase), ("Terms", _terms))
SEQUENCES = tuple(name for name, _ in _SEQUENCES)
RULES = ("Proposal", "Negotiation", "Lost", "Partner", "Answered")


def sequence(number: int, version: int) -> Document:
    """The `number`-th of SEQUENCES, from 0."""
    return _SEQUENCES[number][1](version)


def rule(number: int, version: int, sequences: Mapping[str, str]) -> Document:
    """The `number`-th of RULES, from 0; `sequences` has ids by name."""
    match RULES[number]:
        case "Proposal":
            return _proposal(version)
        case "Negotiation":
            return {
                "trigger": {"on": "deal.stage_changed", "to": ["negotiation"]},
                "steps": [
                    _act("thanks", "send_email", subject=f"Thank you ({version})", text="Good to hear from you.\n"),
                    _act("send-terms", "enroll", sequence=sequences["Terms"]),
                ],
            }
        case "Lost":
            return {
                "trigger": {"on": "deal.stage_changed", "to": ["closed_lost"]},
                "steps": [
                    _act("out", "take_out", sequence=sequences["Welcome"]),
                    _act("why", "create_task", title=f"Ask why ({version})"),
                ],
            }
        case "Partner":
            return {
                "trigger": {"on": "contact.created"},
                "conditions": {"field": "contact.leadSource", "op": "eq", "value": "partner"},
                "steps": [_act("in", "enroll", sequence=sequences["Chase"])],
            }
        case _:
            return {
                "trigger": {"on": "message.replied"},
                "steps": [
                    _act("read", "create_task", title=f"Read the answer ({version})"),
                    _act("tell", "notify", title="Somebody has answered"),
                ],
            }


def _proposal(version: int) -> Document:
    """A task; if it is not done the owner is reminded, then the manager hears of it."""
    return {
        "trigger": {"on": "deal.stage_changed", "to": ["proposal"]},
        "conditions": {"field": "deal.valueCents", "op": "gte", "value": 2_000_000 if version % 2 else 1_500_000},
        "steps": [
            _act("task", "create_task", title=f"Call about the proposal ({version})", priority="high"),
            _hours("half-a-day", 12 if version % 2 else 8),
            _if_done("done-in-time", "well-done"),
            _act(
                "remind-owner",
                "remind",
                title="The proposal waits",
                after={"amount": 6, "unit": "hours"},
                escalateAfter={"amount": 1, "unit": "days"},
            ),
            wait_step("a-day", 1),
            _if_done("done-late", "late-but-done"),
            _act("tell-manager", "notify", to="manager", title="A proposal is not followed up"),
        ],
    }
