from __future__ import annotations

import json

import pytest

from automl_vision.executors import EXECUTORS
from cluster import scaling


def test_linear_is_what_workers_without_overhead_take() -> None:
    assert scaling.ideal([1.0, 1.0, 1.0, 1.0], 2) == 2.0
    assert scaling.ideal([3.0, 1.0, 1.0, 1.0], 2) == 3.0
    assert scaling.ideal(scaling.lengths(9, 1.0), 1) == pytest.approx(sum(scaling.lengths(9, 1.0)))


@pytest.mark.parametrize("name", sorted(EXECUTORS.keys() - {"ranks"}))  # one trial at a time
def test_a_row_of_the_table(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    scaling.main(
        ["--executor", name, "--workers", "1", "--jobs", "3", "--seconds", "0.05", "--reports", "20", "--bytes", "100"]
    )
    row = json.loads(capsys.readouterr().out)
    assert (row["executor"], row["workers"], row["jobs"]) == (name, 1, 3)
    assert 0 < row["share_of_linear"] <= 1.01
    assert row["seconds"] >= row["linear"] > 0
    assert row["ms_per_report"] >= 0  # next to nothing, on a quiet machine
