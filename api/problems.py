"""Problems: every error is RFC 9457 problem+json from this one renderer, with a stable code.

No text of the database, of a library or of a record gets into one.
"""

import re
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Annotated, Any, Self

from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from store.errors import (
    Duplicate,
    IllegalTransition,
    Invalid,
    NotFound,
    Refused,
    SequenceNotReady,
    Stale,
    UnknownReference,
    UnknownStage,
    is_bad_value,
    is_transient,
)
from store.idempotency import KeyInUse, KeyReused

MEDIA_TYPE = "application/problem+json"
BUSY_SECONDS = 1
"""How long a client is asked to wait when the database was away or busy."""

STATUSES: Mapping[type[Refused], HTTPStatus] = {
    NotFound: HTTPStatus.NOT_FOUND,
    Invalid: HTTPStatus.UNPROCESSABLE_ENTITY,
    Duplicate: HTTPStatus.CONFLICT,
    UnknownReference: HTTPStatus.UNPROCESSABLE_ENTITY,
    UnknownStage: HTTPStatus.UNPROCESSABLE_ENTITY,
    IllegalTransition: HTTPStatus.CONFLICT,
    SequenceNotReady: HTTPStatus.CONFLICT,
    Stale: HTTPStatus.PRECONDITION_FAILED,
    KeyReused: HTTPStatus.UNPROCESSABLE_ENTITY,
    KeyInUse: HTTPStatus.CONFLICT,
}
"""What a refusal of the store is in HTTP; a class not listed is its base's."""

_FIELD_CODES = {
    "extra_forbidden": "unknown_field",
    "json_invalid": "malformed_json",
    "union_tag_invalid": "unknown_kind",
    "union_tag_not_found": "missing",
}
_OBJECT, _ID = "Input should be an object", "Input should be a valid UUID"
_PLAINLY = {
    "model_type": _OBJECT,
    "model_attributes_type": _OBJECT,
    "dict_type": _OBJECT,
    "uuid_parsing": _ID,
    "uuid_type": _ID,
    "union_tag_not_found": "Field required",
    "recursion_depth_exceeded": "Input is nested too deep",
}
"""What is said where the library would speak of Python."""
_KINDS = ("kind", "type", "on")
"""The fields that say which of several alternatives an object is."""
_HEADERS = ("Idempotency-Key", "If-Match")


class Fault(BaseModel):
    """One thing that is wrong with one part of a request."""

    in_: Annotated[str, Field(alias="in", description="body, query, path or header")]
    pointer: Annotated[str, Field(description="JSON Pointer to the part.")]
    code: str
    message: str


