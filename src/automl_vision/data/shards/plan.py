"""Which image lies where, before a byte is written: a function of the images, their sets and a seed.

Images of a set are in the order of a keyed hash of their paths: a fair mix of the classes however the shards are read,
and the same on every machine. Groups are spread freely, as no group is in two sets.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from automl_vision.data.preparation import Prepared
from automl_vision.data.shards.layout import LISTED_SETS, SHARDED_SETS, VAL_COPIES, shard_name
from automl_vision.data.shards.tar_members import BLOCK, END, room

#: Ending of members by the format of their content.
ENDINGS = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp", "GIF": "gif", "BMP": "bmp", "TIFF": "tif", "PPM": "ppm"}


@dataclass(frozen=True)
class ShardSize:
    """How large shards become.

    Attributes:
        most_bytes: of a shard; one of a single image may be larger.
        most_images: of a shard; 0 for no limit.
    """

    most_bytes: int = 256_000_000
    most_images: int = 0


@dataclass(frozen=True)
class PlannedSample:
    """One image in a shard.

    Attributes:
        row: of the manifest.
        key: name of its members without their endings.
        member: name of its image.
        size: bytes of the image.
        offset: of the image in the shard.
        about: bytes of its JSON member.
    """

    row: int
    key: str
    member: str
    size: int
    offset: int
    about: bytes


@dataclass(frozen=True)
class PlannedShard:
    """One shard.

    Attributes:
        name: of its file.
        set: one of `SHARDED_SETS`.
        samples: in their order.
        digests: of the images, hex.
    """

    name: str
    set: str
    samples: tuple[PlannedSample, ...]
    digests: tuple[str, ...]

    @cached_property
    def key(self) -> str:
        """Changes with every byte that the shard is to hold."""
        digest = hashlib.blake2b(self.name.encode(), digest_size=16)
        for sample, content in zip(self.samples, self.digests, strict=True):
            digest.update(f"\x1f{sample.member}\x1f{content}\x1f".encode() + sample.about)
        return digest.hexdigest()

    @property
    def nbytes(self) -> int:
        """Of the file."""
        return sum(_taken(each.size, each.about) for each in self.samples) + len(END)


def set_names(prepared: Prepared) -> NDArray[np.str_]:
    """(N) the set of each row as shards have them: `SHARDED_SETS` and `LISTED_SETS`."""
    names = prepared.split.name.astype("U10").copy()
    names[prepared.split.augmented_val] = VAL_COPIES
    return names


def plan_shards(prepared: Prepared, size: ShardSize, seed: int) -> Iterator[PlannedShard]:
    """All shards in their order, one at a time."""
    names, ending = set_names(prepared), common_ending(prepared)
    for set_name in SHARDED_SETS:
        rows = _mixed(prepared, np.flatnonzero(names == set_name), seed)
        yield from _cut(prepared, rows, set_name, size, ending)


def listed_rows(prepared: Prepared) -> NDArray[np.int64]:
    """(n) rows that are in no shard."""
    return np.flatnonzero(np.isin(set_names(prepared), LISTED_SETS)).astype(np.int64)


def common_ending(prepared: Prepared) -> str:
    """One ending for all images, that of most: other readers expect of every sample what the first one has.

    The content decides in all of them, and the JSON member has the path with the ending that the file had.
    """
    formats = prepared.facts.table["format"][prepared.facts.usable]
    return ENDINGS[str(formats.value_counts().sort_index().idxmax())] if len(formats) else "jpg"


def _mixed(prepared: Prepared, rows: NDArray[np.int64], seed: int) -> list[int]:
    key, paths = f"shards {seed}".encode(), prepared.manifest.paths

    def place(row: int) -> bytes:
        name = paths[row].encode("utf-8", "surrogateescape")
        return hashlib.blake2b(name, digest_size=16, key=key).digest()

    return sorted(rows.tolist(), key=place)


def _cut(prepared: Prepared, rows: list[int], set_name: str, size: ShardSize, ending: str) -> Iterator[PlannedShard]:
    digests = prepared.facts.table["file_digest"].to_numpy(dtype=object)
    lengths = prepared.facts.table["bytes"].to_numpy()
    samples: list[PlannedSample] = []
    number = at = 0

    def shard() -> PlannedShard:
        return PlannedShard(
            shard_name(set_name, number), set_name, tuple(samples), tuple(str(digests[each.row]) for each in samples)
        )

    for position, row in enumerate(rows):
        about, length = _about(prepared, row, set_name), int(lengths[row])
        full = samples and size.most_images and len(samples) >= size.most_images
        if full or (samples and at + _taken(length, about) + len(END) > size.most_bytes):
            yield shard()
            samples, at, number = [], 0, number + 1
        key = f"{position:09d}"
        samples.append(PlannedSample(row, key, f"{key}.{ending}", length, at + BLOCK, about))
        at += _taken(length, about)
    if samples:
        yield shard()


def _about(prepared: Prepared, row: int, set_name: str) -> bytes:
    """The JSON member: plain ASCII, keys in their order."""
    manifest, lineage = prepared.manifest, prepared.audit.lineage
    label = int(manifest.labels[row])
    told = {
        "label": manifest.class_names[label],
        "class": label,
        "split": set_name,
        "group": int(lineage.group[row]),
        "role": str(lineage.role[row]),
        "path": manifest.paths[row],
    }
    return json.dumps(told, separators=(",", ":")).encode("ascii")


def _taken(length: int, about: bytes) -> int:
    return room(length) + room(len(about))
