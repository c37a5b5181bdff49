# mypy: ignore-errors
"""Rows of an older backup: what may have left since is uncertain, in the statement that writes it or by one repair."""

from datetime import timedelta
from uuid import uuid4

import pytest

from store import intents, restoring, sending, stops
from store.intents import Claim
from tests.driving import (
    advance,
    as_admin,
    claimed,
    enroll,
    letter,
    mail,
    make_contact,
    make_mailbox,
    match_all,
    may_mail,
    on_contact,
    publish,
    receive,
    sender,
    sequence,
    smtp_mailbox,
    switch_on,
    the_execution,
    the_message,
    wait,
    written,
)
from tests.mailing import mail_server

PAST = timedelta(minutes=10)


@pytest.fixture
async def box(base):
    """A mailbox that really sends, though nobody listens."""
    return await smtp_mailbox(base, 1)


async def restored(base):
    """Marks the rows as ten minutes old."""
    since = await base.value("SELECT clock_timestamp() - CAST(:past AS interval)", past=PAST)
    async with base.transaction() as tx:
        doubt = await restoring.in_doubt(tx, since)
    async with base.app.transaction(base.org) as tx:
        marked = await restoring.mark(tx, since)
    assert sorted(marked) == sorted(doubt)
    return marked


async def two(base, document):
    """Two enrollments in one sequence with their first messages written: (enrollment, message), twice."""
    made = await publish(base, document)
    found = []
    for email in ("a@example.com", "b@example.com"):
        (one,) = await enroll(base, made, await make_contact(base, email))
        await advance(base, one.enrollment, "enrollment")
        written_ = "SELECT id FROM intents WHERE execution_id = :i"
        found.append((one.enrollment, await base.value(written_, i=one.enrollment)))
    return found


async def statuses(base):
    rows = await base.rows("SELECT status, reason FROM intents ORDER BY due_at, id")
    return [(row["status"], row["reason"]) for row in rows]


async def test_what_was_due_on_a_mailbox_that_sends_is_uncertain_and_sending_waits_for_a_person(base, box):
    await written(base, sequence(mail()))
    message = await the_message(base)
    assert await restored(base) == [message["id"]]
    now = await the_message(base)
    assert (now["status"], now["reason"], now["message_id"]) == (
        "uncertain", "restored", f"<{message['id']}@example.com>"
    )  # fmt: skip
    assert (await the_execution(base))["status"] == "open"
    (org,) = await base.rows("SELECT sending_stopped_at, sending_stopped_by, sending_note FROM organizations")
    assert org["sending_stopped_at"] is not None
    assert org["sending_stopped_by"] is None
    assert org["sending_note"].startswith("The database was restored from a backup of ")


async def test_what_is_due_later_and_what_the_local_outbox_keeps_is_in_no_doubt(base):
    await make_mailbox(base)
    await written(base, sequence(mail()))
    assert await restored(base) == []
    assert await statuses(base) == [("pending", None)]
    box = await smtp_mailbox(base, 1, "Other")
    await base.rows("UPDATE intents SET destination_id = :b, due_at = due_at + interval '1 day' RETURNING id", b=box)
    async with base.transaction() as tx:
        assert await restoring.mark(tx, tx.now) == []
    assert await statuses(base) == [("pending", None)]


async def test_what_was_held_or_claimed_may_have_left_as_well_and_its_attempt_is_over(base, box):
    (held, _), (_, message) = await two(base, sequence(mail(), wait()))
    async with base.transaction() as tx:
        await stops.hold_messages(tx, [held])
    claim = await claimed(base, message, box)
    assert isinstance(claim, Claim)
    assert len(await restored(base)) == 2
    assert await statuses(base) == [("uncertain", "restored")] * 2
    assert await base.value("SELECT outcome FROM attempts") == "uncertain"
    async with base.transaction() as tx:  # its sender was alive after all
        assert await intents.accepted(tx, claim, "250 kept")
    assert await base.value("SELECT status FROM intents WHERE id = :i", i=message) == "accepted"


async def test_a_repair_for_the_same_backup_is_made_once(base, box):
    await written(base, sequence(mail()))
    async with base.transaction() as tx:
        since = tx.now - PAST
        await restoring.mark(tx, since)
        (doubted,) = await restoring.uncertain(tx)
        assert await intents.settle(tx, doubted.id, sent=False)
        await sending.resume(tx)
    async with base.transaction() as tx:
        assert await restoring.in_doubt(tx, since) == []
        assert await restoring.mark(tx, since) == []
    assert await statuses(base) == [("pending", None)]
    assert await base.value("SELECT sending_stopped_at FROM organizations") is None


