"""What is done in one statement is what the ordinary way does, and nobody comes in by it who may not."""

import asyncio
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from store import transaction
from store.transaction import Database

CONTACT = {
    "firstName": " Ada ", "phone": None, "leadStatus": "qualified", "tags": ["a", "b"], "timeZone": "Europe/Berlin",
    "customFields": {"a": [1, None, {"b": "ü", "c": 1.5}]}, "metadata": {},
}  # fmt: skip
APART = {"id", "email", "createdAt", "updatedAt", "at", "subjectId"}
"""What tells one contact or deal, and what happened to it, from another."""


@pytest.fixture
def short(monkeypatch):
    """How often something was done at once; and the way back to the ordinary one."""
    done: list[bool] = []
    original = Database.at_once

    async def at_once(database, statement, values, **more):
        if ordinary:
            return []
        found = await original(database, statement, values, **more)
        done.append(bool(found))
        return found

    ordinary: list[bool] = []
    monkeypatch.setattr(Database, "at_once", at_once)
    return done, lambda: ordinary.append(True)


def alike(record):
    """A record without what is its own."""
    if not isinstance(record, dict):
        return record
    return {name: alike(value) for name, value in record.items() if name not in APART}


async def events(client, id):
    return [alike(event) for event in (await client.get("/events", params={"subjectId": id})).json()["events"]]


async def both(client, send, short):
    """What two requests of a kind answered and told, the first at once, the second in the ordinary way."""
    done, go_back = short
    found = []
    for email in ("Ada.L+x@x.com", "bo@x.com"):
        answer = await send(email)
        assert answer.is_success, answer.text
        (record,) = answer.json().values() if "received" not in answer.json() else [answer.json()]
        id_ = record.pop("contactId", None) or record["id"]
        headers = {name: value for name, value in answer.headers.items() if name not in ("location", "x-request-id")}
        found.append((answer.status_code, alike(record), headers, await events(client, id_)))
        go_back()
    assert done == [True]
    return found


async def test_a_contact_is_the_same_by_both_ways(rep, short):
    await rep.get("/me")
    at_once, ordinary = await both(rep, lambda email: rep.post("/contacts", json={**CONTACT, "email": email}), short)
    assert at_once[0] == 201
    drop_lengths(at_once, ordinary)
    assert at_once == ordinary


async def test_a_move_is_the_same_by_both_ways(rep, short):
    person = (await rep.post("/contacts", json={"email": "p@x.com"})).json()["contact"]
    short[0].clear()

    async def move(_email):
        body = {
            "title": "D",
            "stage": "closed_lost",
            "contactId": person["id"],
            "valueCents": 5,
            "customFields": {"a": 1},
        }
        deal = (await rep.post("/deals", json=body)).json()["deal"]
        return await rep.put(f"/deals/{deal['id']}/stage", json={"stage": "proposal"})

    at_once, ordinary = await both(rep, move, short)
    assert (at_once[1]["stage"], at_once[1]["outcome"], at_once[1]["revision"]) == ("proposal", None, 2)
    assert at_once == ordinary


async def test_a_webhook_is_the_same_by_both_ways(rep, sender, short, base):
    await sender.post({"type": "other", "data": {}}, "msg_0")
    short[0].clear()
    at_once, ordinary = await both(
        rep, lambda email: sender.post({"type": "contact.upsert", "data": {"email": email}}, f"msg_{len(email)}"), short
    )
    assert at_once == ordinary
    kept = await base.rows("SELECT status, answer - 'contactId' AS answer FROM inbox WHERE message_id <> 'msg_0'")
    assert kept == [{"status": 200, "answer": {"received": True, "created": True}}] * 2
    assert await base.value("SELECT count(*) FROM outbox") == 2


def drop_lengths(*found):
    for _, _, headers, _ in found:
        del headers["content-length"]


async def test_a_key_that_was_revoked_or_lowered_writes_nothing_more_at_once(office, base, rep, short):
    assert (await rep.post("/contacts", json={"email": "a@x.com"})).status_code == 201
    for change, status in (
        ("UPDATE users SET role = 'readonly' WHERE role = 'rep'", 403),
        ("UPDATE users SET is_active = false WHERE role = 'readonly'", 401),
        ("UPDATE users SET is_active = true, role = 'rep' WHERE role = 'readonly'", 201),
        ("UPDATE api_keys SET revoked_at = now()", 401),
    ):
        await run(base, change)
        assert (await rep.post("/contacts", json={"email": f"{status}@x.com"})).status_code == status, change
    assert await base.value("SELECT count(*) FROM contacts") == 2


async def test_a_source_that_was_revoked_or_sealed_anew_and_a_message_of_another_time_write_nothing(sender, base):
    upsert = {"type": "contact.upsert", "data": {"email": "a@x.com"}}
    assert (await sender.post(upsert, "msg_1")).status_code == 200
    other = {"type": "contact.upsert", "data": {"email": "b@x.com"}}
    for late in (-310, 310):
        at = datetime.now(UTC) + timedelta(seconds=late)
        assert (await sender.post(other, "msg_2", at=at)).status_code == 401
    await run(base, "UPDATE sources SET revoked_at = now()")
    assert (await sender.post(other, "msg_3")).status_code == 401
    assert await base.value("SELECT count(*) FROM contacts") == 1


