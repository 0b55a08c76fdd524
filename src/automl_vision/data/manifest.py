"""The list of labelled images that every later stage works on."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from automl_vision.data.files import Place

if TYPE_CHECKING:
    from automl_vision.data.shards.sharded import Sharded

#: Characters of a class name: model files with longer ones are not read.
LONGEST_CLASS_NAME = 1000
#: Classes, and bytes of all their names: what a model file says of more of them is not read again.
MOST_CLASSES, LARGEST_CLASS_NAMES = 50_000, 4 << 20
#: The sets that a user's own split may name, with the spellings that are understood.
SET_NAMES: dict[str, str] = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
}


@dataclass(frozen=True)
class Manifest:
    """Labelled images, before any of them was opened.

    Rows are in the order of `paths`, sorted, so the order in which a reader met the files does not matter.

    Attributes:
        root: folder that relative paths start from.
        paths: (N) posix paths, relative to `root` where the file is inside it, else absolute.
        labels: (N) class index of each row, 0 <= label < C.
        class_names: (C) sorted, unique.
        split: (N) the user's own set of each row ("train", "val", "test" or None), or None without one.
        group: (N) the user's own group of each row (None: no group), or None without a column.
        is_augmented: (N) True for a copy, False for an original, None for unknown; None without a column.
        ignored: what reading passed over: reason -> number of files or folders.
        empty_classes: class folders in which nothing usable was found.
        outside: images that lie outside of `root`, to which links inside of it lead.
        sharded: (N) where the images lie in shards; None for files. Paths are then names, and nothing is there.
    """

    root: Path
    paths: tuple[str, ...]
    labels: NDArray[np.int64]
    class_names: tuple[str, ...]
    split: tuple[str | None, ...] | None = None
    group: tuple[str | None, ...] | None = None
    is_augmented: tuple[bool | None, ...] | None = None
    ignored: Mapping[str, int] = field(default_factory=dict)
    empty_classes: tuple[str, ...] = ()
    outside: int = 0
    sharded: Sharded | None = None

    def __len__(self) -> int:
        return len(self.paths)

    def file(self, row: int) -> Place:
        """The image of `row`: the absolute path of its file, or where it is stored with others."""
        return self.root / self.paths[row] if self.sharded is None else self.sharded.image(row)

    @property
    def reading_order(self) -> NDArray[np.int64]:
        """(N) rows in the order in which all of them are read fastest."""
        return np.arange(len(self)) if self.sharded is None else self.sharded.reading_order

    @cached_property
    def fingerprint(self) -> str:
        """Digest over paths, labels and the user's columns: equal manifests have equal fingerprints."""
        digest = hashlib.blake2b(digest_size=16)
        columns = (self.split, self.group, self.is_augmented)
        for row, path in enumerate(self.paths):
            own = [path, self.class_names[self.labels[row]], *(str(c[row]) if c else "" for c in columns)]
            digest.update("\x1f".join(own).encode("utf-8", "surrogateescape") + b"\x1e")
        return digest.hexdigest()

    def subset(self, rows: NDArray[np.int64]) -> Manifest:
        """The manifest of `rows` alone (kept in sorted order); class names stay as they are."""
        keep = np.sort(rows)

        def pick(column: tuple[Any, ...] | None) -> tuple[Any, ...] | None:
            return None if column is None else tuple(column[i] for i in keep)

        return Manifest(
            root=self.root,
            paths=tuple(self.paths[i] for i in keep),
            labels=self.labels[keep],
            class_names=self.class_names,
            split=pick(self.split),
            group=pick(self.group),
            is_augmented=pick(self.is_augmented),
            ignored=self.ignored,
            empty_classes=self.empty_classes,
            outside=self.outside,
            sharded=None if self.sharded is None else self.sharded.take(keep),
        )


def scattered_rows(manifest: Manifest) -> list[int]:
    """All rows in an order that has nothing to do with folders and names, the same each time; for taking a few."""

    def key(row: int) -> bytes:
        return hashlib.blake2b(manifest.paths[row].encode("utf-8", "surrogateescape"), digest_size=8).digest()

    return sorted(range(len(manifest)), key=key)


def is_class_name(text: str) -> bool:
    """Whether it is text, or text with bytes of a file name that are none (U+DC80 to U+DCFF), and not too long.

    Other halves of surrogate pairs are written by nobody but who crafts a file, and no table gives them back.
    """
    try:
        text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return False
    return len(text) <= LONGEST_CLASS_NAME
