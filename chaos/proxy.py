"""A proxy whose connections fail as networks do: cut, silent, slow, or torn in the middle of what is said."""

import asyncio
import contextlib
import socket
import struct
from dataclasses import dataclass
from typing import Self

_CHUNK = 65_536
_UNDER_WAY = 64
"""Chunks that may be on their way in one direction; then the sender is no longer read."""
_RESET = struct.pack("ii", 1, 0)


@dataclass(frozen=True)
class Address:
    """Where to connect to."""

    host: str
    port: int


class Proxy:
    """One listener on the loopback in front of one target; an async context manager.

    `target` is set before the first connection. What was cut, or tore, ends with a reset on both sides.
    """

    def __init__(self, target: Address | None = None) -> None:
        self.target = target
        self.port = 0
        self.torn = 0
        """How many connections were torn in the middle of what was said."""
        self._refusing = False
        self._seconds = 0.0
        self._tear_after = 0
        self._bytes_left: int | None = None
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        """Listens on a free port."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        """Resets what is open, and listens no more."""
        if self._server is not None:
            self._server.close()
        self.reset()
        await asyncio.gather(*self._open, return_exceptions=True)

    def reset(self) -> None:
        """Ends every connection with a reset; new ones are welcome."""
        for task in self._open:
            task.cancel()

    async def cut(self, seconds: float) -> None:
        """As `reset`, and resets every new connection for so long."""
        self._refusing = True
        self.reset()
        try:
            await asyncio.sleep(seconds)
        finally:
            self._refusing = False

    async def silence(self, seconds: float) -> None:
        """Nothing arrives for so long, neither bytes nor the end of a connection; then what was sent does."""
        self._flowing.clear()
        try:
            await asyncio.sleep(seconds)
        finally:
            self._flowing.set()

    async def delay(self, seconds: float, by: float) -> None:
        """Every byte takes `by` seconds longer, each way, for so long."""
        self._seconds = by
        try:
            await asyncio.sleep(seconds)
        finally:
            self._seconds = 0.0

    async def tear(self, seconds: float, after: int) -> None:
        """For so long, each connection that carries the `after`-th byte from now on, either way, is reset at it."""
        self._tear_after = self._bytes_left = after
        try:
            await asyncio.sleep(seconds)
        finally:
            self._bytes_left = None

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = asyncio.create_task(self._connect(reader, writer))
        self._open.add(connection)
        connection.add_done_callback(self._open.discard)

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ends = [writer]
        said_all = False
        try:
            await self._flowing.wait()
            if not self._refusing and self.target is not None:
                target_reader, target_writer = await asyncio.open_connection(self.target.host, self.target.port)
                ends.append(target_writer)
                async with asyncio.TaskGroup() as ways:
                    ways.create_task(self._carry(reader, target_writer))
                    ways.create_task(self._carry(target_reader, writer))
                said_all = True
        except* OSError:
            pass  # whichever side broke, both learn of it
        finally:
            for end in ends:
                if not said_all:
                    _reset(end)
                end.close()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One way, until all is said. Raises OSError where a side breaks."""
        under_way = asyncio.Queue[tuple[float, bytes]](_UNDER_WAY)
        async with asyncio.TaskGroup() as ends:
            ends.create_task(self._take(reader, under_way))
            ends.create_task(self._give(under_way, writer))

    async def _take(self, reader: asyncio.StreamReader, under_way: asyncio.Queue[tuple[float, bytes]]) -> None:
        chunk = b"first"
        while chunk:
            chunk = await reader.read(_CHUNK)
            await under_way.put((asyncio.get_running_loop().time() + self._seconds, chunk))

    async def _give(self, under_way: asyncio.Queue[tuple[float, bytes]], writer: asyncio.StreamWriter) -> None:
        while True:
            due, chunk = await under_way.get()
            await asyncio.sleep(due - asyncio.get_running_loop().time())
            await self._flowing.wait()
            if not chunk:
                writer.write_eof()
                return
            whole = self._whole(chunk)
            writer.write(whole)
            await writer.drain()
            if len(whole) < len(chunk):
                raise ConnectionResetError

    def _whole(self, chunk: bytes) -> bytes:
        """As much of a chunk as arrives."""
        if self._bytes_left is None:
            return chunk
        whole = chunk[: self._bytes_left]
        self._bytes_left -= len(whole)
        if len(whole) < len(chunk):
            self._bytes_left = self._tear_after
            self.torn += 1
        return whole


def _reset(end: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):  # it is closed already
        end.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    end.transport.abort()
