import asyncio
import os
import subprocess
import sys

import pytest

from runtime.folders import CHECKOUT
from runtime.temporal import TemporalServer

# What every command does that talks to Temporal; the output is larger than a pipe's buffer is flushed at.
COMMAND = """
import asyncio, logging
from runtime.ending import end
from runtime.temporal import connect

async def main():
    client = await connect()
    print((await client.count_workflows()).count, "x" * 10_000)
    logging.getLogger().error("logged")

asyncio.run(main())
end(7)
"""


BUFFERED = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}


@pytest.mark.asyncio
async def test_fifty_commands_that_made_a_client_end_cleanly_with_all_their_output(server: TemporalServer) -> None:
    slots = asyncio.Semaphore(4)
    environment = {**BUFFERED, **server.environment()}

    async def run() -> tuple[int | None, int, bytes]:
        async with slots:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-c", COMMAND),
                cwd=CHECKOUT,
                env=environment,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
            output, errors = await process.communicate()
            return process.returncode, len(output), errors

    ends = await asyncio.gather(*(run() for _ in range(50)))
    assert set(ends) == {(7, 10_003, b"logged\n")}


def test_a_reader_that_has_gone_is_no_failure() -> None:
    command = "import os, sys; from runtime.ending import end; os.close(1); print('unread'); end(0)"
    done = subprocess.run([sys.executable, "-c", command], cwd=CHECKOUT, env=BUFFERED, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
