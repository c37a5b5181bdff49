"""Drain on the real server with the real worker: it sends what is due, at the pace, and nothing twice."""

import asyncio
import os
import signal
import sys
from asyncio.subprocess import PIPE
from collections import Counter
from contextlib import asynccontextmanager
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import pytest
from temporalio import activity
from temporalio.api.enums.v1 import EventType
from temporalio.client import WorkflowExecutionStatus
from temporalio.worker import Worker

from activities import send
from domain.keys import mail_queue
from domain.words import Target
from runtime.folders import CHECKOUT
from store import intents, mailboxes
from tests.driving import blocked, mail, make_mailbox, publish, sequence, until
from tests.mailing import mail_server
from tests.workflows.working import sending, walking
from triggers.sweep import Sweep
from workflows import drain
from workflows.contracts import DRAIN, POKE, Answer, Mailbox

STARTED = ["WORKFLOW_EXECUTION_STARTED", "WORKFLOW_EXECUTION_SIGNALED"]
TASK = ["WORKFLOW_TASK_SCHEDULED", "WORKFLOW_TASK_STARTED", "WORKFLOW_TASK_COMPLETED"]
CALL = ["ACTIVITY_TASK_SCHEDULED", "ACTIVITY_TASK_STARTED", "ACTIVITY_TASK_COMPLETED"]
SLEPT = ["TIMER_STARTED", "TIMER_FIRED"]
ENDED = ["WORKFLOW_EXECUTION_COMPLETED"]


@pytest.fixture
async def one_mail(base):
    """A sequence of one mail."""
    return await publish(base, sequence(mail()))


def people(count, start=0):
    return [f"p{number}@example.com" for number in range(start, start + count)]


async def sent(working, count, seconds=20):
    """Waits until so many messages were accepted, each by one attempt."""

    async def are():
        rows = await working.base.rows("SELECT status, attempts FROM intents")
        return [(row["status"], row["attempts"]) for row in rows] == [("accepted", 1)] * count

    await until(are, f"{count} messages sent", seconds)


async def lingers(working, box):
    await until(lambda: working.asleep(box, Target.MAILBOX), "the drain's wait")


async def counted(working, box):
    return Counter(await working.events(box, Target.MAILBOX))


async def test_a_drain_sends_what_is_due_lingers_and_ends(working, one_mail, monkeypatch):
    monkeypatch.setattr(drain, "LINGERS", 0.5)
    box = await make_mailbox(working.base)
    await working.write(one_mail, *people(3))
    await sent(working, 3)
    await working.ends(box, Target.MAILBOX)
    assert await working.events(box, Target.MAILBOX) == [*STARTED, *TASK, *CALL, *TASK, *SLEPT, *TASK, *ENDED]


async def test_a_mailbox_with_nothing_to_send_is_looked_at_once(working, monkeypatch):
    monkeypatch.setattr(drain, "LINGERS", 0.1)
    box = await make_mailbox(working.base)
    async with working.base.transaction() as tx:
        await mailboxes.resume(tx, box)
    await working.flow()
    await working.ends(box, Target.MAILBOX)
    assert (await counted(working, box))["ACTIVITY_TASK_SCHEDULED"] == 1


async def test_a_further_batch_costs_six_events(working, one_mail, monkeypatch):
    monkeypatch.setattr(drain, "LINGERS", 0.1)
    monkeypatch.setattr(send, "MOST", 10)
    box = await make_mailbox(working.base)
    await working.write(one_mail, *people(35))
    await sent(working, 35)
    await working.ends(box, Target.MAILBOX)
    batches = 3 * [*TASK, *CALL]
    assert await working.events(box, Target.MAILBOX) == [*STARTED, *batches, *TASK, *CALL, *TASK, *SLEPT, *TASK, *ENDED]


async def test_a_message_for_a_lingering_drain_costs_twelve_events_and_no_new_run(working, one_mail):
    box = await make_mailbox(working.base)
    await working.write(one_mail, "a@example.com")
    await sent(working, 1)
    await lingers(working, box)
    first, run = await counted(working, box), (await working.handle(box, Target.MAILBOX).describe()).run_id
    await working.write(one_mail, "b@example.com")
    await sent(working, 2)
    await lingers(working, box)
    assert await counted(working, box) - first == Counter(
        ["WORKFLOW_EXECUTION_SIGNALED", *TASK, "TIMER_CANCELED", *CALL, *TASK, "TIMER_STARTED"]
    )
    assert (await working.handle(box, Target.MAILBOX).describe()).run_id == run


