"""The form of an outgoing mail: one sender, one recipient, text before HTML, the same bytes at every reading.

The headers are written here and not by the standard library's policies, which fold and encode by
rules of their own that change between releases.
"""

import re
from base64 import b64encode, encodebytes
from binascii import b2a_qp
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from email.utils import format_datetime
from hashlib import sha256
from html import escape, unescape
from typing import Any, Final
from unicodedata import category
from uuid import UUID

from email_validator import EmailNotValidError, validate_email

_LONGEST: Final = 998
"""Bytes of a line without its CRLF (RFC 5322, 2.1.1)."""
_WORD_BYTES: Final = 39
"""What one encoded word carries so that its line stays under 76 characters after any name of ours."""
_REFERENCES: Final = 20
_REFERENCES_BYTES: Final = 900

_BREAKS: Final = frozenset({"Cc", "Cs", "Zl", "Zp"})
"""Unicode categories no header may hold: controls, surrogates, line and paragraph separators."""
_MESSAGE_ID = re.compile(r"<[!-;=?-~]+>")
_URL = re.compile(r"https?://[!#-;=?-~]+")
_NEWLINE = re.compile(r"\r\n|\r|\n")
_BODY_END = re.compile(r"</body\s*>", re.IGNORECASE)
_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
_TAG = re.compile(r"<[^>]*>")
_REPLIES = re.compile(
    r"(?:\s*(?:re|r|aw|antw|sv|vs|vá|res|ref|odp|ynt|bls|atb|отв|απ|σχετ|תגובה|השב|回复|回覆|答复|答覆|返信)"
    r"\s*(?:[\[(]\d+[\])]|\^\d+)?\s*[:\uff1a])+\s*",
    re.IGNORECASE,
)


class BadMail(ValueError):  # noqa: N818  (it is said of the mail)
    """A mail that must not be written; `why` never repeats what the field holds."""

    def __init__(self, field: str, why: str) -> None:
        super().__init__(f"{field}: {why}")
        self.field = field
        self.why = why


@dataclass(frozen=True)
class Mail:
    """What one mail says.

    `at` is aware and becomes the Date; `message_id`, `in_reply_to` and `references` (oldest first)
    have their angle brackets. `unsubscribe_url` and `postal_address` are shown at the end of both
    bodies unless the bodies show them already.
    """

    message_id: str
    at: datetime
    from_name: str
    from_email: str
    to_email: str
    reply_to: str | None
    subject: str
    text: str
    html: str
    in_reply_to: str | None
    references: tuple[str, ...]
    unsubscribe_url: str | None
    postal_address: str | None


def compose(mail: Mail) -> bytes:
    """An RFC 5322 message in ASCII with CRLF; the same mail is always the same bytes.

    Raises `BadMail`.
    """
    message_id = _id("message_id", mail.message_id)
    # No body has "=_": quoted-printable writes "=" only before two digits or a line's end, base64 has no "_".
    boundary = f"=_{sha256(message_id.encode()).hexdigest()[:32]}"
    sender = wire_address("from_email", mail.from_email)
    head = [
        _header("from_name", "From", _mailbox(_clean("from_name", mail.from_name), sender)),
        _header("to_email", "To", wire_address("to_email", mail.to_email)),
    ]
    if mail.reply_to is not None:
        head.append(_header("reply_to", "Reply-To", wire_address("reply_to", mail.reply_to)))
    head += [
        _header("subject", "Subject", _unstructured(_clean("subject", mail.subject))),
        _header("at", "Date", _date(mail.at)),
        _header("message_id", "Message-ID", message_id),
    ]
    if mail.in_reply_to is not None:
        head.append(_header("in_reply_to", "In-Reply-To", _id("in_reply_to", mail.in_reply_to)))
    if chain := _chain(mail):
        head.append(_header("references", "References", "\r\n ".join(chain)))
    if mail.unsubscribe_url is not None:
        head += [
            _header("unsubscribe_url", "List-Unsubscribe", f"<{_url('unsubscribe_url', mail.unsubscribe_url)}>"),
            "List-Unsubscribe-Post: List-Unsubscribe=One-Click",
        ]
    head += [
        "X-Auto-Response-Suppress: OOF, AutoReply",
        "MIME-Version: 1.0",
        f'Content-Type: multipart/alternative; boundary="{boundary}"',
    ]
    return "\r\n".join(
        (
            *head,
            "",
            f"--{boundary}",
            _part("text", "plain", _text_with_footer(mail)),
            f"--{boundary}",
            _part("html", "html", _html_with_footer(mail)),
            f"--{boundary}--",
            "",
        )
    ).encode("ascii")


def message_id(id: UUID, domain: str) -> str:
    """`<id@domain>`, an international domain in its ASCII form. Raises `BadMail`."""
    return f"<{wire_address('message_id', f'{id}@{domain}')}>"


def reply_subject(subject: str) -> str:
    """The subject of a further mail on the same thread; one "Re: " stands for all there are, in any language."""
    replies = _REPLIES.match(subject)
    return f"Re: {subject[replies.end() :] if replies else subject.lstrip()}".rstrip()


def wire_address(field: str, address: str) -> str:
    """An address as mail servers take it: ASCII, the domain in its IDNA form. Raises `BadMail` naming `field`."""
    try:
        checked = validate_email(address, check_deliverability=False, allow_smtputf8=False, globally_deliverable=False)
    except EmailNotValidError as fault:
        raise BadMail(field, str(fault)) from None
    if checked.ascii_email is None:
        raise BadMail(field, "has letters before the @ that most mail servers do not take")
    return checked.ascii_email


