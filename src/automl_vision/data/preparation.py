"""From a path to rows that may be trained on, chosen with and tested on: the data stages in their order."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from automl_vision.config import Settings
from automl_vision.data.audit import Audit, audit
from automl_vision.data.decode import FileSignature, open_rgb, signature_of
from automl_vision.data.facts import Compared, Facts
from automl_vision.data.files import Place, read_bytes
from automl_vision.data.fingerprint import Fingerprint, Marks
from automl_vision.data.label_map import apply_label_map
from automl_vision.data.lineage.groups import declared_groups
from automl_vision.data.manifest import Manifest, scattered_rows
from automl_vision.data.plane_cache import cache_dir_of
from automl_vision.data.preprocess import SQUASH, decode_side_of, squares
from automl_vision.data.readable import too_many_unreadable
from automl_vision.data.readers import read
from automl_vision.data.readers.data_sets import is_data_set, read_data_set
from automl_vision.data.sample import sample
from automl_vision.data.shards.read import is_sharded, read_sharded
from automl_vision.data.split import Split, drop_small_classes, split, undealt
from automl_vision.data.store import (
    ImageStore,
    SealedRowError,
    build_store,
    store_of_files,
    thumbnails,
    undecoded_files,
)
from automl_vision.errors import DataError, ImageReadError
from automl_vision.main_memory import give_back
from automl_vision.runtime import available_threads

if TYPE_CHECKING:
    from automl_vision.data.lineage.sight import NamedDescribe

#: Images that are decoded to learn how long all of them will take.
TIMED_IMAGES = 16


@dataclass(frozen=True)
class Prepared:
    """Everything that is known of the data before training.

    Attributes:
        manifest: N rows.
        facts: what decoding told, N rows.
        audit: findings and lineage.
        split: which row belongs to which set.
        store: the decoded images; in what the stages of a run are given, `sealed`.
        dropped_classes: classes that were left out because they have too few originals.
        refused: why no sets can be dealt, where data that cannot be trained on are looked at all the same; `split` is
            then what stands before dealing.
    """

    manifest: Manifest
    facts: Facts
    audit: Audit
    split: Split
    store: ImageStore
    dropped_classes: tuple[str, ...] = ()
    refused: DataError | None = None

    def labels(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """(n) labels of `rows`."""
        return self.manifest.labels[rows]

    def groups(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """(n) lineage groups of `rows`."""
        return self.audit.lineage.group[rows]

    @cached_property
    def fingerprint(self) -> Fingerprint:
        """What tells later whether an image was among these; read from the facts, not from the images."""
        name, group = self.split.name, self.audit.lineage.group

        def marks(*sets: str) -> Marks:
            placed = np.isin(name, sets)
            # A copy that was set aside is known as well as what it was made from.
            rows = placed | ((name == "aside") & np.isin(group, group[placed]))
            facts = self.facts.take(np.flatnonzero(rows))
            return Marks.of(facts.known_digests.tolist(), facts.picture_hashes.tolist())

        return Fingerprint(seen=marks("train", "val"), test=marks("test"))

    def sealed(self) -> Prepared:
        """The same, with a store that shows training and validation only.

        Test images raise `SealedRowError`, and so does what was set aside, copies of test images among it; copies of
        validation images can be read.
        """
        shown = np.concatenate([self.split.rows("train"), self.split.rows("val"), self.split.augmented_val])
        hidden = np.setdiff1d(np.arange(len(self.manifest)), shown)
        return replace(self, store=self.store.sealed(hidden))

    def open_test(self, ledger: Sequence[Mapping[str, Any]]) -> Prepared:
        """The same, with test images that can be read: only for whoever wrote that down before.

        Args:
            ledger: every look at the test set, this one last, as `RunDir.record_look` gives it.

        Raises:
            SealedRowError: the ledger is empty, or its last look is at another number of images.
        """
        test = self.split.rows("test")
        if not ledger or ledger[-1]["images"] != len(test):
            raise SealedRowError("the test set is opened for a look that is in the ledger, and for no other")
        return replace(self, store=self.store.opened(test))


def read_manifest(
    data: Path,
    settings: Settings,
    tell: Callable[[str], None] = lambda _: None,
    ask: Callable[[], object] = lambda: None,
) -> Manifest:
    """The list of images, with labels merged and the number of images limited as the settings say.

    Args:
        data: a folder or a table, `hf:NAME`, or shards and their URL.
        settings: all settings.
        tell: told what takes long.
        ask: asked while another process is waited for; ends the waiting by an error of its own.

    Raises:
        DataError: there are no labelled images, a table has faulty rows, or a pattern matches no path.
    """
    if is_data_set(data):
        manifest = read_data_set(data, settings, cache_folder(settings), tell, ask)
    elif is_sharded(data):
        manifest = read_sharded(data, settings, tell)
        give_back()
    else:
        manifest = read(data, settings.data)
    _require_matches("--group-regex", settings.data.group_regex, manifest)
    _require_matches("--original-regex", settings.data.original_regex, manifest)
    if settings.data.label_map:
        manifest = apply_label_map(manifest, Path(settings.data.label_map))
    if 0 < settings.data.max_samples < len(manifest):
        manifest = limited(manifest, settings, settings.data.max_samples)
    return manifest


def _require_matches(option: str, pattern: str, manifest: Manifest) -> None:
    """A mistyped pattern would keep nothing together, and nobody would see that the test set leaks."""
    if pattern and not any(map(re.compile(pattern).search, manifest.paths)):
        raise DataError(
            f"{option} matches no image",
            value=repr(pattern),
            fix=f"it is searched in paths like {manifest.paths[0]!a}",
        )


def cache_folder(settings: Settings) -> Path | None:
    """Where decoded images are kept; None where they are not."""
    if not settings.machine.cache:
        return None
    return cache_dir_of(settings.machine.cache_dir)


def planned_decode_side(settings: Settings, sizes: Sequence[int]) -> int:
    """What images are decoded with where squares of the given sides are stored, see `preprocess.Preprocessing`."""
    return decode_side_of(sizes) if settings.data.draft else 0


def files_to_decode(
    manifest: Manifest,
    settings: Settings,
    sizes: Sequence[int],
    threads: int,
    *,
    decode_side: int,
    resize: str = SQUASH,
) -> int:
    """How many files no earlier run left decoded in the cache; every file is read to know it."""
    folder = cache_folder(settings)
    if folder is None:
        return len(manifest)
    return undecoded_files(manifest, sizes, folder, threads, decode_side, resize)


def decode(
    manifest: Manifest,
    settings: Settings,
    sizes: Sequence[int],
    threads: int,
    progress: Callable[[int, int], None] | None = None,
    *,
    decode_side: int | None = None,
    resize: str = SQUASH,
    tell: Callable[[str], None] | None = None,
) -> tuple[ImageStore, Facts]:
    """Decode every image once into squares of the given sides.

    Args:
        manifest: N rows.
        settings: what is kept where, and whether large JPEGs are decoded at a fraction.
        sizes: sides of the squares in pixels.
        threads: that read and decode.
        progress: called with (distinct files looked into, distinct files in all).
        decode_side: see `preprocess.Preprocessing`; None: as planned for these squares.
        resize: see there.
        tell: told of another process that this one waits for.

    Raises:
        DataError: a file changes while it is read.
    """
    gigabytes = settings.machine.cache_gigabytes
    most = None if gigabytes is None else int(gigabytes * 1e9)
    side = planned_decode_side(settings, sizes) if decode_side is None else decode_side
    ahead = settings.machine.decode_ahead
    built = build_store(manifest, sizes, cache_folder(settings), threads, progress, most, side, resize, ahead, tell)
    if manifest.sharded is not None:
        give_back()
    return built


def decode_seconds(manifest: Manifest, sizes: Sequence[int], decode_side: int) -> float:
    """Seconds that one thread takes for one image, from a few of them; 0 where none of those can be read."""
    spent = [_seconds_of(manifest.file(row), sizes, decode_side) for row in scattered_rows(manifest)[:TIMED_IMAGES]]
    known = [seconds for seconds in spent if seconds is not None]
    return sum(known) / len(known) if known else 0.0


def limited(manifest: Manifest, settings: Settings, count: int) -> Manifest:
    """At most `count` images: whole groups, every class in proportion."""
    return sample(manifest, declared_groups(manifest, settings.data), count, settings.machine.seed)


def _seconds_of(file: Place, sizes: Sequence[int], decode_side: int) -> float | None:
    started = time.monotonic()
    try:
        squares(open_rgb(file, decode_side).pixels, sizes)
    except ImageReadError:
        return None  # decoding all images will name it
    return time.monotonic() - started


def compare_pictures(
    manifest: Manifest,
    facts: Facts,
    settings: Settings,
    describe: NamedDescribe | None,
    threads: int,
    seconds: float,
    progress: Callable[[int, int], None] | None = None,
    note: Callable[[str], None] | None = None,
) -> Compared:
    """What laying similar pictures over each other tells, see `data.lineage.comparison`.

    Args:
        manifest: N rows.
        facts: N rows.
        settings: all settings.
        describe: features that tell which pictures are similar; None for thumbnails.
        threads: that compare at once.
        seconds: after which nothing new begins.
        progress: called with (pictures described, pictures in all), then with (pairs dealt with, pairs in all).
        note: told why what was seen is not kept for later runs, where it cannot be.
    """
    # OpenCV: only where it is asked for
    from automl_vision.data.lineage.comparison import compare
    from automl_vision.data.lineage.comparison_cache import comparison_cache
    from automl_vision.data.lineage.sight import Sight

    notes: list[str] = []
    described_by = "thumbnails" if describe is None else describe.name
    pixels, signature = partial(read_pixels, manifest), partial(_signature, manifest)
    with comparison_cache(cache_folder(settings), described_by, notes) as cache:
        sight = Sight(pixels, describe, threads, seconds, signature, cache)
        found = compare(manifest, facts, settings.data, sight, progress)
    if note:
        for text in notes:
            note(text)
    return found


def read_pixels(manifest: Manifest, row: int) -> NDArray[np.uint8]:
    """(H, W, 3) RGB of an image that was read before.

    Raises:
        DataError: it cannot be read any more.
    """
    try:
        return open_rgb(manifest.file(row)).pixels
    except ImageReadError as error:
        raise _changed(manifest, row) from error


def _signature(manifest: Manifest, row: int) -> FileSignature:
    try:
        return signature_of(read_bytes(manifest.file(row)))
    except ImageReadError as error:
        raise _changed(manifest, row) from error


def _changed(manifest: Manifest, row: int) -> DataError:
    return DataError(
        "an image changed while it was being read",
        value=ascii(manifest.paths[row]),
        fix="run again when nothing writes to the data",
    )


def _split(manifest: Manifest, facts: Facts, found: Audit, settings: Settings) -> Split:
    try:
        return split(manifest, facts, found, settings.split, seed=settings.machine.seed)
    except DataError as error:
        if not any(link.evidence == "bursts" for link in found.lineage.links):
            raise
        fix = f"{error.fix}; or give a smaller --burst-window than {settings.data.burst_window}, or none"
        raise DataError(error.what, value=error.value, fix=fix) from error


def _whole_images(manifest: Manifest, facts: Facts, store: ImageStore, settings: Settings) -> ImageStore:
    """What images are recognised by: all of each, whatever networks see of them."""
    if store.resize == SQUASH:
        return store
    threads = settings.machine.threads or available_threads()
    return store_of_files(manifest, facts, store.sizes[0], threads, store.decode_side)


def prepare(manifest: Manifest, facts: Facts, store: ImageStore, settings: Settings) -> Prepared:
    """Check the images, trace copies and deal the sets.

    Raises:
        DataError: too many images cannot be read, there are fewer than two classes, or a class has too few originals
            to be in every set.
    """
    prepared = prepare_to_look(manifest, facts, store, settings)
    if prepared.refused is not None:
        raise prepared.refused
    return prepared


def prepare_to_look(manifest: Manifest, facts: Facts, store: ImageStore, settings: Settings) -> Prepared:
    """The same without an error: what is wrong with data that no sets can be dealt from can still be looked at."""
    whole = _whole_images(manifest, facts, store, settings)
    found = audit(manifest, facts, settings.data, partial(thumbnails, whole))
    refused = too_many_unreadable(manifest, facts, settings.data)
    if refused is not None:
        return Prepared(manifest, facts, found, undealt(manifest, facts, found), store, (), refused)
    dropped: tuple[str, ...] = ()
    if settings.data.drop_small_classes:
        all_rows, names = {path: row for row, path in enumerate(manifest.paths)}, manifest.class_names
        manifest, facts = drop_small_classes(manifest, facts, found)
        dropped = tuple(name for name in names if name not in manifest.class_names)
        kept = np.array([all_rows[path] for path in manifest.paths], dtype=np.int64)
        store, whole = store.take(kept), whole.take(kept)
        found = audit(manifest, facts, settings.data, partial(thumbnails, whole))
    try:
        dealt = _split(manifest, facts, found, settings)
    except DataError as error:
        return Prepared(manifest, facts, found, undealt(manifest, facts, found), store, dropped, error)
    return Prepared(manifest, facts, found, dealt, store, dropped)
