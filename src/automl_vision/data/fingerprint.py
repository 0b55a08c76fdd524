"""Digests that tell whether a model has seen an image: by its pixels, or by what it shows at a glance.

Two numbers per image. The *pixel digest* is equal for equal pixels, whatever the file. Of a large JPEG these are the
pixels of a fraction of its size (`decode.jpeg_scale`), so that a lossless copy of it has another digest. The *picture
hash* stays the same, or nearly so, when an image is saved again or scaled: the signs of the lowest frequencies of its
brightness, a perceptual hash (Zauner, "Implementation and Benchmarking of Perceptual Image Hash Functions", 2010, with
signs in place of a median). A mirrored or turned image has the same signs, some of them swapped, so that its hash
follows from that of the first. Neither number shows the image, but whoever has an image can tell whether it was used.

Some pictures have no hash, because it would be that of many others: plain ones, whose frequencies are too faint to have
a sign, and single blobs, rings and bars on an even ground (a star cluster, an icon), whose signs follow from where they
are. Such a picture is a product of one profile down and one across, so that its frequencies are nearly of rank one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from automl_vision.data.preprocess import square

#: Side in pixels of the square whose frequencies are looked at.
SIDE = 32
#: Frequencies per direction that are kept; all but the mean make up the hash.
FREQUENCIES = 8
#: A frequency with less than this amplitude (in grey levels, of an orthonormal transform) has a sign by chance.
FAINT = 8.0
#: Pictures with fewer than this many signs that are not by chance are too plain to be recognised.
FEWEST_SIGNS = 40
#: Pictures with more than this share of their energy in one product of profiles are no more telling than a blob.
LARGEST_PRODUCT = 0.8
#: Signs that may differ in a picture that counts as known. Chosen on pictures as the two above, see docs/LOG.md.
LARGEST_DISTANCE = 3
#: Pictures with a side of at most so many pixels have little to tell them apart: all signs must agree.
TINY = 64
#: Bytes of a pixel digest that are kept.
DIGEST_BYTES = 8

#: Pairs of hashes that are compared at once; bounds the memory.
_BLOCK = 4_000_000
#: Bits of a part of a hash, and where the parts begin. There is one more of them than signs may differ, so that two
#: hashes which are near each other have at least one part in common.
_PART_BITS = 16
_PARTS = tuple(range(0, 64, _PART_BITS))

How = Literal["", "exactly", "nearly"]
Hashes = NDArray[np.uint64]


@dataclass(frozen=True, eq=False)
class Marks:
    """What is kept of one set of images, in no order that says which belong together.

    Attributes:
        digests: (n) uint64, sorted, each once: the first bytes of the pixel digests.
        hashes: (m) uint64, sorted, each once: picture hashes of the images that are not plain.
    """

    digests: Hashes
    hashes: Hashes

    @classmethod
    def of(cls, pixel_digests: Sequence[str], picture_hashes: Sequence[str]) -> Marks:
        """From hexadecimal text as the facts have it; empty text is left out."""
        digests = [int(each[: 2 * DIGEST_BYTES], 16) for each in pixel_digests if each]
        hashes = [int(each, 16) for each in picture_hashes if each]
        return cls(np.unique(np.array(digests, dtype=np.uint64)), np.unique(np.array(hashes, dtype=np.uint64)))

    def __len__(self) -> int:
        return len(self.digests)

    def recognise(self, images: Sequence[Mark]) -> list[How]:
        """How each image is known: "exactly" by its pixels, "nearly" by what it shows, or "" not at all."""
        exactly = np.isin(np.array([each.digest for each in images], dtype=np.uint64), self.digests)
        wholes = (each.digest if each.whole is None else each.whole for each in images)
        exactly |= np.isin(np.fromiter(wholes, dtype=np.uint64, count=len(images)), self.digests)
        nearly = self._nearly(images)
        return ["exactly" if same else "nearly" if like else "" for same, like in zip(exactly, nearly, strict=True)]

    def _nearly(self, images: Sequence[Mark]) -> NDArray[np.bool_]:
        found = np.zeros(len(images), dtype=np.bool_)
        telling = [(row, each.hash, each.tolerance) for row, each in enumerate(images) if each.hash is not None]
        if not telling or not len(self.hashes):
            return found
        rows, tolerance = (np.array([each[part] for each in telling], dtype=np.int64) for part in (0, 2))
        turned = np.array([list(orientations(value)) for _, value, _ in telling], dtype=np.uint64)
        step = max(1, _BLOCK // len(self.hashes))
        for views in turned.T:
            for start in range(0, len(views), step):
                differ = np.bitwise_count(views[start : start + step, None] ^ self.hashes[None, :])
                near = differ.min(axis=1) <= tolerance[start : start + step]
                found[rows[start : start + step][near]] = True
        return found


@dataclass(frozen=True)
class Mark:
    """One image, to be looked up.

    Attributes:
        digest: the first bytes of its pixel digest.
        hash: its picture hash; None where it is too plain.
        tolerance: signs that may differ.
        whole: the first bytes of the digest of its whole pixels, where it was decoded at a fraction and has no hash;
            else None.
    """

    digest: int
    hash: int | None
    tolerance: int = LARGEST_DISTANCE
    whole: int | None = None


def look_alike(images: Sequence[Mark | None]) -> Iterator[tuple[int, int]]:
    """Pairs of places of images of which one is recognised by the hash of the other, mirrored or turned as well.

    Args:
        images: None for one that is not looked at.

    Yields:
        (earlier, later), some of them more than once. Of images of one hash, each comes with the first of them.
    """
    telling = [(row, each.hash, each.tolerance) for row, each in enumerate(images) if each and each.hash is not None]
    first_of: dict[tuple[int, int], int] = {}
    for row, value, signs in telling:
        if (first := first_of.setdefault((value, signs), row)) != row:
            yield first, row
    rows = np.fromiter(first_of.values(), dtype=np.int64, count=len(first_of))
    hashes = np.fromiter((value for value, _ in first_of), dtype=np.uint64, count=len(first_of))
    tolerance = np.fromiter((signs for _, signs in first_of), dtype=np.int64, count=len(first_of))
    turned = np.array([list(orientations(value)) for value, _ in first_of], dtype=np.uint64).reshape(-1, 8)
    for views in turned.T:
        for one, other in _sharing_a_part(views, hashes):
            near = np.bitwise_count(views[one] ^ hashes[other]) <= np.maximum(tolerance[one], tolerance[other])
            near &= rows[one] < rows[other]  # the eight ways of the earlier one are those of the later one, undone
            yield from zip(rows[one[near]].tolist(), rows[other[near]].tolist(), strict=True)


def _sharing_a_part(views: Hashes, hashes: Hashes) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Blocks of places in `views` and in `hashes` that have a part of their bits in common."""
    for begin in map(np.uint64, _PARTS):
        wanted, there = (values >> begin & np.uint64(2**_PART_BITS - 1) for values in (views, hashes))
        order = np.argsort(there, kind="stable")
        low, high = (np.searchsorted(there[order], wanted, side) for side in ("left", "right"))
        yield from _paired(order, low, high - low)


