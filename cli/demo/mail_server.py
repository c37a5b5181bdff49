"""A mail server for the demo and the tests: a process of its own that keeps what it takes in a log.

    python -m cli.demo.mail_server --log FILE [--port P] [misfortunes]

It listens on the loopback, says `{"port": …}` on stdout when it does, and adds one JSON line to the
log for each mail, on disk before it answers: what it answered 250 is in the log even after `kill -9`.
With a pipe as stdin it ends when the pipe does, so it does not outlive whoever started it.
"""

import argparse
import asyncio
import json
import os
import stat
import sys
from base64 import b64decode, b64encode
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import SMTP as MAIL_POLICY
from enum import StrEnum
from pathlib import Path
from typing import cast

from aiosmtpd.smtp import SMTP, Envelope, Session

_READABLE_BY_ME = 0o600


@dataclass(frozen=True)
class Received:
    """One mail of the log; `at` is the server's own clock, sender and recipients are the envelope's."""

    at: datetime
    message_id: str
    sender: str
    recipients: tuple[str, ...]
    subject: str
    raw: bytes

    def parsed(self) -> EmailMessage:
        return _parsed(self.raw)


class Mood(StrEnum):
    """What a mail server is like for a while, on top of its misfortunes."""

    WELL = "well"
    SLOW = "slow"
    """It thinks for a while before it keeps a mail."""
    STALLING = "stalling"
    """It keeps a mail and answers when nobody waits for an answer any more."""
    BUSY = "busy"
    """It asks every recipient's mail to come later, as HTTP's 429 does."""
    CLOSING = "closing"
    """It lets nobody in, as one that has too many connections."""
    DROPPING = "dropping"
    """It keeps a mail and hangs up in place of the answer."""


_SLOW_SECONDS = 3.0
_STALL_SECONDS = 40.0


@dataclass(frozen=True)
class Misfortunes:
    """What goes wrong: `drop` counts the mails of this process, `defer` the tries of each recipient."""

    drop: int = 0
    refuse: frozenset[str] = frozenset()
    defer: int = 0
    delay: float = 0.0
    hesitate: float = 0.0


def received(log: Path) -> list[Received]:
    """Every mail of a log, oldest first; a last line without its end is none: it was never answered."""
    lines = log.read_bytes().split(b"\n")[:-1] if log.exists() else []
    return [mail_of(line) for line in lines]


def mail_of(line: bytes) -> Received:
    """One whole line of a log."""
    kept = json.loads(line)
    return Received(
        datetime.fromisoformat(kept["at"]),
        kept["messageId"],
        kept["from"],
        tuple(kept["to"]),
        kept["subject"],
        b64decode(kept["raw"]),
    )


