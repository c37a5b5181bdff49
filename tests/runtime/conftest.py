import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from runtime.attaching import temporal_sql_tool
from runtime.folders import cache_folder
from runtime.obtain import Found, Kind, find
from runtime.temporal import TemporalServer


@pytest.fixture(scope="session")
def temporal_program() -> Found:
    """The server program on this machine; these tests start, kill and restart it, so no address will do."""
    environ = {name: value for name, value in os.environ.items() if name != "TEMPORAL_ADDRESS"}
    found = find(environ, cache_folder(environ), tell=print)
    assert found is not None, "run `make setup`"
    return found


@pytest.fixture(scope="session")
def sql_tool(temporal_program: Found) -> Path:
    """Temporal's schema tool. What asks for it has minutes, in case it has yet to be built."""
    if temporal_program.kind is Kind.CLI:
        pytest.skip("the `temporal` command keeps its histories in SQLite only")
    return temporal_sql_tool()


@pytest_asyncio.fixture(scope="module")
async def server(temporal_program: Found, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[TemporalServer]:
    """A Temporal server of the module's own."""
    server = TemporalServer(temporal_program, tmp_path_factory.mktemp("a temporal server"))
    await server.start()
    yield server
    await server.stop()
