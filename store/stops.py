"""Stops and holds: what ends an execution from outside or keeps it still, its unsent messages with it.

Who calls has locked the addresses and records it is about, as the lock order says: address,
record, execution, destination, message. From the commit on nothing of it is claimed.
"""

from collections.abc import Collection, Iterable
from typing import Any
from uuid import UUID

from sqlalchemy import Select, delete, exists, func, select, update
from sqlalchemy.dialects.postgresql import insert as insert_or

from domain.delivery import Happening, open_to
from domain.words import ExecutionStatus, ExitReason, MessageStatus, Target
from store import events, executions, queues
from store.errors import IllegalTransition
from store.events import Record
from store.tables import contacts, holds, intents, pauses
from store.tables import executions as table
from store.transaction import Transaction


async def stop(tx: Transaction, id: UUID, kind: Target, note: str | None) -> Record:
    """A person's stop. Raises `NotFound`, and `IllegalTransition` if it has ended."""
    stopped = await end(tx, [id], ExitReason.STOPPED, note=note, kind=kind)
    if not stopped:
        await executions.get(tx, id, kind)
        raise IllegalTransition(f"this {kind} has ended", "status")
    return stopped[0]


async def end(
    tx: Transaction,
    ids: Collection[UUID],
    reason: ExitReason,
    *,
    note: str | None = None,
    kind: Target | None = None,
) -> list[Record]:
    """Ends those that have not ended and cancels what they have not sent; the ones it ended."""
    locked = await _locked(tx, ids, kind)
    if not locked:
        return []
    stopped = [row.id for row in locked]
    statement = (
        update(table)
        .where(table.c.org_id == tx.org, table.c.id.in_(stopped))
        .values(**executions.ended(tx, reason), exit_note=note)
        .returning(*table.c)
    )
    after = list((await tx.execute(statement)).all())
    await cancel_messages(tx, stopped, reason.value)
    if any(row.held_since for row in locked):
        await tx.execute(delete(holds).where(holds.c.org_id == tx.org, holds.c.execution_id.in_(stopped)))
    if any(row.status == ExecutionStatus.PAUSED for row in locked):
        await end_pauses(tx, stopped)
    enrollments = (row for row in locked if row.kind == Target.ENROLLMENT)
    await events.tell(tx, [executions.end_fact(row, row.revision + 1, reason) for row in enrollments])
    return after


async def cancel_messages(tx: Transaction, of: Collection[UUID], reason: str) -> None:
    """Cancels what executions have not sent and nobody has claimed; the message's own row decides which came first."""
    await tx.execute(
        update(intents)
        .where(
            intents.c.org_id == tx.org,
            intents.c.execution_id.in_(of),
            intents.c.status.in_(open_to(Happening.CANCELLED)),
        )
        .values(status=MessageStatus.CANCELLED.value, reason=reason, updated_at=tx.now)
    )


async def hold(tx: Transaction, letter: UUID, ids: Iterable[UUID]) -> None:
    """Keeps executions still until a letter is read: they take no step, their messages are not claimed."""
    locked = await _locked(tx, ids, Target.ENROLLMENT)
    held = [row.id for row in locked]
    if not held:
        return
    rows = [{"org_id": tx.org, "letter_id": letter, "execution_id": id_, "since": tx.now} for id_ in held]
    await tx.execute(insert_or(holds).values(rows).on_conflict_do_nothing())
    await tx.execute(
        update(table)
        .where(table.c.org_id == tx.org, table.c.id.in_(held), table.c.held_since.is_(None))
        .values(held_since=tx.now)
    )
    await hold_messages(tx, held)