class Mailroom:
    """The handler of aiosmtpd: records, then answers or has its misfortune.

    `mood` is a file with the word of a `Mood`, read anew for each mail; without it all is well.
    """

    def __init__(self, log: Path, misfortunes: Misfortunes, mood: Path | None = None) -> None:
        self._misfortunes = misfortunes
        self._mood = mood
        self._tries = Counter[str]()
        self._taken = 0
        self._log = os.open(log, os.O_RDWR | os.O_CREAT | os.O_APPEND, _READABLE_BY_ME)
        whole = log.read_bytes().rfind(b"\n") + 1
        os.ftruncate(self._log, whole)  # a line that was being written when the last server was killed

    def _in_mood(self) -> Mood:
        return Mood(self._mood.read_text().strip()) if self._mood is not None and self._mood.exists() else Mood.WELL

    async def handle_MAIL(  # noqa: N802  (aiosmtpd's name)
        self, server: SMTP, _session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if self._in_mood() is Mood.CLOSING and server.transport is not None:
            asyncio.get_running_loop().call_soon(server.transport.close)  # after it has answered
            return "421 4.7.0 too many connections, try again later"
        envelope.mail_from = address
        envelope.mail_options.extend(options)
        return "250 2.1.0 sender ok"

    async def handle_RCPT(  # noqa: N802  (aiosmtpd's name)
        self, _server: SMTP, _session: Session, envelope: Envelope, address: str, _options: list[str]
    ) -> str:
        recipient = address.lower()
        if recipient in self._misfortunes.refuse:
            return "550 5.1.1 no such mailbox"
        self._tries[recipient] += 1
        if self._tries[recipient] <= self._misfortunes.defer or self._in_mood() is Mood.BUSY:
            return "450 4.2.0 try again later"
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 recipient ok"

    async def handle_DATA(self, server: SMTP, _session: Session, envelope: Envelope) -> str:  # noqa: N802
        mood = self._in_mood()
        await asyncio.sleep(self._misfortunes.hesitate + (_SLOW_SECONDS if mood is Mood.SLOW else 0))
        self._record(envelope)
        self._taken += 1
        await asyncio.sleep(self._misfortunes.delay + (_STALL_SECONDS if mood is Mood.STALLING else 0))
        drop = self._misfortunes.drop and self._taken % self._misfortunes.drop == 0
        if (drop or mood is Mood.DROPPING) and server.transport is not None:
            cast(asyncio.WriteTransport, server.transport).abort()
        return "250 2.0.0 kept"

    def _record(self, envelope: Envelope) -> None:
        raw = envelope.original_content or b""
        message = _parsed(raw)
        line = {
            "at": datetime.now(UTC).isoformat(),
            "messageId": str(message["Message-ID"] or ""),
            "from": envelope.mail_from,
            "to": envelope.rcpt_tos,
            "subject": str(message["Subject"] or ""),
            "raw": b64encode(raw).decode(),
        }
        text = json.dumps(line).encode() + b"\n"
        if os.write(self._log, text) != len(text):
            raise OSError("the log took only a part of the line")
        os.fsync(self._log)


def _parsed(raw: bytes) -> EmailMessage:
    return message_from_bytes(raw, EmailMessage, policy=MAIL_POLICY)


async def serve(port: int, log: Path, misfortunes: Misfortunes, mood: Path | None = None) -> None:
    """Until stdin ends, if it is a pipe; else until the process is ended."""
    mailroom = Mailroom(log, misfortunes, mood)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: SMTP(mailroom, hostname="localhost", loop=loop), "127.0.0.1", port)
    sys.stdout.write(json.dumps({"port": server.sockets[0].getsockname()[1]}) + "\n")
    sys.stdout.flush()
    orphaned = asyncio.Event()
    stdin = sys.stdin.fileno()

    def read() -> None:
        if not os.read(stdin, 1024):
            orphaned.set()

    if stat.S_ISFIFO(os.fstat(stdin).st_mode):
        loop.add_reader(stdin, read)
    await orphaned.wait()


def main() -> None:
    options = argparse.ArgumentParser(
        prog="python -m cli.demo.mail_server", description=(__doc__ or "").splitlines()[0]
    )
    options.add_argument("--log", type=Path, required=True)
    options.add_argument("--port", type=int, default=0, help="0 takes a free one")
    options.add_argument("--drop-answer-of", type=int, default=0, metavar="N", help="take each Nth mail, then hang up")
    options.add_argument("--refuse", action="append", default=[], metavar="ADDRESS", help="answer 550 5.1.1 for it")
    options.add_argument(
        "--defer", type=int, default=0, metavar="K", help="answer 450 to each recipient's first K tries"
    )
    options.add_argument("--delay", type=float, default=0.0, metavar="SECONDS", help="keep, then wait before answering")
    options.add_argument("--hesitate", type=float, default=0.0, metavar="SECONDS", help="wait before keeping")
    options.add_argument("--mood", type=Path, metavar="FILE", help=f"one of {', '.join(Mood)}, read for each mail")
    given = options.parse_args()
    refuse = frozenset(address.lower() for address in given.refuse)
    misfortunes = Misfortunes(given.drop_answer_of, refuse, given.defer, given.delay, given.hesitate)
    asyncio.run(serve(given.port, given.log, misfortunes, given.mood))


if __name__ == "__main__":
    main()
