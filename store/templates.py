"""Templates: stored mails that sequences and rules name, written once and used by many."""

from collections.abc import Iterable, Mapping
from typing import Any
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert as insert_or
from uuid_utils.compat import uuid7

from domain.documents import FIELDS
from domain.templates import Content, problems
from store.errors import Duplicate, Invalid, NotFound
from store.events import Record, bare_change
from store.pages import Page, Span, page
from store.rowsets import among
from store.tables import templates
from store.transaction import Transaction


async def create(tx: Transaction, name: str, content: Content) -> Record:
    """Raises `Duplicate`, and `Invalid` for what could not be sent."""
    row = {
        "org_id": tx.org,
        "id": uuid7(),
        "name": name,
        "content": _kept(content),
        "revision": 1,
        "created_by": tx.origin.id if tx.origin.kind == "user" else None,
        "created_at": tx.now,
        "updated_at": tx.now,
    }
    made = insert_or(templates).values(row).on_conflict_do_nothing().returning(*templates.c)
    found = (await tx.write(made)).one_or_none()
    if found is None:
        raise Duplicate(f"a template named '{name}' exists", "name", await _named(tx, name))
    return found


async def change(
    tx: Transaction, id: UUID, *, name: str | None, content: Content | None, expected: int | None
) -> Record:
    """Mails not yet sent are sent as it says then. Raises `NotFound`, `Stale`, `Duplicate`, `Invalid`."""
    values: dict[str, Any] = {"content": _kept(content)} if content else {}
    if name is not None:
        existing = await _named(tx, name)
        if existing not in (None, id):
            raise Duplicate(f"a template named '{name}' exists", "name", existing)
        values["name"] = name
    return await bare_change(tx, templates, "Template", id, values, expected=expected)


async def delete(tx: Transaction, id: UUID) -> None:
    """What names it from now on is stuck when its turn comes. Raises `NotFound`."""
    await bare_change(tx, templates, "Template", id, {"deleted_at": tx.now}, expected=None)


async def get(tx: Transaction, id: UUID) -> Record:
    """Raises `NotFound`, also for a deleted one."""
    found = await find(tx, id)
    if found is None:
        raise NotFound("Template")
    return found


async def find(tx: Transaction, id: UUID) -> Record | None:
    statement = select(templates).where(
        templates.c.org_id == tx.org, templates.c.id == id, templates.c.deleted_at.is_(None)
    )
    return (await tx.execute(statement)).one_or_none()


async def existing(tx: Transaction, ids: Iterable[UUID]) -> set[UUID]:
    """Which of these are there."""
    statement = select(templates.c.id).where(
        templates.c.org_id == tx.org, among(templates.c.id, ids), templates.c.deleted_at.is_(None)
    )
    return set((await tx.execute(statement)).scalars())


async def search(tx: Transaction, span: Span) -> Page:
    query = select(templates).where(templates.c.org_id == tx.org, templates.c.deleted_at.is_(None))
    return await page(tx, query, templates.c.id, span)


async def _named(tx: Transaction, name: str) -> UUID | None:
    statement = select(templates.c.id).where(
        templates.c.org_id == tx.org, func.lower(templates.c.name) == name.lower(), templates.c.deleted_at.is_(None)
    )
    return (await tx.execute(statement)).scalar_one_or_none()


def _kept(content: Content) -> Mapping[str, Any]:
    wrong = problems(content, FIELDS)
    if wrong:
        raise Invalid("; ".join(wrong), "content")
    return content.model_dump(mode="json", by_alias=True, exclude_none=True)
