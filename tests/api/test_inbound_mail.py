import asyncio
import json
from base64 import b64encode
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import httpx2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from standardwebhooks import Webhook
from structlog.testing import capture_logs

from api import multipart
from api.app import create_app
from tests.api.mailing import STRANGER, make_post_elsewhere, raw_mail, reply_address

MAIL = "http://drumbeat/webhooks/mail"
RAW = {"Content-Type": "message/rfc822"}
MiB = 1 << 20
ENVELOPE = {"to": ["rob@acme.example.com"], "from": "carla@customer.example.com"}
HEADERS = "From: carla@customer.example.com\nSubject: Re: Hello\nMessage-ID: <form-1@customer.example.com>\n"


def raw_with(**headers):
    return {"content": raw_mail(), "headers": {**RAW, **headers}}


def form(fields, boundary="xYzZY") -> tuple[bytes, dict[str, str]]:
    """A body and its headers, as a provider makes them; a file is a (name, bytes) pair."""
    parts = []
    for name, value in fields.items():
        filename = f'; filename="{value[0]}"' if isinstance(value, tuple) else ""
        content = value[1] if isinstance(value, tuple) else value if isinstance(value, bytes) else value.encode()
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"{filename}\r\n\r\n'
        parts.append(head.encode() + content + b"\r\n")
    body = b"".join(parts) + f"--{boundary}--\r\n".encode()
    return body, {"Content-Type": f"multipart/form-data; boundary={boundary}"}


@dataclass
class Provider:
    """Whoever brings mail: it holds a source's id and secret."""

    client: httpx2.AsyncClient
    id: str
    secret: str

    def basic(self, name=None, password=None):
        pair = f"{self.id if name is None else name}:{self.secret if password is None else password}"
        return {"Authorization": "Basic " + b64encode(pair.encode()).decode()}

    async def post(self, body: bytes, headers=RAW, **params):
        return await self.client.post(MAIL, content=body, headers={**self.basic(), **headers}, params=params)

    async def form(self, **fields):
        body, headers = form({name.replace("_", "-"): value for name, value in fields.items()})
        return await self.post(body, headers)

    async def signed(self, body: bytes, headers=RAW, *, at=None, message="msg_1", **changed):
        at = at or datetime.now(UTC)
        signature = Webhook(self.secret).sign(message, at, body.decode("latin-1"))
        told = {"webhook-id": message, "webhook-timestamp": str(int(at.timestamp())), "webhook-signature": signature}
        return await self.client.post(
            MAIL, content=body, headers={**told, **changed, **headers}, params={"source": self.id}
        )


@pytest.fixture
async def provider(office):
    made = (await office.admin.post("/sources", json={"name": "Mail"})).json()
    return Provider(office.nobody, made["source"]["id"], made["secret"])


async def kept(base):
    return await base.rows("SELECT * FROM letters ORDER BY id")


# --- who brings it


async def test_mail_is_brought_with_a_password_or_signed(provider, base):
    bare = provider.secret.removeprefix("whsec_")
    for number, answer in enumerate(
        [
            await provider.post(raw_mail(Message_ID="<0@x.com>")),
            await provider.client.post(
                MAIL, content=raw_mail(Message_ID="<1@x.com>"), headers={**RAW, **provider.basic(password=bare)}
            ),
            await provider.signed(raw_mail(Message_ID="<2@x.com>")),
        ]
    ):
        assert answer.status_code == 200, (number, answer.text)
        told = answer.json()
        assert (told["received"], told["new"], told["matchedBy"]) == (True, True, None)
    rows = await kept(base)
    assert {str(row["source_id"]) for row in rows} == {provider.id}
    assert len(rows) == 3


