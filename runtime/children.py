"""Child processes that cannot outlive their supervisor, and the ports they listen on."""

import asyncio
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from signal import SIGKILL, Signals

_LEASH = Path(__file__).with_name("leash.py")
_POLL_SECONDS = 0.02
_LISTENING = "0A"
_LOG_BYTES = 20_000_000


class Child:
    """A running command whose output goes to a file."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path, log_start: int) -> None:
        self._process = process
        self._log = log
        self._log_start = log_start
        self.started = time.monotonic()

    @property
    def pid(self) -> int:
        """The process id; the leash becomes the command, so it is the command's own."""
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs; negative for death by a signal."""
        return self._process.poll()

    @property
    def running(self) -> bool:
        """Whether it has not ended yet."""
        return self.exit_code is None

    def signal(self, number: Signals) -> None:
        """Send a signal; harmless when the command has ended."""
        self._process.send_signal(number)

    async def wait(self, seconds: float) -> int | None:
        """Return its exit code, or None if it still runs after `seconds`."""
        deadline = time.monotonic() + seconds
        while self.running and time.monotonic() < deadline:  # noqa: ASYNC110  # another process sets no event of ours
            await asyncio.sleep(_POLL_SECONDS)
        return self.exit_code

    async def end(self, polite: Signals, seconds: float) -> int:
        """Ask with `polite`, wait `seconds`, then kill; return its exit code."""
        self.signal(polite)
        if await self.wait(seconds) is None:
            self.signal(SIGKILL)
        # SIGKILL is not refused; what remains is the kernel's own clean-up.
        while (code := self.exit_code) is None:  # noqa: ASYNC110
            await asyncio.sleep(_POLL_SECONDS)
        return code

    async def end_by_itself(self, seconds: float) -> int:
        """Return the exit code of a command that is meant to finish; kill it if it has not after `seconds`."""
        try:
            await self.wait(seconds)
        finally:  # cancelled too
            self.signal(SIGKILL)
        return await self.end(SIGKILL, 0)

    def output(self) -> str:
        """Return what it has written so far."""
        with self._log.open("rb") as log:
            log.seek(self._log_start)
            return log.read().decode(errors="replace")

    def last_words(self, lines: int = 12) -> str:
        """Return the end of its output, to show beside a failure."""
        return "\n".join(line[:400] for line in self.output().strip().splitlines()[-lines:])


def spawn(
    command: Sequence[str],
    *,
    log: Path,
    env: Mapping[str, str],
    death_signal: Signals = SIGKILL,
    prefix: Sequence[str] = (),
    folder: Path | None = None,
) -> Child:
    """Start `command`, output appended to `log`; if this process dies, it receives `death_signal`.

    `prefix` is a launcher that becomes what follows it (`unshare … --`). The kernel ties the leash to
    the thread that forks, not to the process: only the main thread lives as long as the process, so
    calling this from another one is a mistake and raises RuntimeError.
    """
    if threading.current_thread() is not threading.main_thread():
        message = "children are spawned from the main thread only"
        raise RuntimeError(message)
    log.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    if log.exists() and log.stat().st_size > _LOG_BYTES:
        log.replace(log.with_suffix(".log.1"))
    leash = [sys.executable, "-I", "-S", str(_LEASH), str(int(death_signal)), str(os.getpid())]
    with log.open("ab") as output:
        process = subprocess.Popen(
            [*prefix, *leash, *command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=env,
            cwd=folder,
            # Ctrl-C is the supervisor's to hear; it ends its children in the right order.
            start_new_session=True,
        )
        return Child(process, log, output.tell())


def free_ports(count: int) -> list[int]:
    """Return loopback ports nobody listens on now. Another process may be quicker: be ready to ask again."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in sockets]
    finally:
        for each in sockets:
            each.close()


def port_is_free(port: int) -> bool:
    """Whether a server could listen on this loopback port now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def listens(pid: int, port: int) -> bool:
    """Whether this very process listens on the loopback port; that something answers there proves less."""
    inodes = {
        fields[9]
        for table in ("/proc/net/tcp", "/proc/net/tcp6")
        if Path(table).exists()
        for fields in map(str.split, Path(table).read_text().splitlines()[1:])
        if fields[3] == _LISTENING and int(fields[1].rpartition(":")[2], 16) == port
    }
    sockets = {f"socket:[{inode}]" for inode in inodes}
    try:
        return any(_target(entry) in sockets for entry in Path(f"/proc/{pid}/fd").iterdir())
    except OSError:  # it has ended
        return False


def _target(entry: Path) -> str:
    try:
        return str(entry.readlink())
    except OSError:  # closed since it was listed
        return ""
