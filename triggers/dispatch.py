"""Dispatch: turns wakes into pokes. The only place that talks to Temporal from outside a worker."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

import structlog
from temporalio.client import Client
from temporalio.common import WorkflowIDConflictPolicy, WorkflowIDReusePolicy
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
        """One pass: reads a batch, pokes each target once, deletes exactly the rows it read.

        Raises `TemporalAway` when some could not be poked; those keep their rows.
        """
        async with self._crossing.crossing() as connection:
            wakes = await queues.wake_batch(connection, BATCH)
            if not wakes:
                return 0
            alive = await queues.still_open(connection, [wake.target for wake in wakes])
        wanted = [wake for wake in wakes if wake.target in alive]
        poked, refused, away = await self._poke_all(wanted)
        closed = [wake for wake in wakes if wake.target not in alive]
        await self._forget([*poked, *closed])
        for wake, code in refused:
            async with self._database.transaction(wake.org) as tx:
                await queues.fail_wakes(tx, wake.rows, code)
            log.error("poke_refused", target=str(wake.target), kind=wake.kind, code=code)
        if away:
            raise TemporalAway(away)
        return len(wakes)

    async def _poke_all(self, wakes: Sequence[Wake]) -> tuple[list[Wake], list[tuple[Wake, str]], str | None]:
        if not wakes:
            return [], [], None
        client = await self._connect()
        gate = asyncio.Semaphore(AT_ONCE)
        gone: list[str] = []

        async def one(wake: Wake) -> str | None:
            async with gate:
                # The client tries each for ten seconds; once one has found nobody, the others need not.
                code = gone[0] if gone else await self._poke(client, wake)
                if code == RPCStatusCode.UNAVAILABLE.name:
                    gone.append(code)
                return code

        outcomes = await asyncio.gather(*(one(wake) for wake in wakes))
        poked = [wake for wake, code in zip(wakes, outcomes, strict=True) if code is None]
        failed = [(w, code) for w, code in zip(wakes, outcomes, strict=True) if code is not None]
        refused = [(wake, code) for wake, code in failed if RPCStatusCode[code] in _REFUSED]
        away = next((code for _, code in failed if RPCStatusCode[code] not in _REFUSED), None)
        return poked, refused, away

    async def _poke(self, client: Client, wake: Wake) -> str | None:
        """None if it was taken, else the code of the refusal.

        Signal-with-start under the row's own id: it wakes a sleeper, heals a lost start and
        follows a run that was ended. An invalid argument may be a run at its limit of signals.
        """
        workflow: Any = Drain.run if wake.kind is Target.MAILBOX else Walk.run
        try:
            await client.start_workflow(
                workflow,
                self._input(wake),
                id=workflow_id(wake.kind, wake.target),
                task_queue=self._task_queue,
                start_signal=POKE,
                id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE,
                id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
                task_timeout=timedelta(seconds=3),
                rpc_timeout=timedelta(seconds=5),
            )
        except RPCError as error:
            return error.status.name
        return None

    def _input(self, wake: Wake) -> Mailbox | Waiter:
        if wake.kind is Target.MAILBOX:
            return Mailbox(org=wake.org, id=wake.target, queue=self._mail_queue)
        return Waiter(org=wake.org, kind=wake.kind, id=wake.target)

    async def _forget(self, wakes: Sequence[Wake]) -> None:
        of_org: dict[UUID, list[int]] = {}
        for wake in wakes:
            of_org.setdefault(wake.org, []).extend(wake.rows)
        for org, rows in of_org.items():
            async with self._database.transaction(org) as tx:
                await queues.delete_wakes(tx, rows)
