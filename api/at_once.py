"""The short way of what is asked most often: one statement does the request, or the ordinary way does.

A request to an endpoint that has a short way tries it first, before any route is looked for. It does all of the
request or nothing of it, and then the ordinary way is gone as if there were no other: with its authentication, its
validation and its refusals, of which the short one knows none. So nothing here decides who may: a caller who came
before is presumed to be who they were, and the statement looks again.
"""

import re
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple, TypeVar
from uuid import UUID

import structlog
from fastapi import APIRouter, Request, Response
from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError
from pydantic_core import from_json
from starlette.routing import compile_path
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.auth import PERMISSIONS
from store.identity import Caller

Short = Callable[[Request], Awaitable[Response | None]]
OfCaller = Callable[[Request, Caller, str], Awaitable[Response | None]]
Endpoint = TypeVar("Endpoint", bound=Callable[..., object])
Model = TypeVar("Model", bound=BaseModel)

_ATTRIBUTE = "short_way"
_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class Way(NamedTuple):
    """The requests to an endpoint that has a short way."""

    method: str
    path: re.Pattern[str]
    short: Short


def ways(router: APIRouter, prefix: str = "") -> list[Way]:
    """Those of a router that is included under a prefix."""
    return [
        Way(method, compile_path(prefix + route.path)[0], short)
        for route in router.routes
        if isinstance(route, APIRoute) and (short := getattr(route.endpoint, _ATTRIBUTE, None))
        for method in sorted(route.methods or ())
    ]


class ShortWays:
    """The layer around the routes that goes the short ways of their endpoints."""

    def __init__(self, app: ASGIApp, ways: Sequence[Way]) -> None:
        self._app = app
        self._ways = ways

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """What a short way has read of a request, the ordinary way reads again."""
        for way in self._ways if scope["type"] == "http" else ():
            if scope["method"] == way.method and (found := way.path.match(scope["path"])):
                heard = _Heard(receive)
                answer = await way.short(Request({**scope, "path_params": found.groupdict()}, heard.first))
                await (answer(scope, receive, send) if answer else self._app(scope, heard.again, send))
                return
        await self._app(scope, receive, send)


class _Heard:
    """The messages of a request, for one who listens first and one who listens again."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._messages: list[Message] = []

    async def first(self) -> Message:
        message = await self._receive()
        self._messages.append(message)
        return message

    async def again(self) -> Message:
        return self._messages.pop(0) if self._messages else await self._receive()


def shortly(short: Short) -> Callable[[Endpoint], Endpoint]:
    """Marks an endpoint: `short` answers, or has done nothing and answers None."""

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
        return model.model_validate(from_json(await request.body()))
    except (ValidationError, ValueError, RecursionError):
        return None


def id_of(request: Request) -> UUID | None:
    """The id in the path, if it is spelled as we spell ids."""
    text = str(request.path_params["id"])
    return UUID(text) if _ID.fullmatch(text) else None
