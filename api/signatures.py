"""Standard Webhooks: whether a request was signed by who shares the secret, and just now."""

import hashlib
import hmac
import re
from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Iterator
from datetime import datetime

from starlette.datastructures import Headers

TOLERANCE_SECONDS = 300
"""How far the sender's clock may be from ours, either way."""

_ID = re.compile(r"[!-~]{1,255}", re.ASCII)
_TIMESTAMP = re.compile(r"[0-9]{1,12}", re.ASCII)


class BadSignature(Exception):  # noqa: N818  (an outcome)
    """The request is not to be trusted; the text is for the log, never for the sender."""


def verify(headers: Headers, body: bytes, secret: bytes, at: datetime) -> str:
    """The message's id. `at` is when the request came, by a clock that can be trusted.

    Raises `BadSignature`.
    """
    id_, timestamp = signed(headers, body, secret)
    if abs(at.timestamp() - timestamp) > TOLERANCE_SECONDS:
        raise BadSignature("not of this time")
    return id_


def signed(headers: Headers, body: bytes, secret: bytes) -> tuple[str, int]:
    """The message's id and when it says it was sent, which the caller must judge. Raises `BadSignature`."""
    id_, timestamp, signatures = (_only(headers, f"webhook-{name}") for name in ("id", "timestamp", "signature"))
    # A dot would let two different messages be signed by the same bytes.
    if not _ID.fullmatch(id_) or "." in id_:
        raise BadSignature("malformed id")
    if not _TIMESTAMP.fullmatch(timestamp):
        raise BadSignature("malformed timestamp")
    whole = b".".join((id_.encode(), timestamp.encode(), body))
    expected = hmac.digest(secret, whole, hashlib.sha256)
    if not any(hmac.compare_digest(expected, one) for one in _decoded(signatures)):
        raise BadSignature("no signature fits")
    return id_, int(timestamp)


def _only(headers: Headers, name: str) -> str:
    values = headers.getlist(name)
    if len(values) != 1:
        raise BadSignature(f"{len(values)} headers {name}")
    return values[0]


def _decoded(signatures: str) -> Iterator[bytes]:
    """Those of the symmetric kind; a sender that changes its secret lists several."""
    for one in signatures.split():
        version, _, text = one.partition(",")
        if version == "v1":
            try:
                yield b64decode(text, validate=True)
            except (Base64Error, ValueError):
                continue
