"""Bounded waiting, and processes to wait for."""

import asyncio
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from runtime.folders import CHECKOUT

T = TypeVar("T")


async def until(check: Callable[[], T | None], what: str, seconds: float = 30) -> T:
    """Return the first answer of `check` that is true; fail with `what` after `seconds`."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if answer := check():
            return answer
        await asyncio.sleep(0.02)
    message = f"{what}: not within {seconds} s"
    raise AssertionError(message)


def gone(pid: int) -> bool:
    """Whether a process has ended; one that only its parent has yet to collect has."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def run_script(
    script: Path, *arguments: str, env: Mapping[str, str], prefix: Sequence[str] = ()
) -> subprocess.Popen[str]:
    """Start one of the scripts beside the tests; what it prints can be read line by line."""
    return subprocess.Popen(
        [*prefix, sys.executable, str(script), *arguments],
        env={**env, "PYTHONPATH": str(CHECKOUT)},
        stdout=subprocess.PIPE,
        text=True,
    )


def said(process: subprocess.Popen[str]) -> str:
    """Return the next line a process prints; fail if it ends instead."""
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, f"ended with exit code {process.wait()}"
    return line.strip()


def crash(process: subprocess.Popen[str]) -> None:
    """Kill a process as `kill -9` does and collect it."""
    process.kill()
    process.wait()
    if process.stdout is not None:
        process.stdout.close()