async def release(tx: Transaction, letter: UUID) -> None:
    """Lets go of what a letter held, and what no other letter holds goes on."""
    let_go = delete(holds).where(holds.c.org_id == tx.org, holds.c.letter_id == letter).returning(holds.c.execution_id)
    locked = await _locked(tx, (await tx.execute(let_go)).scalars().all(), Target.ENROLLMENT)
    others = exists().where(holds.c.org_id == table.c.org_id, holds.c.execution_id == table.c.id)
    statement = (
        update(table)
        .where(table.c.org_id == tx.org, table.c.id.in_([row.id for row in locked]), ~others)
        .values(held_since=None)
        .returning(table.c.id, table.c.status, table.c.due_at)
    )
    freed = (await tx.execute(statement)).all()
    await release_messages(tx, [row.id for row in freed if row.status != ExecutionStatus.PAUSED])
    await executions.wake(tx, [row.id for row in freed if row.status == ExecutionStatus.OPEN and row.due_at])


async def hold_messages(tx: Transaction, of: Collection[UUID]) -> None:
    await tx.execute(
        update(intents)
        .where(
            intents.c.org_id == tx.org,
            intents.c.execution_id.in_(of),
            intents.c.status.in_(open_to(Happening.HELD)),
        )
        .values(status=MessageStatus.HELD.value, updated_at=tx.now)
    )


async def release_messages(tx: Transaction, of: Collection[UUID]) -> None:
    """What was held may be claimed again; its mailboxes are woken."""
    freed = (
        update(intents)
        .where(
            intents.c.org_id == tx.org,
            intents.c.execution_id.in_(of),
            intents.c.status.in_(open_to(Happening.RELEASED)),
        )
        .values(status=MessageStatus.PENDING.value, updated_at=tx.now)
        .returning(intents.c.destination_id)
        .cte("freed")
    )
    count = select(func.count()).select_from(freed)
    await tx.execute(count.add_cte(queues.waking(tx, Target.MAILBOX, freed, "destination_id")))


async def end_pauses(tx: Transaction, of: Collection[UUID]) -> None:
    await tx.execute(
        update(pauses)
        .where(pauses.c.org_id == tx.org, pauses.c.execution_id.in_(of), pauses.c.until.is_(None))
        .values(until=func.greatest(pauses.c.since, tx.now))
    )


async def _lock_contacts(tx: Transaction, people: Collection[UUID] | Select[Any]) -> None:
    """In one order for all, so that two at once wait for each other and never in a circle."""
    await tx.execute(
        select(contacts.c.id)
        .where(contacts.c.org_id == tx.org, contacts.c.id.in_(people))
        .order_by(contacts.c.id)
        .with_for_update(key_share=True)
    )


async def lock_people(tx: Transaction, of: Collection[UUID]) -> None:
    """Locks the contacts of executions, which come before them in the product's order."""
    await _lock_contacts(tx, select(table.c.contact_id).where(table.c.org_id == tx.org, table.c.id.in_(of)))


async def enrolled(tx: Transaction, people: Collection[UUID]) -> list[UUID]:
    """The enrollments of contacts that have not ended; the contacts are locked before."""
    await _lock_contacts(tx, people)
    statement = select(table.c.id).where(
        table.c.org_id == tx.org,
        table.c.contact_id.in_(people),
        table.c.kind == Target.ENROLLMENT,
        table.c.status != ExecutionStatus.ENDED,
    )
    return list((await tx.execute(statement)).scalars())


async def locked(tx: Transaction, id: UUID, kind: Target) -> Record:
    """One that has not ended, locked. Raises `NotFound` and `IllegalTransition`."""
    found = await _locked(tx, [id], kind)
    if not found:
        await executions.get(tx, id, kind)
        raise IllegalTransition(f"this {kind} has ended", "status")
    return found[0]


async def _locked(tx: Transaction, ids: Iterable[UUID], kind: Target | None) -> list[Record]:
    wanted = list(ids)
    if not wanted:
        return []
    statement = select(table).where(
        table.c.org_id == tx.org, table.c.id.in_(wanted), table.c.status != ExecutionStatus.ENDED
    )
    if kind is not None:
        statement = statement.where(table.c.kind == kind)
    return list((await tx.execute(statement.order_by(table.c.id).with_for_update(key_share=True))).all())