async def test_a_message_after_the_end_starts_a_new_run(working, one_mail, monkeypatch):
    monkeypatch.setattr(drain, "LINGERS", 0.1)
    box = await make_mailbox(working.base)
    for number, email in enumerate(people(2), 1):
        await working.write(one_mail, email)
        await sent(working, number)
        await working.ends(box, Target.MAILBOX)


# --- pace


async def claims(working):
    """Real seconds between the claims."""
    rows = await working.base.rows("SELECT claimed_real FROM attempts ORDER BY claimed_real")
    instants = [row["claimed_real"] for row in rows]
    return [(after - before).total_seconds() for before, after in pairwise(instants)]


async def test_a_long_gap_is_waited_for_by_the_workflow(working, one_mail, monkeypatch):
    monkeypatch.setattr(drain, "LINGERS", 0.1)
    monkeypatch.setattr(send, "NAP", 0.1)
    box = await make_mailbox(working.base, pace={"spacing": 1.2})
    await working.write(one_mail, *people(3))
    await sent(working, 3)
    await working.ends(box, Target.MAILBOX)
    assert all(gap >= 1.2 for gap in await claims(working))
    found = await counted(working, box)
    assert found["TIMER_FIRED"] == found["ACTIVITY_TASK_COMPLETED"] == 3


async def test_a_short_gap_is_slept_through_by_the_activity_function(working, one_mail, monkeypatch):
    monkeypatch.setattr(drain, "LINGERS", 0.1)
    box = await make_mailbox(working.base, pace={"spacing": 0.3})
    await working.write(one_mail, *people(3))
    await sent(working, 3)
    await working.ends(box, Target.MAILBOX)
    assert all(gap >= 0.3 for gap in await claims(working))
    assert (await counted(working, box))["ACTIVITY_TASK_SCHEDULED"] == 1


async def test_a_poke_does_not_make_a_mailbox_send_before_its_pace_allows(working, one_mail):
    box = await make_mailbox(working.base, pace={"spacing": 3600})
    await working.write(one_mail, "a@example.com")
    await sent(working, 1)
    await working.write(one_mail, "b@example.com")
    await lingers(working, box)
    for _ in range(3):
        await working.handle(box, Target.MAILBOX).signal(POKE)
        await lingers(working, box)
    assert await working.base.value("SELECT count(*) FROM attempts") == 1


async def test_messages_of_tomorrow_wait_for_the_clock_and_a_poke(working, one_mail):
    box = await make_mailbox(working.base)
    async with working.base.transaction() as tx:
        await mailboxes.pause(tx, box)
    await working.write(one_mail, "a@example.com")
    await working.base.rows("UPDATE intents SET due_at = due_at + interval '1 day' RETURNING id")
    async with working.base.transaction() as tx:
        await mailboxes.resume(tx, box)
    await working.flow()
    await lingers(working, box)
    assert await working.base.value("SELECT status FROM intents") == "pending"
    await working.later(timedelta(days=1))
    await sent(working, 1)


# --- pokes


class Held:
    """`drain`, whose first answer arrives only when the test lets it: as over a slow network."""

    def __init__(self, app):
        self._send = send.Send(app, bytes(32), send.Links("https://crm.example.com"))
        self.answered, self.let_go, self.calls = asyncio.Event(), asyncio.Event(), 0

    @activity.defn(name=DRAIN)
    async def drain(self, mailbox: Mailbox) -> Answer:
        self.calls += 1
        answer = await self._send.drain(mailbox)
        self.answered.set()
        await self.let_go.wait()
        return answer

    async def close(self):
        await self._send.close()


async def test_a_message_written_while_an_answer_is_under_way_is_not_overlooked(base, one_mail, temporal):
    async with walking(base, temporal) as working:
        held = Held(base.app)
        box = await make_mailbox(base)
        async with Worker(temporal, task_queue=mail_queue(working.queue), activities=[held.drain]):
            await working.write(one_mail, "a@example.com")
            await asyncio.wait_for(held.answered.wait(), 10)
            await working.write(one_mail, "b@example.com")  # the answer under way says that there is nothing more
            assert await base.value("SELECT count(*) FROM intents WHERE status = 'accepted'") == 1
            held.let_go.set()
            await sent(working, 2)
            await lingers(working, box)
        await held.close()
    assert held.calls == 2


async def histories(working, box):
    """The types of the events in each run's history of a mailbox's drain, oldest run first."""
    handle = working.handle(box, Target.MAILBOX)
    found: list[list[str]] = []
    run = (await handle.describe()).run_id
    while run:
        history = await working.client.get_workflow_handle(handle.id, run_id=run).fetch_history()
        found.insert(0, [EventType.Name(event.event_type).removeprefix("EVENT_TYPE_") for event in history.events])
        run = history.events[0].workflow_execution_started_event_attributes.continued_execution_run_id
    return found


