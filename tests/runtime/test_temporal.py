import asyncio
import os
import socket
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
import pytest_asyncio
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import DescribeTaskQueueRequest, DescribeWorkflowExecutionRequest
from temporalio.client import Client, WorkflowExecutionStatus
from temporalio.service import RPCError, RPCStatusCode

from runtime import temporal
from runtime.children import free_ports
from runtime.obtain import Found, Kind
from runtime.postgres import Postgres, PostgresError
from runtime.temporal import TemporalError, TemporalServer, connect
from runtime.temporal_store import PostgresStore, StoreError
from tests.runtime.waiting import crash, gone, run_script, said, until

SUPERVISOR = Path(__file__).with_name("supervisor.py")

pytestmark = pytest.mark.asyncio


@pytest.fixture
def here(server: TemporalServer, monkeypatch: pytest.MonkeyPatch) -> TemporalServer:
    """The module's server, with the environment pointing at it."""
    for name, value in server.environment().items():
        monkeypatch.setenv(name, value)
    return server


async def test_a_workflow_survives_the_servers_death_and_clients_find_it_on_the_same_port(
    here: TemporalServer,
) -> None:
    client = await connect()
    handle = await client.start_workflow("Sleeper", id="survivor", task_queue="nobody")
    address = here.address
    await here.kill()
    assert not here.running
    await here.start()
    assert here.address == address
    assert (await handle.describe()).status == WorkflowExecutionStatus.RUNNING
    await handle.terminate()


async def test_a_server_that_was_killed_hands_out_tasks_soon_after_its_return(here: TemporalServer) -> None:
    client = await connect()
    await here.kill()
    await here.start()
    asking = DescribeTaskQueueRequest(namespace=client.namespace, task_queue=TaskQueue(name="nobody"))
    # It took 45 to 60 seconds while the server looked for the peers of its last run.
    await client.workflow_service.describe_task_queue(asking, retry=True, timeout=timedelta(seconds=15))


async def test_every_dynamic_setting_is_one_the_server_knows(here: TemporalServer) -> None:
    log = (here._folder / "temporal.log").read_text()
    assert "unregistered key" not in log
    assert "dynamic config" not in log


async def test_a_second_supervisor_is_refused_with_a_sentence(here: TemporalServer) -> None:
    with pytest.raises(TemporalError, match=rf"is in use by process {os.getpid()}\. Stop that process"):
        await TemporalServer(here._found, here._folder).start()
    assert here.running


async def test_a_port_lost_to_another_program_is_replaced(
    temporal_program: Found, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as quicker:
        taken: int = quicker.getsockname()[1]
        lost = [taken]

        def unlucky(count: int) -> list[int]:
            ports = free_ports(count)
            return [lost.pop(), *ports[1:]] if lost else ports

        monkeypatch.setattr(temporal, "free_ports", unlucky)
        server = TemporalServer(temporal_program, tmp_path)
        await server.start()
        assert not lost
        assert server.address != f"127.0.0.1:{taken}"
        await server.stop()


async def test_a_program_that_is_no_server_is_reported_in_its_own_words(tmp_path: Path) -> None:
    program = tmp_path / "broken"
    program.write_text("#!/bin/sh\necho 'cannot open the store'\nexit 3\n")
    program.chmod(0o755)
    with pytest.raises(TemporalError, match="cannot open the store"):
        await TemporalServer(Found(Kind.SERVER, str(program)), tmp_path / "data").start()


async def test_it_dies_with_its_killed_supervisor_and_starts_again_from_the_folder(tmp_path: Path) -> None:
    env = {name: value for name, value in os.environ.items() if name != "TEMPORAL_ADDRESS"}
    supervisor = run_script(SUPERVISOR, "temporal", str(tmp_path / "data"), env=env)
    pid, _ = said(supervisor).split()
    crash(supervisor)
    await until(lambda: gone(int(pid)), "the server's end", 5)
    supervisor = run_script(SUPERVISOR, "temporal", str(tmp_path / "data"), env=env)
    assert said(supervisor)
    crash(supervisor)


async def test_a_server_that_does_not_answer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    (port,) = free_ports(1)
    monkeypatch.setenv("TEMPORAL_ADDRESS", f"127.0.0.1:{port}")
    with pytest.raises(TemporalError, match=f"^Temporal does not answer at 127.0.0.1:{port}: "):
        await connect(patience=0.3)


@pytest_asyncio.fixture
async def on_postgres(
    temporal_program: Found, sql_tool: Path, tmp_path: Path
) -> AsyncIterator[tuple[TemporalServer, Postgres]]:
    """A server whose histories are in a PostgreSQL of its own, and that PostgreSQL."""
    postgres = Postgres(tmp_path / "postgres", options={"fsync": "off"})
    folder = tmp_path / "temporal"
    server = TemporalServer(temporal_program, folder, store=PostgresStore(postgres, folder, sql_tool=sql_tool))
    await postgres.start()
    try:
        await server.start()
        yield server, postgres
    finally:
        await server.stop()
        await postgres.stop()


async def client_of(server: TemporalServer) -> Client:
    return await Client.connect(server.address, namespace=server.environment()["TEMPORAL_NAMESPACE"])


async def look(client: Client, workflow: str) -> None:
    """Asks once for a workflow; the client's own methods ask for ten seconds."""
    asking = DescribeWorkflowExecutionRequest(
        namespace=client.namespace, execution=WorkflowExecution(workflow_id=workflow)
    )
    await client.workflow_service.describe_workflow_execution(asking, timeout=timedelta(seconds=10))


@pytest.mark.timeout(900)
async def test_on_postgresql_a_workflow_survives_the_death_of_the_server_and_of_its_database(
    on_postgres: tuple[TemporalServer, Postgres],
) -> None:
    server, postgres = on_postgres
    client = await client_of(server)
    handle = await client.start_workflow("Sleeper", id="survivor", task_queue="nobody")
    await postgres.kill()
    await server.kill()
    with pytest.raises(PostgresError, match="does not answer"):
        await server.start()
    await postgres.start()
    await server.start()
    assert (await handle.describe()).status == WorkflowExecutionStatus.RUNNING
    asking = DescribeTaskQueueRequest(namespace=client.namespace, task_queue=TaskQueue(name="nobody"))
    await client.workflow_service.describe_task_queue(asking, retry=True, timeout=timedelta(seconds=15))


@pytest.mark.timeout(900)
async def test_while_its_database_is_away_a_server_lives_and_refuses_and_then_it_goes_on(
    on_postgres: tuple[TemporalServer, Postgres],
) -> None:
    server, postgres = on_postgres
    client = await client_of(server)
    await client.start_workflow("Sleeper", id="before", task_queue="nobody")
    await postgres.kill()
    with pytest.raises(RPCError) as refused:
        await look(client, "before")
    assert refused.value.status is RPCStatusCode.UNAVAILABLE
    await postgres.start()
    async with asyncio.timeout(30):
        while True:
            try:
                await look(client, "before")
                break
            except RPCError:  # it looks for its database once a second
                await asyncio.sleep(0.05)
    await client.start_workflow("Sleeper", id="after", task_queue="nobody")
    await look(client, "after")
    assert server.running


async def test_the_temporal_command_is_refused_on_postgresql(tmp_path: Path) -> None:
    store = PostgresStore(Postgres(tmp_path / "postgres"), tmp_path, sql_tool=tmp_path / "none")
    with pytest.raises(StoreError, match=r"keeps its histories in SQLite only\. For PostgreSQL the plain server"):
        TemporalServer(Found(Kind.CLI, "temporal"), tmp_path, store=store)
