"""Decoders in processes of their own: long-lived, bounded, and replaced when they die or hang.

A process that is told what to do by an image can do no more than give wrong pixels of it: what it says is a line of a
few numbers, which are checked, and as many bytes as the server expects. Images of many pixels go to one decoder of
their own, which comes after all others, so that they never keep small ones waiting.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Self, cast

import numpy as np
from numpy.typing import NDArray

from automl_vision.errors import IMAGE_FAULTS, ImageReadError
from automl_vision.serving.decoder import Duty, expected_bytes
from automl_vision.serving.limits import MEGABYTE, Busy

logger = logging.getLogger(__name__)

#: Not from the folder that somebody stands in: its files may have the names of ours.
COMMAND = (sys.executable, "-P", "-m", "automl_vision.serving.decoder")
#: What a decoder needs of this process's variables to start at all; secrets stay here.
_VARIABLES = ("PATH", "PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH", "SYSTEMROOT", "LANG", "LC_ALL")
#: And what keeps it small: one thread, and glibc gives the memory of large images back once they are decoded.
_SMALL = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": str(4 * MEGABYTE),
}

#: Pixels up to which an image is decoded beside others; more take their turn in the one decoder for large ones.
AT_ONCE = 16_000_000
#: Memory beyond what an idle decoder has. 16 million pixels take 150 to 300 MB, and 690 in 32 bits (docs/LOG.md); so of
#: 64 million pixels all have room but 32-bit values over some 45 million.
MEMORY, MEMORY_OF_LARGE = 1024 * MEGABYTE, 2048 * MEGABYTE
#: Processor seconds of one image. 64 million pixels take about two; on a machine that is short of memory the kernel
#: has been seen to take more than ten with them.
CPU_SECONDS, CPU_SECONDS_OF_LARGE = 10, 30
#: Seconds by the clock after which a decoder that says nothing is replaced: one that works is ended by the bound above.
HUNG_SECONDS = 60.0
#: Seconds that a decoder has to start.
START_SECONDS = 60.0
#: Large images that wait or are decoded, and seconds that one waits for its turn; behind that the answer is 503.
LARGE_WAITING, LARGE_SECONDS = 16, 30.0
_NICER = 5
#: Bytes of an answer's line at most, and of what is written at once.
_LINE, _PIECE = 4096, 256 * 1024
_BUFFER = MEGABYTE  # of answers that nobody has read yet
_PAUSE_SECONDS = 1.0  # between two tries to start a decoder
#: Seconds that one has to end: a process that waits for a disk or a driver does not die when it is killed.
_END_SECONDS = 5.0


@dataclass(frozen=True, eq=False)
class Picture:
    """An image as a decoder gave it.

    Attributes:
        squares: side -> (S, S, 3) uint8.
        shown: (H, W, 3) uint8, what a heat map is laid over; None where nobody asked for it.
    """

    squares: Mapping[int, NDArray[np.uint8]]
    shown: NDArray[np.uint8] | None = None


class _Large(Exception):
    """The image has too many pixels for this decoder."""


class _Gone(Exception):
    """The decoder is no more, or said what none says.

    Attributes:
        code: its exit code as `subprocess` has it.
    """

    def __init__(self, code: int) -> None:
        super().__init__(f"exit code {code}")
        self.code = code


class Decoders:
    """`count` decoders for images as they come, and one for large ones. Open it, as a context, in the loop that asks.

    Args:
        duty: what they do with each image; its bounds are set here.
        count: how many, >= 1.
        hung_seconds: without an answer, after which one is replaced.
    """

    def __init__(self, duty: Duty, count: int, *, hung_seconds: float = HUNG_SECONDS) -> None:
        large = replace(
            duty,
            at_once=duty.pixels,
            memory=duty.memory + MEMORY_OF_LARGE - MEMORY,
            cpu_seconds=duty.cpu_seconds + CPU_SECONDS_OF_LARGE - CPU_SECONDS,
            niceness=_NICER,
        )
        self._lane = _Lane(duty, count, hung_seconds)
        self._large = _Lane(large, 1, hung_seconds, LARGE_SECONDS)
        self._large_room = LARGE_WAITING

    async def __aenter__(self) -> Self:
        async with contextlib.AsyncExitStack() as started:
            for lane in (self._lane, self._large):
                await started.enter_async_context(lane)
            self._running = started.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._running.aclose()

    @property
    def processes(self) -> tuple[int, ...]:
        """The ids of the decoders' processes."""
        return (*self._lane.processes, *self._large.processes)

    async def decode(self, data: bytes, *, shown: bool) -> Picture:
        """Decode one image, after those that came before it.

        Args:
            data: the bytes of the file.
            shown: whether the picture for a heat map is wanted too.

        Raises:
            ImageReadError: it cannot be used, or ended a decoder twice, or takes too long.
            Busy: too many large images wait, or a decoder hung.
        """
        try:
            return await self._tried_twice(self._lane, data, shown)
        except _Large:
            pass
        if not self._large_room:
            raise Busy
        self._large_room -= 1
        try:
            return await self._tried_twice(self._large, data, shown)
        finally:
            self._large_room += 1

    async def _tried_twice(self, lane: _Lane, data: bytes, shown: bool) -> Picture:
        """A decoder may end by chance, for one of a machine without memory: what ends two of them is the image."""
        try:
            return await self._tried(lane, data, shown)
        except _Gone:
            logger.warning("a decoder ended while it had an image; it is tried once more")
        try:
            return await self._tried(lane, data, shown)
        except _Gone as gone:
            logger.warning("an image ended a decoder twice: %s", gone)
            raise ImageReadError("truncated", "the decoder ends on it") from None

    async def _tried(self, lane: _Lane, data: bytes, shown: bool) -> Picture:
        try:
            return await lane.decode(data, shown=shown)
        except _Gone as gone:
            if gone.code == -getattr(signal, "SIGXCPU", 0):
                raise ImageReadError("too_large", f"not decoded after {lane.cpu_seconds} s") from None
            raise


