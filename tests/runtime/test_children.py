import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from runtime.children import free_ports, listens, port_is_free, spawn
from runtime.folders import CHECKOUT
from tests.runtime.waiting import gone, until

PARENT = """
import asyncio, os, signal, sys
from pathlib import Path
from runtime.children import spawn
child = spawn(["sleep", "600"], log=Path(sys.argv[1]), env=dict(os.environ))
print(child.pid, flush=True)
signal.pause()
"""


@pytest.mark.asyncio
@pytest.mark.parametrize("moment", ["while it starts", "when it runs"])
async def test_a_child_dies_with_its_parent_however_that_dies(tmp_path: Path, moment: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path / "log")], cwd=CHECKOUT, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        command = Path(f"/proc/{child}/cmdline")
        if moment == "when it runs":
            await until(lambda: command.read_bytes().startswith(b"sleep"), "the command in place of the leash")
        assert not gone(child)
        parent.kill()
    await until(lambda: gone(child), "the child's end", 5)


def test_a_leash_whose_parent_is_already_gone_starts_nothing(tmp_path: Path) -> None:
    leash = [sys.executable, "-I", "-S", str(CHECKOUT / "runtime" / "leash.py")]
    nobodys = str(os.getpid() + 1)
    done = subprocess.run([*leash, "9", nobodys, "touch", str(tmp_path / "started")], check=False)
    assert done.returncode == 1
    assert not (tmp_path / "started").exists()


@pytest.mark.asyncio
async def test_a_command_that_does_not_exist_says_so(tmp_path: Path) -> None:
    child = spawn(["no-such-command"], log=tmp_path / "log", env=dict(os.environ))
    assert await child.end_by_itself(10) == 127
    assert child.last_words() == "no-such-command: No such file or directory"


@pytest.mark.asyncio
async def test_a_child_inherits_no_ignored_signals(tmp_path: Path) -> None:
    child = spawn(["grep", "SigIgn", "/proc/self/status"], log=tmp_path / "log", env=dict(os.environ))
    await child.end_by_itself(10)
    ignored = int(child.output().split()[1], 16)
    assert not ignored & (1 << (signal.SIGPIPE - 1))


@pytest.mark.asyncio
async def test_its_last_words_are_its_own_and_not_those_of_an_earlier_one(tmp_path: Path) -> None:
    for word in ("first", "second"):
        child = spawn(["echo", word], log=tmp_path / "log", env=dict(os.environ))
        assert await child.end_by_itself(10) == 0
    assert child.last_words() == "second"
    assert (tmp_path / "log").read_text() == "first\nsecond\n"


@pytest.mark.asyncio
async def test_one_that_will_not_end_is_ended_by_force(tmp_path: Path) -> None:
    child = spawn(["sh", "-c", "trap '' TERM; echo deaf; exec sleep 600"], log=tmp_path / "log", env=dict(os.environ))
    await until(child.output, "its first word")
    assert await child.end(signal.SIGTERM, 0.1) == -signal.SIGKILL


def test_children_are_refused_from_other_threads_for_the_kernel_ties_them_to_the_thread(tmp_path: Path) -> None:
    caught: list[BaseException] = []

    def attempt() -> None:
        try:
            spawn(["true"], log=tmp_path / "log", env={})
        except RuntimeError as error:
            caught.append(error)

    thread = threading.Thread(target=attempt)
    thread.start()
    thread.join()
    assert len(caught) == 1


def test_who_listens_is_asked_not_guessed(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    assert port_is_free(port)
    with socket.create_server(("127.0.0.1", port)):
        assert not port_is_free(port)
        assert listens(os.getpid(), port)
        assert not listens(os.getppid(), port)
    assert not listens(os.getpid(), port)
