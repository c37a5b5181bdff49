"""What a mail server's log says has left: Message-IDs of our making, in whatever form it writes them."""

import re
from collections.abc import Iterable
from pathlib import Path
from uuid import UUID

_OURS = re.compile(
    rb"([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})@([a-z0-9](?:[a-z0-9.-]*[a-z0-9])?)", re.IGNORECASE
)


def read(files: Iterable[Path]) -> dict[UUID, str]:
    """The messages that the files name, each with its Message-ID. Raises `OSError`."""
    found: dict[UUID, str] = {}
    for path in files:
        with path.open("rb") as lines:
            for line in lines:
                found.update(named(line))
    return found


def named(line: bytes) -> dict[UUID, str]:
    """The messages that a line names; a Message-ID is the message's own id at its mailbox's domain."""
    return {UUID(id_.decode()): f"<{id_.decode()}@{domain.decode()}>" for id_, domain in _OURS.findall(line)}
