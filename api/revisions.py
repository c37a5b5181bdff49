"""Revisions: a record's ETag, and If-Match where a change must name what it changes."""

import re
from http import HTTPStatus
from typing import Annotated

from fastapi import Depends, Header

from api.problems import Problem
from store.errors import Stale
from store.events import Record


def etag(record: Record) -> dict[str, str]:
    """The header that tells a record's revision."""
    return {"ETag": f'"{record.revision}"'}


def _expected(
    if_match: Annotated[str | None, Header(description='The ETag that was read, `"3"`, or `*` for any.')] = None,
) -> int | None:
    if if_match is None:
        raise Problem(
            HTTPStatus.PRECONDITION_REQUIRED, "PRECONDITION_REQUIRED", "Name the revision you read: If-Match."
        )
    if if_match.strip() == "*":
        return None
    if named := re.fullmatch(r'\s*"([0-9]{1,9})"\s*', if_match, re.ASCII):
        return int(named[1])
    raise Stale("If-Match names no revision of this", "If-Match")


Expected = Annotated[int | None, Depends(_expected)]
"""The revision a change is meant for; None for any."""
