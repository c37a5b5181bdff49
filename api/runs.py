"""Runs over HTTP: what a rule did for an event, why, and what it will do next."""

from datetime import datetime
from http import HTTPStatus
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query, Response
from pydantic import ConfigDict, Field

from api.auth import Call, may
from api.cursors import Asked, around
from api.idempotency import Answer, Once, may_once
from api.messages import Unsent, unsent
from api.problems import responses
from api.shapes import Given, Many, Note, Shown
from domain.conditions import Verdict
from domain.delivery import OVER
from domain.due import Due
from domain.words import Awaits, ExecutionStatus, ExitReason, StepOutcome, StuckReason, Target
from store import executions, intents, messages, stops
from store.transaction import Transaction

router = APIRouter(prefix="/runs", tags=["runs"])
Reading = Annotated[Call, may("run:read")]
Operating = Annotated[Once, may_once("run:operate")]


class Run(Shown):
    id: UUID
    rule_id: Annotated[UUID, Field(validation_alias="definition_id")]
    rule_name: str
    version: int
    event_id: UUID
    event_type: str
    contact_id: UUID | None
    company_id: UUID | None
    deal_id: UUID | None
    status: ExecutionStatus
    exit_reason: ExitReason | None
    exit_note: str | None
    stuck_reason: StuckReason | None
    steps_taken: int
    due_at: datetime | None
    started_at: datetime
    ended_at: datetime | None


class Cause(Shown):
    """The event that started the run."""

    id: UUID
    type: str
    number: int
    at: datetime
    subject_kind: str
    subject_id: UUID
    before: dict[str, Any]
    after: dict[str, Any]


class Made(Shown):
    kind: str
    id: UUID


class StepTaken(Shown):
    """`saw` is what the step decided by, or found."""

    number: int
    step: str
    action: str
    outcome: StepOutcome
    saw: dict[str, Any]
    made: Made | None
    at: datetime


class Next(Shown):
    """What happens next: `waits` says why `dueAt` is when it is; without a due time, `awaits` names the fact.

    `message` is the mail of it that is not over, and what keeps it. What is stuck says what a person must mend.
    """

    status: ExecutionStatus
    step: str | None
    due_at: datetime | None
    awaits: Awaits | None
    waits: Due | None
    stuck_reason: StuckReason | None
    stuck_detail: str | None
    stuck_owner_id: UUID | None
    message: Unsent | None = None


class RunWhole(Run):
    event: Cause
    saw: Annotated[Verdict | None, Field(description="What the match decided by; null where the rule asks nothing.")]
    steps: list[StepTaken]
    next: Next


class RunOne(Shown):
    run: RunWhole


class RunMany(Many):
    runs: list[Run]


class Stop(Given):
    model_config = ConfigDict(json_schema_extra={"examples": [{"note": "The customer has signed."}]})

    note: Note | None = None


class RunFilters(Asked):
    rule: UUID | None = None
    status: ExecutionStatus | None = None
    contact: UUID | None = None
    deal: UUID | None = None


@router.get("")
async def list_runs(asked: Annotated[RunFilters, Query()], call: Reading) -> RunMany:
    """Newest first."""
    async with call.transaction() as tx:
        page = await executions.search(tx, asked.span, **asked.filters())
    return RunMany(runs=[Run.model_validate(row) for row in page.records], **around(page))


@router.get("/{id}", responses=responses(HTTPStatus.NOT_FOUND))
async def get_run(id: UUID, call: Reading) -> RunOne:
    """The whole why: the event, what the match saw, every step, and what comes next."""
    async with call.transaction() as tx:
        return await _whole(tx, id)


@router.post("/{id}/retry", response_model=RunOne, responses=responses(HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT))
async def retry_run(id: UUID, once: Operating) -> Response:
    """A stuck run goes on from the step that failed."""

    async def retry(tx: Transaction) -> Answer:
        await intents.retry(tx, id, Target.RUN)
        return Answer(await _whole(tx, id))

    return await once(retry)


@router.post("/{id}/stop", response_model=RunOne, responses=responses(HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT))
async def stop_run(id: UUID, once: Operating, given: Stop | None = None) -> Response:
    """Nothing of it happens from this answer on."""

    async def stop(tx: Transaction) -> Answer:
        await stops.stop(tx, id, Target.RUN, given.note if given else None)
        return Answer(await _whole(tx, id))

    return await once(stop)


async def _whole(tx: Transaction, id: UUID) -> RunOne:
    run = await executions.explain(tx, id)
    event = Cause(
        id=run.event_id,
        type=run.event_type,
        number=run.event_number,
        at=run.event_at,
        subject_kind=run.subject_kind,
        subject_id=run.subject_id,
        before=run.event_before,
        after=run.event_after,
    )
    steps = await steps_of(tx, id)
    following = Next.model_validate(run).model_copy(update={"message": await unsent_of(tx, id)})
    shown = Run.model_validate(run).model_dump(by_alias=False)
    return RunOne(run=RunWhole(**shown, event=event, saw=run.saw, steps=steps, next=following))


async def steps_of(tx: Transaction, execution: UUID) -> list[StepTaken]:
    """The steps of a run or an enrollment, in the order they were taken."""
    return [
        StepTaken(
            number=row.number,
            step=row.step,
            action=row.action,
            outcome=row.outcome,
            saw=row.saw,
            made=Made(kind=row.made_kind, id=row.made_id) if row.made_id else None,
            at=row.at,
        )
        for row in await executions.steps_of(tx, execution)
    ]


async def unsent_of(tx: Transaction, execution: UUID) -> Unsent | None:
    """The first message of a run or an enrollment that is not over."""
    for row in await messages.of_execution(tx, execution):
        if row.status not in OVER:
            return await unsent(tx, await messages.get(tx, row.id))
    return None
