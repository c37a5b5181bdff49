"""The sweep: finds open rows that are overdue and were not poked, who may go on, and what retention lets go."""

from datetime import timedelta
from uuid import UUID

import structlog

from store import executions, queues, retention
from store.transaction import Database

log = structlog.get_logger()

PASS = 200
"""Rows woken in one pass."""
BATCH = 200
"""Those of one sequence that go on in one transaction."""


class Sweep:
    """What makes every open row recoverable from PostgreSQL alone."""

    def __init__(self, crossing: Database, database: Database) -> None:
        self._crossing = crossing
        self._database = database

    async def once(self) -> int:
        """Wakes overdue rows; none while older wakes wait for Temporal. How many."""
        async with self._crossing.crossing() as connection:
            if await queues.oldest_wake_seconds(connection) > queues.SWEEP_AFTER:
                return 0
            found = await queues.overdue(connection, PASS)
        count = 0
        for org, of_org in found.items():
            async with self._database.transaction(org) as tx:
                for kind, ids in of_org.items():
                    await queues.sweep(tx, kind, ids)
                    count += len(ids)
        return count


class Resumption:
    """Lets those go on whom a sequence has kept still, once it is not paused any more.

    However many they are, a resume is one small transaction, and so is each batch of them. The next
    follows when most of the last was poked, so whatever else an organization does is not behind them all.
    """

    def __init__(self, crossing: Database, database: Database) -> None:
        self._crossing = crossing
        self._database = database

    async def once(self) -> int:
        """How many go on: at most `BATCH` of each sequence."""
        async with self._crossing.crossing() as connection:
            found = await queues.resumed(connection, BATCH)
        count = 0
        for org, ids in found:
            async with self._database.transaction(org, lock_seconds=1) as tx:
                count += await executions.go_on(tx, ids)
        return count


class Retention:
    """Lets go of what is past its time, an organization at a time; of the history what ended `history` ago."""

    def __init__(self, crossing: Database, database: Database, history: timedelta) -> None:
        self._crossing = crossing
        self._database = database
        self._history = history

    async def once(self) -> int:
        """How many rows went. An organization whose pass fails is told of in the log, and tried again in the next."""
        async with self._crossing.crossing() as connection:
            organizations = await retention.organizations_by_id(connection)
        count = 0
        for org in organizations:
            try:
                for part in retention.PARTS:
                    count += await self._all(org, part)
            except Exception as error:  # noqa: BLE001  (one organization's trouble is not the others')
                log.warning("retention_failed", org=str(org), error=type(error).__name__, detail=str(error)[:500])
        return count

    async def _all(self, org: UUID, part: retention.Part) -> int:
        count = 0
        while True:
            async with self._database.transaction(org) as tx:
                gone = await part(tx, self._history)
            if not gone:
                return count
            count += gone
