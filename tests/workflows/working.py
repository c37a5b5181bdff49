"""Real workers on the real server, with the relay's parts called by hand: what the tests of workflows share."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any
from uuid import UUID

from pydantic import SecretStr
from temporalio.api.enums.v1 import EventType
from temporalio.client import Client, WorkflowExecutionStatus, WorkflowHandle

from activities.send import Links, Send
from domain.documents import RuleDocument, SequenceDocument
from domain.keys import workflow_id
from domain.words import Target
from runtime.settings import Settings
from runtime.wiring import sender, worker
from store import executions, queues, reminders
from store.queues import Wake
from store.transaction import Database
from tests.conftest import Base
from tests.driving import advance, enroll, enrolled, make_contact, match_all, start_run, until
from triggers.dispatch import Dispatch, TemporalAway

MASTER = bytes(32)
"""The key that `tests.driving` seals the passwords of mailboxes with."""


class Working:
    """One database, one task queue; `flow` is what the relay's process would do.

    Without `first_attempt` all steps are the workflows', which is what most tests of workflows are about.
    """

    def __init__(self, base: Base, client: Client, queue: str, *, first_attempt: bool = False) -> None:
        self.base, self.client, self.queue = base, client, queue
        self._first_attempt = first_attempt

        async def connect() -> Client:
            return client

        self._dispatch = Dispatch(base.crossing, base.app, connect, queue, first_attempt=first_attempt)

    async def flow(self) -> None:
        """Matches every event and gives every wake."""
        await match_all(self.base, first_attempt=self._first_attempt)

        async def given() -> bool:
            try:
                await self._dispatch.once()
            except TemporalAway:  # the server asks for a second's patience between two starts of one id
                return False
            return bool(await self.base.value("SELECT count(*) = 0 FROM wakes WHERE failed_at IS NULL"))

        await until(given, "the wakes to be given")

    def as_served(self) -> "Working":
        """The same with the first attempts of the relay, as the product has it unless told otherwise."""
        return Working(self.base, self.client, self.queue, first_attempt=True)

    @asynccontextmanager
    async def flowing(self) -> AsyncIterator[None]:
        """With the relay's process at it for as long as the block."""
        over = asyncio.Event()

        async def flow() -> None:
            while not over.is_set():
                await self.flow()
                await asyncio.sleep(0.01)

        flow_ = asyncio.create_task(flow())
        try:
            yield
        finally:
            over.set()
            await flow_

    async def poke(self, id_: UUID, kind: Target) -> None:
        """As a relay does that was late with it: whatever has become of the row."""
        await self._dispatch._poke(self.client, Wake(self.base.org, kind, id_, ()))

    async def run(self, document: RuleDocument, name: str = "Rule", **deal: Any) -> UUID:
        """A new run whose workflow was started."""
        id_: UUID = await start_run(self.base, document, name, **deal)
        await self.flow()
        return id_

    async def remind(self, after: timedelta, **values: Any) -> UUID:
        """A new reminder whose workflow was started."""
        async with self.base.transaction() as tx:
            given = {"owner_id": self.base.rep, "title": "Ring Rob Roy", "due_at": tx.now + after, **values}
            made = await reminders.create(tx, given)
        assert made is not None
        await self.flow()
        id_: UUID = made.id
        return id_

    async def enroll(self, document: SequenceDocument, email: str = "jo@example.com", **options: Any) -> UUID:
        """A contact enrolled in a new sequence, whose workflow was started."""
        id_: UUID = await enrolled(self.base, document, email, **options)
        await self.flow()
        return id_

    async def write(self, sequence: UUID, *emails: str) -> None:
        """Takes the first steps of a contact each in a sequence, without a workflow; its mailbox's wake is given."""
        people = [await make_contact(self.base, email) for email in emails]
        for one in await enroll(self.base, sequence, *people):
            assert one.enrollment is not None, one.reason
            await advance(self.base, one.enrollment, Target.ENROLLMENT)
        await self.flow()

    async def later(self, by: timedelta) -> None:
        """Moves the clock and wakes every open row and every mailbox with something to send, as the sweep would."""
        await self.base.pass_time(by)
        boxes = await self.base.rows("SELECT DISTINCT destination_id AS id FROM intents WHERE status = 'pending'")
        async with self.base.transaction() as tx:
            await executions.wake(tx, await executions.open_ids(tx))
            await reminders.wake(tx, await reminders.open_ids(tx))
            await queues.wake(tx, Target.MAILBOX, [row["id"] for row in boxes])
        await self.flow()

    async def stands(self, id_: UUID, **values: Any) -> None:
        """Waits until a run's row has these values."""
        await self._stands("executions", id_, values)

    async def reminder_stands(self, id_: UUID, **values: Any) -> None:
        await self._stands("reminders", id_, values)

    async def _stands(self, table: str, id_: UUID, values: dict[str, Any]) -> None:
        async def does() -> bool:
            (row,) = await self.base.rows(f"SELECT * FROM {table} WHERE id = :id", id=id_)
            return all(row[name] == value for name, value in values.items())

        await until(does, f"{table} {values}")

    async def waits(self, id_: UUID, step: str, kind: Target = Target.RUN) -> None:
        """Waits until an execution's workflow sleeps in a wait."""

        async def does() -> bool:
            sql = "SELECT step = :step AND waits IS NOT NULL FROM executions WHERE id = :id"
            return bool(await self.base.value(sql, id=id_, step=step)) and await self.asleep(id_, kind)

        await until(does, f"the wait {step}")

    async def asleep(self, id_: UUID, kind: Target = Target.RUN) -> bool:
        """Whether nothing is under way in a workflow: its last task is completed and asked for nothing at once."""
        description = await self.handle(id_, kind).describe()
        raw = description.raw_description
        busy = raw.HasField("pending_workflow_task") or raw.pending_activities
        return description.status == WorkflowExecutionStatus.RUNNING and not busy

    async def ends(self, id_: UUID, kind: Target = Target.RUN) -> None:
        """Waits until a row's workflow is completed."""

        async def does() -> bool:
            description = await self.handle(id_, kind).describe()
            return description.status == WorkflowExecutionStatus.COMPLETED

        await until(does, f"the end of {kind}")

    def handle(self, id_: UUID, kind: Target = Target.RUN) -> WorkflowHandle[Any, Any]:
        return self.client.get_workflow_handle(workflow_id(kind, id_))

    async def events(self, id_: UUID, kind: Target = Target.RUN) -> list[str]:
        """The types of a history's events."""
        history = await self.handle(id_, kind).fetch_history()
        return [EventType.Name(event.event_type).removeprefix("EVENT_TYPE_") for event in history.events]

    async def transitions(self, id_: UUID) -> int:
        description = await self.handle(id_).describe()
        return int(description.raw_description.workflow_execution_info.state_transition_count)


def settings(base: Base, queue: str) -> Settings:
    return Settings(database_url=SecretStr(base.app_url), task_queue=queue)


@asynccontextmanager
async def walking(base: Base, client: Client) -> AsyncIterator[Working]:
    """With the product's worker for what waits, and none for what sends."""
    queue = f"walk-{secrets.token_hex(4)}"
    app = Database.connect(base.app_url)
    async with worker(client, app, settings(base, queue)):
        yield Working(base, client, queue)
    await app.close()


@asynccontextmanager
async def sending(working: Working) -> AsyncIterator[None]:
    """With the product's worker for what sends."""
    app = Database.connect(working.base.app_url)
    send = Send(app, MASTER, Links("https://crm.example.com", "reply.example.com"))
    async with sender(working.client, send, settings(working.base, working.queue)):
        yield
    await send.close()
    await app.close()


@asynccontextmanager
async def at_work(base: Base, client: Client) -> AsyncIterator[Working]:
    """With both workers of the product."""
    async with walking(base, client) as found, sending(found):
        yield found
