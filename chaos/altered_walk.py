"""The Walk of a bad deploy: it comes to nothing, whatever history it is given."""

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from workflows.contracts import POKE, Waiter


@workflow.defn(name="Walk")
class AlteredWalk:
    """As `workflows.walk.Walk`, by its name and its signal."""

    @workflow.signal(name=POKE)
    def poke(self) -> None: ...

    @workflow.run
    async def run(self, _waiter: Waiter) -> None:
        raise RuntimeError("this release is broken")
