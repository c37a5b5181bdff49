"""Idempotency-Key: a POST that is sent again has the effect and the answer it had the first time."""

import hashlib
import json
from base64 import b64decode, b64encode
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Annotated, Any, Self

from fastapi import Header, Response, params
from fastapi.responses import JSONResponse

from api.auth import Call, may
from api.shapes import Shown, shown
from store import idempotency
from store.idempotency import Key
from store.sealing import seal, unseal
from store.transaction import Transaction


@dataclass(frozen=True)
class Answer:
    """What a POST is answered; one with a `secret` in it is kept sealed for its repetition."""

    body: Shown
    status: HTTPStatus = HTTPStatus.OK
    headers: Mapping[str, str] = field(default_factory=dict)
    secret: bool = False

    @classmethod
    def created(cls, body: Shown, location: str, headers: Mapping[str, str] | None = None) -> Self:
        return cls(body, HTTPStatus.CREATED, {"Location": location, **(headers or {})})

    def response(self) -> Response:
        return shown(self.body, self.status, self.headers)


Effect = Callable[[Transaction], Awaitable[Answer]]


@dataclass(frozen=True)
class Once:
    """Carries out a POST in one transaction; with a key of the client's, at most once."""

    call: Call
    key: str | None

    async def __call__(self, effect: Effect, *, lock_seconds: float = 5) -> Response:
        """A refusal writes nothing, the key included: what is sent again after one is tried again."""
        async with self.call.transaction(lock_seconds=lock_seconds) as tx:
            if self.key is None:
                return (await effect(tx)).response()
            key = await self._name(self.key)
            known = await idempotency.claim(tx, key)
            if known is not None:
                return self._replayed(key, *known)
            answer = await effect(tx)
            await idempotency.keep(tx, key, answer.status, self._kept(key, answer))
            return answer.response()

    async def _name(self, key: str) -> Key:
        request = self.call.request
        whole = hashlib.sha256(request.url.query.encode() + b"\n" + await request.body())
        return Key(self.call.caller.key, request.url.path, key, whole.digest())

    def _kept(self, key: Key, answer: Answer) -> dict[str, Any]:
        kept = {"body": _json(answer), "headers": dict(answer.headers)}
        if not answer.secret:
            return kept
        return {"sealed": b64encode(seal(self.call.master_key, json.dumps(kept).encode(), _place(key))).decode()}

    def _replayed(self, key: Key, status: int, kept: dict[str, Any]) -> JSONResponse:
        if "sealed" in kept:
            kept = json.loads(unseal(self.call.master_key, b64decode(kept["sealed"]), _place(key)))
        return JSONResponse(kept["body"], status, {**kept["headers"], "Idempotent-Replay": "true"})


def may_once(permission: str) -> params.Depends:
    """The dependency of every POST: as `api.auth.may`, with the client's Idempotency-Key."""

    async def prepared(
        call: Annotated[Call, may(permission)],
        key: Annotated[
            str | None,
            Header(
                alias="Idempotency-Key",
                min_length=1,
                max_length=255,
                description="Sent again with the same key, the request has its first effect and answer.",
            ),
        ] = None,
    ) -> Once:
        # The draft standard quotes the key, most clients do not.
        return Once(call, key and (key.strip('"') or key))

    return params.Depends(prepared)


def _json(answer: Answer) -> dict[str, Any]:
    return answer.body.model_dump(mode="json", by_alias=True)


def _place(key: Key) -> bytes:
    return b"idempotency_keys.answer/" + key.caller.bytes + f"{key.route}/{key.key}".encode()
