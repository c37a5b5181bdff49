"""The API's description of itself: OpenAPI 3.1, complete enough for a client to be made of it."""

import re

import pytest

from api.app import create_app
from store.transaction import Database

SPEC = create_app(Database.connect("postgresql://nobody@127.0.0.1:1/none"), bytes(32)).openapi()
OPERATIONS = [(m.upper(), path, op) for path, item in SPEC["paths"].items() for m, op in item.items()]
IDS = [f"{method} {path}" for method, path, _ in OPERATIONS]
VERBS = {
    "create", "list", "get", "update", "move", "complete", "replace", "activate", "pause", "archive", "retry", "stop",
    "snooze", "finish", "cancel", "read", "revoke", "import", "receive", "check", "enroll", "resume", "delete",
    "settle", "suppress", "release",
}  # fmt: skip


def refs(node):
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        for value in node.values():
            yield from refs(value)
    elif isinstance(node, list):
        for value in node:
            yield from refs(value)


async def test_the_description_is_openapi_3_1_and_served(office):
    served = (await office.nobody.get("http://drumbeat/openapi.json")).json()
    assert served == SPEC
    assert re.fullmatch(r"3\.1\.\d+", served["openapi"])
    assert {"title", "version"} <= served["info"].keys()
    assert "apiKey" in served["components"]["securitySchemes"]


def test_every_reference_leads_somewhere():
    for ref in set(refs(SPEC)):
        node = SPEC
        for part in ref.removeprefix("#/").split("/"):
            node = node[part]


def test_every_operation_has_an_id_of_its_own_that_is_a_verb_and_a_noun():
    ids = [operation["operationId"] for _, _, operation in OPERATIONS]
    assert len(set(ids)) == len(ids)
    for id_ in ids:
        verb, _, noun = id_.partition("_")
        assert verb in VERBS, id_
        assert noun, id_


@pytest.mark.parametrize(("method", "path", "operation"), OPERATIONS, ids=IDS)
def test_an_operation_says_what_it_does_takes_and_answers(method, path, operation):
    assert operation["summary"]
    statuses = operation["responses"]
    assert any(status.startswith("2") for status in statuses)
    for status, response in statuses.items():
        if not status.startswith("2"):
            assert list(response["content"]) == ["application/problem+json"], status
    if path.startswith("/api/v1"):
        assert {"401", "403", "413", "422", "503"} <= statuses.keys()
        assert operation["security"] == [{"apiKey": []}]
    if "{id}" in path:
        assert "404" in statuses
    if method == "POST" and path.startswith("/api"):
        assert "Idempotency-Key" in [parameter["name"] for parameter in operation["parameters"]]


@pytest.mark.parametrize(("method", "path", "operation"), OPERATIONS, ids=IDS)
def test_a_body_has_an_example_which_the_api_itself_takes(method, path, operation):
    for media_type, content in operation.get("requestBody", {}).get("content", {}).items():
        if media_type == "application/json" and "example" not in content:
            schema = content["schema"]
            choices = [one for one in (schema, *schema.get("anyOf", []), *schema.get("oneOf", [])) if "$ref" in one]
            models = [SPEC["components"]["schemas"][one["$ref"].rpartition("/")[2]] for one in choices]
            assert any("examples" in model for model in models), path
