"""What is wrong with each component, in words a stranger can act on; and the repair of what is open."""

from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from uuid import UUID

import httpx2
from sqlalchemy.exc import SQLAlchemyError
from temporalio.api.enums.v1 import TaskQueueType
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import DescribeTaskQueueRequest
from temporalio.client import Client
from temporalio.service import RPCError

from domain.keys import mail_queue
from domain.words import Target
from runtime import comparison, migrating, sent_log, temporal, wiring
from runtime.comparison import Compared
from runtime.settings import Settings
from runtime.trouble import TroubleError
from store import executions, health, intents, queues, restoring
from store.health import Standing
from store.transaction import Database

_LATE = 30.0
"""Real seconds a queue's oldest row may wait before it is a finding."""
_AT_ONCE = 1000
"""Rows woken in one transaction."""


@dataclass(frozen=True)
class Finding:
    """One component's state: `words` say what is wrong and what to do, or that it is well."""

    component: str
    well: bool
    words: str


@dataclass(frozen=True)
class Repair:
    """Open rows that would be, or were, poked; rows set aside that are tried again; workflows that are terminated."""

    runs: int
    enrollments: int
    reminders: int
    mailboxes: int
    set_aside: int
    workflows: Compared | None
    """None where Temporal did not answer."""
    restored: list[UUID] | None
    """Messages that may have left since the backup; None where none was restored."""
    done: bool


@dataclass(frozen=True)
class Settlement:
    """Ids of messages, by what a mail server's log tells of those it was not known of whether they had left."""

    named: int
    """How many different Message-IDs of our making the log has."""
    left: list[UUID]
    not_sent: list[UUID]
    unsettled: list[UUID]
    """A person's to settle."""
    done: bool


class NotPast(TroubleError):  # noqa: N818  (what is wrong with the instant, said in words)
    """No backup can have been taken then."""


async def findings(settings: Settings) -> AsyncIterator[Finding]:
    """Each component in turn; one that is down does not hide the next."""
    crossing = wiring.database(settings, settings.secret("relay_database_url"))
    try:
        async for finding in _of_database(crossing):
            yield finding
    finally:
        await crossing.close()
    async for finding in _of_temporal(settings):
        yield finding
    yield await _of_api(settings)


async def repair(settings: Settings, *, dry: bool, restored_from: datetime | None = None) -> Repair:
    """Terminates workflows that wait for nothing or cannot go on, then wakes every open row.

    What was set aside is tried again. Safe at any time, any number of times. Where the database was restored
    from a backup, `restored_from` is the instant of that: sending is stopped first, and what may have left since
    is made uncertain, once. Raises `NotPast`.
    """
    crossing = wiring.database(settings, settings.secret("relay_database_url"))
    app = wiring.database(settings, settings.secret("database_url"))
    try:
        restored = None if restored_from is None else await _restored(app, crossing, restored_from, dry=dry)
        workflows = await _workflows(settings, crossing, dry=dry)
        # Read after that: whatever was poked while its workflow was being terminated is open and woken now.
        async with crossing.crossing() as connection:
            found = await health.open_rows(connection)
            failed = await health.failed_rows(connection)
        if not dry:
            for org in failed:
                async with app.transaction(org) as tx:
                    await queues.retry_failed(tx)
            for org, kinds in found.items():
                for kind, ids in kinds.items():
                    await _wake(app, org, kind, ids)
    finally:
        await app.close()
        await crossing.close()
    counts = {kind: sum(len(of.get(kind, [])) for of in found.values()) for kind in Target}
    return Repair(
        runs=counts[Target.RUN],
        enrollments=counts[Target.ENROLLMENT],
        mailboxes=counts[Target.MAILBOX],
        reminders=counts[Target.REMINDER],
        set_aside=sum(failed.values()),
        workflows=workflows,
        restored=restored,
        done=not dry,
    )


