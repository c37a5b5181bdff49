"""Temporal's workflows beside the rows they wait for: which wait for nothing, and which cannot go on."""

import asyncio
from collections.abc import AsyncIterator, Collection
from dataclasses import dataclass
from uuid import UUID

from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from domain.keys import row_of
from store import health
from store.transaction import Database

_AT_ONCE = 20
"""Terminations under way at the same time."""
_WAITING = 'ExecutionStatus = "Running" AND WorkflowType IN ("Walk", "Drain") AND TaskQueue = "{}"'
# The server says so of a workflow whose task has failed several times on end, and unsays it when one goes well.
_FAILING = "TemporalReportedProblems"
_REASONS = {
    "gone": "its row is gone",
    "ended": "its row has ended",
    "failing": "its tasks fail; a new run goes on from the row",
}


@dataclass(frozen=True)
class Compared:
    """Ids of the workflows that are to be terminated, by why; `running` counts all that wait on the task queue."""

    running: int
    gone: list[str]
    """No row is known: begun after the backup from which the database was restored."""
    ended: list[str]
    failing: list[str]
    """Their tasks fail again and again: history made by another release's workflow code, most likely."""


async def counted(client: Client, queue: str) -> tuple[int, int]:
    """How many workflows wait on a task queue, and the tasks of how many of them keep failing."""
    waiting = _WAITING.format(queue)
    failing = await client.count_workflows(f"{waiting} AND {_FAILING} IS NOT NULL")
    return (await client.count_workflows(waiting)).count, failing.count


async def compare(client: Client, queue: str, crossing: Database) -> Compared:
    """Lists the workflows first and looks for their rows then, so that what begins meanwhile is not missed.

    A row that is stuck or paused may go on, so its workflow stays; a mailbox's ends by itself.
    """
    found: dict[str, UUID] = {}
    failing = []
    async for workflow, row, fails in _running(client, queue):
        if fails:
            failing.append(workflow)
        else:
            found[workflow] = row
    async with crossing.crossing() as connection:
        open_ = await health.open_rows(connection)
        open_ids = {id_ for kinds in open_.values() for ids in kinds.values() for id_ in ids}
        unsure = {workflow: row for workflow, row in found.items() if row not in open_ids}
        known = await health.known_rows(connection, list(unsure.values()))
    return Compared(
        running=len(found) + len(failing),
        gone=sorted(workflow for workflow, row in unsure.items() if row not in known),
        ended=sorted(workflow for workflow, row in unsure.items() if known.get(row)),
        failing=sorted(failing),
    )


async def terminate(client: Client, compared: Compared) -> None:
    """Ends what `compare` found; one that has ended by itself meanwhile is as good."""
    await _terminate(client, compared.gone, _REASONS["gone"])
    await _terminate(client, compared.ended, _REASONS["ended"])
    await _terminate(client, compared.failing, _REASONS["failing"])


async def _running(client: Client, queue: str) -> AsyncIterator[tuple[str, UUID, bool]]:
    async for workflow in client.list_workflows(_WAITING.format(queue), page_size=1000):
        row = row_of(workflow.id)
        if row is not None:
            yield workflow.id, row, _FAILING in workflow.search_attributes


async def _terminate(client: Client, workflows: Collection[str], reason: str) -> None:
    gate = asyncio.Semaphore(_AT_ONCE)

    async def one(workflow: str) -> None:
        async with gate:
            try:
                await client.get_workflow_handle(workflow).terminate(reason=f"drumbeat doctor: {reason}")
            except RPCError as error:
                if error.status is not RPCStatusCode.NOT_FOUND:
                    raise

    await asyncio.gather(*(one(workflow) for workflow in workflows))
