# mypy: ignore-errors
"""Outgoing mail: what any server takes, what any reader shows, and nothing a value could smuggle in."""

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from email import message_from_bytes
from email.header import decode_header, make_header
from email.policy import default
from email.utils import parseaddr
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.mail import BadMail, Mail, compose, message_id, reply_subject, wire_address

ID = UUID("01890000-0000-7000-8000-000000000001")
URL = "https://crm.example.com/u/abcdefghij"
ADDRESS = "Acme GmbH\nTorstraße 1, 10119 Berlin"
MAIL = Mail(
    message_id=message_id(ID, "acme.example"),
    at=datetime(2026, 3, 2, 9, 30, tzinfo=UTC),
    from_name="Rob Rep",
    from_email="rob@acme.example",
    to_email="carla@customer.example",
    reply_to=None,
    subject="Your trial",
    text="Hello Carla,\n\nhow is it going?\n",
    html="<html><body><p>Hello Carla</p></body></html>",
    in_reply_to=None,
    references=(),
    unsubscribe_url=None,
    postal_address=None,
)

headers = st.text(st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"]), max_size=200)
bodies = st.text(st.characters(exclude_categories=["Cs"]), max_size=2000)


def parsed(mail: Mail):
    return message_from_bytes(compose(mail), policy=default)


def body(mail: Mail, kind: str) -> str:
    return parsed(mail).get_body((kind,)).get_content().replace("\r\n", "\n")


def shown_name(raw: bytes) -> str:
    """By RFC 2047, where the standard library's newer reader puts a space between two encoded words of a name."""
    name, _ = parseaddr(message_from_bytes(raw)["From"])
    return str(make_header(decode_header(name)))


def lines(mail: Mail) -> list[str]:
    return compose(mail).decode("ascii").split("\r\n")


def newlines(text: str) -> str:
    return re.sub(r"\r\n|\r", "\n", text)


def test_a_mail_is_one_senders_to_one_recipient_with_text_before_html():
    mail = parsed(replace(MAIL, reply_to="reply+abc@in.acme.example"))
    assert mail["From"] == "Rob Rep <rob@acme.example>"
    assert mail["To"] == "carla@customer.example"
    assert mail["Reply-To"] == "reply+abc@in.acme.example"
    assert mail["Date"].datetime == MAIL.at
    assert mail["Message-ID"] == "<01890000-0000-7000-8000-000000000001@acme.example>"
    assert mail["X-Auto-Response-Suppress"] == "OOF, AutoReply"
    assert [part.get_content_type() for part in mail.walk()] == ["multipart/alternative", "text/plain", "text/html"]
    assert len(mail.keys()) == len(set(mail.keys()))
    assert not mail.defects


def test_a_mail_rebuilt_is_the_same_bytes():
    elsewhere = replace(MAIL, at=MAIL.at.astimezone(timezone(timedelta(hours=5, minutes=30))))
    assert compose(MAIL) == compose(replace(MAIL)) == compose(elsewhere)
    assert compose(MAIL) == EXPECTED


EXPECTED = b"\r\n".join([
    b'From: "Rob Rep" <rob@acme.example>',
    b"To: carla@customer.example",
    b"Subject: Your trial",
    b"Date: Mon, 02 Mar 2026 09:30:00 +0000",
    b"Message-ID: <01890000-0000-7000-8000-000000000001@acme.example>",
    b"X-Auto-Response-Suppress: OOF, AutoReply",
    b"MIME-Version: 1.0",
    b'Content-Type: multipart/alternative; boundary="=_b305d5533273c2e13d3abbb886685218"',
    b"",
    b"--=_b305d5533273c2e13d3abbb886685218",
    b"Content-Type: text/plain; charset=utf-8",
    b"Content-Transfer-Encoding: quoted-printable",
    b"",
    b"Hello Carla,",
    b"",
    b"how is it going?",
    b"",
    b"--=_b305d5533273c2e13d3abbb886685218",
    b"Content-Type: text/html; charset=utf-8",
    b"Content-Transfer-Encoding: quoted-printable",
    b"",
    b"<html><body><p>Hello Carla</p></body></html>",
    b"--=_b305d5533273c2e13d3abbb886685218--",
    b"",
])  # fmt: skip


@given(headers, headers, bodies, bodies)
def test_what_is_composed_is_read_back(name, subject, text, html):
    mail = replace(MAIL, from_name=name, subject=subject, text=text, html=html)
    raw = compose(mail)
    assert raw.isascii()
    assert not re.search(rb"\r(?!\n)|(?<!\r)\n", raw)
    assert max(map(len, raw.split(b"\r\n"))) <= 998
    read = message_from_bytes(raw, policy=default)
    assert read["Subject"] == subject
    assert [sender.addr_spec for sender in read["From"].addresses] == [MAIL.from_email]
    assert shown_name(raw) == (name if name.strip() else "")
    assert body(mail, "plain") == newlines(text)
    assert body(mail, "html") == newlines(html)


@pytest.mark.parametrize(
    ("name", "subject"),
    [
        ("Jürgen Müller", "Grüße aus Köln"),
        ("山田 太郎", "ご提案について " * 12),
        ('O\'Neil, "Bob" \\ Jr.', "100 % =?utf-8?q?not_encoded?="),
        ("", ""),
        ("María Fernanda González de la Vega Rodríguez Ñúñez", "x"),
        ("👩\N{ZERO WIDTH JOINER}🚀 Ada", "🎉" * 63),
        ("a" * 200, "word " * 40 + "end"),
    ],
)
def test_names_and_subjects_of_any_language_are_read_as_written(name, subject):
    read = parsed(replace(MAIL, from_name=name, subject=subject))
    assert read["Subject"] == subject
    assert shown_name(compose(replace(MAIL, from_name=name, subject=subject))) == name
    encoded = [line for line in lines(replace(MAIL, from_name=name, subject=subject)) if "=?utf-8?b?" in line]
    assert all(len(line) <= 76 for line in encoded)


def test_text_mostly_foreign_takes_the_shorter_encoding():
    assert "Content-Transfer-Encoding: base64" in lines(replace(MAIL, text="ご提案について\n" * 20))
    assert "Content-Transfer-Encoding: quoted-printable" in lines(replace(MAIL, text="Grüße\n" + "plain text " * 20))


@pytest.mark.parametrize("character", ["\r", "\n", "\r\nBcc: spy@evil.example", "\0", "\t", "\x7f", "\x85", "\u2028"])
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("from_name", "Rob{}Rep"),
        ("subject", "Your{}trial"),
        ("from_email", "rob@acme.example{}"),
        ("from_email", "rob{}@acme.example"),
        ("to_email", "carla@customer.example{}"),
        ("reply_to", "r@acme.example{}"),
        ("message_id", "<1{}@acme.example>"),
        ("in_reply_to", "<1@acme.example>{}"),
        ("references", "<1@acme.example>{}"),
        ("unsubscribe_url", URL + "{}"),
    ],
)
def test_no_header_holds_a_control_character(field, value, character):
    value = value.format(character)
    with pytest.raises(BadMail) as refused:
        compose(replace(MAIL, **{field: (value,) if field == "references" else value}))
    assert refused.value.field == field


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("to_email", "carla"),
        ("to_email", "a@b@example.com"),
        ("to_email", "Carla <carla@customer.example>"),
        ("to_email", "carla@customer.example, spy@evil.example"),
        ("to_email", "jürgen@customer.example"),
        ("to_email", ""),
        ("from_email", "a" * 250 + "@acme.example"),
        ("message_id", "1@acme.example"),
        ("message_id", "<1@acme.example> <2@acme.example>"),
        ("in_reply_to", ""),
        ("unsubscribe_url", "javascript:alert(1)"),
        ("unsubscribe_url", "https://crm.example.com/> <https://evil.example"),
        ("unsubscribe_url", "https://crm.example.com/" + "a" * 990),
        ("subject", "a" * 999),
        ("subject", "a" * 998),
        ("subject", "é" * 500),
        ("subject", "\ud800"),
        ("from_name", "a" * 990),
        ("at", datetime(2026, 3, 2, 9, 30)),  # noqa: DTZ001  (what is refused)
        ("text", "\ud800"),
        ("html", "\ud800"),
    ],
)
def test_what_is_malformed_is_refused_by_name(field, value):
    with pytest.raises(BadMail) as refused:
        compose(replace(MAIL, **{field: value}))
    assert refused.value.field == field


