"""Deals: in one stage of one pipeline; the stage's kind decides the outcome."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from functools import cache, partial
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Select, case, func, literal, select

from domain.words import EventType, Kind, StageKind
from store import events, reminders, tables
from store.errors import Duplicate, UnknownStage
from store.events import Change, Changed, Draft, Record
from store.pages import Page, Span, equal, page
from store.rowsets import ORG, rows_as, rowset
from store.tables import deals, stages
from store.transaction import Origin, Transaction

DEFAULT_PIPELINE = "default"


@dataclass(frozen=True)
class Move:
    """A deal and the stage it is to be in, on whose behalf where not the transaction's own."""

    deal: UUID
    stage: str
    origin: Origin | None = None


async def create(tx: Transaction, values: Mapping[str, Any]) -> Record:
    """`stage` defaults to the pipeline's first, `probability` to the stage's.

    Raises `UnknownStage`, `UnknownReference`, `Duplicate`.
    """
    given = {name: value for name, value in values.items() if value is not None}
    pipeline = given.setdefault("pipeline", DEFAULT_PIPELINE)
    first = select(stages.c.key).order_by(stages.c.position).limit(1)
    key = literal(given.pop("stage")) if "stage" in given else _of_pipeline(tx, first, pipeline)

    def of_stage(value: ColumnElement[Any]) -> ColumnElement[Any]:
        return _of_pipeline(tx, select(value).where(stages.c.key == key), pipeline)

    computed: dict[str, ColumnElement[Any]] = {
        "stage": func.coalesce(key, ""),  # no such pipeline: the foreign key says so
        "probability": func.coalesce(of_stage(stages.c.probability), 0),
        "outcome": of_stage(case((stages.c.kind != StageKind.OPEN, stages.c.kind))),
        "won_at": of_stage(case((stages.c.kind == StageKind.WON, tx.now))),
        "lost_at": of_stage(case((stages.c.kind == StageKind.LOST, tx.now))),
        "actual_close_date": of_stage(case((stages.c.kind != StageKind.OPEN, tx.now.date()))),
    }
    extra = {name: value for name, value in computed.items() if name not in given}
    made = await events.create(tx, deals, EventType.DEAL_CREATED, Kind.DEAL, given, unless_exists=True, extra=extra)
    if made is None:
        taken = values["external_id"]
        held = await by_external_ids(tx, [taken])
        raise Duplicate("a deal with this externalId exists", "externalId", held.get(taken))
    return made


async def create_many(tx: Transaction, rows: Sequence[Mapping[str, Any]]) -> set[UUID]:
    """Creates those nobody is in the way of, each with an `id` and a `stage` that its `pipeline` has.

    One in a closed stage was closed on its expected day. The answer has the ids of the new ones.
    """
    known = {(stage.pipeline, stage.key): stage for stage in await pipeline_stages(tx)}
    staged = [(row, known[row["pipeline"], row["stage"]]) for row in rows]
    # One order for all: two imports at once wait for each other and never in a circle.
    staged.sort(key=lambda pair: str(pair[0]["external_id"]))
    full = [
        Draft.of({**row, "probability": stage.probability, **_outcome(tx, stage.kind, row["expected_close_date"])})
        for row, stage in staged
    ]
    return await events.create_many(tx, deals, EventType.DEAL_CREATED, Kind.DEAL, full)


async def change(tx: Transaction, id: UUID, values: Mapping[str, Any]) -> Changed:
    """Anything but the stage. Raises `NotFound`, `UnknownReference`."""
    return await events.change(tx, deals, EventType.DEAL_UPDATED, Kind.DEAL, id, values)


async def change_many(tx: Transaction, changes: Sequence[Change]) -> dict[UUID, Changed]:
    """As `change`, of those that are there; all change the same fields, each of another deal."""
    return await events.change_many(tx, deals, EventType.DEAL_UPDATED, Kind.DEAL, changes)


async def move_stage(tx: Transaction, id: UUID, stage: str) -> Changed:
    """Moves a deal within its pipeline; to where it stands changes nothing and makes no event.

    The stage's default probability is taken over. A closed deal's open reminders are cancelled.
    Raises `NotFound`, `UnknownStage`.
    """
    moved = await move_stages(tx, [Move(id, stage)])
    if id not in moved:
        await get(tx, id)
        raise no_stage(stage)
    return moved[id]


def no_stage(stage: str) -> UnknownStage:
    """The refusal of a stage that a deal's pipeline does not have."""
    return UnknownStage(f"the deal's pipeline has no stage '{stage}'", "stage")