async def settle(settings: Settings, files: Iterable[Path], *, complete: bool, dry: bool) -> Settlement:
    """What the logs of mail servers name has left.

    If they are `complete`, what a restored backup left in doubt and they do not name has not. Raises `OSError`.
    """
    crossing = wiring.database(settings, settings.secret("relay_database_url"))
    app = wiring.database(settings, settings.secret("database_url"))
    named = sent_log.read(files)
    left: list[UUID] = []
    not_sent: list[UUID] = []
    unsettled: list[UUID] = []
    try:
        async with crossing.crossing() as connection:
            orgs = await restoring.every_organization(connection)
        for org in orgs:
            async with app.transaction(org) as tx:
                found = [id_ for some in _parts(list(named)) for id_ in await restoring.left(tx, some)]
                open_ = [row for row in await restoring.uncertain(tx) if row.id not in named]
            left += found
            missing = [row.id for row in open_ if complete and row.reason == restoring.REASON]
            not_sent += missing
            unsettled += [row.id for row in open_ if row.id not in missing]
            if not dry:
                await _settle(app, org, {id_: named[id_] for id_ in found}, missing)
    finally:
        await app.close()
        await crossing.close()
    return Settlement(len(named), left, not_sent, unsettled, done=not dry)


async def _settle(app: Database, org: UUID, left: Mapping[UUID, str], missing: Iterable[UUID]) -> None:
    """Each in a transaction of its own, as a person would."""
    for id_, message_id in left.items():
        async with app.transaction(org) as tx:
            await intents.logged(tx, id_, message_id)
    for id_ in missing:
        async with app.transaction(org) as tx:
            await intents.settle(tx, id_, sent=False)


async def _restored(app: Database, crossing: Database, since: datetime, *, dry: bool) -> list[UUID]:
    async with crossing.crossing() as connection:
        if not await restoring.is_past(connection, since):
            raise NotPast(f"{since.isoformat()} is still to come; --restored-from takes the instant of the backup.")
        orgs = await restoring.every_organization(connection)
    marked: list[UUID] = []
    for org in orgs:
        async with app.transaction(org) as tx:
            marked += await (restoring.in_doubt(tx, since) if dry else restoring.mark(tx, since))
    return marked


async def _workflows(settings: Settings, crossing: Database, *, dry: bool) -> Compared | None:
    try:
        client = await temporal.connect()
        compared = await comparison.compare(client, settings.task_queue, crossing)
        if not dry:
            await comparison.terminate(client, compared)
    except (temporal.TemporalError, RPCError):
        return None  # said in the findings and in the answer; the rows do not need it
    return compared


async def _wake(app: Database, org: UUID, kind: Target, ids: Sequence[UUID]) -> None:
    for some in _parts(ids):
        async with app.transaction(org) as tx:
            if kind in (Target.RUN, Target.ENROLLMENT):
                await executions.wake(tx, some)  # what awaits a fact, too: whoever wrote it may have failed
            else:
                await queues.wake(tx, kind, some)


def _parts(ids: Sequence[UUID]) -> Iterator[Sequence[UUID]]:
    return (ids[start : start + _AT_ONCE] for start in range(0, len(ids), _AT_ONCE))


async def _of_database(crossing: Database) -> AsyncIterator[Finding]:
    try:
        revision = await _revision(crossing)
        if revision != migrating.head():
            words = f"The schema is at {revision}, this code needs {migrating.head()}. Run `./drumbeat migrate`."
            yield Finding("database", well=False, words=words)
            return
        yield Finding("database", well=True, words=f"Answers; the schema is at {revision}.")
        async with crossing.crossing() as connection:
            standing = await health.standing(connection)
    except (SQLAlchemyError, OSError, TimeoutError) as error:
        words = (
            f"Does not answer as the relay's role ({type(error).__name__}). Is PostgreSQL running, is "
            "DRUMBEAT_RELAY_DATABASE_URL right, and was `./drumbeat migrate` run?"
        )
        yield Finding("database", well=False, words=words)
        return
    yield _of_queue("relay", "events", standing.events_waiting, standing.oldest_event_seconds, standing.events_failed)
    yield _of_queue("dispatch", "wakes", standing.wakes_waiting, standing.oldest_wake_seconds, standing.wakes_failed)
    overdue = standing.overdue == 0
    words = (
        f"{standing.runs_open} runs, {standing.enrollments_open} enrollments and {standing.reminders_open} reminders"
        f" are open, {standing.overdue} overdue."
    )
    if not overdue:
        words += " Is a worker running? `./drumbeat doctor --repair` shows what it would poke."
    yield Finding("waiting", well=overdue, words=words)
    stuck = standing.runs_stuck + standing.enrollments_stuck
    words = f"{standing.runs_stuck} runs and {standing.enrollments_stuck} enrollments are stuck."
    if stuck:
        words += " GET /api/v1/runs?status=stuck or /enrollments?status=stuck names each reason;"
        words += " mend it, then POST /runs/{id}/retry or /enrollments/{id}/retry."
    yield Finding("stuck", stuck == 0, words)
    yield _of_mail(standing)


