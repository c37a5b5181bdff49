"""The moments at which one guard stands alone: with it the judge finds nothing, without it a named invariant breaks.

`python -m tests.chaos.guards` takes the guards out, one after another, and runs these.
"""

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from email import message_from_bytes
from typing import Any
from uuid import UUID

import asyncpg
import httpx2
import pytest
from sqlalchemy.exc import DBAPIError
from standardwebhooks import Webhook
from temporalio.exceptions import ApplicationError

from api.app import create_app
from chaos import kept
from chaos import mail as of_mail
from chaos.judge import INVARIANTS, workflows
from chaos.kept import CHANGES, KEPT, changed
from chaos.mail import ANSWERED, in_the_log
from chaos.told import Kept, Stretch, Told
from cli.demo.judge import Tables
from cli.demo.judge import judge as ask
from cli.demo.mail_judge import Logged
from cli.demo.town import Answered, Does
from domain.words import ExitReason, ReminderStatus, Role, Suppression, Target
from runtime.migrating import migrate
from runtime.postgres import Postgres
from store import (
    activities,
    contacts,
    deals,
    definitions,
    enrollments,
    identity,
    intents,
    reminders,
    stops,
    suppressions,
)
from store.errors import Refused
from store.transaction import Database
from tests.conftest import Base
from tests.driving import (
    MASTER,
    act,
    advance,
    as_admin,
    claimed,
    drive,
    enroll,
    enrolled,
    kept_from,
    letter,
    mail,
    make_contact,
    make_deal,
    make_mailbox,
    match_all,
    may_mail,
    move,
    on_contact,
    on_stage,
    publish,
    receive,
    relay_of,
    reply_to,
    sender,
    sequence,
    smtp_mailbox,
    start_run,
    switch_on,
    task,
    until,
    wait,
    written,
)
from tests.mailing import HANG_UP, mail_server, scripted_server
from tests.workflows.working import walking
from triggers.dispatch import Dispatch, TemporalAway
from triggers.letters import Letters

AT_ONCE = 4
DAY = timedelta(days=1)


