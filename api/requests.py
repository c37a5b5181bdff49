"""Every request: its id, its line in the log, and how large its body may be."""

import time
from http import HTTPStatus

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uuid_utils.compat import uuid7

from api import problems
from api.problems import Problem

MOST_BYTES = 1 << 20
MOST_BYTES_AT = {"/webhooks/mail": 30 << 20}
MOST_BYTES_UNDER = {"/webhooks/": 256 << 10, "/api/v1/imports/": 20 << 20}
"""How large a body may be, where it is not `MOST_BYTES`: at one path, and under others."""

_SECRET_PATHS = ("/u/",)
"""What follows is a secret that whoever carries it may use, and stays out of the log."""

log = structlog.get_logger()


class Requests:
    """The outermost layer: whatever comes out of the application, the client is answered by it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Other than HTTP goes through untouched."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope = {**scope, "path": _canonical(scope["path"])}
        id_ = str(uuid7())
        scope["state"] = {**scope.get("state", {}), "request_id": id_}
        with structlog.contextvars.bound_contextvars(request_id=id_):
            await _Exchange(scope, receive, send, id_).run(self._app)
            # Bound by whoever found out who calls.
            structlog.contextvars.unbind_contextvars("org", "caller")


class _Exchange:
    """One request and its answer."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, id_: str) -> None:
        self._scope = scope
        self._receive = receive
        self._send = send
        self._id = id_
        self._status: int | None = None
        self._received = 0
        self._most = _most_bytes(scope["path"])

    async def run(self, app: ASGIApp) -> None:
        started = time.perf_counter()
        try:
            self._weigh(self._announced())
            await app(self._scope, self.receive, self.send)
        except ClientDisconnect:
            log.info("client_left")
        except Exception as error:
            problem = problems.of(error)
            if problem.status == HTTPStatus.INTERNAL_SERVER_ERROR:
                log.exception("request_failed")
            elif problem.status == HTTPStatus.SERVICE_UNAVAILABLE:
                log.warning("database_unavailable", error=type(error).__name__)
            if self._status is not None:
                raise  # too late to say so; the server breaks the connection off
            await problems.render(problem, self._id)(self._scope, self.receive, self.send)
        finally:
            # The path names records by id only; a query may hold what people searched for.
            log.info(
                "request",
                method=self._scope["method"],
                path=_loggable(self._scope["path"]),
                status=self._status,
                milliseconds=round((time.perf_counter() - started) * 1000, 1),
            )

    async def receive(self) -> Message:
        message = await self._receive()
        self._received += len(message.get("body", b""))
        self._weigh(self._received)
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._status = int(message["status"])
            MutableHeaders(scope=message)["X-Request-Id"] = self._id
        await self._send(message)

    def _announced(self) -> int:
        length = Headers(scope=self._scope).get("content-length", "")
        return int(length) if length.isdecimal() else 0

    def _weigh(self, size: int) -> None:
        if size > self._most:
            raise Problem(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "BODY_TOO_LARGE", f"The body has more than {self._most} bytes."
            )


def _most_bytes(path: str) -> int:
    under = (most for start, most in MOST_BYTES_UNDER.items() if path.startswith(start))
    return MOST_BYTES_AT.get(path) or next(under, MOST_BYTES)


def _loggable(path: str) -> str:
    return next((f"{start}…" for start in _SECRET_PATHS if path.startswith(start)), path)


def _canonical(path: str) -> str:
    """Every path of the API answers without the version, too."""
    if path.startswith("/api/") and not path.startswith("/api/v1/"):
        return "/api/v1/" + path.removeprefix("/api/")
    return path
