"""What a mail that came in is: a glance at its headers at receipt, the whole of it later.

`glance` runs before the sender is answered: it never fails, and reads 64 KB at most. `read`
understands the whole mail; it belongs in a confined process with a time limit, for the parsers of
MIME and HTML beneath it promise nothing about hostile input. Neither knows our own ids and tokens:
both only say which ids and addresses a mail names.
"""

import binascii
import codecs
import quopri
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from email.message import Message
from email.parser import BytesParser
from email.policy import compat32
from enum import StrEnum
from itertools import groupby, islice
from typing import Annotated, Final

from inscriptis import get_text  # type: ignore[import-untyped]
from pydantic import Field, TypeAdapter, ValidationError

from domain.email_addresses import BadEmailError, normalise_email
from domain.reply_text import own_words

LARGEST: Final = 30 * 1024 * 1024
"""Bytes of a mail that is read."""

GLANCED: Final = 64 * 1024
"""Bytes of a mail that are glanced at."""

_SUBJECT: Final = 255
_FULL_TEXT: Final = 100_000
_TEXT: Final = 20_000
_DIAGNOSTIC: Final = 500
_NAMES: Final = 50
"""How many addresses, and how many ids, of one mail are told."""

_ADDRESSES_TRIED: Final = 200
_HTML: Final = 1_000_000
_DEEPEST: Final = 20
_PARTS: Final = 1000

Headers = Mapping[str, Sequence[str]]
"""The values of each header, unfolded, in their order, by its name in lower case."""


class LetterKind(StrEnum):
    REPLY = "reply"
    AUTO_REPLY = "auto_reply"
    BOUNCE = "bounce"
    COMPLAINT = "complaint"


@dataclass(frozen=True)
class Glance:
    """What the headers name; `from_email` and `to_emails` are normalised and nothing proves them.

    `to_emails` has the envelope's recipients (Delivered-To, X-Original-To) before To and Cc, so
    that a crowd in To hides none of them. `references` is In-Reply-To, then References, newest
    first.
    """

    message_id: str | None
    from_email: str | None
    to_emails: tuple[str, ...]
    references: tuple[str, ...]
    subject: str


@dataclass(frozen=True)
class Bounce:
    """A mail that was not delivered: `permanent` is about that mail, `about_address` says the address is dead.

    `status` is the enhanced code (x.y.z) that says most. `diagnostic` is the mail server's own
    text, one line.
    """

    permanent: bool
    about_address: bool
    recipient: str | None = None
    status: str | None = None
    original_message_id: str | None = None
    diagnostic: Annotated[str, Field(max_length=_DIAGNOSTIC)] = ""


@dataclass(frozen=True)
class Letter:
    """A mail as it was understood; `text` is the person's own words in `full_text`.

    `original_ids` are the mails it is about: the one a report encloses first, then In-Reply-To and
    References, newest first. `back_on` is the return date an automatic reply names with its year.
    """

    kind: LetterKind
    text: Annotated[str, Field(max_length=_TEXT)]
    full_text: Annotated[str, Field(max_length=_FULL_TEXT)]
    subject: Annotated[str, Field(max_length=_SUBJECT)]
    original_ids: Annotated[tuple[str, ...], Field(max_length=_NAMES)] = ()
    bounce: Bounce | None = None
    back_on: date | None = None


