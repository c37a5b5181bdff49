"""The sweep: finds open rows that are overdue and were not poked, and what retention lets go."""

from store import queues, retention
from store.transaction import Database

PASS = 200
"""Rows woken in one pass."""


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


class Retention:
    """Lets go of what is past its time, an organization at a time."""

    def __init__(self, crossing: Database, database: Database) -> None:
        self._crossing = crossing
        self._database = database

    async def once(self) -> int:
        """How many rows were deleted; at most `retention.BATCH` a table and organization."""
        async with self._crossing.crossing() as connection:
            organizations = await retention.organizations_by_id(connection)
        count = 0
        for org in organizations:
            async with self._database.transaction(org) as tx:
                count += await retention.let_go(tx)
        return count
