"""`advance` as a function of rows and now: what goes wrong, what passes, what a person stops."""

import asyncio
from datetime import timedelta
from uuid import uuid4

import pytest
from temporalio.exceptions import ApplicationError

from activities import advance as advance_module
from activities.advance import Advance
from domain.words import Target
from store import contacts, deals, executions, stops
from store.transaction import Database
from tests.driving import act, advance, as_admin, blocked, branch, drive, is_, on_stage, start_run, task, until, wait
from tests.store.raw import connected
from workflows.contracts import Waiter

RUN = "SELECT * FROM executions"


async def row(base):
    (found,) = await base.rows(RUN)
    return found


async def steps(base):
    return [effect["step"] for effect in await base.rows("SELECT step FROM effects ORDER BY number")]


async def test_a_row_that_is_not_there_is_done(base):
    assert (await advance(base, uuid4())).done
    assert (await advance(base, uuid4(), "reminder")).done


async def test_a_wait_answers_the_real_seconds_that_are_left_and_leaves_the_row_with_its_why(base):
    run = await start_run(base, on_stage(wait("pause", 3, "hours"), task()))
    answer = await advance(base, run)
    assert 3 * 3600 - 30 < answer.seconds <= 3 * 3600
    found = await row(base)
    at = await base.value("SELECT at FROM events WHERE type = 'deal.stage_changed'")
    assert found["due_at"] == at + timedelta(hours=3)
    assert [link["rule"] for link in found["waits"]["chain"]] == ["hours"]
    await base.pass_time(timedelta(hours=2))
    assert (await advance(base, run)).seconds <= 3600
    assert await steps(base) == []


async def test_nothing_is_early_not_even_by_a_second(base):
    run = await start_run(base, on_stage(wait("pause", 3, "hours"), task()))
    await advance(base, run)
    due = (await row(base))["due_at"]
    await base.pass_time(due - timedelta(seconds=5) - await base.value("SELECT business_now()"))
    assert (await advance(base, run)).seconds > 0
    assert await steps(base) == []
    await base.pass_time(timedelta(seconds=5))
    assert (await advance(base, run)).done
    assert await steps(base) == ["pause", "task"]


async def test_lateness_does_not_add_up(base):
    run = await start_run(base, on_stage(wait("a", 1), wait("b", 1), task()))
    at = await base.value("SELECT at FROM events WHERE type = 'deal.stage_changed'")
    await advance(base, run)
    await base.pass_time(timedelta(days=1, hours=7))
    await advance(base, run)
    assert (await row(base))["due_at"] == (await row(base))["anchor"] + timedelta(days=1)
    assert (await row(base))["anchor"] - at == timedelta(days=1)


async def test_a_long_walk_takes_fifty_steps_a_transaction_and_asks_to_go_on_at_once(base):
    run = await start_run(
        base, on_stage(*(branch(f"b{number}", is_("deal.stage", "eq", "proposal")) for number in range(60)))
    )
    answer = await advance(base, run)
    assert (answer.done, answer.seconds) == (False, 0)
    assert len(await steps(base)) == 50
    assert (await advance(base, run)).done
    assert len(await steps(base)) == 60


async def test_a_slow_walk_keeps_what_it_did_in_its_second_and_asks_to_go_on(base, monkeypatch):
    monkeypatch.setattr(advance_module, "MAX_SECONDS", 0.0)
    run = await start_run(base, on_stage(task("a"), task("b")))
    for taken in (["a"], ["a", "b"]):
        answer = await advance(base, run)
        assert (answer.done, answer.seconds) == (False, 0)
        assert await steps(base) == taken
    assert (await advance(base, run)).done


# --- stuck and retry


