"""What a network may do to a connection, done by the proxy to real ones."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest

from chaos.proxy import Address, Proxy

HUGE = b"x" * 20_000_000


@asynccontextmanager
async def echo() -> AsyncIterator[Address]:
    """A server that says back what it is told, and ends when the caller does."""

    async def answer(reader, writer):
        try:
            while told := await reader.read(65_536):
                writer.write(told)
                await writer.drain()
        except OSError:
            pass
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    yield Address("127.0.0.1", server.sockets[0].getsockname()[1])
    server.close()


@pytest.fixture
async def proxy():
    async with echo() as address, Proxy(address) as made:
        yield made


@asynccontextmanager
async def caller(proxy):
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    yield reader, writer
    writer.transport.abort()
    with suppress(OSError):
        await writer.wait_closed()


async def said_back(reader, writer, what=b"hello"):
    writer.write(what)
    return await asyncio.wait_for(reader.readexactly(len(what)), 20)


async def was_reset(reader, _writer):
    """Whether the connection's end was a reset, and not a peaceful one."""
    try:
        while await asyncio.wait_for(reader.read(65_536), 10):
            pass
    except ConnectionResetError:
        return True
    return False


async def well(proxy):
    async with caller(proxy) as connection:
        return await said_back(*connection) == b"hello"


async def test_what_is_said_arrives_both_ways_whole_and_the_end_too(proxy):
    async with caller(proxy) as (reader, writer):
        assert await said_back(reader, writer) == b"hello"
        assert await said_back(reader, writer, HUGE) == HUGE
        writer.write_eof()
        assert await asyncio.wait_for(reader.read(), 10) == b""


async def test_who_does_not_read_is_not_sent_more_than_fits(proxy):
    async with caller(proxy) as (_, writer):
        writer.write(HUGE * 4)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(writer.drain(), 0.5)
    assert await well(proxy)


async def test_a_cut_resets_what_is_open_and_what_comes_until_it_is_over(proxy):
    async with caller(proxy) as old:
        assert await said_back(*old) == b"hello"
        cutting = asyncio.create_task(proxy.cut(0.4))
        assert await was_reset(*old)
        async with caller(proxy) as new:
            assert await was_reset(*new)
        await cutting
    assert await well(proxy)


async def test_in_silence_nothing_arrives_and_after_it_everything(proxy):
    async with caller(proxy) as one, caller(proxy) as other:
        assert await said_back(*one) == b"hello"
        silence = asyncio.create_task(proxy.silence(0.5))
        await asyncio.sleep(0)
        begun = time.monotonic()
        assert all(await asyncio.gather(said_back(*one), said_back(*other), well(proxy)))
        assert time.monotonic() - begun > 0.4
        await silence


async def test_a_delay_makes_every_way_longer_and_nothing_narrower(proxy):
    async with caller(proxy) as (reader, writer):
        delay = asyncio.create_task(proxy.delay(2.0, 0.2))
        await asyncio.sleep(0)
        begun = time.monotonic()
        for number in range(5):
            writer.write(b"%d" % number)
            await asyncio.sleep(0.01)
        assert await asyncio.wait_for(reader.readexactly(5), 10) == b"01234"
        assert 0.4 <= time.monotonic() - begun < 1.0, "there and back, once for all of them"
        delay.cancel()


async def test_a_connection_tears_in_the_middle_of_what_is_said(proxy):
    tearing = asyncio.create_task(proxy.tear(5, 7))
    await asyncio.sleep(0)
    async with caller(proxy) as (reader, writer):
        writer.write(b"hello, world")
        assert await was_reset(reader, writer)
    assert proxy.torn == 1
    tearing.cancel()
    await asyncio.gather(tearing, return_exceptions=True)
    assert await well(proxy)


async def test_who_calls_a_server_that_is_away_is_reset_and_the_proxy_goes_on():
    async with echo() as address, Proxy() as proxy:
        async with caller(proxy) as connection:
            assert await was_reset(*connection)
        proxy.target = address
        assert await well(proxy)
