"""Sources over HTTP: who may post inbound webhooks."""

from datetime import datetime
from http import HTTPStatus
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Response
from pydantic import ConfigDict, Field, computed_field

from api.auth import Call, may
from api.cursors import Asked, around
from api.idempotency import Answer, Once, may_once
from api.shapes import Given, Many, Name, Shown
from store import identity
from store.transaction import Transaction

router = APIRouter(prefix="/sources", tags=["webhooks"])


class Source(Shown):
    id: UUID
    name: str
    created_by: UUID | None
    created_at: datetime
    revoked_at: datetime | None

    @computed_field(description="Where it posts to.")  # type: ignore[prop-decorator]  # as pydantic documents it
    @property
    def path(self) -> str:
        return f"/webhooks/{self.id}"


class SourceMade(Shown):
    source: Source
    secret: Annotated[str, Field(description="What it signs with, by Standard Webhooks. Shown this once.")]


class SourceMany(Many):
    sources: list[Source]


class NewSource(Given):
    model_config = ConfigDict(json_schema_extra={"examples": [{"name": "Web forms"}]})

    name: Name


@router.post("", status_code=HTTPStatus.CREATED, response_model=SourceMade)
async def create_source(given: NewSource, once: Annotated[Once, may_once("source:write")]) -> Response:
    """The secret is in this answer and nowhere else."""

    async def create(tx: Transaction) -> Answer:
        made, secret = await identity.create_source(tx, given.name, once.call.master_key)
        return Answer(SourceMade(source=Source.model_validate(made), secret=secret), HTTPStatus.CREATED, secret=True)

    return await once(create)


@router.get("")
async def list_sources(asked: Annotated[Asked, Query()], call: Annotated[Call, may("source:read")]) -> SourceMany:
    """Newest first."""
    async with call.transaction() as tx:
        page = await identity.search_sources(tx, asked.span)
    return SourceMany(sources=[Source.model_validate(row) for row in page.records], **around(page))
