import os
import subprocess
import sys
from pathlib import Path

import pytest

from runtime.folders import CHECKOUT
from runtime.locks import BusyError, Lock, alone

HOLD = """
import signal, sys
from pathlib import Path
from runtime.locks import Lock
lock = Lock(Path(sys.argv[1])).take()
print("held", flush=True)
signal.pause()
"""


def test_the_second_taker_hears_who_holds_it(tmp_path: Path) -> None:
    first, second = Lock(tmp_path / "new folder" / "lock"), Lock(tmp_path / "new folder" / "lock")
    first.take()
    with pytest.raises(BusyError, match=f"^{os.getpid()}$"):
        second.take()
    first.release()
    assert second.take().held
    second.release()


def test_a_lock_ends_with_its_holder_however_it_dies(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "lock")], cwd=CHECKOUT, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        with pytest.raises(BusyError, match=f"^{holder.pid}$"):
            Lock(tmp_path / "lock").take()
        holder.kill()
        holder.wait()
    Lock(tmp_path / "lock").take().release()


def test_who_must_wait_says_so_and_then_goes_on(tmp_path: Path) -> None:
    heard = []
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "lock")], cwd=CHECKOUT, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()

        def on_wait(pid: str) -> None:
            heard.append(pid)
            holder.kill()

        with alone(tmp_path / "lock", on_wait=on_wait):
            assert heard == [str(holder.pid)]
