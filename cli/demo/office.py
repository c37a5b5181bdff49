"""The demo's people and systems: they speak HTTP only, and say it again when nobody answered."""

import asyncio
import json
import time
from base64 import b64decode, b64encode
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import httpx2
from standardwebhooks import Webhook

PATIENCE = 60.0
"""Real seconds a client goes on trying; longer than any outage of the demo."""
_PAUSES = (0.1, 1.0)
"""Real seconds between two tries, at first and at the most."""
_AT_ONCE = 8
"""Requests of one caller under way: a server that is slow is not buried under what is asked again."""


class GaveUp(Exception):  # noqa: N818  (the demo fails with its words)
    """A request got no final answer in time, or a refusal nobody expected."""


class _Caller:
    """A request that met no server, or a 5xx, is repeated as it was; `repeats` counts those, by path."""

    def __init__(self, url: str, headers: dict[str, str], patience: float) -> None:
        self._gate = asyncio.Semaphore(_AT_ONCE)
        self._client = httpx2.AsyncClient(base_url=url, timeout=10, trust_env=False)
        self._headers = headers
        self._patience = patience
        self.repeats = Counter[str]()

    @property
    def repeated(self) -> int:
        return self.repeats.total()

    async def close(self) -> None:
        await self._client.aclose()

    async def _send(
        self,
        method: str,
        path: str,
        *,
        headers: dict[str, str] | None = None,
        accept: tuple[int, ...] = (),
        **rest: Any,  # noqa: ANN401  (the library's own options)
    ) -> httpx2.Response:
        deadline = time.monotonic() + self._patience
        pause, longest = _PAUSES
        while True:
            trouble = ""
            try:
                async with self._gate:
                    answer = await self._client.request(
                        method, path, headers={**self._headers, **(headers or {})}, **rest
                    )
            except httpx2.TransportError as error:
                trouble = type(error).__name__
            else:
                if answer.is_success or (answer.status_code in accept and not _under_way(answer)):
                    return answer
                if answer.status_code < httpx2.codes.INTERNAL_SERVER_ERROR and not _under_way(answer):
                    raise GaveUp(f"{method} {path}: {answer.status_code} {answer.text[:500]}")
                trouble = str(answer.status_code)
            if time.monotonic() > deadline:
                raise GaveUp(f"{method} {path}: no answer in {self._patience:.0f} s ({trouble})")
            self.repeats[path] += 1
            await asyncio.sleep(pause)
            pause = min(pause * 2, longest)


