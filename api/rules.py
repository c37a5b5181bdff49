"""Rules over HTTP: drafts, immutable versions, and switching them on and off."""

from datetime import datetime
from http import HTTPStatus
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query, Response
from pydantic import ConfigDict, Field, StrictInt
from pydantic.config import JsonDict

from api.auth import Call, may
from api.cursors import Asked, around
from api.idempotency import Answer, Once, may_once
from api.problems import responses
from api.revisions import Expected, etag
from api.shapes import Given, Many, Name, Shown, Title
from domain.documents import RuleDocument
from domain.words import DefinitionStatus
from store import definitions
from store.events import Record
from store.transaction import Transaction

router = APIRouter(prefix="/rules", tags=["rules"])
Reading = Annotated[Call, may("rule:read")]
Writing = Annotated[Call, may("rule:write")]
WritingOnce = Annotated[Once, may_once("rule:write")]
_CHANGES = responses(
    HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT, HTTPStatus.PRECONDITION_FAILED, HTTPStatus.PRECONDITION_REQUIRED
)
_DOCUMENT: JsonDict = {
    "trigger": {"on": "deal.stage_changed", "to": ["proposal"]},
    "conditions": {"field": "deal.valueCents", "op": "gte", "value": 1000000},
    "steps": [
        {"kind": "act", "id": "task", "action": {"type": "create_task", "title": "Call about the proposal"}},
        {"kind": "wait", "id": "three-days", "wait": {"for": {"amount": 3, "unit": "business_days"}}},
        {"kind": "act", "id": "nudge", "action": {"type": "remind", "title": "The proposal waits"}},
    ],
}


class Rule(Shown):
    id: UUID
    name: str
    status: DefinitionStatus
    revision: int
    created_by: UUID | None
    created_at: datetime
    updated_at: datetime


class Version(Shown):
    """`activeSince` is null unless this version is the one switched on."""

    number: int
    document: dict[str, Any]
    created_by: UUID | None
    created_at: datetime
    active_since: datetime | None


class RuleOne(Shown):
    rule: Rule


class RuleWhole(Rule):
    versions: list[Version]
    active_version: int | None


class RuleWholeOne(Shown):
    rule: RuleWhole


class RuleMany(Many):
    rules: list[Rule]


class NewRule(Given):
    model_config = ConfigDict(json_schema_extra={"examples": [{"name": "Chase proposals", "document": _DOCUMENT}]})

    name: Title
    document: RuleDocument


class Activation(Given):
    """Without a version the latest is switched on."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"version": 2}]})

    version: Annotated[StrictInt, Field(ge=1, le=2**31 - 1)] | None = None


class RuleFilters(Asked):
    q: Name | None = None
    status: DefinitionStatus | None = None


@router.post("", status_code=HTTPStatus.CREATED, response_model=RuleOne, responses=responses(HTTPStatus.CONFLICT))
async def create_rule(given: NewRule, once: WritingOnce) -> Response:
    """A draft: it hears nothing until it is activated."""

    async def create(tx: Transaction) -> Answer:
        made = await definitions.create(tx, given.name, given.document)
        return Answer.created(_one(made), f"/api/v1/rules/{made.id}", etag(made))

    return await once(create)


@router.get("")
async def list_rules(asked: Annotated[RuleFilters, Query()], call: Reading) -> RuleMany:
    """Newest first; `q` is found anywhere in a name."""
    async with call.transaction() as tx:
        page = await definitions.search(tx, asked.span, **asked.filters())
    return RuleMany(rules=[Rule.model_validate(row) for row in page.records], **around(page))


@router.get("/schema", dependencies=[may("rule:read")])
async def get_rule_schema() -> dict[str, Any]:
    """The JSON Schema of a rule's document, for editors."""
    return RuleDocument.model_json_schema()


@router.get("/{id}", responses=responses(HTTPStatus.NOT_FOUND))
async def get_rule(id: UUID, call: Reading, response: Response) -> RuleWholeOne:
    """With every version, oldest first."""
    async with call.transaction() as tx:
        return await _whole(tx, await definitions.get(tx, id), response)


@router.put(
    "/{id}/document",
    responses=_CHANGES,
    openapi_extra={"requestBody": {"content": {"application/json": {"example": _DOCUMENT}}}},
)
async def replace_rule_document(
    id: UUID, given: RuleDocument, expected: Expected, call: Writing, response: Response
) -> RuleWholeOne:
    """The next version; what is switched on stays so until another is activated."""
    async with call.transaction() as tx:
        await definitions.add_version(tx, id, given, expected=expected)
        return await _whole(tx, await definitions.get(tx, id), response)


@router.post("/{id}/activate", response_model=RuleOne, responses=_CHANGES)
async def activate_rule(id: UUID, expected: Expected, once: WritingOnce, given: Activation | None = None) -> Response:
    """From now on the version hears what happens; what happened before it does not."""

    async def activate(tx: Transaction) -> Answer:
        rule = await definitions.activate(tx, id, given.version if given else None, expected=expected)
        return Answer(_one(rule), headers=etag(rule))

    return await once(activate)


@router.post("/{id}/pause", response_model=RuleOne, responses=_CHANGES)
async def pause_rule(id: UUID, expected: Expected, once: WritingOnce) -> Response:
    """Starts nothing new; runs that are inside go on."""

    async def pause(tx: Transaction) -> Answer:
        rule = await definitions.pause(tx, id, expected=expected)
        return Answer(_one(rule), headers=etag(rule))

    return await once(pause)


@router.post("/{id}/archive", response_model=RuleOne, responses=_CHANGES)
async def archive_rule(id: UUID, expected: Expected, once: WritingOnce) -> Response:
    """Sets a rule aside for good; its runs go on, its history stays."""

    async def archive(tx: Transaction) -> Answer:
        rule = await definitions.archive(tx, id, expected=expected)
        return Answer(_one(rule), headers=etag(rule))

    return await once(archive)


def _one(rule: Record) -> RuleOne:
    return RuleOne(rule=Rule.model_validate(rule))


async def _whole(tx: Transaction, rule: Record, response: Response) -> RuleWholeOne:
    response.headers.update(etag(rule))
    versions = [Version.model_validate(row) for row in await definitions.versions_of(tx, rule.id)]
    active = next((version.number for version in versions if version.active_since), None)
    shown = Rule.model_validate(rule).model_dump(by_alias=False)
    return RuleWholeOne(rule=RuleWhole(**shown, versions=versions, active_version=active))
