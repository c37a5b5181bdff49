"""Recorded histories are replayed by the workflows of today; `--record` writes them anew from real runs.

A history stays for as long as a run that made one like it may be open. One that fails here means that the change
would break runs under way: guard it with `workflow.patched`, and record what the new way makes besides.
"""

import asyncio
import base64
import gzip
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from temporalio import workflow
from temporalio.client import WorkflowHistory
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.worker import Replayer

from chaos.altered_walk import AlteredWalk
from domain.words import Role, Target
from runtime.wiring import sandbox
from store import contacts, identity
from store.executions import retry
from tests.driving import (
    act,
    enroll,
    kept_from,
    mail,
    make_mailbox,
    on_stage,
    publish,
    sequence,
    start_run,
    task,
    until,
    wait,
)
from workflows import drain, walk
from workflows.contracts import ADVANCE, DRAIN, POKE, Answer, Mailbox, Waiter
from workflows.drain import Drain
from workflows.walk import Walk

FOLDER = Path(__file__).with_name("histories")
LONG = 100_000
"""Characters beyond which a history is kept compressed."""
PERSONAL = ("Rob Roy", "rob.roy@example.com", "Mona Lisa", "mona.lisa@example.com", "Jane Doe", "jane.doe@example.com",
            "Secret deal", "Call Jane", "Ring Rob", "Acme", "Secret subject", "Secret mailbox")  # fmt: skip
PAUSED = datetime(2026, 1, 1, tzinfo=UTC)
LATER = on_stage(wait("pause"), task(title="Call Jane"))


async def people(working):
    """Gives the scenario's people and records names that would be recognised."""
    base = working.base
    async with base.transaction() as tx:
        base.manager = (await identity.create_user(tx, "mona.lisa@example.com", "Mona Lisa", Role.MANAGER)).id
        base.rep = (await identity.create_user(tx, "rob.roy@example.com", "Rob Roy", Role.REP, base.manager)).id
        contact = await contacts.create(tx, {"email": "jane.doe@example.com", "first_name": "Jane Doe"})
    return {"title": "Secret deal", "contact_id": contact.id, "owner_id": base.rep}


async def in_its_first_wait(working, hurrying):
    run = await working.run(LATER, **await people(working))
    await working.waits(run, "pause")
    return await working.handle(run).fetch_history()


async def through_two_waits(working, hurrying):
    document = on_stage(wait("a", 2, "hours"), task(title="Call Jane"), wait("b", 2, "hours"), task("again"))
    run = await hurrying.run(document, **await people(hurrying))
    await hurrying.ends(run)
    return await hurrying.handle(run).fetch_history()


async def poked_while_waiting(working, hurrying):
    run = await working.run(LATER, **await people(working))
    for _ in range(2):
        await working.waits(run, "pause")
        await working.later(timedelta(hours=1))
    await working.waits(run, "pause")
    await working.later(timedelta(days=3))
    await working.ends(run)
    return await working.handle(run).fetch_history()


async def done_at_once(working, hurrying):
    run = await working.run(on_stage(task(title="Call Jane")), **await people(working))
    await working.ends(run)
    return await working.handle(run).fetch_history()


async def flooded(working, handle):
    """The history of a run that was poked until a new one took its place."""
    first = (await handle.describe()).run_id
    gate = asyncio.Semaphore(50)

    async def poke():
        async with gate:
            await handle.signal(POKE)

    await asyncio.gather(*(poke() for _ in range(drain.POKES_A_RUN + 100)))

    async def continued():
        return (await handle.describe()).run_id != first

    await until(continued, "the new run", 30)
    return await working.client.get_workflow_handle(handle.id, run_id=first).fetch_history()


async def continued_as_new(working, hurrying):
    run = await working.run(LATER, **await people(working))
    await working.waits(run, "pause")
    return await flooded(working, working.handle(run))


async def a_reminder_fired_and_escalated(working, hurrying):
    await people(hurrying)
    reminder = await hurrying.remind(timedelta(hours=2), escalate_after={"amount": 2, "unit": "hours"})
    await hurrying.ends(reminder, Target.REMINDER)
    assert await hurrying.base.value("SELECT status FROM reminders") == "escalated"
    return await hurrying.handle(reminder, Target.REMINDER).fetch_history()