class Here(Tables):
    """The tables by one connection: a new one each time costs more than the query."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        super().__init__("")
        self._connection = connection

    async def fetch(self, query: str, *values: object) -> list[Mapping[str, Any]]:
        return list(await self._connection.fetch(query, *values))


async def all_holds(
    base: Base,
    told: Told | None = None,
    log: Sequence[Logged] | None = None,
    *,
    driven: bool = True,
    dispatched: bool = False,
    changes: bool = False,
) -> None:
    """Drives everything to its end; fails with the names of the invariants that the judge finds broken then.

    Unless they were `dispatched`, wakes are taken away: whatever they ask for has been looked at. `changes` are judged
    where all of them were told.
    """
    told = told or Told()
    if driven:
        await drive(base)
    if not dispatched:
        await as_admin(base, "DELETE FROM wakes")
    connection = await asyncpg.connect(base.admin_url)
    try:
        tables = Here(connection)
        verdicts = [
            *await ask(tables, INVARIANTS),
            *await ask(tables, KEPT, **kept.given(told)),
            *await ask(tables, ANSWERED, **of_mail.given(told)),
        ]
        if changes:
            verdicts += [await changed(tables, told, change) for change in CHANGES]
        if log is not None:
            verdicts += in_the_log(await tables.fetch(of_mail._MAILS), log, [])
    finally:
        await connection.close()
    told_of = "\n".join(f"BROKEN {verdict.name}: {verdict.offending[:2]}" for verdict in verdicts if not verdict.holds)
    assert not told_of, told_of


async def meet(base: Base, *those: asyncio.Future[Any]) -> None:
    """Returns when each of them waits for a lock, or is over."""

    async def there():
        waiting = "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        return len(await as_admin(base, waiting)) + sum(one.done() for one in those) >= len(those)

    await until(there, "all of them to meet")


async def at_once(base: Base, rows: str, *those: Awaitable[Any]) -> None:
    """Has all of them come as far as these rows before any goes on; one that is refused then is no failure."""
    await asyncio.gather(*(base.value("SELECT count(*) FROM organizations") for _ in those))  # a connection each
    async with kept_from(base, rows):
        tasks = [asyncio.ensure_future(one) for one in those]
        await meet(base, *tasks)
    for answer in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(answer, BaseException) and not isinstance(answer, Refused | DBAPIError | ApplicationError):
            raise answer


async def message_of(base: Base, execution: UUID, step: str = "mail") -> UUID:
    found: UUID = await base.value(
        "SELECT id FROM intents WHERE execution_id = :x AND step = :step", x=execution, step=step
    )
    return found


async def sent_if_claimed(base: Base, message: UUID, box: UUID) -> None:
    """What a sender does that chose the message before: it claims it, and if it may, the server accepts it."""
    claim = await claimed(base, message, box)
    if isinstance(claim, intents.Claim):
        async with base.transaction() as tx:
            await intents.accepted(tx, claim, "250 ok")


def answered(does: Does, message: UUID, begun: datetime, **values: Any) -> Answered:
    return Answered("jo@example.com", does, f"<{message}@example.com>", b"", begun, datetime.now(UTC), **values)


# --- decisions and effects


async def test_many_advance_one_run_at_once(base):
    run = await start_run(
        base, on_stage(task(), wait("pause", 1, "days"), act("tell", "notify", title="Now", to="manager"))
    )
    await at_once(base, "SELECT FROM deals", *(advance(base, run) for _ in range(AT_ONCE)))
    await all_holds(base)


async def test_two_relays_take_the_same_events(base):
    await switch_on(base, on_contact(task()))
    async with base.transaction() as tx:
        for number in range(3):
            await contacts.create(tx, {"email": f"c{number}@example.com", "owner_id": base.rep})
    await at_once(base, "SELECT FROM versions", relay_of(base).once(), relay_of(base).once())
    await all_holds(base)


async def test_a_relay_ends_in_the_middle_of_a_batch(base):
    await switch_on(base, on_contact(task()))
    await make_contact(base)
    async with kept_from(base, "SELECT FROM versions"):
        relay = asyncio.ensure_future(relay_of(base).once())
        await meet(base, relay)
        relay.cancel()
        await asyncio.gather(relay, return_exceptions=True)
    await all_holds(base)


async def test_a_step_fails_after_another_went_well(base):
    await switch_on(base, on_stage(task(), act("on", "move_stage", to="nowhere")))
    await move(base, await make_deal(base))
    await all_holds(base)


async def test_two_people_complete_one_task_at_once(base):
    run = await start_run(base, on_stage(task()))
    await advance(base, run)
    made = await base.value("SELECT id FROM activities")

    async def complete() -> None:
        async with base.transaction() as tx:
            await activities.complete_task(tx, made)

    begun = datetime.now(UTC)
    await at_once(base, "SELECT FROM activities", complete(), complete())
    await all_holds(base, Told(kept=[Kept("completion", str(made), begun, datetime.now(UTC))] * 2))


async def test_many_enroll_one_contact_at_once(base):
    await make_mailbox(base)
    document = sequence(task())
    made, contact = await publish(base, document), await make_contact(base)
    await enroll(base, made, await make_contact(base, "bo@example.com"))  # so that the next find addresses to wait for
    async with base.transaction() as tx:
        await suppressions.suppress(tx, "jo@example.com", Suppression.MANUAL)
    async with base.transaction() as tx:
        await suppressions.release(tx, await base.value("SELECT id FROM addresses WHERE suppressed IS NOT NULL"))
    await at_once(base, "SELECT FROM addresses", *(enroll(base, made, contact) for _ in range(AT_ONCE)))
    await all_holds(base)


async def test_many_edit_one_contact_at_once(base):
    contact = await make_contact(base)

    async def edit(number: int) -> None:
        async with base.transaction() as tx:
            await contacts.change(tx, contact, {"title": f"Title {number}"})

    await at_once(base, "SELECT FROM contacts", *(edit(number) for number in range(AT_ONCE)))
    await all_holds(base)


async def test_people_change_records(base):
    contact, deal = await make_contact(base), await make_deal(base)
    told, begun = Told(), datetime.now(UTC)
    async with base.transaction() as tx:
        await contacts.change(tx, contact, {"title": "CEO"})
        await deals.change(tx, deal, {"value_cents": 700})
    await move(base, deal)
    for kind, subject, said in (
        ("edit_contact", contact, {"title": "CEO"}),
        ("edit_deal", deal, {"valueCents": 700}),
        ("move", deal, {"stage": "proposal"}),
    ):
        told.kept.append(Kept(kind, str(subject), begun, datetime.now(UTC), said))
    await all_holds(base, told, changes=True)


async def test_a_rule_has_another_version_when_its_event_is_matched(base):
    rule = await switch_on(base, on_contact(task()))
    await make_contact(base)
    async with base.transaction() as tx:
        await definitions.add_version(tx, rule, on_contact(task("other")), expected=None)
        await definitions.activate(tx, rule, None, expected=None)
    await all_holds(base)


# --- time


async def test_many_look_at_one_reminder_at_once(base):
    told = await reminded(base)
    made = UUID(told.kept[0].subject)
    await base.pass_time(DAY)
    await at_once(base, "SELECT FROM reminders", *(advance(base, made, "reminder") for _ in range(AT_ONCE)))
    await all_holds(base, told)


async def test_everything_is_looked_at_before_its_time(base):
    later = {"amount": 1, "unit": "days"}
    run = await start_run(
        base, on_stage(act("remind", "remind", title="Ring", after=later), wait("pause", 1, "days"), task())
    )
    await advance(base, run)
    await advance(base, run)
    await advance(base, await base.value("SELECT id FROM reminders"), "reminder")
    told = await reminded(base)
    await advance(base, UUID(told.kept[0].subject), "reminder")
    await all_holds(base, told)


async def reminded(base: Base) -> Told:
    """A person was told that there is a reminder a day from now."""
    begun = datetime.now(UTC)
    async with base.transaction() as tx:
        due_at = tx.now + DAY
        made = await reminders.create(tx, {"owner_id": base.rep, "title": "Ring", "due_at": due_at})
    assert made is not None
    return Told(kept=[Kept("reminder", str(made.id), begun, datetime.now(UTC), {"dueAt": due_at.isoformat()})])


async def test_a_reminder_that_was_cancelled_is_looked_at(base):
    told = await reminded(base)
    made, begun = told.kept[0].subject, datetime.now(UTC)
    async with base.transaction() as tx:
        await reminders.close(tx, UUID(made), ReminderStatus.CANCELLED)
    told.kept.append(Kept("cancellation", made, begun, datetime.now(UTC)))
    await base.pass_time(DAY)
    await advance(base, UUID(made), "reminder")
    await all_holds(base, told)


async def test_a_reminder_is_put_off_twice(base):
    told = await reminded(base)
    made = told.kept[0].subject
    for days in (2, 3):
        begun = datetime.now(UTC)
        async with base.transaction() as tx:
            until_ = tx.now + days * DAY
            await reminders.snooze(tx, UUID(made), until_)
        told.kept.append(Kept("snooze", made, begun, datetime.now(UTC), {"until": until_.isoformat()}))
    await all_holds(base, told)


async def test_a_wait_is_over_before_the_mail_it_counts_from_has_left(base):
    await make_mailbox(base)
    enrollment = await written(base, sequence(mail(), wait("pause", 1, "days"), task()))
    await base.pass_time(2 * DAY)
    await advance(base, enrollment, "enrollment")
    async with sender(base) as send:
        await send.empty(base.org, await base.value("SELECT id FROM destinations"))
    await all_holds(base)


async def test_a_mailbox_is_emptied_before_a_mail_is_due(base):
    box = await make_mailbox(base)
    enrollment = await enrolled(base, sequence(wait("pause", 1, "days"), mail()))
    async with sender(base) as send:
        for _ in range(2):
            await advance(base, enrollment, "enrollment")
            await send.empty(base.org, box)
            await base.pass_time(DAY)
    await all_holds(base)


# --- mail


async def test_two_senders_have_chosen_one_message(base, tmp_path):
    with mail_server(tmp_path / "mail.jsonl") as server:
        box = await smtp_mailbox(base, server.port)
        await written(base, sequence(mail()))
        async with sender(base) as one, sender(base) as other:
            await at_once(base, "SELECT FROM addresses", one.empty(base.org, box), other.empty(base.org, box))
        await all_holds(base, log=[Logged(one.message_id, one.at) for one in server.received()])


async def test_the_answer_to_a_mail_is_lost(base, tmp_path):
    with mail_server(tmp_path / "mail.jsonl", "--drop-answer-of", "1") as server:
        box = await smtp_mailbox(base, server.port)
        await written(base, sequence(mail()))
        async with sender(base) as send:
            await send.empty(base.org, box)
            await send.empty(base.org, box)
        await all_holds(base, log=[Logged(one.message_id, one.at) for one in server.received()])


async def test_a_sender_ends_between_claim_and_record(base):
    box = await make_mailbox(base)
    enrollment = await written(base, sequence(mail()))
    await claimed(base, await message_of(base, enrollment), box)
    await as_admin(base, "UPDATE intents SET deadline = clock_timestamp()")
    async with sender(base) as send:
        await send.empty(base.org, box)
    await all_holds(base)


async def test_a_server_hangs_up_before_it_has_the_mail(base):
    people = 7
    async with scripted_server({"RCPT": HANG_UP}) as server:
        box = await smtp_mailbox(base, server.port)
        made = await publish(base, sequence(mail()))
        for number in range(people):
            (made_of,) = await enroll(base, made, await make_contact(base, f"c{number}@example.com"))
            assert made_of.enrollment is not None
            await advance(base, made_of.enrollment, "enrollment")
        async with sender(base) as send:
            await send.empty(base.org, box)
            server.answers["RCPT"] = "250 2.1.5 ok"
            await as_admin(base, "UPDATE destinations SET retry_at = clock_timestamp() WHERE retry_at IS NOT NULL")
            await send.empty(base.org, box)
        log = [Logged(str(message_from_bytes(raw)["Message-ID"]), datetime.now(UTC)) for raw in server.contents]
    await all_holds(base, log=log)


async def test_many_messages_are_claimed_at_once(base):
    box = await make_mailbox(base, pace={"perMinute": 1, "spacing": 5})
    made = await publish(base, sequence(mail()))
    people = [await make_contact(base, f"c{number}@example.com") for number in range(AT_ONCE)]
    inside = [one.enrollment for one in await enroll(base, made, *people) if one.enrollment is not None]
    for one in inside:
        await advance(base, one, "enrollment")
    messages = [await message_of(base, one) for one in inside]
    await at_once(base, "SELECT FROM addresses", *(sent_if_claimed(base, one, box) for one in messages))
    async with base.transaction() as tx:
        await stops.end(tx, inside, ExitReason.STOPPED)
    await all_holds(base)


# --- stops


async def test_a_person_stops_what_a_sender_has_chosen(base):
    box = await make_mailbox(base)
    enrollment = await written(base, sequence(mail()))
    message = await message_of(base, enrollment)
    async with base.transaction() as tx:
        await stops.stop(tx, enrollment, Target.ENROLLMENT, None)
    told = Told(kept=[Kept("stop", str(enrollment), datetime.now(UTC), datetime.now(UTC))])
    await sent_if_claimed(base, message, box)
    await all_holds(base, told)


async def test_a_person_pauses_what_a_sender_has_chosen(base):
    box = await make_mailbox(base)
    enrollment = await written(base, sequence(mail()))
    message = await message_of(base, enrollment)
    async with base.transaction() as tx:
        await enrollments.pause(tx, enrollment)
    since = datetime.now(UTC)
    await sent_if_claimed(base, message, box)
    told = Told(still=[Stretch("enrollment", str(enrollment), since, datetime.now(UTC))])
    async with base.transaction() as tx:
        await enrollments.resume(tx, enrollment)
    async with sender(base) as send:
        await send.empty(base.org, box)
    await all_holds(base, told)


async def written_by_a_rule(base: Base) -> UUID:
    """A message that no enrollment's end would cancel."""
    await may_mail(base)
    await switch_on(base, on_stage(act("mail", "send_email", subject="Hello", text="Hello there")))
    await move(base, await make_deal(base, contact_id=await make_contact(base)))
    await match_all(base)
    found: UUID = await base.value("SELECT id FROM intents")
    return found


