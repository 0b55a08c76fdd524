"""Where the images of a manifest lie, when they lie in shards."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from automl_vision.data.shards.shard_files import Ranges, ShardImage


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
        shard = int(self.shard[row])
        return ShardImage(
            self.ranges,
            shard,
            int(self.offset[row]),
            int(self.size[row]),
            f"{self.names[shard]}: {self.member[row].decode('ascii')}",
            self.digest[row].decode("ascii"),
            self.faults.get(row, ""),
            self.trusted,
        )

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

    @property
    def reading_order(self) -> NDArray[np.int64]:
        """(N) rows in the order in which they lie: shard by shard, from the first byte to the last."""
        return np.lexsort((self.offset, self.shard)).astype(np.int64)

    def facts(self, made: Mapping[str, Any]) -> pd.DataFrame | None:
        """What decoding told when the shards were written, a row per row; None unless it was done in the same way.

        Args:
            made: how it is done here; what sides are stored changes no fact.
        """
        same = all(self.facts_made.get(name) == made[name] for name in ("format", "pillow"))
        if self.load_facts is None or self.facts_row is None or not same:
            return None
        return self.load_facts().take(self.facts_row).reset_index(drop=True)
