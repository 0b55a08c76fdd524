"""Looking into every file once: digests of the bytes, facts about the image, and its squares."""

from __future__ import annotations

import hashlib
import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from automl_vision.data.decode import open_rgb
from automl_vision.data.facts import FACT_COLUMNS
from automl_vision.data.files import Place, StoredImage, read_bytes
from automl_vision.data.fingerprint import SIDE, picture_hash, pixel_digest
from automl_vision.data.preprocess import SQUASH, squares, squares_and_whole
from automl_vision.errors import DataError, ImageReadError

Fact = dict[str, Any]
Squares = tuple[NDArray[np.uint8], ...]

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

#: What is known of a file that could not even be read.
NOTHING_KNOWN: Fact = {
    **dict.fromkeys(FACT_COLUMNS, ""),
    "bytes": 0,
    "width": 0,
    "height": 0,
    "scale": 1,
    "frames": 0,
    "exif_rotated": False,
    "taken": math.nan,
}


#: What a file of these bytes shows wherever it is read; the empty one: nothing is wrong with it.
_FAULTS_OF_CONTENT = {"", "not_an_image", "truncated"}


@dataclass(frozen=True, slots=True)
class Found:
    """What is at the path of one manifest row.

    Attributes:
        digest: blake2b-128 of the bytes, hex; empty where they cannot be read.
        kind, detail: the fault where they cannot be read, else empty.
    """

    digest: str = ""
    kind: str = ""
    detail: str = ""


def find_files(paths: Iterable[Place], threads: int) -> list[Found]:
    """One `Found` per path, in order. Nothing is decoded."""
    return list(in_order(_find, paths, threads))


def _find(path: Place) -> Found:
    if isinstance(path, StoredImage) and path.trusted:
        return Found(digest=path.digest)
    try:
        return Found(digest=_digest(read_bytes(path)))
    except ImageReadError as error:
        return Found(kind=error.kind, detail=error.detail)


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def look_into(
    path: Place, digest: str, sizes: Sequence[int], decode_side: int = 0, resize: str = SQUASH
) -> tuple[Fact, Squares | None]:
    """Decode one file: its facts, and one square per size; no squares where it is quarantined.

    Args:
        path: of the file.
        digest: of the file as it was found.
        sizes: sides of the squares in pixels.
        decode_side, resize: see `preprocess.Preprocessing`. The facts do not depend on `resize`.

    Raises:
        DataError: the file is not the one any more whose digest was taken.
    """
    data = _unchanged(path, digest)
    known = NOTHING_KNOWN | {"file_digest": digest, "bytes": len(data)}
    try:
        image = open_rgb(data, decode_side)
        kept, (small,) = squares_and_whole(image.pixels, sizes, (SIDE,), resize)
        sign = picture_hash(small)
        # Where it has none, nothing but its whole pixels would tell a lossless copy of it.
        whole = pixel_digest(open_rgb(data).pixels) if image.scale > 1 and not sign else ""
    except ImageReadError as error:
        return known | {"fault": error.kind, "detail": error.detail}, None
    seen = {name: getattr(image, name) for name in ("width", "height", "scale", "format", "mode", "frames", "taken")}
    seen |= {"exif_rotated": image.exif_rotated, "pixel_digest": pixel_digest(image.pixels)}
    seen |= {"picture_hash": sign, "whole_digest": whole}
    return known | seen, kept


def whole_digest(path: Place, digest: str) -> str:
    """The digest of the pixels of a file that decoded before, wholly decoded.

    Raises:
        DataError: the file is not the one any more whose digest was taken, or cannot be decoded wholly: its copies
            could not be told, and one of them might be tested on.
    """
    try:
        return pixel_digest(open_rgb(_unchanged(path, digest)).pixels)
    except ImageReadError as error:
        raise DataError(
            "an image that may have a copy cannot be decoded wholly",
            value=f"{str(path)!a} ({error.detail})",
            fix="give the machine more free memory, or take the image out of the data",
        ) from error


def squares_of(path: Place, digest: str, sizes: Sequence[int], decode_side: int = 0, resize: str = SQUASH) -> Squares:
    """One square per size of a file that `look_into` found no fault with; arguments as there.

    Raises:
        DataError: the file is not the one any more whose digest was taken, or cannot be decoded any more.
    """
    try:
        return squares(open_rgb(_unchanged(path, digest), decode_side).pixels, sizes, resize)
    except ImageReadError as error:
        raise DataError(
            "an image cannot be decoded any more",
            value=f"{str(path)!a} ({error.detail})",
            fix="give the machine more free memory, or a smaller --resolutions",
        ) from error


def is_settled(fault: str, detail: str) -> bool:
    """Whether the file's content alone decided what is known of it: on another machine it would be the same.

    Memory that ran out did so here and then; Pillow's own decoders say so in the words of a damaged file.
    """
    return fault in _FAULTS_OF_CONTENT and "memory" not in detail


def _unchanged(path: Place, digest: str) -> bytes:
    why = ""
    try:
        data = read_bytes(path)
    except ImageReadError as error:
        data, why = b"", error.detail
    if _digest(data) == digest:
        return data
    if isinstance(path, StoredImage):
        raise DataError(
            "an image of a shard is not what was stored",
            value=why or str(path),
            fix="look at all of them with automl-vision shard --verify, and bring damaged shards again",
        )
    raise DataError(
        "an image changed while it was being read",
        value=ascii(str(path)),
        fix="run again when nothing writes to the data",
    )


def in_order(function: Callable[[_Item], _Result], items: Iterable[_Item], threads: int) -> Iterator[_Result]:
    """Results of `function` in the order of the items, computed in threads.

    At most two items per thread are under way or waiting to be taken: memory does not grow with their number.
    """
    threads = max(1, threads)
    waiting: deque[Future[_Result]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="decode") as pool:
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) >= 2 * threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
