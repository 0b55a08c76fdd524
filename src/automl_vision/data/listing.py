"""Images that a user names to predict: files, folders, patterns, or tables with a column of paths."""

from __future__ import annotations

import glob  # `Path.glob` takes no pattern with a root
from collections.abc import Iterator, Sequence
from pathlib import Path

from automl_vision.data.readers.scan import Scan
from automl_vision.data.readers.table import image_paths, is_table
from automl_vision.errors import DataError


def list_images(named: Sequence[str]) -> Iterator[Path]:
    """Paths of all images, lazily, in the order in which they are named; folders sorted.

    A file that is named is taken whatever its ending. A name that is no file is tried as a pattern.

    Raises:
        DataError: nothing is at a name, or a table has no column of paths.
    """
    for name in named:
        yield from _named(name)


def _named(name: str) -> Iterator[Path]:
    path = Path(name)
    if path.is_dir():
        yield from (path / each for each in sorted(Scan(path).images()))
    elif path.exists() and is_table(path):
        yield from image_paths(path)
    elif path.exists():
        yield path
    else:
        yield from _matching(name)


def _matching(pattern: str) -> Iterator[Path]:
    found = sorted(glob.iglob(pattern, recursive=True)) if glob.has_magic(pattern) else []  # noqa: PTH207
    if not found:
        raise DataError("there is no image at this path", value=pattern, fix="check the path or the pattern")
    for name in found:
        yield Path(name)
