import asyncio
import json
import os
import signal
import socket
import stat
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import pytest_asyncio

from runtime.keyring import KeyringError
from runtime.obtain import Found, Kind
from runtime.processes import Launch, Stack, StackError, running_environment
from tests.runtime.waiting import crash, gone, run_script, said, until

SERVICES = (sys.executable, str(Path(__file__).with_name("services.py")))
STACK = Path(__file__).with_name("stack.py")
ELSEWHERE = Found(Kind.ADDRESS, "temporal.example:7233")

pytestmark = pytest.mark.asyncio


@pytest.fixture
def record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RECORD", str(tmp_path / "record"))
    monkeypatch.setenv("DRUMBEAT_DATABASE_URL", "postgresql://someone:else@elsewhere/production")
    monkeypatch.setenv("DRUMBEAT_POOL_SIZE", "3")
    monkeypatch.setenv("DRUMBEAT_LOG_LEVEL", "error")
    monkeypatch.setenv("TEMPORAL_API_KEY", "key of another server")
    return tmp_path / "record"


@pytest_asyncio.fixture
async def stack(record: Path, tmp_path: Path, temporal_program: Found) -> AsyncIterator[Stack]:
    stack = make_stack(tmp_path / "a home", temporal_program, workers=2)
    async with stack:
        yield stack


def make_stack(
    home: Path, found: Found = ELSEWHERE, *, workers: int = 1, api_port: int = 0, scale: int = 1, test: bool = False
) -> Stack:
    return Stack(
        home,
        found,
        workers=workers,
        api_port=api_port,
        scale=scale,
        test=test,
        postgres_options={"fsync": "off"},
        command=SERVICES,
    )


def starts(record: Path, command: str) -> list[dict[str, Any]]:
    lines = record.read_text().splitlines() if record.exists() else []
    return [entry for line in lines if (entry := json.loads(line))["command"][0] == command]


async def test_every_service_runs_and_is_told_what_it_needs_and_no_more(stack: Stack, record: Path) -> None:
    assert stack.names == ["api", "relay", "worker-1", "worker-2"]
    (migrate,), (api,), (relay,), workers = (starts(record, each) for each in ("migrate", "api", "relay", "worker"))
    assert len(workers) == 2

    secrets = {"DRUMBEAT_DATABASE_URL", "DRUMBEAT_RELAY_DATABASE_URL", "DRUMBEAT_ADMIN_DATABASE_URL"}
    assert secrets & migrate["told"].keys() == secrets
    assert secrets & relay["told"].keys() == secrets - {"DRUMBEAT_ADMIN_DATABASE_URL"}
    assert secrets & api["told"].keys() == secrets & workers[0]["told"].keys() == {"DRUMBEAT_DATABASE_URL"}

    told = api["told"]
    assert told["DRUMBEAT_DATABASE_URL"].startswith("postgresql://drumbeat_app:")
    assert "elsewhere" not in json.dumps(told)
    assert told["DRUMBEAT_POOL_SIZE"] == "3"
    assert told["DRUMBEAT_LOG_LEVEL"] == "info"  # the stack reads readiness from the log
    assert stack.temporal is not None
    assert {name: value for name, value in told.items() if name.startswith("TEMPORAL_")} == (
        stack.temporal.environment()
    )


async def test_migrations_hear_of_time_lapse_and_the_test_mark(record: Path, tmp_path: Path) -> None:
    async with make_stack(tmp_path / "home", scale=21_600, test=True):
        (migrate,) = starts(record, "migrate")
    assert migrate["command"] == ["migrate", "--scale", "21600", "--test"]


async def test_a_server_elsewhere_is_left_as_the_environment_names_it(record: Path, tmp_path: Path) -> None:
    async with make_stack(tmp_path / "home") as stack:
        assert stack.temporal is None
        (relay,) = starts(record, "relay")
    assert relay["told"]["TEMPORAL_API_KEY"] == "key of another server"


async def test_a_home_in_use_is_refused_with_a_sentence(stack: Stack, tmp_path: Path) -> None:
    with pytest.raises(StackError, match=rf"is in use by another Drumbeat, process {os.getpid()}\. Stop it"):
        await make_stack(tmp_path / "a home").start()
    assert all(stack.service(name).running for name in stack.names)


async def test_what_it_writes_is_for_its_owner_only(stack: Stack, tmp_path: Path) -> None:
    home = tmp_path / "a home"
    for name in ("secrets.json", "environment.json", "postgres/password"):
        assert stat.S_IMODE((home / name).stat().st_mode) == 0o600
    assert stat.S_IMODE((home / "logs").stat().st_mode) == 0o700