FORGERIES = {
    "nothing": lambda p: p.client.post(MAIL, **raw_with()),
    "another password": lambda p: p.client.post(MAIL, **raw_with(**p.basic(password="whsec_" + "A" * 43 + "="))),
    "no password": lambda p: p.client.post(MAIL, **raw_with(**p.basic(password=""))),
    "half of it": lambda p: p.client.post(MAIL, **raw_with(**p.basic(password=p.secret[:30]))),
    "another name": lambda p: p.client.post(MAIL, **raw_with(**p.basic(STRANGER))),
    "no name": lambda p: p.client.post(MAIL, **raw_with(**p.basic(""))),
    "no base64": lambda p: p.client.post(MAIL, **raw_with(Authorization="Basic §§".encode())),
    "no text": lambda p: p.client.post(MAIL, **raw_with(Authorization="Basic //79")),
    "a bearer": lambda p: p.client.post(MAIL, **raw_with(Authorization=f"Bearer {p.secret}")),
    "another signature": lambda p: p.signed(raw_mail(), **{"webhook-signature": "v1,AAAA"}),
    "old": lambda p: p.signed(raw_mail(), at=datetime.now(UTC) - timedelta(seconds=310)),
    "an unknown source": lambda p: p.client.post(MAIL, content=raw_mail(), headers=RAW, params={"source": "x"}),
    "a password in place of a signature": lambda p: p.post(raw_mail(), source=p.id),
}  # fmt: skip


@pytest.mark.parametrize("forge", FORGERIES.values(), ids=FORGERIES.keys())
async def test_a_forgery_is_refused_like_any_other_logged_and_changes_nothing(provider, base, forge):
    with capture_logs() as logs:
        answer = await forge(provider)
    assert (answer.status_code, answer.json()["code"]) == (401, "UNAUTHORIZED")
    assert answer.json()["detail"] == "This is not mail from a source known here."
    assert answer.headers["www-authenticate"].startswith("Basic")
    assert await kept(base) == []
    (line,) = [line for line in logs if line["event"] == "mail_refused"]
    assert provider.secret[6:] not in str(line)


async def test_under_another_master_key_nobody_is_believed(provider, base):
    app = create_app(base.app, bytes(32))
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app)) as client:
        provider.client = client
        assert (await provider.post(raw_mail())).status_code == 401


# --- what it brings


async def test_an_answer_is_matched_by_our_token_and_holds_the_enrollment(provider, post_office, base):
    enrollment = await post_office.enrolled()
    message = await post_office.written(enrollment)
    to = reply_address(message)
    # Somebody else answers for Carla, and names her nowhere.
    raw = raw_mail(From="assistant@elsewhere.example.com", To=to.upper())
    answer = await provider.post(raw)
    assert (answer.status_code, answer.json()["matchedBy"]) == (200, "token")
    (letter,) = await kept(base)
    assert (letter["raw"], letter["recipient"], str(letter["intent_id"])) == (raw, to, message)
    shown = await post_office.show(enrollment)
    assert shown["heldSince"] is not None
    assert shown["next"]["heldBy"] == [answer.json()["letterId"]]
    assert (shown["next"]["message"]["status"], shown["next"]["message"]["why"]["reason"]) == ("held", "held")


@pytest.mark.parametrize("where", ["query", "X-Original-To", "Delivered-To", "To", "Cc"])
async def test_whom_a_raw_mail_was_delivered_to_is_read_where_it_stands(provider, post_office, base, where):
    message = await post_office.written(await post_office.enrolled())
    to = reply_address(message)
    if where == "query":
        answer = await provider.post(raw_mail(), recipient=to)
    else:
        answer = await provider.post(raw_mail(**{where.replace("-", "_"): f"Rob <{to}>"}))
    assert (answer.json()["matchedBy"], (await kept(base))[0]["recipient"]) == ("token", to)


async def test_a_recipient_that_is_none_is_passed_over(provider, post_office, base):
    answer = await provider.post(raw_mail(), recipient="nobody at all\r\n")
    assert (answer.status_code, answer.json()["matchedBy"]) == (200, "sender")


