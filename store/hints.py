"""Hints: PostgreSQL's notices that a queue has something. Only a hint; the queues are polled as well."""

import asyncio
from collections.abc import Mapping

import asyncpg
import structlog

OUTBOX = "drumbeat_outbox"
WAKES = "drumbeat_wakes"
LETTERS = "drumbeat_letters"

log = structlog.get_logger()


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
