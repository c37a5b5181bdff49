"""How long each service takes from nothing to ready, on a stack that runs."""

import tempfile
import time
from pathlib import Path
from signal import SIGTERM

from runtime.attaching import temporal_server
from runtime.processes import Stack

TRIES = 5


async def rows() -> list[dict[str, object]]:
    """`start.<service>`: the median of five starts, in seconds."""
    with tempfile.TemporaryDirectory() as folder:
        async with Stack(Path(folder) / "home", temporal_server(), tell=lambda _: None) as stack:
            return [
                {"name": f"start.{name.partition('-')[0]}", "value": await _median(stack, name), "unit": "s", "most": 3}
                for name in stack.names
            ]


async def _median(stack: Stack, name: str) -> float:
    taken = []
    for _ in range(TRIES):
        await stack.kill_service(name, SIGTERM)
        started = time.perf_counter()
        await stack.start_service(name)
        taken.append(time.perf_counter() - started)
    return round(sorted(taken)[TRIES // 2], 2)
