"""Who the caller is."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter

from api.auth import PERMISSIONS, Call, may
from api.shapes import Shown
from api.users import User
from domain.due import Calendar
from domain.words import Role
from store import identity

router = APIRouter(prefix="/me", tags=["users"])


class Organization(Shown):
    id: UUID
    name: str
    slug: str
    calendar: Calendar


class Me(Shown):
    """`role` is the key's, which may be less than the user's."""

    user: User
    organization: Organization
    role: Role
    permissions: list[str]


@router.get("")
async def get_me(call: Annotated[Call, may("user:read")]) -> Me:
    async with call.transaction() as tx:
        user = await identity.user(tx, call.caller.user)
        organization = await identity.organization(tx)
    return Me(
        user=User.model_validate(user),
        organization=Organization.model_validate(organization),
        role=call.caller.role,
        permissions=sorted(PERMISSIONS[call.caller.role]),
    )
