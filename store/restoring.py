"""After a restored backup: what may have left since is uncertain, until evidence or a person says what became of it.

The rows know what was planned; that something left after the backup was taken they cannot know.
Planned instants are rows' own, so whatever was planned until the repair is in doubt, whether it
was written before the backup or is written again after it. The local outbox keeps its mail in
the same database: none of it can have left unrecorded.
"""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from sqlalchemy import ColumnElement, DateTime, bindparam, func, or_, select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.words import MessageStatus
from store import identity, sending
from store.events import Record
from store.tables import attempts, destinations, intents, organizations
from store.transaction import Transaction

REASON = "restored"
DETAIL = "the database was restored from a backup, and this may have left after the backup was taken"
_NOTE = "The database was restored from a backup of {}. Settle what may have left since, then let sending go on."

_IN_DOUBT = (MessageStatus.PENDING, MessageStatus.HELD, MessageStatus.CLAIMED)
_UNTRIED = (MessageStatus.PENDING, MessageStatus.HELD, MessageStatus.FAILED)
_BUSINESS = text("SELECT base_business + (:at - base_real) * scale + shift FROM clock").bindparams(
    bindparam("at", type_=DateTime(timezone=True))
)


async def is_past(connection: AsyncConnection, at: datetime) -> bool:
    """Whether an instant of real time is over."""
    return bool((await connection.execute(select(func.clock_timestamp() > at))).scalar_one())


async def every_organization(connection: AsyncConnection) -> list[UUID]:
    return list((await connection.execute(select(organizations.c.id).order_by(organizations.c.id))).scalars())


async def in_doubt(tx: Transaction, since: datetime) -> list[UUID]:
    """What `mark` would make uncertain; nothing where it was done for this backup before."""
    if (await identity.organization(tx)).restored_since == await _business(tx, since):
        return []
    return list((await tx.execute(select(intents.c.id).where(*_doubtful(tx)).order_by(intents.c.id))).scalars())


async def mark(tx: Transaction, since: datetime) -> list[UUID]:
    """Stops sending, and what may have left since the real instant of the backup is uncertain; once for each backup.

    A person lets sending go on, nobody else. `advance` writes what it plans until now as uncertain, too.
    """
    from_ = min(await _business(tx, since), tx.now)
    noted = (
        update(organizations)
        .where(organizations.c.id == tx.org, organizations.c.restored_since.is_distinct_from(from_))
        .values(restored_since=from_, restored_until=tx.now)
        .returning(organizations.c.id)
    )
    if (await tx.execute(noted)).one_or_none() is None:
        return []
    await sending.stop(tx, _NOTE.format(since.isoformat()))
    doubted = (
        update(intents)
        .where(*_doubtful(tx))
        .values(
            status=MessageStatus.UNCERTAIN.value,
            reason=REASON,
            detail=DETAIL,
            # A sender that still holds the token may yet say what became of it.
            token=func.coalesce(intents.c.token, func.gen_random_uuid()),
            deadline=None,
            message_id=func.coalesce(intents.c.message_id, func.concat("<", intents.c.id, "@", _domain(tx), ">")),
            updated_at=tx.now,
        )
        .returning(intents.c.id)
        .cte("doubted")
    )
    open_ = (
        update(attempts)
        .where(
            attempts.c.org_id == tx.org, attempts.c.intent_id.in_(select(doubted.c.id)), attempts.c.outcome.is_(None)
        )
        .values(outcome="uncertain", answer=DETAIL, ended_at=tx.now)
    )
    return list((await tx.execute(select(doubted.c.id).add_cte(open_.cte("ended")))).scalars())


async def left(tx: Transaction, ids: Sequence[UUID]) -> list[UUID]:
    """Which messages of these, known to have left, the rows do not know to have."""
    untried = intents.c.status.in_(_UNTRIED) & (intents.c.attempts == 0)
    statement = select(intents.c.id).where(
        intents.c.org_id == tx.org,
        intents.c.id.in_(ids),
        or_(intents.c.status == MessageStatus.UNCERTAIN, untried),
    )
    return list((await tx.execute(statement.order_by(intents.c.due_at, intents.c.id))).scalars())


async def uncertain(tx: Transaction) -> list[Record]:
    """Every message that is uncertain, with its reason."""
    statement = select(intents.c.id, intents.c.reason).where(
        intents.c.org_id == tx.org, intents.c.status == MessageStatus.UNCERTAIN
    )
    return list((await tx.execute(statement.order_by(intents.c.due_at, intents.c.id))).all())


async def _business(tx: Transaction, at: datetime) -> datetime:
    found: datetime = (await tx.execute(_BUSINESS, {"at": at})).scalar_one()
    return found


def _doubtful(tx: Transaction) -> Sequence[ColumnElement[bool]]:
    leaves = select(destinations.c.id).where(destinations.c.org_id == tx.org, destinations.c.transport != "outbox")
    return (
        intents.c.org_id == tx.org,
        intents.c.status.in_(_IN_DOUBT),
        intents.c.due_at <= tx.now,
        intents.c.destination_id.in_(leaves),
    )


def _domain(tx: Transaction) -> ColumnElement[str]:
    mine = (destinations.c.org_id == tx.org) & (destinations.c.id == intents.c.destination_id)
    return select(func.split_part(destinations.c.from_email, "@", 2)).where(mine).scalar_subquery()
