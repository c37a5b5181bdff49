import asyncio
import json
from datetime import UTC, datetime, timedelta

import httpx2
import pytest
from standardwebhooks import Webhook
from structlog.testing import capture_logs

from api.app import create_app

DATA = {"email": "Ada@X.com", "firstName": "Ada", "leadSource": "partner"}
STRANGER = "01999999-0000-7000-8000-000000000000"
UPSERT = {"type": "contact.upsert", "timestamp": "2026-01-01T00:00:00Z", "data": DATA}


async def count(base, table):
    return await base.value(f"SELECT count(*) FROM {table}")


async def test_a_signed_webhook_makes_a_contact_in_the_sources_name(sender, base, rep):
    answer = await sender.post(UPSERT)
    assert (answer.status_code, answer.json()["received"], answer.json()["created"]) == (200, True, True)
    contact = (await rep.get(f"/contacts/{answer.json()['contactId']}")).json()["contact"]
    assert (contact["email"], contact["firstName"], contact["leadSource"]) == ("ada@x.com", "Ada", "partner")
    (event,) = (await rep.get("/events", params={"subjectId": contact["id"]})).json()["events"]
    assert (event["actorKind"], f"/webhooks/{event['actorId']}") == (
        "source",
        sender.path.removeprefix("http://drumbeat"),
    )


async def test_a_known_contact_is_changed_by_what_the_webhook_names_only(sender, rep):
    made = (await rep.post("/contacts", json={"email": "ada@x.com", "phone": "1", "title": "CEO"})).json()["contact"]
    answer = await sender.post({"type": "contact.upsert", "data": {**DATA, "phone": "2"}})
    assert answer.json() == {"received": True, "contactId": made["id"], "created": False}
    contact = (await rep.get(f"/contacts/{made['id']}")).json()["contact"]
    assert (contact["phone"], contact["title"], contact["firstName"]) == ("2", "CEO", "Ada")


async def test_a_deleted_contact_is_not_brought_back_but_made_anew(sender, rep):
    old = (await sender.post(UPSERT)).json()["contactId"]
    assert (await rep.delete(f"/contacts/{old}")).status_code == 204
    again = (await sender.post(UPSERT, message="msg_2")).json()
    assert (again["created"], again["contactId"] == old) == (True, False)
    assert (await rep.get(f"/contacts/{old}")).status_code == 404


async def test_a_second_delivery_is_told_the_same_and_changes_nothing(sender, base):
    first = await sender.post(UPSERT)
    again = await sender.post(UPSERT, at=datetime.now(UTC) + timedelta(seconds=60))
    assert (again.status_code, again.json()) == (200, first.json())
    assert again.headers["idempotent-replay"] == "true"
    assert "idempotent-replay" not in first.headers
    assert (await count(base, "events"), await count(base, "inbox")) == (1, 1)


async def test_ten_deliveries_at_once_have_one_effect_and_one_answer(sender, base):
    answers = await asyncio.gather(*(sender.post(UPSERT) for _ in range(10)))
    assert {answer.status_code for answer in answers} == {200}
    assert all(answer.json() == answers[0].json() for answer in answers)
    assert sum("idempotent-replay" in answer.headers for answer in answers) == 9
    assert (await count(base, "contacts"), await count(base, "events"), await count(base, "inbox")) == (1, 1, 1)


async def test_ten_messages_at_once_about_one_address_make_one_contact(sender, base):
    answers = await asyncio.gather(*(sender.post(UPSERT, message=f"msg_{n}") for n in range(10)))
    assert {answer.status_code for answer in answers} == {200}
    assert sum(answer.json()["created"] for answer in answers) == 1
    assert (await count(base, "contacts"), await count(base, "inbox")) == (1, 10)


async def test_a_type_that_is_not_handled_is_passed_over(sender, base):
    answer = await sender.post({"type": "invoice.paid", "data": {"amount": 1}})
    assert (answer.status_code, answer.json()) == (200, {"received": False, "reason": "type_not_handled"})
    assert (await count(base, "contacts"), await count(base, "inbox")) == (0, 1)


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"type": "contact.upsert", "data": {"email": "a@b"}}, "/data/email"),
        ({"type": "contact.upsert", "data": {"firstName": "A"}}, "/data/email"),
        ({"type": "contact.upsert", "data": {"email": "a@x.com", "colour": 1}}, "/data/colour"),
        ({"type": "contact.upsert", "data": {"email": "a@x.com", "\0": 1}}, "/data/?"),
        ({"type": "contact.upsert", "data": {"email": "a@x.com", "companyId": STRANGER}}, "/data/companyId"),
        ({"type": "contact.upsert"}, "/data"),
        ({"data": {}}, "/type"),
        ([], ""),
        ("", ""),
        ("no JSON", ""),
    ],
)  # fmt: skip
async def test_what_is_signed_but_not_understood_is_kept_and_told_the_same_again(sender, base, body, pointer):
    answer = await sender.post(body)
    assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json")
    assert answer.json()["errors"][0]["pointer"] == pointer
    again = await sender.post(body)
    assert (again.status_code, again.json(), again.headers["idempotent-replay"]) == (422, answer.json(), "true")
    assert (await count(base, "contacts"), await count(base, "inbox"), await count(base, "events")) == (0, 1, 0)


