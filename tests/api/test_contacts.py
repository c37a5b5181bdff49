import asyncio
from itertools import count

import pytest


async def test_a_contact_is_created_normalised_and_owned_by_its_maker(rep, base):
    answer = await rep.post("/contacts", json={"email": " Jane@X.com ", "firstName": "Jane", "tags": ["vip"]})
    contact = answer.json()["contact"]
    assert answer.status_code == 201
    assert answer.headers["location"] == f"/api/v1/contacts/{contact['id']}"
    assert answer.headers["etag"] == '"1"'
    assert contact["email"] == "jane@x.com"
    assert (contact["leadScore"], contact["leadStatus"], contact["leadSource"]) == (0, "new", "organic")
    assert contact["ownerId"] == str(base.rep)
    assert contact["createdAt"].endswith("Z")
    assert (await rep.get(answer.headers["location"].removeprefix("/api/v1"))).json() == answer.json()


async def test_twenty_parallel_creates_of_one_address_make_one_and_nineteen_refusals_that_name_it(rep):
    spellings = ["A@x.com", "a@X.com"] * 10
    answers = await asyncio.gather(*(rep.post("/contacts", json={"email": email}) for email in spellings))
    made = [answer for answer in answers if answer.status_code == 201]
    refused = [answer.json() for answer in answers if answer.status_code == 409]
    assert (len(made), len(refused)) == (1, 19)
    assert {(problem["code"], problem["existing"]) for problem in refused} == {
        ("DUPLICATE_EMAIL", made[0].json()["contact"]["id"])
    }
    assert all(problem["errors"][0]["pointer"] == "/email" for problem in refused)
    assert all("a@x.com" in problem["detail"] for problem in refused)


async def test_a_change_writes_what_is_named_and_raises_the_revision(rep):
    made = (await rep.post("/contacts", json={"email": "a@x.com", "phone": "1", "title": "CEO"})).json()["contact"]
    answer = await rep.patch(f"/contacts/{made['id']}", json={"phone": None, "leadStatus": "qualified"})
    changed = answer.json()["contact"]
    assert (answer.status_code, answer.headers["etag"]) == (200, '"2"')
    assert (changed["phone"], changed["leadStatus"], changed["title"]) == (None, "qualified", "CEO")
    again = await rep.patch(f"/contacts/{made['id']}", json={"leadStatus": "qualified"})
    assert again.headers["etag"] == '"2"'
    nothing = await rep.patch(f"/contacts/{made['id']}", json={})
    assert nothing.json() == again.json()


async def test_a_change_to_another_contacts_address_names_that_contact(rep):
    first = (await rep.post("/contacts", json={"email": "a@x.com"})).json()["contact"]
    second = (await rep.post("/contacts", json={"email": "b@x.com"})).json()["contact"]
    answer = await rep.patch(f"/contacts/{second['id']}", json={"email": "A@x.com"})
    assert (answer.status_code, answer.json()["existing"]) == (409, first["id"])


async def test_an_external_id_in_use_is_refused_and_names_its_holder(rep):
    for noun, fields in (("contact", {"email": "{}@x.com"}), ("deal", {"title": "{}"}), ("company", {"name": "{}"})):
        path = {"contact": "/contacts", "deal": "/deals", "company": "/companies"}[noun]
        first, second = ({name: text.format(n) for name, text in fields.items()} for n in "ab")
        made = (await rep.post(path, json={**first, "externalId": "77"})).json()[noun]
        answer = await rep.post(path, json={**second, "externalId": "77"})
        assert (answer.status_code, answer.json()["code"], answer.json()["existing"]) == (409, "DUPLICATE", made["id"])
        assert answer.json()["errors"][0]["pointer"] == "/externalId"


async def test_contacts_are_found_by_words_address_tag_status_owner_and_company(rep, base):
    company = (await rep.post("/companies", json={"name": "Northwind 100%"})).json()["company"]
    ada = {"email": "ada@x.com", "firstName": "Ada", "lastName": "Lovelace", "tags": ["vip", "uk"]}
    bob = {"email": "bob@y.org", "companyId": company["id"], "leadStatus": "contacted", "ownerId": str(base.manager)}
    for fields in (ada, bob):
        assert (await rep.post("/contacts", json=fields)).status_code == 201

    async def found(**query):
        listed = (await rep.get("/contacts", params=query)).json()
        assert listed["total"] == len(listed["contacts"])
        return [contact["email"] for contact in listed["contacts"]]

    assert await found() == ["bob@y.org", "ada@x.com"]
    assert await found(q="a lovel") == ["ada@x.com"]
    assert await found(q="Y.ORG") == ["bob@y.org"]
    assert await found(q="100%") == ["bob@y.org"]
    assert await found(q="%") == ["bob@y.org"]
    assert await found(email="ADA@x.com") == ["ada@x.com"]
    assert await found(tag="vip") == ["ada@x.com"]
    assert await found(status="contacted") == ["bob@y.org"]
    assert await found(owner=base.manager) == ["bob@y.org"]
    assert await found(q="a", status="contacted", tag="vip") == []


