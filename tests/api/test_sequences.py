import pytest

from tests.api.mailing import ANY, DOCUMENT, HELLO, NUDGE, WAIT, make_sequence, post


async def test_a_sequence_is_a_draft_with_one_version_until_it_is_activated(office):
    made = await post(office.manager, "/sequences", {"name": "Trial", "document": DOCUMENT})
    assert (made["status"], made["revision"], made["enrolledCount"], made["counts"]) == ("draft", 1, 0, {})
    whole = await office.readonly.get(f"/sequences/{made['id']}")
    assert whole.headers["etag"] == '"1"'
    (version,) = whole.json()["sequence"]["versions"]
    assert (version["number"], version["document"], version["activeSince"]) == (1, DOCUMENT, None)
    assert whole.json()["sequence"]["activeVersion"] is None


async def test_no_sequence_is_activated_before_its_mail_can_say_whose_it_is(office):
    sequence = await make_sequence(office.admin, active=False)
    refused = await office.admin.post(f"/sequences/{sequence}/activate", headers=ANY)
    assert (refused.status_code, refused.json()["code"]) == (409, "SEQUENCE_NOT_READY")
    assert refused.json()["errors"][0]["pointer"] == "/postalAddress"
    await office.admin.put("/sending/postal-address", json={"postalAddress": "Acme, Berlin"})
    assert (await office.admin.post(f"/sequences/{sequence}/activate", headers=ANY)).status_code == 200


async def test_a_sequences_life_is_guarded_by_its_revision(office, post_office):
    path = f"/sequences/{post_office.sequence}"
    manager = office.manager
    assert (await manager.put(f"{path}/document", json=DOCUMENT)).status_code == 428
    second = await manager.put(f"{path}/document", json={"steps": [HELLO]}, headers={"If-Match": '"2"'})
    assert [version["number"] for version in second.json()["sequence"]["versions"]] == [1, 2]
    assert (second.json()["sequence"]["activeVersion"], second.headers["etag"]) == (1, '"3"')
    stale = await manager.post(f"{path}/activate", headers={"If-Match": '"2"'})
    assert (stale.status_code, stale.json()["code"]) == (412, "STALE_VERSION")
    assert (await manager.post(f"{path}/activate", headers={"If-Match": '"3"'})).status_code == 200
    assert (await manager.get(path)).json()["sequence"]["activeVersion"] == 2
    paused = await manager.post(f"{path}/pause", headers={"If-Match": '"4"'})
    assert (paused.json()["sequence"]["status"], paused.headers["etag"]) == ("paused", '"5"')
    again = await manager.post(f"{path}/pause", headers=ANY)
    assert (again.status_code, again.json()["code"]) == (409, "ILLEGAL_TRANSITION")
    assert (await post(manager, f"{path}/archive"))["status"] == "archived"
    for verb in ("activate", "archive"):
        assert (await manager.post(f"{path}/{verb}", headers=ANY)).json()["code"] == "ILLEGAL_TRANSITION"


async def test_a_rule_and_a_sequence_may_have_one_name_but_not_one_address(office):
    sequence = await make_sequence(office.admin, name="Same", active=False)
    notify = {"kind": "act", "id": "a", "action": {"type": "notify", "title": "T"}}
    rule = await post(
        office.admin,
        "/rules",
        {"name": "Same", "document": {"trigger": {"on": "contact.created"}, "steps": [notify]}},
    )
    assert (await office.admin.get(f"/rules/{sequence}")).status_code == 404
    assert (await office.admin.get(f"/sequences/{rule['id']}")).status_code == 404
    for verb in ("activate", "pause", "archive"):
        assert (await office.admin.post(f"/sequences/{rule['id']}/{verb}", headers=ANY)).status_code == 404
        assert (await office.admin.post(f"/rules/{sequence}/{verb}", headers=ANY)).status_code == 404
    assert [(await office.admin.get(path)).json()["total"] for path in ("/rules", "/sequences")] == [1, 1]
    taken = await office.admin.post("/sequences", json={"name": "SAME", "document": DOCUMENT})
    assert (taken.status_code, taken.json()["existing"]) == (409, sequence)


@pytest.mark.parametrize(
    ("document", "pointer", "says"),
    [
        ({"steps": []}, "/document/steps", ""),
        ({"steps": [HELLO], "trigger": {"on": "contact.created"}}, "/document/trigger", ""),
        ({"steps": [{"kind": "email", "id": "a"}]}, "/document/steps/0", "has either a 'template'"),
        ({"steps": [{**HELLO, "text": "Hi {{ contact.frstName }}"}]}, "/document", "has no field 'frstName'"),
        ({"steps": [{**HELLO, "subject": "Re: us"}]}, "/document", "may not begin with 'Re:'"),
        ({"steps": [NUDGE]}, "/document", "answers a mail before it"),
        ({"steps": [HELLO, HELLO]}, "/document", "used twice"),
        ({"steps": [HELLO], "exits": [{"on": "contact.updated", "changed": ["size"]}]}, "/document", "exit 1"),
        ({"steps": [HELLO], "again": "sometimes"}, "/document/again", ""),
    ],
)
async def test_a_document_that_makes_no_sense_is_refused_in_a_sentence(office, document, pointer, says):
    answer = await office.manager.post("/sequences", json={"name": "S", "document": document})
    assert (answer.status_code, answer.json()["code"]) == (422, "VALIDATION_ERROR")
    faults = [fault for fault in answer.json()["errors"] if fault["pointer"].startswith(pointer)]
    assert faults, answer.text
    assert any(says in fault["message"] for fault in faults), answer.text
    assert (await office.manager.get("/sequences")).json()["total"] == 0


async def test_the_schema_of_documents_is_told(office):
    schema = (await office.readonly.get("/sequences/schema")).json()
    assert {"steps", "exits", "again", "mailbox", "stopOnReply"} == schema["properties"].keys()


async def test_a_list_tells_how_many_are_inside_and_how_the_others_ended(office, post_office):
    await make_sequence(office.admin, {"steps": [WAIT]}, "Empty")
    contacts = [await post(office.rep, "/contacts", {"email": f"c{n}@x.com"}) for n in range(4)]
    results = (await post_office.enroll(*(one["id"] for one in contacts)))["results"]
    await post(office.rep, f"/enrollments/{results[0]['enrollmentId']}/pause")
    await post(office.rep, f"/enrollments/{results[1]['enrollmentId']}/stop")
    told = {"open": 2, "paused": 1, "stopped": 1}
    listed = (await office.rep.get("/sequences", params={"status": "active"})).json()["sequences"]
    assert [(one["name"], one["enrolledCount"], one["counts"]) for one in listed] == [
        ("Empty", 0, {}),
        ("Trial", 4, told),
    ]
    shown = (await office.rep.get(f"/sequences/{post_office.sequence}")).json()["sequence"]
    assert (shown["enrolledCount"], shown["counts"]) == (4, told)
    paused = await post(office.manager, f"/sequences/{post_office.sequence}/pause")
    assert paused["counts"] == told


async def test_a_post_that_is_sent_again_has_its_first_effect(office):
    body = {"name": "Trial", "document": DOCUMENT}
    first, again = [
        await office.manager.post("/sequences", json=body, headers={"Idempotency-Key": "k"}) for _ in range(2)
    ]
    assert (first.status_code, again.status_code, again.json()) == (201, 201, first.json())
    assert again.headers["idempotent-replay"] == "true"
