import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from runtime.folders import CHECKOUT
from runtime.gobuild import BuildError
from runtime.obtain import SERVER_VERSION, Found, Kind, find, obtain, sql_tool
from tests.runtime.waiting import until

NEW_COMMAND = "temporal version 1.9.1 (Server 1.32.2, UI 2.54.1)"
NEW_SERVER = "temporal version 1.33.0"


def program(path: Path, script: str) -> Path:
    """Make a small executable."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def test_a_named_address_comes_first(tmp_path: Path) -> None:
    program(tmp_path / f"temporal-server-{SERVER_VERSION}", "exit 1")
    environ = {"TEMPORAL_ADDRESS": "temporal.example:7233", "PATH": ""}
    assert find(environ, tmp_path, tell=print) == Found(Kind.ADDRESS, "temporal.example:7233")


def test_the_cache_comes_before_the_path(tmp_path: Path) -> None:
    cached = program(tmp_path / "cache" / f"temporal-server-{SERVER_VERSION}", "exit 1")
    program(tmp_path / "bin" / "temporal", f"echo '{NEW_COMMAND}'")
    assert find({"PATH": str(tmp_path / "bin")}, tmp_path / "cache", tell=print) == Found(Kind.SERVER, str(cached))


@pytest.mark.parametrize(
    ("script", "kind", "told"),
    [
        (f"echo '{NEW_COMMAND}'", Kind.CLI, None),
        (f"echo '{NEW_SERVER}'", Kind.SERVER, None),
        ("echo 'temporal version 2.0.0 (Server 2.0.1, UI 3.0.0)'", Kind.CLI, None),
        ("echo 'temporal version 1.5.1 (Server 1.29.1, UI 2.42.1)'", None, r"its server is 1\.29, older than 1\.32"),
        ("echo 'temporal version 1.31.9'", None, r"its server is 1\.31, older than 1\.32"),
        ("echo 'hello'", None, "does not say which server it carries"),
        ("exit 1", None, "does not say which server it carries"),
    ],
)
def test_a_program_on_the_path_is_taken_if_its_server_is_new_enough(
    tmp_path: Path, script: str, kind: Kind | None, told: str | None
) -> None:
    on_path = program(tmp_path / "bin" / "temporal", script)
    lines: list[str] = []
    found = find({"PATH": str(tmp_path / "bin")}, tmp_path, tell=lines.append)
    assert found == (Found(kind, str(on_path)) if kind else None)
    assert len(lines) == (1 if told else 0)
    assert told is None or re.search(told, lines[0])


def test_a_program_that_cannot_run_is_passed_over_with_a_line(tmp_path: Path) -> None:
    on_path = program(tmp_path / "bin" / "temporal", "")
    on_path.write_bytes(b"\x7fELF of another machine")
    lines: list[str] = []
    assert find({"PATH": str(tmp_path / "bin")}, tmp_path, tell=lines.append) is None
    assert re.search("does not run", lines[0])


GO = r"""
case "$1" in
  version) echo "go version go1.26.8 linux/amd64" ;;
  list) printf 'a\nb\nc\n' ;;
  build)
    echo "$GOTOOLCHAIN $GOFLAGS" >> "$RECORD"
    mkdir -p "$GOMODCACHE/module" && touch "$GOMODCACHE/module/file" && chmod -R a-w "$GOMODCACHE/module"
    touch "$RECORD.started"
    read line < "$RECORD.gate"
    while [ "$1" != "-o" ]; do shift; done
    folder="$2" && mkdir "$folder" && shift 2
    for package; do printf '#!/bin/sh\n' > "$folder/${package##*/}" && chmod +x "$folder/${package##*/}"; done ;;
