"""Why a verb refuses. Each carries a stable code, and the field it is about where there is one."""

from uuid import UUID


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


class Stale(Refused):
    """The record changed since the caller read it."""

    code = "STALE_VERSION"
