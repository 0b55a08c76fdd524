"""Every image decoded once, fetched by row as uint8 squares from a file.

A square holds exactly what deployment preprocessing makes of the file, so what a network is validated on is
what it will meet. The files lie in a cache folder under a digest of the files' contents: renaming or
relabelling files decodes nothing, and all trials and later runs share them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from automl_vision.data.build import Progress, Wanted, undecoded
from automl_vision.data.donors import Donors
from automl_vision.data.fact_table import PLANE_ROW, table_of
from automl_vision.data.facts import FACT_COLUMNS, Facts
from automl_vision.data.files import Place
from automl_vision.data.manifest import Manifest
from automl_vision.data.plane import FilePlane, Plane, ShortPlane
from automl_vision.data.plane_cache import TemporaryFolder, default_cache_dir, obtain
from automl_vision.data.planes import DamagedPlanes, how_it_was_made, how_made, open_squares, read_facts, read_index
from automl_vision.data.preprocess import SQUASH
from automl_vision.data.survey import NOTHING_KNOWN, Found, find_files
from automl_vision.data.undisked import UndecodedPlane
from automl_vision.errors import DataError

__all__ = ["Files", "ImageStore", "SealedRowError", "build_store", "default_cache_dir", "open_store", "store_of_files"]

#: Fields along a side of a thumbnail, and images that are in memory at once to make them.
_FIELDS, _THUMBNAIL_BATCH = 16, 256

Rows = torch.Tensor | NDArray[np.int64] | Sequence[int]


@dataclass(frozen=True)
class Files:
    """Images that were looked into before, and how squares are made of them.

    Attributes:
        paths: (n) of the files, or where the images are stored with others.
        digests: (n) of what they held; a file that is another one by now is an error when it is decoded.
        sizes: sides of the squares in pixels.
        decode_side, resize: see `preprocess.Preprocessing`.
        reading_order: (n) rows in the order in which all of them are read fastest; None: any.
    """

    paths: tuple[Place, ...]
    digests: tuple[str, ...]
    sizes: tuple[int, ...]
    decode_side: int = 0
    resize: str = SQUASH
    reading_order: NDArray[np.int64] | None = None

    def in_order_of_decoding(self) -> dict[str, Place]:
        """Digest -> file, each once."""
        if self.reading_order is None:
            return dict(sorted(zip(self.digests, self.paths, strict=True), key=lambda each: each[0]))
        return {self.digests[row]: self.paths[row] for row in self.reading_order.tolist()}


class SealedRowError(RuntimeError):
    """A row was asked for that this view must not see: a mistake in the program, never in the data."""


class ImageStore:
    """The images of a manifest as uint8 squares of a few sizes.

    Attributes:
        sizes: sides in pixels, ascending.
        decode_side, resize: how the squares are made, see `preprocess.Preprocessing`.
        notes: what the user should know: where the images went when the cache folder could not take them.
    """

    def __init__(
        self,
        squares: dict[int, Plane],
        plane_rows: NDArray[np.int64],
        folder: TemporaryFolder | None,
        notes: tuple[str, ...] = (),
        hidden: NDArray[np.bool_] | None = None,
        decode_side: int = 0,
        resize: str = SQUASH,
    ) -> None:
        self.sizes = tuple(sorted(squares))
        self.decode_side = decode_side
        self.resize = resize
        self.notes = notes
        self._squares = squares
        self._plane_rows = plane_rows
        self._folder = folder
        self._hidden = np.zeros(len(plane_rows), dtype=np.bool_) if hidden is None else hidden

    def __len__(self) -> int:
        """Rows of the manifest, N."""
        return len(self._plane_rows)

    def __reduce__(self) -> tuple[Any, ...]:
        """A worker process opens the same files; only this process removes a temporary folder."""
        made = (self.decode_side, self.resize)
        return ImageStore, (self._squares, self._plane_rows, None, self.notes, self._hidden, *made)

    @property
    def folder(self) -> Path | None:
        """The folder in which the squares lie; None where they are held in memory or not at all."""
        places = {plane.file.parent if isinstance(plane, FilePlane) else None for plane in self._squares.values()}
        return places.pop() if len(places) == 1 else None

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
                value=f"{self._squares[size].place} ({error})",
                fix="check the disk, and run again: the images are decoded anew",
            ) from error

    def expect(self, rows: Rows, size: int) -> None:
        """Begin to read rows that `fetch` will be asked for soon; a disk serves many at once. Changes no result.

        Rows that `fetch` would refuse are passed by.
        """
        asked = self._within(rows)
        shown = asked[~self._hidden[asked]]
        plane_rows = self._plane_rows[shown]
        if size in self._squares:
            self._squares[size].expect(plane_rows[plane_rows >= 0])

    @property
    def is_on_demand(self) -> bool:
        """Whether squares are made of the files whenever they are asked for."""
        return any(isinstance(plane, UndecodedPlane) for plane in self._squares.values())

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
        if self._folder is not None:
            self._folder.release()

    def _view(self, plane_rows: NDArray[np.int64], hidden: NDArray[np.bool_]) -> ImageStore:
        made = (self.decode_side, self.resize)
        return ImageStore(self._squares, plane_rows, self._folder, self.notes, hidden, *made)

    def _within(self, rows: Rows) -> NDArray[np.int64]:
        index = rows.cpu().numpy() if isinstance(rows, torch.Tensor) else np.asarray(rows)
        if index.ndim != 1 or (index.size and index.dtype.kind not in "iu"):
            raise ValueError(f"rows must be a list of whole numbers, got {index.dtype} of shape {index.shape}")
        index = index.astype(np.int64)
        if index.size and not 0 <= index.min() <= index.max() < len(self):
            raise ValueError(f"rows must be in 0..{len(self) - 1}, got {index.min()}..{index.max()}")
        return index


def build_store(
    manifest: Manifest,
    sizes: Sequence[int],
    cache_dir: Path | None,
    threads: int,
    progress: Progress | None = None,
    most_bytes: int | None = None,
    decode_side: int = 0,
    resize: str = SQUASH,
    ahead: bool = True,
    told: Callable[[str], None] | None = None,
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
        resize: see there; the facts do not depend on it.
        ahead: whether squares are held; else they are made of the files whenever they are asked for.
        told: called with a line on another process that this one waits for.

    Raises:
        DataError: a file changes while it is read.
        ValueError: `sizes` are not positive whole numbers.
    """
    sides = _checked_sizes(sizes)
    files = [manifest.file(row) for row in range(len(manifest))]
    found = _found(manifest, files, threads)
    by_digest = {each.digest: file for each, file in zip(found, files, strict=True) if each.digest}
    tell = progress or _silent
    wanted = Wanted(
        _in_order_of_decoding(manifest, found, by_digest),
        sides,
        threads,
        tell,
        decode_side,
        resize,
        ahead,
        partial(_known_facts, manifest, found, decode_side) if manifest.sharded is not None else None,
        told or _silent,
    )
    planes, folder, notes = obtain(_key(by_digest, sides, decode_side, resize), wanted, cache_dir, most_bytes)
    tell(len(by_digest), len(by_digest))
    table, plane_rows = _in_manifest_order(found, planes.facts)
    store = ImageStore(dict(planes.squares), plane_rows, folder, notes, decode_side=decode_side, resize=resize)
    return store, Facts(table)