def _clean(field: str, value: str) -> str:
    if any(category(character) in _BREAKS for character in value):
        raise BadMail(field, "has a line break or another control character")
    if len(value.encode()) > _LONGEST:
        raise BadMail(field, f"is longer than {_LONGEST} bytes")
    return value


def _id(field: str, value: str) -> str:
    if not _MESSAGE_ID.fullmatch(value):
        raise BadMail(field, "is not a message id in angle brackets")
    return value


def _url(field: str, value: str) -> str:
    if not _URL.fullmatch(value):
        raise BadMail(field, "is not an http address in ASCII")
    return value


def _date(at: datetime) -> str:
    if at.tzinfo is None:
        raise BadMail("at", "has no time zone")
    return format_datetime(at.astimezone(UTC))


def _header(field: str, name: str, value: str) -> str:
    """The value is ASCII and folded already."""
    header = f"{name}: {value}"
    if any(len(line) > _LONGEST for line in header.split("\r\n")):
        raise BadMail(field, f"makes a line longer than {_LONGEST} bytes")
    return header


def _chain(mail: Mail) -> list[str]:
    """The ids of the thread, the parent's last; one too long keeps its first and its latest."""
    parent = () if mail.in_reply_to is None else (mail.in_reply_to,)
    ids = [_id("references", each) for each in dict.fromkeys((*mail.references, *parent))]
    first, latest = ids[:1], list[str]()
    size = sum(map(len, first))
    for each in reversed(ids[1:]):
        size += len(each) + 1
        if size > _REFERENCES_BYTES or len(latest) == _REFERENCES - 1:
            break
        latest.append(each)
    return first + latest[::-1]


def _mailbox(name: str, address: str) -> str:
    if not name.strip():
        return address
    if _is_plain(name):
        quoted = re.sub(r'([\\"])', r"\\\1", name)
        return f'"{quoted}" <{address}>'
    return f"{_encoded(name)}\r\n <{address}>"


def _unstructured(value: str) -> str:
    return value if _is_plain(value) else _encoded(value)


def _is_plain(value: str) -> bool:
    """Whether a reader finds the value as it is written."""
    return value.isascii() and "=?" not in value and value == value.strip()


def _encoded(value: str) -> str:
    """RFC 2047 words, a line each; no character is split between two."""
    words, word = list[bytes](), b""
    for character in value:
        encoded = character.encode()
        if len(word) + len(encoded) > _WORD_BYTES:
            words.append(word)
            word = b""
        word += encoded
    words.append(word)
    return "\r\n ".join(f"=?utf-8?b?{b64encode(each).decode()}?=" for each in words)


def _part(field: str, kind: str, body: str) -> str:
    try:
        lines = _NEWLINE.sub("\n", body).encode()
    except UnicodeEncodeError:
        raise BadMail(field, "is not Unicode text") from None
    encoding, encoded = min(
        ("quoted-printable", b2a_qp(lines, istext=True)),
        ("base64", encodebytes(lines.replace(b"\n", b"\r\n"))),
        key=lambda form: len(form[1]),
    )
    return "\r\n".join(
        (
            f"Content-Type: text/{kind}; charset=utf-8",
            f"Content-Transfer-Encoding: {encoding}",
            "",
            encoded.decode("ascii").replace("\n", "\r\n"),
        )
    )


def _text_with_footer(mail: Mail) -> str:
    footer = list[str]()
    if (address := mail.postal_address) is not None and _words(address) not in _words(mail.text):
        footer.append(address)
    if (url := mail.unsubscribe_url) is not None and url not in mail.text:
        footer.append(f"Unsubscribe: {url}")
    return "\n".join((mail.text.rstrip(), "", *footer, "")) if footer else mail.text


def _html_with_footer(mail: Mail) -> str:
    shown = _COMMENT.sub("", mail.html)
    footer = list[str]()
    if (address := mail.postal_address) is not None and _words(address) not in _words(unescape(_TAG.sub(" ", shown))):
        footer += escape(address).splitlines()
    if (url := mail.unsubscribe_url) is not None and url not in shown and escape(url) not in shown:
        footer.append(f'<a href="{escape(url)}">Unsubscribe</a>')
    if not footer:
        return mail.html
    end = max((found.start() for found in _BODY_END.finditer(mail.html)), default=len(mail.html))
    lines = "<br>".join(footer)
    return f'{mail.html[:end]}\n<p style="color:#666;font-size:12px">{lines}</p>\n{mail.html[end:]}'


def _words(text: str) -> str:
    return " ".join(text.split())


def header_value(field: str, value: str) -> str:
    """The value as it came, for a header to hold. Raises `BadMail` naming `field`."""
    return _clean(field, value)


def to_json(mail: Mail) -> dict[str, Any]:
    """The mail as JSON, by its own field names, `at` as ISO text: what it is composed of again at any time."""
    return {**asdict(mail), "at": mail.at.isoformat(), "references": list(mail.references)}


def of_json(kept: Mapping[str, Any]) -> Mail:
    """What `to_json` made."""
    return Mail(**{**kept, "at": datetime.fromisoformat(kept["at"]), "references": tuple(kept["references"])})
