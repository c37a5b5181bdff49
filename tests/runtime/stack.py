"""Starts an embedded stack on a folder, prints `started`, and keeps it up as `make up` does."""

import asyncio
import sys
from pathlib import Path

from runtime.attaching import temporal_server
from runtime.ending import end
from runtime.processes import Stack


async def main() -> None:
    stack = Stack(
        Path(sys.argv[1]),
        temporal_server(),
        workers=2,
        postgres_options={"fsync": "off"},
        command=(sys.executable, str(Path(__file__).with_name("services.py"))),
    )
    async with stack:
        supervising = asyncio.create_task(stack.supervise())
        await asyncio.sleep(0)  # its first step: from here on it hears signals
        print("started", flush=True)  # noqa: T201
        await supervising


asyncio.run(main())
end(0)
