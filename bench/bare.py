"""The least that could accept a fact: FastAPI, a pydantic body, and two inserts in one transaction by asyncpg's pool.

No authentication, no organizations, no constraints but the keys, no log. What `accept` is measured against.
"""

import argparse
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import asyncpg
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel
from uuid_utils.compat import uuid7

TABLES = """
CREATE TABLE IF NOT EXISTS events (
  id uuid PRIMARY KEY, type text NOT NULL, subject_id uuid NOT NULL, at timestamptz NOT NULL DEFAULT now(),
  payload jsonb NOT NULL
);
CREATE TABLE IF NOT EXISTS outbox (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, event_id uuid NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now()
);
"""
_EVENT = "INSERT INTO events (id, type, subject_id, payload) VALUES ($1, $2, $3, $4)"
_OUTBOX = "INSERT INTO outbox (event_id) VALUES ($1)"


class NewContact(BaseModel):
    email: str
    firstName: str | None = None  # noqa: N815  (as it is spelled in the API)
    lastName: str | None = None  # noqa: N815  (as it is spelled in the API)
    tags: list[str] = []


class StageMove(BaseModel):
    stage: str


class Envelope(BaseModel):
    type: str
    data: dict[str, Any]


class Made(BaseModel):
    id: UUID


def create_app(url: str, *, reset: bool) -> FastAPI:
    """Without `reset` the pool does not clean a connection that is given back."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        options = {} if reset else {"reset": _leave}
        async with asyncpg.create_pool(url, **options) as pool:
            app.state.pool = pool
            yield

    app = FastAPI(lifespan=lifespan)

    async def keep(type_: str, subject: UUID, payload: BaseModel) -> Made:
        id_ = uuid7()
        async with app.state.pool.acquire() as connection, connection.transaction():
            await connection.execute(_EVENT, id_, type_, subject, payload.model_dump_json())
            await connection.execute(_OUTBOX, id_)
        return Made(id=id_)

    @app.post("/contacts", status_code=201)
    async def create_contact(given: NewContact) -> Made:
        return await keep("contact.created", uuid7(), given)

    @app.put("/deals/{id}/stage")
    async def move_deal(id: UUID, given: StageMove) -> Made:
        return await keep("deal.stage_changed", id, given)

    @app.post("/webhooks/{source}")
    async def receive_webhook(source: UUID, given: Envelope) -> Made:
        return await keep("webhook.received", source, given)

    return app


async def _leave(_connection: asyncpg.Connection) -> None:
    """Does nothing to a connection that is given back."""


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("port", type=int)
    parser.add_argument("--no-reset", action="store_true")
    given = parser.parse_args()
    app = create_app(given.url, reset=not given.no_reset)
    uvicorn.run(app, host="127.0.0.1", port=given.port, log_config=None, access_log=False)
