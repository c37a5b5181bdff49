"""Drain: empties one mailbox, message by message, at the mailbox's pace."""

import asyncio
from datetime import timedelta

from temporalio import workflow
from temporalio.common import RetryPolicy

with workflow.unsafe.imports_passed_through():
    from workflows.contracts import DRAIN, POKE, Answer, Mailbox

POKES_A_RUN = 2_000
SILENCE = 10.0
"""Real seconds without a heartbeat after which another worker takes over."""
RECOVERS = timedelta(seconds=5)
"""The longest between two attempts: no pause outlasts an outage by more than that."""
LINGERS = 60.0
"""Real seconds an empty mailbox is kept open, so that the next message need not start a new run."""


@workflow.defn(name="Drain")
class Drain:
    """One for each mailbox with something to send; every state it needs is in SQL."""

    def __init__(self) -> None:
        self.pokes = 0

    @workflow.signal(name=POKE)
    def poke(self) -> None:
        self.pokes += 1

    @workflow.run
    async def run(self, mailbox: Mailbox) -> None:
        while True:
            # Taken before, so that a message written while it works is not overlooked.
            seen = self.pokes
            answer = await workflow.execute_activity(
                DRAIN,
                mailbox,
                task_queue=mailbox.queue,
                result_type=Answer,
                start_to_close_timeout=timedelta(minutes=3),
                heartbeat_timeout=timedelta(seconds=SILENCE),
                retry_policy=RetryPolicy(initial_interval=timedelta(milliseconds=200), maximum_interval=RECOVERS),
            )
            poked = await self._poked(seen, LINGERS if answer.done else answer.seconds)
            if answer.done and not poked:
                return
            if self.pokes >= POKES_A_RUN or workflow.info().is_continue_as_new_suggested():
                workflow.continue_as_new(mailbox)

    async def _poked(self, seen: int, seconds: float | None) -> bool:
        """Whether a poke ended the wait, rather than its time."""
        try:
            await workflow.wait_condition(lambda: self.pokes > seen, timeout=seconds)
        except asyncio.TimeoutError:
            return False
        return True