def _of_mail(standing: Standing) -> Finding:
    words = (
        f"{standing.messages_pending} messages wait to be sent; {standing.messages_uncertain} are uncertain,"
        f" {standing.letters_unreadable} letters could not be read, {standing.mailboxes_in_trouble} mailboxes are in"
        " trouble."
    )
    asked = standing.messages_uncertain + standing.letters_unreadable
    if asked:
        words += " POST /api/v1/messages/{id}/settle and /letters/{id}/settle take a person's word."
    if standing.mailboxes_in_trouble:
        words += " GET /api/v1/mailboxes names each trouble; they are tried again by themselves."
    return Finding("mail", asked + standing.mailboxes_in_trouble == 0, words)


async def _revision(crossing: Database) -> str | None:
    async with crossing.crossing() as connection:
        return await health.schema_revision(connection)


def _of_queue(component: str, noun: str, waiting: int, age: float, failed: int) -> Finding:
    words = f"{waiting} {noun} wait, the oldest for {age:.0f} s; {failed} were set aside with an error."
    if age > _LATE:
        words += " Is `drumbeat relay` running, and does it reach its database and Temporal?"
    if failed:
        words += " `./drumbeat doctor --repair --yes` lets them be tried again."
    return Finding(component, age <= _LATE and not failed, words)


async def _of_temporal(settings: Settings) -> AsyncIterator[Finding]:
    try:
        client = await temporal.connect()
        waiting = await _pollers(client, settings.task_queue, TaskQueueType.TASK_QUEUE_TYPE_WORKFLOW)
        mailing = await _pollers(client, mail_queue(settings.task_queue), TaskQueueType.TASK_QUEUE_TYPE_ACTIVITY)
        running, failing = await comparison.counted(client, settings.task_queue)
    except temporal.TemporalError as error:
        yield Finding("temporal", well=False, words=f"{error}. Facts are kept meanwhile; what is due waits.")
        return
    except RPCError as error:
        words = f"Answers with {error.status.name}. Is the namespace there? `./drumbeat namespace` makes it."
        yield Finding("temporal", well=False, words=words)
        return
    if not waiting or not mailing:
        nothing = "nothing that waits goes on before" if not waiting else "no mail leaves before"
        words = f"Answers, but no worker is polling. Start `drumbeat worker`; {nothing}."
    else:
        words = f"Answers; {waiting} {'worker polls' if waiting == 1 else 'workers poll'}."
    yield Finding("temporal", well=bool(waiting and mailing), words=words)
    words = f"{running} workflows wait; the tasks of {failing} keep failing."
    if failing:
        words += (
            " Do all workers run the same release? Once they do, `./drumbeat doctor --repair --yes`"
            " begins those workflows anew; their rows know where they are."
        )
    yield Finding("workflows", well=not failing, words=words)


async def _pollers(client: Client, queue: str, kind: TaskQueueType.ValueType) -> int:
    """How many have polled a queue within the last minutes."""
    request = DescribeTaskQueueRequest(
        namespace=client.namespace, task_queue=TaskQueue(name=queue), task_queue_type=kind
    )
    return len((await client.workflow_service.describe_task_queue(request)).pollers)


async def _of_api(settings: Settings) -> Finding:
    url = f"http://{settings.api_host}:{settings.api_port}/readyz"
    try:
        async with httpx2.AsyncClient(timeout=5, trust_env=False) as client:
            status = (await client.get(url)).status_code
    except httpx2.HTTPError as error:
        return Finding(
            "api", well=False, words=f"{url} does not answer ({type(error).__name__}). Is `drumbeat api` running?"
        )
    if status != httpx2.codes.OK:
        return Finding("api", well=False, words=f"{url} answers {status}; its body says what is missing.")
    return Finding("api", well=True, words=f"{url} answers.")
