"""Functions run where they can do no harm: a child process with little memory, no secrets and no long life.

What a stranger wrote (a template, a mail) can make a pure function run for ever or fill the memory,
and no timer inside the process stops that. So the function runs in a child, which its parent kills.
Parent and child exchange frames over the child's stdin and stdout: four bytes of length, big-endian,
then so many bytes. A request is a line of JSON, `{"name", "seconds"}`, and the argument; an answer is
one byte, which says how it went, and the result. Nothing else is ever written there.
"""

import asyncio
import importlib
import json
import math
import os
import resource
import signal
import struct
import sys
import time
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

FUNCTIONS: Mapping[str, str] = {
    "read_mail": "domain.inbound_mail:read_mail",
    "render": "domain.templates:render_json",
}
"""What may be asked for, by name: pure functions of the domain from bytes to bytes."""
MEMORY = 256 * 1024 * 1024
"""Bytes a child may take beyond what it has when it is ready."""
LARGEST = 32 * 1024 * 1024
"""Bytes of an answer; more is `TooBig`."""
WORKED = 0.1
"""The part of a call's seconds in which its child must have had a processor, for their end to say anything of it."""
_FILES = 16
_START_SECONDS = 30.0
_END_SECONDS = 5.0
_LENGTH = struct.Struct(">I")
_DONE, _RAISED = b"+", b"!"
_NO_MEMORY = 99
"""The exit code of a child that ran out of memory."""
_CRASHES = frozenset({signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL})
_ROOT = Path(__file__).resolve().parent.parent
# Isolated: neither the environment nor the current folder has a say in what is imported.
_PROGRAM = "import sys; sys.path.insert(0, sys.argv[1]); from activities.confined import serve; serve()"


class ConfinedError(Exception):
    """A confined function gave no answer."""


class TooSlow(ConfinedError):  # noqa: N818  # the four say what happened
    """It was at work, and was killed when its seconds were over."""


class TooBig(ConfinedError):  # noqa: N818
    """It wanted more memory than there is for it, or gave a larger answer than is read."""


class Failed(ConfinedError):  # noqa: N818
    """It raised, or brought its process down: the message is the kind of exception and where, or the signal."""


class Unavailable(ConfinedError):  # noqa: N818
    """Nothing is said about the argument: no child could be had, or none was at work.

    Twice it did not start or was ended from outside, or it was hardly given a processor while its
    seconds went by, as on a busy machine or frozen.
    """


class Confined:
    """One child, started when first wanted and kept; calls wait for one another.

    A child that dies under a call is replaced and the call repeated once, since the fault may lie
    with whoever killed it, or with the calls it has served before; a second death counts, and so does
    the first where no time is left for another.
    """

    def __init__(self) -> None:
        self._turn = asyncio.Lock()
        self._child: Process | None = None
        self._worked = 0.0  # processor seconds of the child in the call that was ended last
        self._ending: set[asyncio.Task[Any]] = set()

    async def call(self, name: str, argument: bytes, *, seconds: float) -> bytes:
        """The function's result. `seconds` of elapsed time begin when its turn has come and a child is ready.

        The answer comes by their end, whatever it is: a repeat and the start of its child are within them.
        Raises `TooSlow`, `TooBig`, `Failed` or `Unavailable`; KeyError for a name that is not in the table.
        """
        if name not in FUNCTIONS:
            raise KeyError(name)
        asked = json.dumps({"name": name, "seconds": seconds}).encode()
        request = asked + b"\n" + argument
        async with self._turn:
            death: _Died | None = None
            try:
                async with asyncio.timeout(None) as clock:
                    try:
                        return await self._attempt(request, seconds, clock)
                    except _Died as first:
                        death = first if clock.when() else None  # else it was a start, which took no time of the call's
                    return await self._attempt(request, seconds, clock)
            except TimeoutError:
                raise (death.verdict() if death else _late(seconds, self._worked)) from None
            except _Died as second:
                raise second.verdict() from None

    async def close(self) -> None:
        """Ends the child, after the call it is in; a later call starts another."""
        async with self._turn:
            self._end()
            await asyncio.gather(*self._ending)

    async def _attempt(self, request: bytes, seconds: float, clock: asyncio.Timeout) -> bytes:
        try:
            child = await self._ready()
            if clock.when() is None:  # no argument is to blame for how long the first takes to start
                clock.reschedule(asyncio.get_running_loop().time() + seconds)
            before = _processor_seconds(child.pid)
            try:
                return await _ask(child, request)
            except asyncio.CancelledError:
                self._worked = _processor_seconds(child.pid) - before
                raise
        except BaseException:  # cancelled too: a child that was asked and not heard is of no more use
            self._end()
            raise

    async def _ready(self) -> Process:
        if self._child is not None and self._child.returncode is not None:
            self._end()  # it died of no call
        return self._child or await self._start()

    async def _start(self) -> Process:
        try:
            self._child = await asyncio.create_subprocess_exec(
                sys.executable, "-I", "-c", _PROGRAM, str(_ROOT),
                stdin=PIPE, stdout=PIPE, stderr=DEVNULL, env={}, cwd="/",
                # Ctrl-C is the parent's to hear.
                start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            raise _Died(f"it could not be started: {error.strerror}") from error
        try:
            async with asyncio.timeout(_START_SECONDS):
                await _frame(self._child)
        except TimeoutError:
            raise _Died(f"it was not ready within {_START_SECONDS:.0f} s") from None
        except _Died as death:
            raise _Died(f"it did not start: {death}") from None  # whatever of, it was not of the call
        return self._child

    def _end(self) -> None:
        """Kills the child; nobody waits for the kernel to clear away what it has taken."""
        child, self._child = self._child, None
        if child is None:
            return
        with suppress(ProcessLookupError):
            child.kill()
        ending = asyncio.create_task(child.communicate())  # what is left in the pipes, or they stay open
        self._ending.add(ending)
        ending.add_done_callback(self._ending.discard)


class _Died(Exception):  # noqa: N818
    def __init__(self, how: str, code: int | None = None) -> None:
        super().__init__(how)
        self._code = code

    def verdict(self) -> ConfinedError:
        """What the death says about the call."""
        if self._code in (_NO_MEMORY, -signal.SIGABRT):  # an allocator that is refused aborts
            return TooBig("it ran out of memory")
        if self._code == -signal.SIGXCPU:
            return TooSlow("it ran out of processor time")
        if self._code is not None and (self._code > 0 or -self._code in _CRASHES):
            return Failed(str(self))
        return Unavailable(str(self))


def _late(seconds: float, worked: float) -> ConfinedError:
    """What it says about a call that its seconds are over, when its child had a processor for so many of them."""
    if worked < WORKED * seconds:
        return Unavailable(f"in {seconds:.1f} s it was given a processor for {worked:.2f} s")
    return TooSlow(f"it was killed after {seconds:.1f} s")


def _processor_seconds(pid: int) -> float:
    """What the process has had of a processor, user and system, so far; 0 where it is gone."""
    try:
        after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(after_name[11]) + int(after_name[12])) / os.sysconf("SC_CLK_TCK")


