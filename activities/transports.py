"""How a mail leaves: what a mail server answered, told apart by whether the mail may have left.

Up to the server's "go on" (354) nothing has left, whatever fails. From the first byte of the
content only the server's answer to the final dot tells; without it the outcome is unknown.
"""

import asyncio
import re
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, Literal, Protocol, cast

from aiosmtplib import SMTP
from aiosmtplib.errors import SMTPException, SMTPResponseException, SMTPServerDisconnected

from domain.hosts import is_this_machine
from domain.mail import BadMail, wire_address

About = Literal["recipient", "message", "mailbox"]
Security = Literal["starttls", "tls", "none"]
Unreadiness = Literal["unreachable", "tls_refused", "login_refused", "busy"]
_Stage = Literal["mail", "rcpt", "data", "content"]

_ANSWER_LENGTH: Final = 500
_PROBE_SECONDS: Final = 5.0
_GOODBYE_SECONDS: Final = 2.0
_EHLO: Final = "[127.0.0.1]"
"""What a client without a public name says of itself; it tells nothing of the machine."""

_CLOSING: Final = 421
_GO_ON: Final = 354
_COMPLETED: Final = 250
_FORWARDED: Final = 251


@dataclass(frozen=True)
class Accepted:
    """The server has taken the mail upon itself."""

    answer: str


@dataclass(frozen=True)
class Refused:
    """The mail has certainly not left.

    `code` is None where no server said so. `about` is what to blame: another recipient, another
    message or another mailbox could fare better. A permanent refusal about the recipient is not
    always the death of the address: the answer's enhanced status says more.
    """

    code: int | None
    answer: str
    permanent: bool
    about: About


@dataclass(frozen=True)
class Unknown:
    """The mail may have left or not."""

    why: str


Outcome = Accepted | Refused | Unknown

TOO_LATE: Final = Refused(None, "the claim was too old to be used", permanent=False, about="message")
"""Whoever was to send it was frozen on the way."""


