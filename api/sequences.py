"""Sequences over HTTP: drafts, immutable versions, switching them on and off, and enrolling contacts."""

from collections.abc import Mapping
from datetime import datetime
from http import HTTPStatus
from typing import Annotated, Any, Self
from uuid import UUID

from fastapi import APIRouter, Query, Response
from pydantic import ConfigDict, Field
from pydantic.config import JsonDict

from api.auth import Call, may
from api.cursors import Asked, around
from api.idempotency import Answer, Once, may_once
from api.problems import responses
from api.revisions import Expected, etag
from api.rules import Activation, Version
from api.shapes import Given, Many, Name, Shown, Title
from domain.documents import SequenceDocument
from domain.words import DefinitionStatus, Kind, NotEnrolled
from store import definitions, enrollments
from store.errors import Invalid
from store.events import Record
from store.transaction import Transaction

router = APIRouter(prefix="/sequences", tags=["sequences"])
Reading = Annotated[Call, may("sequence:read")]
Writing = Annotated[Call, may("sequence:write")]
WritingOnce = Annotated[Once, may_once("sequence:write")]
_CHANGES = responses(
    HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT, HTTPStatus.PRECONDITION_FAILED, HTTPStatus.PRECONDITION_REQUIRED
)
_DOCUMENT: JsonDict = {
    "steps": [
        {
            "kind": "email",
            "id": "hello",
            "subject": "Your trial, {{ contact.firstName | default('and you') }}",
            "text": "Hello,\n\nhow is it going? I am happy to help.\n\n{{ sender.name }}\n",
        },
        {"kind": "wait", "id": "three-days", "wait": {"for": {"amount": 3, "unit": "business_days"}}},
        {"kind": "email", "id": "nudge", "thread": "same", "text": "Did you find a moment?\n\n{{ sender.name }}\n"},
        {"kind": "task", "id": "call", "title": "Call them"},
    ],
    "exits": [{"on": "deal.stage_changed", "to": ["closed_won"]}],
}


class Sequence(Shown):
    """`counts` tells the enrolled by what they are now: open, paused or stuck, else how they ended."""

    id: UUID
    name: str
    status: DefinitionStatus
    revision: int
    enrolled_count: int
    counts: dict[str, int]
    created_by: UUID | None
    created_at: datetime
    updated_at: datetime

    @classmethod
    def of(cls, row: Record, counts: Mapping[str, int]) -> Self:
        return cls(
            id=row.id,
            name=row.name,
            status=row.status,
            revision=row.revision,
            enrolled_count=sum(counts.values()),
            counts=dict(counts),
            created_by=row.created_by,
            created_at=row.created_at,
            updated_at=row.updated_at,
        )


class SequenceOne(Shown):
    sequence: Sequence


class SequenceWhole(Sequence):
    versions: list[Version]
    active_version: int | None


class SequenceWholeOne(Shown):
    sequence: SequenceWhole


class SequenceMany(Many):
    sequences: list[Sequence]


class NewSequence(Given):
    model_config = ConfigDict(json_schema_extra={"examples": [{"name": "Trial follow-up", "document": _DOCUMENT}]})

    name: Title
    document: SequenceDocument


class SequenceFilters(Asked):
    q: Name | None = None
    status: DefinitionStatus | None = None


class NewEnrollments(Given):
    """`dealId` is what the enrollment is about, and goes with one contact only.

    Without `mailboxId` it is the document's, else that of the contact's owner, else one that is nobody's own.
    """

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"contacts": ["0199c0de-0000-7000-8000-000000000001"]}]},
    )

    contacts: Annotated[list[UUID], Field(min_length=1, max_length=enrollments.MOST)]
    mailbox_id: UUID | None = None
    deal_id: UUID | None = None


class Enrolled(Shown):
    """Either an enrollment, or why there is none and which one is in the way."""

    contact_id: Annotated[UUID, Field(validation_alias="contact")]
    enrollment_id: Annotated[UUID | None, Field(validation_alias="enrollment")]
    reason: NotEnrolled | None
    existing_id: Annotated[UUID | None, Field(validation_alias="existing")]


class EnrolledMany(Shown):
    """One result for each contact, in the order they were named."""

    results: list[Enrolled]
    enrolled: int


@router.post("", status_code=HTTPStatus.CREATED, response_model=SequenceOne, responses=responses(HTTPStatus.CONFLICT))
async def create_sequence(given: NewSequence, once: WritingOnce) -> Response:
    """A draft: it takes nobody in until it is activated."""

    async def create(tx: Transaction) -> Answer:
        made = await definitions.create(tx, given.name, given.document)
        body = SequenceOne(sequence=Sequence.of(made, {}))
        return Answer.created(body, f"/api/v1/sequences/{made.id}", etag(made))

    return await once(create)