def store_of_files(
    manifest: Manifest, facts: Facts, size: int, threads: int, decode_side: int = 0, resize: str = SQUASH
) -> ImageStore:
    """Squares of one side that are made of the files whenever they are asked for: for looking at a few.

    Args:
        manifest: N rows.
        facts: N rows, as `build_store` gave them; a file that is another one by then is an error when it is fetched.
        size: side of the squares in pixels.
        threads: that decode at once.
        decode_side, resize: see `preprocess.Preprocessing`.
    """
    digests = facts.table["file_digest"].tolist()
    files = [(digest, manifest.file(row)) for row, digest in enumerate(digests)]
    rows = np.where(facts.usable, np.arange(len(files)), -1)
    plane = UndecodedPlane(files, size, threads, decode_side, resize)
    return ImageStore({size: plane}, rows, None, decode_side=decode_side, resize=resize)


def open_store(
    count: int,
    rows: NDArray[np.int64],
    files: Files,
    threads: int,
    *,
    folder: Path | None,
    cache_dir: Path | None,
    most_bytes: int | None = None,
) -> ImageStore:
    """Squares of some rows, for a process that is told what another one found out. All other rows are sealed.

    Args:
        count: rows of the manifest, N.
        rows: (n) those that have an image.
        files: (n) of these rows.
        threads: that decode, where they must be decoded here.
        folder: where that process has them, if this one sees it. None: nowhere, they are decoded when they are asked
            for.
        cache_dir: where they are sought, or decoded once for all processes of this machine, if `folder` is not here.
        most_bytes: what the cache folder may grow to; None for a share of its disk.

    Raises:
        DataError: a file changed, or cannot be decoded any more.
    """
    squares, place, temporary = _squares_of(files, threads, folder, cache_dir, most_bytes)
    unknown = [path for path, digest in zip(files.paths, files.digests, strict=True) if place.get(digest, -1) < 0]
    if unknown:
        raise DataError(
            "an image cannot be read any more",
            value=ascii(str(unknown[0])),
            fix="restore it, or start a new run",
        )
    plane_rows, hidden = np.full(count, -1, dtype=np.int64), np.ones(count, dtype=np.bool_)
    plane_rows[rows] = [place[digest] for digest in files.digests]
    hidden[rows] = False
    return ImageStore(squares, plane_rows, temporary, (), hidden, files.decode_side, files.resize)


