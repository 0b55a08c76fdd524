"""Broken files are broken, and a loss of accuracy, a slow refusal and one that says too little are noticed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from automl_vision.data.decode import open_rgb
from automl_vision.errors import ImageReadError
from timed_process import Ended
from trust.corrupt_share import BROKEN, Tally, break_some, make_photographs, unsaid

REFUSAL = (
    "error: too many images cannot be read: 6,000 of 10,000 (60%; at most 20%): 3,000 truncated, 3,000 not_an_image\n"
    "Fix: copy them again ... --max-unreadable 0.6"
)
REFUSED = Ended(2, 200.0, 50.0, "", REFUSAL, False)


def readable(path: Path) -> bool:
    try:
        return bool(open_rgb(path).pixels.size)
    except ImageReadError:
        return False


def test_a_share_of_the_files_is_broken_and_the_rest_is_not(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    paths = make_photographs(tmp_path, 60, (64, 48), rng)
    assert len({path.read_bytes() for path in paths}) == 60
    broken = break_some(paths, 0.6, rng, ("cut", "empty", "web page", "other bytes"))
    assert len(broken) == 36
    assert not any(readable(path) for path in broken)
    assert all(readable(path) for path in set(paths) - set(broken))


def test_every_way_of_breaking_changes_a_file() -> None:
    rng = np.random.default_rng(0)
    data = rng.bytes(1000)
    assert all(change(rng, data) != data for change in BROKEN.values())


@pytest.mark.parametrize(
    ("lost", "held"), [([0.5, 1.4], True), ([0.5, 1.6], False), ([-4.0, 2.0], True), ([1.01], False)]
)
def test_more_than_a_point_is_too_much(lost: list[float], held: bool) -> None:
    figure = Tally(lost=lost, errors=[0.3] * len(lost)).figure()
    assert figure.held is held
    assert f"{np.mean(lost):+.2f} points" in figure.line


@pytest.mark.parametrize(
    ("ended", "held"),
    [
        (REFUSED, True),
        (replace(REFUSED, cpu_seconds=61.0), False),
        (replace(REFUSED, code=0), False),
        (replace(REFUSED, err=REFUSAL + "\nTraceback (most recent call last):"), False),
        (replace(REFUSED, err="error: the budget ended"), False),
        (replace(REFUSED, err=REFUSAL.replace("--max-unreadable", "--help")), False),
    ],
)
def test_a_refusal_is_quick_and_says_what_why_and_what_to_do(ended: Ended, held: bool) -> None:
    figure = Tally(refused=ended, files=10_000).figure()
    assert figure.held is held
    assert (unsaid(ended, 10_000) == []) is (held or ended.cpu_seconds > 60)


def test_a_search_that_fails_is_a_fault() -> None:
    assert not Tally(lost=[0.0], errors=[0.1], faults=["the search of broken digits ended with 1"]).figure().held
