"""How the relay's parts run for years: a pass, and a pause when there was nothing to do."""

import asyncio
from collections.abc import Awaitable, Callable

import structlog

log = structlog.get_logger()

_LONGEST_PAUSE = 5.0


async def repeat(
    name: str,
    once: Callable[[], Awaitable[int]],
    *,
    pause: float,
    stopping: asyncio.Event,
    hint: asyncio.Event | None = None,
    apart: float = 0,
) -> None:
    """Calls `once` until `stopping`; after an empty pass waits `pause` seconds or for a hint.

    It waits `apart` seconds at least, so that what comes meanwhile is dealt with together.

    A pass that fails is logged and tried again, after 0.5, 1, 2, 4, 5, 5 … seconds: whatever it left
    behind is rows, which the next pass reads.
    """
    failures = 0
    while not stopping.is_set():
        if hint is not None:
            hint.clear()
        try:
            found = await once()
        except Exception as error:  # noqa: BLE001  (a loop that ended would stop the product silently)
            failures += 1
            log.warning(
                "pass_failed", loop=name, error=type(error).__name__, detail=str(error)[:500], failures=failures
            )
            # Of how many it is does not matter any more long before a power of two is no number of seconds.
            await _rest(min(0.5 * 2 ** min(failures - 1, 10), _LONGEST_PAUSE), stopping, None)
            continue
        if failures:
            log.info("pass_recovered", loop=name, failures=failures)
            failures = 0
        if found == 0:
            await asyncio.gather(_rest(pause, stopping, hint), _rest(apart, stopping, None))


async def _rest(seconds: float, stopping: asyncio.Event, hint: asyncio.Event | None) -> None:
    waits = [asyncio.ensure_future(event.wait()) for event in (stopping, hint) if event]
    try:
        await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