def _paired(
    order: NDArray[np.int64], low: NDArray[np.int64], count: NDArray[np.int64]
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Each place with the `count` entries of `order` from its `low` on, some millions of pairs at a time."""
    before = np.cumsum(count) - count
    block = before // _BLOCK
    for number in np.unique(block):
        here = np.flatnonzero(block == number)
        one = np.repeat(here, count[here])
        offset = np.arange(len(one)) - np.repeat(before[here] - before[here[0]], count[here])
        yield one, order[low[one] + offset]


@dataclass(frozen=True, eq=False)
class Fingerprint:
    """The images that a model was made with.

    Attributes:
        seen: those that it was trained on or chosen with, and copies of these that were set aside.
        test: those that it was tested on, and copies of these.
    """

    seen: Marks
    test: Marks


def mark(pixels: NDArray[np.uint8], whole: Callable[[], NDArray[np.uint8]] | None = None) -> Mark:
    """What an image is looked up by.

    Args:
        pixels: (H, W, 3) uint8 as `data.decode` gives them.
        whole: gives the pixels of the whole image, where `pixels` are a fraction of it; asked only where the image is
            too plain to be recognised by anything else.
    """
    text = picture_hash(square(pixels, SIDE))
    tiny = whole is None and min(pixels.shape[:2]) <= TINY  # nothing tiny is decoded at a fraction
    return Mark(
        digest=_first_bytes(pixels),
        hash=int(text, 16) if text else None,
        tolerance=0 if tiny else LARGEST_DISTANCE,
        whole=None if text or whole is None else _first_bytes(whole()),
    )


def _first_bytes(pixels: NDArray[np.uint8]) -> int:
    return int(pixel_digest(pixels)[: 2 * DIGEST_BYTES], 16)


def pixel_digest(pixels: NDArray[np.uint8]) -> str:
    """blake2b-128 of the size and the pixels, (H, W, 3) uint8; hex."""
    digest = hashlib.blake2b(repr(pixels.shape).encode(), digest_size=16)
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.hexdigest()


def picture_hash(small: NDArray[np.uint8]) -> str:
    """The signs of the lowest frequencies of an image, as 16 hex digits; empty where it is too plain.

    Args:
        small: (SIDE, SIDE, 3) uint8, the whole image squashed to a square.
    """
    grey = small.astype(np.float64) @ _LUMINANCE
    low = _COSINES @ grey @ _COSINES.T
    signs = low.ravel()[1:]  # without the mean
    if (np.abs(signs) >= FAINT).sum() < FEWEST_SIGNS or _share_of_one_product(low[1:, 1:]) > LARGEST_PRODUCT:
        return ""
    return f"{_number(signs > 0):016x}"


def orientations(value: int) -> Iterator[int]:
    """The hashes of an image mirrored and turned in all eight ways, from the hash of one of them."""
    signs = np.zeros(FREQUENCIES**2, dtype=np.bool_)
    signs[1:] = [bool(value >> bit & 1) for bit in range(FREQUENCIES**2 - 1)]
    grid = signs.reshape(FREQUENCIES, FREQUENCIES)
    odd = np.arange(FREQUENCIES) % 2 == 1
    for transposed in (grid, grid.T):
        for upside_down in (False, True):
            for mirrored in (False, True):
                turned = transposed ^ (odd[:, None] & upside_down) ^ (odd[None, :] & mirrored)
                yield _number(turned.ravel()[1:])


def _share_of_one_product(low: NDArray[np.float64]) -> float:
    """Share of the energy of frequencies, without those of constant rows and columns, in their largest product."""
    energy = np.linalg.svd(low, compute_uv=False) ** 2
    return float(energy[0] / energy.sum())


def _number(signs: NDArray[np.bool_]) -> int:
    return sum(1 << bit for bit in np.flatnonzero(signs).tolist())


#: ITU-R BT.601.
_LUMINANCE = np.array([0.299, 0.587, 0.114])
#: (FREQUENCIES, SIDE) lowest rows of the orthonormal discrete cosine transform.
_COSINES = np.sqrt(2 / SIDE) * np.cos(np.pi * (np.arange(SIDE) + 0.5) * np.arange(FREQUENCIES)[:, None] / SIDE)
_COSINES[0] /= np.sqrt(2)
