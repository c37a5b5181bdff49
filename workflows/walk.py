"""Walk: waits for one row, and looks at it again when its time has come or it was poked."""

import asyncio
from datetime import timedelta

from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import FailureError, is_cancelled_exception

with workflow.unsafe.imports_passed_through():
    from workflows.contracts import ADVANCE, POKE, Answer, Waiter

POKES_A_RUN = 2_000
"""The server refuses the 10,001st signal of a run, so a much-poked row starts a new one long before."""
ATTEMPTS = 5
"""Of one look, 0.2, 0.4, 0.8 and 1.6 seconds apart."""
RECOVERS = 5.0
"""Real seconds until the next look where every attempt has failed: no pause outlasts an outage by more than that.

A wait of the workflow's own, which a poke ends, and after any of which it may go on as a new run: an outage of days
does not fill its history.
"""


@workflow.defn(name="Walk")
class Walk:
    """One for each open execution or reminder; every state it needs is in SQL."""

    def __init__(self) -> None:
        self.pokes = 0

    @workflow.signal(name=POKE)
    def poke(self) -> None:
        self.pokes += 1

    @workflow.run
    async def run(self, waiter: Waiter) -> None:
        while True:
            # Taken before `advance`, so that a poke that arrives while it works is not lost.
            seen = self.pokes
            answer = await self._look(waiter)
            if answer.done and self.pokes == seen:
                return
            if not answer.done:
                await self._wait(answer.seconds, seen)
            if self.pokes >= POKES_A_RUN or workflow.info().is_continue_as_new_suggested():
                workflow.continue_as_new(waiter)

    async def _look(self, waiter: Waiter) -> Answer:
        try:
            answer: Answer = await workflow.execute_local_activity(
                ADVANCE,
                waiter,
                result_type=Answer,
                start_to_close_timeout=timedelta(seconds=3),
                retry_policy=RetryPolicy(initial_interval=timedelta(milliseconds=200), maximum_attempts=ATTEMPTS),
                local_retry_threshold=timedelta(seconds=10),
            )
        except FailureError as error:  # of a local activity it is the cause itself, or a timeout
            if is_cancelled_exception(error):
                raise
            return Answer(seconds=RECOVERS)
        return answer

    async def _wait(self, seconds: float | None, seen: int) -> None:
        try:
            await workflow.wait_condition(lambda: self.pokes > seen, timeout=seconds)
        except asyncio.TimeoutError:
            return
