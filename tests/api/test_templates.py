import pytest

from tests.api.mailing import ANY, STRANGER, make_sequence, post

CONTENT = {"subject": "Hello {{ contact.firstName | default('there') }}", "text": "How is it going?"}


async def test_a_template_is_made_read_changed_and_deleted(office):
    made = await office.manager.post("/templates", json={"name": "Hello", "content": CONTENT})
    assert (made.status_code, made.headers["etag"]) == (201, '"1"')
    template = made.json()["template"]
    path = f"/templates/{template['id']}"
    assert made.headers["location"] == f"/api/v1{path}"
    assert template["content"] == {**CONTENT, "html": None}
    assert (await office.manager.patch(path, json={"name": "Hi"})).status_code == 428
    changed = await office.manager.patch(path, json={"name": "Hi"}, headers={"If-Match": '"1"'})
    assert (changed.json()["template"]["name"], changed.json()["template"]["content"]["text"]) == (
        "Hi",
        CONTENT["text"],
    )
    html = {"subject": "S", "html": "<p>Hello</p>"}
    stale = await office.manager.patch(path, json={"content": html}, headers={"If-Match": '"1"'})
    assert (stale.status_code, stale.json()["code"]) == (412, "STALE_VERSION")
    replaced = await office.manager.patch(path, json={"content": html}, headers={"If-Match": '"2"'})
    assert replaced.json()["template"]["content"] == {**html, "text": None}
    assert (await office.readonly.get(path)).headers["etag"] == '"3"'
    assert (await office.manager.delete(path)).status_code == 204
    for answer in (await office.rep.get(path), await office.manager.delete(path)):
        assert answer.status_code == 404
    assert (await office.rep.get("/templates")).json()["total"] == 0


async def test_a_name_in_use_is_refused_and_names_the_template(office):
    first = await post(office.admin, "/templates", {"name": "One", "content": CONTENT})
    second = await post(office.admin, "/templates", {"name": "Two", "content": CONTENT})
    answers = (
        await office.admin.post("/templates", json={"name": "ONE", "content": CONTENT}),
        await office.admin.patch(f"/templates/{second['id']}", json={"name": "one"}, headers=ANY),
    )
    for answer in answers:
        assert (answer.status_code, answer.json()["existing"]) == (409, first["id"])
    assert (await office.admin.patch(f"/templates/{first['id']}", json={"name": "one"}, headers=ANY)).is_success


@pytest.mark.parametrize(
    ("content", "pointer", "says"),
    [
        ({"subject": "S"}, "/content", "needs 'text', 'html' or both"),
        ({"subject": "S", "text": "Hi {{ contact.frstName }}"}, "/content", "text, line 1: 'contact' has no field"),
        ({"subject": "S", "text": "Hi {{ name }}"}, "/content", "unknown variable 'name'"),
        ({"subject": "S", "text": "{{ ''.__class__ }}"}, "/content", "text, line 1"),
        ({"subject": "S", "text": "{% include 'x' %}"}, "/content", "text, line 1"),
        ({"subject": "S", "text": "{{ contact.firstName"}, "/content", "text, line 1"),
        ({"subject": "S", "html": "<script>1</script>"}, "/content", "<script> is not allowed"),
        ({"subject": "", "text": "T"}, "/content", "subject, line 1: is empty"),
        ({"subject": "S", "text": "key sk_live_12345678901"}, "/content", "looks like a secret key"),
        ({"text": "T"}, "/content/subject", ""),
        ({"subject": "S", "text": "T", "colour": 1}, "/content/colour", ""),
        ({"subject": "S", "text": "x" * (257 * 1024)}, "/content", "at most 256 KB"),
    ],
)
async def test_a_template_that_could_not_be_sent_is_refused_in_a_sentence(office, content, pointer, says):
    answer = await office.manager.post("/templates", json={"name": "T", "content": content})
    assert (answer.status_code, answer.json()["code"]) == (422, "VALIDATION_ERROR")
    (fault,) = answer.json()["errors"]
    assert fault["pointer"] == pointer
    assert says in fault["message"]
    assert (await office.manager.get("/templates")).json()["total"] == 0


async def test_a_text_no_database_can_hold_is_refused(office):
    answer = await office.manager.post("/templates", json={"name": "T", "content": {"subject": "S", "text": "a\0b"}})
    assert (answer.status_code, answer.json()["code"]) == (422, "VALIDATION_ERROR")


async def test_a_step_names_a_template_of_ones_own(office, other_office):
    mine = (await post(office.admin, "/templates", {"name": "T", "content": CONTENT}))["id"]
    theirs = (await post(other_office.admin, "/templates", {"name": "T", "content": CONTENT}))["id"]
    assert await make_sequence(office.admin, {"steps": [{"kind": "email", "id": "a", "template": mine}]})
    for template in (theirs, STRANGER):
        assert (await office.admin.get(f"/templates/{template}")).status_code == 404
        document = {"steps": [{"kind": "email", "id": "a", "template": template}]}
        answer = await office.admin.post("/sequences", json={"name": "S", "document": document})
        assert answer.status_code == 422, answer.text