async def test_a_taken_external_id_is_told_and_leaves_nothing_half_done(sender, rep, base):
    made = await rep.post("/contacts", json={"email": "b@x.com", "externalId": "7"})
    answer = await sender.post({"type": "contact.upsert", "data": {**DATA, "externalId": "7"}})
    assert (answer.status_code, answer.json()["code"]) == (409, "DUPLICATE")
    assert answer.json()["existing"] == made.json()["contact"]["id"]
    assert await count(base, "contacts") == 1


NOBODYS = Webhook("whsec_" + "A" * 43 + "=")

FORGERIES = {
    "another secret": lambda s, b: s.post(b, webhook_signature=NOBODYS.sign("msg_1", datetime.now(UTC), json.dumps(b))),
    "another id": lambda s, b: s.post(b, webhook_id="msg_2"),
    "an id with a dot": lambda s, b: s.post(b, message="msg.1"),
    "another time": lambda s, b: s.post(b, webhook_timestamp=str(int(datetime.now(UTC).timestamp()) + 1)),
    "old": lambda s, b: s.post(b, at=datetime.now(UTC) - timedelta(seconds=310)),
    "of the future": lambda s, b: s.post(b, at=datetime.now(UTC) + timedelta(seconds=310)),
    "no time": lambda s, b: s.post(b, webhook_timestamp="now"),
    "a time with a fraction": lambda s, b: s.post(b, webhook_timestamp=f"{datetime.now(UTC).timestamp()}"),
    "not a number": lambda s, b: s.post(b, webhook_timestamp="nan"),
    "an endless time": lambda s, b: s.post(b, webhook_timestamp="9" * 400),
    "other digits": lambda s, b: s.post(b, webhook_timestamp="¹²³".encode()),
    "an empty signature": lambda s, b: s.post(b, webhook_signature=""),
    "another version": lambda s, b: s.post(b, webhook_signature="v1a,AAAA"),
    "no base64": lambda s, b: s.post(b, webhook_signature="v1,§§".encode()),
    "a cut signature": lambda s, b: s.post(b, webhook_signature="v1,AAAA v1, v1 ,"),
    "no id": lambda s, b: s.post(b, webhook_id=None),
    "no timestamp": lambda s, b: s.post(b, webhook_timestamp=None),
    "no signature": lambda s, b: s.post(b, webhook_signature=None),
}  # fmt: skip


@pytest.mark.parametrize("forge", FORGERIES.values(), ids=FORGERIES.keys())
async def test_a_forgery_is_refused_logged_and_changes_nothing(sender, base, forge):
    with capture_logs() as logs:
        answer = await forge(sender, UPSERT)
    assert (answer.status_code, answer.json()["code"]) == (401, "UNAUTHORIZED")
    assert answer.json()["detail"] == "This is not a webhook signed by a source known here."
    assert (await count(base, "inbox"), await count(base, "contacts")) == (0, 0)
    (line,) = [line for line in logs if line["event"] == "webhook_refused"]
    assert "whsec" not in str(line)
    assert "Ada" not in str(line)


async def test_a_forged_body_is_refused(sender, base):
    at = datetime.now(UTC)
    signature = Webhook(sender.secret).sign("msg_1", at, json.dumps(UPSERT))
    forged = {**UPSERT, "data": {"email": "evil@x.com"}}
    assert (await sender.post(forged, at=at, webhook_signature=signature)).status_code == 401
    assert await count(base, "inbox") == 0


@pytest.mark.parametrize("name", ["webhook-id", "webhook-timestamp", "webhook-signature"])
async def test_a_header_given_twice_is_refused(sender, name):
    at = datetime.now(UTC)
    text = json.dumps(UPSERT)
    headers = [
        ("webhook-id", "msg_1"),
        ("webhook-timestamp", str(int(at.timestamp()))),
        ("webhook-signature", Webhook(sender.secret).sign("msg_1", at, text)),
    ]
    again = next(pair for pair in headers if pair[0] == name)
    assert (await sender.client.post(sender.path, content=text, headers=headers)).status_code == 200
    assert (await sender.client.post(sender.path, content=text, headers=[*headers, again])).status_code == 401


async def test_one_good_signature_among_several_is_enough(sender):
    at = datetime.now(UTC)
    good = Webhook(sender.secret).sign("msg_1", at, json.dumps(UPSERT))
    assert (await sender.post(UPSERT, at=at, webhook_signature=f"v1,AAAA v1a,BBBB {good}")).status_code == 200


@pytest.mark.parametrize(
    "path", ["/webhooks/01999999-0000-7000-8000-000000000000", "/webhooks/nonsense", "/webhooks/%00"]
)
async def test_an_unknown_source_is_answered_like_a_forgery(sender, path):
    known = await sender.post(UPSERT, webhook_signature="v1,AAAA")
    sender.path = f"http://drumbeat{path}"
    unknown = await sender.post(UPSERT)
    assert unknown.status_code == 401
    assert unknown.json() | {"requestId": ""} == known.json() | {"requestId": ""}


async def test_the_databases_clock_judges_not_this_process_and_time_lapse_makes_no_difference(sender, base):
    await base.pass_time(timedelta(days=400))
    assert (await sender.post(UPSERT)).status_code == 200


async def test_under_another_master_key_no_webhook_is_believed(sender, base):
    app = create_app(base.app, bytes(32))
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app)) as client:
        sender.client = client
        assert (await sender.post(UPSERT)).status_code == 401
