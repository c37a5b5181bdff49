"""Dispatch: turns wakes into first attempts and pokes. Only it talks to Temporal from outside a worker."""

import asyncio
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
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
from triggers.first_attempt import attempt
from workflows.contracts import POKE, Mailbox, Waiter
from workflows.drain import Drain
from workflows.walk import Walk

BATCH = 100
"""Wakes of one organization in one pass."""
AT_ONCE = 20
"""Pokes under way at the same time."""
_REFUSED = frozenset({RPCStatusCode.INVALID_ARGUMENT, RPCStatusCode.PERMISSION_DENIED, RPCStatusCode.UNAUTHENTICATED})

_EXECUTIONS = frozenset({Target.RUN, Target.ENROLLMENT})

_Due = dict[UUID, float | None]
"""When targets are due, in seconds of the monotonic clock; None for at once."""

log = structlog.get_logger()


class TemporalAway(Exception):  # noqa: N818  (it passes; the wakes stay)
    """Temporal did not take a poke; nothing was dropped."""


class Dispatch:
    """`connect` answers with the client, or raises `TemporalAway`.

    With `first_attempt` it takes the steps of what is due itself; off, all is poked. Both give the same rows.
    """

    def __init__(
        self,
        crossing: Database,
        database: Database,
        connect: Callable[[], Awaitable[Client]],
        task_queue: str,
        *,
        first_attempt: bool = True,
    ) -> None:
        self._crossing = crossing
        self._database = database
        self._connect = connect
        self._task_queue = task_queue
        self._first_attempt = first_attempt
        self._mail_queue = mail_queue(task_queue)

    async def once(self) -> int:
        """One pass: reads a batch, looks at or pokes each target once, deletes exactly the rows it read.

        Raises `TemporalAway` when some could not be poked; those keep their rows.
        """
        async with self._crossing.crossing() as connection:
            wakes = await queues.wake_batch(connection, BATCH)
            if not wakes:
                return 0
            read = time.monotonic()
            seconds = await queues.still_open(connection, wakes)
        due: _Due = {target: None if until is None else read + until for target, until in seconds.items()}
        closed = [wake for wake in wakes if wake.target not in due]
        await self._forget(closed)
        steps, others = self._split([wake for wake in wakes if wake.target in due], due)
        # A record that is locked does not keep pokes waiting, nor does Temporal, if it is away, keep steps.
        giving = asyncio.create_task(self._give(others, due))
        going: list[Wake] = []
        held = 0
        for org, mine in steps.items():
            more, left = await self._attempt(org, mine, due)
            going += more
            held += left
        away = await giving
        if away != RPCStatusCode.UNAVAILABLE.name:
            away = await self._give(going, due) or away
        if away:
            raise TemporalAway(away)
        return len(wakes) - held

    def _split(self, wakes: Sequence[Wake], due: _Due) -> tuple[dict[UUID, dict[UUID, Wake]], list[Wake]]:
        """Those whose target may have a step to take now, by organization and target; and the others."""
        steps, others = defaultdict[UUID, dict[UUID, Wake]](dict), []
        for wake in wakes:
            if self._first_attempt and wake.kind in _EXECUTIONS and _seconds_to(due[wake.target]) is None:
                steps[wake.org][wake.target] = wake
            else:
                others.append(wake)
        return steps, others

    async def _attempt(self, org: UUID, mine: Mapping[UUID, Wake], due: _Due) -> tuple[list[Wake], int]:
        """Takes the steps that are due: what is still to be poked, with `due` brought up to date, and how many it left.

        Left are those that another relay has at hand. What fails is poked: the workflow owns all retrying.
        """
        read = time.monotonic()
        try:
            # It gives way before PostgreSQL looks for a circle, so that no request of a person is given up for it.
            async with self._database.transaction(org, lock_seconds=0.5, planned=True) as tx:
                held = await queues.hold_wakes(tx, [row for wake in mine.values() for row in wake.rows])
                free = [target for target, wake in mine.items() if held.issuperset(wake.rows)]
                answers = await attempt(tx, free)
                over = {target for target, answer in answers.items() if answer is not None and answer.done}
                await queues.delete_wakes(tx, [row for target in over for row in mine[target].rows])
        except Exception as error:  # noqa: BLE001  (a lock or a mistake: the workflow owns all retrying)
            log.warning("first_attempts_failed", org=str(org), wakes=len(mine), error=type(error).__name__)
            return list(mine.values()), 0
        going = [target for target in free if target not in over]
        for target in going:
            answer = answers[target]
            due[target] = read + answer.seconds if answer and answer.seconds else None
        return [mine[target] for target in going], len(mine) - len(free)

    async def _give(self, wakes: Sequence[Wake], due: _Due) -> str | None:
        """Pokes, and forgets what was taken; why Temporal did not take some, if it is away."""
        if not wakes:
            return None
        try:
            poked, refused, away = await self._poke_all(wakes, due)
        except TemporalAway as error:
            return str(error) or "away"
        await self._forget(poked)
        for wake, code in refused:
            async with self._database.transaction(wake.org) as tx:
                await queues.fail_wakes(tx, wake.rows, code)
            log.error("poke_refused", target=str(wake.target), kind=wake.kind, code=code)
        return away

    async def _poke_all(
        self, wakes: Sequence[Wake], due: _Due
    ) -> tuple[list[Wake], list[tuple[Wake, str]], str | None]:
        client = await self._connect()
        gate = asyncio.Semaphore(AT_ONCE)
        gone: list[str] = []

        async def one(wake: Wake) -> str | None:
            async with gate:
                # The client tries each for ten seconds; once one has found nobody, the others need not.
                code = gone[0] if gone else await self._wake(client, wake, _seconds_to(due[wake.target]))
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


def _seconds_to(instant: float | None) -> float | None:
    """Those that are left; None where the time has come."""
    left = 0 if instant is None else instant - time.monotonic()
    return left if left > 0 else None
