"""One holder at a time, across processes, forgotten by the kernel when the holder dies."""

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self


class BusyError(Exception):
    """Another process holds the lock; the text is its process id, or `unknown`."""


class Lock:
    """A lock file. The file stays behind when released; only the kernel's lock on it counts."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None

    @property
    def held(self) -> bool:
        """Whether this very object holds the lock."""
        return self._descriptor is not None

    def take(self) -> Self:
        """Take the lock at once, or raise BusyError."""
        self._acquire(fcntl.LOCK_EX | fcntl.LOCK_NB)
        return self

    def wait(self) -> Self:
        """Take the lock, however long its holder keeps it."""
        self._acquire(fcntl.LOCK_EX)
        return self

    def release(self) -> None:
        """Give the lock back; harmless when it is not held."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _acquire(self, how: int) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, how)
        except OSError as error:
            os.close(descriptor)
            raise BusyError(self._path.read_text().strip() or "unknown") from error
        except BaseException:
            os.close(descriptor)
            raise
        os.truncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        self._descriptor = descriptor


@contextmanager
def alone(path: Path, *, on_wait: Callable[[str], None]) -> Iterator[None]:
    """Run the block while nobody else does; `on_wait` hears the holder's process id if it must wait."""
    lock = Lock(path)
    try:
        lock.take()
    except BusyError as busy:
        on_wait(str(busy))
        lock.wait()
    try:
        yield
    finally:
        lock.release()