class MailboxUnready(Exception):  # noqa: N818  (it is an outcome: nothing was claimed yet)
    """No mail can be handed over now; `detail` is for people, in the server's or the network's words."""

    def __init__(self, code: Unreadiness, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail


class Transport(Protocol):
    """One mailbox's way out; for one mail at a time."""

    async def ready(self) -> None:
        """To be called before a mail is claimed. Raises `MailboxUnready`."""

    async def send(self, raw: bytes, sender: str, recipient: str, until: float) -> Outcome:
        """One attempt, never repeated here. The addresses are the envelope's.

        `until` is the end of the claim by the monotonic clock, which goes on while the process is
        stopped. From then on the message may be another's to send, so no content is begun: `TOO_LATE`.
        """

    async def close(self) -> None:
        """Ends the connection; a later `ready` makes another."""


class OutboxTransport:
    """The default: nothing leaves, the message's own row is the outbox."""

    async def ready(self) -> None: ...

    async def send(self, raw: bytes, sender: str, recipient: str, until: float) -> Outcome:  # noqa: ARG002  (the port's)
        return Accepted("kept in the local outbox")

    async def close(self) -> None: ...


class SmtpTransport:
    """A mail server, by one connection kept between mails.

    `seconds` bounds `ready` and `send`, each as a whole. Certificates are verified, by `tls_context`
    or else the system's authorities. Raises ValueError for a connection in the clear to anywhere but
    the loopback.
    """

    def __init__(
        self,
        host: str,
        port: int,
        security: Security,
        username: str | None,
        password: str | None,
        *,
        seconds: float = 30,
        tls_context: ssl.SSLContext | None = None,
    ) -> None:
        if security == "none" and not is_this_machine(host):
            raise ValueError("a connection in the clear is for a mail server on this machine only")
        self._host = host
        self._port = port
        self._security = security
        self._username = username
        self._password = password
        self._seconds = seconds
        self._tls_context = tls_context
        self._client: SMTP | None = None

    async def ready(self) -> None:
        try:
            async with asyncio.timeout(self._seconds):
                if not await self._alive():
                    await self._connect()
        except BaseException as error:
            self._drop()
            if isinstance(error, TimeoutError):
                raise MailboxUnready("unreachable", self._silence()) from None
            raise

    async def send(self, raw: bytes, sender: str, recipient: str, until: float) -> Outcome:
        try:
            mail_from = wire_address("sender", sender).encode()
        except BadMail as bad:
            return Refused(None, str(bad), permanent=True, about="mailbox")
        try:
            rcpt_to = wire_address("recipient", recipient).encode()
        except BadMail as bad:
            return Refused(None, str(bad), permanent=True, about="recipient")
        if self._client is None:
            return Refused(None, "not connected", permanent=False, about="mailbox")
        outcome: Outcome | None = None
        try:
            outcome = await self._dialogue(self._client, raw, mail_from, rcpt_to, until)
        finally:
            if not _leaves_usable(outcome):
                self._drop()
        return outcome

    async def close(self) -> None:
        if self._client is None:
            return
        try:
            async with asyncio.timeout(min(_GOODBYE_SECONDS, self._seconds)):
                await self._client.quit()
        except (SMTPException, OSError):
            pass  # whether the server says goodbye changes nothing
        finally:
            self._drop()

    async def _alive(self) -> bool:
        """Whether the kept connection still answers; it then has no envelope left from before."""
        if self._client is None:
            return False
        try:
            async with asyncio.timeout(min(_PROBE_SECONDS, self._seconds / 2)):
                await self._client.rset()
        except (SMTPException, OSError):
            self._drop()
            return False
        return True

    async def _connect(self) -> None:
        self._client = client = SMTP(
            hostname=self._host,
            port=self._port,
            use_tls=self._security == "tls",
            start_tls=False,
            tls_context=self._tls_context,
            local_hostname=_EHLO,
            timeout=None,  # `ready` and `send` bound all of it
        )
        with _unready_as("unreachable"):
            await client.connect()
            await client.ehlo()
        if self._security == "starttls":
            with _unready_as("tls_refused"):
                await client.starttls()
            with _unready_as("unreachable"):
                await client.ehlo()
        if self._username is not None:
            with _unready_as("login_refused"):
                await client.login(self._username, self._password or "")

    async def _dialogue(self, client: SMTP, raw: bytes, sender: bytes, recipient: bytes, until: float) -> Outcome:
        content = _lines(raw)
        stuffed = _stuffed(content)
        size = (b"SIZE=%d" % len(content),) if client.supports_extension("size") else ()
        commands: tuple[tuple[_Stage, tuple[int, ...], tuple[bytes, ...]], ...] = (
            ("mail", (_COMPLETED,), (b"MAIL", b"FROM:<%s>" % sender, *size)),
            ("rcpt", (_COMPLETED, _FORWARDED), (b"RCPT", b"TO:<%s>" % recipient)),
            ("data", (_GO_ON,), (b"DATA",)),
        )
        begun = False
        try:
            async with asyncio.timeout(self._seconds):
                for stage, expected, command in commands:
                    code, answer = await client.execute_command(*command)
                    if code not in expected:
                        return _refused(stage, code, answer)
                if client.protocol is None:
                    raise SMTPServerDisconnected("Connection lost")
                if time.monotonic() >= until:  # nothing but the write comes after this look
                    return TOO_LATE
                client.protocol.write(stuffed)  # raises only where it wrote nothing
                begun = True
                code, answer = await client.protocol.read_response()
        except (SMTPException, OSError) as error:
            why = self._silence() if type(error) is TimeoutError else _said(error)
            return Unknown(why) if begun else Refused(None, why, permanent=False, about="mailbox")
        if code == _COMPLETED:
            return Accepted(_clean(answer))
        if _is_refusal(code):
            return _refused("content", code, answer)
        return Unknown(f"the server answered {code} {_clean(answer)}")

    def _silence(self) -> str:
        return f"no answer within {self._seconds:g} s"

    def _drop(self) -> None:
        """Leaves at once: what was not sent yet is not sent any more."""
        client, self._client = self._client, None
        if client is not None and client.transport is not None:
            cast(asyncio.WriteTransport, client.transport).abort()
            client.close()


def _leaves_usable(outcome: Outcome | None) -> bool:
    match outcome:
        case Accepted():
            return True
        case Refused(code=int(code)):
            return _is_refusal(code)
        case _:
            return False


@contextmanager
def _unready_as(code: Unreadiness) -> Iterator[None]:
    """What a failure inside means, unless it shows itself to be the network's, TLS's or a busy server's."""
    try:
        yield
    except (SMTPException, OSError, UnicodeError) as error:  # UnicodeError: the host's name is none
        answered = error.code if isinstance(error, SMTPResponseException) else None
        found: Unreadiness = code
        if isinstance(error, ssl.SSLError) or isinstance(error.__cause__, ssl.SSLError):
            found = "tls_refused"
        elif answered is not None and 400 <= answered < 500:  # noqa: PLR2004  (what SMTP calls transient)
            found = "busy"
        elif answered is None and isinstance(error, OSError):
            found = "unreachable"
        raise MailboxUnready(found, _said(error)) from None


def _lines(raw: bytes) -> bytes:
    """Every line ends with CRLF and no CR or LF stands alone: servers differ over where such a line ends."""
    lines = re.sub(rb"\r\n|\r|\n", b"\r\n", raw)
    return lines if lines.endswith(b"\r\n") else lines + b"\r\n"


def _stuffed(content: bytes) -> bytes:
    return re.sub(rb"^\.", b"..", content, flags=re.MULTILINE) + b".\r\n"


def _is_refusal(code: int) -> bool:
    return 400 <= code < 600  # noqa: PLR2004  (the two classes of refusals)


def _refused(stage: _Stage, code: int, answer: str) -> Refused:
    if not _is_refusal(code):
        return Refused(code, _clean(answer), permanent=False, about="mailbox")
    return Refused(code, _clean(answer), permanent=code >= 500, about=_about(stage, code, answer))  # noqa: PLR2004


_ENHANCED = re.compile(r"[45]\.(\d{1,3})\.(\d{1,3})\b")

_OF_STATUS: Final[dict[tuple[int, int], About]] = {
    (1, 7): "mailbox",  # the sender's address
    (1, 8): "mailbox",
    (2, 3): "message",  # its size
    (3, 4): "message",
    (4, 2): "mailbox",  # the connection
    **dict.fromkeys([(7, 8), (7, 9), (7, 11), (7, 13)], "mailbox"),  # the login
    # what the world knows of the sender's domain and server: SPF, DKIM, DMARC, PTR, TLS
    **dict.fromkeys([(7, n) for n in (20, 21, 22, 23, 24, 25, 26, 27, 29, 30, 31, 32, 515)], "mailbox"),
}
_OF_SUBJECT: Final[dict[int, About]] = {
    1: "recipient",  # addressing
    2: "recipient",  # the recipient's mailbox
    3: "mailbox",  # the mail system
    4: "recipient",  # routing
    5: "mailbox",  # the protocol
    6: "message",  # the content
}
_OF_CODE: Final[dict[int, About]] = dict.fromkeys(
    (_CLOSING, 451, 452, 454, 500, 502, 503, 504, 530, 534, 535, 538), "mailbox"
)
_OF_STAGE: Final[dict[_Stage, dict[int, About]]] = {
    "mail": {552: "message"},
    "rcpt": dict.fromkeys((450, 550, 551, 552, 553), "recipient"),
    "data": {},
    "content": {},
}


def _about(stage: _Stage, code: int, answer: str) -> About:
    """By the enhanced status where there is one (RFC 3463), else by the code and what it answered.

    Policy (x.7.x) is said of the sender until a recipient is named, of the message from then on.
    """
    otherwise: About = "mailbox" if stage == "mail" else "message"
    if code == _CLOSING:
        return "mailbox"
    if status := _ENHANCED.match(answer):
        subject, detail = int(status[1]), int(status[2])
        return _OF_STATUS.get((subject, detail)) or _OF_SUBJECT.get(subject, otherwise)
    return _OF_STAGE[stage].get(code) or _OF_CODE.get(code, otherwise)


def _said(error: Exception) -> str:
    text = error.message if isinstance(error, SMTPException) else str(error)
    return _clean(text) or type(error).__name__


def _clean(text: str) -> str:
    """One printable line of at most 500 characters: a server may answer anything."""
    line = "".join(character if character.isprintable() else " " for character in text)
    return " ".join(line.split())[:_ANSWER_LENGTH]
