"""Every image decoded once, fetched by row as uint8 squares from a file.

A square holds exactly what deployment preprocessing makes of the file, so what a network is validated on is
what it will meet. The files lie in a cache folder under a digest of the files' contents: renaming or
relabelling files decodes nothing, and all trials and later runs share them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from automl_vision.data.facts import FACT_COLUMNS, Facts
from automl_vision.data.manifest import Manifest
from automl_vision.data.plane import Plane, ShortPlane
from automl_vision.data.plane_cache import Disk, default_cache_dir, obtain
from automl_vision.data.planes import FORMAT, PLANE_ROW, PlaneWriter, open_squares
from automl_vision.data.survey import NOTHING_KNOWN, Fact, Found, find_files, in_order, look_into, whole_digest
from automl_vision.data.whole_digests import may_have_copies
from automl_vision.errors import DataError

__all__ = ["ImageStore", "SealedRowError", "build_store", "default_cache_dir"]

#: Fields along a side of a thumbnail, and images that are in memory at once to make them.
_FIELDS, _THUMBNAIL_BATCH = 16, 256

Progress = Callable[[int, int], None]
Rows = torch.Tensor | NDArray[np.int64] | Sequence[int]


class SealedRowError(RuntimeError):
    """A row was asked for that this view must not see: a mistake in the program, never in the data."""


class ImageStore:
    """The images of a manifest as uint8 squares of a few sizes.

    Attributes:
        sizes: sides in pixels, ascending.
        notes: what the user should know: where the images went when the cache folder could not take them.
        decode_side: what the images were decoded with, see `preprocess.Preprocessing`.
    """

    def __init__(
        self,
        squares: dict[int, Plane],
        plane_rows: NDArray[np.int64],
        disk: Disk,
        notes: tuple[str, ...] = (),
        hidden: NDArray[np.bool_] | None = None,
        decode_side: int = 0,
    ) -> None:
        self.sizes = tuple(sorted(squares))
        self.decode_side = decode_side
        self.notes = notes
        self._squares = squares
        self._plane_rows = plane_rows
        self._disk = disk
        self._hidden = np.zeros(len(plane_rows), dtype=np.bool_) if hidden is None else hidden

    def __len__(self) -> int:
        """Rows of the manifest, N."""
        return len(self._plane_rows)

    def __reduce__(self) -> tuple[Any, ...]:
        """A worker process opens the same files; only this process removes a temporary folder."""
        count = {len(plane) for plane in self._squares.values()}.pop()
        return _reopen, (
            self._disk.folder,
            count,
            self.sizes,
            self._plane_rows,
            self.notes,
            self._hidden,
            self.decode_side,
        )

    def has_image(self, rows: Rows) -> NDArray[np.bool_]:
        """(B) True where the row decoded.

        Raises:
            ValueError: a row is not in 0..N-1.
        """
        return np.asarray(self._plane_rows[self._within(rows)] >= 0, dtype=np.bool_)

    def fetch(self, rows: Rows, size: int) -> torch.Tensor:
        """Squares of some rows.

        Args:
            rows: (B) manifest rows.
            size: one of `sizes`.

        Returns:
            (B, 3, size, size) uint8 in channels_last memory format, a copy.

        Raises:
            ValueError: a row is not in 0..N-1, or has no image; the size is not stored; the store is closed.
            SealedRowError: a row is sealed.
            DataError: the file of decoded images was cut short, or its disk fails.
        """
        asked = self._within(rows)
        if self._hidden[asked].any():
            first = asked[self._hidden[asked]][0]
            raise SealedRowError(f"row {first} is sealed: this view must not see it")
        if size not in self._squares:
            raise ValueError(f"no squares of side {size} are stored, got {size=}; stored: {self.sizes}")
        plane_rows = self._plane_rows[asked]
        if (plane_rows < 0).any():
            raise ValueError(f"row {asked[plane_rows < 0][0]} has no image: it is quarantined")
        try:
            return torch.from_numpy(self._squares[size].read(plane_rows)).permute(0, 3, 1, 2)
        except (ShortPlane, OSError) as error:
            raise DataError(
                "decoded images cannot be read any more",
                value=f"{self._squares[size].file} ({error})",
                fix="check the disk, and run again: the images are decoded anew",
            ) from error

    def plane_for(self, size: int) -> int:
        """The smallest stored side of at least `size`, else the largest there is."""
        return next((side for side in self.sizes if side >= size), self.sizes[-1])

    def sealed(self, rows: Rows) -> ImageStore:
        """A view on the same files that refuses `rows`, and whatever this one refuses."""
        hidden = self._hidden.copy()
        hidden[self._within(rows)] = True
        return self._view(self._plane_rows, hidden)

    def opened(self, rows: Rows) -> ImageStore:
        """A view on the same files that shows `rows` again, and refuses what else this one refuses."""
        hidden = self._hidden.copy()
        hidden[self._within(rows)] = False
        return self._view(self._plane_rows, hidden)

    def take(self, rows: Rows) -> ImageStore:
        """A view on the same files for a manifest that keeps only `rows`, in that order."""
        kept = self._within(rows)
        return self._view(self._plane_rows[kept], self._hidden[kept])

    def close(self) -> None:
        """Let go of the files, for all views, and remove a temporary folder."""
        for plane in self._squares.values():
            plane.close()
        self._squares.clear()
        self._disk.release()

    def _view(self, plane_rows: NDArray[np.int64], hidden: NDArray[np.bool_]) -> ImageStore:
        return ImageStore(self._squares, plane_rows, self._disk, self.notes, hidden, self.decode_side)

    def _within(self, rows: Rows) -> NDArray[np.int64]:
        index = rows.cpu().numpy() if isinstance(rows, torch.Tensor) else np.asarray(rows)
        if index.ndim != 1 or (index.size and index.dtype.kind not in "iu"):
            raise ValueError(f"rows must be a list of whole numbers, got {index.dtype} of shape {index.shape}")
        index = index.astype(np.int64)
        if index.size and not 0 <= index.min() <= index.max() < len(self):
            raise ValueError(f"rows must be in 0..{len(self) - 1}, got {index.min()}..{index.max()}")
        return index


def _reopen(
    folder: Path,
    count: int,
    sizes: tuple[int, ...],
    plane_rows: NDArray[np.int64],
    notes: tuple[str, ...],
    hidden: NDArray[np.bool_],
    decode_side: int,
) -> ImageStore:
    return ImageStore(open_squares(folder, count, sizes), plane_rows, Disk(folder), notes, hidden, decode_side)


def build_store(
    manifest: Manifest,
    sizes: Sequence[int],
    cache_dir: Path | None,
    threads: int,
    progress: Progress | None = None,
    most_bytes: int | None = None,
    decode_side: int = 0,
) -> tuple[ImageStore, Facts]:
    """Decode every image of a manifest once, or find it decoded.

    Args:
        manifest: N rows. Files that cannot be used are quarantined in the facts and never fatal.
        sizes: sides of the squares in pixels.
        cache_dir: where decoded images stay for later runs; None keeps them until the store is closed.
        threads: that read and decode; memory grows with them and not with N.
        progress: called with (distinct files looked into, distinct files in all).
        most_bytes: what the cache folder may grow to; None for a share of its disk.
        decode_side: see `preprocess.Preprocessing`; 0 decodes every image wholly.

    Raises:
        DataError: there is no room for the decoded images, or a file changes while it is read.
        ValueError: `sizes` are not positive whole numbers.
    """
    sides = _checked_sizes(sizes)
    files = [manifest.file(row) for row in range(len(manifest))]
    found = find_files(files, threads)
    by_digest = {each.digest: file for each, file in zip(found, files, strict=True) if each.digest}
    tell = progress or _silent
    fill = partial(_fill, sorted(by_digest.items()), sides, decode_side, threads, tell)
    planes, disk, notes = obtain(_key(by_digest, sides, decode_side), sides, cache_dir, fill, most_bytes)
    tell(len(by_digest), len(by_digest))
    table, plane_rows = _in_manifest_order(found, planes.facts)
    return ImageStore(planes.squares, plane_rows, disk, notes, decode_side=decode_side), Facts(table)


def thumbnails(store: ImageStore, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """(n, D) mean grey of at most 16 x 16 fields of the smallest squares.

    Raises:
        ValueError: a row is not in the store, or has no image.
    """
    size = store.sizes[0]
    edges = np.linspace(0, size, min(_FIELDS, size) + 1).astype(np.int64)
    batches = [rows[start : start + _THUMBNAIL_BATCH] for start in range(0, len(rows), _THUMBNAIL_BATCH)]
    small = [_fields(store.fetch(batch, size), edges) for batch in batches]
    return np.concatenate(small) if small else np.zeros((0, (len(edges) - 1) ** 2), np.float32)


def _fields(images: torch.Tensor, edges: NDArray[np.int64]) -> NDArray[np.float32]:
    grey = images.float().mean(dim=1).numpy()
    sums = np.add.reduceat(np.add.reduceat(grey, edges[:-1], axis=1), edges[:-1], axis=2)
    widths = np.diff(edges)
    return np.asarray((sums / np.outer(widths, widths)).reshape(len(grey), -1), dtype=np.float32)


def is_stored(manifest: Manifest, sizes: Sequence[int], cache_dir: Path, threads: int, decode_side: int = 0) -> bool:
    """Whether `build_store` would find these images decoded in `cache_dir`; every file is read to know it."""
    files = [manifest.file(row) for row in range(len(manifest))]
    by_digest = {each.digest: file for each, file in zip(find_files(files, threads), files, strict=True) if each.digest}
    return (cache_dir / _key(by_digest, _checked_sizes(sizes), decode_side)).is_dir()


def _silent(_done: int, _total: int) -> None:
    return


def _checked_sizes(sizes: Sequence[int]) -> tuple[int, ...]:
    if not sizes or any(type(size) is not int or size < 1 for size in sizes):
        raise ValueError(f"sizes must be positive whole numbers, at least one, got {sizes=}")
    return tuple(sorted(set(sizes)))


def _key(digests: dict[str, Path], sizes: tuple[int, ...], decode_side: int) -> str:
    """Names of files, labels and order are not in the key; what could change a pixel is."""
    pillow = version("pillow").split(".")[0]
    digest = hashlib.blake2b(json.dumps([FORMAT, pillow, list(sizes), decode_side]).encode(), digest_size=16)
    for each in sorted(digests):
        digest.update(bytes.fromhex(each))
    return digest.hexdigest()


def _fill(
    files: list[tuple[str, Path]],
    sizes: tuple[int, ...],
    decode_side: int,
    threads: int,
    progress: Progress,
    folder: Path,
) -> None:
    """Decode the files, given as (digest, path), into an empty folder."""
    facts: list[Fact] = []

    def look(item: tuple[str, Path]) -> tuple[Fact, Any]:
        return look_into(item[1], item[0], sizes, decode_side)

    with PlaneWriter(folder, sizes, len(files)) as writer:
        for fact, squares in in_order(look, files, threads):
            row = -1 if squares is None else writer.append(squares)
            facts.append(fact | {PLANE_ROW: row})
            progress(len(facts), len(files))
        writer.finish(_with_whole_digests(_table(facts), files, threads, progress))


def _with_whole_digests(
    facts: pd.DataFrame, files: list[tuple[str, Path]], threads: int, progress: Progress
) -> pd.DataFrame:
    """The facts of `files`, with the digests of whole pixels where equal ones could be missed without them."""
    rows = may_have_copies(facts)
    digests = facts["whole_digest"].to_numpy(dtype=object).copy()

    def look(row: int) -> str:
        return whole_digest(files[row][1], files[row][0])

    for row, digest in zip(rows.tolist(), in_order(look, rows.tolist(), threads), strict=True):
        digests[row] = digest
        progress(len(files), len(files))  # it may stop the work
    return facts.assign(whole_digest=pd.Series(digests, dtype="str"))


def _table(facts: list[Fact]) -> pd.DataFrame:
    example = NOTHING_KNOWN | {PLANE_ROW: -1}
    columns = {name: [fact[name] for fact in facts] for name in [*FACT_COLUMNS, PLANE_ROW]}
    types = {
        name: {int: "int64", bool: "bool", float: "float64"}.get(type(value), "str") for name, value in example.items()
    }
    return pd.DataFrame(columns).astype(types)


def _in_manifest_order(found: list[Found], facts: pd.DataFrame) -> tuple[pd.DataFrame, NDArray[np.int64]]:
    """Facts of all N rows, and their rows in the planes; identical files share theirs."""
    place = {digest: at for at, digest in enumerate(facts["file_digest"])}
    unread = [each for each in found if not each.digest]
    extra = _table([NOTHING_KNOWN | {"fault": u.kind, "detail": u.detail, PLANE_ROW: -1} for u in unread])
    everything = pd.concat([facts, extra], ignore_index=True)
    following = iter(range(len(facts), len(everything)))
    order = [place[each.digest] if each.digest else next(following) for each in found]
    table = everything.take(order).reset_index(drop=True)
    return table[list(FACT_COLUMNS)], table[PLANE_ROW].to_numpy(dtype=np.int64)
