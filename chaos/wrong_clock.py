"""A process whose clock is wrong, by the library libfaketime; only what it calls the time of day is."""

import importlib.util
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from runtime.settings import inherited

_AN_HOUR = 3600
_SHARED = ("/dev/shm/faketime_shm_{pid}", "/dev/shm/sem.faketime_sem_{pid}")  # noqa: S108  (the library's own)


def available() -> bool:
    """Whether the library can be loaded here: it comes built for one kind of machine."""
    if _library() is None:
        return False
    told = subprocess.run(
        [sys.executable, "-c", "import time; print(time.time())"],
        env={**inherited(), **off_by(_AN_HOUR)},
        capture_output=True,
        text=True,
        check=False,
    )
    return told.returncode == 0 and abs(float(told.stdout) - time.time() - _AN_HOUR) < _AN_HOUR / 2


def off_by(seconds: int) -> Mapping[str, str]:
    """What a process is to be told besides, so that its clock is so many seconds ahead."""
    return {
        "LD_PRELOAD": str(_library()),
        "FAKETIME": f"{seconds:+d}s",
        # Durations stay true.
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }


def forget(pid: int) -> None:
    """Removes what a process with a wrong clock left in shared memory, as it does when it is killed."""
    for path in _SHARED:
        Path(path.format(pid=pid)).unlink(missing_ok=True)


def _library() -> Path | None:
    """Found without importing its package, which brings in much that is not needed."""
    found = importlib.util.find_spec("libfaketime")
    if found is None or found.origin is None:
        return None
    library = Path(found.origin).parent / "vendor" / "libfaketime" / "src" / "libfaketime.so.1"
    return library if library.exists() else None