class _Lane:
    """Decoders with one duty, each with one image at a time; images that wait longer than their patience are Busy."""

    def __init__(self, duty: Duty, count: int, hung_seconds: float, patience: float | None = None) -> None:
        self._duty = duty
        self._count = count
        self._hung_seconds = hung_seconds
        self._patience = patience
        self._idle: asyncio.Queue[_Process] = asyncio.Queue()
        self._all: set[_Process] = set()
        self._replacing: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        try:
            await asyncio.gather(*(self._begin() for _ in range(self._count)))
        except BaseException:
            await self.__aexit__(None, None, None)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for each in self._replacing:
            each.cancel()
        await asyncio.gather(*self._replacing, return_exceptions=True)
        await asyncio.gather(*(self._end(each) for each in tuple(self._all)))

    @property
    def processes(self) -> tuple[int, ...]:
        return tuple(each.number for each in self._all)

    @property
    def cpu_seconds(self) -> int:
        return self._duty.cpu_seconds

    async def decode(self, data: bytes, *, shown: bool) -> Picture:
        process = await self._turn()
        try:
            async with asyncio.timeout(self._hung_seconds):
                picture = await process.decode(data, self._duty, shown)
        except (ImageReadError, _Large):
            self._idle.put_nowait(process)
            raise
        except BaseException as error:  # nobody knows in the middle of what it is
            code = await self._replace(process)
            if isinstance(error, TimeoutError):
                logger.warning("a decoder hung for %g s", self._hung_seconds)
                raise Busy from None
            if isinstance(error, _Gone | OSError):
                raise _Gone(code) from None
            raise
        self._idle.put_nowait(process)
        return picture

    async def _turn(self) -> _Process:
        try:
            async with asyncio.timeout(self._patience):
                return await self._idle.get()
        except TimeoutError:
            raise Busy from None

    async def _begin(self) -> None:
        process = await _Process.start(self._duty)
        self._all.add(process)
        self._idle.put_nowait(process)

    async def _replace(self, process: _Process) -> int:
        """Its exit code; another one takes its place as soon as it is there."""
        task = asyncio.create_task(self._begin_somehow())
        self._replacing.add(task)
        task.add_done_callback(self._replacing.discard)
        return await self._end(process)

    async def _begin_somehow(self) -> None:
        while True:
            try:
                return await self._begin()
            except (OSError, _Gone, TimeoutError) as error:
                logger.error("no decoder can be started: %s: %s", type(error).__name__, error)
                await asyncio.sleep(_PAUSE_SECONDS)

    async def _end(self, process: _Process) -> int:
        self._all.discard(process)
        return await process.end()