async def stuck(working, hurrying):
    """`stuck_and_parked` and `stuck_retried_and_stuck_again` were recorded when a stuck run's workflow waited on."""
    document = on_stage(task(title="Call Jane"), act("s", "set_field", field="company.name", value="Acme"))
    run = await working.run(document, **await people(working))
    await working.stands(run, status="stuck")
    await asyncio.wait_for(working.handle(run).result(), 20)
    return await working.handle(run).fetch_history()


async def begun_when_it_is_due(working, hurrying):
    await people(hurrying)
    reminder = await hurrying.remind(timedelta(hours=18), title="Ring Rob")
    await hurrying.ends(reminder, Target.REMINDER)
    return await hurrying.handle(reminder, Target.REMINDER).fetch_history()


async def stuck_and_retried(working, hurrying):
    """The retry is a new workflow under the same id."""
    run = await working.run(
        on_stage(act("s", "set_field", field="company.name", value="Acme")), **await people(working)
    )
    await working.stands(run, status="stuck")
    await asyncio.wait_for(working.handle(run).result(), 20)
    async with working.base.transaction() as tx:
        await retry(tx, run, Target.RUN)
    await working.flow()
    await working.stands(run, status="stuck")
    await asyncio.wait_for(working.handle(run).result(), 20)
    return await working.handle(run).fetch_history()


async def through_an_outage(working, hurrying):
    """Its database answers no attempt; `retried_by_the_server` was recorded when such a look had no end."""
    run = await start_run(working.base, on_stage(task(title="Call Jane")), **await people(working))
    with patch("workflows.walk.ATTEMPTS", 1), patch("workflows.walk.RECOVERS", 0.5):
        async with kept_from(working.base, "SELECT id FROM deals"):
            await working.flow()

            async def waits_for_itself():
                return "TIMER_FIRED" in await working.events(run)

            await until(waits_for_itself, "the wait after a look in vain")
        await working.ends(run)
    return await working.handle(run).fetch_history()


# --- mail


async def mailing(working, *steps, **box):
    """A new mailbox, and an enrollment whose mails leave through it."""
    await people(working)
    mailbox = await make_mailbox(
        working.base, "Secret mailbox", from_name="Rob Roy", from_email="rob.roy@example.com", **box
    )
    sequence_ = await publish(working.base, sequence(*steps))
    (jane,) = await working.base.rows("SELECT id FROM contacts")
    (enrolled,) = await enroll(working.base, sequence_, jane["id"])
    return mailbox, enrolled.enrollment


def letter(step):
    return mail(step, "Secret subject", "Hello {{ contact.firstName }}")


async def left(working, count):
    async def have():
        await working.flow()
        return await working.base.value(
            "SELECT count(*) = :count FROM intents WHERE accepted_at IS NOT NULL", count=count
        )

    await until(have, f"{count} mails")


async def enrollment_of_three_mails(working, hurrying):
    steps = (letter("one"), wait("a", 4, "hours"), letter("two"), wait("b", 4, "hours"), letter("three"))
    async with hurrying.flowing():
        _, enrollment = await mailing(hurrying, *steps)
        await hurrying.stands(enrollment, status="ended")
        await hurrying.ends(enrollment, Target.ENROLLMENT)
    return await hurrying.handle(enrollment, Target.ENROLLMENT).fetch_history()


async def enrollment_that_waits_for_its_mail(working, hurrying):
    _, enrollment = await mailing(working, letter("one"), wait("a"), task(title="Call Jane"), paused_at=PAUSED)
    await working.flow()
    await working.waits(enrollment, "a", Target.ENROLLMENT)
    await working.later(timedelta(days=3))
    await working.stands(enrollment, awaits="message")
    await working.ends(enrollment, Target.ENROLLMENT)
    return await working.handle(enrollment, Target.ENROLLMENT).fetch_history()


