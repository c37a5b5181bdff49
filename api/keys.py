"""API keys over HTTP."""

from datetime import datetime
from http import HTTPStatus
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Response
from pydantic import ConfigDict, Field

from api.auth import Call, may
from api.cursors import Asked, around
from api.idempotency import Answer, Once, may_once
from api.problems import responses
from api.shapes import Given, Many, Name, Shown
from domain.words import Role
from store import identity
from store.transaction import Transaction

router = APIRouter(prefix="/keys", tags=["keys"])


class ApiKey(Shown):
    id: UUID
    user_id: UUID
    name: str
    role: Role
    created_at: datetime
    revoked_at: datetime | None


class ApiKeyMade(Shown):
    key: ApiKey
    token: Annotated[str, Field(description="Shown this once.")]


class ApiKeyMany(Many):
    keys: list[ApiKey]


class NewApiKey(Given):
    """For the caller's user unless another is named."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"name": "Nightly export", "role": "readonly"}]})

    name: Name
    role: Role
    user_id: UUID | None = None


@router.post("", status_code=HTTPStatus.CREATED, response_model=ApiKeyMade)
async def create_key(given: NewApiKey, once: Annotated[Once, may_once("key:write")]) -> Response:
    """The token is in this answer and nowhere else."""

    async def create(tx: Transaction) -> Answer:
        user = given.user_id or once.call.caller.user
        made, token = await identity.create_key(tx, user, given.name, given.role)
        return Answer(ApiKeyMade(key=ApiKey.model_validate(made), token=token), HTTPStatus.CREATED, secret=True)

    return await once(create)


@router.get("")
async def list_keys(asked: Annotated[Asked, Query()], call: Annotated[Call, may("key:read")]) -> ApiKeyMany:
    """Newest first, in use and revoked."""
    async with call.transaction() as tx:
        page = await identity.search_keys(tx, asked.span)
    return ApiKeyMany(keys=[ApiKey.model_validate(row) for row in page.records], **around(page))


@router.delete("/{id}", status_code=HTTPStatus.NO_CONTENT, responses=responses(HTTPStatus.NOT_FOUND))
async def revoke_key(id: UUID, call: Annotated[Call, may("key:write")]) -> None:
    """From this answer on nobody comes in with it."""
    async with call.transaction() as tx:
        await identity.revoke_key(tx, id)
