"""Batches that are fetched and copied to a GPU while it still computes on those before them.

A thread gathers what was announced into memory that the GPU can read by itself, and has it copied beside the work
on the device. For images that do not stay on the device (`models.device_images`) and for the first look at those that
do.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol, cast

import torch

from automl_vision.models.image_source import ImageSource, expect
from automl_vision.models.memory import is_out_of_memory

#: Host buffers that are written in turn: one is filled while the one before it is copied.
_BUFFERS = 3
#: Batches announced and not asked for yet, at most: training announces two steps ahead, and the oldest give way.
_MOST_COMING = 4


class Done(Protocol):
    """The moment at which a copy has ended, such as `torch.cuda.Event`."""

    def synchronize(self) -> None:
        """Wait for it."""
        ...


class Transfer(Protocol):
    """The way to a device; `buffer` and `start` are called by one thread, `receive` by that which computes."""

    device: torch.device

    def buffer(self, count: int) -> torch.Tensor:
        """(count) uint8 in host memory, from which a copy need not be waited for."""
        ...

    def start(self, pixels: torch.Tensor) -> tuple[torch.Tensor, Done]:
        """Begin to copy a part of a buffer: the copy on the device, valid once it is done."""
        ...

    def receive(self, pixels: torch.Tensor, done: Done) -> None:
        """What the device is asked from now on by this thread comes after the copy."""
        ...


class CudaTransfer:
    """Copies from pinned memory on a stream of its own."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]  # torch leaves it without types

    def buffer(self, count: int) -> torch.Tensor:
        """(count) uint8, pinned."""
        return torch.empty(count, dtype=torch.uint8, pin_memory=True)

    def start(self, pixels: torch.Tensor) -> tuple[torch.Tensor, Done]:
        """The copy, and the event behind it on the stream."""
        with torch.cuda.stream(self._stream):
            return pixels.to(self.device, non_blocking=True), self._stream.record_event()

    def receive(self, pixels: torch.Tensor, done: Done) -> None:
        """The current stream waits, and the memory is not given to another copy before it has used it."""
        current = torch.cuda.current_stream(self.device)
        current.wait_event(cast(torch.cuda.Event, done))
        pixels.record_stream(current)


class _Ring:
    """Buffers in turn: each is written again once the copy of what it held is done."""

    def __init__(self, transfer: Transfer) -> None:
        self._transfer = transfer
        self._buffers = [torch.empty(0, dtype=torch.uint8)] * _BUFFERS
        self._copies: list[Done | None] = [None] * _BUFFERS
        self._turn = 0

    def send(self, squares: torch.Tensor) -> tuple[torch.Tensor, Done]:
        """Begin to copy (B, 3, S, S) uint8 in channels_last; so is the copy."""
        turn, self._turn = self._turn, (self._turn + 1) % _BUFFERS
        former = self._copies[turn]
        if former is not None:
            former.synchronize()
        if len(self._buffers[turn]) < squares.numel():
            self._buffers[turn] = self._transfer.buffer(squares.numel())
        pixels = squares.permute(0, 2, 3, 1)
        room = self._buffers[turn][: squares.numel()].view(pixels.shape)
        there, done = self._transfer.start(room.copy_(pixels))
        self._copies[turn] = done
        return there.permute(0, 3, 1, 2), done


class PrefetchedImages:
    """A source whose batches are on their way to a device from when they are expected.

    Batches are those of the source. One that was not expected is fetched when it is asked for.

    Args:
        source: where the images are; several threads may fetch from it. It goes on refusing what it refuses.
        transfer: the way to the device.
    """

    def __init__(self, source: ImageSource, transfer: Transfer) -> None:
        self._source = source
        self._device = transfer.device
        self._ring = _Ring(transfer)
        self._receive = transfer.receive
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="prefetch")
        self._coming: dict[tuple[bytes, int], Future[tuple[torch.Tensor, Done]]] = {}

    @property
    def sizes(self) -> tuple[int, ...]:
        """Stored sides in pixels, ascending."""
        return self._source.sizes

    def plane_for(self, size: int) -> int:
        """The smallest stored side that is at least `size`, else the largest."""
        return self._source.plane_for(size)

    def expect(self, rows: torch.Tensor, size: int) -> None:
        """Begin to fetch a batch and to copy it; what goes wrong with it is raised where it is fetched."""
        key = _key(rows, size)
        if not len(rows) or key in self._coming:
            return
        expect(self._source, rows, size)
        while len(self._coming) >= _MOST_COMING:  # an epoch that was cut short leaves some behind
            self._coming.pop(next(iter(self._coming))).cancel()
        self._coming[key] = self._thread.submit(self._sent, rows.clone(), size)

    def fetch(self, rows: torch.Tensor, size: int) -> torch.Tensor:
        """(B) int64 rows to (B, 3, size, size) uint8 on the device, channels_last; `size` is a stored side.

        Raises:
            What the source raises, in the thread or here.
        """
        coming = self._coming.pop(_key(rows, size), None)
        arrived = None if coming is None else self._arrived(coming)
        return self._source.fetch(rows, size).to(self._device, non_blocking=True) if arrived is None else arrived

    def release(self) -> bool:
        """Forget what was expected, because networks need the memory; whether there was anything."""
        forgotten = bool(self._coming)
        for coming in self._coming.values():
            coming.cancel()
        self._coming.clear()
        return forgotten

    def _sent(self, rows: torch.Tensor, size: int) -> tuple[torch.Tensor, Done]:
        return self._ring.send(self._source.fetch(rows, size))

    def _arrived(self, coming: Future[tuple[torch.Tensor, Done]]) -> torch.Tensor | None:
        """The batch; None where there was no memory to fetch it ahead."""
        try:
            pixels, done = coming.result()
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            return None
        self._receive(pixels, done)
        return pixels


def _key(rows: torch.Tensor, size: int) -> tuple[bytes, int]:
    return rows.numpy().tobytes(), size
