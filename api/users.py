"""Users over HTTP."""

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
from api.shapes import Email, Given, Line, Many, Shown
from domain.words import Role
from store import identity
from store.transaction import Transaction

router = APIRouter(prefix="/users", tags=["users"])


class User(Shown):
    id: UUID
    email: str
    name: str
    role: Role
    manager_id: UUID | None
    is_active: bool
    created_at: datetime


class UserOne(Shown):
    user: User


class UserMany(Many):
    users: list[User]


class NewUser(Given):
    model_config = ConfigDict(
        json_schema_extra={"examples": [{"email": "grace@example.com", "name": "Grace Reyes", "role": "rep"}]}
    )

    email: Email
    name: Line
    role: Role
    manager_id: UUID | None = None


class UserFilters(Asked):
    role: Role | None = None


@router.post("", status_code=HTTPStatus.CREATED, response_model=UserOne, responses=responses(HTTPStatus.CONFLICT))
async def create_user(given: NewUser, once: Annotated[Once, may_once("user:write")]) -> Response:
    async def create(tx: Transaction) -> Answer:
        made = await identity.create_user(tx, given.email, given.name, given.role, given.manager_id)
        return Answer(UserOne(user=User.model_validate(made)), HTTPStatus.CREATED)

    return await once(create)


@router.get("")
async def list_users(asked: Annotated[UserFilters, Query()], call: Annotated[Call, may("user:read")]) -> UserMany:
    """Newest first."""
    async with call.transaction() as tx:
        page = await identity.search_users(tx, asked.span, **asked.filters())
    return UserMany(users=[User.model_validate(row) for row in page.records], **around(page))
