"""Images of concurrent requests share forward passes: one thread runs the model, everybody else waits in a queue."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from types import TracebackType
from typing import Generic, Self, TypeVar

from automl_vision.serving.limits import Busy

Asked = TypeVar("Asked")
Answer = TypeVar("Answer")
#: Seconds without anything to do after which a batcher rests.
REST_SECONDS = 10.0


@dataclass(frozen=True, eq=False)
class _Waiting(Generic[Asked, Answer]):
    asked: Asked
    since: float
    answer: asyncio.Future[Answer] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


def powers_of_two(batch: Sequence[Asked]) -> Iterator[Sequence[Asked]]:
    """The whole batch in order, in as few parts as lengths that are powers of two allow, the longest first."""
    start = 0
    while start < len(batch):
        length = 1 << ((len(batch) - start).bit_length() - 1)
        yield batch[start : start + length]
        start += length


class Batcher(Generic[Asked, Answer]):
    """Collects what is asked into batches and runs them one after the other, in a thread of its own.

    What came together is run in passes of 16, 8, 4, 2 and 1, say: what a network takes for passes of every size there
    is leaves holes of every size in the heap, which grows for as long as new sizes come. A pass that fails is run again
    one by one, so that only what is to blame fails.

    Args:
        run: a batch of 1 to `size`, a power of two, to as many answers, in order; called from one thread.
        size: the largest batch, >= 1.
        patience: seconds that the first of a batch waits for others; none where they are waiting already.
        room: how many may wait, those that are being run not counted.
        rest: called from the same thread, once, when nothing came for `REST_SECONDS`.
    """

    def __init__(
        self,
        run: Callable[[Sequence[Asked]], Sequence[Answer]],
        *,
        size: int,
        patience: float,
        room: int,
        rest: Callable[[], None] | None = None,
    ) -> None:
        self._run = run
        self._rest = rest
        self._rested = True
        self._size = size
        self._patience = patience
        self._room = room
        self._queue: asyncio.Queue[_Waiting[Asked, Answer]] = asyncio.Queue()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="model")
        self._worker: asyncio.Task[None] | None = None
        self.passes = 0
        self.answered = 0

    async def __aenter__(self) -> Self:
        self._worker = asyncio.create_task(self._work())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._worker is not None:
            self._worker.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._worker
        self._thread.shutdown()

    @property
    def waiting(self) -> int:
        """How many wait, those that are being run not counted."""
        return self._queue.qsize()

    @property
    def full(self) -> bool:
        """Whether there is no room for one more."""
        return self.waiting >= self._room

    def submit(self, batch: Sequence[Asked]) -> list[asyncio.Future[Answer]]:
        """Queue all of `batch`, or nothing.

        Returns:
            their answers to come, in order; one that failed raises what `run` raised.

        Raises:
            Busy: there is no room for that many.
        """
        if self.waiting + len(batch) > self._room:
            raise Busy
        now = asyncio.get_running_loop().time()
        asked: list[_Waiting[Asked, Answer]] = [_Waiting(each, now) for each in batch]
        for each in asked:
            self._queue.put_nowait(each)
        return [each.answer for each in asked]

    async def _work(self) -> None:
        while True:
            batch = [each for each in await self._collect() if not each.answer.done()]
            for part in powers_of_two(batch):
                await self._answer_all(part)

    async def _answer_all(self, batch: Sequence[_Waiting[Asked, Answer]]) -> None:
        if not await self._answer(batch) and len(batch) > 1:
            for each in batch:
                await self._answer([each])

    async def _collect(self) -> list[_Waiting[Asked, Answer]]:
        batch = [await self._first()]
        end = batch[0].since + self._patience
        # A queue that is not empty gives without waiting, also after the end.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(end):
                while len(batch) < self._size:
                    batch.append(await self._queue.get())
        return batch

    async def _first(self) -> _Waiting[Asked, Answer]:
        if self._rest is not None and not self._rested:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(REST_SECONDS):
                    return await self._queue.get()
            await asyncio.get_running_loop().run_in_executor(self._thread, self._rest)
            self._rested = True
        return await self._queue.get()

    async def _answer(self, batch: Sequence[_Waiting[Asked, Answer]]) -> bool:
        """Whether the pass succeeded; a single image is answered either way."""
        running = asyncio.get_running_loop().run_in_executor(self._thread, self._pass, [each.asked for each in batch])
        await asyncio.wait([running])
        self.passes += 1
        self._rested = False
        if error := running.exception():
            if len(batch) == 1 and not batch[0].answer.done():
                batch[0].answer.set_exception(error)
            return False
        self.answered += len(batch)
        for each, answer in zip(batch, running.result(), strict=True):
            if not each.answer.done():  # who asked may have left
                each.answer.set_result(answer)
        return True

    def _pass(self, batch: Sequence[Asked]) -> Sequence[Answer]:
        answers = self._run(batch)
        if len(answers) != len(batch):
            raise RuntimeError(f"{len(batch)} images were asked for, {len(answers)} were answered")
        return answers
