"""A pipeline: what turns a picture into a copy of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image

Picture = Image.Image
Rng = np.random.Generator
Kind = Literal["single", "chain"]
#: RGB picture in, RGB picture out; the same for the same state of the generator.
Change = Callable[[Picture, Rng], Picture]


@dataclass(frozen=True)
class Pipeline:
    """One way to make a copy.

    Attributes:
        operation: what it does, in words that a file name may hold.
        library: that does it.
        kind: one operation that is always applied, or several as tutorials chain them.
        change: does it.
    """

    operation: str
    library: str
    kind: Kind
    change: Change

    @property
    def name(self) -> str:
        """In tables: library and operation."""
        return f"{self.library}/{self.operation}"


def seed_from(rng: Rng) -> int:
    """A seed for a library's own generator."""
    return int(rng.integers(2**31 - 1))
