"""What a mail that came in is taken for; the letters are in `letters/`."""

import json
import time
from datetime import date
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from domain.inbound_mail import (
    GLANCED,
    LARGEST,
    Bounce,
    Glance,
    Letter,
    LetterKind,
    Unreadable,
    decoded,
    glance,
    letter_of,
    read,
    read_mail,
)

LETTERS = Path(__file__).parent / "letters"
NAMES = sorted(path.stem for path in LETTERS.glob("*.eml"))


def letter(name: str) -> bytes:
    return (LETTERS / f"{name}.eml").read_bytes()


def mail(*headers: str, body: str = "Hello there.", sender: str = "ann@x.com") -> bytes:
    return "\n".join([f"From: {sender}", *headers, "", body]).encode()


# At receipt


def test_a_glance_tells_what_the_headers_name() -> None:
    assert glance(letter("reply_gmail")) == Glance(
        message_id="<CAF-ann-1@mail.buyer.example.com>",
        from_email="ann@buyer.example.com",
        to_emails=("reply+mfrggzdfmztwq2lk@in.seller.example.com", "boss@buyer.example.com"),
        references=("<step-2@seller.example.com>", "<step-1@seller.example.com>"),
        subject="Re: Fünf Minuten?",
    )


@pytest.mark.parametrize("ends", [b"\r\n", b"\n", b"\r"])
@pytest.mark.parametrize("name", ["reply_gmail", "bounce_exim"])
def test_lines_may_end_in_any_way(name: str, ends: bytes) -> None:
    raw = letter(name)
    other = b"\r\n" + raw.replace(b"\n", ends)
    assert glance(other) == glance(raw)
    assert read(other) == read(raw)


@pytest.mark.parametrize(
    ("written", "found"),
    [
        ("ann@x.com", "ann@x.com"),
        (" <ANN@X.com> ", "ann@x.com"),
        ("Ann <ann@x.com>", "ann@x.com"),
        ('"Doe, Ann" <ann@x.com>', "ann@x.com"),
        ('"boss@corp.com <boss@corp.com>" <ann@x.com>', "ann@x.com"),
        ('"a \\" <boss@corp.com> \\"" <ann@x.com>', "ann@x.com"),
        ("ann@x.com (Ann (at <boss@corp.com>) Doe)", "ann@x.com"),
        ('"Ann <ann@x.com>', "ann@x.com"),
        ("Ann :( <ann@x.com>", "ann@x.com"),
        ("Friends: Ann <ann@x.com>, bob@x.com;", "ann@x.com"),
        ("undisclosed-recipients:;", None),
        ("nobody, <>, @, ann@, <ann@x.com", "ann@x.com"),
        ("=?utf-8?q?Ann=2C_=3Cboss=40corp=2Ecom=3E?= <ann@x.com>", "ann@x.com"),
        ("=?utf-8?b?broken <ann@x.com>", "ann@x.com"),
        ("Ünï <ünï@exämple.com>", "ünï@exämple.com"),
        ("<@relay.com,@other.com:ann@x.com>", "ann@x.com"),
        ("Ann\n <ann@x.com>", "ann@x.com"),
        ("no address, ann@x.com", "ann@x.com"),
        ("MAILER-DAEMON", None),
        ("ann@localhost", None),
        ("", None),
    ],
)
def test_a_sender_is_found_however_the_header_is_written(written: str, found: str | None) -> None:
    assert glance(mail(sender=written)).from_email == found


def test_of_several_senders_the_first_that_is_valid_counts() -> None:
    assert glance(b"From: nobody\nFrom: ann@x.com\nFrom: bob@x.com\n\n").from_email == "ann@x.com"


def test_a_crowd_of_recipients_does_not_hide_the_envelope_s() -> None:
    crowd = ", ".join(f"p{n}@x.com" for n in range(500))
    found = glance(mail(f"To: {crowd}", f"Cc: {crowd}", "Delivered-To: us@in.com", "X-Original-To: us2@in.com"))
    assert found.to_emails[:3] == ("us@in.com", "us2@in.com", "p0@x.com")
    assert len(found.to_emails) == 50


def test_references_are_newest_first_once_each_and_fifty_at_most() -> None:
    chain = " ".join(f"<{n}@x.com>" for n in range(80))
    found = glance(mail("In-Reply-To: <79@x.com>", f"References: {chain}", "Message-ID: garbage <m@x.com>"))
    assert found.references == tuple(f"<{n}@x.com>" for n in range(79, 29, -1))
    assert found.message_id == "<m@x.com>"


