"""What comparing pictures told, kept for later runs under the pictures' pixels.

Nothing is kept under names, rows or classes: renaming files costs nothing, and a picture that is added costs only its
own comparisons. What is kept is what was computed, bit for bit; a change of the code that computes it, or of the
libraries it calls, makes all of it another version.
"""

from __future__ import annotations

import hashlib
import io
import json
import platform
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from automl_vision.data.cache_entries import COMPARISONS
from automl_vision.data.content_store import ContentStore, NothingKept, Store
from automl_vision.data.decode import FileSignature
from automl_vision.data.lineage.agreement import Agreement
from automl_vision.data.lineage.keypoints import VARIANTS
from automl_vision.data.lineage.originals import Group
from automl_vision.data.lineage.picture import GUISE_NAMES
from automl_vision.data.lineage.registration import Registration

#: What computes the values: a change of any of it makes another version.
_MADE_BY = (
    "agreement.py",
    "comparison_cache.py",
    "cues.py",
    "fills.py",
    "keypoints.py",
    "overlay.py",
    "picking.py",
    "picture.py",
    "registration.py",
    "traces.py",
)
_LIBRARIES = ("numpy", "opencv-python-headless", "scipy")
_VARIANTS = tuple(VARIANTS)
#: Inliers, number of the variant, tiny, whether there is a map, number of the guise, and the agreement: correlation,
#: alike, places, covers; and how far it was moved and recoloured.
_REGISTRATION = struct.Struct("<i4B7d")
_MAP = np.dtype("<f8")

#: How two pictures were laid over each other: by key points alone, also without, or in all ways.
Asked = Literal["points", "laid", "again"]


@dataclass(frozen=True)
class Appearance:
    """What a picture looks like by itself.

    Attributes:
        plain: whether it has too few key points for its copies to be found by them.
        tiny: whether one of its sides is.
        traces: what in it looks made by augmentation, one line each.
    """

    plain: bool
    tiny: bool
    traces: tuple[str, ...]


@dataclass(frozen=True)
class Signed:
    """A file as the picker of originals sees it.

    Attributes:
        pixels: digest of its pixels, or of the file where these may be decoded at a fraction.
        signature: of the file.
        size: bytes of the file.
    """

    pixels: str
    signature: FileSignature
    size: int


@dataclass(frozen=True)
class ComparisonCache:
    """Values by the digests of the pixels that they were made from; None for what is not kept.

    Attributes:
        store: where they are.
        described_by: what makes the descriptors; those of another maker are not found.
    """

    store: Store = field(default_factory=NothingKept)
    described_by: str = ""

    def descriptor(self, pixels: str) -> NDArray[np.float16] | None:
        """(D) descriptor of a picture."""
        found = self.store.get(self._of_descriptor(pixels))
        return None if found is None else np.frombuffer(found, dtype="<f2")

    def keep_descriptor(self, pixels: str, descriptor: NDArray[np.float16]) -> None:
        """Keep (D) half precision numbers: 2 D bytes."""
        self.store.put(self._of_descriptor(pixels), descriptor.astype("<f2").tobytes())

    def appearance(self, pixels: str) -> Appearance | None:
        """What a picture looks like by itself."""
        found = self.store.get(_key("appearance", pixels))
        if found is None:
            return None
        plain, tiny, traces = json.loads(found)
        return Appearance(plain, tiny, tuple(traces))

    def keep_appearance(self, pixels: str, seen: Appearance) -> None:
        """Keep what a picture looks like by itself."""
        self.store.put(_key("appearance", pixels), json.dumps([seen.plain, seen.tiny, seen.traces]).encode())

    def registration(self, asked: Asked, pixels: tuple[str, str]) -> Registration | None:
        """How the second picture was laid over the first; the other way round is another question."""
        found = self.store.get(_key(asked, *pixels))
        return None if found is None else _registration_from(found)

    def keep_registration(self, asked: Asked, pixels: tuple[str, str], found: Registration) -> None:
        """Keep how the second picture was laid over the first: 119 bytes, 47 where there is no map."""
        self.store.put(_key(asked, *pixels), _registration_to(found))

    def group(self, members: Sequence[Signed]) -> Group | None:
        """The cues of a group, whose members are in this order."""
        found = self.store.get(_of_group(members))
        if found is None:
            return None
        with np.load(io.BytesIO(found), allow_pickle=False) as kept:
            return Group(kept["single"], kept["pairs"], tuple(kept["writers"].tolist()), tuple(kept["sizes"].tolist()))

    def keep_group(self, members: Sequence[Signed], group: Group) -> None:
        """Keep the cues of a group."""
        written = io.BytesIO()
        writers, sizes = np.array(group.writers), np.array(group.sizes)
        np.savez_compressed(written, single=group.single, pairs=group.pairs, writers=writers, sizes=sizes)
        self.store.put(_of_group(members), written.getvalue())

    def _of_descriptor(self, pixels: str) -> bytes:
        return _key("descriptor", self.described_by, pixels)


@contextmanager
def comparison_cache(folder: Path | None, described_by: str, notes: list[str]) -> Iterator[ComparisonCache]:
    """The cache in a folder, open for as long as it is used; one that keeps nothing where there is no folder.

    Args:
        folder: where decoded images are kept, too.
        described_by: what makes the descriptors.
        notes: is given what the user should know, at the end.
    """
    if folder is None or _VERSION is None:
        yield ComparisonCache(described_by=described_by)
        return
    store = ContentStore(folder / COMPARISONS, _VERSION)
    try:
        yield ComparisonCache(store, described_by)
    finally:
        store.close()
        notes += store.notes


def _version_of(folder: Path) -> str | None:
    """Digest of the code in `folder`, and of the libraries, that compute the values; None where there is no code."""
    digest = hashlib.blake2b(digest_size=8)
    digest.update(json.dumps([platform.machine(), *map(version, _LIBRARIES)]).encode())
    try:
        for name in _MADE_BY:
            digest.update(hashlib.blake2b((folder / name).read_bytes()).digest())
    except OSError:
        return None
    return digest.hexdigest()


#: Taken when the code is loaded: the files may be others by the time that it runs. None in a frozen program.
_VERSION = _version_of(Path(__file__).parent)


def _key(*parts: str) -> bytes:
    return hashlib.blake2b(json.dumps(parts).encode(), digest_size=16).digest()


def _of_group(members: Sequence[Signed]) -> bytes:
    return _key("group", *(json.dumps(astuple(each)) for each in members))


def _registration_to(found: Registration) -> bytes:
    agreed = found.agreement
    head = _REGISTRATION.pack(
        found.inliers,
        _VARIANTS.index(found.variant),
        found.tiny,
        found.map is not None,
        GUISE_NAMES.index(found.guise),
        agreed.correlation,
        agreed.alike,
        agreed.places,
        *agreed.covers,
        found.moved,
        found.recoloured,
    )
    return head if found.map is None else head + found.map.astype(_MAP).tobytes()


def _registration_from(kept: bytes) -> Registration:
    inliers, variant, tiny, has_map, guise, correlation, alike, places, *rest = _REGISTRATION.unpack_from(kept)
    agreed = Agreement(correlation, alike, places, (rest[0], rest[1]))
    onto = np.frombuffer(kept, _MAP, offset=_REGISTRATION.size).reshape(3, 3) if has_map else None
    return Registration(inliers, agreed, _VARIANTS[variant], bool(tiny), onto, GUISE_NAMES[guise], rest[2], rest[3])
