"""Mail servers to send to: the demo's, a process of its own, and one that answers by a script."""

import asyncio
import ipaddress
import json
import re
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from cli.demo.mail_server import Received, received
from runtime.folders import CHECKOUT

HANG_UP = "<hang up>"
SILENCE = "<silence>"
DRIP = "<drip>"
"""What a script may have in place of an answer; a dripping server goes on answering and never ends."""

_ANSWERS = {
    "GREETING": "220 test",
    "EHLO": "250-test\r\n250 8BITMIME",
    "STARTTLS": "220 go ahead",
    "AUTH": "235 2.7.0 welcome",
    "MAIL": "250 2.1.0 ok",
    "RCPT": "250 2.1.5 ok",
    "DATA": "354 go on",
    ".": "250 2.0.0 kept",
    "RSET": "250 2.0.0 ok",
    "QUIT": "221 2.0.0 bye",
}


@dataclass
class MailServer:
    """The demo's mail server in a process of its own; the log outlives it."""

    log: Path
    port: int
    process: subprocess.Popen[str]

    def received(self) -> list[Received]:
        return received(self.log)

    def kill(self) -> None:
        """As `kill -9` does."""
        self.process.kill()
        self._collect()

    def orphan(self) -> int:
        """Ends the pipe it was started with, as the death of its starter does; its exit code."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        return self.process.wait(30)

    def _collect(self) -> None:
        self.process.wait(30)
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()


@contextmanager
def mail_server(log: Path, *options: str, port: int = 0) -> Iterator[MailServer]:
    """Options are those of `python -m cli.demo.mail_server`; it listens when this enters."""
    process = subprocess.Popen(
        [sys.executable, "-m", "cli.demo.mail_server", "--log", str(log), "--port", str(port), *options],
        cwd=CHECKOUT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, f"the mail server ended with exit code {process.wait()}"
    server = MailServer(log, json.loads(line)["port"], process)
    try:
        yield server
    finally:
        server.kill()


@dataclass
class ScriptedServer:
    """Answers by verb ("." is the end of the content), one script for all connections; change it at any time."""

    answers: dict[str, str]
    tls: ssl.SSLContext | None
    port: int = 0
    connections: int = 0
    commands: list[bytes] = field(default_factory=list)
    contents: list[bytes] = field(default_factory=list)
    """What came over the wire from the content's first byte to its final dot."""

    async def converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            going_on = await self._answer("GREETING", reader, writer)
            while going_on:
                command = await reader.readuntil(b"\r\n")
                self.commands.append(command)
                verb = re.split(rb"[ \r]", command)[0].decode().upper()
                going_on = await self._answer(verb, reader, writer)
                if verb == "STARTTLS" and self.tls is not None:
                    await writer.start_tls(self.tls)
                if verb == "DATA" and self.answers["DATA"].startswith("354"):
                    self.contents.append(await reader.readuntil(b"\r\n.\r\n"))
                    going_on = await self._answer(".", reader, writer)
        except (asyncio.IncompleteReadError, OSError):
            pass  # the client has gone
        finally:
            writer.close()

    async def _answer(self, verb: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Whether the conversation goes on."""
        answer = self.answers[verb]
        if answer == HANG_UP:
            return False
        if answer == SILENCE:
            await reader.read()  # until the client goes
            return False
        while answer == DRIP:
            writer.write(b"250-still busy\r\n")
            await writer.drain()
            await asyncio.sleep(0.02)
        writer.write(answer.encode("utf-8", "surrogateescape") + b"\r\n")
        await writer.drain()
        return verb != "QUIT" and not answer.startswith("421")


@asynccontextmanager
async def scripted_server(
    answers: Mapping[str, str] | None = None,
    *,
    implicit_tls: ssl.SSLContext | None = None,
    starttls: ssl.SSLContext | None = None,
) -> AsyncIterator[ScriptedServer]:
    """All goes well but for what `answers` says; conversations still open end with it."""
    script = ScriptedServer({**_ANSWERS, **(answers or {})}, starttls)
    conversations: set[asyncio.Task[None]] = set()

    def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(script.converse(reader, writer))
        conversations.add(task)

    server = await asyncio.start_server(converse, "127.0.0.1", 0, ssl=implicit_tls)
    script.port = server.sockets[0].getsockname()[1]
    try:
        yield script
    finally:
        server.close()
        for task in conversations:
            task.cancel()
        await asyncio.gather(*conversations, return_exceptions=True)


@dataclass(frozen=True)
class Certificate:
    """A certificate of 127.0.0.1 that nobody but its own file vouches for."""

    server: ssl.SSLContext
    trusting: ssl.SSLContext


def certificate(folder: Path, host: str = "127.0.0.1") -> Certificate:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
    now = datetime.now(UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(host))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    chain, secret = folder / "certificate.pem", folder / "key.pem"
    chain.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    secret.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(chain, secret)
    return Certificate(server, ssl.create_default_context(cafile=str(chain)))
