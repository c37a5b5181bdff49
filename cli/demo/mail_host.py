"""The mail server's process, as a host runs it: one port and one log, whatever becomes of the process."""

import asyncio
import sys
from pathlib import Path
from signal import SIGKILL

from cli.demo.mail_server import Mood
from runtime.children import Child, free_ports, spawn
from runtime.folders import CHECKOUT
from runtime.progress import Say
from runtime.settings import inherited

_DOWN_SECONDS = 1.0
"""How long a server that has died stays down, in real seconds."""
_MISFORTUNES = ("--hesitate", "0.03", "--delay", "0.03", "--drop-answer-of", "75")
"""Slow enough to be killed with a mail in hand, and every so often it hangs up in place of an answer."""


class MailHost:
    """Runs `cli.demo.mail_server`; no part of Drumbeat, and what it keeps is Drumbeat's to be judged by."""

    def __init__(self, folder: Path, tell: Say) -> None:
        self.log = folder / "mail.jsonl"
        self.port = free_ports(1)[0]
        self._mood = folder / "mood"
        self._output = folder / "logs" / "mail_server.log"
        self._tell = tell
        self._child: Child | None = None

    async def run(self) -> None:
        """Starts the server, and again whenever it has died, until cancelled; then it ends too."""
        self._start()
        try:
            while True:
                if self._child is not None and not self._child.running:
                    self._tell("The mail server has ended; its host starts it again.")
                    await asyncio.sleep(_DOWN_SECONDS)
                    self._start()
                await asyncio.sleep(0.05)
        finally:
            await self.kill()

    async def kill(self) -> int | None:
        """As `kill -9` does; its exit code, None where it was never started."""
        return None if self._child is None else await self._child.end(SIGKILL, 0)

    @property
    def child(self) -> Child:
        """The server's process, as it was last started."""
        assert self._child is not None  # noqa: S101  (`run` makes it)
        return self._child

    @property
    def running(self) -> bool:
        return self._child is not None and self._child.running

    def be(self, mood: Mood) -> None:
        """From the next mail on, across restarts."""
        written = self._mood.with_suffix(".new")
        written.write_text(mood)
        written.replace(self._mood)

    async def kill_with_a_mail_in_hand(self, patience: float) -> int | None:
        """As soon as it has kept a mail, which it answers a little later; after `patience` seconds anyway."""
        deadline = asyncio.get_running_loop().time() + patience
        size = self._size()
        while self._size() == size and asyncio.get_running_loop().time() < deadline:  # noqa: ASYNC110  (a file)
            await asyncio.sleep(0.005)
        return await self.kill()

    def _size(self) -> int:
        return self.log.stat().st_size if self.log.exists() else 0

    def _start(self) -> None:
        command = [sys.executable, "-m", "cli.demo.mail_server", "--log", str(self.log), "--port", str(self.port)]
        command += ["--mood", str(self._mood)]
        self._child = spawn([*command, *_MISFORTUNES], log=self._output, env=inherited(), folder=CHECKOUT)