async def test_a_contact_is_deleted_that_a_sender_has_chosen(base):
    box = await make_mailbox(base)
    message = await written_by_a_rule(base)
    async with base.transaction() as tx:
        await contacts.delete(tx, await base.value("SELECT id FROM contacts"))
    await sent_if_claimed(base, message, box)
    await all_holds(base)


async def suppress(base: Base) -> None:
    async with base.transaction() as tx:
        await suppressions.suppress(tx, "jo@example.com", Suppression.MANUAL)


async def test_an_address_is_suppressed_that_a_sender_has_chosen(base):
    box = await make_mailbox(base)
    message = await written_by_a_rule(base)
    await suppress(base)
    await sent_if_claimed(base, message, box)
    async with sender(base) as send:
        await send.empty(base.org, box)
    await all_holds(base)


async def test_an_address_is_suppressed_while_a_claim_is_under_way(base):
    box = await make_mailbox(base)
    message = await written_by_a_rule(base)
    async with kept_from(base, "SELECT FROM intents"):
        claiming = asyncio.ensure_future(sent_if_claimed(base, message, box))
        await meet(base, claiming)
        suppressing = asyncio.ensure_future(suppress(base))
        await meet(base, claiming, suppressing)
    await asyncio.gather(claiming, suppressing)
    await all_holds(base)