async def test_many_messages_and_pokes_are_spread_over_runs_and_each_is_sent_once(working, one_mail, monkeypatch):
    monkeypatch.setattr(drain, "POKES_A_RUN", 10)
    monkeypatch.setattr(send, "MOST", 3)
    box = await make_mailbox(working.base)
    await working.write(one_mail, *people(60))
    handle = working.handle(box, Target.MAILBOX)

    async def all_sent():
        await handle.signal(POKE)
        return await working.base.value("SELECT count(*) = 60 FROM intents WHERE status = 'accepted'")

    await until(all_sent, "60 messages sent", 60)
    await sent(working, 60)
    assert await working.base.value("SELECT count(*) FROM attempts") == 60
    await lingers(working, box)
    runs = await histories(working, box)
    assert len(runs) > 1
    for events in runs:
        # A run that has had its pokes ends with the batch under way, however many more pokes come until then.
        poked = [at for at, event in enumerate(events) if event == "WORKFLOW_EXECUTION_SIGNALED"]
        batches = [at for at, event in enumerate(events) if event == "ACTIVITY_TASK_SCHEDULED"]
        assert len(poked) < 10 or not [at for at in batches[1:] if at > poked[9]], events


async def test_a_flood_of_pokes_starts_a_new_run_and_loses_nothing(working, one_mail, monkeypatch):
    monkeypatch.setattr(drain, "POKES_A_RUN", 200)
    box = await make_mailbox(working.base)
    await working.write(one_mail, "a@example.com")
    await sent(working, 1)
    handle, gate = working.handle(box, Target.MAILBOX), asyncio.Semaphore(50)
    first = (await handle.describe()).run_id

    async def poke():
        async with gate:
            await handle.signal(POKE)

    await asyncio.gather(*(poke() for _ in range(250)))

    async def continued():
        description = await handle.describe()
        return description.run_id != first and description.status == WorkflowExecutionStatus.RUNNING

    await until(continued, "the new run", 30)
    await working.write(one_mail, "b@example.com")
    await sent(working, 2)


# --- what was killed, frozen or lost


async def test_a_terminated_drain_is_followed_by_another(working, one_mail):
    box = await make_mailbox(working.base)
    await working.write(one_mail, "a@example.com")
    await sent(working, 1)
    await working.handle(box, Target.MAILBOX).terminate("an operator")
    await working.write(one_mail, "b@example.com")
    await sent(working, 2)


async def test_a_drain_that_is_terminated_in_the_middle_of_a_call_records_its_answer(
    base, one_mail, temporal, tmp_path, monkeypatch
):
    monkeypatch.setattr(drain, "SILENCE", 1.0)  # heartbeats, which bring the news, come as often as that asks
    monkeypatch.setattr(send, "_BEAT", 0.1)
    with mail_server(tmp_path / "log", "--delay", "3") as server:
        async with walking(base, temporal) as working, sending(working):
            box = await make_mailbox(base, transport="smtp", host="127.0.0.1", port=server.port, security="none")
            await working.write(one_mail, *people(2))

            async def in_the_call():
                return server.received()

            await until(in_the_call, "the first mail to leave")
            await working.handle(box, Target.MAILBOX).terminate("an operator")

            async def recorded():
                return await base.value("SELECT count(*) FROM intents WHERE status = 'accepted'")

            await until(recorded, "the answer's record")
    assert len(server.received()) == 1
    rows = await base.rows("SELECT status, attempts FROM intents ORDER BY status")
    assert [(row["status"], row["attempts"]) for row in rows] == [("accepted", 1), ("pending", 0)]


async def test_a_busy_database_makes_mail_late_and_nothing_else(working, one_mail):
    await make_mailbox(working.base)
    async with working.base.transaction() as holder:
        await holder.connection.exec_driver_sql("SELECT id FROM destinations FOR NO KEY UPDATE")
        await working.write(one_mail, "a@example.com")
        await until(lambda: blocked(working.base), "the claim's wait")
    await sent(working, 1)