def test_an_international_domain_is_written_in_ascii():
    mail = parsed(replace(MAIL, to_email="carla@müller.example", from_email="Rob@Bücher.example"))
    assert mail["To"] == "carla@xn--mller-kva.example"
    assert mail["From"] == "Rob Rep <Rob@xn--bcher-kva.example>"
    assert message_id(ID, "müller.example") == f"<{ID}@xn--mller-kva.example>"
    assert wire_address("to_email", "carla@müller.example") == "carla@xn--mller-kva.example"


@pytest.mark.parametrize("domain", ["", "acme.example>", "acme example", "acme.example\r\nBcc: x@y.example"])
def test_a_message_id_takes_only_a_domain(domain):
    with pytest.raises(BadMail):
        message_id(ID, domain)


def test_one_click_headers_stand_on_a_line_each_however_long():
    url = "https://crm.example.com/u/" + "a" * 900
    assert [line for line in lines(replace(MAIL, unsubscribe_url=url)) if line.startswith("List-")] == [
        f"List-Unsubscribe: <{url}>",
        "List-Unsubscribe-Post: List-Unsubscribe=One-Click",
    ]
    assert not [line for line in lines(MAIL) if line.startswith("List-")]


def test_a_thread_names_its_parent_last():
    mail = parsed(replace(MAIL, in_reply_to="<2@a.example>", references=("<1@a.example>", "<2@a.example>")))
    assert mail["In-Reply-To"] == "<2@a.example>"
    assert mail["References"] == "<1@a.example> <2@a.example>"
    mail = parsed(replace(MAIL, in_reply_to="<2@a.example>", references=("<1@a.example>",)))
    assert mail["References"] == "<1@a.example> <2@a.example>"
    assert parsed(replace(MAIL, in_reply_to="<2@a.example>"))["References"] == "<2@a.example>"