def _squares_of(
    files: Files, threads: int, folder: Path | None, cache_dir: Path | None, most_bytes: int | None
) -> tuple[dict[int, Plane], dict[str, int], TemporaryFolder | None]:
    """Squares by side, digest -> row in them, and the temporary folder that they lie in if they do."""
    by_digest = files.in_order_of_decoding()
    if folder is None:
        own = list(by_digest.items())
        undecoded: dict[int, Plane] = {
            size: UndecodedPlane(own, size, threads, files.decode_side, files.resize) for size in files.sizes
        }
        return undecoded, {digest: at for at, (digest, _) in enumerate(own)}, None
    try:
        return (*_found_in(folder, files), None)
    except DamagedPlanes:  # it is on another machine, or gone
        sides = _checked_sizes(files.sizes)
    wanted = Wanted(by_digest, sides, threads, _silent, files.decode_side, files.resize)
    key = _key(by_digest, sides, files.decode_side, files.resize)
    planes, temporary, _ = obtain(key, wanted, cache_dir, most_bytes)
    place = dict(zip(planes.facts["file_digest"], planes.facts[PLANE_ROW], strict=True))
    return dict(planes.squares), place, temporary


def _found_in(folder: Path, files: Files) -> tuple[dict[int, Plane], dict[str, int]]:
    """The same from a folder of decoded images; their checksums were compared when it was opened first.

    Raises:
        DamagedPlanes: it is not here, or is another one.
    """
    index = read_index(folder, files.sizes)
    if how_it_was_made(index) != how_made(files.sizes, files.decode_side, files.resize):
        raise DamagedPlanes(f"{folder.name}: made in another way")
    facts = read_facts(folder, index, ("file_digest", PLANE_ROW))
    place = dict(zip(facts["file_digest"], facts[PLANE_ROW], strict=True))
    return dict(open_squares(folder, index["count"], files.sizes)), place


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


def undecoded_files(
    manifest: Manifest,
    sizes: Sequence[int],
    cache_dir: Path,
    threads: int,
    decode_side: int = 0,
    resize: str = SQUASH,
) -> int:
    """How many files `build_store` would have to decode with this cache; every file is read to know it."""
    sides = _checked_sizes(sizes)
    found = _found(manifest, [manifest.file(row) for row in range(len(manifest))], threads)
    digests = {each.digest for each in found if each.digest}
    return undecoded(digests, Donors(cache_dir, sides, decode_side=decode_side, resize=resize).offering)


def _found(manifest: Manifest, files: Sequence[Place], threads: int) -> list[Found]:
    """What is at each row; what lies in shards is read in the order in which it lies."""
    order = manifest.reading_order
    found = find_files((files[row] for row in order.tolist()), threads)
    return [found[at] for at in np.argsort(order).tolist()]


def _in_order_of_decoding(manifest: Manifest, found: Sequence[Found], files: Mapping[str, Place]) -> dict[str, Place]:
    """Digest -> file: the order changes nothing but how far apart lies what is read one after the other."""
    if manifest.sharded is None:
        return dict(sorted(files.items()))
    digests = (found[row].digest for row in manifest.reading_order.tolist())
    return {digest: files[digest] for digest in dict.fromkeys(digests) if digest}


def _known_facts(manifest: Manifest, found: Sequence[Found], decode_side: int) -> pd.DataFrame | None:
    """Facts that came with shards, of the distinct files that would be decoded at the same fraction here."""
    if manifest.sharded is None:
        return None
    read = np.array([bool(each.digest) for each in found], dtype=np.bool_)
    return manifest.sharded.facts(how_made((), decode_side), read)


def _silent(*_told: object) -> None:
    return


def _checked_sizes(sizes: Sequence[int]) -> tuple[int, ...]:
    if not sizes or any(type(size) is not int or size < 1 for size in sizes):
        raise ValueError(f"sizes must be positive whole numbers, at least one, got {sizes=}")
    return tuple(sorted(set(sizes)))


def _key(digests: Collection[str], sizes: tuple[int, ...], decode_side: int, resize: str) -> str:
    """Names of files, labels and order are not in the key; what could change a pixel is."""
    made = list(how_made(sizes, decode_side, resize).values())
    digest = hashlib.blake2b(json.dumps(made).encode(), digest_size=16)
    for each in sorted(digests):
        digest.update(bytes.fromhex(each))
    return digest.hexdigest()


def _in_manifest_order(found: list[Found], facts: pd.DataFrame) -> tuple[pd.DataFrame, NDArray[np.int64]]:
    """Facts of all N rows, and their rows in the planes; identical files share theirs."""
    place = {digest: at for at, digest in enumerate(facts["file_digest"])}
    unread = [each for each in found if not each.digest]
    extra = table_of([NOTHING_KNOWN | {"fault": u.kind, "detail": u.detail, PLANE_ROW: -1} for u in unread])
    everything = pd.concat([facts, extra], ignore_index=True) if unread else facts
    following = iter(range(len(facts), len(everything)))
    order = [place[each.digest] if each.digest else next(following) for each in found]
    table = everything.take(order).reset_index(drop=True)
    return table[list(FACT_COLUMNS)], table[PLANE_ROW].to_numpy(dtype=np.int64)