class Unreadable(Exception):  # noqa: N818  (an outcome: a person is asked)
    """What the mail is cannot be told; `why` says why, in words and without its content."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


# Headers


def glance(raw: bytes) -> Glance:
    """Look at the headers alone; whatever the bytes are, there is an answer."""
    block = raw[:GLANCED]
    if len(raw) > GLANCED:
        block = block[: block.rfind(b"\n") + 1]  # the last line may be half a line
    headers = headers_of(_split(block)[0])
    return Glance(
        message_id=next(_ids(headers, "message-id"), None),
        from_email=next(_emails(headers, "from"), None),
        to_emails=tuple(_emails(headers, "delivered-to", "x-original-to", "to", "cc")),
        references=_references(headers),
        subject=_subject(headers),
    )


_HEADER: Final = re.compile(rb"([!-9;-~]{1,100})[ \t]*:(.*)", re.DOTALL)
_BLANK_LINE: Final = re.compile(rb"\r?\n\r?\n|\r\r")


def _split(raw: bytes) -> tuple[bytes, bytes]:
    """The header block and the body."""
    raw = raw.lstrip(b"\r\n")
    blank = _BLANK_LINE.search(raw)
    return (raw[: blank.start()], raw[blank.end() :]) if blank else (raw, b"")


def headers_of(block: bytes) -> Headers:
    """Read a header block; lines that are no headers are passed over with what is folded under them."""
    lines: list[tuple[str, list[bytes]]] = []
    folded: list[bytes] | None = None
    for line in block.splitlines():
        if line.startswith((b" ", b"\t")):
            if folded is not None:
                folded.append(line.strip())
            continue
        header, folded = _HEADER.match(line), None
        if header:
            folded = [header[2].strip()]
            lines.append((header[1].decode("ascii").lower(), folded))
    headers: dict[str, list[str]] = {}
    for name, parts in lines:
        headers.setdefault(name, []).append(decoded(b" ".join(parts)))
    return headers


def _first(headers: Headers, name: str) -> str:
    return next(iter(headers.get(name, ())), "")


_ID: Final = re.compile(r"<[^<>\s@]{1,250}@[^<>\s]{1,250}>")


def _ids(headers: Headers, name: str) -> Iterator[str]:
    for value in headers.get(name, ()):
        yield from _ID.findall(value)


def _references(headers: Headers) -> tuple[str, ...]:
    newest_first = [*_ids(headers, "in-reply-to"), *reversed([*_ids(headers, "references")])]
    return tuple(dict.fromkeys(newest_first))[:_NAMES]


_QUOTING: Final = re.compile(r'[^"()\\]+|\\.|["()]')
_NO_QUOTING: Final = str.maketrans('"()', "   ")


def _mailboxes(value: str) -> Iterator[str]:
    """The addresses of one header as they are written, without names, comments and groups."""
    kept, quoted, depth = [], False, 0
    for piece in _QUOTING.findall(value):
        if piece == '"' and not depth:
            quoted = not quoted
        elif piece == "(" and not quoted:
            depth += 1
        elif piece == ")" and not quoted:
            depth = max(0, depth - 1)
        elif not quoted and not depth:
            kept.append(piece)
    unclosed = quoted or depth
    plain = value.translate(_NO_QUOTING) if unclosed else "".join(kept)
    for mailbox in re.split("[,;]", plain):
        yield mailbox.rpartition("<")[2].partition(">")[0].rpartition(":")[2].strip()


def _emails(headers: Headers, *names: str) -> Iterator[str]:
    """The valid addresses of these headers, each once, normalised."""
    written = (mailbox for name in names for value in headers.get(name, ()) for mailbox in _mailboxes(value))
    found: set[str] = set()
    for mailbox in islice((one for one in written if "@" in one), _ADDRESSES_TRIED):
        try:
            email = normalise_email(mailbox)
        except BadEmailError:
            continue
        if email not in found and len(found) < _NAMES:
            found.add(email)
            yield email


# An encoded word has no "?" inside: each is looked for only as far as the next one.
_ENCODED_WORD: Final = re.compile(r"=\?([A-Za-z0-9_.:*+-]{1,60})\?([bBqQ])\?([^?]*)\?=")
_SUBJECT_READ: Final = 8192


def _subject(headers: Headers) -> str:
    return _line(_without_encoded_words(_first(headers, "subject")[:_SUBJECT_READ]))[:_SUBJECT].strip()


def _without_encoded_words(value: str) -> str:
    """Neighbours in one charset are joined before they are decoded: some programs cut inside a character."""
    pieces: list[tuple[str | None, bytes]] = []
    at = 0
    for word in _ENCODED_WORD.finditer(value):
        between = value[at : word.start()]
        if between.strip() or (between and not pieces):
            pieces.append((None, between.encode()))
        pieces.append((word[1].partition("*")[0].lower(), _word(word[2], word[3].encode())))
        at = word.end()
    pieces.append((None, value[at:].encode()))
    return "".join(
        decoded(b"".join(data for _, data in run), charset) for charset, run in groupby(pieces, lambda piece: piece[0])
    )


def _word(encoding: str, data: bytes) -> bytes:
    if encoding in "qQ":
        return quopri.decodestring(data, header=True)
    try:
        return binascii.a2b_base64(data + b"==")
    except binascii.Error:
        return data


# Text

_SAME: Final = (
    "ascii", "us-ascii", "utf-8", "utf8", "utf-16", "utf-16le", "utf-16be", "koi8-r", "koi8-u", "macintosh",
    "gbk", "gb18030", "big5", "big5-hkscs", "shift_jis", "shift-jis", "iso-2022-jp", "euc-jp",
    "euc-kr", "iso-2022-kr", "tis-620", "cp437", "cp850", "cp852", "cp866", "cp932", "cp949", "latin1", "latin-1",
    *(f"iso-8859-{part}" for part in (*range(1, 12), *range(13, 17))),  # the twelfth was given up
    *(f"{vendor}{page}" for vendor in ("windows-", "cp") for page in range(1250, 1259)),
)  # fmt: skip
_CHARSETS: Final = {
    # Looked up now: a confined process may open no files. No others: some codecs are slow or no text at all.
    name: codecs.lookup(codec).name
    for name, codec in {
        **{name: name for name in _SAME},
        "gb2312": "gb18030",  # what is called so often holds more
        "ks_c_5601-1987": "cp949",
        "x-sjis": "cp932",
        "windows-874": "cp874",
        "iso-8859-8-i": "iso-8859-8",
    }.items()
}

# Those that PostgreSQL or a terminal would stumble over; tabs and line ends stay.
_CONTROLS: Final = dict.fromkeys([*range(9), 11, 12, *range(14, 32), *range(127, 160)])


def decoded(data: bytes, charset: str | None = None) -> str:
    """The text in the charset named, else in UTF-8, else in Latin-1, which has a sign for every byte."""
    for codec in (_CHARSETS.get((charset or "").strip().lower()), "utf-8"):
        if codec is not None:
            try:
                return data.decode(codec)
            except UnicodeDecodeError:
                continue
    return data.decode("latin-1")


def _clean(text: str) -> str:
    return text.removeprefix("\ufeff").translate(_CONTROLS).replace("\r\n", "\n").replace("\r", "\n")


def _line(text: str) -> str:
    return " ".join(text.split()).translate(_CONTROLS)


# The whole mail


@dataclass(frozen=True)
class _Mail:
    """A mail taken apart; `text` is None where it has none that can be read."""

    headers: Headers
    subject: str
    parts: Sequence[Message]
    text: str | None


def read(raw: bytes) -> Letter:
    """Understand the whole mail; raises `Unreadable`, and nothing else."""
    try:
        return _letter(_apart(raw))
    except Unreadable:
        raise
    except RecursionError:
        raise Unreadable(_TOO_DEEP) from None
    except Exception as fault:  # the parsers have raised about everything: what they raise becomes the answer
        raise Unreadable(f"its form breaks the parser ({type(fault).__name__})") from fault


_TOO_DEEP: Final = "its parts are nested too deep"


def _apart(raw: bytes) -> _Mail:
    if len(raw) > LARGEST:
        raise Unreadable("it is larger than 30 MB")
    head, body = _split(raw)
    headers = headers_of(head)
    if not headers:
        raise Unreadable("it has no headers")
    # The parser sees what concerns it only, so that it and `glance` cannot disagree about the rest.
    mime = [f"{name}: {_first(headers, name)[:2000]}\n" for name in headers if name.startswith("content-")]
    root = BytesParser(policy=compat32).parsebytes("".join(mime).encode() + b"\n" + body)
    parts = _parts(root)
    text = _text(root)
    return _Mail(headers, _subject(headers), parts, None if text is None else _clean(text)[:_FULL_TEXT])


def _parts(root: Message) -> Sequence[Message]:
    """All parts in their order, those of an enclosed mail apart."""
    found: list[Message] = []
    waiting = [(root, 1)]
    while waiting:
        part, depth = waiting.pop()
        if depth > _DEEPEST:
            raise Unreadable(_TOO_DEEP)
        found.append(part)
        if len(found) > _PARTS:
            raise Unreadable("it has too many parts")
        waiting += [(child, depth + 1) for child in reversed(_children(part))]
    return found


def _inside(part: Message) -> list[Message]:
    inside = part.get_payload()
    return [one for one in inside if isinstance(one, Message)] if isinstance(inside, list) else []


def _children(part: Message) -> list[Message]:
    return _inside(part) if part.get_content_maintype() == "multipart" else []


def _text(part: Message) -> str | None:
    """The text a person sees, plain where there is a choice; None where there is none."""
    kind, children = part.get_content_type(), _children(part)
    if children:
        return _chosen(children) if kind == "multipart/alternative" else _joined(children)
    if part.get_content_disposition() == "attachment":
        return None
    if kind == "text/html":
        return str(get_text(_clean(_content(part))[:_HTML]))
    return _content(part) if kind == "text/plain" or kind.startswith("multipart/") else None


def _chosen(children: Sequence[Message]) -> str | None:
    empty = None
    for child in sorted(children, key=lambda child: child.get_content_type() != "text/plain"):
        text = _text(child)
        if text is not None and text.strip():
            return text
        empty = text if empty is None else empty
    return empty


def _joined(children: Sequence[Message]) -> str | None:
    texts = [text for child in children if (text := _text(child)) is not None]
    return "\n".join(texts) if texts else None


def _bytes(part: Message) -> bytes:
    content = part.get_payload(decode=True)
    return content if isinstance(content, bytes) else b""


def _content(part: Message) -> str:
    return decoded(_bytes(part), part.get_content_charset())


def _letter(mail: _Mail) -> Letter:
    kind, bounce = _told_by_a_machine(mail) or (None, None)
    back_on = None
    full_text = mail.text or ""
    text = own_words(full_text)
    if kind is None and _is_automatic(mail):
        kind, back_on = LetterKind.AUTO_REPLY, _return_date(text)
    if kind is None:
        kind = LetterKind.REPLY
        if next(_emails(mail.headers, "from"), None) is None:
            raise Unreadable("it names no sender")
        if mail.text is None:
            raise Unreadable("it has no text")
    ids = list(_references(mail.headers))
    if kind in {LetterKind.BOUNCE, LetterKind.COMPLAINT}:
        ids = [*_original_ids(mail), *ids]
    return Letter(
        kind=kind,
        text=text[:_TEXT],
        full_text=full_text,
        subject=mail.subject,
        original_ids=tuple(dict.fromkeys(ids))[:_NAMES],
        bounce=bounce,
        back_on=back_on,
    )


# What machines say

_NO_COMPLAINT: Final = {"auth-failure", "not-spam", "dkim", "dmarc"}
_DAEMONS: Final = {"mailer-daemon", "mail-daemon"}
_DAEMON_TOO: Final = {"postmaster"}
"""A daemon by its name, or a person: the subject decides."""

_FAILED: Final = (
    "undeliver", "delivery status notification (failure)", "mail delivery failed", "mail delivery failure",
    "delivery failure", "returned mail", "failure notice", "returned to sender",
    "unzustellbar", "nicht zustellbar", "non remis", "échec de la remise", "no se puede entregar",
    "mancato recapito", "non recapitabile",
)  # fmt: skip
_DELAYED: Final = ("delay", "warning", "verzögert", "retard", "retras", "ritard")


def _told_by_a_machine(mail: _Mail) -> tuple[LetterKind, Bounce | None] | None:
    """What a report or a mail server says; None for what a person or an answering machine wrote."""
    feedback = _fields(mail.parts, "message/feedback-report")
    if feedback:
        harmless = any(_first(block, "feedback-type").lower() in _NO_COMPLAINT for block in feedback)
        return (LetterKind.AUTO_REPLY if harmless else LetterKind.COMPLAINT), None
    recipients = [
        block
        for block in _fields(mail.parts, "message/delivery-status", "message/global-delivery-status")
        if "action" in block or "status" in block
    ]
    if recipients:
        failed = next(filter(_has_failed, recipients), None)
        return (LetterKind.BOUNCE, _reported(failed, mail)) if failed else (LetterKind.AUTO_REPLY, None)
    if _fields(mail.parts, "message/disposition-notification"):
        return LetterKind.AUTO_REPLY, None
    names = {box.partition("@")[0].lower() for value in mail.headers.get("from", ()) for box in _mailboxes(value)}
    nobody = any(value == "<>" for value in mail.headers.get("return-path", ()))
    subject = mail.subject.lower()
    if names & _DAEMONS or "x-failed-recipients" in mail.headers:
        bounce = _told(mail)
        delayed = not bounce.permanent and any(word in subject for word in _DELAYED)
        return (LetterKind.AUTO_REPLY, None) if delayed else (LetterKind.BOUNCE, bounce)
    if (nobody or names & _DAEMON_TOO) and any(word in subject for word in _FAILED):
        return LetterKind.BOUNCE, _told(mail)
    return None


def _fields(parts: Sequence[Message], *kinds: str) -> list[Headers]:
    """The blocks of fields of the parts of these types."""
    blocks: list[Headers] = []
    for part in parts:
        if part.get_content_type() not in kinds:
            continue
        for block in _inside(part):
            blocks.append(_headers_in(block))
            # The parser knows the blocks of one of these types only; of the others they follow as a body.
            rest = block.get_payload()
            if isinstance(rest, str):
                blocks += map(headers_of, _BLANK_LINE.split(rest.encode("utf-8", "surrogateescape")))
    return [block for block in blocks if block]


def _headers_in(message: Message) -> Headers:
    headers: dict[str, list[str]] = {}
    for name, value in message.raw_items():
        line = decoded(str(value).encode("utf-8", "surrogateescape"))
        headers.setdefault(name.lower(), []).append(" ".join(line.split()))
    return headers


def _enclosed(parts: Sequence[Message]) -> Headers:
    """The headers of the mail that a report is about."""
    for part in parts:
        kind = part.get_content_type()
        if kind in {"message/rfc822", "message/global", "message/global-headers"}:
            return next(map(_headers_in, _inside(part)), {})
        if kind in {"text/rfc822-headers", "text/rfc822-header"}:
            return headers_of(_split(_bytes(part))[0])
    return {}


def _original_ids(mail: _Mail) -> list[str]:
    """The id of the mail enclosed as a part, else of the one that is copied into the text."""
    enclosed = _enclosed(mail.parts) or headers_of(_notice(mail)[1].encode())
    return list(_ids(enclosed, "message-id"))[:1]


_COPY_BEGINS: Final = ("return-path:", "received:", "message-id:", "--- below this line", "------ this is a copy")


def _notice(mail: _Mail) -> tuple[str, str]:
    """The text of a mail server, and the copy of our mail beneath it."""
    lines = [line.strip() for line in (mail.text or "").split("\n")]
    at = next((at for at, line in enumerate(lines) if line.lower().startswith(_COPY_BEGINS)), len(lines))
    return "\n".join(lines[:at]), "\n".join(lines[at:])


_STATUS: Final = re.compile(r"(?<![0-9.])([245])\.([0-9]{1,3})\.([0-9]{1,3})(?!\.?[0-9])")
_REPLY_CODE: Final = re.compile(r"(?<![0-9.])([45])[0-5][0-9](?=[ -])")
_DEAD: Final = {"5.1.1", "5.1.2", "5.1.6", "5.1.10", "5.4.4"}
_DEAD_IN_WORDS: Final = (
    "user unknown", "unknown user", "unknown recipient", "no such user", "user not found", "recipient not found",
    "address couldn't be found", "no mailbox here by that name", "mailbox does not exist",
    "account that you tried to reach does not exist",
)  # fmt: skip


def _status(text: str) -> str | None:
    found = _STATUS.search(text)
    return ".".join(str(int(number)) for number in found.groups()) if found else None


def _says_nothing(status: str | None) -> bool:
    return status is None or status.endswith(".0.0")


def _has_failed(block: Headers) -> bool:
    action = _first(block, "action").lower()
    return action.startswith("failed") or (not action and (_status(_first(block, "status")) or "").startswith("5"))


def _reported(block: Headers, mail: _Mail) -> Bounce:
    """What the report says of one recipient (RFC 3464)."""
    diagnostic = _first(block, "diagnostic-code")
    diagnostic = (diagnostic.partition(";")[2] or diagnostic).strip()
    written = (
        _first(block, name).rpartition(";")[2] for name in ("original-recipient", "final-recipient")
    )  # what we wrote to, before where it was forwarded
    return _bounce(mail, written, _status(_first(block, "status")), diagnostic)


def _told(mail: _Mail) -> Bounce:
    """What a mail server says in its own words."""
    notice = _notice(mail)[0]
    lines = notice.split("\n")
    telling = (line for says in (_STATUS.search, _says_dead, _REPLY_CODE.search) for line in lines if says(line))
    named = (line[1:].partition(">:")[0] for line in lines if line.startswith("<") and ">:" in line)
    written = (*mail.headers.get("x-failed-recipients", ()), *islice(named, 1))
    return _bounce(mail, iter(written), None, next(telling, ""))


def _says_dead(text: str) -> bool:
    text = text.lower()
    return any(words in text for words in _DEAD_IN_WORDS)


def _bounce(mail: _Mail, written: Iterator[str], status: str | None, diagnostic: str) -> Bounce:
    """`written` are the recipients as the report has them; the first that is an address counts."""
    detail = _status(diagnostic)
    # A server's general "5.0.0" often goes with the true code in its text, of the same class.
    if detail is not None and _says_nothing(status) and (status is None or status[0] == detail[0]):
        status = detail
    reply = _REPLY_CODE.search(diagnostic)
    kind = status[0] if status else reply[1] if reply else ""
    dead_in_words = kind in {"", "5"} and _says_nothing(status) and _says_dead(diagnostic)
    enclosed = _enclosed(mail.parts)
    return Bounce(
        permanent=kind == "5" or dead_in_words,
        about_address=status in _DEAD or dead_in_words,
        recipient=next(_emails({**enclosed, "failed": [*written]}, "failed", "to"), None),
        status=status,
        original_message_id=next(iter(_original_ids(mail)), None),
        diagnostic=_line(diagnostic)[:_DIAGNOSTIC],
    )


# What answering machines say

_SAYS_SO: Final = (
    "x-autoreply", "x-autorespond", "x-mail-autoreply", "x-autoreply-from", "x-fc-machinegenerated",
)  # fmt: skip
_SAYS_NO: Final = {"no", "false", "0"}
_SAYS_SO_BY_VALUE: Final = (
    ("x-autogenerated", "reply"),
    ("x-post-messageclass", "9;autoresponder"),
    ("x-apple-action", "vacation"),
    ("precedence", "auto_reply"),
    ("x-precedence", "auto_reply"),
)
_IN_BULK: Final = {"bulk", "junk", "list"}
_AUTOMATIC_SUBJECTS: Final = (
    "automatic reply", "auto:", "auto-reply", "auto reply", "autoreply", "autoresponse", "auto-response",
    "out of office", "out of the office", "ooo:", "vacation reply",
    "automatische antwort", "abwesenheitsnotiz", "abwesenheit:", "abwesend:", "autom. antwort",
    "réponse automatique", "absence du bureau", "absent du bureau",
    "respuesta automática", "fuera de la oficina", "fuera de oficina",
    "risposta automatica", "fuori ufficio", "fuori sede",
    "resposta automática", "automatisch antwoord", "afwezig:", "autosvar", "automatiskt svar",
    "automatyczna odpowiedź", "自動返信", "自动回复",
)  # fmt: skip


def _is_automatic(mail: _Mail) -> bool:
    """Whether the mail says so itself; X-Auto-Response-Suppress is no evidence, people's mail carries it."""
    headers, subject = mail.headers, mail.subject.lower()
    submitted = [value.partition(";")[0].strip().lower() for value in headers.get("auto-submitted", ())]
    said = [value.lower() for name in _SAYS_SO for value in headers.get(name, ())]
    return (
        any(value != "no" for value in submitted)
        or any(value not in _SAYS_NO for value in said)
        or any("".join(_first(headers, name).lower().split()) == value for name, value in _SAYS_SO_BY_VALUE)
        or "<>" in headers.get("return-path", ())
        or subject.startswith(_AUTOMATIC_SUBJECTS)
        # In bulk alone is how lists and newsletters of people come: it takes another sign.
        or (
            not _IN_BULK.isdisjoint(value.lower() for value in headers.get("precedence", ()))
            and any(words in subject for words in _AUTOMATIC_SUBJECTS)
        )
    )