async def test_a_walk_over_pages_sees_each_contact_once_while_contacts_are_added(rep, base):
    async with base.transaction() as tx:
        from uuid_utils.compat import uuid7

        from store import contacts

        made = await contacts.create_many(tx, [{"id": uuid7(), "email": f"c{n}@x.com"} for n in range(2500)])
    seen: list[str] = []
    cursor, numbers = None, count()
    while True:
        page = await rep.get("/contacts", params={"limit": 100, **({"cursor": cursor} if cursor else {})})
        seen += [contact["id"] for contact in page.json()["contacts"]]
        await rep.post("/contacts", json={"email": f"late{next(numbers)}@x.com"})
        cursor = page.json()["cursor"]
        if cursor is None:
            break
    assert len(seen) == 2500
    assert set(seen) == {str(id_) for id_ in made}


@pytest.mark.parametrize("query", ["limit=0", "limit=101", "limit=x", "cursor=nonsense", "cursor=%00", "colour=red"])
async def test_a_page_that_cannot_be_asked_for_is_refused_by_name(rep, query):
    answer = await rep.get(f"/contacts?{query}")
    assert (answer.status_code, answer.json()["code"]) == (422, "VALIDATION_ERROR")
    fault = answer.json()["errors"][0]
    assert (fault["in"], fault["pointer"]) == ("query", f"/{query.partition('=')[0]}")


async def test_the_api_answers_without_its_version_too(rep, app):
    made = await rep.post("http://drumbeat/api/contacts", json={"email": "a@x.com"})
    assert made.status_code == 201
    path = made.headers["location"]
    assert path.startswith("/api/v1/")
    assert (await rep.get(f"http://drumbeat{path.replace('/api/v1', '/api')}")).json() == made.json()


async def test_a_deleted_contact_is_gone_its_address_is_free_and_what_names_it_goes_on(rep, office, base):
    fields = {"email": "a@x.com", "externalId": "77"}
    made = (await rep.post("/contacts", json=fields)).json()["contact"]
    path = f"/contacts/{made['id']}"
    deal = (await rep.post("/deals", json={"title": "D", "contactId": made["id"]})).json()["deal"]
    assert (await office.readonly.delete(path)).status_code == 403
    answer = await rep.delete(path)
    assert (answer.status_code, answer.content) == (204, b"")
    for method in ("GET", "PATCH", "DELETE"):
        gone = await rep.request(method, path, json={"phone": "1"} if method == "PATCH" else None)
        assert (gone.status_code, gone.json()["code"]) == (404, "NOT_FOUND"), method
    assert (await rep.get("/contacts")).json()["total"] == 0
    event, created = (await rep.get("/events", params={"subjectId": made["id"]})).json()["events"]
    assert (event["type"], event["number"], event["actorId"]) == ("contact.deleted", 2, str(base.rep))
    assert (event["before"]["deletedAt"], created["type"]) == (None, "contact.created")
    assert event["after"]["deletedAt"] is not None
    assert (await rep.put(f"/deals/{deal['id']}/stage", json={"stage": "proposal"})).is_success
    assert (await rep.get(f"/deals/{deal['id']}")).json()["deal"]["contactId"] == made["id"]
    again = await rep.post("/contacts", json=fields)
    assert (again.status_code, again.json()["contact"]["revision"]) == (201, 1)
    assert again.json()["contact"]["id"] != made["id"]


async def test_deleting_a_contact_twenty_times_at_once_does_so_once(rep, base):
    made = (await rep.post("/contacts", json={"email": "a@x.com"})).json()["contact"]
    answers = await asyncio.gather(*(rep.delete(f"/contacts/{made['id']}") for _ in range(20)))
    assert sorted(answer.status_code for answer in answers) == [204] + [404] * 19
    assert await base.value("SELECT count(*) FROM events WHERE type = 'contact.deleted'") == 1
