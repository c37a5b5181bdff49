"""A multipart/form-data body taken apart: the raw bytes of each field, for each may have a charset of its own."""

import re
from typing import Final

MOST_FIELDS: Final = 1000
_LONGEST_HEAD: Final = 8192

_BOUNDARY = re.compile(r';[ \t]*boundary=(?:"([^"\\\r\n]{1,200})"|([^\s;,"]{1,200}))', re.IGNORECASE | re.ASCII)
_DISPOSITION = re.compile(rb"^content-disposition:[ \t]*form-data[ \t]*;([^\r\n]*)", re.IGNORECASE | re.MULTILINE)
_NAME = re.compile(rb'(?:^|[;\s])name=(?:"([^"]{1,200})"|([^\s;"]{1,200}))', re.IGNORECASE)


def boundary_of(content_type: str) -> bytes | None:
    """What separates the fields, as the Content-Type says; None where it does not."""
    found = _BOUNDARY.search(content_type)
    return (found[1] or found[2]).encode("latin-1") if found else None


def fields(body: bytes, boundary: bytes) -> dict[str, bytes]:
    """Each field that came whole, files among them, the first of each name; at most `MOST_FIELDS`.

    What is no field is passed over, so there is always an answer.
    """
    found: dict[str, bytes] = {}
    delimiter = b"\r\n--" + boundary
    # What comes before the first delimiter belongs to no field, nor does what comes after the last.
    for part in (b"\r\n" + body).split(delimiter, MOST_FIELDS + 1)[1:-1]:
        head, blank, content = part.partition(b"\r\n\r\n")
        disposition = _DISPOSITION.search(head[:_LONGEST_HEAD]) if blank else None
        name = _NAME.search(disposition[1]) if disposition else None
        if name:
            found.setdefault((name[1] or name[2]).decode("utf-8", "replace"), content)
    return found
