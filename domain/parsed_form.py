"""A mail that a provider took apart into the fields of a form (SendGrid Inbound Parse), put together again.

What comes out is a raw mail, so that one reader understands all mail however it came.
"""

import json
from collections.abc import Mapping
from hashlib import sha256
from itertools import islice
from typing import Any, Final

from domain.email_addresses import BadEmailError, normalise_email
from domain.inbound_mail import decoded

_RECIPIENTS: Final = 100

_REPORTS: Final = frozenset({
    "message/delivery-status", "message/feedback-report", "message/disposition-notification",
    "message/rfc822", "text/rfc822-headers",
})  # fmt: skip
"""Types of attachments that say what the mail is; the others are not needed to read it."""

_AS_HEADERS: Final = {"from": b"From", "to": b"To", "cc": b"Cc", "subject": b"Subject"}


class BadForm(Exception):  # noqa: N818  (an outcome: the post is refused)
    """The fields hold no mail."""


def from_form(fields: Mapping[str, bytes]) -> bytes:
    """Raw mail from the raw bytes of each field, files among them; raises `BadForm` where there is no mail.

    The field `email` (raw mode) is the mail itself, byte for byte. Else it is rebuilt: the headers
    as they came, the text and the HTML in UTF-8 whatever charset each field came in, and of the
    attachments those that make a bounce or a complaint.
    """
    if fields.get("email"):
        return fields["email"]
    if not (fields.get("headers") or fields.get("from")):
        raise BadForm("There is no field 'email', 'headers' or 'from'.")
    return b"\r\n".join([*_headers(fields), b"MIME-Version: 1.0", _body(fields)])


def recipients(fields: Mapping[str, bytes]) -> tuple[str, ...]:
    """The envelope's recipients, normalised, each once, at most 100; none where the envelope makes no sense.

    These decide whose mail it is: the header To is only what the sender wrote there.
    """
    listed = _json(fields, "envelope").get("to")
    found: dict[str, None] = {}
    for written in islice(listed if isinstance(listed, list) else [], _RECIPIENTS):
        try:
            found[normalise_email(str(written))] = None
        except BadEmailError:
            continue
    return tuple(found)


def _json(fields: Mapping[str, bytes], name: str) -> dict[str, Any]:
    try:
        value = json.loads(decoded(fields.get(name, b"")))
    except (ValueError, RecursionError):  # what is no JSON says nothing
        return {}
    return value if isinstance(value, dict) else {}


def _text(fields: Mapping[str, bytes], name: str) -> bytes:
    """The field in UTF-8; the field `charsets` says in what charset it came."""
    charset = _json(fields, "charsets").get(name)
    return decoded(fields.get(name, b""), charset if isinstance(charset, str) else None).encode()


def _headers(fields: Mapping[str, bytes]) -> list[bytes]:
    """The header lines, without those about the form of the body: that form is gone."""
    kept: list[bytes] = []
    keeps = False
    for line in fields.get("headers", b"").strip(b"\r\n").splitlines():
        if not line.strip():
            break
        if not line.startswith((b" ", b"\t")):
            keeps = b":" in line and not line.lower().startswith((b"content-", b"mime-version"))
        if keeps:
            kept.append(line)
    if not kept:
        kept = [name + b": " + b" ".join(_text(fields, field).split()) for field, name in _AS_HEADERS.items()]
    if not any(line.lower().startswith(b"return-path:") for line in kept):
        sender = _json(fields, "envelope").get("from")
        # A mail that must not be answered has an empty sender, and says so nowhere else.
        kept += [b"Return-Path: <>"] if sender == "" else []
    return kept


def _body(fields: Mapping[str, bytes]) -> bytes:
    """The parts, and before them the header that names their boundary."""
    text, html = _text(fields, "text"), _text(fields, "html")
    parts = [(b"text/plain", text)] if text or not html else []
    parts += [(b"text/html", html)] if html else []
    # A boundary no sender can have put into the text: it is made from all of it.
    boundary = sha256(b"\0".join(fields[name] for name in sorted(fields))).hexdigest().encode()
    told = _multipart(b"alternative", boundary, [(kind + b"; charset=utf-8", content) for kind, content in parts])
    reports = [
        (str(about.get("type")).lower().encode(), fields[name])
        for name, about in _json(fields, "attachment-info").items()
        if isinstance(about, dict) and name in fields and str(about.get("type")).lower() in _REPORTS
    ]
    if not reports:
        return b"Content-Type: " + told
    kind, _, inside = told.partition(b"\r\n\r\n")
    return b"Content-Type: " + _multipart(b"mixed", b"outer" + boundary, [(kind, inside), *reports])


def _multipart(kind: bytes, boundary: bytes, parts: list[tuple[bytes, bytes]]) -> bytes:
    """The value of Content-Type, a blank line, and the parts, each with its own Content-Type."""
    lines = [b"multipart/" + kind + b'; boundary="' + boundary + b'"', b""]
    for content_type, content in parts:
        lines += [b"--" + boundary, b"Content-Type: " + content_type, b"", content]
    return b"\r\n".join([*lines, b"--" + boundary + b"--", b""])
