"""Small pictures on disk."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
from PIL import Image


def picture(file: Path, seed: int | None = None, size: tuple[int, int] = (12, 9)) -> Path:
    """Write a picture of its own pixels (those of its path, unless a seed is given); returns the file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(zlib.crc32(str(file).encode("utf-8", "surrogateescape")) if seed is None else seed)
    pixels = rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    with file.open("wb") as handle:
        Image.fromarray(pixels).save(handle, "PNG")
    return file
