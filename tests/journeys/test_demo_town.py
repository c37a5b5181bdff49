"""What the demo's town answers is what it means to answer, and its judge sees a fault in the log."""

from collections import Counter
from datetime import UTC, datetime, timedelta
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import SMTP

import pytest

from cli.demo import answers
from cli.demo.campaign import ENROLLED, chosen
from cli.demo.floors import FLOORS, enough
from cli.demo.judge import numbered
from cli.demo.mail_judge import Logged, in_order, in_the_log, logged, not_early, settled
from cli.demo.town import SHARES, Does, manners
from domain.inbound_mail import LetterKind, Unreadable, glance, read
from domain.mail import Mail, compose

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
ID = "<0199c0de@northwind.example.com>"
REPLY_TO = "reply+abc@reply.northwind.example.com"
PEOPLE = [f"person-{number}@example.org" for number in range(120)]


@pytest.fixture
def mail() -> EmailMessage:
    raw = compose(
        Mail(
            message_id=ID,
            at=NOON,
            from_name="Mara Lindqvist",
            from_email="rep-1@northwind.example.com",
            to_email="zoe.muller1@example.org",
            reply_to=REPLY_TO,
            subject="A question, Zoë",
            text="Hello Zoë",
            html="<p>Hello Zoë</p>",
            in_reply_to=None,
            references=(),
            unsubscribe_url="http://127.0.0.1/u/token",
            postal_address="Oslo",
        )
    )
    return message_from_bytes(raw, EmailMessage, policy=SMTP)


@pytest.mark.parametrize(
    ("by", "to", "references"),
    [
        ("token", REPLY_TO, (ID,)),
        ("references", "rep-1@northwind.example.com", (ID,)),
        ("sender", "rep-1@northwind.example.com", ()),
    ],
)
def test_a_reply_is_read_as_one_and_names_what_its_writers_program_keeps(mail, by, to, references):
    raw = answers.reply(mail, "No, thank you.", by)
    letter, seen = read(raw), glance(raw)
    assert (letter.kind, letter.text) == (LetterKind.REPLY, "No, thank you.")
    assert seen.from_email == "zoe.muller1@example.org"
    assert (seen.to_emails, seen.references) == ((to,), references)


def test_an_answering_machine_is_read_as_one(mail):
    assert read(answers.out_of_office(mail, "token")).kind is LetterKind.AUTO_REPLY


def test_a_bounce_is_read_as_one_of_that_mail_for_a_dead_address(mail):
    raw = answers.bounce(mail)
    letter = read(raw)
    assert letter.kind is LetterKind.BOUNCE
    assert letter.bounce is not None
    assert (letter.bounce.about_address, letter.bounce.original_message_id) == (True, ID)
    assert glance(raw).references == (), "its headers alone do not tell which mail it is about"


def test_an_encrypted_reply_cannot_be_read_and_names_the_mail_it_answers(mail):
    raw = answers.encrypted(mail)
    with pytest.raises(Unreadable):
        read(raw)
    assert glance(raw).references == (ID,)


def test_the_seed_decides_who_does_what_whatever_order_people_come_in():
    assert manners(7, PEOPLE) == manners(7, PEOPLE[::-1])
    assert manners(7, PEOPLE) != manners(8, PEOPLE)


def test_every_kind_of_answer_comes_in_its_share():
    counted = Counter(manner.does for manner in manners(1, PEOPLE).values())
    assert counted == {does: max(1, round(share * len(PEOPLE))) for does, share in SHARES.items()}
    assert set(counted) == set(Does)


def test_one_of_every_kind_answers_the_mail_that_comes_to_everybody():
    assert {manner.does for manner in manners(1, PEOPLE).values() if manner.mail == 1} == set(Does)


def test_who_is_wanted_is_enrolled_first_and_in_that_order():
    contacts = [{"id": str(number), "email": email} for number, email in enumerate(PEOPLE)]
    ids = [contact["id"] for contact in chosen(7, contacts, ["9", "3", "9", "60"])]
    assert (ids[:3], len(set(ids))) == (["9", "3", "60"], ENROLLED)


def test_the_least_that_must_happen_is_enough():
    assert enough(FLOORS).holds


@pytest.mark.parametrize("name", FLOORS)
def test_the_judge_sees_what_did_not_happen_as_often_as_the_story_makes_certain(name):
    few = enough({**FLOORS, name: FLOORS[name] - 1})
    assert few.offending == [f"{name}: {FLOORS[name] - 1}, not {FLOORS[name]}"]