async def goes_on_after_a_mail(base: Base, box: UUID) -> tuple[UUID, UUID, UUID]:
    """An enrollment whose first mail was sent and whose second is written; the three ids."""
    enrollment = await written(base, sequence(mail("first"), wait("pause", 1, "days"), mail("second")))
    async with sender(base) as send:
        await send.empty(base.org, box)
    await base.pass_time(DAY + timedelta(minutes=1))
    await advance(base, enrollment, "enrollment")
    return enrollment, await message_of(base, enrollment, "first"), await message_of(base, enrollment, "second")


async def test_a_reply_comes_to_what_a_sender_has_chosen(base):
    box = await make_mailbox(base)
    _, first, second = await goes_on_after_a_mail(base, box)
    begun = datetime.now(UTC)
    id_, _ = await receive(base, letter(to=reply_to(first)))
    told = Told(answered=[answered(Does.REPLY, first, begun, letter=str(id_))])
    await sent_if_claimed(base, second, box)
    await read_letters(base)
    await all_holds(base, told)


async def read_letters(base: Base, rows: str | None = None) -> None:
    """By one reader, or where `rows` are given by two at once that meet there."""
    readers = [Letters(base.crossing, base.app) for _ in range(2 if rows else 1)]
    reading = [reader.once() for reader in readers]
    await (at_once(base, rows, *reading) if rows else asyncio.gather(*reading))
    for reader in readers:
        await reader.close()


