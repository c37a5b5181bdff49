"""Letters: reads the inbound mail that was stored, and lets it stop or release what it holds.

A letter's own row is the queue: it stays `received` until it is read, however often that fails half-way.
"""

from collections import Counter
from contextlib import AbstractAsyncContextManager
from hashlib import sha256
from uuid import UUID

import structlog

from activities.confined import Confined, ConfinedError, Unavailable
from domain.inbound_mail import Letter, Unreadable, letter_of
from store import letters
from store.errors import is_transient
from store.transaction import Database, Origin, Transaction

SECONDS = 5.0
"""The longest a letter may take to be read; hostile ones would take for ever."""

_DEATHS = 3
"""How often a reader may be killed from outside over one letter, such as for want of memory."""

log = structlog.get_logger()


class Letters:
    """Reads in a confined child, since whoever sent a letter decides what is in it."""

    def __init__(self, crossing: Database, database: Database) -> None:
        self._crossing = crossing
        self._database = database
        self._confined = Confined()
        self._deaths: Counter[bytes] = Counter()

    async def close(self) -> None:
        """Ends the child."""
        await self._confined.close()

    async def once(self) -> int:
        """One pass over the letters that wait; how many were read, or given to a person."""
        async with self._crossing.crossing() as connection:
            waiting = await letters.unread(connection)
        count, failure = 0, None
        for org, ids in waiting.items():
            for id_ in ids:
                try:
                    count += await self._one(org, id_)
                except Exception as error:  # noqa: BLE001  (the others are not to wait for it; told at the end)
                    failure = error
        if failure is not None:
            raise failure
        return count

    async def _one(self, org: UUID, id_: UUID) -> bool:
        async with self._database.transaction(org) as tx:
            raw = await letters.raw(tx, id_)
        found = await self._read(raw)
        done = await self._apply(org, id_, found)
        log.info("letter_read", letter=str(id_), kind=found.kind if isinstance(found, Letter) else "unreadable")
        return done

    async def _apply(self, org: UUID, id_: UUID, found: Letter | str) -> bool:
        """What cannot be carried out asks a person, too: it would fail for ever, and hold up those behind it."""
        if isinstance(found, Letter):
            try:
                async with self._transaction(org) as tx:
                    return await letters.understood(tx, id_, found)
            except Exception as error:
                if is_transient(error):
                    raise
                log.exception("letter_failed", letter=str(id_))
                found = f"what it says could not be carried out: {type(error).__name__}"
        async with self._transaction(org) as tx:
            return await letters.not_understood(tx, id_, found)

    def _transaction(self, org: UUID) -> AbstractAsyncContextManager[Transaction]:
        return self._database.transaction(org, Origin("recipient"), lock_seconds=2)

    async def _read(self, raw: bytes) -> Letter | str:
        """The letter, or why it cannot be read. Raises `Unavailable` where that is not known."""
        try:
            return letter_of(await self._confined.call("read_mail", raw, seconds=SECONDS))
        except Unreadable as unreadable:
            return str(unreadable)
        except Unavailable:
            self._deaths[sha256(raw).digest()] += 1
            if self._deaths[sha256(raw).digest()] < _DEATHS:
                raise
            return "whoever read it was killed each time"
        except ConfinedError as failure:
            return f"reading it failed: {type(failure).__name__}"
