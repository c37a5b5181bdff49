import os
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest
import pytest_asyncio

from runtime.postgres import Postgres, PostgresError
from tests.runtime.waiting import crash, gone, run_script, said, until

SUPERVISOR = Path(__file__).with_name("supervisor.py")
FAST = {"fsync": "off"}

pytestmark = pytest.mark.asyncio


@pytest_asyncio.fixture(scope="module")
async def postgres(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Postgres]:
    server = Postgres(tmp_path_factory.mktemp("a folder with spaces"), options=FAST)
    await server.start()
    yield server
    await server.stop()


async def ask(url: str, question: str) -> object:
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetchval(question)
    finally:
        await connection.close()


async def test_text_is_the_same_whatever_the_starters_locale(postgres: Postgres) -> None:
    assert await ask(postgres.admin_url(), "SELECT lower('ÀÉI')") == "àéi"
    facts = (
        "SELECT concat_ws(' ', datlocprovider, datlocale, pg_encoding_to_char(encoding))"
        " FROM pg_database WHERE datname = 'postgres'"
    )
    assert await ask(postgres.admin_url(), facts) == "b C.UTF-8 UTF8"
    assert await ask(postgres.admin_url(), "SHOW timezone") == "UTC"


async def test_only_the_password_opens_it_and_only_from_this_machine(postgres: Postgres) -> None:
    with pytest.raises(asyncpg.InvalidPasswordError):
        await ask(postgres.url("postgres", "guess", "postgres"), "SELECT 1")
    assert await ask(postgres.admin_url(), "SHOW listen_addresses") == "127.0.0.1"
    assert await ask(postgres.admin_url(), "SHOW unix_socket_directories") == ""
    assert (postgres._folder / "password").stat().st_mode & 0o777 == 0o600


async def test_databases_are_copied_and_dropped(postgres: Postgres) -> None:
    await postgres.create_database("original")
    connection = await asyncpg.connect(postgres.admin_url("original"))
    await connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
    await connection.close()
    await postgres.create_database("copy", template="original")
    await postgres.create_database("copy", template="original")
    assert await ask(postgres.admin_url("copy"), "SELECT answer FROM kept") == 42
    await postgres.drop_database("copy")
    await postgres.drop_database("copy")
    with pytest.raises(asyncpg.InvalidCatalogNameError):
        await ask(postgres.admin_url("copy"), "SELECT 1")


async def test_a_killed_server_comes_back_on_its_port_with_what_it_had_committed(postgres: Postgres) -> None:
    url = postgres.admin_url()
    connection = await asyncpg.connect(url)
    await connection.execute("CREATE TABLE committed AS SELECT 1")
    await postgres.kill()
    assert not postgres.running
    await postgres.start()
    assert postgres.admin_url() == url
    assert await ask(url, "SELECT count(*) FROM committed") == 1
    connection.terminate()


async def test_options_reach_the_server_and_a_wrong_one_is_reported_in_its_words(tmp_path: Path) -> None:
    server = Postgres(tmp_path / "data", options={**FAST, "max_connections": "17"})
    await server.start()
    assert await ask(server.admin_url(), "SHOW max_connections") == "17"
    await server.stop()
    with pytest.raises(PostgresError, match="no_such_setting"):
        await Postgres(tmp_path / "data", options={"no_such_setting": "1"}).start()
    await server.start()
    await server.stop()


async def test_a_second_supervisor_is_refused_with_a_sentence(postgres: Postgres) -> None:
    with pytest.raises(PostgresError, match=rf"is in use by process {os.getpid()}\. Stop that process"):
        await Postgres(postgres._folder).start()
    assert await ask(postgres.admin_url(), "SELECT 1") == 1


def _failing_unshare(folder: Path) -> dict[str, str]:
    """An environment in which user namespaces are forbidden, as in many containers."""
    folder.mkdir()
    (folder / "unshare").write_text("#!/bin/sh\necho 'unshare failed: Operation not permitted' >&2\nexit 1\n")
    (folder / "unshare").chmod(0o755)
    return {"PATH": f"{folder}:{os.environ['PATH']}"}


# What can be tried depends on who runs the tests: only root can be someone else.
USERS = ["as started"] if os.geteuid() else ["as started", "ordinary user", "root without namespaces"]


@pytest.mark.parametrize("user", USERS)
async def test_it_ends_with_its_killed_supervisor_and_starts_again_from_the_folder(tmp_path: Path, user: str) -> None:
    env = dict(os.environ)
    prefix: list[str] = []
    if user == "ordinary user":
        prefix = ["unshare", "--user", "--map-user=1000", "--map-group=1000", "--"]
    elif user == "root without namespaces":
        env |= _failing_unshare(tmp_path / "bin")

    supervisor = run_script(SUPERVISOR, "postgres", str(tmp_path / "data"), env=env, prefix=prefix)
    pid, url = said(supervisor).split()
    connection = await asyncpg.connect(url)
    await connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
    crash(supervisor)
    # At once, while the old server is still shutting down: this is what a person does.
    second = run_script(SUPERVISOR, "postgres", str(tmp_path / "data"), env=env, prefix=prefix)
    second_pid, second_url = said(second).split()
    assert gone(int(pid))
    assert await ask(second_url, "SELECT answer FROM kept") == 42
    connection.terminate()
    crash(second)
    await until(lambda: gone(int(second_pid)), "the server's end")


async def test_a_process_id_left_behind_that_is_someone_elses_by_now_is_no_obstacle(tmp_path: Path) -> None:
    server = Postgres(tmp_path / "data", options=FAST)
    await server.start()
    await server.stop()
    (tmp_path / "data" / "data" / "postmaster.pid").write_text(f"{os.getppid()}\n/elsewhere\n1\n1\n\n127.0.0.1\n")
    await server.start()
    assert await ask(server.admin_url(), "SELECT 1") == 1
    await server.stop()


async def test_data_whose_creation_was_killed_are_made_anew(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    supervisor = run_script(SUPERVISOR, "postgres", str(folder), env=os.environ)
    await until(lambda: list(folder.glob("draft-*/base")), "the middle of the creation")
    crash(supervisor)
    assert not (folder / "data").exists()
    server = Postgres(folder, options=FAST)
    await server.start()
    assert await ask(server.admin_url(), "SELECT lower('ÀÉI')") == "àéi"
    await server.stop()
    assert not list(folder.glob("draft-*"))


async def test_a_missing_password_is_a_sentence(tmp_path: Path) -> None:
    server = Postgres(tmp_path, options=FAST)
    await server.start()
    await server.stop()
    (tmp_path / "password").unlink()
    with pytest.raises(PostgresError, match="password"):
        await server.start()
