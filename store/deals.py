"""Deals: in one stage of one pipeline; the stage's kind decides the outcome."""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Select, and_, case, func, literal, select, update

from domain.words import EventType, Kind, ReminderStatus, StageKind
from store import events
from store.errors import Duplicate, UnknownStage
from store.events import Changed, Record
from store.tables import deals, reminders, stages
from store.transaction import Transaction

DEFAULT_PIPELINE = "default"


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
    made = await events.create(
        tx, deals, EventType.DEAL_CREATED, Kind.DEAL, given, unless_exists=True, extra=extra
    )
    if made is None:
        raise Duplicate("a deal with this externalId exists", "externalId", None)
    return made


async def change(tx: Transaction, id: UUID, values: Mapping[str, Any]) -> Changed:
    """Anything but the stage. Raises `NotFound`, `UnknownReference`."""
    return await events.change(tx, deals, EventType.DEAL_UPDATED, Kind.DEAL, id, values)


async def move_stage(tx: Transaction, id: UUID, stage: str) -> Changed:
    """Moves a deal within its pipeline; to where it stands changes nothing and makes no event.

    The stage's default probability is taken over. A closed deal's open reminders are cancelled.
    Raises `NotFound`, `UnknownStage`.
    """
    target = (
        select(stages)
        .join(deals, and_(deals.c.org_id == stages.c.org_id, deals.c.pipeline == stages.c.pipeline))
        .where(deals.c.org_id == tx.org, deals.c.id == id, stages.c.key == stage)
        .where(deals.c.deleted_at.is_(None))
    )
    found = (await tx.execute(target)).one_or_none()
    if found is None:
        await get(tx, id)
        raise UnknownStage(f"the deal's pipeline has no stage '{stage}'", "stage")
    changed = await events.change(
        tx,
        deals,
        EventType.DEAL_STAGE_CHANGED,
        Kind.DEAL,
        id,
        {"stage": stage},
        also={"probability": found.probability, **_outcome(tx, found.kind)},
    )
    if changed.before is not None and found.kind != StageKind.OPEN:
        await tx.execute(
            update(reminders)
            .where(
                reminders.c.org_id == tx.org, reminders.c.deal_id == id, reminders.c.due_at.is_not(None)
            )
            .values(status=ReminderStatus.CANCELLED.value, due_at=None, closed_at=tx.now)
        )
    return changed


async def get(tx: Transaction, id: UUID) -> Record:
    return await events.get(tx, deals, Kind.DEAL, id)


async def pipeline_stages(tx: Transaction, pipeline: str | None = None) -> list[Record]:
    """Stages in board order, of one pipeline or of all."""
    statement = select(stages).where(stages.c.org_id == tx.org)
    if pipeline is not None:
        statement = statement.where(stages.c.pipeline == pipeline)
    return list((await tx.execute(statement.order_by(stages.c.pipeline, stages.c.position))).all())


def _of_pipeline(tx: Transaction, query: Select[Any], pipeline: str) -> ColumnElement[Any]:
    return query.where(stages.c.org_id == tx.org, stages.c.pipeline == pipeline).scalar_subquery()


def _outcome(tx: Transaction, kind: str) -> dict[str, Any]:
    """What a stage of this kind makes of a deal; an open one takes a closed deal's outcome back."""
    return {
        "outcome": None if kind == StageKind.OPEN else kind,
        "won_at": tx.now if kind == StageKind.WON else None,
        "lost_at": tx.now if kind == StageKind.LOST else None,
        "actual_close_date": None if kind == StageKind.OPEN else tx.now.date(),
    }