async def test_a_token_that_was_not_ours_to_give_or_is_anothers_matches_nothing(
    provider, post_office, other_office, base
):
    theirs = await make_post_elsewhere(other_office, base)
    other_message = await theirs.written(await theirs.enrolled())
    mine = await post_office.written(await post_office.enrolled())
    forged = reply_address(mine)[:-20] + "aaaa@in.example.com"
    for number, to in enumerate((reply_address(other_message), forged)):
        raw = raw_mail(From="x@elsewhere.example.com", Message_ID=f"<{number}@x.com>")
        answer = await provider.post(raw, recipient=to)
        assert (answer.status_code, answer.json()["matchedBy"]) == (200, None)
    assert [row["intent_id"] for row in await kept(base)] == [None, None]
    assert (await theirs.office.rep.get("/letters")).json()["total"] == 0


async def test_it_is_matched_by_what_it_answers_else_by_its_sender(provider, post_office, base):
    enrollment = await post_office.enrolled()
    message = await post_office.written(enrollment)
    await post_office.accepted(message)
    ours = (await post_office.message(message))["content"]["messageId"]
    raw = raw_mail(From="x@elsewhere.example.com", In_Reply_To=ours)
    answer = await provider.post(raw)
    assert answer.json()["matchedBy"] == "references"
    answer = await provider.post(raw_mail(Message_ID="<another@customer.example.com>"))
    assert answer.json()["matchedBy"] == "sender"
    assert len((await post_office.show(enrollment))["next"]["heldBy"]) == 2


async def test_mail_that_comes_again_is_told_the_same_and_changes_nothing(provider, post_office, base):
    await post_office.enrolled()
    first = await provider.post(raw_mail())
    again = await provider.signed(raw_mail() + b"\r\na line that a relay has added")
    assert "idempotent-replay" not in first.headers
    assert (again.status_code, again.headers["idempotent-replay"]) == (200, "true")
    assert again.json() == {**first.json(), "new": False}
    assert (await kept(base))[0]["raw"] == raw_mail()
    to_another = await provider.post(raw_mail(), recipient="sales@acme.example.com")
    assert to_another.json()["new"] is True, "another recipient has a letter of their own"


async def test_mail_without_an_id_is_told_apart_by_its_bytes(provider, base):
    raw = b"From: carla@customer.example.com\r\n\r\nHello"
    answers = [await provider.post(body) for body in (raw, raw, raw + b"!")]
    assert [answer.json()["new"] for answer in answers] == [True, False, True]


async def test_ten_deliveries_at_once_are_one_letter(provider, post_office, base):
    enrollment = await post_office.enrolled()
    answers = await asyncio.gather(*(provider.post(raw_mail()) for _ in range(10)))
    assert {answer.status_code for answer in answers} == {200}
    assert sum(answer.json()["new"] for answer in answers) == 1
    assert len(await kept(base)) == 1
    assert len((await post_office.show(enrollment))["next"]["heldBy"]) == 1


async def test_what_a_provider_took_apart_is_put_together_again(provider, post_office, base):
    enrollment = await post_office.enrolled()
    message = await post_office.written(enrollment)
    answer = await provider.form(
        headers=HEADERS,
        envelope=json.dumps({**ENVELOPE, "to": [reply_address(message)]}),
        to="Rob <rob@acme.example.com>",
        subject="Re: Hello",
        text="Yes, let us talk.",
        charsets=json.dumps({"text": "utf-8"}),
        attachments="0",
    )
    assert (answer.status_code, answer.json()["matchedBy"]) == (200, "token")
    (letter,) = await kept(base)
    assert (letter["subject"], letter["recipient"]) == ("Re: Hello", reply_address(message))
    again = await provider.form(
        headers=HEADERS, text="cut", envelope=json.dumps({**ENVELOPE, "to": [reply_address(message)]})
    )
    assert again.json()["new"] is False


async def test_a_raw_mail_in_a_form_is_kept_byte_for_byte(provider, base):
    raw = raw_mail() + b"\x00\xff\r\n--xYzZ\r\n"
    answer = await provider.form(email=raw, envelope=json.dumps(ENVELOPE))
    assert answer.status_code == 200, answer.text
    assert (await kept(base))[0]["raw"] == raw


