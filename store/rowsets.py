"""Rows as one parameter: a statement that takes a set is the same text whatever the set's size.

So it can be built once. Building one from the library's parts costs more than the database takes for it: what is
carried out again and again is kept, with parameters in place of values.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any, TypeVar
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    DateTime,
    Subquery,
    Table,
    Uuid,
    any_,
    bindparam,
    column,
    func,
    literal,
    select,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, Insert, insert
from sqlalchemy.types import TypeEngine

Id = TypeVar("Id", UUID, int)

ORG = bindparam("the_org", type_=Uuid())
NOW = bindparam("the_now", type_=DateTime(timezone=True))
"""Parameters of statements that are built once."""


def rowset(name: str, types: Mapping[str, TypeEngine[Any]]) -> Subquery:
    """The rows that `rows_as` gives by this name, to select from; each has a value for every one of `types`.

    The database is told how many they are. Else it expects a hundred in whatever comes as JSON, and reads tables of
    some thousand rows whole for the sake of one.
    """
    columns = (column(each, type_) for each, type_ in types.items())
    whole = func.jsonb_to_recordset(bindparam(f"{name}_rows", type_=JSONB()))
    rows = whole.table_valued(*columns, name=name).render_derived(with_types=True)
    return select(rows).limit(bindparam(f"{name}_count", type_=BigInteger())).subquery(name)


def rows_as(name: str, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The parameters of a `rowset`."""
    return {f"{name}_rows": rows, f"{name}_count": len(rows)}


@cache
def filling(table: Table, always: tuple[str, ...], names: tuple[str, ...]) -> Insert:
    """An insert of the rows `given`, which have values for `names`; of those `always` there is one for all."""
    given = rowset("given", {name: table.c[name].type for name in names})
    one = (bindparam(f"always_{name}", type_=table.c[name].type) for name in always)
    return insert(table).from_select([*always, *names], select(*one, *given.c))


def filled(always: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The parameters of a `filling`."""
    return {**rows_as("given", rows), **{f"always_{name}": value for name, value in always.items()}}


def among(wanted: ColumnElement[Id], ids: Iterable[Id]) -> ColumnElement[bool]:
    """Whether it is one of `ids`."""
    return wanted == any_(literal(list(ids), ARRAY(wanted.type)))