@pytest.mark.parametrize(
    ("written", "subject"),
    [
        ("plain", "plain"),
        ("a\n\tfolded   one", "a folded one"),
        ("=?utf-8?q?caf=C3=A9_au_lait?=", "café au lait"),
        ("=?UTF-8*fr?Q?caf=C3=A9?= creme", "café creme"),
        ("=?utf-8?b?w7w=?=  =?utf-8?b?w7w=?=", "üü"),
        ("=?utf-8?b?ww==?= =?utf-8?b?vA==?=", "ü"),
        ("=?utf-8?b?w7w?=", "ü"),
        ("=?utf-8?q?a?= and =?iso-8859-1?q?=FC?=", "a and ü"),
        ("=?gb2312?b?xOO6ww==?=", "你好"),
        ("=?iso-2022-jp?b?GyRCJDMbKEI=?=", "こ"),
        ("=?klingon?q?caf=C3=A9?=", "café"),
        ("=?punycode?q?caf=E9?=", "café"),
        ("=?utf-8?q?=FF=FE?=", "ÿþ"),
        ("=?utf-8?b?A?=", "A"),
        ("=?utf-8?x?A?=", "=?utf-8?x?A?="),
        ("=?utf-8?q?", "=?utf-8?q?"),
        ("=?utf-8?q?two=0D=0ABcc=3A_x=00?=", "two Bcc: x"),
        ("caf\xe9", "café"),
        ("x" * 900, "x" * 255),
        ("", ""),
    ],
)
def test_a_subject_is_decoded_onto_one_line(written: str, subject: str) -> None:
    assert glance(mail(f"Subject: {written}")).subject == subject


def test_headers_in_no_charset_at_all_are_read_as_latin_1() -> None:
    found = glance(
        b"From a@x.com Mon Mar  1 09:00:00 2027\nno header\n  folded\nSubject: caf\xe9\nFrom: \xe9 <a@x.com>\n"
    )
    assert (found.subject, found.from_email) == ("café", "a@x.com")


def test_what_stands_in_the_body_or_past_the_cap_is_not_glanced_at() -> None:
    assert glance(b"Subject: x\n\nFrom: ann@x.com\n").from_email is None
    padding = b"X-Pad: " + b"x" * (GLANCED - 40) + b"\n"
    found = glance(padding + b"From: a@x.com\nTo: ann@x.com, bob@x.com.evil.example.com\n\n")
    assert (found.from_email, found.to_emails) == ("a@x.com", ())


@pytest.mark.parametrize(
    "unit",
    [
        "=?a?q?", "=?utf-8?q?a?= ", "=?", "From: a@b.com\n", "\n a", "\t", "a@b.com, ", "a@b,", '"', '"\\', "(", "<",
        "<a@", "<a@b> ", "<a@<", ",", ":", "\\", "\xe9", "x", "To: ü@ü.com\n",
    ],
)  # fmt: skip
@pytest.mark.parametrize("header", ["", "From: ", "Subject: ", "References: "])
def test_hostile_headers_are_glanced_at_as_quickly_as_any(unit: str, header: str) -> None:
    # The line ends just before the cap: one that does not end is not glanced at.
    raw = (header + unit * GLANCED).encode()[: GLANCED - 1] + b"\n" + b"x" * GLANCED
    began = time.monotonic()
    glance(raw)
    assert time.monotonic() - began < 2


nasty = st.binary(max_size=400) | st.lists(
    st.sampled_from(
        [
            b"From: ", b"To: ", b"Subject: ", b"References: ", b"Content-Type: multipart/report; boundary=b",
            b"Content-Type: message/delivery-status", b"Content-Type: message/rfc822", b"Content-Type: text/html",
            b"Content-Type: text/plain; charset=utf-16", b"Content-Type: message/feedback-report",
            b"Content-Transfer-Encoding: base64", b"Content-Transfer-Encoding: quoted-printable",
            b"Content-Transfer-Encoding: x-uuencode", b"Action: failed", b"Status: 5.1.1", b"Return-Path: <>",
            b"From: mailer-daemon@x.com", b"From: ann@x.com", b"Message-ID: <a@b>", b"=?utf-8?b?w7w?=",
            b"=?utf-8?q?=FF", b"--b", b"--b--", b"\n", b"\n\n", b"\r\n", b" ", b"@", b"<", b">",
            b'"', b"(", b"\x00", b"\xff", b"<p>",
            b"&#0;", b"&#xD800;", b"<!--", b"<table>",
            b"begin 644 x",
            b"back on 31.02.2027", b"On 2027 a@b wrote:",
        ]
    )
    | st.binary(max_size=6)
).map(b"".join)  # fmt: skip


