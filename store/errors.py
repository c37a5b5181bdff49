"""Why a verb refuses. Each carries a stable code, and the field it is about where there is one.

And what an error of the database means to who must answer for it.
"""

import re
from uuid import UUID

from pydantic.alias_generators import to_camel
from sqlalchemy.exc import DBAPIError, IntegrityError, InterfaceError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

_LOCK_TIMEOUT = "55P03"
_BAD_VALUE = "22"
_CONSTRAINT = "23"
_PASSING = ("08", "40", "53", _LOCK_TIMEOUT, "57")
"""SQLSTATE classes that pass by themselves: connection, rollback, resources, lock timeout, shutdown."""


class Refused(Exception):  # noqa: N818  (a refusal is an answer, not a failure)
    """Base: nothing was written. `code` is part of the API; `field` is in the API's spelling."""

    code = "REFUSED"

    def __init__(self, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.field = field


class NotFound(Refused):
    """No such record in this organization; another's is not told apart from none."""

    code = "NOT_FOUND"

    def __init__(self, noun: str) -> None:
        super().__init__(f"{noun} not found")


class Invalid(Refused):
    code = "VALIDATION_ERROR"


class Duplicate(Refused):
    """Names what exists already."""

    code = "DUPLICATE"

    def __init__(self, message: str, field: str, existing: UUID | None) -> None:
        super().__init__(message, field)
        self.existing = existing


class DuplicateEmail(Duplicate):
    code = "DUPLICATE_EMAIL"


class UnknownReference(Refused):
    """A field names a record that this organization does not have."""

    code = "UNKNOWN_REFERENCE"


class UnknownStage(Refused):
    code = "UNKNOWN_STAGE"


class IllegalTransition(Refused):
    code = "ILLEGAL_TRANSITION"


class SequenceNotReady(Refused):
    """Something its mail must carry is missing."""

    code = "SEQUENCE_NOT_READY"


class Stale(Refused):
    """The record changed since the caller read it."""

    code = "STALE_VERSION"


def is_transient(error: BaseException) -> bool:
    """Whether trying again later may help, with nothing changed: the database was away or busy."""
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return True
    if state := sqlstate(error):
        return state.startswith(_PASSING)
    return isinstance(error, OSError | PoolTimeoutError | InterfaceError)


def is_lock_timeout(error: BaseException) -> bool:
    return sqlstate(error) == _LOCK_TIMEOUT


def is_bad_value(error: BaseException) -> bool:
    """Whether the database could not hold a value, such as a text with a NUL character."""
    return sqlstate(error).startswith(_BAD_VALUE)


def is_undone(error: BaseException) -> bool:
    """Whether the database has written nothing and said so: a bad value, a constraint, a deadlock, a lock."""
    return sqlstate(error).startswith((_BAD_VALUE, _CONSTRAINT, "40", _LOCK_TIMEOUT))


def sqlstate(error: BaseException) -> str:
    """PostgreSQL's code, of the driver's own error or one the library wrapped; empty for what has none."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    return str(getattr(cause, "sqlstate", None) or "")


def reference_error(error: IntegrityError) -> Refused | None:
    """The refusal that a violated foreign key or CHECK means; None for a unique index.

    Read from the constraint's name, which the database made of the table and its columns.
    """
    cause = getattr(error.orig, "__cause__", None)
    constraint = str(getattr(cause, "constraint_name", "") or "")
    table = str(getattr(cause, "table_name", "") or "")
    name = constraint.removeprefix(f"{table}_")
    if re.fullmatch(r"check\d*", name):
        return Invalid("these values do not go together")
    if name.endswith("_fkey"):
        column = name.removesuffix("_fkey").removeprefix("org_id_")
        if column == "pipeline_stage":
            return UnknownStage("no such stage in this pipeline", "stage")
        field = to_camel(column)
        return UnknownReference(f"{field} names nothing in this organization", field)
    if name.endswith("_check"):
        field = to_camel(name.removesuffix("_check"))
        return Invalid(f"{field} has a value that is not allowed", field)
    return None
