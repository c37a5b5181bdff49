"""Definitions: named rules, their immutable versions, and when which version was switched on."""

from datetime import datetime
from functools import lru_cache
from typing import Any
from uuid import UUID

from sqlalchemy import Text, cast, exists, func, insert, or_, select, tuple_, update
from sqlalchemy.dialects.postgresql import insert as insert_or
from uuid_utils.compat import uuid7

from domain.documents import RuleDocument, check
from domain.match import Activation, Rule
from domain.words import DefinitionStatus
from store.errors import Duplicate, IllegalTransition, Invalid, NotFound, Stale
from store.events import Record
from store.pages import Page, Span, equal, page
from store.tables import activations, definitions, versions
from store.transaction import Transaction


async def create_rule(tx: Transaction, name: str, document: RuleDocument) -> Record:
    """A draft with version 1. Raises `Duplicate` where a live rule has the name."""
    row = {
        "org_id": tx.org,
        "id": uuid7(),
        "kind": "rule",
        "name": name,
        "status": DefinitionStatus.DRAFT.value,
        "revision": 1,
        "created_by": _person(tx),
        "created_at": tx.now,
        "updated_at": tx.now,
    }
    made = insert_or(definitions).values(row).on_conflict_do_nothing().returning(*definitions.c)
    found = (await tx.execute(made)).one_or_none()
    if found is None:
        statement = select(definitions.c.id).where(
            definitions.c.org_id == tx.org,
            func.lower(definitions.c.name) == name.lower(),
            definitions.c.status != DefinitionStatus.ARCHIVED,
        )
        existing = (await tx.execute(statement)).scalar_one_or_none()
        raise Duplicate(f"a rule named '{name}' exists", "name", existing)
    await _add_version(tx, found.id, 1, document)
    return found


async def add_version(tx: Transaction, id: UUID, document: RuleDocument, *, expected: int | None) -> Record:
    """The next version; it does nothing until it is activated."""
    found = await _locked(tx, id, expected)
    if found.status == DefinitionStatus.ARCHIVED:
        raise IllegalTransition("an archived rule takes no new version", "status")
    latest = select(func.max(versions.c.number)).where(versions.c.org_id == tx.org, versions.c.definition_id == id)
    number = (await tx.execute(latest)).scalar_one() + 1
    version = await _add_version(tx, id, number, document)
    await _touch(tx, found, {})
    return version


async def activate(tx: Transaction, id: UUID, number: int | None, *, expected: int | None) -> Record:
    """Switches a version on, the latest if none is named; it hears events recorded from now on."""
    found = await _locked(tx, id, expected)
    if found.status == DefinitionStatus.ARCHIVED:
        raise IllegalTransition("an archived rule cannot be activated", "status")
    wanted = select(versions).where(versions.c.org_id == tx.org, versions.c.definition_id == id)
    wanted = wanted.where(versions.c.number == number) if number else wanted
    version = (await tx.execute(wanted.order_by(versions.c.number.desc()).limit(1))).one_or_none()
    if version is None:
        raise NotFound("Version")
    await _close_activation(tx, id)
    await tx.execute(
        insert(activations).values(
            org_id=tx.org,
            id=uuid7(),
            definition_id=id,
            version_id=version.id,
            since=tx.now,
            activated_by=_person(tx),
        )
    )
    return await _touch(tx, found, {"status": DefinitionStatus.ACTIVE.value})


async def pause(tx: Transaction, id: UUID, *, expected: int | None) -> Record:
    """Starts nothing new; runs that are inside go on."""
    found = await _locked(tx, id, expected)
    if found.status != DefinitionStatus.ACTIVE:
        raise IllegalTransition(f"only an active rule can be paused; this one is {found.status}", "status")
    await _close_activation(tx, id)
    return await _touch(tx, found, {"status": DefinitionStatus.PAUSED.value})


async def archive(tx: Transaction, id: UUID, *, expected: int | None) -> Record:
    """Sets a rule aside for good; its runs go on, its history stays."""
    found = await _locked(tx, id, expected)
    if found.status == DefinitionStatus.ARCHIVED:
        raise IllegalTransition("this rule is archived", "status")
    await _close_activation(tx, id)
    return await _touch(tx, found, {"status": DefinitionStatus.ARCHIVED.value})


async def get(tx: Transaction, id: UUID) -> Record:
    """Raises `NotFound`."""
    statement = select(definitions).where(definitions.c.org_id == tx.org, definitions.c.id == id)
    found = (await tx.execute(statement)).one_or_none()
    if found is None:
        raise NotFound("Rule")
    return found