class Office(_Caller):
    """One API key's view of Drumbeat. What is repeated has the same Idempotency-Key, as of a careful integration."""

    def __init__(self, url: str, token: str, *, patience: float = PATIENCE) -> None:
        super().__init__(url, {"Authorization": f"Bearer {token}"}, patience)

    async def get(self, path: str, **query: object) -> Any:  # noqa: ANN401  (JSON)
        return (await self._send("GET", f"/api/v1{path}", params=query)).json()

    async def all(self, noun: str, **query: object) -> AsyncIterator[dict[str, Any]]:
        """Every page of a list, whose path and key are `noun`."""
        cursor = None
        while True:
            page = await self.get(f"/{noun}", limit=100, **query, **({"cursor": cursor} if cursor else {}))
            for record in page[noun]:
                yield record
            cursor = page["cursor"]
            if cursor is None:
                return

    async def post(self, path: str, body: object = None) -> Any:  # noqa: ANN401  (JSON)
        return (await self._send("POST", f"/api/v1{path}", json=body, headers=_once())).json()

    async def attempt(self, path: str, body: object = None) -> bool:
        """As `post`; False where it is in conflict with what has become true meanwhile."""
        conflict = (httpx2.codes.CONFLICT,)
        return (await self._send("POST", f"/api/v1{path}", json=body, headers=_once(), accept=conflict)).is_success

    async def ask(self, method: str, path: str, body: object = None, *, revision: int | None = None) -> httpx2.Response:
        """Whatever it is answered, a conflict or a stale revision included."""
        headers = {**(_once() if method == "POST" else {}), **({"If-Match": f'"{revision}"'} if revision else {})}
        accept = (httpx2.codes.CONFLICT, httpx2.codes.PRECONDITION_FAILED)
        return await self._send(method, f"/api/v1{path}", json=body, headers=headers, accept=accept)

    async def put(self, path: str, body: object) -> Any:  # noqa: ANN401  (JSON)
        return (await self._send("PUT", f"/api/v1{path}", json=body)).json()

    async def patch(self, path: str, revision: int, body: object) -> None:
        """What was done before its answer was lost has another revision by then: that is well, too."""
        headers = {"If-Match": f'"{revision}"'}
        accept = (httpx2.codes.PRECONDITION_FAILED,)
        await self._send("PATCH", f"/api/v1{path}", json=body, headers=headers, accept=accept)

    async def command(self, path: str, revision: int, body: object = None) -> Any:  # noqa: ANN401  (JSON)
        headers = {**_once(), "If-Match": f'"{revision}"'}
        return (await self._send("POST", f"/api/v1{path}", json=body, headers=headers)).json()

    async def upload(self, path: str, csv: bytes) -> Any:  # noqa: ANN401  (JSON)
        headers = {**_once(), "Content-Type": "text/csv"}
        return (await self._send("POST", f"/api/v1{path}", content=csv, headers=headers)).json()


class Outside(_Caller):
    """Who has no API key: systems that post webhooks, servers that bring mail, people with a link."""

    def __init__(self, url: str, *, patience: float = PATIENCE) -> None:
        super().__init__(url, {}, patience)

    async def webhook(self, path: str, secret: str, message: str, body: object) -> int:
        """Posts a signed webhook; the status it was answered with."""
        text = json.dumps(body)
        now = datetime.now(UTC)
        signature = Webhook(secret).sign(message, now, text)
        headers = {
            "webhook-id": message,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": signature,
            "Content-Type": "application/json",
        }
        sent = await self._send("POST", path, content=text.encode(), headers=headers, accept=(401, 422))
        return sent.status_code

    async def letter(self, source: str, secret: str, raw: bytes, recipient: str) -> str | None:
        """Brings a mail; the id it is kept under, None where the secret is refused."""
        password = b64encode(f"{source}:{secret}".encode()).decode()
        headers = {"Authorization": f"Basic {password}", "Content-Type": "message/rfc822"}
        brought = await self._send(
            "POST", "/webhooks/mail", params={"recipient": recipient}, content=raw, headers=headers, accept=(401,)
        )
        return str(brought.json()["letterId"]) if brought.is_success else None

    async def one_click(self, url: str) -> None:
        """What a mail program does with List-Unsubscribe-Post (RFC 8058)."""
        await self._send("POST", urlsplit(url).path, content=b"List-Unsubscribe=One-Click", headers=_FORM)

    async def unsubscribe(self, url: str) -> None:
        """What a person does: opens the page, and presses its button."""
        path = urlsplit(url).path
        await self._send("GET", path)
        await self._send("POST", path, content=b"List-Unsubscribe=One-Click", headers=_FORM)


_FORM = {"Content-Type": "application/x-www-form-urlencoded"}


def forged(secret: str) -> str:
    """A secret of the right form that is not the source's."""
    wrong = bytes(byte ^ 1 for byte in b64decode(secret.removeprefix("whsec_")))
    return f"whsec_{b64encode(wrong).decode()}"


def _under_way(answer: httpx2.Response) -> bool:
    """The same request, sent before, is still at it: its answer is to be asked for again."""
    return answer.status_code == httpx2.codes.CONFLICT and "IDEMPOTENCY_KEY_IN_USE" in answer.text


def _once() -> dict[str, str]:
    return {"Idempotency-Key": uuid4().hex}