async def test_retry_goes_on_from_the_failed_step_with_the_same_keys(base):
    fix = act("set", "set_field", field="contact.title", value="CEO")
    run = await start_run(base, on_stage(task(), fix, task("after")))
    await advance(base, run)
    assert (await row(base))["status"] == "stuck"
    assert (await advance(base, run)).done  # a look at a stuck row changes nothing
    async with base.transaction() as tx:
        contact = await contacts.create(tx, {"email": "jo@example.com"})
        await deals.change(tx, (await row(base))["deal_id"], {"contact_id": contact.id})
    async with base.transaction() as tx:
        await executions.retry(tx, run, Target.RUN)
    assert (await advance(base, run)).done
    assert await steps(base) == ["task", "set", "after"]
    assert await base.value("SELECT count(*) FROM activities") == 2
    assert (await row(base))["status"] == "ended"


async def test_a_step_before_the_failing_one_is_kept_though_they_were_tried_together(base):
    run = await start_run(base, on_stage(task("a"), task("b"), act("x", "move_stage", to="nowhere")))
    await advance(base, run)
    assert await steps(base) == ["a", "b"]
    found = await row(base)
    assert (found["step"], found["steps_taken"], found["status"]) == ("x", 2, "stuck")
    assert await base.value("SELECT count(*) FROM activities") == 2


async def test_a_position_that_the_version_does_not_have_is_for_a_person(base):
    run = await start_run(base, on_stage(wait(), task()))
    await base.rows("UPDATE executions SET step = 'gone' RETURNING id")
    await advance(base, run)
    assert (await row(base))["stuck_reason"] == "document_unreadable"


async def test_an_error_nobody_foresaw_makes_the_run_stuck_and_undoes_its_transaction(base):
    run = await start_run(base, on_stage(task(), wait("w", 1)))
    await as_admin(base, "UPDATE versions SET document = '{\"steps\": 7}'")
    await advance(base, run)
    found = await row(base)
    assert (found["status"], found["stuck_reason"], found["stuck_owner_id"]) == (
        "stuck",
        "unexpected_error",
        base.admin,
    )
    assert "ValidationError" in found["stuck_detail"]
    assert await steps(base) == []


async def test_what_leaves_advance_is_a_code_and_no_data_of_any_record(base):
    secret = "jane.doe@example.com"  # noqa: S105  (somebody's address)
    run = await start_run(base, on_stage(task(title=secret)), title=secret)
    async with connected(base.admin_url) as admin:
        # Every write that could tell of the trouble fails with the record's own data in the error's text.
        await admin.execute(
            "CREATE FUNCTION explode() RETURNS trigger LANGUAGE plpgsql AS"
            f" $$ BEGIN RAISE EXCEPTION 'about {secret}'; END $$"
        )
        await admin.execute(
            "CREATE TRIGGER explode BEFORE UPDATE ON executions FOR EACH ROW EXECUTE FUNCTION explode()"
        )
        try:
            with pytest.raises(ApplicationError) as raised:
                await advance(base, run)
        finally:
            await admin.execute("DROP FUNCTION explode CASCADE")
    error = raised.value
    assert (error.message, error.type, list(error.details)) == ("unexpected_error", "unexpected_error", [])
    assert error.__cause__ is None
    assert error.__suppress_context__
    assert secret not in repr(error)


# --- what passes by itself


@pytest.mark.parametrize(
    "lock", ["SELECT id FROM deals FOR NO KEY UPDATE", "SELECT id FROM executions FOR NO KEY UPDATE"]
)
async def test_a_lock_held_by_another_is_waited_for_a_second_and_is_never_a_reason_to_be_stuck(base, lock):
    run = await start_run(base, on_stage(task()))
    async with base.transaction() as holder:
        await holder.connection.exec_driver_sql(lock)
        started = asyncio.get_running_loop().time()
        with pytest.raises(ApplicationError) as raised:
            await advance(base, run)
        assert 0.9 < asyncio.get_running_loop().time() - started < 3
    assert (raised.value.type, raised.value.non_retryable) == ("database_busy", False)
    assert (await row(base))["status"] == "open"
    assert (await advance(base, run)).done


