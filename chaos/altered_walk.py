"""The Walk of a bad deploy: it waits before it looks, where every history so far says that it looks first.

So it fails the tasks of every history it did not begin, and what it begins fails under the good release.
"""

from datetime import timedelta

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from workflows.contracts import Waiter
    from workflows.walk import Walk


@workflow.defn(name="Walk")
class AlteredWalk(Walk):
    """As `Walk`, by its name and its signal."""

    @workflow.run
    async def run(self, waiter: Waiter) -> None:
        await workflow.sleep(timedelta(milliseconds=50))
        await super().run(waiter)
