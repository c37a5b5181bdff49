"""How long each service takes from nothing to ready, on a stack that runs."""

import tempfile
import time
from pathlib import Path
from signal import SIGTERM

from bench.bed import Size
from bench.rows import Row
from runtime.attaching import temporal_server
from runtime.processes import Stack


async def rows(size: Size) -> list[Row]:
    """`start.<service>`: the median of a few starts, in seconds."""
    with tempfile.TemporaryDirectory() as folder:
        async with Stack(Path(folder) / "home", temporal_server(), tell=lambda _: None) as stack:
            return [
                Row(f"start.{name.partition('-')[0]}", await _median(stack, name, size.of(1, 3, 5)), "s", most=3)
                for name in stack.names
            ]


async def _median(stack: Stack, name: str, tries: int) -> float:
    taken = []
    for _ in range(tries):
        await stack.kill_service(name, SIGTERM)
        started = time.perf_counter()
        await stack.start_service(name)
        taken.append(time.perf_counter() - started)
    return sorted(taken)[tries // 2]
