import re
from base64 import b64encode
from datetime import timedelta
from hashlib import sha256
from uuid import UUID

import pytest
from structlog.testing import capture_logs

from domain.link_tokens import Purpose, subkey, token
from tests.api.conftest import MASTER_KEY
from tests.api.mailing import STRANGER, make_sequence, reply_address, unsubscribe_path

ONE_CLICK = "List-Unsubscribe=One-Click"
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
UNKNOWN = [
    "/u/x",
    "/u/" + "a" * 52,
    "/u/" + "é" * 52,
    "/u/%00",
    unsubscribe_path(STRANGER),
    "/u/" + token(subkey(MASTER_KEY), UUID(STRANGER), Purpose.REPLY),
    "/u/" + token(subkey(bytes(32)), UUID(STRANGER), Purpose.UNSUBSCRIBE),
]


@pytest.fixture
async def enrollment(post_office):
    return await post_office.enrolled()


@pytest.fixture
async def link(post_office, enrollment):
    """The unsubscribe link of a mail that was sent."""
    message = await post_office.written(enrollment)
    await post_office.accepted(message)
    return f"http://drumbeat{unsubscribe_path(message)}"


async def suppressed(base):
    return [
        row["suppressed"] for row in await base.rows("SELECT suppressed FROM addresses WHERE suppressed IS NOT NULL")
    ]


async def test_opening_the_link_asks_and_does_nothing(post_office, office, base, enrollment, link):
    for method in ("GET", "HEAD", "GET"):
        answer = await office.nobody.request(method, link)
        assert answer.status_code == 200
    assert await suppressed(base) == []
    assert (await post_office.show(enrollment))["status"] == "open"
    assert re.findall("<button>(.*?)</button>", answer.text) == ["Unsubscribe"]
    assert '<form method="post">' in answer.text


async def test_the_page_needs_nothing_and_tells_nobody(office, link):
    for answer in (
        await office.nobody.get(link),
        await office.nobody.post(link),
        await office.nobody.get("http://drumbeat/u/x"),
    ):
        assert answer.headers["content-type"] == "text/html; charset=utf-8"
        assert answer.headers["x-robots-tag"] == "noindex"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["cache-control"] == "no-store"
        assert "set-cookie" not in answer.headers
        assert not re.search(r"(src|href|url\(|http)", answer.text)
        policy = dict(part.strip().split(" ", 1) for part in answer.headers["content-security-policy"].split(";"))
        assert (policy["default-src"], policy["form-action"], policy["frame-ancestors"]) == (
            "'none'",
            "'self'",
            "'none'",
        )
        (style,) = re.findall("<style>(.*?)</style>", answer.text, re.DOTALL)
        assert policy["style-src"] == f"'sha256-{b64encode(sha256(style.encode()).digest()).decode()}'"
        assert "script" not in answer.text


@pytest.mark.parametrize(
    ("content", "headers"),
    [
        (ONE_CLICK, FORM),
        (
            '--b\r\nContent-Disposition: form-data; name="List-Unsubscribe"\r\n\r\nOne-Click\r\n--b--\r\n',
            {"Content-Type": "multipart/form-data; boundary=b"},
        ),
        ("", {}),
        ("\x00 whatever", FORM),
    ],
    ids=["urlencoded", "multipart", "nothing", "anything"],
)
async def test_one_click_ends_the_enrollment_and_suppresses_the_address(
    post_office, office, base, enrollment, link, content, headers
):
    answer = await office.nobody.post(link, content=content, headers=headers)
    assert (answer.status_code, answer.history) == (200, [])
    assert "Unsubscribed" in answer.text
    assert await suppressed(base) == ["unsubscribed"]
    shown = await post_office.show(enrollment)
    assert (shown["status"], shown["exitReason"]) == ("ended", "unsubscribed")
    (event,) = await base.rows("SELECT actor_kind, actor_id FROM events WHERE type = 'address.suppressed'")
    assert (event["actor_kind"], event["actor_id"]) == ("recipient", None)
    again = await office.nobody.post(link, content=content, headers=headers)
    assert (again.status_code, again.text) == (200, answer.text)
    assert await base.value("SELECT count(*) FROM events WHERE type = 'address.suppressed'") == 1
    post_office.sequence = await make_sequence(office.admin, name="Other")
    assert [one["reason"] for one in (await post_office.enroll())["results"]] == ["address_suppressed"]


async def test_the_link_works_however_its_letters_are_cased_and_long_after(post_office, office, base, enrollment, link):
    await base.pass_time(timedelta(days=400))
    start, _, end = link.rpartition("/")
    assert (await office.nobody.post(f"{start}/{end.upper()}")).status_code == 200
    assert await suppressed(base) == ["unsubscribed"]


async def test_both_the_address_written_to_and_the_present_one_are_suppressed(post_office, office, base, link):
    await office.rep.patch(f"/contacts/{post_office.contact}", json={"email": "new@customer.example.com"})
    assert (await office.nobody.post(link)).status_code == 200
    assert await suppressed(base) == ["unsubscribed", "unsubscribed"]


@pytest.mark.parametrize("path", UNKNOWN)
async def test_an_unknown_link_tells_the_same_whatever_is_wrong_with_it(office, base, path):
    expected = await office.nobody.get("http://drumbeat/u/unknown")
    for method in ("GET", "POST"):
        answer = await office.nobody.request(method, f"http://drumbeat{path}")
        assert (answer.status_code, answer.text) == (404, expected.text)
    assert await suppressed(base) == []


async def test_a_reply_address_unsubscribes_nobody(post_office, office, base, enrollment):
    message = await post_office.written(enrollment)
    local = reply_address(message).partition("@")[0].removeprefix("reply+")
    assert (await office.nobody.post(f"http://drumbeat/u/{local}")).status_code == 404
    assert await suppressed(base) == []


async def test_other_methods_are_refused(office, link):
    for method in ("PUT", "DELETE", "PATCH"):
        assert (await office.nobody.request(method, link)).status_code == 405


async def test_the_link_is_not_in_the_log(office, link):
    with capture_logs() as logs:
        await office.nobody.post(link)
    assert link.rpartition("/")[2] not in str(logs)
    assert [line["path"] for line in logs if line["event"] == "request"] == ["/u/…"]
