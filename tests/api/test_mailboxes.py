import json
from typing import Any

import pytest
from sqlalchemy import select

from store import mailboxes
from store.tables import destinations
from tests.api.conftest import MASTER_KEY
from tests.api.mailing import ANY, STRANGER, make_mailbox, post
from tests.driving import as_admin

PLAIN = {"name": "Sales", "fromName": "Rob Rep", "fromEmail": "Rob@Acme.Example.com"}
SMTP: dict[str, Any] = {
    **PLAIN,
    "transport": "smtp",
    "host": "smtp.acme.example.com",
    "port": 587,
    "security": "starttls",
    "username": "rob",
    "password": " pass word ",
}


async def test_a_mailbox_without_a_server_keeps_its_mail_here(office):
    made = await office.admin.post("/mailboxes", json=PLAIN)
    mailbox = made.json()["mailbox"]
    assert (made.status_code, made.headers["etag"], mailbox["transport"]) == (201, '"1"', "outbox")
    assert (mailbox["fromEmail"], mailbox["host"], mailbox["ownerId"]) == ("rob@acme.example.com", None, None)
    assert mailbox["pace"] == {
        "perMinute": None,
        "perHour": None,
        "perDay": None,
        "spacing": 0,
        "hours": [],
        "zone": None,
    }
    assert (await office.readonly.get(f"/mailboxes/{mailbox['id']}")).json() == made.json()


async def test_the_password_is_kept_sealed_and_told_to_nobody(office, base):
    made = await office.admin.post("/mailboxes", json=SMTP, headers={"Idempotency-Key": "k"})
    again = await office.admin.post("/mailboxes", json=SMTP, headers={"Idempotency-Key": "k"})
    assert again.json() == made.json()
    path = f"/mailboxes/{made.json()['mailbox']['id']}"
    answers = [made, await office.admin.get(path), await office.admin.get("/mailboxes")]
    answers.append(await office.admin.patch(path, json={"password": "another"}, headers=ANY))
    for answer in answers:
        assert answer.is_success, answer.text
        assert not {" pass word ", "another"} & set(answer.text.split('"'))
        assert "assword" not in answer.text
    kept = await as_admin(
        base, "SELECT t::text AS row FROM destinations t UNION ALL SELECT t::text FROM idempotency_keys t"
    )
    assert len(kept) == 2
    assert not [row for row in kept if "pass word" in row["row"]]


async def test_a_password_is_changed_kept_and_taken_away(office, base):
    path = f"/mailboxes/{(await post(office.admin, '/mailboxes', SMTP))['id']}"

    async def password():
        async with base.transaction() as tx:
            (row,) = await tx.execute(select(destinations))
            return mailboxes.password(row, MASTER_KEY)

    assert await password() == " pass word ", "no character of a password is taken away"
    for change, expected in (({"name": "B"}, " pass word "), ({"password": "new"}, "new"), ({"password": None}, None)):
        assert (await office.admin.patch(path, json=change, headers=ANY)).is_success
        assert await password() == expected


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"fromName": "Rob\r\nBcc: all@x.com"}, "/fromName"),
        ({"fromName": "Rob\nRep"}, "/fromName"),
        ({"fromName": "Rob\u2028Rep"}, "/fromName"),
        ({"fromName": "Rob\0"}, "/fromName"),
        ({"fromName": ""}, "/fromName"),
        ({"fromName": "x" * 101}, "/fromName"),
        ({"fromEmail": "rob@acme.example.com\r\nBcc: all@x.com"}, "/fromEmail"),
        ({"fromEmail": "Rob <rob@x.com>"}, "/fromEmail"),
        ({"fromEmail": "jürgen@x.com"}, "/fromEmail"),
        ({"fromEmail": None}, "/fromEmail"),
        ({"name": "a\nb"}, "/name"),
        ({"username": "a\r\nb"}, "/username"),
        ({"password": "a\r\nb"}, "/password"),
        ({"password": ""}, "/password"),
        ({"host": "smtp.x.com\r\nX"}, "/host"),
        ({"host": "http://x.com"}, "/host"),
        ({"host": "user@x.com"}, "/host"),
        ({"host": None}, "/host"),
        ({"port": None}, "/port"),
        ({"port": 0}, "/port"),
        ({"port": "587"}, "/port"),
        ({"security": None}, "/security"),
        ({"security": "ssl"}, "/security"),
        ({"security": "none"}, "/security"),
        ({"security": "none", "host": "10.0.0.1"}, "/security"),
        ({"security": "none", "host": "localhost.evil.com"}, "/security"),
        ({"security": "none", "host": "127.0.0.1.evil.com"}, "/security"),
        ({"security": "none", "host": "2130706433"}, "/security"),
        ({"transport": "carrier pigeon"}, "/transport"),
        ({"ownerId": STRANGER}, "/ownerId"),
        ({"pace": {"perHour": 0}}, "/pace/perHour"),
        ({"pace": {"per_hour": 1, "colour": 1}}, "/pace/colour"),
        ({"pace": {"hours": [{"weekdays": ["mon"], "opens": "17:00", "closes": "09:00"}]}}, "/pace/hours/0"),
        ({"pace": {"zone": "Mars/Base"}}, "/pace/zone"),
        ({"kind": "mailbox"}, "/kind"),
        ({"sealedPassword": "x"}, "/sealedPassword"),
    ],
)  # fmt: skip
async def test_what_no_mailbox_can_have_is_refused_by_its_name(office, change, pointer):
    made = await office.admin.post("/mailboxes", json={**SMTP, **change})
    path = f"/mailboxes/{await make_mailbox(office.admin, **{**SMTP, 'name': 'Other'})}"
    changed = await office.admin.patch(path, json=change, headers=ANY)
    for answer in (made, changed):
        if answer is changed and change == {"password": ""}:
            continue
        assert answer.status_code == 422, answer.text
        assert pointer in [fault["pointer"] for fault in answer.json()["errors"]], answer.text
    assert (await office.admin.get("/mailboxes")).json()["total"] == 1


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost", "LOCALHOST"])
async def test_this_machine_itself_may_be_spoken_to_in_clear(office, host):
    mailbox = await make_mailbox(office.admin, **SMTP | {"host": host, "security": "none"})
    away = await office.admin.patch(f"/mailboxes/{mailbox}", json={"host": "mail.x.com"}, headers=ANY)
    assert (away.status_code, away.json()["errors"][0]["pointer"]) == (422, "/security")


