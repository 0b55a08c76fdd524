"""Decoded images that stay on the device once a network has seen them: after one epoch no batch crosses the bus."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from automl_vision.models.image_source import ImageSource, expect, release
from automl_vision.models.memory import is_out_of_memory, left_of_share
from automl_vision.models.prefetched_images import CudaTransfer, PrefetchedImages

#: What they may take of the memory that is free on the device before there is a network.
MEMORY_SHARE = 0.5


class DeviceImages:
    """A source whose squares are copied to a device when they are fetched first, and gathered there ever after.

    Batches are those of the source. Whatever does not fit, or is none of `rows`, comes from the source every time.

    Args:
        source: where the images are; it goes on refusing what it refuses.
        rows: (n) those that are kept.
        device: where they are kept.
        most_bytes: of all sizes together.
    """

    def __init__(self, source: ImageSource, rows: torch.Tensor, device: torch.device, most_bytes: int) -> None:
        self._source = source
        self._device = device
        self._free = most_bytes
        self._count = len(rows)
        self._place = torch.full((int(rows.max()) + 1 if len(rows) else 0,), -1)
        self._place[rows] = torch.arange(len(rows))
        self._kept: dict[int, torch.Tensor | None] = {}
        self._filled: dict[int, torch.Tensor] = {}

    @property
    def sizes(self) -> tuple[int, ...]:
        """Stored sides in pixels, ascending."""
        return self._source.sizes

    def plane_for(self, size: int) -> int:
        """The smallest stored side that is at least `size`, else the largest."""
        return self._source.plane_for(size)

    def fetch(self, rows: torch.Tensor, size: int) -> torch.Tensor:
        """(B) int64 rows to (B, 3, size, size) uint8 on the device, channels_last; `size` is a stored side.

        Raises:
            What the source raises for rows that are not on the device yet.
        """
        places = self._places(rows)
        squares = None if places is None else self._squares(size)
        if places is None or squares is None:
            return self._source.fetch(rows, size).to(self._device, non_blocking=True)
        self._fill(squares, rows, places, size)
        return squares.index_select(0, places.to(self._device, non_blocking=True)).permute(0, 3, 1, 2)

    def expect(self, rows: torch.Tensor, size: int) -> None:
        """Have the source begin to read those of the rows that are not on the device yet."""
        places = self._places(rows)
        squares = None if places is None else self._squares(size)
        missing = rows if places is None or squares is None else rows[~self._filled[size][places]]
        if len(missing):
            expect(self._source, missing, size)

    def release(self) -> bool:
        """Give up what is kept, because networks need the memory; whether there was anything.

        From then on all squares come from the source. It forgets what is on its way, which does not count: there is
        some again before the next step, and whoever counted it would never take smaller parts.
        """
        kept = any(squares is not None for squares in self._kept.values())
        self._kept = dict.fromkeys(self._source.sizes)
        release(self._source)
        return kept

    def _places(self, rows: torch.Tensor) -> torch.Tensor | None:
        """(B) where they are kept; None where one of them is not."""
        known = len(rows) > 0 and int(rows.min()) >= 0 and int(rows.max()) < len(self._place)
        places = self._place[rows] if known else None
        return None if places is None or bool((places < 0).any()) else places

    def _squares(self, size: int) -> torch.Tensor | None:
        """(n, size, size, 3) uint8 of which the filled ones are valid; None where there is no room for them."""
        if size not in self._kept:
            self._kept[size] = self._room_for(size)
            self._filled[size] = torch.zeros(self._count, dtype=torch.bool)
        return self._kept[size]

    def _room_for(self, size: int) -> torch.Tensor | None:
        wanted = self._count * 3 * size * size
        if size not in self.sizes or wanted > self._free:
            return None
        try:
            room = torch.empty((self._count, size, size, 3), dtype=torch.uint8, device=self._device)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            return None  # it costs time and no result: they come from the source
        self._free -= wanted
        return room

    def _fill(self, squares: torch.Tensor, rows: torch.Tensor, places: torch.Tensor, size: int) -> None:
        new = ~self._filled[size][places]
        if not bool(new.any()):
            return
        fetched = self._source.fetch(rows[new], size).permute(0, 2, 3, 1).to(self._device, non_blocking=True)
        squares.index_copy_(0, places[new].to(self._device), fetched)
        self._filled[size][places[new]] = True


def on_device(
    source: ImageSource, rows: Sequence[torch.Tensor], device: torch.device, share: float = 1.0
) -> ImageSource:
    """A source for training on `device`: the same where that is the CPU, one that keeps `rows` on a GPU.

    What has no room there is copied to the GPU while it computes. `share` of all memory is this process's.
    """
    if device.type != "cuda":
        return source
    free, _ = torch.cuda.mem_get_info(device)
    ahead = PrefetchedImages(source, CudaTransfer(device))
    return DeviceImages(
        ahead, torch.cat(list(rows)), device, int(MEMORY_SHARE * min(free, left_of_share(device, share)))
    )