_MONTHS: Final = {
    name: number
    for number, names in enumerate(
        (
            "january jan januar jänner janvier janv enero ene gennaio gen",
            "february feb februar février févr febrero febbraio",
            "march mar märz mrz mars marzo",
            "april apr avril avr abril abr aprile",
            "may mai mayo maggio mag",
            "june jun juni juin junio giugno giu",
            "july jul juli juillet juil julio luglio lug",
            "august aug août agosto ago",
            "september sep sept septembre septiembre settembre set",
            "october oct oktober okt octobre octubre ottobre ott",
            "november nov novembre noviembre",
            "december dec dezember dez décembre déc diciembre dic dicembre",
        ),
        start=1,
    )
    for name in names.split()
}
_DATES: Final = (
    re.compile(r"(?<![0-9])(?P<year>20[0-9]{2})-(?P<month>[0-9]{2})-(?P<day>[0-9]{2})(?![0-9])"),
    re.compile(r"(?<![0-9.])(?P<day>[0-9]{1,2})\. ?(?P<month>[0-9]{1,2})\. ?(?P<year>20[0-9]{2})(?![0-9])"),
    re.compile(
        r"(?<![0-9])(?P<day>[0-9]{1,2})(?:st|nd|rd|th|er|\.|º|°)? (?:of |de )?(?P<month>[^\W\d_]{3,10})\.?,? "
        r"(?:de |del )?(?P<year>20[0-9]{2})(?![0-9])"
    ),
    re.compile(
        r"(?<![^\W\d_])(?P<month>[^\W\d_]{3,10})\.? (?P<day>[0-9]{1,2})(?:st|nd|rd|th)?,? "
        r"(?P<year>20[0-9]{2})(?![0-9])"
    ),
)
_RETURNS: Final = (
    "back", "return", "until", "till", "zurück", "wieder", "bis ", "retour", "revien", "jusqu", "regres", "vuelta",
    "vuelv", "hasta", "rientr", "torn", "fino al",
)  # fmt: skip
_BEFORE_A_DATE: Final = 60