@given(nasty)
@example(b"")
@example(b":\n\n")
@example(b"From: \xed\xa0\x80@x.com\nSubject: \xed\xa0\x80")
def test_a_glance_never_fails(raw: bytes) -> None:
    found = glance(raw)
    assert len(found.to_emails) <= 50
    assert len(found.references) <= 50
    assert len(found.subject) <= 255
    assert not any(ord(sign) < 32 or 127 <= ord(sign) < 160 for sign in found.subject)


@given(st.text(max_size=60), st.text(max_size=60))
def test_a_glance_never_fails_for_any_text(name: str, address: str) -> None:
    glance(mail(f"To: {name}", f"Cc: <{address}@{name}.com>", sender=f"{name} <{address}>").replace(b"\x00", b""))


# The whole mail


KNOWN = [
    (
        "reply_gmail",
        "reply",
        "Gerne, am Dienstag passt es mir. Grüße\n\nAnn",
        ("<step-2@seller.example.com>", "<step-1@seller.example.com>"),
    ),
    ("reply_html_only", "reply", "Not interested — but thanks & good luck.", ("<step-1@seller.example.com>",)),
    ("reply_latin1_called_utf8", "reply", "Désolé, pas intéressé.", ()),
    (
        "reply_list_footer",
        "reply",
        "Please call me on Friday.\n\nYou get this mail as a member of the team list.",
        (),
    ),
    ("reply_forwarding_a_bounce", "reply", "I got this back, see below. Write to me instead.", ()),
    ("auto_out_of_office", "auto_reply", None, ("<step-1@seller.example.com>",)),
    ("auto_abwesend", "auto_reply", "Guten Tag, ich bin bis 12.03.2027 nicht im Büro.", ()),
    ("auto_read_receipt", "auto_reply", None, ()),
    ("delayed", "auto_reply", None, ()),
    ("delayed_in_words", "auto_reply", None, ()),
    ("dmarc_report", "auto_reply", None, ()),
    ("complaint", "complaint", None, ("<step-6@seller.example.com>",)),
    ("bounce_no_such_user", "bounce", None, ("<step-1@seller.example.com>",)),
    ("bounce_mailbox_full", "bounce", None, ("<step-2@seller.example.com>",)),
    ("bounce_international", "bounce", None, ("<step-3@seller.example.com>",)),
    ("bounce_exim", "bounce", None, ("<step-4@seller.example.com>",)),
    ("bounce_qmail", "bounce", None, ("<step-5@seller.example.com>",)),
]


@pytest.mark.parametrize(("name", "kind", "text", "original_ids"), KNOWN)
def test_a_letter_is_what_it_is(name: str, kind: str, text: str | None, original_ids: tuple[str, ...]) -> None:
    found = read(letter(name))
    assert found.kind == kind
    assert found.original_ids == original_ids
    assert (found.bounce is not None) == (kind == "bounce")
    if text is not None:
        assert found.text == text


def test_every_letter_is_in_the_table_above() -> None:
    assert sorted(name for name, *_ in KNOWN) == NAMES


def test_the_full_text_keeps_what_the_words_leave_out() -> None:
    found = read(letter("reply_gmail"))
    assert "> Would Tuesday suit you?" in found.full_text
    html = read(letter("reply_html_only"))
    assert "Would Tuesday suit you?" in html.full_text
    assert "hidden" not in html.full_text
    assert "alert" not in html.full_text


