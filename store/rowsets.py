"""Rows as one parameter: a statement that takes a set is the same text whatever the set's size."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar
from uuid import UUID

from sqlalchemy import ColumnElement, Table, TableValuedAlias, any_, column, func, literal, select
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, Insert, insert
from sqlalchemy.types import TypeEngine

Id = TypeVar("Id", UUID, int)


def rowset(name: str, types: Mapping[str, TypeEngine[Any]], rows: Sequence[Mapping[str, Any]]) -> TableValuedAlias:
    """A set of rows to select from; each row has a value for every one of `types`."""
    whole = literal(rows, JSONB)
    columns = (column(each, type_) for each, type_ in types.items())
    return func.jsonb_to_recordset(whole).table_valued(*columns, name=name).render_derived(with_types=True)


def filled(table: Table, always: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> Insert:
    """An insert of rows that all name the same columns, and of what is the same in all of them."""
    given = rowset("given", {name: table.c[name].type for name in rows[0]}, rows)
    source = select(*(literal(value, table.c[name].type) for name, value in always.items()), *given.c)
    return insert(table).from_select([*always, *rows[0]], source)


def among(wanted: ColumnElement[Id], ids: Iterable[Id]) -> ColumnElement[bool]:
    """Whether it is one of `ids`."""
    return wanted == any_(literal(list(ids), ARRAY(wanted.type)))
