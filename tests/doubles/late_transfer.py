"""A device that is none, for tests of images that are fetched ahead."""

from __future__ import annotations

import threading

import torch


class LateCopy:
    """A copy that is not done before somebody waits for it: only then are the bytes of the buffer looked at."""

    def __init__(self, pixels: torch.Tensor) -> None:
        self.pixels, self.there, self.lock = pixels, torch.zeros_like(pixels), threading.Lock()
        self.done = False

    def synchronize(self) -> None:
        with self.lock:
            if not self.done:
                self.there.copy_(self.pixels)
                self.done = True


class LateTransfer:
    """A way to a device whose copies end as late as they may."""

    device = torch.device("cpu")

    def __init__(self) -> None:
        self.buffers: list[int] = []

    def buffer(self, count: int) -> torch.Tensor:
        self.buffers.append(count)
        return torch.empty(count, dtype=torch.uint8)

    def start(self, pixels: torch.Tensor) -> tuple[torch.Tensor, LateCopy]:
        copy = LateCopy(pixels)
        return copy.there, copy

    def receive(self, pixels: torch.Tensor, done: LateCopy) -> None:
        done.synchronize()
