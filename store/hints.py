"""Hints: PostgreSQL's notices that a queue has something. Only a hint; the queues are polled as well.

They are given after a commit, many commits' as one: a commit with a notice waits for every other
that has one, since PostgreSQL keeps notices in the order of commits.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping

import asyncpg
import structlog

OUTBOX = "drumbeat_outbox"
WAKES = "drumbeat_wakes"
LETTERS = "drumbeat_letters"

_APART = 0.005
"""Seconds between two of a process: what comes meanwhile is told with the next."""

log = structlog.get_logger()


class Hinting:
    """Tells soon which queues have something, by `tell`, which takes the channels and does not raise."""

    def __init__(self, tell: Callable[[list[str]], Awaitable[None]]) -> None:
        self._tell = tell
        self._channels: set[str] = set()
        self._telling: asyncio.Task[None] | None = None

    def soon(self, channels: Iterable[str]) -> None:
        """At once, unless it is being told: then after that."""
        self._channels.update(channels)
        if self._channels and self._telling is None:
            self._telling = asyncio.get_running_loop().create_task(self._told())

    async def _told(self) -> None:
        try:
            while self._channels:
                channels, self._channels = sorted(self._channels), set()
                await self._tell(channels)
                await asyncio.sleep(_APART)
        finally:
            self._telling = None

    async def close(self) -> None:
        """Tells what is left, if that is done within a second."""
        if self._telling is not None:
            await asyncio.wait([self._telling], timeout=1)


async def listen(url: str, channels: Mapping[str, asyncio.Event], stopping: asyncio.Event) -> None:
    """Sets a channel's event at each notice, on a connection of its own, until `stopping`.

    A lost connection is opened again after a second, and every event set, since notices were missed.
    """
    while not stopping.is_set():
        try:
            await _listen_once(url, channels, stopping)
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError) as error:
            log.warning("hints_lost", error=type(error).__name__)
            await _until(stopping, seconds=1)


async def _listen_once(url: str, channels: Mapping[str, asyncio.Event], stopping: asyncio.Event) -> None:
    lost = asyncio.Event()
    connection = await asyncpg.connect(url, timeout=10)
    try:
        connection.add_termination_listener(lambda _: lost.set())
        for channel, event in channels.items():
            await connection.add_listener(channel, lambda *_, event=event: event.set())
            event.set()
        both = [asyncio.ensure_future(event.wait()) for event in (lost, stopping)]
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        for one in both:
            one.cancel()
    finally:
        connection.terminate()
    if lost.is_set():
        await _until(stopping, seconds=1)


async def _until(stopping: asyncio.Event, *, seconds: float) -> None:
    try:
        await asyncio.wait_for(stopping.wait(), seconds)
    except TimeoutError:
        return
