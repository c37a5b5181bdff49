from datetime import timedelta
from uuid import UUID

import pytest

from domain.inbound_mail import LetterKind, read
from domain.link_tokens import subkey
from store import letters, retention
from tests.api.conftest import MASTER_KEY
from tests.api.mailing import STRANGER, post, raw_mail, reply_address


async def came(post_office, raw: bytes, *recipients: str) -> str:
    async with post_office.base.transaction() as tx:
        envelope = letters.envelope(raw, recipients=recipients, source=None, link_key=subkey(MASTER_KEY))
        letter, new = await letters.receive(tx, envelope)
    assert new
    return str(letter.id)


async def unreadable(post_office, raw: bytes, *recipients: str) -> str:
    letter = await came(post_office, raw, *recipients)
    async with post_office.base.transaction() as tx:
        assert await letters.not_understood(tx, UUID(letter), "it has no text")
    return letter


async def test_a_letter_is_listed_and_shown_without_its_raw_form(post_office, office):
    letter = await came(post_office, raw_mail())
    shown = (await office.readonly.get(f"/letters/{letter}")).json()["letter"]
    assert (shown["status"], shown["kind"], shown["matchedBy"]) == ("received", None, "sender")
    assert (shown["fromEmail"], shown["subject"]) == ("carla@customer.example.com", "Re: Hello")
    assert (shown["contactId"], shown["messageId"]) == (post_office.contact, None)
    assert "raw" not in shown
    for filters, total in (
        ({"status": "received"}, 1),
        ({"status": "unreadable"}, 0),
        ({"contact": post_office.contact}, 1),
        ({"contact": STRANGER}, 0),
    ):
        assert (await office.rep.get("/letters", params=filters)).json()["total"] == total


async def test_what_a_letter_was_understood_to_be_is_told(post_office, office):
    letter = await came(post_office, raw_mail("Yes, let us talk.\r\n\r\n> How is it going?"))
    async with post_office.base.transaction() as tx:
        assert await letters.understood(tx, UUID(letter), read(raw_mail()))
    shown = (await office.rep.get(f"/letters/{letter}")).json()["letter"]
    assert (shown["status"], shown["kind"], shown["text"]) == ("read", "reply", "Yes, let us talk.")
    assert shown["readAt"] is not None


async def test_the_raw_form_is_a_file_that_no_browser_shows(post_office, office):
    raw = b"From: carla@customer.example.com\nContent-Type: text/html\n\n<script>alert(1)</script>\xff\x00"
    letter = await came(post_office, raw)
    answer = await office.readonly.get(f"/letters/{letter}/raw")
    assert (answer.status_code, answer.content) == (200, raw)
    assert answer.headers["content-type"] == "message/rfc822"
    assert answer.headers["content-disposition"].startswith("attachment;")
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "sandbox" in answer.headers["content-security-policy"]


async def test_a_raw_form_that_is_no_longer_kept_is_not_found(post_office, office):
    letter = await came(post_office, raw_mail())
    async with post_office.base.transaction() as tx:
        await letters.understood(tx, UUID(letter), read(raw_mail()))
    await post_office.base.pass_time(timedelta(days=181))
    async with post_office.base.transaction() as tx:
        await retention.let_go_by_age(tx, timedelta(days=400))
    assert (await office.readonly.get(f"/letters/{letter}/raw")).status_code == 404
    assert (await office.readonly.get(f"/letters/{letter}")).status_code == 200


@pytest.mark.parametrize(
    ("kind", "status", "exit_reason"),
    [
        ("reply", "ended", "replied"),
        ("auto_reply", "open", None),
        ("bounce", "ended", "bounced"),
        ("complaint", "ended", "complained"),
    ],
)
async def test_a_person_says_what_an_unreadable_letter_is(post_office, office, kind, status, exit_reason):
    enrollment = await post_office.enrolled()
    message = await post_office.written(enrollment)
    await post_office.accepted(message)
    letter = await unreadable(post_office, raw_mail(), reply_address(message))
    assert (await post_office.show(enrollment))["next"]["heldBy"] == [letter]
    settled = await post(office.rep, f"/letters/{letter}/settle", {"kind": kind})
    assert (settled["status"], settled["kind"], settled["settledBy"]) == ("settled", kind, str(post_office.base.rep))
    shown = await post_office.show(enrollment)
    assert (shown["status"], shown["exitReason"], shown["heldSince"]) == (status, exit_reason, None)
    again = await office.rep.post(f"/letters/{letter}/settle", json={"kind": kind})
    assert (again.status_code, again.json()["code"]) == (409, "ILLEGAL_TRANSITION")


async def test_only_an_unreadable_letter_is_settled_and_only_as_what_letters_are(post_office, office):
    letter = await came(post_office, raw_mail())
    answer = await office.rep.post(f"/letters/{letter}/settle", json={"kind": "reply"})
    assert (answer.status_code, answer.json()["code"]) == (409, "ILLEGAL_TRANSITION")
    answer = await office.rep.post(f"/letters/{letter}/settle", json={"kind": "love letter"})
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/kind")
    assert (await office.rep.post(f"/letters/{STRANGER}/settle", json={"kind": "reply"})).status_code == 404
    assert (await office.readonly.post(f"/letters/{letter}/settle", json={"kind": "reply"})).status_code == 403
    assert {kind.value for kind in LetterKind} == {"reply", "auto_reply", "bounce", "complaint"}


async def test_anothers_letters_are_not_found(post_office, other_office):
    letter = await came(post_office, raw_mail())
    for path in (f"/letters/{letter}", f"/letters/{letter}/raw"):
        assert (await other_office.admin.get(path)).status_code == 404
    assert (await other_office.admin.get("/letters")).json()["total"] == 0