@pytest.mark.parametrize(
    ("name", "bounce"),
    [
        (
            "bounce_no_such_user",
            Bounce(
                permanent=True,
                about_address=True,
                recipient="ann@buyer.example.com",
                status="5.1.1",
                original_message_id="<step-1@seller.example.com>",
                diagnostic="550 5.1.1 <ann@buyer.example.com>: Recipient address rejected: User unknown",
            ),
        ),
        (
            "bounce_mailbox_full",
            Bounce(
                permanent=True,
                about_address=False,
                recipient="ann@buyer.example.com",
                status="5.2.2",
                original_message_id="<step-2@seller.example.com>",
                diagnostic="552 5.2.2 Over quota",
            ),
        ),
        (
            "bounce_international",
            Bounce(
                permanent=True,
                about_address=True,
                recipient="ünï@exämple.com",
                status="5.1.10",
                original_message_id="<step-3@seller.example.com>",
            ),
        ),
        (
            "bounce_exim",
            Bounce(
                permanent=True,
                about_address=True,
                recipient="ann@buyer.example.com",
                original_message_id="<step-4@seller.example.com>",
                diagnostic="550 No such user here",
            ),
        ),
        (
            "bounce_qmail",
            Bounce(
                permanent=True,
                about_address=True,
                recipient="ann@buyer.example.com",
                status="5.1.1",
                original_message_id="<step-5@seller.example.com>",
                diagnostic="Sorry, no mailbox here by that name. (#5.1.1)",
            ),
        ),
    ],
)
def test_a_bounce_says_of_whom_and_whether_the_address_is_dead(name: str, bounce: Bounce) -> None:
    assert read(letter(name)).bounce == bounce


def report(*fields: str) -> bytes:
    lines = ["Content-Type: multipart/report; boundary=b", "", "--b", "Content-Type: message/delivery-status", ""]
    return "\n".join(
        ["From: postmaster@x.com", *lines, "Reporting-MTA: dns; mx.x.com", "", *fields, "", "--b--"]
    ).encode()


@pytest.mark.parametrize(
    ("status", "diagnostic", "kept", "permanent", "about_address"),
    [
        ("5.1.1", "", "5.1.1", True, True),
        ("5.1.10", "", "5.1.10", True, True),
        ("5.1.2", "", "5.1.2", True, True),
        ("5.4.4", "", "5.4.4", True, True),
        ("5.1.6", "", "5.1.6", True, True),
        ("5.2.2", "", "5.2.2", True, False),
        ("5.3.4", "", "5.3.4", True, False),
        ("5.7.1", "smtp; 550 5.7.1 user unknown or blocked", "5.7.1", True, False),
        ("5.7.515", "", "5.7.515", True, False),
        ("5.2.1", "", "5.2.1", True, False),
        ("4.2.2", "", "4.2.2", False, False),
        ("4.4.7", "smtp; 550 5.1.1 user unknown", "4.4.7", False, False),
        ("4.0.0", "smtp; 450 4.1.1 user unknown", "4.1.1", False, False),
        ("5.0.0", "smtp; 550 5.1.1 gone", "5.1.1", True, True),
        ("5.0.0", "smtp; 550 no such user", "5.0.0", True, True),
        ("5.0.0", "smtp; 550 rejected by 5.1.1.7", "5.0.0", True, False),
        ("5.0.0", "", "5.0.0", True, False),
        ("nonsense", "smtp; 550 rejected", None, True, False),
        ("nonsense", "smtp; 451 later", None, False, False),
        ("", "", None, False, False),
        ("5.01.001", "", "5.1.1", True, True),
    ],
)
def test_the_code_decides_what_a_failure_means(status, diagnostic, kept, permanent, about_address) -> None:
    fields = ["Final-Recipient: rfc822; <Ann@X.com>", "Action: failed"]
    found = read(report(*fields, f"Status: {status}", f"Diagnostic-Code: {diagnostic}")).bounce
    assert found is not None
    assert (found.status, found.permanent, found.about_address) == (kept, permanent, about_address)
    assert found.recipient == "ann@x.com"


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        (["Action: failed"], "bounce"),
        (["Action: FAILED (for good)"], "bounce"),
        (["Status: 5.1.1"], "bounce"),
        (["Action: delivered", "Status: 2.0.0"], "auto_reply"),
        (["Action: relayed"], "auto_reply"),
        (["Action: expanded"], "auto_reply"),
        (["Action: delayed", "Status: 4.4.1"], "auto_reply"),
        (["Status: 4.4.1"], "auto_reply"),
        (["Action: delivered", "", "Action: failed"], "bounce"),
    ],
)
def test_a_report_is_a_bounce_only_where_something_failed(fields: list[str], kind: str) -> None:
    assert read(report(*fields)).kind == kind


def test_a_bounce_that_names_nobody_is_about_whom_the_enclosed_mail_went_to() -> None:
    raw = letter("bounce_mailbox_full").replace(b"Final-Recipient: rfc822; ann@buyer.example.com\n", b"")
    bounce = read(raw).bounce
    assert bounce is not None
    assert bounce.recipient == "ann@buyer.example.com"


