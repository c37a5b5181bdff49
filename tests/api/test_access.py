"""Who may what, over HTTP. The routes are read from the API's own description, so a new one is tested by itself."""

import json
import re
from functools import cache

import pytest

from api.app import create_app
from api.auth import PERMISSIONS
from domain.words import Role
from store import identity
from store.transaction import Database
from tests.api.mailing import correspondence
from tests.driving import as_admin, match_all

DOCUMENT = {
    "trigger": {"on": "contact.created"},
    "steps": [
        {"kind": "wait", "id": "wait", "wait": {"for": {"amount": 3, "unit": "days"}}},
        {"kind": "act", "id": "tell", "action": {"type": "notify", "title": "Look"}},
    ],
}
STRANGER = "01999999-0000-7000-8000-000000000000"


@cache
def described():
    return create_app(Database.connect("postgresql://nobody@127.0.0.1:1/none"), bytes(32)).openapi()


def routes():
    """(method, path, operation) of everything under /api."""
    return [
        (method.upper(), path.removeprefix("/api/v1"), operation)
        for path, item in described()["paths"].items()
        for method, operation in item.items()
        if path.startswith("/api/v1/")
    ]


ROUTES = routes()
WITH_ID = [route for route in ROUTES if "{" in route[1]]
LISTS = [route for route in ROUTES if route[0] == "GET" and "{" not in route[1]]


def name_of(route):
    return f"{route[0]} {route[1]}"


def body_of(operation):
    """A body of the description's own example, as (content, content type)."""
    for media_type, content in operation.get("requestBody", {}).get("content", {}).items():
        if media_type == "text/csv":
            return b"Email\na@x.com\n", media_type
        example = content.get("example") or examples(content["schema"])[0]
        return json.dumps(example).encode(), media_type
    return None, "application/json"


def examples(schema):
    schemas = described()["components"]["schemas"]
    if "$ref" in schema:
        schema = schemas[schema["$ref"].rpartition("/")[2]]
    if "examples" in schema:
        return schema["examples"]
    choices = schema.get("anyOf") or schema.get("oneOf")
    return examples(choices[0])


async def send(client, route, *, id=STRANGER, headers=None):
    method, path, operation = route
    content, media_type = body_of(operation)
    head = {"Content-Type": media_type, "If-Match": "*", **(headers or {})}
    return await client.request(method, re.sub(r"\{[^}]+\}", str(id), path), content=content, headers=head)


# --- authentication


@pytest.mark.parametrize("route", ROUTES, ids=name_of)
async def test_without_a_key_nothing_is_answered(office, route):
    answer = await send(office.nobody, route)
    assert (answer.status_code, answer.json()["code"]) == (401, "UNAUTHORIZED")
    assert answer.headers["www-authenticate"].startswith("Bearer")


@pytest.mark.parametrize(
    "header", ["Bearer", "Bearer ", "Bearer drb_x", "Basic abc", "drb_x", b"Bearer \xe2\x80\xae\xff", ""]
)
async def test_a_key_that_is_none_is_refused(office, header):
    answer = await office.nobody.get("/me", headers={"Authorization": header})
    assert (answer.status_code, answer.json()["code"]) == (401, "UNAUTHORIZED")


async def test_a_revoked_key_is_refused_from_that_answer_on(office, app):
    made = (await office.admin.post("/keys", json={"name": "short", "role": "rep"})).json()
    headers = {"Authorization": f"Bearer {made['token']}"}
    assert (await office.nobody.get("/me", headers=headers)).status_code == 200
    assert (await office.admin.delete(f"/keys/{made['key']['id']}")).status_code == 204
    assert (await office.nobody.get("/me", headers=headers)).status_code == 401
    assert (await office.admin.delete(f"/keys/{made['key']['id']}")).status_code == 404


async def test_me_is_the_keys_user_and_role(office, base):
    me = (await office.readonly.get("/me")).json()
    assert (me["user"]["id"], me["user"]["role"], me["role"]) == (str(base.rep), "rep", "readonly")
    assert me["permissions"] == sorted(PERMISSIONS[Role.READONLY])
    assert me["organization"]["calendar"]["zone"] == "Europe/Berlin"


# --- roles


def allowed(role: Role, method: str, path: str) -> bool:
    """The matrix as people were told it, written a second time."""
    noun, verb = path.split("/")[1], path.rsplit("/", maxsplit=1)[-1]
    if method == "GET":
        return True
    if noun in {"contacts", "companies", "deals", "activities", "tasks", "reminders", "notifications"}:
        return role is not Role.READONLY
    if noun in {"enrollments", "messages", "letters"} or verb in {"enrollments", "suppress"}:
        return role is not Role.READONLY
    if (
        noun in {"runs", "imports", "sequences", "templates"}
        or verb in {"release", "stop"}
        or path == "/sending/resume"
    ):
        return role in {Role.MANAGER, Role.ADMIN}
    administered = {"rules", "users", "keys", "sources", "mailboxes", "sending"}
    assert noun in administered, "a new noun needs its place in the matrix"
    return role is Role.ADMIN


@pytest.mark.parametrize("role", Role)
async def test_each_role_may_what_the_matrix_says_and_nothing_more(office, role):
    for route in ROUTES:
        answer = await send(office.of(role), route)
        refused = answer.status_code == 403
        assert refused is not allowed(role, route[0], route[1]), (name_of(route), answer.text)
        assert not refused or answer.json()["code"] == "FORBIDDEN"
        assert answer.status_code < 500, (name_of(route), answer.text)


# --- organizations