def test_a_demo_in_which_nothing_happens_fails_by_every_floor():
    assert len(enough(dict.fromkeys(FLOORS, 0)).offending) == len(FLOORS)


@pytest.mark.parametrize(
    ("next_", "reason", "status", "how"),
    [
        ("message.accepted", "settled_by_a_person", "accepted", "in the log, as a person found; it is accepted"),
        ("message.accepted", "no_answer", "accepted", "the server's answer was recorded late; it is accepted"),
        ("message.accepted", "replied_to", "accepted", "it was answered; it is accepted"),
        ("message.accepted", None, "bounced", "not in the log, sent again; it is bounced"),
        ("message.complained", "complained", "complained", "message.complained, complained; it is complained"),
        (None, None, "uncertain", "nothing yet; it is uncertain"),
    ],
)
def test_the_report_tells_how_each_uncertain_message_was_settled(next_, reason, status, how):
    row = {"step": "hello", "email": "zoe@example.org", "status": status, "next": next_, "reason": reason}
    assert settled(row) == f"hello to zoe@example.org: {how}"


def row(message_id="a", status="accepted", **values):
    return {"id": message_id, "message_id": message_id, "status": status, "first_claim": NOON, "last_claim": NOON,
            "stopped": None, **values}  # fmt: skip


AFTER = Logged("a", NOON + timedelta(seconds=1))


@pytest.mark.parametrize(
    ("rows", "log", "holds"),
    [
        ([row()], [AFTER], (True, True, True)),
        ([row()], [], (False, True, True)),
        ([row()], [AFTER, AFTER], (False, True, True)),
        ([row(status="cancelled")], [AFTER], (True, False, True)),
        ([row(status="uncertain")], [AFTER], (True, False, True)),
        ([], [AFTER], (True, False, True)),
        ([row()], [Logged("a", NOON - timedelta(seconds=1))], (True, True, False)),
        ([row(stopped=NOON - timedelta(seconds=1))], [AFTER], (True, True, False)),
        ([row(stopped=NOON + timedelta(milliseconds=1))], [AFTER], (True, True, True)),
    ],
    ids=["well", "lost", "twice", "cancelled", "unsettled", "unknown", "before its claim", "after a stop", "under way"],
)
def test_the_judge_holds_the_rows_against_the_mail_servers_log(rows, log, holds):
    assert tuple(verdict.holds for verdict in in_the_log(rows, log)) == holds


def test_the_judge_reads_whole_lines_of_the_log_only(tmp_path):
    log = tmp_path / "mail.jsonl"
    line = '{"messageId": "a", "at": "2026-03-02T12:00:01+00:00"}'
    log.write_text(f"{line}\n{line[:20]}")
    assert logged(log) == [AFTER]


@pytest.mark.parametrize(
    ("reason", "steps", "holds"),
    [
        ("replied", "hello three-days", True),
        ("completed", "hello three-days", False),
        ("replied", "three-days hello", False),
        ("completed", "hello three-days nudge four-days call two-days known offer five-days goodbye", True),
        ("completed", "hello three-days nudge four-days call two-days known offer ideas five-days goodbye", False),
    ],
)
def test_the_judge_knows_the_steps_in_their_order(reason, steps, holds):
    assert in_order([{"id": 1, "exit_reason": reason, "steps": steps.split()}]).holds is holds


@pytest.mark.parametrize(("days", "holds"), [(3, True), (2.95, True), (2.5, False)])
def test_the_judge_sees_a_mail_that_left_before_its_wait_was_over(days, holds):
    hello = {"id": 1, "step": "hello", "claimed_at": NOON, "accepted_at": NOON}
    nudge = {"id": 1, "step": "nudge", "claimed_at": NOON + timedelta(days=days), "accepted_at": None}
    other = {"id": 2, "step": "nudge", "claimed_at": NOON, "accepted_at": NOON}
    assert not_early([hello, nudge, other]).holds is holds


def test_a_query_takes_its_values_by_name_and_keeps_its_casts():
    query, *values = numbered("SELECT :b::text, :a, :b, now()::date", {"a": 1, "b": "two"})
    assert (query, values) == ("SELECT $1::text, $2, $1, now()::date", ["two", 1])
