"""Organizations, users, API keys and webhook sources: who is speaking."""

import hashlib
import os
import secrets
from base64 import b64encode
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Select, func, insert, select, text, update
from sqlalchemy.dialects.postgresql import insert as insert_or
from sqlalchemy.exc import IntegrityError
from uuid_utils.compat import uuid7

from domain.due import Calendar
from domain.words import Kind, Role
from store.at_once import Warrant
from store.errors import Duplicate, NotFound
from store.events import Record
from store.pages import Page, Span, equal, page
from store.rowsets import among
from store.sealing import seal, unseal
from store.tables import api_keys, contacts, executions, organizations, pipelines, sources, stages, users
from store.transaction import Database, Origin, Transaction

_DEFAULT_STAGES = (
    ("lead", "Lead", 10, "open"),
    ("qualified", "Qualified", 30, "open"),
    ("proposal", "Proposal", 60, "open"),
    ("negotiation", "Negotiation", 80, "open"),
    ("closed_won", "Closed won", 100, "won"),
    ("closed_lost", "Closed lost", 0, "lost"),
)


_KEY_STILL = "resolve_api_key($1) AS who WHERE who.org_id = $2 AND who.user_id = $3 AND who.role = $4"
_SOURCE_STILL = "resolve_source($1) AS who WHERE who.org_id = $2 AND who.sealed_secret = $3"


@dataclass(frozen=True)
class Caller:
    """An authenticated API key: the user it speaks for and the role it may use."""

    org: UUID
    key: UUID
    user: UUID
    role: Role

    def warrant(self, token: str) -> Warrant:
        """Holds while the token's key is in use and gives what it gave."""
        evidence = (_hash(token), self.org, self.user, self.role.value)
        return Warrant(Origin("user", self.user), _KEY_STILL, evidence)


@dataclass(frozen=True)
class Source:
    """A sender of inbound webhooks; `at` is PostgreSQL's real time, which signatures are judged by."""

    org: UUID
    id: UUID
    secret: bytes
    sealed: bytes
    at: datetime

    def warrant(self) -> Warrant:
        """Holds while the source is in use with the secret it had."""
        return Warrant(Origin("source", self.id), _SOURCE_STILL, (self.id, self.org, self.sealed))


async def create_organization(database: Database, name: str, slug: str, calendar: Calendar) -> UUID:
    """An organization with the default pipeline. Raises `Duplicate` where the slug is taken."""
    org = uuid7()
    async with database.transaction(org) as tx:
        row = {
            "id": org,
            "name": name,
            "slug": slug,
            "calendar": calendar.model_dump(mode="json", by_alias=True),
            "created_at": tx.now,
        }
        try:
            await tx.write(insert(organizations).values(row))
        except IntegrityError:
            raise Duplicate(f"an organization '{slug}' exists", "slug", None) from None
        await tx.execute(insert(pipelines).values(org_id=org, key="default", name="Sales"))
        await tx.execute(
            insert(stages),
            [
                {
                    "org_id": org, "pipeline": "default", "key": key, "name": label,
                    "position": position, "probability": probability, "kind": kind,
                }
                for position, (key, label, probability, kind) in enumerate(_DEFAULT_STAGES, 1)
            ],
        )  # fmt: skip
    return org


async def find_organization(database: Database, slug: str | None) -> UUID | None:
    """The one with a short name; without a name the only one there is."""
    async with database.crossing() as connection:
        statement = text("SELECT resolve_organization(:slug)")
        found: UUID | None = (await connection.execute(statement, {"slug": slug})).scalar_one()
    return found


async def organization(tx: Transaction) -> Record:
    statement = select(organizations).where(organizations.c.id == tx.org)
    return (await tx.execute(statement)).one()


async def calendar(tx: Transaction) -> Calendar:
    """The organization's working time."""
    statement = select(organizations.c.calendar).where(organizations.c.id == tx.org)
    return Calendar.model_validate((await tx.execute(statement)).scalar_one())


async def create_user(tx: Transaction, email: str, name: str, role: Role, manager: UUID | None = None) -> Record:
    """Raises `Duplicate` for an address in use, `UnknownReference` for an unknown manager."""
    row = {
        "org_id": tx.org,
        "id": uuid7(),
        "email": email,
        "name": name,
        "role": role.value,
        "manager_id": manager,
        "created_at": tx.now,
    }
    statement = (
        insert_or(users).values(row).on_conflict_do_nothing(index_elements=["org_id", "email"]).returning(*users.c)
    )
    made = (await tx.write(statement)).one_or_none()
    if made is None:
        found = select(users.c.id).where(users.c.org_id == tx.org, users.c.email == email)
        existing = (await tx.execute(found)).scalar_one()
        raise Duplicate(f"a user with {email} exists", "email", existing)
    return made


async def user(tx: Transaction, id: UUID) -> Record:
    """Raises `NotFound`."""
    statement = select(users).where(users.c.org_id == tx.org, users.c.id == id)
    found = (await tx.execute(statement)).one_or_none()
    if found is None:
        raise NotFound("User")
    return found


async def search_users(tx: Transaction, span: Span, *, role: Role | None = None) -> Page:
    query = select(users).where(users.c.org_id == tx.org, *equal({users.c.role: role}))
    return await page(tx, query, users.c.id, span)


async def manager_of(tx: Transaction, user: UUID) -> UUID | None:
    """Who is told when `user` does not act: the manager, else the first active admin."""
    return (await managers_of(tx, [user])).get(user)