async def test_two_readers_have_taken_one_letter(base):
    _, first, _ = await goes_on_after_a_mail(base, await make_mailbox(base))
    begun = datetime.now(UTC)
    id_, _ = await receive(base, letter(to=reply_to(first)))
    await read_letters(base, "SELECT FROM contacts")
    await all_holds(base, Told(answered=[answered(Does.REPLY, first, begun, letter=str(id_))]))


async def test_a_record_is_locked_for_longer_than_a_letters_reader_waits(base):
    _, first, _ = await goes_on_after_a_mail(base, await make_mailbox(base))
    begun = datetime.now(UTC)
    id_, _ = await receive(base, letter(to=reply_to(first)))
    async with kept_from(base, "SELECT FROM contacts", "FOR NO KEY UPDATE"):
        with contextlib.suppress(DBAPIError):
            await read_letters(base)
    await read_letters(base)
    await all_holds(base, Told(answered=[answered(Does.REPLY, first, begun, letter=str(id_))]))


async def test_one_letter_comes_twice_at_once(base):
    _, first, _ = await goes_on_after_a_mail(base, await make_mailbox(base))
    begun, raw = datetime.now(UTC), letter(to=reply_to(first))
    await at_once(base, "SELECT FROM contacts", receive(base, raw), receive(base, raw))
    id_ = await base.value("SELECT id FROM letters ORDER BY id LIMIT 1")
    await read_letters(base)
    await all_holds(base, Told(answered=[answered(Does.REPLY, first, begun, letter=str(id_))]))


