"""Definitions: named rules and sequences, their immutable versions, and when which version was switched on."""

from collections.abc import Mapping
from datetime import datetime
from functools import cache, lru_cache
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import (
    Column,
    ColumnElement,
    Select,
    Table,
    Text,
    bindparam,
    cast,
    exists,
    func,
    insert,
    or_,
    select,
    tuple_,
    update,
)
from sqlalchemy.dialects.postgresql import insert as insert_or
from uuid_utils.compat import uuid7

from domain.decide import Places, places
from domain.documents import Document, RuleDocument, SequenceDocument, check, references, sends_mail
from domain.match import Activation, Rule
from domain.words import DefinitionStatus, Kind, MessageStatus, Target
from store import queues
from store.errors import Duplicate, IllegalTransition, Invalid, NotFound, SequenceNotReady, Stale
from store.events import Record
from store.pages import Page, Span, equal, page
from store.rowsets import ORG
from store.tables import (
    activations,
    definitions,
    destinations,
    executions,
    intents,
    organizations,
    pauses,
    stages,
    templates,
    users,
    versions,
)
from store.transaction import Transaction

Noun = Literal[Kind.RULE, Kind.SEQUENCE]


async def create(tx: Transaction, name: str, document: Document) -> Record:
    """A draft with version 1. Raises `Duplicate` where a live one of its kind has the name."""
    kind = _kind(document)
    row = {
        "org_id": tx.org,
        "id": uuid7(),
        "kind": kind.value,
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
            definitions.c.kind == kind,
            func.lower(definitions.c.name) == name.lower(),
            definitions.c.status != DefinitionStatus.ARCHIVED,
        )
        existing = (await tx.execute(statement)).scalar_one_or_none()
        raise Duplicate(f"a {kind} named '{name}' exists", "name", existing)
    await _add_version(tx, found.id, 1, document)
    return found


async def add_version(tx: Transaction, id: UUID, document: Document, *, expected: int | None) -> Record:
    """The next version; it does nothing until it is activated."""
    kind = _kind(document)
    found = await _locked(tx, id, kind, expected)
    if found.status == DefinitionStatus.ARCHIVED:
        raise IllegalTransition(f"an archived {kind} takes no new version", "status")
    latest = select(func.max(versions.c.number)).where(versions.c.org_id == tx.org, versions.c.definition_id == id)
    number = (await tx.execute(latest)).scalar_one() + 1
    version = await _add_version(tx, id, number, document)
    await _touch(tx, found, {})
    return version


async def activate(
    tx: Transaction, id: UUID, number: int | None, *, expected: int | None, kind: Noun = Kind.RULE
) -> Record:
    """Switches a version on, the latest if none is named.

    A rule hears events recorded from now on; a sequence takes contacts in, and one that was paused
    lets those inside go on. Raises `SequenceNotReady` where what a sequence's mail must carry is missing.
    """
    found = await _locked(tx, id, kind, expected)
    if found.status == DefinitionStatus.ARCHIVED:
        raise IllegalTransition(f"an archived {kind} cannot be activated", "status")
    wanted = select(versions).where(versions.c.org_id == tx.org, versions.c.definition_id == id)
    wanted = wanted.where(versions.c.number == number) if number else wanted
    version = (await tx.execute(wanted.order_by(versions.c.number.desc()).limit(1))).one_or_none()
    if version is None:
        raise NotFound("Version")
    if sends_mail(_read(kind, version.document)):
        await _can_send(tx)
    if kind is Kind.SEQUENCE and found.status == DefinitionStatus.PAUSED:
        await _resume(tx, id)
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


async def pause(tx: Transaction, id: UUID, *, expected: int | None, kind: Noun = Kind.RULE) -> Record:
    """Starts nothing new. Runs of a rule go on; a sequence keeps those inside still, their unsent mail too."""
    found = await _locked(tx, id, kind, expected)
    if found.status != DefinitionStatus.ACTIVE:
        raise IllegalTransition(f"only an active {kind} can be paused; this one is {found.status}", "status")
    await _close_activation(tx, id)
    if kind is Kind.SEQUENCE:
        row = {"org_id": tx.org, "id": uuid7(), "definition_id": id, "since": tx.now, "paused_by": _person(tx)}
        await tx.execute(insert(pauses).values(row))
    return await _touch(tx, found, {"status": DefinitionStatus.PAUSED.value})


async def archive(tx: Transaction, id: UUID, *, expected: int | None, kind: Noun = Kind.RULE) -> Record:
    """Sets one aside for good; what is inside goes on, its history stays."""
    found = await _locked(tx, id, kind, expected)
    if found.status == DefinitionStatus.ARCHIVED:
        raise IllegalTransition(f"this {kind} is archived", "status")
    await _close_activation(tx, id)
    if kind is Kind.SEQUENCE and found.status == DefinitionStatus.PAUSED:
        await _resume(tx, id)
    return await _touch(tx, found, {"status": DefinitionStatus.ARCHIVED.value})


async def get(tx: Transaction, id: UUID, kind: Noun = Kind.RULE) -> Record:
    """Raises `NotFound`."""
    statement = select(definitions).where(*_one(tx, id, kind))
    found = (await tx.execute(statement)).one_or_none()
    if found is None:
        raise NotFound(kind.capitalize())
    return found