async def drain_woken_while_it_lingers(working, hurrying):
    mailbox, _ = await mailing(working, letter("one"), wait("a"), letter("two"))
    await left(working, 1)
    await until(lambda: working.asleep(mailbox, Target.MAILBOX), "the drain's wait")
    await working.later(timedelta(days=3))
    await left(working, 2)
    await until(lambda: working.asleep(mailbox, Target.MAILBOX), "the drain's wait")
    return await working.handle(mailbox, Target.MAILBOX).fetch_history()


async def drain_at_a_pace_that_ends(working, hurrying):
    mailbox, _ = await mailing(working, letter("one"), letter("two"), letter("three"), pace={"spacing": 0.4})
    with patch("activities.send.NAP", 0.1), patch("workflows.drain.LINGERS", 0.5):
        await left(working, 3)
        await working.ends(mailbox, Target.MAILBOX)
    return await working.handle(mailbox, Target.MAILBOX).fetch_history()


async def drain_continued_as_new(working, hurrying):
    mailbox, _ = await mailing(working, letter("one"))
    await left(working, 1)
    return await flooded(working, working.handle(mailbox, Target.MAILBOX))


SCENARIOS = (
    in_its_first_wait, through_two_waits, poked_while_waiting, done_at_once, continued_as_new,
    a_reminder_fired_and_escalated, begun_when_it_is_due, stuck, stuck_and_retried, through_an_outage,
    enrollment_of_three_mails, enrollment_that_waits_for_its_mail,
    drain_woken_while_it_lingers, drain_at_a_pace_that_ends, drain_continued_as_new,
)  # fmt: skip


def replayer(*workflows: type) -> Replayer:
    return Replayer(
        workflows=workflows,
        data_converter=pydantic_data_converter,
        workflow_runner=sandbox(),
    )


async def replay(history: WorkflowHistory, *workflows: type) -> Exception | None:
    """What the replay failed with; bounded, because a malformed history hangs the replayer."""
    result = await asyncio.wait_for(replayer(*workflows).replay_workflow(history, raise_on_replay_failure=False), 30)
    return result.replay_failure


def read(path: Path) -> str:
    return gzip.decompress(path.read_bytes()).decode() if path.suffix == ".gz" else path.read_text()


def write(name: str, history: str) -> None:
    text = json.dumps(_without_traces(json.loads(history)), indent=1) + "\n"
    if len(text) > LONG:
        (FOLDER / f"{name}.json.gz").write_bytes(gzip.compress(text.encode(), mtime=0))
    else:
        (FOLDER / f"{name}.json").write_text(text)


def _without_traces(value: Any) -> Any:
    """Without the files of whoever recorded it."""
    if isinstance(value, dict):
        return {name: _without_traces(one) for name, one in value.items() if name != "stackTrace"}
    return [_without_traces(one) for one in value] if isinstance(value, list) else value


def recorded(path: Path) -> WorkflowHistory:
    return WorkflowHistory.from_json(path.name.partition(".")[0], read(path))


def recordings(workflow_: type | None = None) -> list[Path]:
    """All of them, or those of one workflow."""
    every = sorted(FOLDER.glob("*.json*"))
    return [path for path in every if workflow_ is None or path.name.startswith("drain") == (workflow_ is Drain)]


def texts(value: object) -> Iterator[str]:
    """Every text of a JSON value, and what it says where it is base64."""
    if isinstance(value, dict):
        for key, one in value.items():
            yield key
            yield from texts(one)
    elif isinstance(value, list):
        for one in value:
            yield from texts(one)
    elif isinstance(value, str):
        yield value
        try:
            yield base64.b64decode(value, validate=True).decode(errors="replace")
        except ValueError:
            return


def personal(history: str) -> set[str]:
    everything = "\n".join(texts(json.loads(history))).casefold()
    return {one for one in PERSONAL if one.casefold() in everything}


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
async def test_a_real_run_replays_and_holds_nothing_personal(scenario, working, hurrying, request, monkeypatch):
    if not request.config.getoption("--record"):  # what is kept has had as many pokes as a run may have
        monkeypatch.setattr(walk, "POKES_A_RUN", 200)
        monkeypatch.setattr(drain, "POKES_A_RUN", 200)
    history = await scenario(working, hurrying)
    assert await replay(history, Walk, Drain) is None
    text = history.to_json()
    assert personal(text) == set()
    if request.config.getoption("--record"):
        write(scenario.__name__, text)
    assert list(FOLDER.glob(f"{scenario.__name__}.json*")), (
        "record it: pytest tests/workflows/test_histories.py --record"
    )