async def test_somebody_is_away(base):
    box = await make_mailbox(base)
    _, first, _ = await goes_on_after_a_mail(base, box)
    begun = datetime.now(UTC)
    id_, _ = await receive(base, letter("Auto-Submitted: auto-replied", to=reply_to(first)))
    await read_letters(base)
    async with sender(base) as send:
        await send.empty(base.org, box)
    await all_holds(base, Told(answered=[answered(Does.OUT_OF_OFFICE, first, begun, letter=str(id_))]))


async def test_a_reply_comes_to_a_sequence_that_goes_on(base):
    box = await make_mailbox(base)
    enrollment = await written(base, sequence(mail(), wait("pause", 1, "days"), task(), stopOnReply=False))
    async with sender(base) as send:
        await send.empty(base.org, box)
    first, begun = await message_of(base, enrollment), datetime.now(UTC)
    id_, _ = await receive(base, letter(to=reply_to(first)))
    await read_letters(base)
    await all_holds(base, Told(answered=[answered(Does.REPLY, first, begun, letter=str(id_))]))


async def test_somebody_unsubscribes_from_what_a_sender_has_chosen(base):
    box = await make_mailbox(base)
    _, first, second = await goes_on_after_a_mail(base, box)
    begun = datetime.now(UTC)
    async with base.transaction() as tx:
        await suppressions.unsubscribe(tx, first)
    told = Told(answered=[answered(Does.ONE_CLICK, first, begun)])
    await sent_if_claimed(base, second, box)
    async with sender(base) as send:
        await send.empty(base.org, box)
    await all_holds(base, told)


# --- nothing is left lying


async def test_a_record_is_locked_for_longer_than_a_relay_waits(base):
    await make_mailbox(base)
    met = {"exits": [{"on": "deal.stage_changed", "to": ["proposal"]}]}
    await enrolled(base, sequence(wait("pause", 1, "days"), **met))
    await match_all(base)
    contact = await base.value("SELECT id FROM contacts")
    await move(base, await make_deal(base, contact_id=contact))
    async with kept_from(base, "SELECT FROM contacts"):
        for _ in range(2):
            await relay_of(base).once()
    await all_holds(base)


async def test_what_was_woken_ends_before_it_is_poked(base):
    run = await start_run(base, on_stage(wait()))
    async with base.transaction() as tx:
        await stops.stop(tx, run, Target.RUN, None)

    async def nobody():
        raise TemporalAway

    await Dispatch(base.crossing, base.app, nobody, "nobody").once()
    await all_holds(base, dispatched=True)


async def test_temporal_is_away_while_something_is_poked(base, temporal):
    async with walking(base, temporal) as working:
        run = await start_run(base, on_stage(task()))

        async def nobody():
            raise TemporalAway

        with pytest.raises(TemporalAway):
            await Dispatch(base.crossing, base.app, nobody, working.queue, first_attempt=False).once()
        await working.flow()
        try:
            await working.stands(run, status="ended")
        except AssertionError:
            await all_holds(base, driven=False, dispatched=True)
            raise


async def test_temporal_is_away_while_a_first_attempt_comes_to_a_wait(time_lapse, temporal):
    async with walking(time_lapse, temporal) as working:
        run = await start_run(time_lapse, on_stage(wait("short", 6, "hours"), task()))

        async def nobody():
            raise TemporalAway

        with pytest.raises(TemporalAway):
            await Dispatch(time_lapse.crossing, time_lapse.app, nobody, working.queue).once()
        await working.flow()
        try:
            await working.stands(run, status="ended")
        except AssertionError:
            await all_holds(time_lapse, driven=False, dispatched=True)
            raise