@pytest.mark.parametrize(
    "header",
    [
        "Auto-Submitted: auto-replied",
        "Auto-Submitted: auto-generated; owner=x",
        "X-Autoreply: yes",
        "X-Autorespond:",
        "X-Autogenerated: Reply",
        "X-Mail-Autoreply: 1",
        "X-Autoreply-From: ann@x.com",
        "X-FC-MachineGenerated: true",
        "X-POST-MessageClass: 9; Autoresponder",
        "X-Apple-Action: vacation",
        "Precedence: auto_reply",
        "X-Precedence: AUTO_REPLY",
        "Return-Path: <>",
        "Subject: Automatic reply: Five minutes?",
        "Subject: Out of Office",
        "Subject: Auto: Five minutes?",
        "Subject: Abwesenheitsnotiz",
        "Subject: Automatische Antwort: Fünf Minuten?",
        "Subject: =?utf-8?q?R=C3=A9ponse_automatique_=3A?= bonjour",
        "Subject: Respuesta automática: hola",
        "Subject: Risposta automatica: ciao",
        "Subject: 自動返信",
        "Precedence: bulk\nSubject: [Ticket 1] automatic reply",
    ],
)
def test_an_answering_machine_is_known_by_what_it_says(header: str) -> None:
    assert read(mail(header)).kind == LetterKind.AUTO_REPLY


@pytest.mark.parametrize(
    "header",
    [
        "X-Auto-Response-Suppress: All",
        "X-Auto-Response-Suppress: OOF, AutoReply",
        "Auto-Submitted: no",
        "Auto-Submitted: No ; really",
        "X-Autoreply: no",
        "X-Autogenerated: forward",
        "Precedence: bulk",
        "Precedence: list\nList-Id: <team.x.com>",
        "Precedence: junk\nX-Auto-Response-Suppress: All",
        "Return-Path: <ann@x.com>",
        "Subject: Re: Automatic reply: Five minutes?",
        "Subject: I am out of office next week",
        "Subject: Automation of your office",
    ],
)
def test_a_person_is_not_taken_for_a_machine(header: str) -> None:
    assert read(mail(header)).kind == LetterKind.REPLY


def test_a_postmaster_may_be_a_person() -> None:
    assert read(mail(sender="postmaster@x.com", body="We run 5.1.1 here.")).kind == LetterKind.REPLY
    told = read(mail("Subject: Undeliverable: hello", sender="postmaster@x.com", body="<ann@x.com>: 550 5.1.1 gone"))
    assert told.bounce == Bounce(
        permanent=True,
        about_address=True,
        recipient="ann@x.com",
        status="5.1.1",
        diagnostic="<ann@x.com>: 550 5.1.1 gone",
    )


def test_a_version_in_an_automatic_reply_kills_no_address() -> None:
    assert read(mail("Return-Path: <>", body="Away. Sent by Robot 5.1.1")).kind == LetterKind.AUTO_REPLY


@pytest.mark.parametrize(
    ("text", "day"),
    [
        ("I am back on 2027-03-12.", date(2027, 3, 12)),
        ("I will return on 12 March 2027", date(2027, 3, 12)),
        ("I will return on the 12th of March 2027", date(2027, 3, 12)),
        ("Back on Friday, March 12, 2027.", date(2027, 3, 12)),
        ("Back on March 12th 2027.", date(2027, 3, 12)),
        ("Back\non 12\nMarch 2027.", date(2027, 3, 12)),
        ("Ich bin ab 12.03.2027 wieder da.", date(2027, 3, 12)),
        ("Ich bin bis zum 5. März 2027 im Urlaub.", date(2027, 3, 5)),
        ("De retour le 1er février 2027.", date(2027, 2, 1)),
        ("Vuelvo el 3 de agosto de 2027.", date(2027, 8, 3)),
        ("Rientro il 4 dicembre 2027.", date(2027, 12, 4)),
        ("Away from 1 May 2027 until 9 May 2027.", date(2027, 5, 9)),
        ("Back on 9 May 2027. Meanwhile mail Bob, or come to us at the yearly fair on 1 June 2028.", date(2027, 5, 9)),
        ("I am on leave 1 May 2027 - 9 May 2027.", date(2027, 5, 9)),
        ("Back on 12 March.", None),
        ("Back on 31.02.2027.", None),
        ("Back on 12/03/2027.", None),
        ("Back on 12 Marchember 2027.", None),
        ("Ticket 2027-03-121, 112.03.2027x, 99.99.2027", None),
        ("Back soon.", None),
    ],
)
def test_an_automatic_reply_may_say_when_its_owner_is_back(text: str, day: date | None) -> None:
    assert read(mail("Auto-Submitted: auto-replied", body=text)).back_on == day
    assert read(mail(body=text)).back_on is None


