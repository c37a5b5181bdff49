import asyncio
import json
import os
import subprocess
import sys
from datetime import datetime
from uuid import UUID

import pytest
from typer.testing import CliRunner

from cli.commands import app
from domain.words import StuckReason
from runtime import doctor, sent_log
from runtime.folders import CHECKOUT
from runtime.settings import Settings
from store import executions, intents
from tests.driving import (
    advance,
    claimed,
    enrolled,
    mail,
    make_mailbox,
    on_stage,
    sequence,
    smtp_mailbox,
    start_run,
    task,
    the_execution,
    the_message,
    wait,
    written,
)


@pytest.fixture
def settings(base, temporal_server, monkeypatch):
    """This test's database, the run's Temporal server, and an API that nobody serves."""
    for name, value in temporal_server.environment().items():
        monkeypatch.setenv(name, value)
    return Settings(database_url=base.app_url, relay_database_url=base.relay_url, api_port=1, task_queue="nobody-polls")


async def told(settings):
    return {finding.component: finding async for finding in doctor.findings(settings)}


async def test_each_component_is_looked_at_and_one_that_is_down_does_not_hide_the_next(settings):
    findings = await told(settings)
    assert findings["database"].well
    assert findings["relay"].well
    assert findings["dispatch"].well
    assert findings["waiting"].well
    assert "no worker is polling" in findings["temporal"].words
    assert "Is `drumbeat api` running?" in findings["api"].words


async def test_a_database_that_is_away_is_named_with_the_setting_that_says_where_it_is(settings):
    away = settings.model_copy(update={"relay_database_url": Settings(
        database_url="postgresql://a:b@127.0.0.1:1/c"  # nothing listens on port 1
    ).database_url})  # fmt: skip
    findings = await told(away)
    assert "DRUMBEAT_RELAY_DATABASE_URL" in findings["database"].words
    assert findings["api"]


async def test_a_stuck_run_and_an_overdue_one_are_findings_that_say_what_to_do(base, settings):
    run = await start_run(base, on_stage(wait(), task()))
    async with base.transaction() as tx:
        await executions.get_stuck(tx, run, StuckReason.RECORD_MISSING, "gone", None)
    findings = await told(settings)
    assert "POST /runs/{id}/retry" in findings["stuck"].words
    assert not findings["stuck"].well


async def test_a_repair_shows_first_and_then_wakes_every_open_row(base, settings):
    run = await start_run(base, on_stage(wait(), task()))
    await base.value("WITH gone AS (DELETE FROM wakes RETURNING 1) SELECT count(*) FROM gone")
    dry = await doctor.repair(settings, dry=True)
    assert (dry.runs, dry.reminders, dry.done) == (1, 0, False)
    assert await base.value("SELECT count(*) FROM wakes") == 0
    done = await doctor.repair(settings, dry=False)
    assert done.done
    assert await base.value("SELECT target_id FROM wakes") == run


