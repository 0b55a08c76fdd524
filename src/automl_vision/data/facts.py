"""What decoding every file once told about it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

#: Columns of the table of facts, one row per manifest row, in manifest order.
FACT_COLUMNS: dict[str, str] = {
    "file_digest": "blake2b-128 of the file's bytes, hex; empty where the file cannot be read",
    "pixel_digest": "blake2b-128 of the upright RGB pixels and their size, hex; empty where quarantined",
    "bytes": "file size",
    "width": "pixels after EXIF orientation; 0 where quarantined",
    "height": "pixels after EXIF orientation; 0 where quarantined",
    "format": "JPEG, PNG, WEBP, BMP, TIFF, GIF or PPM; empty where unknown",
    "mode": "Pillow mode as stored (L, RGB, RGBA, P, CMYK, I;16 ...); empty where unknown",
    "frames": "frames or pages in the file; only the first is used",
    "exif_rotated": "True where an EXIF orientation was applied",
    "fault": "one of errors.IMAGE_FAULTS where the file is quarantined, else empty",
    "detail": "one line on the fault",
}


@dataclass(frozen=True)
class Facts:
    """One row of `FACT_COLUMNS` per row of the manifest."""

    table: pd.DataFrame

    def __len__(self) -> int:
        return len(self.table)

    @property
    def usable(self) -> NDArray[np.bool_]:
        """(N) True where the image decoded."""
        return np.asarray(self.table["fault"] == "", dtype=np.bool_)

    @property
    def pixel_digests(self) -> NDArray[np.object_]:
        """(N) hex digest of the pixels, empty where the image did not decode."""
        return self.table["pixel_digest"].to_numpy(dtype=object)
