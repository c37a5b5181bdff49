"""A client that keeps some connections busy, in a process of its own, and cheaper than any server it asks.

Reads one JSON document a line on standard input, a round, and answers each with one on standard output.
"""

import asyncio
import hashlib
import hmac
import json
import sys
import time
from base64 import b64encode
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import count, cycle
from typing import Any

Requests = Iterator[bytes]


class _Client(asyncio.Protocol):
    """One connection: the next request goes out when the last one's answer is there."""

    def __init__(self, requests: Requests, ends: float) -> None:
        self._requests, self._ends = requests, ends
        self._rest = b""
        self._sent = 0.0
        self.times: list[float] = []
        self.odd: list[str] = []
        self.done = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101  (it is TCP)
        self._transport = transport
        self._next()

    def data_received(self, data: bytes) -> None:
        self._rest += data
        head, found, body = self._rest.partition(b"\r\n\r\n")
        if not found or len(body) < _length(head):
            return
        self.times.append(time.perf_counter() - self._sent)
        if not head.startswith(b"HTTP/1.1 20"):
            self.odd.append((head[:40] + b" " + body[:300]).decode())
        self._rest = b""
        if time.perf_counter() < self._ends:
            self._next()
        else:
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is not None or self._rest:
            self.odd.append(f"connection lost: {exc}")
        self.done.set_result(None)

    def _next(self) -> None:
        request = next(self._requests)
        self._sent = time.perf_counter()
        self._transport.write(request)


def _length(head: bytes) -> int:
    """Every answer of both servers tells its length."""
    lower = head.lower()
    start = lower.index(b"content-length:") + 15
    end = lower.find(b"\r\n", start)
    return int(lower[start:] if end < 0 else lower[start:end])


def _request(method: str, path: str, headers: str, body: bytes) -> bytes:
    head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n{headers}"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def _contacts(job: dict[str, Any], mine: int) -> Requests:
    for number in count():
        body = {
            "email": f"{job['round']}-{mine}-{number}@example.com", "firstName": "Ada", "lastName": "Lovelace",
            "tags": ["vip"],
        }  # fmt: skip
        yield _request("POST", job["path"], job["headers"], json.dumps(body).encode())


_MOVES: Counter[str] = Counter()
"""How often each deal was moved, in all rounds: a move to where it stands would be none."""


def _moves(job: dict[str, Any], mine: int) -> Requests:
    """Each connection has deals of its own, so that none waits for another's lock."""
    for deal in cycle(job["deals"][mine :: job["connections"]]):
        _MOVES[deal] += 1
        stage = b"proposal" if _MOVES[deal] % 2 else b"negotiation"
        yield _request("PUT", job["path"].format(deal), job["headers"], b'{"stage": "%s"}' % stage)


def _webhooks(job: dict[str, Any], mine: int) -> Requests:
    secret = bytes.fromhex(job["secret"])
    for number in count():
        data = {"email": f"w{job['round']}-{mine}-{number}@example.com", "firstName": "Ada", "leadSource": "partner"}
        body = json.dumps({"type": "contact.upsert", "timestamp": "2026-01-01T00:00:00Z", "data": data}).encode()
        id_, at = f"msg_{job['round']}_{mine}_{number}", int(time.time())
        signature = b64encode(hmac.digest(secret, b"%s.%d.%s" % (id_.encode(), at, body), hashlib.sha256)).decode()
        headers = f"webhook-id: {id_}\r\nwebhook-timestamp: {at}\r\nwebhook-signature: v1,{signature}\r\n"
        yield _request("POST", job["path"], headers, body)


KINDS: dict[str, Callable[[dict[str, Any], int], Requests]] = {
    "contact": _contacts, "stage_change": _moves, "webhook": _webhooks,
}  # fmt: skip


async def _round(job: dict[str, Any]) -> dict[str, Any]:
    used, started = time.process_time(), time.perf_counter()
    clients = [_Client(KINDS[job["kind"]](job, mine), started + job["seconds"]) for mine in range(job["connections"])]
    loop = asyncio.get_running_loop()
    for client in clients:
        await loop.create_connection(lambda client=client: client, "127.0.0.1", job["port"])  # type: ignore[misc]  # one each
    await asyncio.gather(*(client.done for client in clients))
    times = [one for client in clients for one in client.times]
    return {
        "seconds": time.perf_counter() - started, "cpu": time.process_time() - used, "times": times,
        "odd": [one for client in clients for one in client.odd],
    }  # fmt: skip


if __name__ == "__main__":
    for _line in sys.stdin:
        print(json.dumps(asyncio.run(_round(json.loads(_line)))), flush=True)  # noqa: T201  (its answer)