@router.get("")
async def list_sequences(asked: Annotated[SequenceFilters, Query()], call: Reading) -> SequenceMany:
    """Newest first; `q` is found anywhere in a name."""
    async with call.transaction() as tx:
        page = await definitions.search(tx, asked.span, kind=Kind.SEQUENCE, **asked.filters())
        counts = await enrollments.counts(tx, [row.id for row in page.records])
    rows = [Sequence.of(row, counts.get(row.id, {})) for row in page.records]
    return SequenceMany(sequences=rows, **around(page))


@router.get("/schema", dependencies=[may("sequence:read")])
async def get_sequence_schema() -> dict[str, Any]:
    """The JSON Schema of a sequence's document, for editors."""
    return SequenceDocument.model_json_schema()


@router.get("/{id}", responses=responses(HTTPStatus.NOT_FOUND))
async def get_sequence(id: UUID, call: Reading, response: Response) -> SequenceWholeOne:
    """With every version, oldest first."""
    async with call.transaction() as tx:
        return await _whole(tx, id, response)


@router.put(
    "/{id}/document",
    responses=_CHANGES,
    openapi_extra={"requestBody": {"content": {"application/json": {"example": _DOCUMENT}}}},
)
async def replace_sequence_document(
    id: UUID, given: SequenceDocument, expected: Expected, call: Writing, response: Response
) -> SequenceWholeOne:
    """The next version. Who is inside stays in theirs; who comes takes the one that is switched on."""
    async with call.transaction() as tx:
        await definitions.add_version(tx, id, given, expected=expected)
        return await _whole(tx, id, response)


@router.post("/{id}/activate", response_model=SequenceOne, responses=_CHANGES)
async def activate_sequence(
    id: UUID, expected: Expected, once: WritingOnce, given: Activation | None = None
) -> Response:
    """Publishes a version: contacts may be enrolled in it, and a sequence that was paused goes on.

    Its mail must carry the organization's postal address: without one the code is SEQUENCE_NOT_READY.
    """

    async def activate(tx: Transaction) -> Answer:
        number = given.version if given else None
        return await _one(tx, await definitions.activate(tx, id, number, expected=expected, kind=Kind.SEQUENCE))

    return await once(activate)


@router.post("/{id}/pause", response_model=SequenceOne, responses=_CHANGES)
async def pause_sequence(id: UUID, expected: Expected, once: WritingOnce) -> Response:
    """Takes nobody in and keeps those inside still, their unsent mail too, until it is activated again."""

    async def pause(tx: Transaction) -> Answer:
        return await _one(tx, await definitions.pause(tx, id, expected=expected, kind=Kind.SEQUENCE))

    return await once(pause)


@router.post("/{id}/archive", response_model=SequenceOne, responses=_CHANGES)
async def archive_sequence(id: UUID, expected: Expected, once: WritingOnce) -> Response:
    """Sets a sequence aside for good; those inside go on, its history stays."""

    async def archive(tx: Transaction) -> Answer:
        return await _one(tx, await definitions.archive(tx, id, expected=expected, kind=Kind.SEQUENCE))

    return await once(archive)


@router.post(
    "/{id}/enrollments",
    response_model=EnrolledMany,
    responses=responses(HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT),
    tags=["enrollments"],
)
async def enroll_contacts(
    id: UUID, given: NewEnrollments, once: Annotated[Once, may_once("enrollment:write")]
) -> Response:
    """Each contact is enrolled, or its result says why not; nobody is ever in the same sequence twice at once."""
    if given.deal_id is not None and len(given.contacts) > 1:
        raise Invalid("a deal goes with one contact; enroll the others without it", "dealId")

    async def enroll(tx: Transaction) -> Answer:
        asked = [enrollments.Asked(contact, deal=given.deal_id) for contact in given.contacts]
        answered = await enrollments.enroll(tx, id, asked, mailbox=given.mailbox_id)
        results = [Enrolled.model_validate(one) for one in answered]
        return Answer(EnrolledMany(results=results, enrolled=sum(one.enrollment_id is not None for one in results)))

    return await once(enroll)


async def _one(tx: Transaction, row: Record) -> Answer:
    counts = await enrollments.counts(tx, [row.id])
    return Answer(SequenceOne(sequence=Sequence.of(row, counts.get(row.id, {}))), headers=etag(row))


async def _whole(tx: Transaction, id: UUID, response: Response) -> SequenceWholeOne:
    row = await definitions.get(tx, id, Kind.SEQUENCE)
    response.headers.update(etag(row))
    counts = await enrollments.counts(tx, [id])
    versions = [Version.model_validate(one) for one in await definitions.versions_of(tx, id)]
    active = next((version.number for version in versions if version.active_since), None)
    shown = Sequence.of(row, counts.get(id, {})).model_dump(by_alias=False)
    return SequenceWholeOne(sequence=SequenceWhole(**shown, versions=versions, active_version=active))
