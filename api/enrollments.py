"""Enrollments over HTTP: who is in which sequence, the whole why of it, and a person's hand on it."""

from datetime import datetime
from http import HTTPStatus
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Query, Response
from pydantic import ConfigDict, Field

from api.auth import Call, may
from api.cursors import Asked, around
from api.idempotency import Answer, Once, may_once
from api.problems import responses
from api.runs import Next, StepTaken, Stop, steps_of, unsent_of
from api.shapes import Given, Many, Shown
from domain.words import Awaits, ExecutionStatus, ExitReason, MessageStatus, StuckReason, Target
from store import enrollments, messages, stops
from store.events import Record
from store.transaction import Transaction

router = APIRouter(prefix="/enrollments", tags=["enrollments"])
Reading = Annotated[Call, may("enrollment:read")]
Operating = Annotated[Once, may_once("enrollment:write")]
_CHANGES = responses(HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT)


class Enrollment(Shown):
    """`ownerId` owns the contact. `heldSince` is set while letters are read that may stop it.

    From `letGoAt` on its steps and messages are not kept any more.
    """

    id: UUID
    sequence_id: Annotated[UUID, Field(validation_alias="definition_id")]
    sequence_name: str
    version: int
    contact_id: UUID
    company_id: UUID | None
    deal_id: UUID | None
    owner_id: Annotated[UUID | None, Field(validation_alias="contact_owner_id")]
    mailbox_id: Annotated[UUID | None, Field(validation_alias="destination_id")]
    status: ExecutionStatus
    exit_reason: ExitReason | None
    exit_note: str | None
    stuck_reason: StuckReason | None
    steps_taken: int
    due_at: datetime | None
    awaits: Awaits | None
    held_since: datetime | None
    started_at: datetime
    ended_at: datetime | None
    let_go_at: datetime | None


class StartedBy(Shown):
    """Who enrolled: a user, a rule or another sequence."""

    kind: Literal["user", "rule", "sequence"]
    id: UUID | None


class MessageOfIt(Shown):
    id: UUID
    step: str
    status: MessageStatus
    reason: str | None
    due_at: datetime
    accepted_at: datetime | None
    replied_at: datetime | None


class Pause(Shown):
    """When it was kept still: by itself, or with its whole sequence."""

    scope: Literal["enrollment", "sequence"]
    since: datetime
    until: datetime | None
    paused_by: UUID | None


class EnrollmentNext(Next):
    """As a run's; `heldBy` are the letters that must be read first, `pausedBy` what keeps it still until resumed."""

    held_by: list[UUID]
    paused_by: list[Literal["enrollment", "sequence"]]


class EnrollmentWhole(Enrollment):
    started_by: StartedBy
    saw: Annotated[dict[str, Any] | None, Field(description="Which exit of the document ended it, and what it saw.")]
    steps: list[StepTaken]
    messages: list[MessageOfIt]
    pauses: list[Pause]
    next: EnrollmentNext


class EnrollmentOne(Shown):
    enrollment: EnrollmentWhole


class EnrollmentMany(Many):
    enrollments: list[Enrollment]


class RetryEnrollment(Given):
    """Another mailbox takes over what has not left."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"mailboxId": "0199c0de-0000-7000-8000-000000000001"}]})

    mailbox_id: UUID | None = None


class EnrollmentFilters(Asked):
    sequence: UUID | None = None
    status: ExecutionStatus | None = None
    contact: UUID | None = None
    owner: UUID | None = None


@router.get("")
async def list_enrollments(asked: Annotated[EnrollmentFilters, Query()], call: Reading) -> EnrollmentMany:
    """Newest first; `owner` owns the contact."""
    async with call.transaction() as tx:
        page = await enrollments.search(tx, asked.span, **asked.filters())
    return EnrollmentMany(enrollments=[Enrollment.model_validate(row) for row in page.records], **around(page))


@router.get("/{id}", responses=responses(HTTPStatus.NOT_FOUND))
async def get_enrollment(id: UUID, call: Reading) -> EnrollmentOne:
    """The whole why: who enrolled, every step and message, what keeps it still, and what comes next when."""
    async with call.transaction() as tx:
        return await _whole(tx, id)


@router.post("/{id}/pause", response_model=EnrollmentOne, responses=_CHANGES)
async def pause_enrollment(id: UUID, once: Operating) -> Response:
    """Nothing of it happens until it is resumed."""

    async def pause(tx: Transaction) -> Answer:
        await enrollments.pause(tx, id)
        return Answer(await _whole(tx, id))

    return await once(pause)


@router.post("/{id}/resume", response_model=EnrollmentOne, responses=_CHANGES)
async def resume_enrollment(id: UUID, once: Operating) -> Response:
    """What was still to wait when it was paused is still to wait."""

    async def resume(tx: Transaction) -> Answer:
        await enrollments.resume(tx, id)
        return Answer(await _whole(tx, id))

    return await once(resume)


@router.post("/{id}/stop", response_model=EnrollmentOne, responses=_CHANGES)
async def stop_enrollment(id: UUID, once: Operating, given: Stop | None = None) -> Response:
    """Nothing of it leaves from this answer on; a message that is on its way already is not called back."""

    async def stop(tx: Transaction) -> Answer:
        await stops.stop(tx, id, Target.ENROLLMENT, given.note if given else None)
        return Answer(await _whole(tx, id))

    return await once(stop)


@router.post("/{id}/retry", response_model=EnrollmentOne, responses=_CHANGES)
async def retry_enrollment(id: UUID, once: Operating, given: RetryEnrollment | None = None) -> Response:
    """A stuck enrollment goes on from what failed: the same message, never a second one."""

    async def retry(tx: Transaction) -> Answer:
        await enrollments.retry(tx, id, mailbox=given.mailbox_id if given else None)
        return Answer(await _whole(tx, id))

    return await once(retry)


async def _whole(tx: Transaction, id: UUID) -> EnrollmentOne:
    found = await enrollments.explain(tx, id)
    pauses = [_pause(row) for row in await enrollments.pauses_of(tx, found)]
    following = EnrollmentNext(
        **Next.model_validate(found).model_dump(by_alias=False, exclude={"message"}),
        message=await unsent_of(tx, id),
        held_by=await enrollments.holding(tx, id),
        paused_by=[pause.scope for pause in pauses if pause.until is None],
    )
    return EnrollmentOne(
        enrollment=EnrollmentWhole(
            **Enrollment.model_validate(found).model_dump(by_alias=False),
            started_by=StartedBy(kind=found.started_by_kind, id=found.started_by_id),
            saw=found.saw,
            steps=await steps_of(tx, id),
            messages=[MessageOfIt.model_validate(row) for row in await messages.of_execution(tx, id)],
            pauses=pauses,
            next=following,
        )
    )


def _pause(row: Record) -> Pause:
    scope: Literal["enrollment", "sequence"] = "sequence" if row.definition_id else "enrollment"
    return Pause(scope=scope, since=row.since, until=row.until, paused_by=row.paused_by)
