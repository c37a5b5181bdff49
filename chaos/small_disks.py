"""Disks so small that they can be filled: file systems in memory, which only this process and its children see."""

import asyncio
import ctypes
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path

from runtime.trouble import TroubleError

_MEGABYTES = 256
_NEW_MOUNTS = 0x00020000  # CLONE_NEWNS of <sched.h>
_NEW_USER = 0x10000000  # CLONE_NEWUSER
_BALLAST = "ballast"
_BLOCK = bytes(64 * 1024)
_AGAIN_EVERY = 0.05


def live_apart() -> None:
    """What this process mounts from now on is its own and its children's, and gone when they are.

    Call before any thread is started. Raises `TroubleError` where the machine does not allow it.
    """
    user, group = os.geteuid(), os.getegid()
    library = ctypes.CDLL(None, use_errno=True)
    if library.unshare(_NEW_MOUNTS | (_NEW_USER if user else 0)) != 0:
        reason = os.strerror(ctypes.get_errno())
        message = f"This scenario needs disks of its own, and this machine lets nobody mount any: {reason}."
        raise TroubleError(message)
    if user:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {user} 1")
        Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    # Else a mount would be seen by all who share this one's parent.
    _run("mount", "--make-rprivate", "/")


@contextmanager
def mounted(folders: Sequence[Path]) -> Iterator[None]:
    """Gives each folder an empty disk of its own for the time of the block; call `live_apart` before.

    What is on the disks at its end is left in the folders.
    """
    with ExitStack() as mounts:
        for folder in folders:
            folder.mkdir(parents=True)
            _run("mount", "-t", "tmpfs", "-o", f"size={_MEGABYTES}m", "drumbeat", str(folder))
            mounts.callback(_leave, folder)
        yield


def _leave(folder: Path) -> None:
    left = folder.with_name(f"{folder.name}-left")
    shutil.copytree(folder, left)
    _run("umount", "--lazy", str(folder))
    folder.rmdir()
    left.rename(folder)


@asynccontextmanager
async def full(folder: Path) -> AsyncIterator[None]:
    """The disk of a folder has no room for the time of the block, whatever its users let go of meanwhile."""
    ballast = folder / _BALLAST

    async def fill() -> None:
        while True:
            _fill(ballast)
            await asyncio.sleep(_AGAIN_EVERY)

    _fill(ballast)
    filling = asyncio.create_task(fill())
    try:
        yield
    finally:
        filling.cancel()
        ballast.unlink()


def _fill(ballast: Path) -> None:
    """To the last byte."""
    with ballast.open("ab", buffering=0) as file:
        size = len(_BLOCK)
        while size:
            with suppress(OSError):
                while file.write(_BLOCK[:size]) == size:
                    pass
            size //= 4


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        message = f"`{' '.join(command)}` failed: {done.stderr.strip()}"
        raise TroubleError(message)
