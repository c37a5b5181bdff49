"""The application: every route, its description, and the two questions of a supervisor."""

from http import HTTPStatus
from itertools import chain
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from api import (
    activities,
    addresses,
    at_once,
    companies,
    contacts,
    deals,
    enrollments,
    events,
    imports,
    inbound_mail,
    keys,
    letters,
    mailboxes,
    me,
    messages,
    notifications,
    problems,
    refusals,
    reminders,
    rules,
    runs,
    sending,
    sequences,
    sources,
    stages,
    templates,
    unsubscribe,
    users,
    webhooks,
)
from api.problems import Problem, ProblemBody
from api.recent import Recent
from api.requests import Requests
from store import health
from store.at_once import AtOnce
from store.identity import Caller, Source
from store.transaction import Database

_NOUNS = (
    deals, contacts, companies, stages, activities, sequences, enrollments, templates, mailboxes, messages, letters,
    addresses, sending, rules, runs, refusals, reminders, notifications, users, keys, sources, events, imports, me,
)  # fmt: skip
_ALWAYS = problems.responses(
    HTTPStatus.UNAUTHORIZED,
    HTTPStatus.FORBIDDEN,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    HTTPStatus.UNPROCESSABLE_ENTITY,
    HTTPStatus.SERVICE_UNAVAILABLE,
)


def create_app(database: Database, master_key: bytes, *, revision: str | None = None) -> FastAPI:
    """`revision` is the migration this code was written for; without it any schema is ready."""
    app = _Drumbeat(
        title="Drumbeat",
        version="1",
        summary="Sales automation that never drops a follow-up.",
        redirect_slashes=False,
        # The pages that would show the description load their code from elsewhere, into this origin.
        docs_url=None,
        redoc_url=None,
        generate_unique_id_function=_operation,
    )
    app.state.database = database
    app.state.at_once = AtOnce(database)
    app.state.master_key = master_key
    app.state.revision = revision
    app.state.callers = Recent[str, Caller]()
    app.state.sources = Recent[str, Source]()
    for kind in (HTTPException, RequestValidationError):
        app.add_exception_handler(kind, _problem)
    app.include_router(inbound_mail.router)  # before the webhooks, whose sources have any name
    app.include_router(webhooks.router)
    for noun in _NOUNS:
        app.include_router(noun.router, prefix="/api/v1", responses=_ALWAYS)
    app.include_router(unsubscribe.router)
    app.include_router(_health)
    short = [at_once.ways(noun.router, "/api/v1") for noun in _NOUNS]
    app.add_middleware(at_once.ShortWays, ways=list(chain(at_once.ways(webhooks.router), *short)))
    app.add_middleware(Requests)
    return app


class _Drumbeat(FastAPI):
    """FastAPI, with our problems in its description."""

    def openapi(self) -> dict[str, Any]:
        if self.openapi_schema is None:
            described = get_openapi(
                title=self.title,
                version=self.version,
                summary=self.summary,
                openapi_version=self.openapi_version,
                routes=self.routes,
            )
            problem = ProblemBody.model_json_schema(ref_template="#/components/schemas/{model}")
            described["components"]["schemas"] |= {**problem.pop("$defs"), "Problem": problem}
            self.openapi_schema = described
        return self.openapi_schema


async def _problem(request: Request, error: Exception) -> JSONResponse:
    return problems.render(problems.of(error), request.state.request_id)


def _operation(route: APIRoute) -> str:
    """Every function of a route is a verb and a noun, which is its operationId."""
    return route.name


_health = APIRouter(tags=["health"])


@_health.get("/livez")
async def check_liveness() -> dict[str, bool]:
    """The process answers; nothing else is looked at."""
    return {"live": True}


@_health.get("/readyz", responses=problems.responses(HTTPStatus.SERVICE_UNAVAILABLE))
async def check_readiness(request: Request) -> dict[str, bool]:
    """The database answers and has the schema this code needs."""
    needed = request.app.state.revision
    async with request.app.state.database.crossing() as connection:
        found = await health.schema_revision(connection)
    if needed not in (None, found):
        raise Problem(
            HTTPStatus.SERVICE_UNAVAILABLE,
            "SCHEMA_MISMATCH",
            f"The database is at revision {found}, this code needs {needed}. Run the migrations.",
        )
    return {"ready": True}