async def _ask(child: Process, request: bytes) -> bytes:
    assert child.stdin is not None  # noqa: S101  # it was asked for
    with suppress(ConnectionError):  # it is dead; the reading tells of what
        child.stdin.write(_LENGTH.pack(len(request)) + request)
        await child.stdin.drain()
    answer = await _frame(child)
    if answer[:1] == _RAISED:
        raise Failed(answer[1:].decode())
    return answer[1:]


async def _frame(child: Process) -> bytes:
    assert child.stdout is not None  # noqa: S101  # it was asked for
    try:
        (length,) = _LENGTH.unpack(await child.stdout.readexactly(_LENGTH.size))
        if length > LARGEST:
            raise TooBig(f"its answer is larger than {LARGEST} bytes")
        return await child.stdout.readexactly(length)
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    # Its end of the pipe is closed, so it is gone but for the kernel's clean-up. It is not killed here: that would
    # hide what it died of.
    with suppress(TimeoutError):
        async with asyncio.timeout(_END_SECONDS):
            await child.wait()
    code = child.returncode
    how = "it closed its output" if code is None else f"it ended with {_named(code)}"
    raise _Died(how, code)


def _named(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"


# --- in the child


def serve() -> None:
    """Answer requests until stdin is closed, which it is when the parent is gone, however it went."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    source, sink = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever prints, prints nowhere
    functions = {name: _imported(path) for name, path in FUNCTIONS.items()}
    _limit()
    _write(sink, b"")
    try:
        while len(prefix := source.read(_LENGTH.size)) == _LENGTH.size:
            asked, _, argument = source.read(_LENGTH.unpack(prefix)[0]).partition(b"\n")
            request = json.loads(asked)
            _limit_time(request["seconds"])
            _write(sink, _answered(functions[request["name"]], argument))
    except MemoryError:
        os._exit(_NO_MEMORY)  # what is left of the memory is no place to go on in


def _imported(path: str) -> Callable[[bytes], bytes]:
    module, _, name = path.partition(":")
    function: Callable[[bytes], bytes] = getattr(importlib.import_module(module), name)
    return function


def _limit() -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    memory = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_NOFILE, (_FILES, _FILES))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a dump would hold what it was given


def _limit_time(seconds: float) -> None:
    """Processor time for one request: for when the parent is frozen, or gone, and does not kill."""
    until = math.ceil(time.process_time() + seconds) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (until, resource.RLIM_INFINITY))


def _answered(function: Callable[[bytes], bytes], argument: bytes) -> bytes:
    try:
        return _DONE + function(argument)
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001  # told to the parent, without its message: that may hold values
        return _RAISED + _told(error).encode()


def _told(error: Exception) -> str:
    """The kind of an exception and the place it came from."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    place = f" at {Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}" if trace else ""
    return f"{type(error).__name__}{place}"


def _write(sink: BinaryIO, frame: bytes) -> None:
    sink.write(_LENGTH.pack(len(frame)) + frame)
    sink.flush()
