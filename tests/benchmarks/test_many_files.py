"""Too slow, too large and too much to show are noticed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from automl_vision.data.decode import open_rgb
from trust.many_files import Tally, make_classes

LISTED = {"rows": 1_000_000, "read": 40.0, "all": 90.0, "peak_mb_reading": 800, "peak_mb": 2000}
GOOD = Tally(LISTED, classes=10_000, page_mb=1.0, cpu_seconds=400.0, peak_mb=3000.0)


@pytest.mark.parametrize(
    ("tally", "held"),
    [
        (GOOD, True),
        (replace(GOOD, listed=None), True),
        (replace(GOOD, listed={**LISTED, "read": 61.0}), False),
        (replace(GOOD, listed={**LISTED, "peak_mb_reading": 1001}), False),
        (replace(GOOD, page_mb=5.1), False),
        (replace(GOOD, faults=["the search ended with 1"]), False),
    ],
)
def test_only_what_is_within_the_limits_is_held(tally: Tally, held: bool) -> None:
    figure = tally.figure()
    assert figure.held is held
    assert "10,000 classes: report of" in figure.line


def test_classes_have_pictures_of_their_own(tmp_path: Path) -> None:
    make_classes(tmp_path, 5, np.random.default_rng(0))
    files = sorted(tmp_path.rglob("*.png"))
    assert len(files) == 20
    assert len({path.read_bytes() for path in files}) == 20
    assert all(open_rgb(path).pixels.shape == (16, 16, 3) for path in files)
