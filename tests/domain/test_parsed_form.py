"""Mail that came as the fields of a form is read as any other."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.inbound_mail import Unreadable, glance, read
from domain.parsed_form import BadForm, from_form, recipients

HEADERS = b"""Received: by mx.example.com; Mon, 1 Mar 2027
MIME-Version: 1.0
From: Ann <ann@buyer.example.com>
To: Sam <sam@seller.example.com>
Cc: bob@buyer.example.com
Subject: =?utf-8?q?F=C3=BCnf?= Minuten
Message-ID: <m-1@buyer.example.com>
In-Reply-To: <step-2@seller.example.com>
References: <step-1@seller.example.com>
 <step-2@seller.example.com>
Content-Type: multipart/alternative;
 boundary="old"
Content-Transfer-Encoding: base64
X-Thing: kept
"""


def form(**fields: bytes | dict) -> dict[str, bytes]:
    named = {name.replace("_", "-"): value for name, value in fields.items()}
    return {name: json.dumps(value).encode() if isinstance(value, dict) else value for name, value in named.items()}


def test_a_raw_mail_is_taken_as_it_is() -> None:
    raw = b"From: ann@x.com\n\n\xff\x00"
    assert from_form(form(email=raw, headers=HEADERS, text=b"other")) is raw


def test_a_mail_is_rebuilt_with_its_headers_and_without_its_old_form() -> None:
    raw = from_form(form(headers=HEADERS, text=b"Hello there", html=b"<p>Hello <b>there</b>"))
    found = glance(raw)
    assert found.message_id == "<m-1@buyer.example.com>"
    assert found.from_email == "ann@buyer.example.com"
    assert found.to_emails == ("sam@seller.example.com", "bob@buyer.example.com")
    assert found.references == ("<step-2@seller.example.com>", "<step-1@seller.example.com>")
    assert found.subject == "Fünf Minuten"
    assert read(raw).text == "Hello there"
    assert b"X-Thing: kept" in raw
    assert b"base64" not in raw
    assert b"old" not in raw
    assert raw.count(b"MIME-Version") == 1


@pytest.mark.parametrize(
    ("content", "charset", "text"),
    [
        ("Grüße für 5 €".encode(), "UTF-8", "Grüße für 5 €"),
        ("Grüße für 5 €".encode("cp1252"), "windows-1252", "Grüße für 5 €"),
        ("Grüße".encode("latin-1"), "iso-8859-1", "Grüße"),
        ("Grüße".encode("latin-1"), "UTF-8", "Grüße"),
        ("Grüße".encode(), "klingon", "Grüße"),
        ("你好".encode("gb2312"), "gb2312", "你好"),
        ("こんにちは".encode("iso-2022-jp"), "iso-2022-jp", "こんにちは"),
        ("Grüße".encode(), None, "Grüße"),
        ("Grüße".encode(), 8, "Grüße"),
    ],
)
@pytest.mark.parametrize("field", ["text", "html"])
def test_each_field_is_decoded_in_the_charset_it_came_in(field: str, content: bytes, charset, text: str) -> None:
    raw = from_form(form(headers=HEADERS, charsets={field: charset}, **{field: content}))
    assert read(raw).text == text


@pytest.mark.parametrize("charsets", [b"", b"nonsense", b"[]", b"null", b"\xff", b"[" * 100_000, b'{"text": ["a"]}'])
def test_charsets_that_make_no_sense_name_none(charsets: bytes) -> None:
    assert read(from_form(form(headers=HEADERS, charsets=charsets, text="Grüße".encode()))).text == "Grüße"


def test_without_headers_the_fields_say_from_whom_to_whom_and_about_what() -> None:
    raw = from_form(
        form(
            **{"from": "André <andre@x.com>".encode("latin-1")},
            to=b"sam@x.com,\r\nBcc: eve@x.com",
            subject=b"Hi\r\nX-Evil: yes",
            text=b"Hello",
            charsets={"from": "iso-8859-1"},
        )
    )
    found = glance(raw)
    assert (found.from_email, found.subject) == ("andre@x.com", "Hi X-Evil: yes")
    assert "X-Evil" not in {line.split(b":")[0].decode() for line in raw.splitlines()}
    assert read(raw).text == "Hello"


@pytest.mark.parametrize("fields", [{}, {"text": b"Hello"}, {"email": b""}, {"headers": b"", "from": b"", "to": b"x"}])
def test_a_form_without_a_mail_is_refused(fields: dict[str, bytes]) -> None:
    with pytest.raises(BadForm):
        from_form(fields)


def test_text_cannot_break_out_of_its_part() -> None:
    first = from_form(form(headers=HEADERS, text=b"Hello"))
    boundary = first.partition(b'boundary="')[2].partition(b'"')[0]
    text = b"Hello\r\n--" + boundary + b"\r\nContent-Type: text/html\r\n\r\n<p>other\r\n--" + boundary + b"--"
    assert "<p>other" in read(from_form(form(headers=HEADERS, text=text))).full_text


def test_a_header_block_ends_where_it_ends() -> None:
    raw = from_form(form(headers=b" folded\nFrom: ann@x.com\nno header\n folded\n\nTo: eve@x.com\n", text=b"Hello"))
    assert (glance(raw).from_email, glance(raw).to_emails) == ("ann@x.com", ())
    assert read(raw).text == "Hello"


def test_a_mail_without_text_is_a_mail_with_an_empty_one() -> None:
    assert read(from_form(form(headers=HEADERS))).text == ""


def test_an_empty_sender_of_the_envelope_is_an_empty_return_path() -> None:
    fields = form(headers=HEADERS, text=b"I am away", envelope={"to": [], "from": ""})
    assert read(from_form(fields)).kind == "auto_reply"
    named = form(headers=HEADERS + b"Return-Path: <ann@buyer.example.com>\n", envelope={"from": ""})
    assert read(from_form(named)).kind == "reply"
    assert read(from_form(form(headers=HEADERS, envelope={"from": "ann@buyer.example.com"}))).kind == "reply"


def test_the_parts_of_a_bounce_are_found_among_the_attachments() -> None:
    status = b"Reporting-MTA: dns; x\r\n\r\nFinal-Recipient: rfc822; ann@x.com\r\nAction: failed\r\nStatus: 5.1.1\r\n"
    raw = from_form(
        form(
            headers=b"From: mailer-daemon@x.com\nSubject: Undelivered",
            text=b"Sorry.",
            attachment1=status,
            attachment2=b"Message-ID: <step-1@seller.example.com>\r\n\r\nHello",
            attachment3=b"%PDF",
            attachment_info={
                "attachment1": {"filename": "details.txt", "type": "Message/Delivery-Status"},
                "attachment2": {"type": "message/rfc822"},
                "attachment3": {"type": "application/pdf"},
                "attachment4": {"type": "message/rfc822"},
                "attachment5": None,
                "text": {"type": 5},
            },
        )
    )
    found = read(raw)
    assert found.kind == "bounce"
    assert found.bounce is not None
    assert (found.bounce.recipient, found.bounce.status) == ("ann@x.com", "5.1.1")
    assert found.bounce.original_message_id == "<step-1@seller.example.com>"
    assert found.text == "Sorry."
    assert b"%PDF" not in raw


@pytest.mark.parametrize(
    ("envelope", "found"),
    [
        (b'{"to": ["Reply+Tok@In.example.com"], "from": "ann@x.com"}', ("reply+tok@in.example.com",)),
        (b'{"to": ["a@x.com", "b@x.com", "A@x.com"]}', ("a@x.com", "b@x.com")),
        (b'{"to": ["a@x.com", "nobody", "", null, 5, ["b@x.com"]]}', ("a@x.com",)),
        ('{"to": ["ünï@x.com"]}'.encode(), ("ünï@x.com",)),
        (b'{"to": ["\\ud800@x.com", "a\\u0000@x.com"]}', ()),
        (b'{"to": "a@x.com"}', ()),
        (b'{"to": {"a@x.com": 1}}', ()),
        (b'{"from": "a@x.com"}', ()),
        (b'["a@x.com"]', ()),
        (b"nonsense", ()),
        (b"", ()),
        (b"\xff\xfe", ()),
        (b"[" * 100_000, ()),
        (b'{"to": [' + b"9" * 10_000 + b"]}", ()),
    ],
)
def test_the_envelope_says_who_received_it(envelope: bytes, found: tuple[str, ...]) -> None:
    assert recipients(form(to=b"other@x.com", envelope=envelope)) == found


def test_an_envelope_is_read_as_far_as_a_hundred() -> None:
    assert len(recipients(form(envelope={"to": [f"p{n}@x.com" for n in range(500)]}))) == 100
    assert recipients({}) == ()


names = st.sampled_from(
    ["headers", "text", "html", "from", "to", "subject", "charsets", "envelope", "attachment-info", "attachment1"]
)
values = st.binary(max_size=80) | st.sampled_from(
    [
        HEADERS,
        b"From: ann@x.com",
        b'{"text": "utf-16"}',
        b'{"from": ""}',
        b'{"attachment1": {"type": "message/rfc822"}}',
    ]
)


@given(st.dictionaries(names, values))
def test_whatever_the_fields_hold_there_is_a_mail_or_a_refusal(fields: dict[str, bytes]) -> None:
    recipients(fields)
    if not (fields.get("headers") or fields.get("from")):
        with pytest.raises(BadForm):
            from_form(fields)
        return
    raw = from_form(fields)
    glance(raw)
    try:
        read(raw)
    except Unreadable as fault:
        reason = fault.why
    else:
        return
    assert "breaks the parser" not in reason
