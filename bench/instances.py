"""What creating a Walk costs a worker: each wake of a workflow that was not in its cache pays it."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

from temporalio.client import WorkflowHistory
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.worker import Replayer

from bench.bed import Size
from bench.rows import Row
from runtime.wiring import sandbox
from workflows.walk import Walk

COUNT = 100
MOST = 1.0
"""Seconds of CPU for a hundred: the design's bar."""
_HISTORY = Path(__file__).parent.parent / "tests" / "workflows" / "histories" / "in_its_first_wait.json"


async def rows(size: Size) -> list[Row]:
    """The CPU time of a hundred instances up to their first wait, the best of a few rounds after one to warm up."""
    history = _HISTORY.read_text()
    await _create(history)
    seconds = min([await _create(history) for _ in range(size.of(2, 5, 5))])
    return [Row(f"walk.create_{COUNT}", seconds, "s of CPU", most=MOST)]


async def _create(history: str) -> float:
    """In the sandbox the worker uses, from a real history, without a server."""

    async def histories() -> AsyncIterator[WorkflowHistory]:
        for number in range(COUNT):
            yield WorkflowHistory.from_json(f"run-{number}", history)

    replayer = Replayer(
        workflows=[Walk],
        data_converter=pydantic_data_converter,
        workflow_runner=sandbox(),
    )
    started = time.process_time()
    result = await asyncio.wait_for(replayer.replay_workflows(histories()), 60)
    seconds = time.process_time() - started
    if result.replay_failures:
        raise RuntimeError(str(next(iter(result.replay_failures.values()))))
    return seconds
