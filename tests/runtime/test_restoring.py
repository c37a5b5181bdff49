"""Either store restored from an older backup, or lost: everything waiting goes on, and nothing leaves twice."""

import secrets
import shutil
import subprocess
from collections import Counter
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import pytest
from temporalio.client import Client
from temporalio.contrib.pydantic import pydantic_data_converter

from domain.keys import workflow_id
from domain.words import Target
from runtime import doctor
from runtime.migrating import migrate
from runtime.postgres import _binaries
from runtime.settings import Settings
from runtime.wiring import worker
from store import mailboxes, reminders, sending, stops
from store.transaction import Database
from tests.conftest import Base
from tests.driving import (
    enroll,
    mail,
    make_contact,
    make_deal,
    move,
    on_stage,
    publish,
    sequence,
    smtp_mailbox,
    switch_on,
    task,
    until,
    wait,
)
from tests.mailing import mail_server
from tests.workflows.working import Working
from tests.workflows.working import sending as sender
from tests.workflows.working import settings as told

SCALE = 3600
"""An hour in a second."""
THREE = sequence(
    mail("one", "One"), wait("w1", 3, "hours"), mail("two", thread="same"), wait("w2", 3, "hours"),
    mail("three", "Three"),
)  # fmt: skip


@pytest.fixture
def here(server, monkeypatch):
    for name, value in server.environment().items():
        monkeypatch.setenv(name, value)
    return server


@pytest.fixture
async def hours(empty_database):
    """A database in which an hour passes in a second."""
    admin, app, relay = empty_database
    await migrate(admin, app, relay, scale=SCALE)
    found = Base(Database.connect(app), Database.connect(relay), app, relay, admin)
    await found.people()
    yield found
    await found.app.close()
    await found.crossing.close()


@pytest.fixture
def outside(tmp_path):
    with mail_server(tmp_path / "mail.log") as started:
        yield started


@asynccontextmanager
async def serving(base, server, queue):
    """Workers and the relay's process, for as long as the block."""
    client = await Client.connect(
        server.address,
        namespace=server.environment()["TEMPORAL_NAMESPACE"],
        data_converter=pydantic_data_converter,
    )
    working, app = Working(base, client, queue), Database.connect(base.app_url)
    async with worker(client, app, told(base, queue)), sender(working), working.flowing():
        yield working
    await app.close()


async def people(base, made, *names):
    asked = await enroll(base, made, *[await make_contact(base, f"{name}@example.com") for name in names])
    return [one.enrollment for one in asked]


async def has(base, query, what, seconds=40):
    async def does():
        return await base.value(query)

    await until(does, what, seconds)


def arrived(server):
    """How often each person got each subject."""
    return Counter((mail.recipients[0].partition("@")[0], mail.subject) for mail in server.received())


def each(*names, subjects=("One", "Re: One", "Three")):
    return Counter((name, subject) for name in names for subject in subjects)


async def all_waiting(base, server, queue):
    """Three enrollments after their first mail, two runs and a reminder, all of which wait."""
    made = await publish(base, THREE)
    await switch_on(base, on_stage(wait("pause", 6, "hours"), task()))
    async with serving(base, server, queue):
        await people(base, made, "a", "b", "c")
        await has(base, "SELECT count(*) >= 3 FROM intents WHERE status = 'accepted'", "the first mails")
        for title in ("Big", "Small"):
            await move(base, await make_deal(base, title=title))
        async with base.transaction() as tx:
            due = {"owner_id": base.rep, "title": "Ring", "due_at": tx.now + timedelta(hours=6)}
            await reminders.create(tx, due)
        await has(base, "SELECT count(*) = 2 FROM executions WHERE kind = 'run' AND waits IS NOT NULL", "the waits")


async def went_on(base, outside):
    """Everything came to its end, each effect and each mail once."""
    await has(base, "SELECT count(*) = 5 FROM executions WHERE status = 'ended'", "the ends")
    await has(base, "SELECT count(*) = 1 FROM notifications WHERE reason = 'reminder'", "the reminder")
    assert arrived(outside) == each("a", "b", "c")
    assert await base.value("SELECT count(*) FROM activities WHERE type = 'task'") == 2
    assert await base.value("SELECT count(*) FROM intents WHERE status = 'accepted' AND attempts = 1") == 9


@pytest.mark.timeout(180)
async def test_temporals_store_is_lost_and_everything_that_waited_goes_on(hours, here, outside):
    queue = f"walk-{secrets.token_hex(4)}"
    await smtp_mailbox(hours, outside.port)
    await all_waiting(hours, here, queue)
    await here.stop()
    for path in here._folder.glob("*.db*"):
        path.unlink()
    await here.start()
    open_ = await hours.rows("SELECT kind, count(*) AS n FROM executions WHERE status = 'open' GROUP BY 1 ORDER BY 1")
    done = await doctor.repair(asked(hours, queue), dry=False)
    assert done.workflows is not None
    assert done.workflows.running == 0
    assert [(row["kind"], row["n"]) for row in open_] == [("enrollment", done.enrollments), ("run", done.runs)]
    async with serving(hours, here, queue):
        await went_on(hours, outside)


