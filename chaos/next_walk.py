"""The Walk of the next release, changed as a Walk may be changed: what was begun before goes on as it was."""

from datetime import timedelta

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from workflows.contracts import Waiter
    from workflows.walk import Walk


@workflow.defn(name="Walk")
class NextWalk(Walk):
    """As `Walk`, by its name and its signal; what it begins is no history that a `Walk` could replay."""

    @workflow.run
    async def run(self, waiter: Waiter) -> None:
        if workflow.patched("wait-before-the-first-look"):
            await workflow.sleep(timedelta(milliseconds=50))
        await super().run(waiter)
