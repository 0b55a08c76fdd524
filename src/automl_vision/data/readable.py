"""How many images cannot be read, and whether what is left is still what was given."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from automl_vision.data.facts import Facts
from automl_vision.data.manifest import Manifest
from automl_vision.data.survey import NOTHING_KNOWN, is_settled
from automl_vision.errors import IMAGE_FAULTS, DataError

if TYPE_CHECKING:
    from automl_vision.config import DataSettings

#: Above this share it is said while a search runs; the run goes on.
MANY = 0.05
_LISTED = 10
_FEWEST_CLASSES = 2


def too_many_unreadable(manifest: Manifest, facts: Facts, settings: DataSettings) -> DataError | None:
    """Why these images are not to be used, where more of them cannot be read than `max_unreadable` allows.

    What a table names and is not there does not count where `skip_bad_rows` accepted it.
    """
    fault = facts.table["fault"].to_numpy(dtype=object)
    bad = ~facts.usable
    if settings.skip_bad_rows:
        bad &= fault != "missing"
    count, total = int(bad.sum()), len(manifest)
    # Where one class is left at most, dealing them says so, class by class.
    if count <= settings.max_unreadable * total or len(np.unique(manifest.labels[facts.usable])) < _FEWEST_CLASSES:
        return None
    rows = np.flatnonzero(bad)
    kinds = Counter(fault[rows].tolist()).most_common()
    details = facts.table["detail"].to_numpy(dtype=object)
    share = f"{count:,} of {total:,} ({count / total:.0%}; at most {settings.max_unreadable:.0%})"
    found = ", ".join(f"{number:,} {kind}" for kind, number in kinds)
    listed = [f"{manifest.paths[row]!a}: {fault[row]}, {details[row]}" for row in rows[:_LISTED].tolist()]
    more = [f"... and {count - _LISTED:,} more"] if count > _LISTED else []
    accepted = min(1.0, math.ceil(count / total * 100) / 100)
    return DataError(
        "too many images cannot be read",
        value="\n  - ".join([f"{share}: {found}", *listed, *more]),
        fix=f"{IMAGE_FAULTS[kinds[0][0]]}; automl-vision inspect --out DIR lists all of them. Or go on without them: "
        f"--max-unreadable {accepted:g}",
    )


def said_of_unreadable(facts: Facts) -> str:
    """What is said of images that cannot be read, where they are many; else ""."""
    count, total = int((~facts.usable).sum()), len(facts)
    if count <= MANY * total:
        return ""
    return f"{count:,} of {total:,} images ({count / total:.0%}) cannot be read and are left out; audit.csv lists them."


def unsettled_faults(facts: Facts) -> dict[str, str]:
    """Digest -> fault of files that another machine, or this one another time, could have read: memory was short."""
    known = zip(*(facts.table[name].tolist() for name in ("file_digest", "fault", "detail")), strict=True)
    return {digest: fault for digest, fault, detail in known if digest and not is_settled(fault, detail)}


def with_faults(facts: Facts, faults: Mapping[str, str]) -> Facts:
    """The facts where files have such faults, whatever they show by now.

    Args:
        facts: of all files; pictures are not compared yet.
        faults: digest of a file -> its fault.
    """
    fault = facts.table["file_digest"].map(dict(faults))
    if not fault.notna().any():
        return facts
    rows = fault.notna().to_numpy()
    kept = ("file_digest", "bytes")
    unknown = {name: value for name, value in NOTHING_KNOWN.items() if name not in kept}
    table = facts.table.copy()
    table.loc[rows, list(unknown)] = list(unknown.values())
    table.loc[rows, "fault"] = fault[rows]
    table.loc[rows, "detail"] = "there was too little memory for it when the run began"
    return Facts(table)