@pytest.mark.timeout(180)
async def test_temporals_store_is_an_older_one_and_nothing_happens_twice(hours, here, outside, tmp_path):
    queue = f"walk-{secrets.token_hex(4)}"
    await smtp_mailbox(hours, outside.port)
    await all_waiting(hours, here, queue)
    await here.stop()
    backup = tmp_path / "backup"
    backup.mkdir()
    for path in here._folder.glob("*.db*"):
        shutil.copy(path, backup)
    await here.start()
    async with serving(hours, here, queue):
        await has(hours, "SELECT count(*) >= 5 FROM intents WHERE status = 'accepted'", "second mails")
    await here.stop()
    for path in here._folder.glob("*.db*"):
        path.unlink()
    for path in backup.iterdir():
        shutil.copy(path, here._folder)
    await here.start()
    await doctor.repair(asked(hours, queue), dry=False)
    async with serving(hours, here, queue):
        await went_on(hours, outside)


@pytest.mark.timeout(240)
async def test_the_database_is_restored_from_an_older_dump_and_every_mail_leaves_once(
    hours, here, outside, postgres, tmp_path
):
    base, queue, dump = hours, f"walk-{secrets.token_hex(4)}", tmp_path / "dump"
    box = await smtp_mailbox(base, outside.port)
    made = await publish(base, THREE)
    async with serving(base, here, queue):
        await people(base, made, "early")
        (stopped,) = await people(base, made, "stopped")
        await has(base, "SELECT count(*) = 2 FROM intents WHERE status = 'accepted'", "the first mails")
        async with base.transaction() as tx:
            await stops.stop(tx, stopped, Target.ENROLLMENT, None)
            await mailboxes.pause(tx, box)
        await people(base, made, "pending", "second")
        await has(base, "SELECT count(*) >= 2 FROM intents WHERE status = 'pending'", "the pending mails")
        pg("pg_dump", base.admin_url, "--format=custom", f"--file={dump}")
        since = datetime.now(UTC)
        async with base.transaction() as tx:
            await mailboxes.resume(tx, box)
        (new,) = await people(base, made, "new")
        await has(base, "SELECT count(*) = 3 FROM intents WHERE step = 'two' AND status = 'accepted'", "second mails")
    before = arrived(outside)
    assert before["pending", "One"] == before["early", "Re: One"] == before["new", "One"] == 1

    await restored(base, postgres, dump)
    dry = await doctor.repair(asked(base, queue), dry=True, restored_from=since)
    assert await base.value("SELECT count(*) FROM intents WHERE status = 'uncertain'") == 0
    done = await doctor.repair(asked(base, queue), dry=False, restored_from=since)
    assert dry.restored is not None
    assert done.restored is not None
    assert sorted(dry.restored) == sorted(done.restored)
    assert len(done.restored) >= 2
    assert done.workflows is not None
    assert workflow_id(Target.ENROLLMENT, new) in done.workflows.gone
    assert (await doctor.repair(asked(base, queue), dry=False, restored_from=since)).restored == []

    empty = tmp_path / "empty.log"
    empty.touch()
    async with serving(base, here, queue):
        await has(base, "SELECT count(*) = 3 FROM intents WHERE status = 'uncertain'", "what was planned since")
        without = await doctor.settle(asked(base, queue), [empty], complete=False, dry=False)
        assert (without.left, without.not_sent, len(without.unsettled)) == ([], [], 3)
        assert set(done.restored) < set(without.unsettled)
        async with base.transaction() as tx:
            await sending.resume(tx)
            await mailboxes.resume(tx, box)

        async def ended():
            await doctor.settle(asked(base, queue), [outside.log], complete=True, dry=False)
            return await base.value("SELECT count(*) = 4 FROM executions WHERE status = 'ended'")

        await until(ended, "the ends", 60)
    after = arrived(outside)
    assert after - each("new") == each("early", "pending", "second") + each("stopped", subjects=["One"])
    assert max(after.values()) == 1
    assert await base.value("SELECT count(*) FROM intents WHERE status <> 'accepted'") == 0


async def restored(base, postgres, dump):
    name = base.admin_url.rpartition("/")[2]
    await base.app.close()
    await base.crossing.close()
    await postgres.drop_database(name)
    await postgres.create_database(name, template="template0")
    pg("pg_restore", base.admin_url, "--exit-on-error", str(dump))


def pg(program, url, *arguments):
    command = [_binaries() / program, f"--dbname={url}", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def asked(base, queue):
    return Settings(database_url=base.app_url, relay_database_url=base.relay_url, api_port=1, task_queue=queue)