async def managers_of(tx: Transaction, of: Collection[UUID]) -> dict[UUID, UUID | None]:
    """As `manager_of`, of many users."""
    manager = func.coalesce(users.c.manager_id, _first_admin(tx).scalar_subquery())
    statement = select(users.c.id, manager.label("manager")).where(users.c.org_id == tx.org, among(users.c.id, of))
    return {row.id: row.manager for row in await tx.execute(statement)}


async def first_admin(tx: Transaction) -> UUID | None:
    """Who gets what has no owner."""
    return await _user(tx, _first_admin(tx))


def _first_admin(tx: Transaction) -> Select[tuple[UUID]]:
    admins = users.alias("admins")
    active = select(admins.c.id).where(admins.c.org_id == tx.org, admins.c.role == Role.ADMIN, admins.c.is_active)
    return active.order_by(admins.c.created_at, admins.c.id).limit(1)


async def who_mends(tx: Transaction, execution: UUID) -> UUID | None:
    """Whom a stuck execution asks: the contact's owner for an enrollment, an admin for a rule's run."""
    owners = (
        select(contacts.c.owner_id)
        .join(executions, (executions.c.org_id == contacts.c.org_id) & (executions.c.contact_id == contacts.c.id))
        .where(executions.c.org_id == tx.org, executions.c.id == execution, executions.c.kind == Kind.ENROLLMENT)
    )
    return await _user(tx, owners) or await first_admin(tx)


async def owner_of(tx: Transaction, contact: UUID | None) -> UUID | None:
    """Who looks after a contact."""
    return await _user(tx, select(contacts.c.owner_id).where(contacts.c.org_id == tx.org, contacts.c.id == contact))


async def users_by_name(tx: Transaction) -> dict[str, UUID]:
    """Active users by case-folded name and by email address."""
    statement = select(users).where(users.c.org_id == tx.org, users.c.is_active)
    found: dict[str, UUID] = {}
    for user in await tx.execute(statement):
        found[user.name.casefold()] = found[user.email] = user.id
    return found


async def create_key(tx: Transaction, user: UUID, name: str, role: Role) -> tuple[Record, str]:
    """A new key and its token, which is shown this once: only a hash is kept.

    Raises `UnknownReference` for an unknown user.
    """
    token = f"drb_{secrets.token_urlsafe(32)}"
    statement = (
        insert(api_keys)
        .values(
            org_id=tx.org,
            id=uuid7(),
            user_id=user,
            name=name,
            role=role.value,
            hash=_hash(token),
            created_at=tx.now,
        )
        .returning(*api_keys.c)
    )
    return (await tx.write(statement)).one(), token


async def search_keys(tx: Transaction, span: Span) -> Page:
    """Keys in use and revoked, without their hashes."""
    shown = [column for column in api_keys.c if column is not api_keys.c.hash]
    return await page(tx, select(*shown).where(api_keys.c.org_id == tx.org), api_keys.c.id, span)


async def revoke_key(tx: Transaction, id: UUID) -> None:
    """From the commit on nobody comes in with it. Raises `NotFound`."""
    statement = (
        update(api_keys)
        .where(api_keys.c.org_id == tx.org, api_keys.c.id == id, api_keys.c.revoked_at.is_(None))
        .values(revoked_at=tx.now)
    )
    if (await tx.execute(statement)).rowcount == 0:
        raise NotFound("API key")


async def authenticate(database: Database, token: str) -> Caller | None:
    """Whose token it is; None for one that is unknown, revoked or of an inactive user."""
    statement = text("SELECT * FROM resolve_api_key(:hash)")
    async with database.crossing() as connection:
        found = (await connection.execute(statement, {"hash": _hash(token)})).one_or_none()
    return None if found is None else Caller(found.org_id, found.key_id, found.user_id, Role(found.role))


async def create_source(tx: Transaction, name: str, master: bytes) -> tuple[Record, str]:
    """A webhook source and its `whsec_…` secret, which is shown this once and kept sealed."""
    id_, secret = uuid7(), os.urandom(32)
    statement = (
        insert(sources)
        .values(
            org_id=tx.org,
            id=id_,
            name=name,
            sealed_secret=seal(master, secret, _place(id_)),
            created_by=tx.origin.id if tx.origin.kind == "user" else None,
            created_at=tx.now,
        )
        .returning(*sources.c)
    )
    made = (await tx.execute(statement)).one()
    return made, f"whsec_{b64encode(secret).decode()}"


async def search_sources(tx: Transaction, span: Span) -> Page:
    """Webhook sources, without their secrets."""
    shown = [column for column in sources.c if column is not sources.c.sealed_secret]
    return await page(tx, select(*shown).where(sources.c.org_id == tx.org), sources.c.id, span)


async def resolve_source(database: Database, id: UUID, master: bytes) -> Source | None:
    """A live source by the id in its address."""
    statement = text("SELECT * FROM resolve_source(:id)")
    async with database.crossing() as connection:
        found = (await connection.execute(statement, {"id": id})).one_or_none()
    if found is None:
        return None
    secret = unseal(master, found.sealed_secret, _place(id))
    return Source(found.org_id, id, secret, found.sealed_secret, found.at)


def _hash(token: str) -> bytes:
    """Tokens carry 256 random bits, so a plain hash is enough."""
    return hashlib.sha256(token.encode()).digest()


def _place(row: UUID) -> bytes:
    return b"sources.sealed_secret/" + row.bytes


async def _user(tx: Transaction, query: Select[Any]) -> UUID | None:
    found: UUID | None = (await tx.execute(query)).scalar_one_or_none()
    return found