async def test_a_connection_that_is_cut_is_never_a_reason_to_be_stuck(base):
    run = await start_run(base, on_stage(task()))
    async with base.transaction() as holder:
        await holder.connection.exec_driver_sql("SELECT id FROM deals FOR NO KEY UPDATE")
        going = asyncio.create_task(advance(base, run))

        async def cut():
            return await as_admin(
                base,
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE wait_event_type = 'Lock' AND datname = current_database()",
            )

        await until(cut, "the advance's connection")
        with pytest.raises(ApplicationError) as raised:
            await going
    assert raised.value.type == "database_busy"
    assert (await row(base))["status"] == "open"
    assert (await advance(base, run)).done


async def test_a_pool_without_a_free_connection_is_never_a_reason_to_be_stuck(base):
    run = await start_run(base, on_stage(task()))
    narrow = Database.connect(base.app_url, size=1, overflow=0, timeout=0.1)
    async with narrow.transaction(base.org):
        with pytest.raises(ApplicationError) as raised:
            await Advance(narrow).advance(Waiter.model_validate({"org": base.org, "kind": "run", "id": run}))
    await narrow.close()
    assert raised.value.type == "database_busy"
    assert (await row(base))["status"] == "open"


async def test_a_server_that_takes_no_connections_is_never_a_reason_to_be_stuck(base):
    run = await start_run(base, on_stage(task()))
    away = Database.connect(base.app_url.rpartition(":")[0] + ":1/none")
    full = Database.connect(base.app_url)
    waiter = Waiter.model_validate({"org": base.org, "kind": "run", "id": run})
    with pytest.raises(ApplicationError, match="database_busy"):
        await Advance(away).advance(waiter)
    async with connected(base.admin_url) as admin:
        await admin.execute("ALTER ROLE drumbeat_app CONNECTION LIMIT 0")
        try:
            with pytest.raises(ApplicationError, match="database_busy"):
                await Advance(full).advance(waiter)
        finally:
            await admin.execute("ALTER ROLE drumbeat_app CONNECTION LIMIT -1")
    assert (await Advance(full).advance(waiter)).done
    await full.close()


async def test_a_deadlock_is_never_a_reason_to_be_stuck(base):
    run = await start_run(base, on_stage(task()))
    async with connected(base.admin_url) as holder, holder.transaction():
        await holder.execute("SELECT id FROM executions FOR UPDATE")
        going = asyncio.create_task(advance(base, run))  # has the deal, wants the execution
        await until(lambda: blocked(base), "the advance's wait")
        await holder.execute("SET LOCAL deadlock_timeout = '10s'")  # so that it is the advance that gives way
        await holder.execute("SELECT id FROM deals FOR UPDATE")
        with pytest.raises(ApplicationError, match="database_busy"):
            await going
    assert (await row(base))["status"] == "open"
    await drive(base)
    assert await steps(base) == ["task"]


# --- a person's stop


async def test_a_stop_that_committed_first_holds(base):
    run = await start_run(base, on_stage(task()))
    async with base.transaction() as tx:
        await stops.stop(tx, run, Target.RUN, None)
        going = asyncio.create_task(advance(base, run))  # waits for the stop's lock
        await until(lambda: blocked(base), "the advance's wait")
    assert (await going).done
    assert await steps(base) == []
    assert await base.value("SELECT count(*) FROM activities") == 0
    assert (await row(base))["exit_reason"] == "stopped"


async def test_fifty_stops_and_advances_at_once_leave_no_effect_after_the_stop(base):
    run = await start_run(base, on_stage(wait("pause", 1), task()))
    await advance(base, run)
    await base.pass_time(timedelta(days=1))

    async def stop():
        async with base.transaction() as tx:
            return await stops.stop(tx, run, Target.RUN, None)

    await asyncio.gather(
        *(advance(base, run) for _ in range(5)), stop(), *(advance(base, run) for _ in range(5)), return_exceptions=True
    )
    found = await row(base)
    taken = await steps(base)
    assert found["status"] == "ended"
    assert taken == ([] if found["exit_reason"] == "stopped" else ["pause", "task"])
    assert await base.value("SELECT count(*) FROM activities") == len(taken) // 2
