"""What networks need from a store of decoded images, whoever built it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F


class ImageSource(Protocol):
    """Decoded images in a few square sizes, fetched by row."""

    @property
    def sizes(self) -> tuple[int, ...]:
        """Stored sides in pixels, ascending."""
        ...

    def plane_for(self, size: int) -> int:
        """The smallest stored side that is at least `size`, else the largest."""
        ...

    def fetch(self, rows: torch.Tensor, size: int) -> torch.Tensor:
        """(B) int64 rows to (B, 3, size, size) uint8, channels_last; `size` is a stored side."""
        ...


@runtime_checkable
class ReadsAhead(Protocol):
    """A source that can begin to read before it is asked to give."""

    def expect(self, rows: torch.Tensor, size: int) -> None:
        """Begin to read rows that `fetch` will be asked for soon; changes no result."""
        ...


def expect(source: ImageSource, rows: torch.Tensor, size: int) -> None:
    """Tell a source what it will be asked for soon, if it can make use of it."""
    if isinstance(source, ReadsAhead):
        source.expect(rows, size)


@runtime_checkable
class HoldsImages(Protocol):
    """A source that keeps images in memory that networks may need."""

    def release(self) -> bool:
        """Give them up; whether there were any. Changes no result."""
        ...


def release(source: ImageSource) -> bool:
    """Have a source give up what it keeps in memory; whether there was anything."""
    return isinstance(source, HoldsImages) and source.release()


def resize(batch: torch.Tensor, size: int) -> torch.Tensor:
    """(B, 3, P, P) uint8 to (B, 3, size, size) uint8, bilinear with antialiasing."""
    if batch.shape[-1] == size:
        return batch
    if batch.device.type == "cpu":
        return F.interpolate(batch, (size, size), mode="bilinear", antialias=True)
    # Only the CPU has an 8-bit kernel.
    resized = F.interpolate(batch.float(), (size, size), mode="bilinear", antialias=True)
    return resized.round_().clamp_(0, 255).to(torch.uint8)


def resized_batches(source: ImageSource, rows: torch.Tensor, size: int, batch_size: int) -> Iterator[torch.Tensor]:
    """Batches of (<= batch_size, 3, size, size) uint8 in the order of `rows`."""
    plane = source.plane_for(size)
    parts = torch.split(rows, batch_size)
    for part, following in zip(parts, (*parts[1:], rows[:0]), strict=True):
        expect(source, following, plane)
        yield resize(source.fetch(part, plane), size)