async def test_a_reminder_is_made_that_nobody_would_sweep(base, temporal):
    async with walking(base, temporal) as working:
        made = await working.remind(timedelta(0))
        try:
            await working.reminder_stands(made, status="fired")
        except AssertionError:
            await all_holds(base, driven=False, dispatched=True)
            raise


async def test_a_workflow_hears_that_its_row_has_ended(base, temporal, temporal_server):
    async with walking(base, temporal) as working:
        run = await working.run(on_stage(wait("pause", 1, "days")))
        await working.waits(run, "pause")
        await working.later(DAY)
        await working.stands(run, status="ended")
        tables = Tables(base.admin_url)
        where = temporal_server.address, temporal_server.environment()["TEMPORAL_NAMESPACE"]

        async def gone():
            verdict = await workflows(tables, where, patience=0)
            return verdict if {"workflow": f"run-{run}"} not in verdict.offending else None

        try:
            await until(gone, "the end of the workflow", 10)
        except AssertionError:
            verdict = await workflows(tables, where, patience=0)
            await working.handle(run).terminate()
            pytest.fail(f"BROKEN {verdict.name}: {verdict.offending}")


# --- what was answered is kept


@asynccontextmanager
async def program(base: Base):
    """A client of the API with an admin's key."""
    async with base.transaction() as tx:
        _, token = await identity.create_key(tx, base.admin, "test", Role.ADMIN)
    transport, headers = httpx2.ASGITransport(create_app(base.app, MASTER)), {"Authorization": f"Bearer {token}"}
    async with httpx2.AsyncClient(transport=transport, base_url="http://drumbeat", headers=headers) as api:
        yield api


async def test_a_webhook_comes_twice_and_a_forged_one_with_it(base):
    told = Told(forged=["eve@example.com"])
    async with program(base) as api:
        source = (await api.post("/api/v1/sources", json={"name": "Forms"})).json()

        async def came(message: str, email: str, secret: str, kind: str) -> None:
            said, begun = {"email": email, "firstName": "Ada"}, datetime.now(UTC)
            body = json.dumps({"type": "contact.upsert", "data": said})
            signature = Webhook(secret).sign(message, begun, body)
            stamp = str(int(begun.timestamp()))
            headers = {"webhook-id": message, "webhook-timestamp": stamp, "webhook-signature": signature}
            answer = await api.post(
                source["source"]["path"], content=body, headers={**headers, "Content-Type": "application/json"}
            )
            if answer.status_code == 200:
                told.kept.append(Kept(kind, message, begun, datetime.now(UTC), said))

        for _ in range(2):
            await came("msg_1", "ada@example.com", source["secret"], "webhook")
        assert len(told.kept) == 2
        await came("msg_2", "eve@example.com", f"whsec_{'A' * 32}", "forged")
    await all_holds(base, told)


async def test_the_database_is_killed_after_an_answer(tmp_path):
    server = Postgres(tmp_path, options={"track_commit_timestamp": "on"})
    await server.start()
    try:
        await server.create_database("kept")
        admin = server.admin_url("kept")
        app, relay = (server.url(f"drumbeat_{role}", f"{role}-password", "kept") for role in ("app", "relay"))
        await migrate(admin, app, relay, test=True)
        base = Base(Database.connect(app), Database.connect(relay), app, relay, admin)
        await base.people()
        told = Told()
        async with program(base) as api:
            for number in range(20):
                begun, email = datetime.now(UTC), f"c{number}@example.com"
                made = await api.post("/api/v1/contacts", json={"email": email})
                assert made.status_code == 201
                id_ = made.json()["contact"]["id"]
                told.kept.append(Kept("contact", id_, begun, datetime.now(UTC), {"email": email}))
        await server.kill()
        await base.app.close()
        await server.start()
        base.app = Database.connect(app)
        await all_holds(base, told)
        await base.app.close()
        await base.crossing.close()
    finally:
        await server.stop()
