import asyncio

import pytest
from sqlalchemy import text

from api.idempotency import Once
from store import idempotency


async def test_a_post_sent_again_has_its_first_answer_and_no_second_effect(rep, base):
    key = {"Idempotency-Key": "k1"}
    body = {"email": "a@x.com", "customFields": {"score": 1.5, "since": "2026"}}
    first = await rep.post("/contacts", json=body, headers=key)
    again = await rep.post("/contacts", json=body, headers=key)
    assert (first.status_code, again.status_code) == (201, 201)
    assert first.json() == again.json()
    assert "idempotent-replay" not in first.headers
    assert again.headers["idempotent-replay"] == "true"
    assert [again.headers[name] for name in ("location", "etag")] == [
        first.headers[name] for name in ("location", "etag")
    ]
    assert await base.value("SELECT count(*) FROM events") == 1


async def test_the_key_may_be_quoted_and_the_path_may_lack_its_version(rep):
    first = await rep.post("/contacts", json={"email": "a@x.com"}, headers={"Idempotency-Key": '"k1"'})
    again = await rep.post("http://drumbeat/api/contacts", json={"email": "a@x.com"}, headers={"Idempotency-Key": "k1"})
    assert (again.json(), again.headers["idempotent-replay"]) == (first.json(), "true")


async def test_the_same_key_with_another_request_is_refused(rep):
    key = {"Idempotency-Key": "k1"}
    await rep.post("/contacts", json={"email": "a@x.com"}, headers=key)
    other = await rep.post("/contacts", json={"email": "b@x.com"}, headers=key)
    assert (other.status_code, other.json()["code"]) == (422, "IDEMPOTENCY_KEY_REUSED")
    assert other.json()["errors"][0] | {"message": ""} == {
        "in": "header", "pointer": "/Idempotency-Key", "code": "idempotency_key_reused", "message": "",
    }  # fmt: skip
    assert (await rep.get("/contacts")).json()["total"] == 1


async def test_a_key_is_its_callers_and_its_routes(office):
    key = {"Idempotency-Key": "k1"}
    contact = await office.rep.post("/contacts", json={"email": "a@x.com"}, headers=key)
    other = await office.admin.post("/contacts", json={"email": "b@x.com"}, headers=key)
    company = await office.rep.post("/companies", json={"name": "A"}, headers=key)
    assert [answer.status_code for answer in (contact, other, company)] == [201, 201, 201]


async def test_twenty_parallel_posts_with_one_key_have_one_effect_and_one_answer(rep, base):
    fields = {"title": "Call", "dueAt": "2030-01-01T00:00:00Z"}
    answers = await asyncio.gather(
        *(rep.post("/reminders", json=fields, headers={"Idempotency-Key": "k1"}) for _ in range(20))
    )
    assert {answer.status_code for answer in answers} == {201}
    assert all(answer.json() == answers[0].json() for answer in answers)
    assert sum("idempotent-replay" in answer.headers for answer in answers) == 19
    assert await base.value("SELECT count(*) FROM reminders") == 1
    assert await base.value("SELECT count(*) FROM wakes") == 1


async def test_a_refused_request_leaves_its_key_free(rep):
    key = {"Idempotency-Key": "k1"}
    deal = (await rep.post("/deals", json={"title": "D"})).json()["deal"]
    fields = {"type": "note", "subject": "N", "dealId": deal["id"]}
    missing = {"title": "T", "dueAt": "2030-01-01T00:00:00Z", "activityId": "01999999-0000-7000-8000-000000000000"}
    assert (await rep.post("/reminders", json=missing, headers=key)).status_code == 422
    assert (await rep.post("/reminders", json={**missing, "activityId": None}, headers=key)).status_code == 201
    assert (await rep.post("/activities", json=fields, headers=key)).status_code == 201


async def test_a_key_whose_first_request_takes_too_long_is_told_to_wait(rep, base, monkeypatch):
    monkeypatch.setattr(Once.__call__, "__kwdefaults__", {"lock_seconds": 0.2})
    caller = await base.value("SELECT id FROM api_keys WHERE role = 'rep'")
    held = idempotency.Key(caller, "/api/v1/contacts", "k1", b"\0" * 32)
    async with base.transaction() as tx:
        await idempotency.claim(tx, held)
        answer = await rep.post("/contacts", json={"email": "a@x.com"}, headers={"Idempotency-Key": "k1"})
        assert (answer.status_code, answer.json()["code"]) == (409, "IDEMPOTENCY_KEY_IN_USE")
        assert answer.headers["retry-after"] == "1"


@pytest.mark.parametrize("key", ["", "k" * 256])
async def test_a_key_that_is_none_is_refused(rep, key):
    answer = await rep.post("/contacts", json={"email": "a@x.com"}, headers={"Idempotency-Key": key})
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/Idempotency-Key")


@pytest.mark.parametrize(
    ("path", "body", "secret"),
    [("/keys", {"name": "n", "role": "rep"}, "token"), ("/sources", {"name": "n"}, "secret")],
)
async def test_a_secret_is_told_again_to_a_repetition_but_kept_in_no_row_in_clear(admin, base, path, body, secret):
    key = {"Idempotency-Key": "k1"}
    first = await admin.post(path, json=body, headers=key)
    again = await admin.post(path, json=body, headers=key)
    assert (first.status_code, first.json()) == (201, again.json())
    told = first.json()[secret]
    async with base.transaction() as tx:
        kept = (await tx.execute(text("SELECT answer::text FROM idempotency_keys"))).scalar_one()
    assert told not in kept
    listed = (await admin.get(path)).json()
    assert told not in str(listed)
    assert [one["name"] for one in listed[path.strip("/")]].count("n") == 1