def _return_date(text: str) -> date | None:
    """The latest full date with a word of returning before it, else the latest of all."""
    flat = " ".join(text.lower().split())
    written = sorted((one for form in _DATES for one in form.finditer(flat)), key=lambda one: one.start())
    found: list[tuple[bool, date]] = []
    last = 0
    for one in written:
        before = flat[max(last, one.start() - _BEFORE_A_DATE) : one.start()]
        last = one.end()
        month = one["month"]
        try:
            day = date(int(one["year"]), int(month) if month.isdecimal() else _MONTHS.get(month, 0), int(one["day"]))
        except ValueError:  # no such day
            continue
        found.append((any(word in before for word in _RETURNS), day))
    return max(found)[1] if found else None


# Between the confined reader and whoever asked it


@dataclass(frozen=True)
class _Answer:
    letter: Letter | None = None
    unreadable: str | None = None


_ANSWER: Final = TypeAdapter(_Answer)


def read_mail(argument: bytes) -> bytes:
    """Read a raw mail; the answer is JSON, `{"letter": {…}}` or `{"unreadable": why}`, and never an exception."""
    try:
        answer = _Answer(letter=read(argument))
    except Unreadable as fault:
        answer = _Answer(unreadable=fault.why)
    return _ANSWER.dump_json(answer, exclude_none=True)


def letter_of(answer: bytes) -> Letter:
    """Take the letter from an answer of `read_mail`; raises `Unreadable` where there is none.

    The answer is checked: who wrote it has read what a stranger sent.
    """
    try:
        told = _ANSWER.validate_json(answer)
    except ValidationError:
        raise Unreadable("the reader's answer makes no sense") from None
    if told.letter is None:
        raise Unreadable(told.unreadable or "the reader's answer is empty")
    return told.letter
