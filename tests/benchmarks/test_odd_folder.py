"""The odd folder holds what it says, and whatever a run does not say of it is noticed."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from automl_vision.data.decode import open_rgb
from automl_vision.errors import ImageReadError
from trust import oddities
from trust.digit_sets import SIDE, dealt, picture, points_lost
from trust.odd_folder import CLASSES, Tally, Told, make_odd, unsaid
from trust.oddities import DROPPED, FINDING, IGNORED, NO_PICTURES, QUARANTINE, STOPS, STORED, USED, Expected


@pytest.mark.parametrize("oddity", STORED)
def test_pictures_are_stored_so_that_they_can_be_recognised(oddity: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(oddities, "_LARGE", (90, 80))
    shown = picture(dealt(0, 1)[0].pictures[4])
    _, encode, kind = STORED[oddity]
    found = open_rgb(encode(shown))
    assert (found.frames > 1) == (kind == "multi_frame")
    if found.pixels.shape[:2] == (SIDE, SIDE):
        seen = np.asarray(found.pixels).mean(axis=2)
        assert np.corrcoef(seen.ravel(), np.asarray(shown).ravel())[0, 1] > 0.7


@pytest.mark.parametrize("oddity", NO_PICTURES)
def test_what_is_no_picture_has_the_fault_that_the_table_names(oddity: str) -> None:
    _, content, fault = NO_PICTURES[oddity]
    with pytest.raises(ImageReadError) as caught:
        open_rgb(content())
    assert caught.value.kind == fault


def test_all_of_it_can_lie_in_one_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(oddities, "_LARGE", (90, 80))
    ours, others = dealt(0, 6)
    expected = make_odd(tmp_path / "data", ours, others, closed=False)
    assert len({each.oddity for each in expected}) > 80
    assert all(os.path.lexists(tmp_path / "data" / each.path) for each in expected)
    assert set(CLASSES) <= {path.name for path in (tmp_path / "data").iterdir()}


def test_what_stops_a_search_can_be_made(tmp_path: Path) -> None:
    good = STORED["BMP"][1](picture(dealt(0, 1)[0].pictures[0]))
    for number, (make, words) in enumerate(STOPS.values()):
        (tmp_path / str(number)).mkdir()
        assert make(tmp_path / str(number) / "data", good).is_relative_to(tmp_path)
        assert words


TOLD = Told(
    {"a/1.png": "train", "a/2.png": "quarantine", "a/3.png": "aside"},
    frozenset({("a/2.png", "empty"), ("a/3.png", "duplicate_file"), ("", "empty_class")}),
    ("3 passed over: hidden",),
    ("lonely",),
)


@pytest.mark.parametrize(
    ("expected", "said"),
    [
        (Expected("x", USED, "a/1.png"), True),
        (Expected("x", USED, "a/2.png"), False),
        (Expected("x", USED, "a/9.png"), False),
        (Expected("x", QUARANTINE, "a/2.png", "empty"), True),
        (Expected("x", QUARANTINE, "a/2.png", "truncated"), False),
        (Expected("x", QUARANTINE, "a/1.png", "empty"), False),
        (Expected("x", FINDING, "a/3.png", "duplicate_file"), True),
        (Expected("x", FINDING, "a/1.png", "duplicate_file"), False),
        (Expected("x", FINDING, kind="empty_class"), True),
        (Expected("x", IGNORED, kind="hidden"), True),
        (Expected("x", IGNORED, kind="Thumbs.db"), False),
        (Expected("x", DROPPED, kind="lonely"), True),
        (Expected("x", DROPPED, kind="other"), False),
    ],
)
def test_what_is_not_said_is_noticed(expected: Expected, said: bool) -> None:
    assert (unsaid([expected], TOLD) == []) is said


@pytest.mark.parametrize(
    ("tally", "held"),
    [
        (Tally(90, (0.9, 0.1)), True),
        (Tally(90, (1.5, 0.8)), True),  # no more than chance
        (Tally(90, (1.5, 0.7)), False),
        (Tally(90, (-3.0, 0.1)), True),
        (Tally(90, None), False),
        (Tally(90, (0.0, 0.1), faults=["a pipe: it is in train"]), False),
    ],
)
def test_only_a_folder_of_which_all_is_said_is_held(tally: Tally, held: bool) -> None:
    figure = tally.figure()
    assert figure.held is held
    assert figure.line.startswith("R10 held: 90 oddities" if held else "R10 MISSED: 90 oddities")


def test_points_are_lost_image_by_image() -> None:
    lost, error = points_lost([True] * 90 + [False] * 10, [True] * 80 + [False] * 20)
    assert lost == pytest.approx(10.0)
    assert error == pytest.approx(100 * np.std([1] * 10 + [0] * 90, ddof=1) / 10)


def test_digits_are_dealt_by_the_seed_and_judged_on_others() -> None:
    ours, others = dealt(3, 6)
    assert np.bincount(ours.labels).tolist() == [6] * 10
    assert len(ours.labels) + len(others.labels) == 1797
    assert np.array_equal(dealt(3, 6)[0].pictures, ours.pictures)
    assert not np.array_equal(dealt(4, 6)[0].pictures, ours.pictures)
