"""What stands for a row in a link or a reply address: unguessable, for one purpose, made from the row's id alone."""

import hmac
import re
from base64 import b32decode, b32encode
from enum import StrEnum
from typing import Final
from uuid import UUID

_ID_BYTES: Final = 16
_CODE_BYTES: Final = 16
_LENGTH: Final = 52
_PADDING: Final = "===="
_REPLY = re.compile(rf"reply\+([a-z2-7]{{{_LENGTH}}})@[^@\s]+", re.IGNORECASE | re.ASCII)


class Purpose(StrEnum):
    """What a token may be used for; one made for another purpose is no token at all."""

    UNSUBSCRIBE = "unsubscribe"
    REPLY = "reply"


def subkey(master: bytes) -> bytes:
    """The key of all tokens, derived from the master key."""
    return hmac.digest(master, b"drumbeat/link-tokens/1", "sha256")


def token(key: bytes, row: UUID, purpose: Purpose) -> str:
    """52 characters of a-z and 2-7, the same at every call; whoever carries it may change their case."""
    code = hmac.digest(key, f"{purpose.value}/".encode() + row.bytes, "sha256")[:_CODE_BYTES]
    return b32encode(row.bytes + code).decode().rstrip("=").lower()


def read(key: bytes, text: str, purpose: Purpose) -> UUID | None:
    """The row a token was made for; None for any other text."""
    # ASCII first: changing the case makes ASCII letters of a few others.
    if not (text.isascii() and len(text) == _LENGTH):
        return None
    try:
        row = UUID(bytes=b32decode(text.upper() + _PADDING)[:_ID_BYTES])
    except ValueError:
        return None
    # Made anew and compared as a whole: the last character has bits that decoding would ignore.
    return row if hmac.compare_digest(token(key, row, purpose), text.lower()) else None


def reply_address(token: str, domain: str) -> str:
    return f"reply+{token}@{domain}"


def token_in(address: str) -> str | None:
    """What stands where `reply_address` puts the token, at any domain; `read` says whether it is one."""
    found = _REPLY.fullmatch(address)
    return found[1].lower() if found else None