async def move_stages(tx: Transaction, moves: Sequence[Move]) -> dict[UUID, Changed]:
    """As `move_stage`, each of another deal; those that are there and whose pipeline has the stage."""
    rows = [{"id": one.deal, "stage": one.stage} for one in moves]
    found = {row.id: row for row in await tx.execute(_targets(), {"the_org": tx.org, **rows_as("given", rows)})}
    closing: dict[bool, list[Change]] = {}
    for one in moves:
        if stage := found.get(one.deal):
            also = {"probability": stage.probability, **_outcome(tx, stage.kind)}
            change = Change(one.deal, {"stage": one.stage}, also, one.origin)
            closing.setdefault(stage.kind != StageKind.OPEN, []).append(change)
    moved: dict[UUID, Changed] = {}
    for closes, changes in closing.items():
        along = partial(reminders.cancelled_with, tx, "deal_id") if closes else None
        moved |= await events.change_many(tx, deals, EventType.DEAL_STAGE_CHANGED, Kind.DEAL, changes, along=along)
    return moved


@cache
def _targets() -> Select[Any]:
    """The stages that deals are to be moved to."""
    given = rowset("given", {"id": deals.c.id.type, "stage": deals.c.stage.type})
    of_pipeline = (stages.c.org_id == deals.c.org_id) & (stages.c.pipeline == deals.c.pipeline)
    return (
        select(deals.c.id, stages.c.kind, stages.c.probability)
        .join(given, given.c.id == deals.c.id)
        .join(stages, of_pipeline & (stages.c.key == given.c.stage))
        .where(deals.c.org_id == ORG, deals.c.deleted_at.is_(None))
    )


async def get(tx: Transaction, id: UUID) -> Record:
    return await events.get(tx, deals, Kind.DEAL, id)


async def by_external_ids(tx: Transaction, external_ids: Iterable[str]) -> dict[str, UUID]:
    return await events.holders(tx, deals, deals.c.external_id, external_ids)


async def search(
    tx: Transaction,
    span: Span,
    *,
    stage: str | None = None,
    owner: UUID | None = None,
    contact: UUID | None = None,
    min_value: int | None = None,
    max_value: int | None = None,
) -> tuple[Page, list[Record]]:
    """Live deals, and what all of them come to: `deals` and `value_cents` a pipeline, stage and currency."""
    query = select(deals).where(deals.c.org_id == tx.org, deals.c.deleted_at.is_(None))
    query = query.where(*equal({deals.c.stage: stage, deals.c.owner_id: owner, deals.c.contact_id: contact}))
    if min_value is not None:
        query = query.where(deals.c.value_cents >= min_value)
    if max_value is not None:
        query = query.where(deals.c.value_cents <= max_value)
    of = (deals.c.pipeline, deals.c.stage, deals.c.currency)
    sums = query.with_only_columns(*of, func.count().label("deals"), func.sum(deals.c.value_cents).label("value_cents"))
    totals = list((await tx.execute(sums.group_by(*of).order_by(*of))).all())
    return await page(tx, query, deals.c.id, span), totals


async def pipelines(tx: Transaction) -> list[Record]:
    statement = select(tables.pipelines).where(tables.pipelines.c.org_id == tx.org)
    return list((await tx.execute(statement)).all())


async def pipeline_stages(tx: Transaction, pipeline: str | None = None) -> list[Record]:
    """Stages in board order, of one pipeline or of all."""
    statement = select(stages).where(stages.c.org_id == tx.org)
    if pipeline is not None:
        statement = statement.where(stages.c.pipeline == pipeline)
    return list((await tx.execute(statement.order_by(stages.c.pipeline, stages.c.position))).all())


def _of_pipeline(tx: Transaction, query: Select[Any], pipeline: str) -> ColumnElement[Any]:
    return query.where(stages.c.org_id == tx.org, stages.c.pipeline == pipeline).scalar_subquery()


def _outcome(tx: Transaction, kind: str, closed: date | None = None) -> dict[str, Any]:
    """What a stage of this kind makes of a deal; an open one takes a closed deal's outcome back.

    `closed` is the day it was closed elsewhere; without it, it is closed now.
    """
    at = datetime.combine(closed, time(), UTC) if closed else tx.now
    return {
        "outcome": None if kind == StageKind.OPEN else kind,
        "won_at": at if kind == StageKind.WON else None,
        "lost_at": at if kind == StageKind.LOST else None,
        "actual_close_date": None if kind == StageKind.OPEN else at.date(),
    }
