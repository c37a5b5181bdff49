"""`python -m tests.chaos.guards`: takes one guard after another out of a copy of the product; the judge must find it.

Each guard is taken out as an exact replacement of text, all of one entry together: where several hold an invariant, it
breaks only without all of them. What shows it is a test of `test_moments.py`, which passes while the guard is there.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from chaos.judge import INVARIANTS
from chaos.kept import CHANGES, KEPT
from chaos.mail import ANSWERED, in_the_log
from runtime.folders import CHECKOUT

WORKFLOWS = "no workflow runs without a row that waits for it"
NAMES: Collection[str] = (
    *INVARIANTS,
    *KEPT,
    *ANSWERED,
    *(change.promise for change in CHANGES),
    *(verdict.name for verdict in in_the_log([], [], [])),
    WORKFLOWS,
)
"""Every invariant that the judge tells by name."""
MOMENTS = "tests/chaos/test_moments.py"
_SECONDS = 300
_NOT_COPIED = shutil.ignore_patterns(".*", "__pycache__", "docs", "bench", "Dockerfile", "*.svg")


@dataclass(frozen=True)
class Cut:
    """A text of the product, there once, and what is put in its place."""

    path: str
    old: str
    new: str = ""


@dataclass(frozen=True)
class Guard:
    """What holds the invariants in `breaks`, how it is taken out, and the moment at which that shows."""

    words: str
    breaks: Sequence[str]
    moment: str
    cuts: Sequence[Cut]


_CORE, _MAIL = "migrations/versions/0001_core.py", "migrations/versions/0002_mail.py"
_LET_GO = "migrations/versions/0008_let_go.py"
_EXECUTION_LOCK = Cut("store/executions.py", "        .with_for_update(of=executions, key_share=True)\n")
_WAITED = Cut("domain/decide.py", "    if situation.now < until.at:\n        return Waits(step.id, until)\n")
_STATUS_OF_MESSAGE = (
    Cut(
        "store/intents.py",
        '    if found.status != MessageStatus.PENDING:\n        return Unclaimed("taken")\n    if not found',
        "    if not found",
    ),
    Cut("store/intents.py", "            intents.c.status.in_(open_to(Happening.CLAIMED)),\n"),
)
GUARDS: Sequence[Guard] = (
    Guard(
        "PostgreSQL has written a commit to its log before it answers",
        ["every contact and deal that was made is there, once, as it was given"],
        "test_the_database_is_killed_after_an_answer",
        [
            Cut(
                "runtime/postgres.py",
                '            "log_timezone": "UTC",\n',
                '            "log_timezone": "UTC",\n            "synchronous_commit": "off",\n',
            )
        ],
    ),
    Guard(
        "an advance locks the execution",
        ["every execution ended, or is kept still or stuck for a reason that is there"],
        "test_many_advance_one_run_at_once",
        [_EXECUTION_LOCK],
    ),
    Guard(
        "an advance locks the execution, and an effect's key is unique",
        ["no step was taken twice, and none is missing in between", "every step made what it says, once"],
        "test_many_advance_one_run_at_once",
        [
            _EXECUTION_LOCK,
            Cut(
                _CORE, "  PRIMARY KEY (org_id, execution_id, step, visit),\n  UNIQUE (org_id, execution_id, number),\n"
            ),
        ],
    ),
    Guard(
        "what a step makes and that it was taken are one transaction",
        ["nothing was made but by a step that says so"],
        "test_a_step_fails_after_another_went_well",
        [
            Cut(
                "activities/advance.py",
                "        await executions.rest(self._tx,",
                "        await self._tx.connection.commit()\n        await executions.rest(self._tx,",
            )
        ],
    ),
    Guard(
        "a task is completed only while it is not",
        ["what happened to a record is told once", "every task that was answered to be done is done, by one event"],
        "test_two_people_complete_one_task_at_once",
        [Cut("store/activities.py", " & activities.c.completed_at.is_(None),\n        along=", ",\n        along=")],
    ),
    Guard(
        "what a relay takes is locked and leaves the outbox, a run's id is its event's and its rule's, "
        "and both together are unique",
        ["a rule made at most one run or one refusal of an event"],
        "test_two_relays_take_the_same_events",
        [
            Cut(
                "store/queues.py",
                '    return list((await tx.execute(_TAKING, {"the_org": tx.org, "ids": list(ids)})).all())\n',
                "    waiting = select(events).join(outbox, outbox.c.event_id == events.c.id)\n"
                "    found = list((await tx.execute(waiting.where(among(outbox.c.id, ids)))).all())\n"
                '    await tx.execute(_TAKING, {"the_org": tx.org, "ids": list(ids)})\n'
                "    return found\n",
            ),
            Cut("store/executions.py", '"id": run_id(event.id, start.rule),', '"id": uuid7(),'),
            Cut(
                "store/executions.py",
                'index_elements=["org_id", "definition_id", "event_id"], '
                "index_where=executions.c.event_id.is_not(None)",
            ),
            Cut(
                _LET_GO,
                "CREATE UNIQUE INDEX executions_of_event ON executions (org_id, event_id,",
                "CREATE INDEX executions_of_event ON executions (org_id, event_id,",
            ),
        ],
    ),
    Guard(
        "an event leaves the outbox in the transaction that decides it",
        ["every event was decided by every rule that was on and listening when it was recorded"],
        "test_a_relay_ends_in_the_middle_of_a_batch",
        [
            Cut(
                "triggers/relay.py",
                "queues.take_events(tx, ids)]\n            if events:\n",
                "queues.take_events(tx, ids)]\n"
                "        async with self._database.transaction(org, lock_seconds=1, planned=True) as tx:\n"
                "            if events:\n",
            )
        ],
    ),
    Guard(
        "who enrolls has locked the address before who is inside is read, and a contact is unique in a sequence",
        ["nobody was in a sequence twice at once"],
        "test_many_enroll_one_contact_at_once",
        [
            Cut(
                "store/enrollments.py",
                "    kept = await addresses.ensure(tx, emails)\n    before = await _before(tx, sequence, people)\n",
                "    before = await _before(tx, sequence, people)\n    kept = await addresses.ensure(tx, emails)\n",
            ),
            Cut(_MAIL, "CREATE UNIQUE INDEX executions_once", "CREATE INDEX executions_once"),
        ],
    ),
    Guard(
        "a change locks its record, counts from what is there then, and a number is unique",
        ["numbers of every subject run 1..n without a gap"],
        "test_many_edit_one_contact_at_once",
        [
            Cut(
                "store/events.py",
                '        .with_for_update(key_share=True)\n        .cte("before")',
                '        .cte("before")',
            ),
            Cut(
                "store/events.py",
                '| {"revision": table.c.revision + 1',
                '| {"revision": before.c.revision + 1',
            ),
            Cut(
                _CORE,
                "  PRIMARY KEY (org_id, id),\n  UNIQUE (org_id, subject_kind, subject_id, number)\n",
                "  PRIMARY KEY (org_id, id)\n",
            ),
        ],
    ),
    Guard(
        "an advance locks the reminder, its notification's id is its effect's key, and its occurrence is unique",
        ["every reminder fired once for each time it was set, and escalated after that"],
        "test_many_look_at_one_reminder_at_once",
        [
            Cut(
                "store/reminders.py",
                "reminders.c.due_at.is_not(None))\n        .with_for_update(key_share=True)\n",
                "reminders.c.due_at.is_not(None))\n",
            ),
            Cut("activities/advance.py", 'key.made("notification")', '__import__("uuid").uuid4()'),
            Cut(_CORE, "CREATE UNIQUE INDEX notifications_once", "CREATE INDEX notifications_once"),
        ],
    ),
    Guard(
        "a wait is over only when its time has come",
        ["every wait was waited out"],
        "test_everything_is_looked_at_before_its_time",
        [_WAITED],
    ),
    Guard(
        "a reminder fires only when its time has come",
        ["no reminder of a step fired early", "no reminder that people set fired before its time"],
        "test_everything_is_looked_at_before_its_time",
        [
            Cut(
                "activities/advance.py",
                "    if tx.now < reminder.due_at:\n        return Answer(seconds=tx.real(reminder.due_at - tx.now))\n",
            )
        ],
    ),
    Guard(
        "a mail is written when its time has come, and chosen only then",
        ["no mail was claimed before its planned instant"],
        "test_a_mailbox_is_emptied_before_a_mail_is_due",
        [_WAITED, Cut("store/intents.py", "i.status = 'pending' AND i.due_at <= :now\n", "i.status = 'pending'\n")],
    ),
    Guard(
        "a wait after a mail is not over before the mail is",
        ["no wait after a mail was over before the mail had left"],
        "test_a_wait_is_over_before_the_mail_it_counts_from_has_left",
        [
            Cut(
                "domain/decide.py",
                "    if mailed is not None and not mailed.over:\n"
                "        return Parks(step.id, Awaits.MESSAGE, until)\n",
            )
        ],
    ),
    Guard(
        "a claim reads the message's status after the locks, and takes it only from `pending`",
        [
            "no mail was sent twice, by its Message-ID or by its step, but where a person said again",
            "no attempt follows one that was accepted, or of which nothing is known",
        ],
        "test_two_senders_have_chosen_one_message",
        _STATUS_OF_MESSAGE,
    ),
    Guard(
        "what has no answer is uncertain, and not pending again",
        [
            "no mail was sent twice, by its Message-ID or by its step, but where a person said again",
            "no mail was sent again but where it was refused for certain, or a person said so",
            "whatever is in the mail server's log is said to have left, or is uncertain",
        ],
        "test_the_answer_to_a_mail_is_lost",
        [Cut("domain/delivery.py", "Happening.LOST: {_C: _U},", "Happening.LOST: {_C: _P},")],
    ),
    Guard(
        "a claim whose deadline has passed is told",
        ["every message is over, or uncertain or failed and says why"],
        "test_a_sender_ends_between_claim_and_record",
        [Cut("activities/send.py", "            await intents.expire(tx, mailbox)\n")],
    ),
    Guard(
        "a conversation that ends before the mail's first byte is a refusal",
        ["messages are uncertain only where their server may have had them, but for a handful"],
        "test_a_server_hangs_up_before_it_has_the_mail",
        [
            Cut(
                "activities/transports.py",
                'return Unknown(why) if begun else Refused(None, why, permanent=False, about="mailbox")',
                "return Unknown(why)",
            )
        ],
    ),
    Guard(
        "a claim locks its mailbox",
        ["mailboxes kept their spacing", "mailboxes kept their caps"],
        "test_many_messages_are_claimed_at_once",
        [
            Cut(
                "store/intents.py",
                "AND (SELECT count(*) FROM address) >= 0\n  FOR NO KEY UPDATE\n",
                "AND (SELECT count(*) FROM address) >= 0\n",
            )
        ],
    ),
    Guard(
        "a claim looks at its mailbox's pace once more, under the lock",
        ["mailboxes kept their spacing", "mailboxes kept their caps"],
        "test_many_messages_are_claimed_at_once",
        [Cut("store/intents.py", "_forbidden(found) or may_send(tx, standing)", "_forbidden(found)")],
    ),
    Guard(
        "a claim reads after the locks whether a stop has cancelled the message, and takes it only from `pending`",
        [
            "no mail was claimed after the commit of what ended its enrollment or deleted its contact",
            "every stop that was answered had ended its enrollment, and nothing of it was claimed after",
        ],
        "test_a_person_stops_what_a_sender_has_chosen",
        _STATUS_OF_MESSAGE,
    ),
    Guard(
        "a deletion cancels what is not sent, and a claim reads whether its contact was deleted",
        ["no mail was claimed after the commit of what ended its enrollment or deleted its contact"],
        "test_a_contact_is_deleted_that_a_sender_has_chosen",
        [
            Cut("store/contacts.py", "    await intents.cancel_to_deleted(tx, id)\n"),
            Cut(
                "store/intents.py",
                '    if found.contact_deleted_at is not None:\n        return Unclaimed("contact_deleted")\n',
            ),
        ],
    ),
    Guard(
        "a pause holds the messages that are written",
        ["what was kept still took no step and sent nothing meanwhile"],
        "test_a_person_pauses_what_a_sender_has_chosen",
        [Cut("store/enrollments.py", "    await stops.hold_messages(tx, [id])\n")],
    ),
    Guard(
        "a claim reads whether its address is suppressed",
        ["no mail was claimed after the commit of its address's suppression"],
        "test_an_address_is_suppressed_that_a_sender_has_chosen",
        [
            Cut(
                "store/intents.py",
                '    if found.suppressed is not None:\n        return Unclaimed("address_suppressed")\n',
            )
        ],
    ),
    Guard(
        "a claim locks its address, as a suppression does",
        ["no mail was claimed after the commit of its address's suppression"],
        "test_an_address_is_suppressed_while_a_claim_is_under_way",
        [
            Cut(
                "store/intents.py",
                "(SELECT address_id FROM written) FOR NO KEY UPDATE",
                "(SELECT address_id FROM written)",
            )
        ],
    ),
    Guard(
        "a letter holds what it may stop before it is answered",
        ["no mail was claimed after a reply or an unsubscription was answered"],
        "test_a_reply_comes_to_what_a_sender_has_chosen",
        [
            Cut(
                "store/letters.py",
                "        await stops.hold(tx, found.id, await stops.enrolled(tx, people))\n",
                "        pass\n",
            )
        ],
    ),
    Guard(
        "a suppression ends what is enrolled with its address",
        ["every unsubscription had ended what it should when it was answered"],
        "test_somebody_unsubscribes_from_what_a_sender_has_chosen",
        [Cut("store/suppressions.py", "    await stops.end(tx, inside, ENDS[why], note=note)\n")],
    ),
    Guard(
        "a lock that was not had in time does not count against an event",
        ["no event waits or was set aside"],
        "test_a_record_is_locked_for_longer_than_a_relay_waits",
        [Cut("triggers/relay.py", "if is_transient(error):", "if False:")],
    ),
    Guard(
        "the wakes of what has ended are forgotten",
        ["no wake waits or was set aside"],
        "test_what_was_woken_ends_before_it_is_poked",
        [Cut("triggers/dispatch.py", "        await self._forget(closed)\n", "")],
    ),
    Guard(
        "a wake is forgotten after its poke was taken (a sweep, which this moment has not, would come a minute later)",
        ["every execution ended, or is kept still or stuck for a reason that is there"],
        "test_temporal_is_away_while_something_is_poked",
        [
            Cut(
                "triggers/dispatch.py",
                "            poked, refused, away = await self._poke_all(wakes, due)\n",
                "            await self._forget(wakes)\n"
                "            poked, refused, away = await self._poke_all(wakes, due)\n",
            )
        ],
    ),
    Guard(
        "a wake is kept where a first attempt has come to a wait (a sweep, which this moment has not, would come)",
        ["every execution ended, or is kept still or stuck for a reason that is there"],
        "test_temporal_is_away_while_a_first_attempt_comes_to_a_wait",
        [Cut("triggers/dispatch.py", "[row for target in over for row in", "[row for target in free for row in")],
    ),
    Guard(
        "what has ended is answered so that its workflow ends",
        [WORKFLOWS],
        "test_a_workflow_hears_that_its_row_has_ended",
        [Cut("activities/advance.py", "_DONE = Answer(done=True)", "_DONE = Answer(seconds=3600.0)")],
    ),
    Guard(
        "a change and its event are one statement",
        [change.promise for change in CHANGES],
        "test_people_change_records",
        [
            Cut(
                "store/events.py",
                "        .add_cte(_kept(fact, heard=heard))\n    )\n    return statement if",
                "    )\n    return statement if",
            )
        ],
    ),
    Guard(
        "the match takes the version that was on when the event was recorded",
        ["every run is of the version that was on when its event was recorded, and of an event that it hears"],
        "test_a_rule_has_another_version_when_its_event_is_matched",
        [
            Cut(
                "domain/match.py",
                "            if active.since <= event.at and (active.until is None or event.at < active.until)\n",
            )
        ],
    ),
    Guard(
        "a reminder that is closed is due no more, in the verb and in the table",
        ["every reminder that was made is there, and none that was called off fired after"],
        "test_a_reminder_that_was_cancelled_is_looked_at",
        [
            Cut("store/reminders.py", "status=status.value, due_at=None, closed_at", "status=status.value, closed_at"),
            Cut(
                _CORE,
                "due_at IS NOT NULL),\n  CHECK (status NOT IN ('escalated','done','cancelled') OR due_at IS NULL)\n",
                "due_at IS NOT NULL)\n",
            ),
        ],
    ),
    Guard(
        "each time that a reminder is put off is counted",
        ["each reminder was put off as often as was answered"],
        "test_a_reminder_is_put_off_twice",
        [Cut("store/reminders.py", "snoozes=reminders.c.snoozes + 1", "snoozes=1")],
    ),
    Guard(
        "that a reminder is made and the wake that starts its wait are one statement (nobody sweeps here)",
        ["no reminder is left to fire"],
        "test_a_reminder_is_made_that_nobody_would_sweep",
        [
            Cut(
                "store/reminders.py",
                "return select(made).add_cte(queues.waking_of(ORG, Target.REMINDER, made))",
                "return select(made)",
            )
        ],
    ),
    Guard(
        "nothing is handed over but after its claim",
        ["nothing is in the mail server's log without a claim before it"],
        "test_the_answer_to_a_mail_is_lost",
        [
            Cut(
                "activities/send.py",
                "        began = time.monotonic()\n        async with self._database.transaction(org, lock_seconds=2)",
                "        began = time.monotonic()\n"
                "        await transport.send(raw, mail.from_email, mail.to_email, began + 60)\n"
                "        async with self._database.transaction(org, lock_seconds=2)",
            )
        ],
    ),
    Guard(
        "nothing but the mail server's own word says that a mail has left",
        ["every mail that is said to have left is in the mail server's log"],
        "test_a_server_hangs_up_before_it_has_the_mail",
        [
            Cut(
                "activities/transports.py",
                'return Unknown(why) if begun else Refused(None, why, permanent=False, about="mailbox")',
                "return Accepted(why)",
            )
        ],
    ),
    Guard(
        "that a mail was accepted, its event and its line on the timeline are one transaction",
        ["a message left only by an attempt, and is on the timeline once"],
        "test_two_senders_have_chosen_one_message",
        [
            Cut(
                "store/intents.py",
                "    await _works(tx, told.destination_id)\n    await _left(tx, told, execution)\n",
                "    await _works(tx, told.destination_id)\n",
            )
        ],
    ),
    Guard(
        "an end is counted where its event is numbered",
        ["messages, addresses and enrollments count their own events"],
        "test_a_person_stops_what_a_sender_has_chosen",
        [Cut("store/executions.py", '        "revision": executions.c.revision + 1,\n')],
    ),
    Guard(
        "a suppression is written to the address",
        ["every bounced and every unsubscribed address is suppressed"],
        "test_somebody_unsubscribes_from_what_a_sender_has_chosen",
        [
            Cut(
                "store/suppressions.py",
                "new = [await addresses.suppress(tx, address, why, dict(evidence)) for address in locked]",
                "new: list[bool] = []",
            )
        ],
    ),
    Guard(
        "a reply ends what it may in the transaction that reads it",
        ["every reply and bounce had ended what it should when it was read"],
        "test_a_reply_comes_to_what_a_sender_has_chosen",
        [Cut("store/letters.py", '    await stops.end(tx, inside, ExitReason.REPLIED, note=f"letter {found.id}")\n')],
    ),
    Guard(
        "who reads a letter locks it",
        ["every reply is on the timeline once, and its owner was told once"],
        "test_two_readers_have_taken_one_letter",
        [
            Cut(
                "store/letters.py",
                "(await tx.execute(statement.with_for_update(key_share=True))).one_or_none()\n\n\nasync def _write",
                "(await tx.execute(statement)).one_or_none()\n\n\nasync def _write",
            )
        ],
    ),
    Guard(
        "a letter's key is unique",
        ["every letter is kept once, and a forged one not at all"],
        "test_one_letter_comes_twice_at_once",
        [
            Cut(
                "store/letters.py",
                'on_conflict_do_nothing(index_elements=["org_id", "key"])',
                "on_conflict_do_nothing()",
            ),
            Cut(_MAIL, "  UNIQUE (org_id, key),\n"),
        ],
    ),
    Guard(
        "what a letter held is let go when it is read",
        ["no letter holds anything any more"],
        "test_somebody_is_away",
        [Cut("store/letters.py", "    await stops.release(tx, found.id)\n")],
    ),
    Guard(
        "a reply ends no enrollment of a sequence that goes on",
        ["a letter ended nothing but what a reply may end"],
        "test_a_reply_comes_to_a_sequence_that_goes_on",
        [
            Cut(
                "store/letters.py",
                "executions.c.id.in_(ids), func.coalesce(goes_on, False).is_(False))",
                "executions.c.id.in_(ids))",
            )
        ],
    ),
    Guard(
        "a lock that was not had in time does not make a letter unreadable",
        ["every letter was read, or settled by a person"],
        "test_a_record_is_locked_for_longer_than_a_letters_reader_waits",
        [Cut("triggers/letters.py", "                if is_transient(error):\n                    raise\n")],
    ),
    Guard(
        "what a letter says of itself is believed: that it is automatic",
        ["every letter that was answered was taken for what it is"],
        "test_somebody_is_away",
        [
            Cut(
                "domain/inbound_mail.py",
                '        any(value != "no" for value in submitted)\n        or any',
                "        any",
            )
        ],
    ),
    Guard(
        "a webhook's message is unique",
        ["every webhook that was answered is kept once, and was carried out once"],
        "test_a_webhook_comes_twice_and_a_forged_one_with_it",
        [Cut(_CORE, "  PRIMARY KEY (org_id, source_id, message_id),\n")],
    ),
    Guard(
        "a webhook's signature is checked",
        ["nothing forged was taken"],
        "test_a_webhook_comes_twice_and_a_forged_one_with_it",
        [
            Cut(
                "api/signatures.py",
                "if not any(hmac.compare_digest(expected, one) for one in _decoded(signatures)):",
                "if False:",
            )
        ],
    ),
)


@dataclass(frozen=True)
class Seen:
    """What the judge said without a guard."""

    guard: Guard
    broken: Sequence[str]
    output: str

    @property
    def shown(self) -> bool:
        """Whether every invariant broke that the guard holds."""
        return set(self.guard.breaks) <= set(self.broken)


def without(guard: Guard) -> Seen:
    """Runs the guard's moment on a copy of the product that lacks it. Raises ValueError where a text is not there."""
    with tempfile.TemporaryDirectory(prefix="guards-", ignore_cleanup_errors=True) as name:
        copy = Path(name) / "product"
        shutil.copytree(CHECKOUT, copy, ignore=_NOT_COPIED)
        for cut in guard.cuts:
            file = copy / cut.path
            text = file.read_text()
            if text.count(cut.old) != 1:
                raise ValueError(f"{cut.path} has {text.count(cut.old)} times: {cut.old}")
            file.write_text(text.replace(cut.old, cut.new))
        command = [
            sys.executable,
            "-m",
            "pytest",
            f"{MOMENTS}::{guard.moment}",
            "-q",
            "--tb=short",
            "-p",
            "no:cacheprovider",
        ]
        ran = subprocess.run(command, cwd=copy, capture_output=True, text=True, timeout=_SECONDS, check=False)
        output = ran.stdout + ran.stderr
        return Seen(guard, [one for one in NAMES if f"BROKEN {one}" in output], output)


def main() -> int:
    options = argparse.ArgumentParser(
        prog="python -m tests.chaos.guards", description=(__doc__ or "").partition(": ")[2]
    )
    options.add_argument("--only", default="", metavar="WORDS", help="guards or moments whose name has these words")
    wanted = options.parse_args().only
    started, missed = time.monotonic(), 0
    for guard in GUARDS:
        if wanted not in f"{guard.words} {guard.moment}":
            continue
        seen = without(guard)
        missed += not seen.shown
        how = "seen to fail" if seen.shown else "NOT SEEN"
        sys.stdout.write(f"{time.monotonic() - started:6.1f} s  {how}: without '{guard.words}'\n")
        sys.stdout.writelines(f"            broken: {one}\n" for one in seen.broken)
        if not seen.shown:
            sys.stdout.write(seen.output[-3000:] + "\n")
        sys.stdout.flush()
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