@asynccontextmanager
async def mortal(working, temporal_server, where="never"):
    """A sending worker in a process of its own, by the script beside this file."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(Path(__file__).with_name("mortal_sender.py")), working.base.app_url, working.queue, where,
        cwd=CHECKOUT, stdout=PIPE,
        env={**os.environ, **temporal_server.environment(), "PYTHONPATH": str(CHECKOUT)},
    )  # fmt: skip
    try:
        assert process.stdout is not None
        assert await asyncio.wait_for(process.stdout.readline(), 30) == b"ready\n"
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


def stands_still(process):
    async def does():
        status = Path(f"/proc/{process.pid}/stat").read_text()  # noqa: ASYNC240  (no file on any disk)
        return status.rpartition(")")[2].split()[0] == "T"

    return does


@asynccontextmanager
async def five_mails_and_a_mortal(base, temporal, temporal_server, one_mail, server, monkeypatch, where):
    monkeypatch.setattr(drain, "SILENCE", 3.0)
    async with walking(base, temporal) as working:
        await make_mailbox(base, transport="smtp", host="127.0.0.1", port=server.port, security="none")
        async with mortal(working, temporal_server, where) as process:
            await working.write(one_mail, *people(5))
            yield working, process


def mailed(server):
    return Counter(mail.message_id for mail in server.received())


async def standing(base):
    rows = await base.rows("SELECT status FROM intents")
    return Counter(row["status"] for row in rows)


async def test_when_a_worker_is_killed_in_the_middle_of_a_call_another_goes_on_and_nothing_is_sent_twice(
    base, one_mail, temporal, temporal_server, tmp_path, monkeypatch
):
    with mail_server(tmp_path / "log", "--delay", "0.4") as server:
        async with five_mails_and_a_mortal(base, temporal, temporal_server, one_mail, server, monkeypatch, "never") as (
            working,
            process,
        ):

            async def in_a_call():
                return len(server.received()) == 2

            await until(in_a_call, "the second mail to leave")
            process.kill()
            async with sending(working):

                async def all_left():
                    return len(mailed(server)) == 5 and (await standing(base))["claimed"] == 0

                await until(all_left, "the others to leave", 30)
    assert set(mailed(server).values()) == {1}
    # The mail whose answer the dead worker did not see has left, as only its server knows.
    assert await standing(base) == {"accepted": 4, "uncertain": 1}


@asynccontextmanager
async def five_mails_and_one_frozen(base, temporal, temporal_server, one_mail, server, monkeypatch, where):
    """Four have left by another worker, the fifth is uncertain: who claimed it stands still."""
    async with five_mails_and_a_mortal(base, temporal, temporal_server, one_mail, server, monkeypatch, where) as (
        working,
        process,
    ):
        await until(stands_still(process), "the worker's freeze")
        async with sending(working):

            async def given_up():
                return await standing(base) == {"accepted": 4, "uncertain": 1}

            await until(given_up, "the others to leave", 30)
            assert len(mailed(server)) == 4
            yield working, process


async def all_five_have_left(working):
    await Sweep(working.base.crossing, working.base.app).once()
    await working.flow()
    return await standing(working.base) == {"accepted": 5}


@pytest.mark.parametrize("where", ["claimed", "told"])
async def test_a_worker_frozen_before_the_first_byte_does_not_use_the_claim_when_it_thaws(
    base, one_mail, temporal, temporal_server, tmp_path, monkeypatch, where
):
    with mail_server(tmp_path / "log") as server:
        async with five_mails_and_one_frozen(base, temporal, temporal_server, one_mail, server, monkeypatch, where) as (
            working,
            process,
        ):
            process.send_signal(signal.SIGCONT)
            await base.pass_time(timedelta(seconds=61))
            # The thawed worker says that it has certainly not sent it: the next attempt is open.
            await until(lambda: all_five_have_left(working), "the last to leave", 30)
    assert len(mailed(server)) == 5
    assert set(mailed(server).values()) == {1}
    assert await base.value("SELECT count(*) FROM attempts") == 6


@pytest.mark.parametrize("where", ["calling", "told"])
async def test_what_a_person_said_has_not_left_is_sent_once_though_the_worker_that_was_frozen_thaws(
    base, one_mail, temporal, temporal_server, tmp_path, monkeypatch, where
):
    with mail_server(tmp_path / "log") as server:
        async with five_mails_and_one_frozen(base, temporal, temporal_server, one_mail, server, monkeypatch, where) as (
            working,
            process,
        ):
            doubted = await base.value("SELECT id FROM intents WHERE status = 'uncertain'")
            async with base.transaction() as tx:
                assert await intents.settle(tx, doubted, sent=False)
            await until(lambda: all_five_have_left(working), "the last to leave", 30)
            process.send_signal(signal.SIGCONT)
            process.terminate()  # it ends when it has dealt with the message under way
            await asyncio.wait_for(process.wait(), 30)
    assert len(mailed(server)) == 5
    assert set(mailed(server).values()) == {1}
    assert await standing(base) == {"accepted": 5}
    assert await base.value("SELECT count(*) FROM attempts") == 6
