"""Templates over HTTP: mails that steps name instead of saying them."""

from datetime import datetime
from http import HTTPStatus
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Response
from pydantic import ConfigDict

from api.auth import Call, may
from api.cursors import Asked, around
from api.idempotency import Answer, Once, may_once
from api.problems import responses
from api.revisions import Expected, etag
from api.shapes import Change, Given, Many, Shown, Title
from domain.templates import Content
from store import templates
from store.events import Record
from store.transaction import Transaction

router = APIRouter(prefix="/templates", tags=["templates"])
Reading = Annotated[Call, may("template:read")]
Writing = Annotated[Call, may("template:write")]


class Template(Shown):
    id: UUID
    name: str
    content: Content
    revision: int
    created_by: UUID | None
    created_at: datetime
    updated_at: datetime


class TemplateOne(Shown):
    template: Template


class TemplateMany(Many):
    templates: list[Template]


class NewTemplate(Given):
    """The language is Jinja's, for fields, defaults, conditions and lists only; what could not be sent is refused."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "name": "Welcome",
                    "content": {
                        "subject": "Welcome, {{ contact.firstName | default('and good day') }}",
                        "text": "Good to have you.\n\n{{ sender.name }}\n",
                    },
                }
            ]
        }
    )

    name: Title
    content: Content


class TemplateChange(Change):
    """What is left out stays; `content` is replaced whole."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"name": "Welcome to the trial"}]})

    name: Title = ""
    content: Content = Content(subject="", text="-")


@router.post("", status_code=HTTPStatus.CREATED, response_model=TemplateOne, responses=responses(HTTPStatus.CONFLICT))
async def create_template(given: NewTemplate, once: Annotated[Once, may_once("template:write")]) -> Response:
    """What is wrong with a template is told in sentences that name part and line."""

    async def create(tx: Transaction) -> Answer:
        made = await templates.create(tx, given.name, given.content)
        return Answer.created(_one(made), f"/api/v1/templates/{made.id}", etag(made))

    return await once(create)


@router.get("")
async def list_templates(asked: Annotated[Asked, Query()], call: Reading) -> TemplateMany:
    """Newest first."""
    async with call.transaction() as tx:
        page = await templates.search(tx, asked.span)
    return TemplateMany(templates=[Template.model_validate(row) for row in page.records], **around(page))


@router.get("/{id}", responses=responses(HTTPStatus.NOT_FOUND))
async def get_template(id: UUID, call: Reading, response: Response) -> TemplateOne:
    async with call.transaction() as tx:
        found = await templates.get(tx, id)
    response.headers.update(etag(found))
    return _one(found)


@router.patch(
    "/{id}",
    responses=responses(
        HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT, HTTPStatus.PRECONDITION_FAILED, HTTPStatus.PRECONDITION_REQUIRED
    ),
)
async def update_template(
    id: UUID, given: TemplateChange, expected: Expected, call: Writing, response: Response
) -> TemplateOne:
    """Mail that has not left yet leaves as the template says then."""
    named = given.model_fields_set
    async with call.transaction() as tx:
        changed = await templates.change(
            tx,
            id,
            name=given.name if "name" in named else None,
            content=given.content if "content" in named else None,
            expected=expected,
        )
    response.headers.update(etag(changed))
    return _one(changed)


@router.delete("/{id}", status_code=HTTPStatus.NO_CONTENT, responses=responses(HTTPStatus.NOT_FOUND))
async def delete_template(id: UUID, call: Writing) -> None:
    """A step that names it is stuck when its turn comes, and asks a person."""
    async with call.transaction() as tx:
        await templates.delete(tx, id)


def _one(template: Record) -> TemplateOne:
    return TemplateOne(template=Template.model_validate(template))
