"""The short way of what is asked most often: one statement does the request, or the ordinary way does.

A route of this class tries its short way first. It does all of the request or nothing of it, and then the ordinary
way is gone as if there were no other: with its authentication, its validation and its refusals, of which the short
one knows none. So nothing here decides who may: a caller who came before is presumed to be who they were, and the
statement looks again.
"""

import json
import re
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar
from uuid import UUID

import structlog
from fastapi import Request, Response
from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError

from api.auth import PERMISSIONS
from store.identity import Caller

Short = Callable[[Request], Awaitable[Response | None]]
OfCaller = Callable[[Request, Caller, str], Awaitable[Response | None]]
Endpoint = TypeVar("Endpoint", bound=Callable[..., object])
Model = TypeVar("Model", bound=BaseModel)

_ATTRIBUTE = "short_way"
_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class Route(APIRoute):
    """One whose endpoint may have a short way."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        ordinary = super().get_route_handler()
        short: Short | None = getattr(self.endpoint, _ATTRIBUTE, None)
        if short is None:
            return ordinary

        async def handle(request: Request) -> Response:
            return await short(request) or await ordinary(request)

        return handle


def shortly(short: Short) -> Callable[[Endpoint], Endpoint]:
    """Marks an endpoint of a `Route`: `short` answers, or has done nothing and answers None."""

    def mark(endpoint: Endpoint) -> Endpoint:
        setattr(endpoint, _ATTRIBUTE, short)
        return endpoint

    return mark


def of_caller(permission: str, short: OfCaller) -> Short:
    """A short way for callers who came before with a permission, and without an Idempotency-Key.

    `short` is given the caller as last seen and the token, which make the warrant of its statement.
    """

    async def presume(request: Request) -> Response | None:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        caller = request.app.state.callers.get(token)
        if scheme != "Bearer" or caller is None or permission not in PERMISSIONS[caller.role]:
            return None
        if "idempotency-key" in request.headers:
            return None
        structlog.contextvars.bind_contextvars(org=str(caller.org), caller=str(caller.key))
        return await short(request, caller, token)

    return presume


async def body_of(request: Request, model: type[Model]) -> Model | None:
    """A body that is as it should be; what is wrong with another one the ordinary way tells."""
    if request.headers.get("content-type") != "application/json":
        return None
    try:
        return model.model_validate(json.loads(await request.body()))
    except (ValidationError, ValueError, RecursionError):
        return None


def id_of(request: Request) -> UUID | None:
    """The id in the path, if it is spelled as we spell ids."""
    text = str(request.path_params["id"])
    return UUID(text) if _ID.fullmatch(text) else None