esac
"""


class Workshop:
    """A machine whose Go does what the real one does, but waits for the test in the middle of the build."""

    def __init__(self, folder: Path) -> None:
        self.record = folder / "builds"
        self.cache = folder / "cache"
        self.cache.mkdir()
        os.mkfifo(folder / "builds.gate")
        program(folder / "bin" / "go", GO)
        self.environ = {
            "PATH": f"{folder / 'bin'}:{os.defpath}",
            "HOME": str(folder / "home"),
            "DRUMBEAT_CACHE": str(self.cache),
            "RECORD": str(self.record),
            # No download, on a machine with internet neither.
            "HTTPS_PROXY": "http://127.0.0.1:1",
        }

    def start(self, *command: str) -> subprocess.Popen[str]:
        Path(f"{self.record}.started").unlink(missing_ok=True)
        return subprocess.Popen(
            [sys.executable, *(command or ("-m", "runtime.obtain"))],
            cwd=CHECKOUT,
            env=self.environ,
            stderr=subprocess.PIPE,
            text=True,
        )

    async def in_the_middle(self) -> None:
        await until(Path(f"{self.record}.started").exists, "the middle of the build")

    def go_on(self) -> None:
        Path(f"{self.record}.gate").write_text("go on\n")


@pytest.mark.asyncio
async def test_two_who_need_it_at_once_build_it_once(tmp_path: Path) -> None:
    workshop = Workshop(tmp_path)
    first = workshop.start()
    await workshop.in_the_middle()
    second = workshop.start()
    assert second.stderr is not None
    waiting = second.stderr.readline()
    assert f"Process {first.pid} is getting the Temporal server already" in waiting
    workshop.go_on()
    _, told = first.communicate()
    _, told_second = second.communicate()
    assert (first.returncode, second.returncode) == (0, 0)
    assert workshop.record.read_text() == "auto -mod=readonly\n"
    assert "Not possible here" in told
    assert "Building the Temporal server" in told
    server = workshop.cache / f"temporal-server-{SERVER_VERSION}"
    assert f"Temporal server: {server}" in told
    assert f"Temporal server: {server}" in told_second
    tool = f"temporal-sql-tool-{SERVER_VERSION}"
    assert {path.name for path in workshop.cache.iterdir()} == {server.name, tool, "temporal.lock"}
    assert not (tmp_path / "home").exists()


@pytest.mark.asyncio
async def test_a_killed_build_leaves_nothing_that_stops_the_next_one(tmp_path: Path) -> None:
    workshop = Workshop(tmp_path)
    first = workshop.start()
    await workshop.in_the_middle()
    first.kill()
    first.communicate()
    assert list(workshop.cache.glob("temporal-draft-*"))
    second = workshop.start()
    await workshop.in_the_middle()
    workshop.go_on()
    second.communicate()
    assert second.returncode == 0
    assert not list(workshop.cache.glob("temporal-draft-*"))


@pytest.mark.asyncio
async def test_where_only_the_server_is_there_its_schema_tool_is_built_alone_once_it_is_needed(tmp_path: Path) -> None:
    workshop = Workshop(tmp_path)
    server = program(workshop.cache / f"temporal-server-{SERVER_VERSION}", "exit 1")
    _, told = workshop.start().communicate()
    assert f"Temporal server: {server}" in told
    assert not workshop.record.exists()

    asked = ("-c", "from runtime.attaching import temporal_sql_tool; print(temporal_sql_tool())")
    first = workshop.start(*asked)
    await workshop.in_the_middle()
    second = workshop.start(*asked)
    assert second.stderr is not None
    assert f"Process {first.pid} is getting" in second.stderr.readline()
    workshop.go_on()
    for process in (first, second):
        process.communicate()
        assert process.returncode == 0
    assert workshop.record.read_text() == "auto -mod=readonly\n"
    tool = f"temporal-sql-tool-{SERVER_VERSION}"
    assert {path.name for path in workshop.cache.iterdir()} == {server.name, tool, "temporal.lock"}


@pytest.mark.parametrize(
    ("go", "uv", "told"),
    [
        ("echo go version go1.19.8 linux/amd64", None, "There is no Go here, and no uv to fetch it with"),
        ("[ $1 = version ] && echo go1.26.8 || { echo 'proxy unreachable'; exit 1; }", None, "proxy unreachable"),
        (None, "echo 'index unreachable'; exit 2", "index unreachable"),
    ],
)
def test_a_build_that_fails_says_why_and_what_to_do(tmp_path: Path, go: str | None, uv: str | None, told: str) -> None:
    (tmp_path / "bin").mkdir()
    if go:
        program(tmp_path / "bin" / "go", go)
    installer = str(program(tmp_path / "uv", uv)) if uv else None
    # No download, on a machine with internet neither.
    environ = {"PATH": f"{tmp_path / 'bin'}:/nowhere", "HTTPS_PROXY": "http://127.0.0.1:1"}
    with pytest.raises(BuildError, match=told) as caught:
        obtain(environ, tmp_path, uv=installer, tell=lambda _: None)
    assert "name a running server with TEMPORAL_ADDRESS" in str(caught.value)
    with pytest.raises(BuildError, match=told):
        sql_tool(environ, tmp_path, uv=installer, tell=lambda _: None)
    assert not list(tmp_path.glob("temporal-draft-*"))