async def test_what_is_done_at_once_is_of_the_keys_organization_and_leaves_none_on_the_connection(
    office, other_office, base, short
):
    for mine in (office, other_office):
        await mine.rep.get("/me")
        for email in ("a@x.com", "b@x.com"):
            assert (await mine.rep.post("/contacts", json={"email": email})).status_code == 201
    assert short[0] == [True] * 4
    assert await base.value("SELECT count(*) FROM contacts") == 2
    deal = (await office.rep.post("/deals", json={"title": "D"})).json()["deal"]
    stranger = await other_office.rep.put(f"/deals/{deal['id']}/stage", json={"stage": "proposal"})
    assert (stranger.status_code, stranger.json()["code"]) == (404, "NOT_FOUND")
    async with base.app.crossing() as connection:
        assert (await connection.exec_driver_sql("SELECT count(*) FROM contacts")).scalar_one() == 0


async def test_a_connection_that_died_in_the_pool_is_replaced_before_anything_is_written(rep, base, short):
    await rep.get("/me")
    pooled = await base.app.engine.raw_connection()
    await pooled.driver_connection.close()
    pooled.close()
    assert (await rep.post("/contacts", json={"email": "a@x.com"})).status_code == 201
    assert short[0] == [True]


async def test_what_is_asked_at_the_same_time_is_written_together_and_answered_each_its_own(rep, base, short):
    await rep.get("/me")
    emails = [f"{number}@x.com" for number in range(40)]
    answers = await asyncio.gather(*(rep.post("/contacts", json={"email": email}) for email in emails))
    assert [answer.json()["contact"]["email"] for answer in answers] == emails
    assert all(short[0])
    assert len(short[0]) < 10
    told = await base.rows(
        "SELECT c.email FROM events e JOIN contacts c ON c.id = e.subject_id JOIN outbox o"
        " ON o.event_id = e.id WHERE e.number = 1 AND e.after->>'email' = c.email"
    )
    assert sorted(one["email"] for one in told) == sorted(emails)


async def test_one_that_is_refused_takes_nobody_with_it(rep, base, short):
    await rep.get("/me")
    nobody = str(uuid4())
    bodies = [{"email": f"{number}@x.com", "companyId": nobody if number == 3 else None} for number in range(6)]
    bodies.append({"email": "0@x.com", "companyId": None})
    answers = await asyncio.gather(*(rep.post("/contacts", json=body) for body in bodies))
    assert sorted(answer.status_code for answer in answers) == [201] * 5 + [409, 422]
    assert answers[3].json()["code"] == "UNKNOWN_REFERENCE"
    assert await base.value("SELECT count(*) FROM contacts") == 5
    assert await base.value("SELECT count(*) FROM events WHERE type = 'contact.created'") == 5


async def test_many_moves_of_one_deal_have_their_numbers_without_a_gap(rep, base):
    deal = (await rep.post("/deals", json={"title": "D"})).json()["deal"]
    stages = [("qualified", "proposal", "negotiation")[number % 3] for number in range(12)]
    move = f"/deals/{deal['id']}/stage"
    answers = await asyncio.gather(*(rep.put(move, json={"stage": stage}) for stage in stages))
    assert {answer.status_code for answer in answers} == {200}
    numbers = [one["number"] for one in await base.rows("SELECT number FROM events ORDER BY number")]
    assert numbers == list(range(1, len(numbers) + 1))
    assert await base.value("SELECT revision FROM deals") == len(numbers)


async def test_a_deal_that_is_locked_is_moved_in_the_ordinary_way(rep, base):
    deals = [(await rep.post("/deals", json={"title": "D"})).json()["deal"]["id"] for _ in range(2)]
    async with base.transaction() as tx:
        await tx.connection.exec_driver_sql(f"SELECT FROM deals WHERE id = '{deals[0]}' FOR UPDATE")
        waits = asyncio.create_task(rep.put(f"/deals/{deals[0]}/stage", json={"stage": "proposal"}))
        goes = await asyncio.wait_for(rep.put(f"/deals/{deals[1]}/stage", json={"stage": "proposal"}), 5)
        assert goes.status_code == 200
        assert not waits.done()
    assert (await asyncio.wait_for(waits, 5)).json()["deal"]["stage"] == "proposal"


async def test_all_who_wait_are_told_that_the_database_is_away(rep, base, monkeypatch):
    await rep.get("/me")

    async def away(*_given, **_more):
        raise ConnectionRefusedError

    monkeypatch.setattr(base.app, "at_once", away)
    answers = await asyncio.gather(*(rep.post("/contacts", json={"email": f"{number}@x.com"}) for number in range(5)))
    assert {answer.status_code for answer in answers} == {503}
    monkeypatch.undo()
    assert (await rep.post("/contacts", json={"email": "0@x.com"})).status_code == 201


async def test_a_statement_that_nobody_answers_is_given_up_and_its_connection_with_it(base, monkeypatch):
    monkeypatch.setattr(transaction, "AT_ONCE_SECONDS", 0.2)
    with pytest.raises(TimeoutError):
        await base.app.at_once("SELECT pg_sleep(20)", (), hints=())
    assert await base.app.at_once("SELECT 1", (), hints=()) == [(1,)]
    assert base.app.engine.pool.checkedout() == 0


async def run(base, statement):
    async with base.transaction() as tx:
        await tx.connection.exec_driver_sql(statement)
