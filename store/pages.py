"""Pages of a list: newest first by id, each row once however many are added meanwhile."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Column, ColumnElement, Row, Select, func

from store.transaction import Transaction


@dataclass(frozen=True)
class Span:
    """Which part of a list: what comes behind the row `after`, at most `limit` rows."""

    after: UUID | None = None
    limit: int = 25


@dataclass(frozen=True)
class Page:
    """Some rows, how many there are in all, and the row to go on behind; None at the end of the list."""

    records: list[Row[Any]]
    total: int
    last: UUID | None


async def page(tx: Transaction, query: Select[Any], id: ColumnElement[UUID], span: Span) -> Page:
    """One page of a query whose rows are told apart by `id`, which rises with time."""
    counted = query.with_only_columns(func.count(), maintain_column_froms=True)
    total: int = (await tx.execute(counted)).scalar_one()
    wanted = query if span.after is None else query.where(id < span.after)
    records = list((await tx.execute(wanted.order_by(id.desc()).limit(span.limit + 1))).all())
    if len(records) <= span.limit:
        return Page(records, total, None)
    return Page(records[: span.limit], total, records[span.limit - 1].id)


def equal(wanted: Mapping[Column[Any], object]) -> Iterator[ColumnElement[bool]]:
    """One comparison for each filter that was given; None filters nothing."""
    return (column == value for column, value in wanted.items() if value is not None)
