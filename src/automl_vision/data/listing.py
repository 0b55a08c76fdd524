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

    A file that is named is taken whatever its ending. A name that is no file is tried as a pattern. Names of nothing
    among others are given as they are, so that they keep their place and get an error of their own.

    Raises:
        DataError: nothing is at any of the names, or a table has no column of paths.
    """
    if not any(_leads_somewhere(name) for name in named):
        raise DataError("there is no image at this path", value=" ".join(named), fix="check the path or the pattern")
    for name in named:
        yield from _named(name)


def _leads_somewhere(name: str) -> bool:
    return _exists(name) or next(_matching(name), None) is not None


def _exists(name: str) -> bool:
    try:
        return Path(name).exists()
    except OSError:  # a name that no file can have, a folder that may not be entered
        return False


def _named(name: str) -> Iterator[Path]:
    path = Path(name)
    if _exists(name) and path.is_dir():
        yield from (path / each for each in sorted(Scan(path).images()))
    elif not _exists(name):
        yield from sorted(_matching(name)) or [path]
    elif is_table(path):
        yield from image_paths(path)
    else:
        yield path


def _matching(pattern: str) -> Iterator[Path]:
    found = glob.iglob(pattern, recursive=True) if glob.has_magic(pattern) else iter(())  # noqa: PTH207
    return (Path(name) for name in found)
