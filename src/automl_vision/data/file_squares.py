"""Squares of a few images straight from their files, for what needs another size than the one that is stored."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from automl_vision.data.preprocess import square


@dataclass(frozen=True)
class FileSquares:
    """Images as squares of one size, opened whenever they are asked for.

    What training stores may be smaller than what tells copies apart: its size follows the budget.

    Attributes:
        pixels: row -> (H, W, 3) RGB as decoded.
        size: side in pixels.
        threads: that decode at once.
    """

    pixels: Callable[[int], NDArray[np.uint8]]
    size: int
    threads: int

    @property
    def sizes(self) -> tuple[int, ...]:
        """The one side."""
        return (self.size,)

    def plane_for(self, _size: int) -> int:
        """The one side."""
        return self.size

    def fetch(self, rows: torch.Tensor, size: int) -> torch.Tensor:
        """(B) int64 rows to (B, 3, size, size) uint8 in channels_last memory format.

        Raises:
            ValueError: another size is asked for.
        """
        if size != self.size:
            raise ValueError(f"only squares of side {self.size} are made, got {size=}")
        with ThreadPoolExecutor(max(1, self.threads), thread_name_prefix="decode") as pool:
            squares = list(pool.map(self._square, rows.tolist()))
        return torch.from_numpy(np.stack(squares)).permute(0, 3, 1, 2)

    def _square(self, row: int) -> NDArray[np.uint8]:
        return square(self.pixels(row), self.size)
