"""Crash points: before and after every commit, every call of Temporal, every activity function, every transport's call.

None is placed by hand. They come from the one place that commits, from Temporal's interceptors and from where a
transport is made, so what is new has its points by itself. None of this is a part of the product: it is put around
the product's own classes, in a process that a test has started.
"""

import inspect
import os
import signal
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from temporalio.client import Interceptor as ClientInterceptor
from temporalio.client import OutboundInterceptor
from temporalio.worker import ActivityInboundInterceptor, ExecuteActivityInput
from temporalio.worker import Interceptor as WorkerInterceptor

from activities.send import Send
from activities.transports import Transport
from runtime.folders import CHECKOUT
from store.events import Record
from store.transaction import Database

BEFORE, AFTER = " · before", " · after"
KINDS = ("commit", "rpc", "activity", "transport")
"""What a point's name begins with."""
_ROOMS = ("api", "triggers", "activities", "store", "runtime")
_IN_BETWEEN = ("store.transaction", "triggers.loops", "api.requests")
"""Whose frames say nothing of what is committed."""


@dataclass(frozen=True)
class Fault:
    """Where a process ends: the `occurrence`-th time it comes past `point`, counted from 1."""

    service: str
    point: str
    occurrence: int

    def __str__(self) -> str:
        return f"{self.service}: {self.point} #{self.occurrence}"


class Watch:
    """Writes down every point this process comes past; at the fault it ends as `kill -9` ends a process."""

    def __init__(self, record: Path, fault: Fault | None) -> None:
        self._record = os.open(record, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._fault = fault
        self._reached = Counter[str]()

    @contextmanager
    def around(self, name: str) -> Iterator[None]:
        self._at(name + BEFORE)
        try:
            yield
        finally:
            self._at(name + AFTER)

    def _at(self, point: str) -> None:
        self._reached[point] += 1
        os.write(self._record, f"{point}\n".encode())
        fault = self._fault
        if fault is not None and (fault.point, fault.occurrence) == (point, self._reached[point]):
            os.kill(os.getpid(), signal.SIGKILL)


def passed(record: Path) -> list[str]:
    """The points a process came past, in their order."""
    return record.read_text().splitlines() if record.exists() else []


def install(watch: Watch) -> "Interception":
    """Puts the points around this process's commits and transports; the answer is for its Temporal client."""
    commit, at_once, made = Database._commit, Database.at_once, Send._made

    async def watched_commit(self: Database, connection: Any) -> None:
        with watch.around(f"commit {_whose(sys._getframe())}"):
            await commit(self, connection)

    async def watched_at_once(
        self: Database, statement: str, values: Sequence[Any], **hints: Any
    ) -> list[tuple[Any, ...]]:
        with watch.around(f"commit {_whose(sys._getframe())}"):
            return await at_once(self, statement, values, **hints)

    def watched_transport(self: Send, mailbox: Record) -> Transport:
        return _watched(made(self, mailbox), watch)

    Database._commit = watched_commit  # type: ignore[method-assign]  # in this process only
    Database.at_once = watched_at_once  # type: ignore[method-assign]  # as above
    Send._made = watched_transport  # type: ignore[method-assign]  # as above
    return Interception(watch)


def _whose(frame: FrameType | None) -> str:
    """The code whose transaction it is, and of another module who asked for it."""
    found: list[tuple[str, str]] = []
    while frame is not None and len({module for module, _ in found}) < 2:
        path = Path(frame.f_code.co_filename)
        if path.is_relative_to(CHECKOUT) and path.relative_to(CHECKOUT).parts[0] in _ROOMS:
            module = ".".join(path.relative_to(CHECKOUT).with_suffix("").parts)
            if module not in _IN_BETWEEN:
                found.append((module, frame.f_code.co_qualname))
        frame = frame.f_back
    inner, outer = found[0], found[-1]
    return ".".join(inner) + (f" for {'.'.join(outer)}" if outer[0] != inner[0] else "")


def _watched(transport: Transport, watch: Watch) -> Transport:
    """The transport, with points around every call of the port."""

    def method(name: str) -> Any:
        async def call(_self: object, *arguments: Any) -> Any:
            with watch.around(f"transport {type(transport).__name__}.{name}"):
                return await getattr(transport, name)(*arguments)

        return call

    calls = {name: method(name) for name in _coroutines(Transport)}
    watched: Transport = type("Watched", (), calls)()
    return watched


def _coroutines(class_: type) -> list[str]:
    return [name for name, _ in inspect.getmembers(class_, inspect.iscoroutinefunction) if not name.startswith("_")]


class Interception(ClientInterceptor, WorkerInterceptor):
    """What a Temporal client is made with; a worker made with that client runs its activity functions in it, too."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch

    def intercept_client(self, next: OutboundInterceptor) -> OutboundInterceptor:
        return _outgoing(next, self._watch)

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:
        return _Activity(next, self._watch)


def _outgoing(next: OutboundInterceptor, watch: Watch) -> OutboundInterceptor:
    """With points around every call that a client can make, whichever the product comes to use."""

    def rpc(name: str) -> Any:
        async def call(_self: object, input: Any) -> Any:
            signals = "signal_with_" if getattr(input, "start_signal", None) else ""
            with watch.around(f"rpc {signals}{name} {getattr(input, 'workflow', '')}".rstrip()):
                return await getattr(next, name)(input)

        return call

    calls = {name: rpc(name) for name in _coroutines(OutboundInterceptor)}
    outgoing: OutboundInterceptor = type("Outgoing", (OutboundInterceptor,), calls)(next)
    return outgoing


class _Activity(ActivityInboundInterceptor):
    def __init__(self, next: ActivityInboundInterceptor, watch: Watch) -> None:
        super().__init__(next)
        self._watch = watch

    async def execute_activity(self, input: ExecuteActivityInput) -> Any:
        about = " ".join(str(kind) for one in input.args if (kind := getattr(one, "kind", None)))
        with self._watch.around(f"activity {input.fn.__qualname__} {about}".rstrip()):
            return await super().execute_activity(input)