async def test_what_is_written_again_is_uncertain_at_once_if_it_was_planned_before_the_repair(base, box, statements):
    made = await publish(base, sequence(mail(), wait("wait", 1, "minutes"), mail("second", "Again"), wait("w2", 1),
                                        mail("third", "Last")))  # fmt: skip
    (one,) = await enroll(base, made, await make_contact(base))
    await base.pass_time(PAST / 2)
    await restored(base)
    statements()
    await advance(base, one.enrollment, "enrollment")
    assert len(statements()) == 6
    assert await statuses(base) == [("uncertain", "restored")]
    message = await the_message(base)
    async with base.transaction() as tx:
        assert await intents.logged(tx, message["id"], f"<{message['id']}@example.com>")
    kept = await the_message(base)
    assert (kept["status"], kept["reason"], kept["accepted_at"]) == ("accepted", "named_in_a_log", kept["due_at"])
    await advance(base, one.enrollment, "enrollment")  # a minute after the first, so this may have left, too
    assert await statuses(base) == [("accepted", "named_in_a_log"), ("uncertain", "restored")]
    second = await base.value("SELECT id FROM intents WHERE step = 'second'")
    async with base.transaction() as tx:
        assert await intents.settle(tx, second, sent=True)
    await base.pass_time(timedelta(days=2))
    await advance(base, one.enrollment, "enrollment")
    assert (await statuses(base))[-1] == ("pending", None)


async def test_an_event_that_is_matched_again_makes_the_same_run_and_the_same_message(base, box):
    await may_mail(base)
    await switch_on(base, on_contact({"kind": "act", "id": "m", "action": {
        "type": "send_email", "subject": "Hi", "text": "Hi there"}}))  # fmt: skip
    await make_contact(base)
    await match_all(base)
    first = await the_execution(base), (await the_message(base))["id"]
    await as_admin(base, "UPDATE executions SET message_id = NULL")
    for table in ("effects", "intents", "executions"):
        await as_admin(base, f"DELETE FROM {table}")
    again = "INSERT INTO outbox (org_id, event_id) SELECT org_id, id FROM events WHERE type = 'contact.created'"
    await base.rows(f"{again} RETURNING id")
    await match_all(base)
    assert ((await the_execution(base))["id"], (await the_message(base))["id"]) == (first[0]["id"], first[1])


async def test_a_log_tells_of_messages_that_were_never_tried_here_and_of_uncertain_ones_only(base, box):
    (_, tried), (_, untried) = await two(base, sequence(mail(), wait()))
    claim = await claimed(base, tried, box)
    async with base.transaction() as tx:
        await intents.postponed(tx, claim, "450 not now", counts=True)
        assert await restoring.left(tx, [tried, untried, uuid4()]) == [untried]
        assert not await intents.logged(tx, tried, f"<{tried}@example.com>")
        assert await intents.logged(tx, untried, f"<{untried}@example.com>")
        assert not await intents.logged(tx, untried, f"<{untried}@example.com>")
    assert await base.value("SELECT subject FROM activities") == "(no subject)"


async def test_an_answer_to_a_message_that_the_rows_forgot_settles_it_by_its_message_id(base, box):
    await written(base, sequence(mail(), wait()))
    (message,) = await restored(base)
    raw = letter(f"In-Reply-To: <{message}@example.com>", frm="else@example.org")
    found, _ = await receive(base, raw, "sal@example.com")
    assert await base.value("SELECT matched_by FROM letters WHERE id = :i", i=found) == "references"
    async with base.transaction() as tx:
        await intents.replied(tx, message)
    assert (await the_message(base))["status"] == "accepted"


async def test_a_further_mail_answers_one_whose_words_were_lost(base, tmp_path):
    with mail_server(tmp_path / "mail.log") as server:
        box = await smtp_mailbox(base, server.port)
        id_ = await written(
            base, sequence(mail(subject="Hello {{ contact.firstName }}"), wait("w", 1), mail("b", thread="same"))
        )
        (message,) = await restored(base)
        async with base.transaction() as tx:
            assert await intents.settle(tx, message, sent=True)
            await sending.resume(tx)
        await base.pass_time(timedelta(days=1))
        await advance(base, id_, "enrollment")
        async with sender(base) as send:
            assert await send._one(base.org, box) == 0
        (left,) = server.received()
    assert left.subject == "Re: Hello Jo"
    assert left.parsed()["In-Reply-To"] == f"<{message}@example.com>"
