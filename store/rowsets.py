"""Rows as one parameter: a statement that takes a set is the same text whatever the set's size.

So it can be built once. Building one from the library's parts costs more than the database takes for it: what is
carried out again and again is kept, with parameters in place of values.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any, TypeVar
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    DateTime,
    Table,
    TableValuedAlias,
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


def rowset(
    name: str, types: Mapping[str, TypeEngine[Any]], rows: Sequence[Mapping[str, Any]] | None = None
) -> TableValuedAlias:
    """A set of rows to select from; each row has a value for every one of `types`.

    Without `rows` they are the parameter `<name>_rows`.
    """
    whole = bindparam(f"{name}_rows", type_=JSONB()) if rows is None else literal(rows, JSONB)
    columns = (column(each, type_) for each, type_ in types.items())
    return func.jsonb_to_recordset(whole).table_valued(*columns, name=name).render_derived(with_types=True)


@cache
def filling(table: Table, always: tuple[str, ...], names: tuple[str, ...]) -> Insert:
    """An insert of the rows `given_rows`, which have values for `names`; of those `always` there is one for all."""
    given = rowset("given", {name: table.c[name].type for name in names})
    one = (bindparam(f"always_{name}", type_=table.c[name].type) for name in always)
    return insert(table).from_select([*always, *names], select(*one, *given.c))


def filled(always: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The parameters of a `filling`."""
    return {"given_rows": rows, **{f"always_{name}": value for name, value in always.items()}}


def among(wanted: ColumnElement[Id], ids: Iterable[Id]) -> ColumnElement[bool]:
    """Whether it is one of `ids`."""
    return wanted == any_(literal(list(ids), ARRAY(wanted.type)))