def run(settings, *arguments):
    environment = {
        **os.environ,
        "DRUMBEAT_DATABASE_URL": settings.secret("database_url"),
        "DRUMBEAT_RELAY_DATABASE_URL": settings.secret("relay_database_url"),
    }
    return subprocess.run(
        [sys.executable, "-m", "cli", "doctor", *arguments],
        cwd=CHECKOUT, env=environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def test_the_command_answers_programs_in_json_and_people_in_words_and_fails_when_something_is_ill(settings):
    done = run(settings, "--repair")
    assert done.returncode == 1
    answer = json.loads(done.stdout)
    assert {finding["component"] for finding in answer["findings"]} >= {"database", "temporal", "api"}
    assert answer["repair"]["done"] is False
    assert "add --yes" in done.stderr


async def test_a_repair_looks_again_at_what_awaits_a_fact_and_finds_it_still_does(base, settings):
    await make_mailbox(base)
    id_ = await enrolled(base, sequence(mail()))
    await advance(base, id_, "enrollment")
    assert await base.value("SELECT awaits FROM executions") == "message"
    await base.rows("DELETE FROM wakes RETURNING id")
    assert (await doctor.repair(settings, dry=False)).enrollments == 1
    assert await base.value("SELECT count(*) FROM wakes WHERE kind = 'enrollment'") == 1
    assert (await advance(base, id_, "enrollment")).done
    assert await base.value("SELECT awaits FROM executions") == "message"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--restored-from", "2026-05-04T09:00:00Z"], "belongs to --repair"),
        (["--repair", "--restored-from", "yesterday"], "an instant with its offset"),
        (["--repair", "--restored-from", "2026-05-04T09:00:00"], "an instant with its offset"),
        (["--log-is-complete"], "belongs to --sent-log"),
        (["--sent-log", "/nowhere/mail.log"], "does not exist"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_anything_is_looked_at(arguments, said):
    done = CliRunner().invoke(app, ["doctor", *arguments])
    assert done.exit_code == 2
    assert said in " ".join(done.output.replace("│", " ").split())


async def test_a_backup_from_the_future_is_refused_and_nothing_is_done(base, settings):
    later = await base.value("SELECT clock_timestamp() + interval '1 minute'")
    with pytest.raises(doctor.NotPast, match="is still to come"):
        await doctor.repair(settings, dry=False, restored_from=later)
    assert await base.value("SELECT sending_stopped_at IS NULL AND restored_since IS NULL FROM organizations")


async def test_the_command_holds_sending_after_a_restored_backup_and_settles_by_a_log(base, settings, tmp_path):
    await smtp_mailbox(base, 1)
    await written(base, sequence(mail()))
    message = (await the_message(base))["id"]
    await base.another()
    log = tmp_path / "mail.log"
    log.write_text(f"May  4 09:00:00 mx postfix/cleanup[7]: 4Zx: message-id=<{message}@example.com>\n")
    asked = ["--repair", "--restored-from", "2026-05-04T09:00:00+02:00", "--sent-log", str(log)]
    before = await base.rows("SELECT * FROM intents")
    dry = await asyncio.to_thread(run, settings, *asked)
    answer = json.loads(dry.stdout)
    assert (answer["repair"]["restored"], answer["repair"]["done"]) == ([str(message)], False)
    assert answer["sent_log"] == {"named": 1, "left": [str(message)], "not_sent": [], "unsettled": [], "done": False}
    assert dry.stderr.count("Nothing was done; add --yes to do it.") == 2
    assert str(message) in dry.stderr
    assert await base.rows("SELECT * FROM intents") == before
    assert await base.value("SELECT sending_stopped_at IS NULL FROM organizations")
    since = datetime.fromisoformat(asked[2])
    assert (await doctor.repair(settings, dry=False, restored_from=since)).restored == [message]
    assert (await doctor.settle(settings, [log], complete=False, dry=False)).left == [message]
    assert (await the_message(base))["status"] == "accepted"
    assert await base.value("SELECT sending_stopped_at IS NOT NULL FROM organizations")
    again = await doctor.settle(settings, [log], complete=True, dry=False)
    assert (again.left, again.not_sent, again.unsettled) == ([], [], [])


async def test_what_is_uncertain_for_another_reason_stays_a_persons_whatever_the_log_lacks(base, settings, tmp_path):
    box = await smtp_mailbox(base, 1)
    await written(base, sequence(mail(), wait()))
    message = (await the_message(base))["id"]
    claim = await claimed(base, message, box)
    async with base.transaction() as tx:
        await intents.lost(tx, claim, "cut off")
    log = tmp_path / "mail.log"
    log.touch()
    done = await doctor.settle(settings, [log], complete=True, dry=False)
    assert (done.named, done.not_sent, done.unsettled) == (0, [], [message])
    log.write_text(json.dumps({"id": f"<{message}@example.com>"}))
    assert (await doctor.settle(settings, [log], complete=False, dry=False)).left == [message]
    assert (await the_message(base))["status"] == "accepted"
    assert (await the_execution(base))["status"] == "open"


ID = UUID("0b5a2c1e-6d0b-5b1e-9a6b-5d2f4a7c1e90")


@pytest.mark.parametrize(
    "line",
    [
        f"<{ID}@example.com>",
        f"{ID}@example.com",
        f"May  4 09:00:00 mx postfix/cleanup[7]: 4Zx: message-id=<{ID}@example.com>",
        f'{{"smtp-id": "\\u003c{ID}@example.com\\u003e", "event": "delivered"}}',
        f'{{"message-id":"<{ID}@example.com>"}}',
        f"id={str(ID).upper()}@EXAMPLE.com. Delivered",
        f"{ID}@example.com,{ID}@example.com",
    ],
)
def test_a_message_id_of_ours_is_found_in_whatever_a_log_looks_like(line):
    found = sent_log.named(line.encode() + b"\n")
    assert [(id_, name.lower()) for id_, name in found.items()] == [(ID, f"<{ID}@example.com>")]


@pytest.mark.parametrize("line", ["", f"{ID}", f"{ID}@", "<1@example.com>", f"<{str(ID)[1:]}@example.com>", "\x00\xff"])
def test_what_is_no_message_id_of_ours_names_nothing(line):
    assert sent_log.named(line.encode("latin-1")) == {}


def test_a_log_is_read_line_by_line_whatever_its_bytes_are(tmp_path):
    log, other = tmp_path / "a.log", tmp_path / "b.log"
    other_id = UUID(int=ID.int + 1)
    log.write_bytes(b"\xff\xfe\n" + f"<{ID}@a.example>\n".encode() * 3)
    other.write_bytes(f"<{other_id}@b.example>".encode())
    assert sent_log.read([log, other]) == {ID: f"<{ID}@a.example>", other_id: f"<{other_id}@b.example>"}
