"""The benchmark of what an image costs: each part runs in a process of its own and tells its figures."""

from __future__ import annotations

import json
from typing import Any

import pytest

from cluster import per_image


def told(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    per_image.main(words)
    figures: dict[str, Any] = json.loads(capsys.readouterr().out)
    return figures


def test_rows(capsys: pytest.CaptureFixture[str]) -> None:
    figures = told(capsys, "rows", "--counts", "2000")
    assert (figures["part"], figures["count"]) == ("rows", 2000)
    assert all(figures[each] > 0 for each in ("read", "audit", "split"))
    assert 2000 * 20 < figures["split_csv_bytes"] < 2000 * 200
    assert 0 <= figures["read_peak"] <= figures["all_peak"]


def test_neighbours_find_the_planted_copies(capsys: pytest.CaptureFixture[str]) -> None:
    figures = told(capsys, "neighbours", "--counts", "1500")
    assert figures["pairs"] == figures["candidates"] >= 1500 // 10 - 1
    assert figures["search"] > 0
    # The table of cosines of one block of 1,024 alone has more than this.
    assert figures["search_peak"] > 1024 * 1500 * 4


def test_a_report_has_a_figure_per_class(capsys: pytest.CaptureFixture[str]) -> None:
    few = told(capsys, "report", "--counts", "400", "--classes", "3")
    many = told(capsys, "report", "--counts", "400", "--classes", "30")
    assert many["section_bytes"] > 3 * few["section_bytes"]
    assert many["csv_bytes"] > 3 * few["csv_bytes"]


@pytest.mark.slow
def test_pictures_probe_and_training(capsys: pytest.CaptureFixture[str]) -> None:
    seen = told(capsys, "pictures", "--counts", "8")
    assert seen["described"] == seen["looked_at"] == 8
    assert seen["cache_small_bytes"] > 8 * 3 * sum(side**2 for side in seen["squares_small"])
    assert all(seen[each] > 0 for each in ("decode_small", "describe", "key_points", "pairs_by_points", "pairs_laid"))
    assert told(capsys, "probe", "--counts", "200")["fit"] > 0
    trained = told(capsys, "training", "--counts", "32")
    assert trained["epoch"] > trained["features"] > 0
