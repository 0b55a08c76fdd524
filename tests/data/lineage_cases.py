"""Manifests and facts without files, for tests of lineage, audit and split."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from automl_vision.data.facts import FACT_COLUMNS, Compared, Facts
from automl_vision.data.manifest import Manifest


def digest(text: object) -> str:
    return hashlib.blake2b(str(text).encode(), digest_size=16).hexdigest()


def make_manifest(paths: Sequence[str], labels: Sequence[str] | None = None, **columns: Any) -> Manifest:
    """Labels are the first folder unless they are given."""
    labels = labels if labels is not None else [path.split("/")[0] for path in paths]
    names = tuple(sorted(set(labels)))
    numbers = np.array([names.index(label) for label in labels], dtype=np.int64)
    return Manifest(Path("/data"), tuple(paths), numbers, names, **columns)


def make_compared(
    *found: tuple[int, int, bool],
    unchecked: int = 0,
    tiny: int = 0,
    strangers: Sequence[tuple[int, int]] = (),
    plain: Sequence[int] = (),
    resembling: Sequence[int] = (),
    left: int = 0,
    barren: int = 0,
    original: dict[int, float] | None = None,
    marked: dict[int, tuple[str, ...]] | None = None,
    looked: int = 0,
    unseen: Sequence[int] = (),
) -> Compared:
    """(first, second, whether it is the same picture; else it may be)."""
    return Compared(
        pairs=np.array([each[:2] for each in found], dtype=np.int64).reshape(-1, 2),
        score=np.array([20.0 if same else 4.0 for *_, same in found]),
        same=np.array([same for *_, same in found], dtype=np.bool_),
        detail=("registered plain: 20 points",) * len(found),
        unchecked=unchecked,
        tiny=tiny,
        plain=np.array(plain, dtype=np.int64),
        resembling=np.array(resembling, dtype=np.int64),
        left=left,
        barren=barren,
        original=original or {},
        marked=marked or {},
        strangers=np.array(strangers, dtype=np.int64).reshape(-1, 2),
        named=10 if strangers else 0,
        looked=looked,
        unseen=np.array(unseen, dtype=np.int64),
    )


def make_facts(
    manifest: Manifest,
    pixels: Sequence[object] | None = None,
    files: Sequence[object] | None = None,
    faults: Sequence[str] | None = None,
    compared: Compared | None = None,
    **columns: Any,
) -> Facts:
    """Every file has pixels of its own unless `pixels` says which are equal."""
    n = len(manifest)
    faults = faults or [""] * n
    pixels = pixels if pixels is not None else manifest.paths
    files = files if files is not None else manifest.paths
    table = pd.DataFrame(
        {
            "file_digest": [digest(("file", each)) for each in files],
            "pixel_digest": ["" if f else digest(("px", p)) for p, f in zip(pixels, faults, strict=True)],
            "picture_hash": "",
            "whole_digest": "",
            "scale": 1,
            "bytes": 1000,
            "width": [0 if fault else 32 for fault in faults],
            "height": [0 if fault else 32 for fault in faults],
            "format": "JPEG",
            "mode": "RGB",
            "frames": 1,
            "exif_rotated": False,
            "taken": np.nan,
            "fault": faults,
            "detail": ["broken" if fault else "" for fault in faults],
        },
        columns=list(FACT_COLUMNS),
    )
    return Facts(table.assign(**columns), compared)
