"""Who calls and what they may: API keys as bearer tokens, and one matrix of roles."""

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated

import structlog
from fastapi import Depends, Request, params
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from api.problems import Problem
from domain.words import Role
from store import identity
from store.identity import Caller
from store.transaction import Database, Origin, Transaction

_SEE = frozenset(
    f"{noun}:read"
    for noun in (
        "contact", "company", "deal", "activity", "reminder", "notification", "rule", "run", "event", "user", "key",
        "source", "sequence", "enrollment", "template", "mailbox", "message", "letter", "address", "sending",
    )
)  # fmt: skip
_SELL = frozenset(
    f"{noun}:write"
    for noun in (
        "contact", "company", "deal", "activity", "reminder", "notification", "enrollment", "message", "letter",
    )
) | {"address:suppress"}  # fmt: skip
_OPERATE = frozenset({
    "run:operate", "import:write", "sequence:write", "template:write", "address:release", "sending:stop",
})  # fmt: skip
_ADMINISTER = frozenset(f"{noun}:write" for noun in ("rule", "user", "key", "source", "mailbox", "sending"))

PERMISSIONS: Mapping[Role, frozenset[str]] = {
    Role.READONLY: _SEE,
    Role.REP: _SEE | _SELL,
    Role.MANAGER: _SEE | _SELL | _OPERATE,
    Role.ADMIN: _SEE | _SELL | _OPERATE | _ADMINISTER,
}
"""What each role may do; every route names the one permission it needs."""

_bearer = HTTPBearer(auto_error=False, scheme_name="apiKey", description="An API key, `drb_…`.")


@dataclass(frozen=True)
class Call:
    """One authenticated request."""

    request: Request
    database: Database
    master_key: bytes
    caller: Caller

    def transaction(self, *, lock_seconds: float = 5) -> AbstractAsyncContextManager[Transaction]:
        """What is written in it is the work of the caller's user."""
        origin = Origin("user", self.caller.user)
        return self.database.transaction(self.caller.org, origin, lock_seconds=lock_seconds)


def may(permission: str) -> params.Depends:
    """The dependency of a route: its `Call`, refused unless the key's role has the permission."""
    if permission not in PERMISSIONS[Role.ADMIN]:
        raise ValueError(permission)

    async def allowed(
        request: Request, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]
    ) -> Call:
        database: Database = request.app.state.database
        caller = await identity.authenticate(database, credentials.credentials) if credentials else None
        if credentials is None or caller is None:
            raise Problem(
                HTTPStatus.UNAUTHORIZED,
                "UNAUTHORIZED",
                "This needs an API key in use: Authorization: Bearer drb_…",
                headers={"WWW-Authenticate": 'Bearer realm="drumbeat"'},
            )
        request.app.state.callers.remember(credentials.credentials, caller)
        structlog.contextvars.bind_contextvars(org=str(caller.org), caller=str(caller.key))
        if permission not in PERMISSIONS[caller.role]:
            raise Problem(
                HTTPStatus.FORBIDDEN, "FORBIDDEN", f"This needs {permission}, which the role {caller.role} has not."
            )
        return Call(request, database, request.app.state.master_key, caller)

    return params.Depends(allowed)