async def test_other_commands_find_a_running_stack_and_only_a_running_one(record: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    assert running_environment(home) is None
    async with make_stack(home) as stack:
        environment = running_environment(home)
        assert environment is not None
        assert environment["DRUMBEAT_ADMIN_DATABASE_URL"] == stack.postgres.admin_url("drumbeat")
    assert running_environment(home) is None


async def test_one_service_is_killed_and_started_by_itself(stack: Stack, record: Path) -> None:
    before = stack.service("api").pid
    assert await stack.kill_service("api") == -signal.SIGKILL
    await stack.start_service("api")
    assert stack.service("api").pid != before
    assert await stack.kill_service("relay", signal.SIGTERM) == 0
    assert [len(starts(record, each)) for each in ("migrate", "api", "relay", "worker")] == [1, 2, 1, 2]


async def test_several_relays_run_side_by_side_and_a_service_is_sent_another_way_at_each_start(
    record: Path, tmp_path: Path
) -> None:
    way = "first"

    def route(name: str, launch: Launch) -> Launch:
        told = {**launch.environment, "DRUMBEAT_TASK_QUEUE": f"{way} of {name}"}
        return Launch([*launch.command, "another"], told) if name == "relay-2" else launch

    stack = Stack(
        tmp_path / "home", ELSEWHERE, relays=2, postgres_options={"fsync": "off"}, command=SERVICES, route=route
    )
    async with stack:
        assert stack.names == ["api", "relay-1", "relay-2", "worker-1"]
        way = "second"
        async with stack.without("relay-2"):
            pass
        await until(lambda: len(starts(record, "relay")) == 3, "the second relay's second start")
    relays = starts(record, "relay")
    assert sorted(relay["command"] for relay in relays) == [["relay"], ["relay", "another"], ["relay", "another"]]
    assert [each["told"].get("DRUMBEAT_TASK_QUEUE") for each in relays if each["command"] != ["relay"]] == [
        "first of relay-2",
        "second of relay-2",
    ]
    assert all("DRUMBEAT_RELAY_DATABASE_URL" in relay["told"] for relay in relays)


async def revival_of_another(stack: Stack) -> None:
    """After this, whatever had died before has been seen, and started if it may be: services come after servers."""
    killed = stack.service("worker-1")
    await stack.kill_service("worker-1")
    await until(lambda: stack.service("worker-1") is not killed, "the revival of another", 90)


@pytest.mark.parametrize("name", ["postgres", "temporal", "relay"])
async def test_what_is_kept_dead_is_not_revived_until_it_may_come_back(stack: Stack, name: str) -> None:
    temporal = stack.temporal
    assert temporal is not None
    reviving = asyncio.create_task(stack.revive())
    children = {
        "postgres": lambda: stack.postgres.child,
        "temporal": lambda: temporal.child,
        "relay": lambda: stack.service("relay"),
    }
    before = children[name]()
    async with stack.without(name):
        await revival_of_another(stack)
        assert children[name]() is before
        assert not before.running
    assert children[name]().running
    reviving.cancel()
    await asyncio.gather(reviving, return_exceptions=True)


@pytest.mark.timeout(900)
async def test_temporals_own_database_is_kept_dead_while_temporal_lives_and_both_come_back(
    record: Path, tmp_path: Path, temporal_program: Found, sql_tool: Path
) -> None:
    told: list[str] = []
    stack = Stack(
        tmp_path / "home",
        temporal_program,
        postgres_options={"fsync": "off"},
        temporal_sql_tool=sql_tool,
        command=SERVICES,
        tell=told.append,
    )
    async with stack:
        assert list(stack.servers) == ["postgres", "temporal-postgres", "temporal"]
        own, temporal = stack.servers["temporal-postgres"], stack.servers["temporal"]
        reviving = asyncio.create_task(stack.revive())
        own.child.signal(signal.SIGKILL)
        await until(lambda: "temporal-postgres has ended; starting it again." in told, "the revival")
        await revival_of_another(stack)
        assert own.running
        async with stack.without("temporal-postgres"):
            await revival_of_another(stack)
            assert not own.running
            assert temporal.running
            async with stack.without("temporal"):
                pass
            assert not temporal.running
        assert any("does not answer" in line for line in told)
        await until(lambda: temporal.running, "the server, once its database is there")
        reviving.cancel()
        await asyncio.gather(reviving, return_exceptions=True)
    assert not any(server.running for server in (own, temporal, stack.postgres))


async def test_the_database_and_temporal_are_killed_and_started_by_themselves(stack: Stack) -> None:
    assert stack.temporal is not None
    url, address = stack.postgres.admin_url(), stack.temporal.address
    await stack.temporal.kill()
    await stack.postgres.kill()
    await stack.postgres.start()
    await stack.temporal.start()
    assert (stack.postgres.admin_url(), stack.temporal.address) == (url, address)
    connection = await asyncpg.connect(url)
    await connection.close()


@pytest.mark.parametrize("command", ["migrate", "api", "relay"])
async def test_a_process_that_does_not_start_is_reported_with_its_last_words(
    record: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setenv("FAIL", command)
    stack = make_stack(tmp_path / "home")
    with pytest.raises(StackError, match=f"{command} cannot go on"):
        await stack.start()
    assert not stack.postgres.running
    monkeypatch.delenv("FAIL")
    async with stack:
        assert stack.service(stack.names[0]).running


async def test_a_taken_port_is_a_sentence(record: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port: int = other.getsockname()[1]
        with pytest.raises(StackError, match=f"Port {port} is taken by another program"):
            await make_stack(tmp_path / "home", api_port=port).start()


async def test_data_without_their_secrets_are_refused_rather_than_made_unreadable(record: Path, tmp_path: Path) -> None:
    async with make_stack(tmp_path / "home"):
        pass
    secrets = tmp_path / "home" / "secrets.json"
    secrets.write_text(secrets.read_text()[:-20])
    with pytest.raises(KeyringError, match=r"secrets\.json is damaged\. Restore it from a backup"):
        await make_stack(tmp_path / "home").start()
    secrets.unlink()
    with pytest.raises(KeyringError, match=r"secrets\.json is missing"):
        await make_stack(tmp_path / "home").start()


def pids(record: Path, command: str) -> list[int]:
    return [entry["pid"] for entry in starts(record, command)]


async def test_everything_dies_with_a_killed_supervisor_and_the_next_one_starts_from_files(
    record: Path, tmp_path: Path
) -> None:
    env = {name: value for name, value in os.environ.items() if name != "TEMPORAL_ADDRESS"}
    first = run_script(STACK, str(tmp_path / "home"), env=env)
    assert said(first) == "started"
    old = [pid for command in ("api", "relay", "worker") for pid in pids(record, command)]
    told = starts(record, "relay")[0]["told"]
    crash(first)
    second = run_script(STACK, str(tmp_path / "home"), env=env)
    assert said(second) == "started"
    assert all(map(gone, old))
    again = starts(record, "relay")[1]["told"]
    assert again["DRUMBEAT_MASTER_KEY"] == told["DRUMBEAT_MASTER_KEY"]
    second.terminate()
    assert second.wait() == 0
    assert second.stdout is not None
    second.stdout.close()
    assert all(gone(pid) for command in ("api", "relay", "worker") for pid in pids(record, command))


async def test_a_supervisor_starts_again_what_dies_and_ends_cleanly_when_told(record: Path, tmp_path: Path) -> None:
    env = {name: value for name, value in os.environ.items() if name != "TEMPORAL_ADDRESS"}
    supervisor = run_script(STACK, str(tmp_path / "home"), env=env)
    assert said(supervisor) == "started"
    (relay,) = pids(record, "relay")
    os.kill(relay, signal.SIGKILL)
    await until(lambda: len(pids(record, "relay")) == 2, "another relay")
    postgres = int((tmp_path / "home" / "postgres" / "data" / "postmaster.pid").read_text().split()[0])
    os.kill(postgres, signal.SIGKILL)
    environment = running_environment(tmp_path / "home")
    assert environment is not None

    await until(lambda: gone(postgres), "the database's end")
    connection = await answering(environment["DRUMBEAT_ADMIN_DATABASE_URL"])
    await connection.close()
    supervisor.send_signal(signal.SIGINT)
    assert supervisor.wait() == 0
    assert supervisor.stdout is not None
    supervisor.stdout.close()
    assert gone(pids(record, "relay")[1])


async def answering(url: str) -> asyncpg.Connection:
    async with asyncio.timeout(30):
        while True:
            with suppress(OSError, asyncpg.PostgresError):
                return await asyncpg.connect(url)
            await asyncio.sleep(0.05)
