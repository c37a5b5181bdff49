"""The API in this process, spoken to as clients speak to it; there is no Temporal anywhere."""

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime

import httpx2
import pytest
from fastapi import FastAPI
from standardwebhooks import Webhook

from api.app import create_app
from domain.words import Role
from runtime.migrating import head
from store import identity

MASTER_KEY = bytes(range(32))


@dataclass
class Office:
    """One organization's ways in: a client for each role, and one that brings no key."""

    admin: httpx2.AsyncClient
    manager: httpx2.AsyncClient
    rep: httpx2.AsyncClient
    readonly: httpx2.AsyncClient
    nobody: httpx2.AsyncClient

    def of(self, role: Role) -> httpx2.AsyncClient:
        found: httpx2.AsyncClient = getattr(self, role.value)
        return found


def client(app: FastAPI, token: str | None = None, prefix: str = "/api/v1") -> httpx2.AsyncClient:
    return httpx2.AsyncClient(
        transport=httpx2.ASGITransport(app),
        base_url=f"http://drumbeat{prefix}",
        headers={"Authorization": f"Bearer {token}"} if token else {},
    )


async def open_office(app: FastAPI, base, stack: AsyncExitStack) -> Office:
    async with base.app.transaction(base.org) as tx:
        users = {Role.ADMIN: base.admin, Role.MANAGER: base.manager, Role.REP: base.rep, Role.READONLY: base.rep}
        tokens = {role: (await identity.create_key(tx, user, "test", role))[1] for role, user in users.items()}
    clients = {role.value: await stack.enter_async_context(client(app, token)) for role, token in tokens.items()}
    return Office(**clients, nobody=await stack.enter_async_context(client(app)))


@pytest.fixture
def app(base) -> FastAPI:
    return create_app(base.app, MASTER_KEY, revision=head())


@pytest.fixture
async def office(app, base) -> AsyncIterator[Office]:
    async with AsyncExitStack() as stack:
        yield await open_office(app, base, stack)


@pytest.fixture
async def rep(office: Office) -> httpx2.AsyncClient:
    return office.rep


@pytest.fixture
async def admin(office: Office) -> httpx2.AsyncClient:
    return office.admin


@pytest.fixture
async def other_office(app, base) -> AsyncIterator[Office]:
    """A second organization in the same database."""
    async with AsyncExitStack() as stack:
        yield await open_office(app, await base.another(), stack)


@pytest.fixture
async def post_office(office: Office, base):
    """An office that can send: a mailbox, an active sequence and a contact."""
    from tests.api.mailing import make_post

    return await make_post(office, base)


@dataclass
class Sender:
    """An outside system that holds a source's secret; it signs with the reference library."""

    client: httpx2.AsyncClient
    path: str
    secret: str

    async def post(self, body, message="msg_1", at=None, **changed):
        text = body if isinstance(body, str) else json.dumps(body)
        at = at or datetime.now(UTC)
        headers = {
            "webhook-id": message,
            "webhook-timestamp": str(int(at.timestamp())),
            "webhook-signature": Webhook(self.secret).sign(message, at, text),
            "content-type": "application/json",
        }
        pairs = [*{**headers, **{k.replace("_", "-"): v for k, v in changed.items() if v is not None}}.items()]
        pairs = [pair for pair in pairs if pair[0].replace("-", "_") not in changed or pair[1] in changed.values()]
        return await self.client.post(self.path, content=text.encode(), headers=pairs)


@pytest.fixture
async def sender(office):
    made = (await office.admin.post("/sources", json={"name": "Web forms"})).json()
    assert made["source"]["path"] == f"/webhooks/{made['source']['id']}"
    return Sender(office.nobody, f"http://drumbeat{made['source']['path']}", made["secret"])
