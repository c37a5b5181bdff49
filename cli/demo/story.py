"""The demo's hour: what people, systems and misfortune do while days pass in seconds."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from signal import SIGKILL
from typing import Any

from cli.demo.mail_host import MailHost
from cli.demo.office import Office, Outside, forged
from runtime.processes import Stack

AMOUNT = 2_000_000
"""From this many cents on a deal in Proposal is worth chasing."""
MOVING_SECONDS = 20.0
FURTHER = 15
"""So many of the deals go on to Negotiation; a third of those is won, a third lost."""
WON = FURTHER // 3
WEBHOOKS = 24
FORGED = 1
KILLS: Mapping[str, int] = {"mail server": 2, "temporal": 1, "worker-1": 1, "worker-2": 1, "relay": 2}
"""How often the demo kills each."""

RULE = {
    "trigger": {"on": "deal.stage_changed", "to": ["proposal"]},
    "conditions": {"field": "deal.valueCents", "op": "gte", "value": AMOUNT},
    "steps": [
        {
            "kind": "act",
            "id": "task",
            "action": {
                "type": "create_task",
                "title": "Call about the proposal",
                "priority": "high",
                "dueIn": {"amount": 3, "unit": "business_days"},
            },
        },
        {"kind": "wait", "id": "three-days", "wait": {"for": {"amount": 3, "unit": "business_days"}}},
        {
            "kind": "branch",
            "id": "done-in-time",
            "if": {"field": "step.task.completedAt", "op": "is_not_empty"},
            "then": [{"kind": "exit", "id": "well-done"}],
        },
        {
            "kind": "act",
            "id": "remind-owner",
            "action": {"type": "remind", "title": "The proposal waits for your call"},
        },
        {"kind": "wait", "id": "one-more-day", "wait": {"for": {"amount": 1, "unit": "business_days"}}},
        {
            "kind": "branch",
            "id": "done-late",
            "if": {"field": "step.task.completedAt", "op": "is_not_empty"},
            "then": [{"kind": "exit", "id": "late-but-done"}],
        },
        {
            "kind": "act",
            "id": "tell-manager",
            "action": {"type": "notify", "to": "manager", "title": "A proposal is not followed up"},
        },
    ],
}


@dataclass
class Told:
    """What the outside world knows to be true, to hold the tables against."""

    moved: list[tuple[str, str]] = field(default_factory=list)
    """Deal and stage of every move that was answered."""
    webhooks: list[str] = field(default_factory=list)
    webhook_posts: int = 0
    forged: list[str] = field(default_factory=list)
    forged_statuses: list[int] = field(default_factory=list)
    completed: int = 0
    killed: Counter[str] = field(default_factory=Counter)
    """By the names of `KILLS`: what was seen dead of it."""


async def move_deals(office: Office, deals: Sequence[dict[str, Any]], told: Told) -> None:
    """Reps move their deals into Proposal, one after another, and some of the first further."""
    async with asyncio.TaskGroup() as reps:
        for number, deal in enumerate(deals):
            await _move(office, deal, "proposal", told)
            if number < FURTHER:
                outcome = (None, "closed_won", "closed_lost")[number % 3]
                reps.create_task(_go_further(office, deal, outcome, told))
            await asyncio.sleep(MOVING_SECONDS / len(deals))


async def _go_further(office: Office, deal: dict[str, Any], outcome: str | None, told: Told) -> None:
    await asyncio.sleep(5)
    await _move(office, deal, "negotiation", told)
    if outcome is not None:
        await asyncio.sleep(4)
        await _move(office, deal, outcome, told)


async def _move(office: Office, deal: dict[str, Any], stage: str, told: Told) -> None:
    await office.put(f"/deals/{deal['id']}/stage", {"stage": stage})
    told.moved.append((deal["id"], stage))


async def complete_tasks(office: Office, seed: int, names: Mapping[str, str], told: Told, over: asyncio.Event) -> None:
    """Some tasks are done soon, some only after the reminder, half of them never.

    `names` has the title of each deal and the address of each contact, by id: whom the seed is about.
    """
    done: dict[str, float] = {}
    while not over.is_set():
        page = await office.get("/activities", type="task", limit=100)
        for task in page["activities"]:
            if task["id"] not in done:
                about = names.get(task["dealId"] or task["contactId"])
                delay = Random(f"{seed} {about}").choices((3.0, 16.0, float("inf")), (4, 1, 5))[0]
                done[task["id"]] = time.monotonic() + delay
        for task, when in done.items():
            if when <= time.monotonic():
                await office.post(f"/tasks/{task}/complete")
                done[task] = float("inf")
                told.completed += 1
        await asyncio.sleep(0.5)


async def post_webhooks(outside: Outside, path: str, secret: str, told: Told) -> None:
    """An external system sends people, every third message twice, and somebody forges one."""
    for number in range(WEBHOOKS):
        email = f"webhook-{number}@example.com"
        body = _person(email)
        for _ in range(2 if number % 3 == 0 else 1):
            await outside.webhook(path, secret, f"msg_{number}", body)
            told.webhook_posts += 1
        told.webhooks.append(email)
        await asyncio.sleep(MOVING_SECONDS / WEBHOOKS)
        if number == WEBHOOKS // 2:
            email = "forged@example.com"
            told.forged_statuses.append(await outside.webhook(path, forged(secret), "msg_forged", _person(email)))
            told.forged.append(email)


async def misfortune(stack: Stack, mail: MailHost, told: Told, tell: Callable[[str], None]) -> None:
    """Kills what the job runs on, while it runs. The supervisor starts what died, and the mail server's host that."""

    async def kill(name: str) -> None:
        told.killed[name] += await stack.kill_service(name) == -SIGKILL

    async def kill_mail_server(patience: float) -> None:
        told.killed["mail server"] += await mail.kill_with_a_mail_in_hand(patience) == -SIGKILL

    await asyncio.sleep(3)
    tell("kill -9 the mail server while it takes first mails")
    await kill_mail_server(2)
    await asyncio.sleep(3)
    tell("Temporal is stopped; the API goes on accepting")
    async with stack.without("temporal"):
        await asyncio.sleep(4)
        told.killed["temporal"] += not stack.servers["temporal"].running
    tell("Temporal is back; what fell due meanwhile is caught up")
    await asyncio.sleep(2)
    tell("kill -9 worker-1 while it follows up and sends")
    await kill("worker-1")
    await asyncio.sleep(4)
    tell("kill -9 relay while deals move")
    await kill("relay")
    await asyncio.sleep(6)
    tell("kill -9 relay and worker-2 while reminders fire")
    await asyncio.gather(kill("relay"), kill("worker-2"))
    await asyncio.sleep(12)
    tell("kill -9 the mail server while it takes second mails")
    await kill_mail_server(4)


def _person(email: str) -> dict[str, Any]:
    return {
        "type": "contact.upsert",
        "timestamp": "2026-01-01T00:00:00Z",
        "data": {"email": email, "firstName": "Web", "lastName": "Hook", "leadSource": "partner"},
    }
