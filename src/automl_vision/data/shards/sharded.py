"""Where the images of a manifest lie, when they lie in shards."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from automl_vision.data.decode import jpeg_scales
from automl_vision.data.files import StoredImage
from automl_vision.data.shards.folder import FolderError
from automl_vision.data.shards.shard_files import Ranges, Whereabouts
from automl_vision.errors import ImageReadError


@dataclass(frozen=True, eq=False)
class Sharded:
    """One row per row of a manifest.

    Attributes:
        ranges: gives the bytes.
        names: of the shards.
        shard: (N) number of the shard of each image.
        member: (N) ASCII names of the images in their shards.
        offset, size: (N) bytes.
        digest: (N) ASCII, hex, as they were noted when the shards were written; empty where nobody did.
        trusted: whether these digests stand until an image is used; else every image is read to check them.
        faults: row -> why its image is not there.
        lineage: the setting `data.lineage` by which copies were sought before sharding; empty where nobody did.
        facts_made: how the facts were made that `load_facts` gives, see `planes.how_made`; empty where there are none.
        facts_row: (N) rows of the table of facts.
        load_facts: reads that table.
    """

    ranges: Ranges
    names: tuple[str, ...]
    shard: NDArray[np.int32]
    member: NDArray[np.bytes_]
    offset: NDArray[np.int64]
    size: NDArray[np.int64]
    digest: NDArray[np.bytes_]
    trusted: bool = False
    faults: Mapping[int, str] = field(default_factory=dict)
    lineage: str = ""
    facts_made: Mapping[str, Any] = field(default_factory=dict)
    facts_row: NDArray[np.int64] | None = None
    load_facts: Callable[[], pd.DataFrame] | None = None

    def __len__(self) -> int:
        return len(self.shard)

    def image(self, row: int) -> ShardImage:
        """The image of a row."""
        return ShardImage(self, row)

    def take(self, rows: NDArray[np.int64]) -> Sharded:
        """The same for a manifest that keeps only `rows`, in that order."""
        places = {int(row): place for place, row in enumerate(rows)} if self.faults else {}
        return replace(
            self,
            shard=self.shard[rows],
            member=self.member[rows],
            offset=self.offset[rows],
            size=self.size[rows],
            digest=self.digest[rows],
            faults={places[row]: why for row, why in self.faults.items() if row in places},
            facts_row=None if self.facts_row is None else self.facts_row[rows],
        )

    def told(self, rows: NDArray[np.int64]) -> tuple[dict[str, Any], dict[str, NDArray[np.int64]]]:
        """Where the images of some rows are, and no others, for another process: values for JSON, and (n) columns.

        Shards are named where one of these images lies in them.
        """
        used, shard = np.unique(self.shard[rows], return_inverse=True)
        members = [name.decode("ascii") for name in self.member[rows].tolist()]
        values = {"whereabouts": self.ranges.whereabouts(used.tolist()).to_dict(), "members": members}
        columns = {"shard": shard, "offset": self.offset[rows], "size": self.size[rows]}
        return values, {name: column.astype(np.int64) for name, column in columns.items()}

    @classmethod
    def from_told(
        cls, values: Mapping[str, Any], columns: Mapping[str, NDArray[np.int64]], digests: Sequence[str]
    ) -> Sharded:
        """What `told` told of, one row for each of its rows; `digests` are of what the images held meanwhile.

        Raises:
            UsageError, DataError: as `Whereabouts.open`.
        """
        whereabouts = Whereabouts.from_dict(values["whereabouts"])
        return cls(
            ranges=whereabouts.open(),
            names=whereabouts.names,
            shard=columns["shard"].astype(np.int32),
            member=np.array(values["members"], dtype=np.bytes_),
            offset=columns["offset"],
            size=columns["size"],
            digest=np.array(digests, dtype=np.bytes_),
        )

    @property
    def reading_order(self) -> NDArray[np.int64]:
        """(N) rows in the order in which they lie: shard by shard, from the first byte to the last."""
        return np.lexsort((self.offset, self.shard)).astype(np.int64)

    def facts(self, made: Mapping[str, Any], rows: NDArray[np.bool_]) -> pd.DataFrame | None:
        """What decoding told when the shards were written; None unless it was done in the same way.

        Args:
            made: how it is done here; what sides are stored changes no fact.
            rows: (N) which images are asked for; of equal ones the first is given.
        """
        same = all(self.facts_made.get(name) == made[name] for name in ("format", "pillow"))
        if self.load_facts is None or self.facts_row is None or not same:
            return None
        table = self.load_facts()
        width, height = (table[name].to_numpy(dtype=np.int64)[self.facts_row] for name in ("width", "height"))
        formats = table["format"].astype("category")
        jpeg = (formats == "JPEG").to_numpy()[self.facts_row]
        expected = jpeg_scales(width, height, int(made["decode_side"]))
        scale = table["scale"].to_numpy()[self.facts_row]
        usable = (scale == np.where(jpeg, expected, 1)) & (table["fault"] == "").to_numpy()[self.facts_row] & rows
        first = np.zeros(len(self), dtype=np.bool_)
        first[np.unique(self.digest, return_index=True)[1]] = True
        # One copy of what may be a large table, and no more.
        return table.take(self.facts_row[usable & first]).reset_index(drop=True)


class ShardImage(StoredImage):
    """One image in a shard. There is one for each row of a data set, so it holds nothing but where to look it up."""

    __slots__ = ("_row", "_sharded")

    def __init__(self, sharded: Sharded, row: int) -> None:
        self._sharded = sharded
        self._row = row

    def __str__(self) -> str:
        sharded, row = self._sharded, self._row
        return f"{sharded.names[sharded.shard[row]]}: {sharded.member[row].decode('ascii')}"

    @property
    def digest(self) -> str:
        """As it was noted; empty where nobody did."""
        return str(self._sharded.digest[self._row].decode("ascii"))

    @property
    def trusted(self) -> bool:
        """Whether that stands until the image is used."""
        return self._sharded.trusted and bool(self.digest) and self._row not in self._sharded.faults

    def read_bytes(self) -> bytes:
        """All bytes as they were sharded.

        Raises:
            ImageReadError: the shard ends before them or cannot be read, or they are others.
        """
        sharded, row = self._sharded, self._row
        if row in sharded.faults:
            raise ImageReadError("truncated", sharded.faults[row])
        try:
            data = sharded.ranges.read(int(sharded.shard[row]), int(sharded.offset[row]), int(sharded.size[row]))
        except FolderError as error:
            raise ImageReadError("unreadable", str(error)) from None
        if len(data) != sharded.size[row]:
            raise ImageReadError("truncated", f"{self}: the shard ends before it")
        if self.digest and hashlib.blake2b(data, digest_size=16).hexdigest() != self.digest:
            raise ImageReadError("truncated", f"{self}: its bytes are not those that were stored")
        return data

    def expect(self) -> None:
        """It will be read soon."""
        sharded, row = self._sharded, self._row
        if row not in sharded.faults:
            sharded.ranges.expect(int(sharded.shard[row]), int(sharded.offset[row]), int(sharded.size[row]))
