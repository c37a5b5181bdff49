import json
import os
import subprocess
import sys

import pytest

from domain.words import StuckReason
from runtime import doctor
from runtime.folders import CHECKOUT
from runtime.settings import Settings
from store import executions
from tests.driving import advance, enrolled, mail, make_mailbox, on_stage, sequence, start_run, task, wait


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


def test_the_command_answers_programs_in_json_and_people_in_words_and_fails_when_something_is_ill(settings):
    environment = {
        **os.environ,
        "DRUMBEAT_DATABASE_URL": settings.secret("database_url"),
        "DRUMBEAT_RELAY_DATABASE_URL": settings.secret("relay_database_url"),
    }
    done = subprocess.run(
        [sys.executable, "-m", "cli", "doctor", "--repair"],
        cwd=CHECKOUT, env=environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
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
