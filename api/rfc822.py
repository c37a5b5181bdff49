"""A mail as a file: what whoever asked for it saves, and no browser shows."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import Response

MEDIA_TYPE = "message/rfc822"
RFC822: Mapping[int | str, dict[str, Any]] = {
    HTTPStatus.OK.value: {
        "description": "The mail, as a file.",
        "content": {MEDIA_TYPE: {"schema": {"type": "string", "format": "binary"}}},
    }
}
"""For the API description: this answer is a mail."""


def attached(mail: bytes, name: str) -> Response:
    """Strangers write mail, so what is in it is neither guessed at nor run."""
    headers = {
        "Content-Disposition": f'attachment; filename="{name}"',
        "X-Content-Type-Options": "nosniff",
        "Content-Security-Policy": "default-src 'none'; sandbox",
    }
    return Response(mail, media_type=MEDIA_TYPE, headers=headers)
