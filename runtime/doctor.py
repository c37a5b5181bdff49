"""What is wrong with each component, in words a stranger can act on; and the repair of what is open."""

from collections.abc import AsyncIterator
from dataclasses import dataclass

import httpx2
from sqlalchemy.exc import SQLAlchemyError
from temporalio.api.enums.v1 import TaskQueueType
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import DescribeTaskQueueRequest
from temporalio.client import Client
from temporalio.service import RPCError

from domain.keys import mail_queue
from domain.words import Target
from runtime import migrating, temporal, wiring
from runtime.settings import Settings
from store import executions, health, queues
from store.health import Standing
from store.transaction import Database

_LATE = 30.0
"""Real seconds a queue's oldest row may wait before it is a finding."""


@dataclass(frozen=True)
class Finding:
    """One component's state: `words` say what is wrong and what to do, or that it is well."""

    component: str
    well: bool
    words: str


@dataclass(frozen=True)
class Repair:
    """Open rows that would be, or were, poked; and rows set aside that are tried again."""

    runs: int
    enrollments: int
    reminders: int
    mailboxes: int
    set_aside: int
    done: bool


async def findings(settings: Settings) -> AsyncIterator[Finding]:
    """Each component in turn; one that is down does not hide the next."""
    crossing = wiring.database(settings, settings.secret("relay_database_url"))
    try:
        async for finding in _of_database(crossing):
            yield finding
    finally:
        await crossing.close()
    yield await _of_temporal(settings)
    yield await _of_api(settings)


async def repair(settings: Settings, *, dry: bool) -> Repair:
    """Wakes every open row, and lets what was set aside be tried again; safe at any time, any number of times."""
    crossing = wiring.database(settings, settings.secret("relay_database_url"))
    app = wiring.database(settings, settings.secret("database_url"))
    try:
        async with crossing.crossing() as connection:
            found = await health.open_rows(connection)
            failed = await health.failed_rows(connection)
        if not dry:
            for org in found.keys() | failed.keys():
                async with app.transaction(org) as tx:
                    await queues.retry_failed(tx)
                    for kind, ids in found.get(org, {}).items():
                        if kind in (Target.RUN, Target.ENROLLMENT):
                            await executions.wake(tx, ids)  # what awaits a fact, too: whoever wrote it may have failed
                        else:
                            await queues.wake(tx, kind, ids)
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
        done=not dry,
    )


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


async def _of_temporal(settings: Settings) -> Finding:
    try:
        client = await temporal.connect()
        waiting = await _pollers(client, settings.task_queue, TaskQueueType.TASK_QUEUE_TYPE_WORKFLOW)
        mailing = await _pollers(client, mail_queue(settings.task_queue), TaskQueueType.TASK_QUEUE_TYPE_ACTIVITY)
    except temporal.TemporalError as error:
        return Finding("temporal", well=False, words=f"{error}. Facts are kept meanwhile; what is due waits.")
    except RPCError as error:
        words = f"Answers with {error.status.name}. Is the namespace there? `./drumbeat namespace` makes it."
        return Finding("temporal", well=False, words=words)
    if not waiting or not mailing:
        nothing = "nothing that is due runs before" if not waiting else "no mail leaves before"
        words = f"Answers, but no worker is polling. Start `drumbeat worker`; {nothing}."
        return Finding("temporal", well=False, words=words)
    return Finding(
        "temporal", well=True, words=f"Answers; {waiting} {'worker polls' if waiting == 1 else 'workers poll'}."
    )


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