async def search(
    tx: Transaction,
    span: Span,
    *,
    q: str | None = None,
    status: DefinitionStatus | None = None,
    kind: Noun = Kind.RULE,
) -> Page:
    """Those of a kind; `q` is found anywhere in a name."""
    query = select(definitions).where(
        definitions.c.org_id == tx.org, definitions.c.kind == kind, *equal({definitions.c.status: status})
    )
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
    found: dict[UUID, list[Activation]] = {}
    for row in await tx.execute(_rules(), {"the_org": tx.org, "since": since}):
        found.setdefault(row.definition_id, []).append(
            Activation(row.version_id, read(row.document), row.since, row.until)
        )
    return [Rule(id, tuple(of_rule)) for id, of_rule in found.items()]


@cache
def _rules() -> Select[Any]:
    since = bindparam("since", type_=activations.c.since.type)
    later = activations.alias("later")
    superseded = exists().where(
        later.c.org_id == activations.c.org_id,
        later.c.definition_id == activations.c.definition_id,
        tuple_(later.c.since, later.c.id) > tuple_(activations.c.since, activations.c.id),
    )
    return (
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
            activations.c.org_id == ORG,
            definitions.c.kind == "rule",
            definitions.c.status.in_([DefinitionStatus.ACTIVE, DefinitionStatus.PAUSED]),
            or_(activations.c.until.is_(None), activations.c.until > since, ~superseded),
        )
        .order_by(activations.c.definition_id, activations.c.since.desc(), activations.c.id.desc())
    )


@lru_cache(maxsize=1000)
def read(document: str) -> RuleDocument:
    """A stored rule; a version never changes, so its text is its key."""
    return RuleDocument.model_validate_json(document)


@lru_cache(maxsize=1000)
def read_sequence(document: str) -> SequenceDocument:
    """A stored sequence, likewise."""
    return SequenceDocument.model_validate_json(document)


def _read(kind: Noun, document: Mapping[str, Any]) -> Document:
    return (SequenceDocument if kind is Kind.SEQUENCE else RuleDocument).model_validate(document)


@lru_cache(maxsize=1000)
def route(kind: str, document: str) -> Places:
    """The places of a stored document, by the `kind` of execution that walks it."""
    return places(read_sequence(document) if kind == Target.ENROLLMENT else read(document))


def _kind(document: Document) -> Noun:
    return Kind.SEQUENCE if isinstance(document, SequenceDocument) else Kind.RULE


def _one(tx: Transaction, id: UUID, kind: Noun) -> tuple[ColumnElement[bool], ...]:
    return definitions.c.org_id == tx.org, definitions.c.id == id, definitions.c.kind == kind


async def _locked(tx: Transaction, id: UUID, kind: Noun, expected: int | None) -> Record:
    """Locks a definition; `expected` is the revision the caller read, None for any."""
    statement = select(definitions).where(*_one(tx, id, kind)).with_for_update(key_share=True)
    found = (await tx.execute(statement)).one_or_none()
    if found is None:
        raise NotFound(kind.capitalize())
    if expected is not None and found.revision != expected:
        raise Stale(f"this {kind} is at revision {found.revision}, not {expected}")
    return found


async def _can_send(tx: Transaction) -> None:
    """The law of most countries: whose mail it is stands in it."""
    statement = select(organizations.c.postal_address).where(organizations.c.id == tx.org)
    if (await tx.execute(statement)).scalar_one() is None:
        raise SequenceNotReady("mail must carry the organization's postal address; set it first", "postalAddress")


async def _resume(tx: Transaction, id: UUID) -> None:
    """Ends a sequence's pause: its mail may leave again, and the relay lets those inside go on, batch by batch."""
    still = (pauses.c.org_id == tx.org, pauses.c.definition_id == id, pauses.c.until.is_(None))
    await tx.execute(update(pauses).where(*still).values(until=func.greatest(pauses.c.since, tx.now)))
    unsent = (
        select(intents.c.destination_id)
        .join(executions, (executions.c.org_id == intents.c.org_id) & (executions.c.id == intents.c.execution_id))
        .where(intents.c.org_id == tx.org, intents.c.status == MessageStatus.PENDING, executions.c.definition_id == id)
        .distinct()
    )
    await queues.wake(tx, Target.MAILBOX, (await tx.execute(unsent)).scalars())


async def _add_version(tx: Transaction, id: UUID, number: int, document: Document) -> Record:
    problems = check(document) or await _dangling(tx, document)
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


async def _dangling(tx: Transaction, document: Document) -> list[str]:
    """What a document names and this organization does not have: it would never fire, or get stuck."""
    named = references(document)
    wanted: list[tuple[str, Table, Column[Any], frozenset[Any]]] = [
        ("stage", stages, stages.c.key, named.stages),
        ("template", templates, templates.c.id, named.templates),
        ("mailbox", destinations, destinations.c.id, named.mailboxes),
        ("sequence", definitions, definitions.c.id, named.sequences),
        ("user", users, users.c.id, named.users),
    ]
    problems = []
    for noun, table, column, names in wanted:
        if not names:
            continue
        there = select(column).where(table.c.org_id == tx.org, column.in_(names))
        if "deleted_at" in table.c:
            there = there.where(table.c.deleted_at.is_(None))
        missing = names - set((await tx.execute(there)).scalars())
        problems += [f"there is no {noun} '{name}'" for name in sorted(map(str, missing))]
    return problems


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
