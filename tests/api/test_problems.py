import asyncio
import json
from uuid import UUID

import httpx2
import pytest

from api.app import create_app
from store.transaction import Database

MiB = 1 << 20


def told(answer):
    """The problem of an answer, which has the form every problem has."""
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["status"] == answer.status_code
    assert problem["requestId"] == answer.headers["x-request-id"]
    assert problem["type"] == f"urn:drumbeat:problem:{problem['code'].lower().replace('_', '-')}"
    assert problem["title"]
    assert problem["detail"]
    return problem


def faults(answer):
    return {(fault["in"], fault["pointer"], fault["code"]) for fault in told(answer)["errors"]}


@pytest.mark.parametrize(
    ("path", "body", "expected"),
    [
        ("/contacts", {"email": "a@x.com", "colour": 1}, ("/colour", "unknown_field")),
        ("/contacts", {"email": "a@x.com", "first_name": "A"}, ("/first_name", "unknown_field")),
        ("/contacts", {"email": "a@x.com", "a/b~c": 1}, ("/a~1b~0c", "unknown_field")),
        ("/contacts", {"email": "a@x.com", "\ud800": 1}, ("", "string_unicode")),
        ("/contacts", {}, ("/email", "missing")),
        ("/contacts", {"email": "a@b"}, ("/email", "bad_email")),
        ("/contacts", {"email": None}, ("/email", "string_type")),
        ("/contacts", {"email": "a@x.com", "leadStatus": "hot"}, ("/leadStatus", "enum")),
        ("/contacts", {"email": "a@x.com", "leadStatus": None}, ("/leadStatus", "enum")),
        ("/contacts", {"email": "a@x.com", "firstName": "a\0b"}, ("/firstName", "unstorable_text")),
        ("/contacts", {"email": "a@x.com", "firstName": "\ud800"}, ("/firstName", "string_unicode")),
        ("/contacts", {"email": "a@x.com", "firstName": "x" * 256}, ("/firstName", "string_too_long")),
        ("/contacts", {"email": "a@x.com", "timeZone": "Mars/Base"}, ("/timeZone", "value_error")),
        ("/contacts", {"email": "a@x.com", "customFields": {"a": ["b\0"]}}, ("/customFields", "unstorable_text")),
        (
            "/contacts",
            {"email": "a@x.com", "customFields": {"a": float("nan")}},
            ("/customFields", "unstorable_number"),
        ),
        ("/contacts", {"email": "a@x.com", "tags": ["ok", 3]}, ("/tags/1", "string_type")),
        ("/contacts", {"email": "a@x.com", "ownerId": "me"}, ("/ownerId", "uuid_parsing")),
        ("/deals", {"title": "D", "valueCents": 1.5}, ("/valueCents", "int_type")),
        ("/deals", {"title": "D", "valueCents": "5"}, ("/valueCents", "int_type")),
        ("/deals", {"title": "D", "valueCents": -1}, ("/valueCents", "greater_than_equal")),
        ("/deals", {"title": "D", "valueCents": 10**20}, ("/valueCents", "less_than_equal")),
        ("/deals", {"title": "D", "currency": "usd"}, ("/currency", "string_pattern_mismatch")),
        ("/deals", {"title": " "}, ("/title", "string_too_short")),
        (
            "/deals",
            {"title": "D", "expectedCloseDate": "31/04/2026"},
            ("/expectedCloseDate", "date_from_datetime_parsing"),
        ),
    ],
)
async def test_a_field_that_cannot_be_is_named(rep, path, body, expected):
    answer = await rep.post(path, content=json.dumps(body), headers={"Content-Type": "application/json"})
    assert answer.status_code == 422
    assert told(answer)["code"] == "VALIDATION_ERROR"
    assert faults(answer) == {("body", *expected)}
    assert (await rep.get(path)).json()["total"] == 0


async def test_every_wrong_field_is_named_at_once(rep):
    answer = await rep.post("/deals", json={"valueCents": -1, "currency": "x", "shape": "round"})
    assert {pointer for _, pointer, _ in faults(answer)} == {"/title", "/valueCents", "/currency", "/shape"}


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'"text"', b"\xff\xfe", b'{"email": ' + b"1" * 5000 + b"}", b"[" * 100_000]
)
async def test_a_body_that_is_no_object_is_refused(rep, content):
    answer = await rep.post("/contacts", content=content, headers={"Content-Type": "application/json"})
    assert answer.status_code in (400, 422)
    assert told(answer)["code"] in ("VALIDATION_ERROR", "BAD_REQUEST")


async def test_a_body_that_says_it_is_something_else_is_refused(rep):
    answer = await rep.post("/contacts", content=b'{"email": "a@x.com"}', headers={"Content-Type": "text/plain"})
    assert answer.status_code == 422
    told(answer)


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nothing", 404, "NOT_FOUND"),
        ("GET", "/contacts/01999999-0000-7000-8000-000000000000", 404, "NOT_FOUND"),
        ("DELETE", "/contacts", 405, "METHOD_NOT_ALLOWED"),
        ("GET", "/contacts/12", 422, "VALIDATION_ERROR"),
        ("GET", "/contacts/", 422, "VALIDATION_ERROR"),
    ],
)
async def test_what_is_not_there_is_a_problem_like_any_other(rep, method, path, status, code):
    answer = await rep.request(method, path)
    assert answer.status_code in (status, 404)
    assert told(answer)["code"] in (code, "NOT_FOUND")
    if status == 405:
        assert answer.headers["allow"]


