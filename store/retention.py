"""How long what is only kept for a while is kept: one table, each period a row."""

from datetime import timedelta
from uuid import UUID

from sqlalchemy import Column, Table, delete, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from store import letters
from store.tables import idempotency_keys, inbox, notifications, organizations, outbox, refusals, wakes
from store.transaction import Transaction

BATCH = 5_000
"""Rows deleted from one table in one transaction."""

KEPT: dict[Table, tuple[str, timedelta]] = {
    # Senders repeat for up to three days, and people ask for longer.
    inbox: ("received_at", timedelta(days=30)),
    idempotency_keys: ("created_at", timedelta(days=2)),
    # Events and wakes are deleted when done; what was set aside with an error stays for a person.
    outbox: ("failed_at", timedelta(days=90)),
    wakes: ("failed_at", timedelta(days=90)),
    notifications: ("read_at", timedelta(days=90)),
    # Why a rule did not act: the fastest to grow, and asked about soon or never.
    refusals: ("at", timedelta(days=365)),
}
"""Table → the column its age is told by, and how long its rows are kept, in real time."""

LETTERS = timedelta(days=180)
"""How long after it was read a letter is kept as it came, in business time; what was read of it stays."""


async def organizations_by_id(connection: AsyncConnection) -> list[UUID]:
    return list((await connection.execute(select(organizations.c.id))).scalars())


async def let_go(tx: Transaction) -> int:
    """Deletes rows past their time, and the raw form of old letters; how many."""
    count = await letters.forget_raw(tx, LETTERS, BATCH)
    for table, (column, period) in KEPT.items():
        age: Column[object] = table.c[column]
        old = (
            select(table.c.org_id.label("org_id"), *_key(table))
            .where(table.c.org_id == tx.org, age < func.clock_timestamp() - period)
            .limit(BATCH)
            .cte("old")
        )
        matched = [table.c[c.name] == old.c[c.name] for c in _key(table)]
        result = await tx.execute(delete(table).where(table.c.org_id == old.c.org_id, *matched))
        count += result.rowcount
    return count


def _key(table: Table) -> list[Column[object]]:
    names = {
        inbox: ("source_id", "message_id"),
        idempotency_keys: ("caller", "route", "key"),
    }.get(table, ("id",))
    return [table.c[name] for name in names]