class _Process:
    """A decoder, as the server sees it."""

    def __init__(
        self, process: asyncio.subprocess.Process, orders: asyncio.StreamWriter, answers: asyncio.StreamReader
    ) -> None:
        self._process, self._to, self._from = process, orders, answers

    @classmethod
    async def start(cls, duty: Duty) -> _Process:
        """One that is ready.

        Raises:
            OSError: the system starts no process.
            _Gone, TimeoutError: it does not come up.
        """
        process = await asyncio.create_subprocess_exec(
            *COMMAND,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # C libraries write there what an image says
            env=_environment(),
            limit=_BUFFER,
            start_new_session=True,  # Ctrl-C in the terminal is for the server alone
        )
        begun = cls(process, cast("asyncio.StreamWriter", process.stdin), cast("asyncio.StreamReader", process.stdout))
        try:
            async with asyncio.timeout(START_SECONDS):
                begun._to.write(duty.to_line())
                await begun._line()
        except BaseException:
            await begun.end()
            raise
        return begun

    @property
    def number(self) -> int:
        """Of the process."""
        return self._process.pid

    async def decode(self, data: bytes, duty: Duty, shown: bool) -> Picture:
        """Give it an image and take what it says.

        Raises:
            ImageReadError, _Large: so it says.
            _Gone, OSError: it is no more, or it says what none says.
        """
        self._to.write(json.dumps({"bytes": len(data), "picture": shown}).encode("ascii") + b"\n")
        whole = memoryview(data)
        for start in range(0, len(data), _PIECE):
            self._to.write(whole[start : start + _PIECE])
            await self._to.drain()
        await self._to.drain()
        told = await self._line()
        if told.get("large") is True:
            raise _Large
        if "kind" in told:
            raise _fault(told)
        picture = _shape(told.get("picture"), duty, shown)
        return _cut(await self._bytes(expected_bytes(duty.sides, picture)), duty.sides, picture)

    async def end(self) -> int:
        """Its exit code; it is killed where it lives."""
        if self._from.at_eof():  # it is about to say by itself why it ended
            await self._wait()
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await self._wait()
        self._to.close()
        return self._process.returncode or 0

    async def _wait(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_END_SECONDS):
                await self._process.wait()

    async def _line(self) -> dict[str, Any]:
        try:
            line = await self._from.readuntil(b"\n")
            told = json.loads(line) if len(line) <= _LINE else None
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError, RecursionError):
            raise _Gone(0) from None
        if not isinstance(told, dict):
            raise _Gone(0)
        return told

    async def _bytes(self, count: int) -> bytes:
        try:
            return await self._from.readexactly(count)
        except asyncio.IncompleteReadError:
            raise _Gone(0) from None


def _environment() -> dict[str, str]:
    return {name: os.environ[name] for name in _VARIABLES if name in os.environ} | _SMALL


def _fault(told: Mapping[str, Any]) -> Exception:
    kind, detail = told["kind"], told.get("detail")
    if not isinstance(kind, str) or kind not in IMAGE_FAULTS or not isinstance(detail, str):
        return _Gone(0)
    return ImageReadError(kind, detail[:300])


def _shape(told: object, duty: Duty, shown: bool) -> tuple[int, ...]:
    """Height and width of the picture; none where none was asked for."""
    if not shown:
        return ()
    if not isinstance(told, list) or len(told) != 2:
        raise _Gone(0)
    if not all(type(each) is int and 1 <= each <= duty.picture_side for each in told):
        raise _Gone(0)
    return tuple(told)


def _cut(data: bytes, sides: tuple[int, ...], picture: tuple[int, ...]) -> Picture:
    pixels, squares, start = np.frombuffer(data, dtype=np.uint8), {}, 0
    for side in sides:
        squares[side] = pixels[start : start + 3 * side**2].reshape(side, side, 3)
        start += 3 * side**2
    return Picture(squares, pixels[start:].reshape(*picture, 3) if picture else None)