def test_a_return_date_is_read_from_a_letter_and_not_from_a_delay_notice() -> None:
    assert read(letter("auto_out_of_office")).back_on == date(2027, 3, 15)
    assert read(letter("auto_abwesend")).back_on == date(2027, 3, 12)
    assert read(letter("delayed")).back_on is None


def nested(depth: int) -> bytes:
    layers = "".join(f"Content-Type: multipart/mixed; boundary=b{n}\n\n--b{n}\n" for n in range(depth))
    return f"From: ann@x.com\n{layers}Content-Type: text/plain\n\nHello".encode()


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (b"", "it has no headers"),
        (b"just words\nand more\n\n", "it has no headers"),
        (b"Subject: x\n\nHello", "it names no sender"),
        (b"From: nobody\n\nHello", "it names no sender"),
        (b"From: ann@x.com\nContent-Type: image/png\n\nx", "it has no text"),
        (b"From: ann@x.com\nContent-Disposition: attachment\n\nx", "it has no text"),
        (nested(21), "its parts are nested too deep"),
        (nested(2000), "its parts are nested too deep"),
        (
            b"From: ann@x.com\nContent-Type: multipart/mixed; boundary=b\n\n" + b"--b\n\nx\n" * 1001,
            "it has too many parts",
        ),
        (b"From: ann@x.com\n\n" + b"x" * LARGEST, "it is larger than 30 MB"),
    ],
    ids=["empty", "words", "no-from", "bad-from", "image", "attached", "deep", "deeper", "parts", "large"],
)
def test_what_cannot_be_understood_says_why(raw: bytes, why: str) -> None:
    with pytest.raises(Unreadable) as fault:
        read(raw)
    assert fault.value.why == why
    assert json.loads(read_mail(raw)) == {"unreadable": why}
    with pytest.raises(Unreadable, match=why):
        letter_of(read_mail(raw))


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"\n\nHello", "Hello"),
        (b"Content-Type: text/plain; charset=klingon\n\ncaf\xc3\xa9", "café"),
        (b"Content-Type: text/plain; charset=us-ascii\n\ncaf\xe9", "café"),
        (b"Content-Type: text/plain; charset=windows-1252\n\n\x80 5", "€ 5"),
        (b"Content-Type: text/plain; charset=gb2312\n\n\xc4\xe3\xba\xc3", "你好"),
        (b"Content-Type: text/plain; charset=punycode\n\nhello", "hello"),
        (b'Content-Type: text/plain; charset="\n\nhello', "hello"),
        (b"Content-Type: nonsense\n\nhello", "hello"),
        (b"Content-Type: multipart/mixed\n\nhello", "hello"),
        (b"Content-Type: multipart/mixed; boundary=b\n\nhello", "hello"),
        (b"Content-Transfer-Encoding: base64\n\naGVsbG8=", "hello"),
        (b"Content-Transfer-Encoding: base64\n\n!!!!aGVsbG8", "hello"),
        (b"Content-Transfer-Encoding: quoted-printable\n\nhel=\nlo =ZZ", "hello =ZZ"),
        (b"Content-Transfer-Encoding: unheard-of\n\nhello", "hello"),
        (b"Subject: only\n\n", ""),
        (b"\n\na\x00b\x1b[31mc\r\nd\xef\xbb\xbf", "ab[31mc\nd\ufeff"),
        (b"Content-Type: text/html\n\n<p>caf&eacute; &#0;<br>&#xD800;x", "café �\n�x"),
        (b'Content-Type: text/html\n\n<?xml version="1.0" encoding="latin-1"?><p>hello', "hello"),
        (
            b"Content-Type: multipart/alternative; boundary=b\n\n--b\nContent-Type: text/html\n\n<p>html\n--b\n\nplain",
            "plain",
        ),
        (
            b"Content-Type: multipart/alternative; boundary=b\n\n--b\n\n \n--b\nContent-Type: text/html\n\n<p>html\n",
            "html",
        ),
    ],
)
def test_a_text_is_found_whatever_the_mail_says_of_itself(body: bytes, text: str) -> None:
    assert read(b"From: ann@x.com\n" + body).text == text


