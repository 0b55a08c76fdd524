"""A data set as shards: checked, traced and dealt as `inspect` does it, then written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from automl_vision import run_dir
from automl_vision.config import Settings
from automl_vision.data.preparation import Prepared
from automl_vision.data.shards.address import Address
from automl_vision.data.shards.folder import open_for_writing
from automl_vision.data.shards.plan import ShardSize
from automl_vision.data.shards.write import Written, write_shards
from automl_vision.events import Progress, StageStarted, Tell
from automl_vision.runtime import make_runtime


@dataclass(frozen=True)
class Sharding:
    """What was written.

    Attributes:
        out: where to.
        written: shards and counts.
    """

    out: str
    written: Written

    def to_dict(self) -> dict[str, Any]:
        """Plain types, for JSON."""
        shards = self.written.index.shards
        return {
            "out": self.out,
            "shards": len(shards),
            "samples": sum(each.samples for each in shards),
            "bytes": sum(each.bytes for each in shards),
            "counts": dict(self.written.index.counts),
            "kept": self.written.kept,
        }


def write(prepared: Prepared, settings: Settings, out: Address, size: ShardSize, tell: Tell) -> Sharding:
    """Write what `inspect` prepared.

    Raises:
        UsageError, BudgetExhausted, DataError: as `write_shards`.
    """
    tell(StageStarted("shard", f"{len(prepared.manifest):,} images"))
    written = write_shards(
        prepared,
        settings,
        open_for_writing(out),
        size,
        threads=make_runtime("cpu", "float32", settings.machine.threads).threads,
        beside=run_dir.tables(prepared),
        progress=lambda done, total: tell(Progress(done, total)),
    )
    return Sharding(str(out), written)