@pytest.mark.parametrize(
    ("charset", "said"), [("windows-1251", "Давайте"), ("iso-8859-1", "Grüße"), ("shift_jis", "はい")]
)
async def test_each_field_is_read_in_the_charset_it_came_in(provider, base, charset, said):
    answer = await provider.form(
        headers=HEADERS,
        text=said.encode(charset),
        charsets=json.dumps({"text": charset}),
        envelope=json.dumps(ENVELOPE),
    )
    assert answer.status_code == 200
    assert said.encode() in (await kept(base))[0]["raw"]


async def test_a_field_and_a_mail_of_many_megabytes_are_kept(provider, base):
    body = "x" * (3 * MiB)
    answer = await provider.form(headers=HEADERS, text=body, envelope=json.dumps(ENVELOPE))
    assert answer.status_code == 200
    assert len((await kept(base))[0]["raw"]) > 3 * MiB
    answer = await provider.post(raw_mail("y" * (20 * MiB)))
    assert answer.status_code == 200


@pytest.mark.parametrize("announced", [True, False])
async def test_what_is_larger_than_any_mail_is_refused(provider, base, announced):
    async def pieces():
        for _ in range(30):
            yield b"x" * MiB
        yield b"x"

    body = b"x" * (30 * MiB + 1) if announced else pieces()
    answer = await provider.client.post(MAIL, content=body, headers={**RAW, **provider.basic()})
    assert (answer.status_code, answer.json()["code"]) == (413, "BODY_TOO_LARGE")
    assert await kept(base) == []


async def test_who_is_not_known_has_nothing_read_but_its_headers(provider):
    async def endless():
        raise AssertionError("the body was asked for")
        yield b""

    answer = await provider.client.post(MAIL, content=endless(), headers=RAW)
    assert answer.status_code == 401


@pytest.mark.parametrize(
    ("body", "headers", "status", "code"),
    [
        (b"", RAW, 422, "NO_MAIL"),
        (b" \r\n", RAW, 422, "NO_MAIL"),
        (*form({}), 422, "NO_MAIL"),
        (*form({"colour": "red"}), 422, "NO_MAIL"),
        (b"", {"Content-Type": "multipart/form-data; boundary=x"}, 422, "NO_MAIL"),
        (b"no form", {"Content-Type": "multipart/form-data; boundary=x"}, 422, "NO_MAIL"),
        (form({"headers": HEADERS})[0], {"Content-Type": "multipart/form-data"}, 422, "NO_MAIL"),
        (form({"headers": HEADERS})[0][:-12], form({})[1], 422, "NO_MAIL"),
        (b"{}", {"Content-Type": "application/json"}, 415, "UNSUPPORTED_MEDIA_TYPE"),
        (b"text=hello", {"Content-Type": "application/x-www-form-urlencoded"}, 415, "UNSUPPORTED_MEDIA_TYPE"),
        (b"hello", {}, 415, "UNSUPPORTED_MEDIA_TYPE"),
    ],
)  # fmt: skip
async def test_what_holds_no_mail_at_all_is_refused_as_that(provider, base, body, headers, status, code):
    answer = await provider.post(body, headers)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.headers["content-type"] == "application/problem+json"
    assert await kept(base) == []


async def test_a_form_that_was_cut_off_is_kept_as_far_as_it_came(provider, base):
    body, headers = form({"email": raw_mail(), "spam_report": "x" * 100})
    answer = await provider.post(body[:-80], headers)
    assert (answer.status_code, (await kept(base))[0]["raw"]) == (200, raw_mail())