def test_texts_are_capped() -> None:
    found = read(mail(body="word " * 100_000))
    assert (len(found.text), len(found.full_text)) == (20_000, 100_000)
    assert letter_of(read_mail(mail(body="word " * 100_000))) == found


@pytest.mark.parametrize(
    "raw",
    [
        mail("Content-Type: text/html", body="<div>" * 200_000),
        mail("Content-Type: text/html", body="<table><tr><td>" * 60_000),
        mail("Content-Type: text/html", body="<p>x</p>" * 120_000),
        mail(body="On x wrote " * 90_000),
        mail("Content-Type: multipart/mixed; boundary=b", body="--b\n\n" * 900),
        mail("Content-Type: text/plain; " + "a;" * 400_000),
        mail("Auto-Submitted: yes", body="12 " * 300_000),
        mail("Auto-Submitted: yes", body="12 march " * 100_000),
        mail(sender="mailer-daemon", body="5.1." * 250_000),
        mail(sender="mailer-daemon", body="<a@b.com>: 550 \n" * 60_000),
        mail("Content-Transfer-Encoding: base64", body="QUJD\n" * 2_000_000),
    ],
    ids=["divs", "tables", "paragraphs", "wrote", "parts", "parameters", "12", "12-march", "codes", "daemon", "base64"],
)
def test_a_large_mail_is_read_in_good_time(raw: bytes) -> None:
    began = time.monotonic()
    read_mail(raw)
    assert time.monotonic() - began < 20


FORESEEN = {
    "it has no headers",
    "it names no sender",
    "it has no text",
    "its parts are nested too deep",
    "it has too many parts",
}


def outcome(raw: bytes) -> Letter | str:
    try:
        return read(raw)
    except Unreadable as fault:
        return fault.why


@given(nasty)
def test_reading_ends_in_a_letter_or_in_a_reason(raw: bytes) -> None:
    for whole in (raw, b"From: ann@x.com\n" + raw):
        found = outcome(whole)
        if isinstance(found, Letter):
            assert letter_of(read_mail(whole)) == found
        else:
            assert found in FORESEEN
            assert json.loads(read_mail(whole)) == {"unreadable": found}


@given(st.sampled_from(NAMES), st.data())
def test_a_damaged_letter_is_still_read_or_refused(name: str, data: st.DataObject) -> None:
    raw = letter(name)
    at = data.draw(st.integers(0, len(raw)))
    to = data.draw(st.integers(at, min(len(raw), at + 200)))
    damaged = raw[:at] + data.draw(st.binary(max_size=20)) + raw[to:]
    glance(damaged)
    answer = json.loads(read_mail(damaged))
    assert "letter" in answer or answer["unreadable"] in FORESEEN


# The answer of the confined reader


@pytest.mark.parametrize("name", NAMES)
def test_a_letter_is_the_same_after_a_trip_through_json(name: str) -> None:
    assert letter_of(read_mail(letter(name))) == read(letter(name))


def test_the_answer_is_plain_json() -> None:
    assert json.loads(read_mail(mail("Subject: Hi", "In-Reply-To: <a@b>"))) == {
        "letter": {
            "kind": "reply",
            "text": "Hello there.",
            "full_text": "Hello there.",
            "subject": "Hi",
            "original_ids": ["<a@b>"],
        }
    }


@pytest.mark.parametrize(
    "answer",
    [b"", b"\xff", b"[]", b"{}", b"null", b'{"letter": {}}', b'{"letter": {"kind": "other"}}', b"[" * 100_000,
     b'{"letter": {"kind": "reply", "text": "%s", "full_text": "", "subject": ""}}' % (b"x" * 20_001)],
)  # fmt: skip
def test_an_answer_that_makes_no_sense_is_no_letter(answer: bytes) -> None:
    with pytest.raises(Unreadable, match="the reader's answer"):
        letter_of(answer)


@given(st.binary(max_size=50), st.sampled_from([None, "", "utf-8", "UTF-16", " latin-1 ", "hex", "idna", "\x00", "é"]))
def test_bytes_become_text_in_whatever_charset_they_are_said_to_be(data: bytes, charset: str | None) -> None:
    assert isinstance(decoded(data, charset).encode(), bytes)