class ProblemBody(BaseModel):
    """RFC 9457, with our stable `code`. A duplicate also names what `existing` record is in the way."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    request_id: Annotated[str, Field(alias="requestId")]
    errors: list[Fault] = []
    existing: str | None = None


class Problem(HTTPException):
    """An answer that is not the one hoped for.

    It derives from the framework's own class, whose kind is let through wherever it is raised,
    even while a body is read.
    """

    def __init__(
        self,
        status: HTTPStatus,
        code: str,
        detail: str,
        *,
        errors: Sequence[Mapping[str, str]] = (),
        existing: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(status, detail, headers)
        self.status = status
        self.code = code
        self.errors = errors
        self.existing = existing

    @classmethod
    def of_refusal(cls, refused: Refused, *, within: Sequence[str] = ()) -> Self:
        """`within` is where in the body the refused values stood."""
        status = next(STATUSES[kind] for kind in type(refused).__mro__ if kind in STATUSES)
        faults = []
        if refused.field is not None:
            where, path = ("header", []) if refused.field in _HEADERS else ("body", within)
            faults = [fault(where, [*path, refused.field], refused.code.lower(), refused.message)]
        existing = refused.existing if isinstance(refused, Duplicate) else None
        headers = {"Retry-After": str(BUSY_SECONDS)} if isinstance(refused, KeyInUse) else None
        return cls(
            status,
            refused.code,
            refused.message,
            errors=faults,
            existing=str(existing) if existing else None,
            headers=headers,
        )

    @classmethod
    def of_validation(cls, error: RequestValidationError) -> Self:
        return cls.of_body(error.errors(), error.body)

    @classmethod
    def of_body(cls, errors: Sequence[Any], body: object) -> Self:
        """What pydantic found; locations begin with where they are, as FastAPI writes them."""
        return cls._invalid([_found(error, body) for error in errors])

    @classmethod
    def of_database(cls, error: BaseException) -> Self | None:
        """None for an error that is a mistake of ours."""
        if is_transient(error):
            return cls(
                HTTPStatus.SERVICE_UNAVAILABLE,
                "DB_ERROR",
                "The database did not answer in time. Try again, with an Idempotency-Key so that it counts once.",
                headers={"Retry-After": str(BUSY_SECONDS)},
            )
        if is_bad_value(error):
            return cls._invalid([], "A value cannot be kept, such as a text with a NUL character.")
        return None

    @classmethod
    def _invalid(cls, faults: Sequence[Mapping[str, str]], detail: str | None = None) -> Self:
        named = ", ".join(dict.fromkeys(fault["pointer"].lstrip("/") or fault["in"] for fault in faults))
        text = detail or f"Not understood: {named}."
        return cls(HTTPStatus.UNPROCESSABLE_ENTITY, "VALIDATION_ERROR", text, errors=faults)


def body_of(problem: Problem, request_id: str) -> dict[str, Any]:
    body: dict[str, Any] = {
        "type": f"urn:drumbeat:problem:{problem.code.lower().replace('_', '-')}",
        "title": problem.status.phrase,
        "status": problem.status.value,
        "detail": problem.detail,
        "code": problem.code,
        "requestId": request_id,
        "errors": list(problem.errors),
    }
    if problem.existing is not None:
        body["existing"] = problem.existing
    return body


def render(problem: Problem, request_id: str) -> JSONResponse:
    return JSONResponse(body_of(problem, request_id), problem.status, headers=problem.headers, media_type=MEDIA_TYPE)


def responses(*statuses: HTTPStatus) -> dict[int | str, dict[str, Any]]:
    """For the API description: these answers are problems."""
    reference = {"schema": {"$ref": "#/components/schemas/Problem"}}
    return {status.value: {"description": status.phrase, "content": {MEDIA_TYPE: reference}} for status in statuses}


def of(error: Exception) -> Problem:
    """What a client is told of anything that was raised; of our own mistakes, nothing but where to ask."""
    match error:
        case Problem():
            return error
        case Refused():
            return Problem.of_refusal(error)
        case RequestValidationError():
            return Problem.of_validation(error)
        case HTTPException():
            status = HTTPStatus(error.status_code)
            return Problem(status, status.name, str(error.detail), headers=dict(error.headers or {}))
        case _:
            return Problem.of_database(error) or Problem(
                HTTPStatus.INTERNAL_SERVER_ERROR,
                "INTERNAL_ERROR",
                "Something went wrong here. Ask the operator about this requestId.",
            )


def _found(error: Mapping[str, Any], body: object) -> dict[str, str]:
    where, *location = error["loc"]
    path = (
        _path(location, body, of_a_field=error["type"] == "extra_forbidden") if where == "body" else [str(location[-1])]
    )
    tag = str(error.get("ctx", {}).get("discriminator", "")).strip("'")
    if tag.isalpha():  # the kind of thing is what is wrong, so the field that tells it is named
        path.append(tag)
    code = _FIELD_CODES.get(error["type"], error["type"])
    return fault(where, path, code, _sentence(error))


def _sentence(error: Mapping[str, Any]) -> str:
    """What is wrong, in words of the API: no name of a class, no alternative that was not meant."""
    ctx = error.get("ctx", {})
    match error["type"]:
        case "union_tag_invalid":
            return f"Input should be {_either(ctx['expected_tags'])}"
        case "literal_error" | "enum":
            return f"Input should be {_either(ctx['expected'])}"
        case known:
            return _PLAINLY.get(known, str(error["msg"]).removeprefix("Value error, "))


def _either(expected: str) -> str:
    """The quoted values, whichever way the library lists them."""
    *others, last = re.findall(r"'[^']*'", expected) or [expected]
    return f"{', '.join(others)} or {last}" if others else last


def fault(where: str, path: Sequence[str], code: str, message: str) -> dict[str, str]:
    """One entry of `errors`. Some are kept as JSON in PostgreSQL, so a name a client made up loses its NULs."""
    plain = (part.replace("\0", "?") for part in path)
    pointer = "".join(f"/{part.replace('~', '~0').replace('/', '~1')}" for part in plain)
    return {"in": where, "pointer": pointer, "code": code, "message": message}


def _path(location: Sequence[str | int], body: object, *, of_a_field: bool = False) -> list[str]:
    """A location as a path into what was sent: without the names of alternatives that pydantic puts between.

    One `of_a_field` ends with the field's name, whatever the alternatives are called.
    """
    path: list[str] = []
    value, named = body, False
    for position, part in enumerate(location):
        is_field = of_a_field and position == len(location) - 1
        if isinstance(value, Mapping) and not named and not is_field and part in [value.get(kind) for kind in _KINDS]:
            named = True
            continue
        inside = isinstance(value, Mapping) and part in value
        inside = inside or (isinstance(value, list) and isinstance(part, int) and part < len(value))
        if inside:
            value, named = value[part], False  # type: ignore[index]  # one of the two holds it
        elif position < len(location) - 1 or not isinstance(value, Mapping):
            continue
        path.append(str(part))
    return path