async def test_a_change_names_the_revision_it_is_meant_for(office):
    path = f"/mailboxes/{await make_mailbox(office.admin)}"
    assert (await office.admin.patch(path, json={"name": "B"})).status_code == 428
    changed = await office.admin.patch(path, json={"name": "B", "pace": {"perDay": 5}}, headers={"If-Match": '"1"'})
    assert (changed.json()["mailbox"]["name"], changed.headers["etag"]) == ("B", '"2"')
    stale = await office.admin.patch(path, json={"name": "C"}, headers={"If-Match": '"1"'})
    assert (stale.status_code, stale.json()["code"]) == (412, "STALE_VERSION")
    assert (await office.admin.get(path)).json()["mailbox"]["pace"]["perDay"] == 5
    half = await office.admin.patch(path, json={"transport": "smtp", "host": "x.com"}, headers=ANY)
    assert (half.status_code, half.json()["errors"][0]["pointer"]) == (422, "/port")


async def test_the_pace_is_kept_as_it_is_judged_by(office, base):
    hours = [{"weekdays": ["mon"], "opens": "09:00", "closes": "17:00"}]
    await make_mailbox(office.admin, pace={"perMinute": 2, "perHour": None, "spacing": 1.5, "hours": hours})
    kept = await base.value("SELECT pace::text FROM destinations")
    assert json.loads(kept) == {"perMinute": 2, "spacing": 1.5, "hours": hours}


async def test_a_name_in_use_is_refused_and_names_the_mailbox(office):
    first, second = await make_mailbox(office.admin, "One"), await make_mailbox(office.admin, "Two")
    for answer in (
        await office.admin.post("/mailboxes", json={**PLAIN, "name": "ONE"}),
        await office.admin.patch(f"/mailboxes/{second}", json={"name": "one"}, headers=ANY),
    ):
        assert (answer.status_code, answer.json()["existing"]) == (409, first)


async def test_a_mailbox_is_paused_resumed_and_deleted(office, base):
    path = f"/mailboxes/{await make_mailbox(office.admin)}"
    paused = await post(office.admin, f"{path}/pause")
    assert paused["pausedAt"] is not None
    assert (await post(office.admin, f"{path}/pause"))["pausedAt"] == paused["pausedAt"]
    wakes = await base.value("SELECT count(*) FROM wakes WHERE kind = 'mailbox'")
    assert (await post(office.admin, f"{path}/resume"))["pausedAt"] is None
    assert await base.value("SELECT count(*) FROM wakes WHERE kind = 'mailbox'") == wakes + 1
    assert (await office.admin.delete(path)).status_code == 204
    for method, where in (("GET", path), ("DELETE", path), ("POST", f"{path}/pause"), ("POST", f"{path}/resume")):
        assert (await office.admin.request(method, where)).status_code == 404
    assert await make_mailbox(office.admin), "its name is free again"


async def test_only_an_admin_touches_mailboxes(office):
    path = f"/mailboxes/{await make_mailbox(office.admin)}"
    for client in (office.manager, office.rep, office.readonly):
        assert (await client.get(path)).status_code == 200
        for method, where in (("POST", "/mailboxes"), ("PATCH", path), ("DELETE", path), ("POST", f"{path}/pause")):
            answer = await client.request(method, where, json=PLAIN, headers=ANY)
            assert (answer.status_code, answer.json()["code"]) == (403, "FORBIDDEN")