@pytest.fixture
async def ids(office, base) -> dict[str, str]:
    """One of everything that an organization can have, by noun."""
    admin = office.admin

    async def make(path, noun, **fields):
        answer = await admin.post(path, json=fields)
        assert answer.status_code == 201, answer.text
        return answer.json()[noun]["id"]

    rule = await make("/rules", "rule", name="Welcome", document=DOCUMENT)
    await admin.post(f"/rules/{rule}/activate", headers={"If-Match": "*"})
    deal = await make("/deals", "deal", title="D")
    contact = await make("/contacts", "contact", email="secret@a.example.com")
    await match_all(base, first_attempt=False)
    run = str(await base.value("SELECT id FROM executions"))
    mail = await correspondence(office, base, contact)
    found = {
        "rule": rule,
        "deal": deal,
        "contact": contact,
        "company": await make("/companies", "company", name="C"),
        "activity": await make("/activities", "activity", type="task", subject="T", dealId=deal),
        "reminder": await make("/reminders", "reminder", title="R", dueAt="2030-01-01T00:00:00Z"),
        "user": await make("/users", "user", email="u@a.example.com", name="U", role="rep"),
        "key": await make("/keys", "key", name="K", role="rep"),
        "source": await make("/sources", "source", name="S"),
        "run": run,
        "event": str(await base.value("SELECT id FROM events LIMIT 1")),
    }
    return {**found, **mail, "organization": str(base.org)}


async def everything(base):
    """All rows of an organization."""
    tables = await as_admin(
        base,
        "SELECT relname FROM pg_class WHERE relkind = 'r' AND relrowsecurity AND relname <> 'organizations'",
    )
    assert len(tables) > 15
    return {
        table["relname"]: sorted(
            str(row["row"])
            for row in await as_admin(
                base,
                f"SELECT t::text AS row FROM {table['relname']} t WHERE org_id = $1",
                base.org,
            )
        )
        for table in tables
    }


async def test_another_organizations_ids_are_not_found_by_any_route_and_nothing_changes(ids, other_office, base):
    before = await everything(base)
    for route in WITH_ID:
        for noun, id_ in ids.items():
            answer = await send(other_office.admin, route, id=id_)
            assert answer.status_code == 404, (name_of(route), noun, answer.text)
            assert answer.json() | {"requestId": ""} == (
                (await send(other_office.admin, route)).json() | {"requestId": ""}
            ), "another's record is not told apart from none"
    assert await everything(base) == before


async def test_no_list_shows_another_organizations_records(ids, other_office):
    for route in LISTS:
        answer = await send(other_office.admin, route)
        assert answer.status_code == 200, name_of(route)
        assert not [id_ for id_ in ids.values() if id_ in answer.text], name_of(route)
        names = [parameter["name"] for parameter in route[2].get("parameters", [])]
        for id_ in ids.values():
            for name in names:
                filtered = await other_office.admin.get(route[1], params={name: id_})
                if filtered.is_success:
                    rows = next((rows for rows in filtered.json().values() if isinstance(rows, list)), [])
                    assert rows == [] or route[1] == "/me", (name_of(route), name)


async def test_no_record_can_be_made_to_point_at_another_organizations(ids, other_office, base):
    components = described()["components"]["schemas"]
    tried = 0
    for route in ROUTES:
        schema = route[2].get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
        for model in [schema, *schema.get("oneOf", [])]:
            properties = components.get(model.get("$ref", "").rpartition("/")[2], {}).get("properties", {})
            links = [name for name, kind in properties.items() if "uuid" in json.dumps(kind)]
            if route[1].endswith(("/document", "/enrollments", "/retry")):
                continue  # what they name is looked up when it is used: tests/api/test_enrollments.py
            for link in links:
                body = examples(model)[0] if route[0] == "POST" and "Task" not in model["$ref"] else {}
                noun = {"ownerId": "user", "managerId": "user", "userId": "user", "assigneeId": "user"}.get(link)
                body = {**body, link: ids[noun or link.removesuffix("Id")]}
                path = await own_path(other_office.admin, route[1]) if "{" in route[1] else route[1]
                answer = await other_office.admin.request(route[0], path, json=body, headers={"If-Match": "*"})
                assert answer.status_code == 422, (name_of(route), link, answer.text)
                tried += 1
    assert tried > 15


async def own_path(client, path):
    """The path of a record of the client's own."""
    noun = path.split("/")[1]
    make = {
        "contacts": {"email": "own@b.example.com"},
        "companies": {"name": "Own"},
        "deals": {"title": "Own"},
        "mailboxes": {"name": "Own", "fromName": "Own", "fromEmail": "own@b.example.com"},
    }
    if noun == "activities":
        deal = (await client.post("/deals", json={"title": "Own"})).json()["deal"]["id"]
        make["activities"] = {"type": "task", "subject": "Own", "dealId": deal}
    answer = await client.post(f"/{noun}", json=make[noun])
    if answer.status_code == 409:
        return f"/{noun}/{answer.json()['existing']}"
    (record,) = answer.json().values()
    return f"/{noun}/{record['id']}"


async def test_an_inactive_users_key_is_refused(office, base):
    async with base.transaction() as tx:
        user = await identity.create_user(tx, "gone@example.com", "Gone", Role.REP)
        _, token = await identity.create_key(tx, user.id, "old", Role.REP)
    headers = {"Authorization": f"Bearer {token}"}
    assert (await office.nobody.get("/me", headers=headers)).status_code == 200
    await as_admin(base, "UPDATE users SET is_active = false WHERE id = $1", user.id)
    assert (await office.nobody.get("/me", headers=headers)).status_code == 401
