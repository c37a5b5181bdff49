"""The relay: takes events from the outbox, matches them, and writes every decision as rows.

The row lock is the lease: no row is marked as taken, so a relay that dies leaves nothing to
clean up, and one that freezes loses its locks with its transaction after five seconds.
"""

from collections.abc import Sequence
from uuid import UUID

import structlog

from domain.match import CHANGES, Event, ExitMet, Refused, Start, hears, match, match_exit
from domain.words import Kind, Target
from store import definitions, enrollments, executions, facts, queues
from store.errors import is_transient
from store.events import Record
from store.facts import Links
from store.transaction import Database, Transaction
from triggers.first_attempt import attempt

BATCH = 200
"""Events of one organization in one transaction."""

log = structlog.get_logger()


class Relay:
    """`crossing` is the relay's role, which sees ids; `database` the app's, which sees one organization.

    With `first_attempt` the relay takes a new run's first steps itself; off, every run goes to
    its workflow. Both give the same rows.
    """

    def __init__(self, crossing: Database, database: Database, *, first_attempt: bool = True) -> None:
        self._crossing = crossing
        self._database = database
        self._first_attempt = first_attempt

    async def once(self) -> int:
        """One pass over all organizations that have events; how many events were dealt with."""
        async with self._crossing.crossing() as connection:
            candidates = await queues.outbox_candidates(connection, BATCH)
        count = 0
        for org, ids in candidates.items():
            count += await self._organization(org, ids)
        return count

    async def _organization(self, org: UUID, ids: Sequence[int]) -> int:
        """A whole batch at once; if that fails each alone, so that the poisonous one is found."""
        try:
            return await self._batch(org, ids)
        except Exception as error:  # noqa: BLE001  (each event is then tried alone and tells its own)
            log.warning("batch_failed", org=str(org), events=len(ids), error=type(error).__name__)
        count = 0
        for id_ in ids:
            try:
                count += await self._batch(org, [id_])
            except Exception as error:  # noqa: BLE001  (kept on the row, passed over the second time)
                if is_transient(error):  # nothing is wrong with the event, which waits for the next pass
                    log.warning("event_postponed", org=str(org), outbox=id_, error=type(error).__name__)
                    continue
                async with self._database.transaction(org) as tx:
                    passed_over = await queues.fail_event(tx, id_, f"{type(error).__name__}: {error}")
                log.warning("event_failed", org=str(org), outbox=id_, passed_over=passed_over)
                count += passed_over
        return count

    async def _batch(self, org: UUID, ids: Sequence[int]) -> int:
        async with self._database.transaction(org, lock_seconds=1, planned=True) as tx:
            events = [_event(row) for row in await queues.take_events(tx, ids)]
            if events:
                started = await _decide(tx, events)
                await _exit(tx, events)
                waiting = await self._attempt(tx, started)
                await queues.wake(tx, Target.RUN, waiting)
        return len(events)

    async def _attempt(self, tx: Transaction, runs: Sequence[UUID]) -> list[UUID]:
        """Takes the first steps of new runs; the ones that have more to do or to wait for."""
        if not self._first_attempt:
            return list(runs)
        answers = await attempt(tx, runs)
        return [run for run, answer in answers.items() if answer is None or not answer.done]


async def _decide(tx: Transaction, events: Sequence[Event]) -> list[UUID]:
    """Matches events with every rule and writes what was decided; the ids of the new runs."""
    rules = await definitions.rules(tx, min(event.at for event in events))
    if not rules:
        return []
    heard = [event for event in events if any(hears(rule, event) for rule in rules)]
    subjects = await facts.subjects(tx, [_about(event) for event in heard])
    starts, refusals = [], []
    for event, subject in zip(heard, subjects, strict=True):
        fact = {"type": event.type, "before": event.before, "after": event.after}
        looked_at = {**subject.facts, "event": fact}
        for rule in rules:
            match match(event, rule, looked_at):
                case Start() as start:
                    starts.append((event, start, subject.links.columns()))
                case Refused() as refused:
                    refusals.append((event, refused))
    await executions.refuse(tx, refusals)
    return await executions.start_runs(tx, starts)


async def _exit(tx: Transaction, events: Sequence[Event]) -> None:
    """Ends the enrollments whose exits these events meet, by the records as they are now."""
    changes = [event for event in events if event.type in CHANGES]
    inside = await enrollments.inside(tx, {event.subject_id for event in changes}) if changes else []
    if not inside:
        return
    own = await facts.subjects(tx, [Links.of(row) for row, _ in inside])
    about = await facts.subjects(tx, [Links.to(event.subject_kind, event.subject_id) for event in changes])
    met: dict[UUID, ExitMet] = {}
    for event, subject in zip(changes, about, strict=True):
        fact = {"type": event.type, "before": event.before, "after": event.after}
        for (row, document), records in zip(inside, own, strict=True):
            if row.id in met or event.at <= row.started_at or not _concerns(row, subject.links):
                continue
            # The deal that changed, where the enrollment is about none of its own.
            deal = records.facts["deal"] or subject.facts["deal"]
            exit_ = match_exit(event, document, {**records.facts, "deal": deal, "event": fact})
            if exit_ is not None:
                met[row.id] = exit_
    await enrollments.exit_met(tx, met)


def _concerns(enrollment: Record, changed: Links) -> bool:
    """Whether a change is of the enrollment's contact, or of its deal: any of the contact's where it names none."""
    if changed.deal_id is not None and enrollment.deal_id is not None:
        return bool(enrollment.deal_id == changed.deal_id)
    return bool(enrollment.contact_id == changed.contact_id)


def _about(event: Event) -> Links:
    """The records an event concerns: its subject, or those that a message or an enrollment was for."""
    if event.subject_kind not in (Kind.MESSAGE, Kind.ENROLLMENT):
        return Links.to(event.subject_kind, event.subject_id)
    ids = {name: event.after.get(name) for name in ("contactId", "dealId")}
    contact, deal = (UUID(str(found)) if found else None for found in ids.values())
    return Links(contact_id=contact, deal_id=deal)


def _event(row: Record) -> Event:
    return Event(
        id=row.id,
        type=row.type,
        subject_kind=row.subject_kind,
        subject_id=row.subject_id,
        at=row.at,
        before=row.before,
        after=row.after,
        chain=tuple(row.chain),
    )
