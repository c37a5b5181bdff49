"""Starts one embedded server on a folder, prints where it is and its process id, and stays until it is ended."""

import asyncio
import os
import sys
from pathlib import Path

from runtime.folders import cache_folder
from runtime.obtain import find
from runtime.postgres import Postgres
from runtime.temporal import TemporalServer


async def main() -> None:
    kind, folder = sys.argv[1], Path(sys.argv[2])
    if kind == "postgres":
        postgres = Postgres(folder, options={"fsync": "off"})
        await postgres.start()
        child, where = postgres._child, postgres.admin_url()
    else:
        found = find(os.environ, cache_folder(os.environ), tell=print)
        assert found is not None
        temporal = TemporalServer(found, folder)
        await temporal.start()
        child, where = temporal._child, temporal.address
    assert child is not None
    print(child.pid, where, flush=True)  # noqa: T201  # the test reads it
    await asyncio.Event().wait()


asyncio.run(main())