async def test_a_missing_record_is_named_by_its_noun(rep):
    answer = await rep.get("/contacts/01999999-0000-7000-8000-000000000000")
    assert told(answer)["detail"] == "Contact not found"


@pytest.mark.parametrize("announced", [True, False])
@pytest.mark.parametrize(
    ("path", "most"), [("/contacts", MiB), ("/imports/contacts", 20 * MiB), ("http://drumbeat/webhooks/x", MiB // 4)]
)
async def test_a_body_past_its_limit_is_refused_also_where_its_size_was_not_announced(admin, path, most, announced):
    async def pieces():
        for _ in range(most // 65536):
            yield b" " * 65536
        yield b" "

    content = b" " * (most + 1) if announced else pieces()
    answer = await admin.post(path, content=content, headers={"Content-Type": "application/json"})
    assert answer.status_code == 413
    assert told(answer)["code"] == "BODY_TOO_LARGE"


async def test_text_that_sql_would_trip_over_is_only_text(rep):
    nasty = ["'; DROP TABLE contacts; --", "%' OR 1=1 --", "\\", "'\"`$$", "{0}", "%s", ":q", "a & | ! b", "<->"]
    for number, words in enumerate(nasty):
        made = await rep.post("/contacts", json={"email": f"n{number}@x.com", "firstName": words, "tags": [words]})
        assert made.json()["contact"]["firstName"] == words
        for query in ({"q": words}, {"tag": words}, {"email": words}):
            assert (await rep.get("/contacts", params=query)).status_code == 200
        assert (await rep.get("/contacts", params={"q": words})).json()["total"] >= 1
        assert (await rep.get("/activities", params={"q": words})).status_code == 200
        assert (await rep.get("/companies", params={"q": words})).status_code == 200
        assert (await rep.get("/rules", params={"q": words})).status_code == 200


@pytest.mark.parametrize("query", ["q=%00", "q=a%00b", "tag=%00", "email=%00"])
async def test_a_query_that_no_text_can_hold_is_refused(rep, query):
    answer = await rep.get(f"/contacts?{query}")
    assert answer.status_code == 422
    told(answer)


async def test_values_past_what_the_database_holds_are_refused_not_failed(rep):
    ancient = await rep.post("/reminders", json={"title": "T", "dueAt": "0001-01-01T00:00:00+14:00"})
    assert ancient.status_code == 422
    assert told(ancient)["code"] == "VALIDATION_ERROR"


async def speak(database: Database) -> httpx2.Response:
    app = create_app(database, bytes(32))
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://drumbeat/api/v1") as client:
        return await client.get("/contacts", headers={"Authorization": "Bearer drb_x"})


async def test_a_database_that_is_away_is_worth_another_try():
    database = Database.connect("postgresql://drumbeat_app:x@127.0.0.1:1/none")
    answer = await speak(database)
    await database.close()
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert told(answer)["code"] == "DB_ERROR"


async def test_a_pool_without_a_free_connection_is_worth_another_try(base):
    database = Database.connect(base.app_url, size=1, overflow=0, timeout=0.05)
    async with database.crossing():
        answer = await speak(database)
    await database.close()
    assert answer.status_code == 503
    assert told(answer)["code"] == "DB_ERROR"


async def test_a_login_the_server_refuses_tells_nothing_of_it(base):
    database = Database.connect(base.app_url.replace("app-password", "wrong"))
    answer = await speak(database)
    await database.close()
    assert answer.status_code >= 500
    assert "password" not in answer.text
    told(answer)


async def test_a_lock_that_does_not_come_free_is_worth_another_try(rep, base, monkeypatch):
    contact = (await rep.post("/contacts", json={"email": "a@x.com"})).json()["contact"]
    original = Database.transaction
    monkeypatch.setattr(Database, "transaction", lambda *args, **_: original(*args, lock_seconds=0.1))
    from store import contacts

    async with base.transaction() as tx:
        await contacts.change(tx, UUID(contact["id"]), {"phone": "1"})
        answer = await rep.patch(f"/contacts/{contact['id']}", json={"phone": "2"})
    assert answer.status_code == 503
    assert told(answer)["code"] == "DB_ERROR"


async def test_a_mistake_of_ours_tells_the_client_nothing_but_whom_to_ask(rep, monkeypatch):
    from store import contacts

    async def fail(*_args, **_named):
        raise RuntimeError("secret of jane@x.com")

    monkeypatch.setattr(contacts, "search", fail)
    answer = await rep.get("/contacts")
    assert answer.status_code == 500
    assert told(answer)["code"] == "INTERNAL_ERROR"
    assert "jane" not in answer.text


async def test_each_answer_has_an_id_of_its_own(rep):
    answers = await asyncio.gather(*(rep.get("/me") for _ in range(5)))
    assert len({answer.headers["x-request-id"] for answer in answers}) == 5