async def search(tx: Transaction, span: Span, *, q: str | None = None, status: DefinitionStatus | None = None) -> Page:
    """Rules; `q` is found anywhere in a name."""
    query = select(definitions).where(definitions.c.org_id == tx.org, *equal({definitions.c.status: status}))
    if q is not None:
        query = query.where(definitions.c.name.icontains(q, autoescape=True))
    return await page(tx, query, definitions.c.id, span)


async def versions_of(tx: Transaction, id: UUID) -> list[Record]:
    """Every version, oldest first, with `active_since` where it is the one switched on."""
    statement = (
        select(versions, activations.c.since.label("active_since"))
        .outerjoin(
            activations,
            (activations.c.org_id == versions.c.org_id)
            & (activations.c.version_id == versions.c.id)
            & activations.c.until.is_(None),
        )
        .where(versions.c.org_id == tx.org, versions.c.definition_id == id)
        .order_by(versions.c.number)
    )
    return list((await tx.execute(statement)).all())


async def rules(tx: Transaction, since: datetime) -> list[Rule]:
    """The rules that are active or paused, with what was switched on from `since` on, latest first.

    A version switched on again after a pause counts from then. The latest activation of each rule
    is always among them, so that a refusal can name its version.
    """
    later = activations.alias("later")
    superseded = exists().where(
        later.c.org_id == activations.c.org_id,
        later.c.definition_id == activations.c.definition_id,
        tuple_(later.c.since, later.c.id) > tuple_(activations.c.since, activations.c.id),
    )
    statement = (
        select(activations, cast(versions.c.document, Text).label("document"))
        .join(
            definitions,
            (definitions.c.org_id == activations.c.org_id) & (definitions.c.id == activations.c.definition_id),
        )
        .join(
            versions,
            (versions.c.org_id == activations.c.org_id) & (versions.c.id == activations.c.version_id),
        )
        .where(
            activations.c.org_id == tx.org,
            definitions.c.kind == "rule",
            definitions.c.status.in_([DefinitionStatus.ACTIVE, DefinitionStatus.PAUSED]),
            or_(activations.c.until.is_(None), activations.c.until > since, ~superseded),
        )
        .order_by(activations.c.definition_id, activations.c.since.desc(), activations.c.id.desc())
    )
    found: dict[UUID, list[Activation]] = {}
    for row in await tx.execute(statement):
        found.setdefault(row.definition_id, []).append(
            Activation(row.version_id, read(row.document), row.since, row.until)
        )
    return [Rule(id, tuple(of_rule)) for id, of_rule in found.items()]


@lru_cache(maxsize=1000)
def read(document: str) -> RuleDocument:
    """A stored document; a version never changes, so its text is its key."""
    return RuleDocument.model_validate_json(document)


async def _locked(tx: Transaction, id: UUID, expected: int | None) -> Record:
    """Locks a definition; `expected` is the revision the caller read, None for any."""
    statement = (
        select(definitions)
        .where(definitions.c.org_id == tx.org, definitions.c.id == id)
        .with_for_update(key_share=True)
    )
    found = (await tx.execute(statement)).one_or_none()
    if found is None:
        raise NotFound("Rule")
    if expected is not None and found.revision != expected:
        raise Stale(f"this rule is at revision {found.revision}, not {expected}")
    return found


async def _add_version(tx: Transaction, id: UUID, number: int, document: RuleDocument) -> Record:
    problems = check(document)
    if problems:
        raise Invalid("; ".join(problems), "document")
    statement = (
        insert(versions)
        .values(
            org_id=tx.org,
            id=uuid7(),
            definition_id=id,
            number=number,
            document=document.model_dump(mode="json", by_alias=True, exclude_defaults=True),
            created_by=_person(tx),
            created_at=tx.now,
        )
        .returning(versions)
    )
    return (await tx.execute(statement)).one()


async def _close_activation(tx: Transaction, id: UUID) -> None:
    await tx.execute(
        update(activations)
        .where(
            activations.c.org_id == tx.org,
            activations.c.definition_id == id,
            activations.c.until.is_(None),
        )
        .values(until=func.greatest(tx.now, activations.c.since))
    )


async def _touch(tx: Transaction, definition: Record, values: dict[str, Any]) -> Record:
    statement = (
        update(definitions)
        .where(definitions.c.org_id == tx.org, definitions.c.id == definition.id)
        .values(revision=definition.revision + 1, updated_at=tx.now, **values)
        .returning(definitions)
    )
    return (await tx.execute(statement)).one()


def _person(tx: Transaction) -> UUID | None:
    return tx.origin.id if tx.origin.kind == "user" else None