@pytest.mark.parametrize(("count", "length"), [(20, 1), (50, 1), (50, 60), (30, 300), (3, 700)])
def test_a_long_thread_keeps_its_first_and_its_latest_mails(count, length):
    ids = tuple(f"<{n}{'x' * length}@a.example>" for n in range(count))
    chain = parsed(replace(MAIL, references=ids))["References"].split()
    assert chain[0] == ids[0]
    assert chain[1:] == list(ids[len(ids) - len(chain) + 1 :])
    assert len(chain) == min(count, 20) or sum(map(len, chain)) > 900 - 2 * (length + 20)
    assert sum(map(len, chain)) < 998


def test_the_footer_shows_address_and_unsubscribe_link_in_both_bodies():
    mail = replace(MAIL, unsubscribe_url=URL, postal_address=ADDRESS)
    assert body(mail, "plain") == (
        "Hello Carla,\n\nhow is it going?\n\n"
        "Acme GmbH\nTorstraße 1, 10119 Berlin\n"
        "Unsubscribe: https://crm.example.com/u/abcdefghij\n"
    )
    assert body(mail, "html") == (
        "<html><body><p>Hello Carla</p>\n"
        '<p style="color:#666;font-size:12px">Acme GmbH<br>Torstraße 1, 10119 Berlin<br>'
        f'<a href="{URL}">Unsubscribe</a></p>\n'
        "</body></html>"
    )


@pytest.mark.parametrize(
    ("html", "end"),
    [
        ("<p>Hello</p>", "</p>\n"),
        ("<body>Hello</BODY >", "</p>\n</BODY >"),
        ("<body><pre>&lt;/body></pre></body></html>", "</p>\n</body></html>"),
    ],
)
def test_the_footer_comes_before_the_end_of_the_body(html, end):
    shown = body(replace(MAIL, html=html, unsubscribe_url=URL), "html")
    assert shown.endswith(f'<a href="{URL}">Unsubscribe</a>{end}')


def test_what_a_template_shows_is_not_added_again():
    mail = replace(
        MAIL,
        text=f"Hello\n\nAcme GmbH, Berlin\nNo more: {URL}?a=1&b=2",
        html=f'<p>Hello</p><p>Acme   GmbH,<br>Berlin</p><a href="{URL}?a=1&amp;b=2">No more</a>',
        unsubscribe_url=f"{URL}?a=1&b=2",
        postal_address="Acme GmbH,\nBerlin",
    )
    assert body(mail, "plain") == mail.text
    assert body(mail, "html") == mail.html


def test_a_link_nobody_sees_does_not_count():
    mail = replace(MAIL, html=f"<p>Hello</p><!-- {URL} -->", unsubscribe_url=URL)
    assert body(mail, "html").count(URL) == 2


def test_an_address_cannot_bring_markup():
    assert "<script>" not in body(replace(MAIL, postal_address="<script>Acme</script>"), "html")


@pytest.mark.parametrize(
    ("subject", "reply"),
    [
        ("Your trial", "Re: Your trial"),
        ("Re: Your trial", "Re: Your trial"),
        ("RE: re: Re:Your trial", "Re: Your trial"),
        ("AW: Ihr Test", "Re: Ihr Test"),
        ("Antw: Sv: VS: x", "Re: x"),
        ("Re[2]: x", "Re: x"),
        ("Re (3): x", "Re: x"),
        ("回复:您好", "Re: 您好"),
        ("答复: 您好", "Re: 您好"),
        ("Отв: x", "Re: x"),
        ("Research: a plan", "Re: Research: a plan"),
        ("Reply to us", "Re: Reply to us"),
        ("Fwd: x", "Re: Fwd: x"),
        ("", "Re:"),
        ("Re:", "Re:"),
    ],
)
def test_a_further_mail_of_a_thread_has_one_re(subject, reply):
    assert reply_subject(subject) == reply


@given(headers)
def test_a_reply_to_a_reply_has_the_same_subject(subject):
    assert reply_subject(reply_subject(subject)) == reply_subject(subject)
