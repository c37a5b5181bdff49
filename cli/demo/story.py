"""The demo's hour: what people, systems and misfortune do while days pass in seconds."""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

from cli.demo.office import Office, forged
from runtime.processes import Stack

AMOUNT = 2_000_000
"""From this many cents on a deal in Proposal is worth chasing."""
MOVING_SECONDS = 20.0
WEBHOOKS = 24
FORGED = 1

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

    moved: dict[str, str] = field(default_factory=dict)
    webhooks: list[str] = field(default_factory=list)
    webhook_posts: int = 0
    forged: list[str] = field(default_factory=list)
    forged_statuses: list[int] = field(default_factory=list)
    completed: int = 0


async def move_deals(office: Office, deals: Sequence[dict[str, Any]], told: Told) -> None:
    """Reps move their deals into Proposal, one after another."""
    for deal in deals:
        await office.put(f"/deals/{deal['id']}/stage", {"stage": "proposal"})
        told.moved[deal["id"]] = "proposal"
        await asyncio.sleep(MOVING_SECONDS / len(deals))


async def complete_tasks(office: Office, random: Random, told: Told, over: asyncio.Event) -> None:
    """A third of the tasks are done soon, some only after the reminder, the rest never."""
    started = time.monotonic()
    planned: dict[str, float] = {}
    done: set[str] = set()
    while not over.is_set():
        page = await office.get("/activities", type="task", limit=100)
        for task in page["activities"]:
            # By deal, so that a seed means the same people whatever ids the tasks have.
            if task["id"] not in planned:
                planned[task["id"]] = random.choices((3.0, 16.0, float("inf")), (4, 1, 5))[0] + time.monotonic()
        for task, when in planned.items():
            if task not in done and when <= time.monotonic():
                await office.post(f"/tasks/{task}/complete")
                done.add(task)
                told.completed += 1
        await asyncio.sleep(0.5 if time.monotonic() - started > 1 else 0.2)


async def post_webhooks(office: Office, path: str, secret: str, told: Told) -> None:
    """An external system sends people, every third message twice, and somebody forges one."""
    for number in range(WEBHOOKS):
        email = f"webhook-{number}@example.com"
        body = _person(email)
        for _ in range(2 if number % 3 == 0 else 1):
            await office.webhook(path, secret, f"msg_{number}", body)
            told.webhook_posts += 1
        told.webhooks.append(email)
        await asyncio.sleep(MOVING_SECONDS / WEBHOOKS)
        if number == WEBHOOKS // 2:
            email = "forged@example.com"
            told.forged_statuses.append(await office.webhook(path, forged(secret), "msg_forged", _person(email)))
            told.forged.append(email)


async def misfortune(stack: Stack, tell: Callable[[str], None]) -> None:
    """Kills what the job runs on, while it runs. The supervisor starts what died."""
    await asyncio.sleep(5)
    tell("kill -9 worker-1 while it follows up")
    await stack.kill_service("worker-1")
    await asyncio.sleep(4)
    tell("kill -9 relay while deals move")
    await stack.kill_service("relay")
    await asyncio.sleep(3)
    tell("Temporal is stopped; the API goes on accepting")
    async with stack.without_temporal():
        await asyncio.sleep(4)
    tell("Temporal is back; what fell due meanwhile is caught up")
    await asyncio.sleep(5)
    tell("kill -9 relay and worker-2 while reminders fire")
    await asyncio.gather(stack.kill_service("relay"), stack.kill_service("worker-2"))


def _person(email: str) -> dict[str, Any]:
    return {
        "type": "contact.upsert",
        "timestamp": "2026-01-01T00:00:00Z",
        "data": {"email": email, "firstName": "Web", "lastName": "Hook", "leadSource": "partner"},
    }