@pytest.mark.parametrize("path", recordings(), ids=lambda path: path.name.partition(".")[0])
async def test_a_recorded_history_replays(path):
    assert await replay(recorded(path), Walk, Drain) is None


@pytest.mark.parametrize("path", recordings(), ids=lambda path: path.name.partition(".")[0])
def test_a_recorded_history_holds_nothing_personal(path):
    assert personal(read(path)) == set()


def test_the_search_for_personal_data_sees_through_payloads():
    payload = base64.b64encode(b'{"title": "Secret deal", "to": "MONA.LISA@example.com"}').decode()
    assert personal(json.dumps({"a": [{"data": payload}]})) == {"Secret deal", "mona.lisa@example.com"}


@workflow.defn(name="Walk", sandboxed=False)  # its module is this one, which the sandbox would load whole
class RegularActivity:
    """A Walk changed without a patch: one regular activity in place of the local one."""

    def __init__(self) -> None:
        self.pokes = 0

    @workflow.signal(name=POKE)
    def poke(self) -> None:
        self.pokes += 1

    @workflow.run
    async def run(self, waiter: Waiter) -> None:
        while True:
            seen = self.pokes
            answer = await workflow.execute_activity(
                ADVANCE, waiter, result_type=Answer, start_to_close_timeout=timedelta(seconds=3)
            )
            if answer.done:
                return
            try:
                await workflow.wait_condition(lambda: self.pokes > seen, timeout=answer.seconds)  # noqa: B023  (awaited here)
            except TimeoutError:
                continue


@workflow.defn(name="Walk", sandboxed=False)  # its module is this one, which the sandbox would load whole
class SleepsFirst(RegularActivity):
    """A Walk changed without a patch: a timer before everything."""

    @workflow.run
    async def run(self, waiter: Waiter) -> None:
        await workflow.sleep(1)
        answer = await workflow.execute_local_activity(
            ADVANCE, waiter, result_type=Answer, start_to_close_timeout=timedelta(seconds=3)
        )
        await workflow.wait_condition(lambda: answer.done)


@workflow.defn(name="Drain", sandboxed=False)  # its module is this one, which the sandbox would load whole
class LocalActivity:
    """A Drain changed without a patch: one local activity in place of the regular one."""

    @workflow.signal(name=POKE)
    def poke(self) -> None:
        pass

    @workflow.run
    async def run(self, mailbox: Mailbox) -> None:
        await workflow.execute_local_activity(
            DRAIN, mailbox, result_type=Answer, start_to_close_timeout=timedelta(seconds=3)
        )


@workflow.defn(name="Drain", sandboxed=False)  # its module is this one, which the sandbox would load whole
class LingersFirst(LocalActivity):
    """A Drain changed without a patch: a timer before everything."""

    @workflow.run
    async def run(self, mailbox: Mailbox) -> None:
        await workflow.sleep(1)
        await workflow.execute_activity(
            DRAIN, mailbox, task_queue=mailbox.queue, result_type=Answer, start_to_close_timeout=timedelta(minutes=3)
        )


CHANGED = [
    pytest.param(path, changed, id=f"{path.name.partition('.')[0]}-{changed.__name__}")
    for original, changes in (
        (Walk, (RegularActivity, SleepsFirst, AlteredWalk)),
        (Drain, (LocalActivity, LingersFirst)),
    )
    for path in recordings(original)
    for changed in changes
]


@pytest.mark.parametrize(("path", "changed"), CHANGED)
async def test_a_workflow_that_was_changed_without_a_patch_fails_every_recorded_history(path, changed):
    failure = await replay(recorded(path), changed)
    assert failure is not None
    assert "TMPRL1100" in str(failure)  # what Temporal calls nondeterminism