HOSTILE = {
    "no header": b"\x00\xff\xfe" * 100,
    "no body": b"From: a@x.com",
    "a NUL in the subject": b"Subject: a\x00b\r\nFrom: a\x00@x.com\r\nMessage-ID: <a\x00b@x.com>\r\n\r\n",
    "an encoded NUL": b"Subject: =?utf-8?q?a=00b?=\r\n\r\n",
    "an endless header": b"Subject: " + b"x" * 200_000 + b"\r\n\r\n",
    "many recipients": b"To: " + b"a@x.com, " * 20_000 + b"\r\n\r\n",
    "nested quotes": b"From: " + b'"(' * 30_000 + b"\r\n\r\n",
    "long references": b"References: " + b"<a@b> " * 20_000 + b"\r\n\r\n",
    "a lone surrogate": "Subject: \ud800\r\n\r\n".encode("utf-16-le", "surrogatepass"),
    "no end of lines": b"From:" * 20_000,
    "an address of a megabyte": b"From: " + b"a" * MiB + b"@x.com\r\n\r\n",
}


@pytest.mark.parametrize("raw", HOSTILE.values(), ids=HOSTILE.keys())
async def test_whatever_a_stranger_writes_is_kept_and_answered(provider, base, raw):
    answer = await provider.post(raw)
    assert answer.status_code == 200, answer.text
    assert (await kept(base))[0]["raw"] == raw


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    fields=st.dictionaries(
        st.sampled_from(["headers", "envelope", "charsets", "attachment-info", "from", "text", "html", "email", "to"]),
        st.one_of(st.binary(max_size=200), st.sampled_from([b"{}", b"[]", b'{"to": 5}', b'{"to": [1]}', b"null"])),
    )
)  # fmt: skip
async def test_whatever_stands_in_a_form_is_kept_or_refused_never_a_failure(provider, fields):
    body, headers = form(fields, "a-boundary-that-no-chance-makes")
    assert (await provider.post(body, headers)).status_code in (200, 422)


# --- the form itself


@given(fields=st.dictionaries(st.text("abcdefgh-_0123", min_size=1, max_size=20), st.binary(max_size=300), max_size=8))
def test_every_field_comes_out_as_it_went_in(fields):
    body, headers = form(fields, "bOuNdArY-1234567890")
    boundary = multipart.boundary_of(headers["Content-Type"])
    assert boundary is not None
    assert multipart.fields(body, boundary) == fields


@given(body=st.binary(max_size=2000), boundary=st.binary(min_size=1, max_size=5))
def test_bytes_that_are_no_form_have_an_answer_too(body, boundary):
    assert isinstance(multipart.fields(body, boundary), dict)


@pytest.mark.parametrize(
    ("content_type", "boundary"),
    [
        ("multipart/form-data; boundary=abc", b"abc"),
        ('multipart/form-data; charset=utf-8; Boundary="a b;c"', b"a b;c"),
        ("multipart/form-data", None),
        ("multipart/form-data; boundary=", None),
    ],
)
def test_the_boundary_is_read_where_it_stands(content_type, boundary):
    assert multipart.boundary_of(content_type) == boundary


def test_the_first_field_of_a_name_counts_and_files_are_fields():
    body = form({"attachment1": ("a; name=evil.txt", b"1")})[0]
    assert multipart.fields(body, b"xYzZY") == {"attachment1": b"1"}
    twice = form({"a": "1"})[0].replace(b"--xYzZY--\r\n", b"") + form({"a": "2"})[0]
    assert multipart.fields(twice, b"xYzZY") == {"a": b"1"}


def test_more_fields_than_any_mail_has_are_left_out():
    many = {f"f{number}": b"" for number in range(multipart.MOST_FIELDS + 50)}
    assert len(multipart.fields(form(many)[0], b"xYzZY")) == multipart.MOST_FIELDS


async def test_the_senders_of_other_webhooks_have_no_more_room_than_before(provider):
    answer = await provider.client.post(f"{MAIL}x", content=b"x" * (MiB // 2), headers=RAW)
    assert answer.status_code == 413


async def test_a_held_enrollment_claims_nothing(provider, post_office, office, base):
    enrollment = await post_office.enrolled()
    message = await post_office.written(enrollment)
    assert (await provider.post(raw_mail())).json()["matchedBy"] == "sender"
    refused = await post_office.claim(message)
    assert refused.reason in {"taken", "held"}
