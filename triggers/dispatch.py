"""Dispatch: turns wakes into pokes. The only place that talks to Temporal from outside a worker."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

import structlog
from temporalio.client import Client
from temporalio.common import WorkflowIDConflictPolicy, WorkflowIDReusePolicy
from temporalio.exceptions import WorkflowAlreadyStartedError
from temporalio.service import RPCError, RPCStatusCode

from domain.keys import mail_queue, workflow_id
from domain.words import Target
from store import queues
from store.queues import Wake
from store.transaction import Database
from workflows.contracts import POKE, Mailbox, Waiter
from workflows.drain import Drain
from workflows.walk import Walk

BATCH = 100
"""Wakes of one organization in one pass."""
AT_ONCE = 20
"""Pokes under way at the same time."""
_REFUSED = frozenset({RPCStatusCode.INVALID_ARGUMENT, RPCStatusCode.PERMISSION_DENIED, RPCStatusCode.UNAUTHENTICATED})

log = structlog.get_logger()


@dataclass(frozen=True)
class _Due:
    """When targets are due: real seconds after `read`, which is of the monotonic clock."""

    seconds: Mapping[UUID, float | None]
    read: float

    def within(self, target: UUID) -> float | None:
        """The seconds that are left now; None where the time has come."""
        seconds = self.seconds[target]
        left = 0 if seconds is None else seconds - (time.monotonic() - self.read)
        return left if left > 0 else None


class TemporalAway(Exception):  # noqa: N818  (it passes; the wakes stay)
    """Temporal did not take a poke; nothing was dropped."""


class Dispatch:
    """`connect` answers with the client, or raises `TemporalAway`."""

    def __init__(
        self,
        crossing: Database,
        database: Database,
        connect: Callable[[], Awaitable[Client]],
        task_queue: str,
    ) -> None:
        self._crossing = crossing
        self._database = database
        self._connect = connect
        self._task_queue = task_queue
        self._mail_queue = mail_queue(task_queue)

    async def once(self) -> int:
        """One pass: reads a batch, wakes each target once, deletes exactly the rows it read.

        Raises `TemporalAway` when some could not be poked; those keep their rows.
        """
        async with self._crossing.crossing() as connection:
            wakes = await queues.wake_batch(connection, BATCH)
            if not wakes:
                return 0
            read = time.monotonic()
            due = await queues.still_open(connection, wakes)
        wanted = [wake for wake in wakes if wake.target in due]
        poked, refused, away = await self._poke_all(wanted, _Due(due, read))
        closed = [wake for wake in wakes if wake.target not in due]
        await self._forget([*poked, *closed])
        for wake, code in refused:
            async with self._database.transaction(wake.org) as tx:
                await queues.fail_wakes(tx, wake.rows, code)
            log.error("poke_refused", target=str(wake.target), kind=wake.kind, code=code)
        if away:
            raise TemporalAway(away)
        return len(wakes)

    async def _poke_all(
        self, wakes: Sequence[Wake], due: "_Due"
    ) -> tuple[list[Wake], list[tuple[Wake, str]], str | None]:
        if not wakes:
            return [], [], None
        client = await self._connect()
        gate = asyncio.Semaphore(AT_ONCE)
        gone: list[str] = []

        async def one(wake: Wake) -> str | None:
            async with gate:
                # The client tries each for ten seconds; once one has found nobody, the others need not.
                code = gone[0] if gone else await self._wake(client, wake, due.within(wake.target))
                if code == RPCStatusCode.UNAVAILABLE.name:
                    gone.append(code)
                return code

        outcomes = await asyncio.gather(*(one(wake) for wake in wakes))
        poked = [wake for wake, code in zip(wakes, outcomes, strict=True) if code is None]
        failed = [(w, code) for w, code in zip(wakes, outcomes, strict=True) if code is not None]
        refused = [(wake, code) for wake, code in failed if RPCStatusCode[code] in _REFUSED]
        away = next((code for _, code in failed if RPCStatusCode[code] not in _REFUSED), None)
        return poked, refused, away

    async def _wake(self, client: Client, wake: Wake, seconds: float | None) -> str | None:
        """None if it was taken, else the code of the refusal.

        What has no workflow yet and is due in `seconds` only gets one that begins then; all else is poked.
        """
        try:
            if seconds is None or not await self._begin_later(client, wake, seconds):
                try:
                    await self._poke(client, wake)
                except RPCError as error:
                    if error.status is not RPCStatusCode.INVALID_ARGUMENT:
                        raise
                    await self._replace(client, wake)
        except RPCError as error:
            return error.status.name
        return None

    async def _begin_later(self, client: Client, wake: Wake, seconds: float) -> bool:
        """False if the row has a workflow already. One that has not begun yet is begun by its next poke."""
        try:
            await client.start_workflow(
                **self._workflow(wake),
                start_delay=timedelta(seconds=seconds),
                id_conflict_policy=WorkflowIDConflictPolicy.FAIL,
            )
        except WorkflowAlreadyStartedError:
            return False
        return True

    async def _poke(self, client: Client, wake: Wake) -> None:
        """Signal-with-start under the row's own id: it wakes a sleeper, heals a lost start, follows an ended run.

        It carries no delay, with which it would put a sleeper off.
        """
        await client.start_workflow(
            **self._workflow(wake),
            start_signal=POKE,
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
        )

    async def _replace(self, client: Client, wake: Wake) -> None:
        """Starts anew what takes no pokes.

        The server refuses those of a run that has had ten thousand, as one may while no worker is there. What it
        has done is in SQL, so that nothing is lost with it.
        """
        await client.start_workflow(
            **self._workflow(wake), id_conflict_policy=WorkflowIDConflictPolicy.TERMINATE_EXISTING
        )

    def _workflow(self, wake: Wake) -> Mapping[str, Any]:
        """What starts a row's workflow, however it comes about."""
        if wake.kind is Target.MAILBOX:
            workflow: Any = Drain.run
            told: Mailbox | Waiter = Mailbox(org=wake.org, id=wake.target, queue=self._mail_queue)
        else:
            workflow, told = Walk.run, Waiter(org=wake.org, kind=wake.kind, id=wake.target)
        return {
            "workflow": workflow,
            "arg": told,
            "id": workflow_id(wake.kind, wake.target),
            "task_queue": self._task_queue,
            "id_reuse_policy": WorkflowIDReusePolicy.ALLOW_DUPLICATE,
            "task_timeout": timedelta(seconds=3),
            "rpc_timeout": timedelta(seconds=5),
        }

    async def _forget(self, wakes: Sequence[Wake]) -> None:
        of_org: dict[UUID, list[int]] = {}
        for wake in wakes:
            of_org.setdefault(wake.org, []).extend(wake.rows)
        for org, rows in of_org.items():
            async with self._database.transaction(org) as tx:
                await queues.delete_wakes(tx, rows)
