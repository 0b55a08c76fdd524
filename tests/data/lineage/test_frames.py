"""Frames of videos are told from pictures that are merely numbered."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lineage_cases import make_manifest

from automl_vision.data.lineage.frames import FEWEST_PAIRS, Likeness, likeness_of_neighbours


def judged(
    thumbnails: np.ndarray,
    paths: list[str] | None = None,
    considered: np.ndarray | None = None,
    group: np.ndarray | None = None,
) -> dict[int, Likeness]:
    n = len(thumbnails)
    manifest = make_manifest(paths or [f"a/f_{number:05d}.png" for number in range(n)])
    return likeness_of_neighbours(
        manifest,
        np.ones(n, dtype=np.bool_) if considered is None else considered,
        np.arange(n) if group is None else group,
        lambda rows: thumbnails[rows],
    )


def walk(frames: int, seed: int = 0, step: float = 1.0) -> np.ndarray:
    """A picture that changes a little from frame to frame."""
    rng = np.random.default_rng(seed)
    return (rng.normal(0, step, (frames, 256)).cumsum(axis=0) + rng.normal(0, 50, 256)).astype(np.float32)


def strangers(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(128, 40, (n, 256)).astype(np.float32)


def test_one_long_video_is_seen() -> None:
    found = judged(walk(200))[0]
    assert found.frames
    assert found.nearer > 0.95


def test_many_short_videos_are_seen() -> None:
    assert judged(np.concatenate([walk(5, seed) for seed in range(20)]))[0].frames


@settings(deadline=None, max_examples=200)
@given(st.integers(0, 2**32 - 1), st.integers(FEWEST_PAIRS + 1, 80))
def test_numbered_strangers_are_never_taken_for_frames(seed: int, n: int) -> None:
    assert not judged(strangers(n, seed))[0].frames


@settings(deadline=None, max_examples=100)
@given(st.integers(0, 2**32 - 1))
def test_a_shuffled_video_is_none(seed: int) -> None:
    shuffled = np.random.default_rng(seed).permutation(walk(120))
    assert not judged(shuffled)[0].frames


def test_series_that_differ_from_each_other_are_no_frames_of_themselves() -> None:
    """Twenty drawings each of three authors, called after their subjects."""
    drawn = [strangers(20, seed) * 0.2 + strangers(1, 100 + seed) for seed in range(3)]
    paths = [f"a/{subject}_{number:02d}.png" for subject in "xyz" for number in range(20)]
    assert not judged(np.concatenate(drawn), paths)[0].frames


def test_pictures_that_are_all_alike_are_none() -> None:
    assert not judged(np.full((60, 256), 128.0, dtype=np.float32))[0].frames


def test_a_few_pairs_are_not_judged() -> None:
    assert judged(walk(FEWEST_PAIRS)) == {}
    assert judged(walk(FEWEST_PAIRS + 1)).keys() == {0}


def test_without_consecutive_numbers_nothing_is_judged() -> None:
    assert judged(walk(60), [f"a/f_{2 * number:05d}.png" for number in range(60)]) == {}
    assert judged(walk(60), [f"a/{chr(97 + number % 26)}{chr(97 + number // 26)}.png" for number in range(60)]) == {}


def test_copies_and_what_is_together_already_do_not_count() -> None:
    considered = np.zeros(60, dtype=np.bool_)
    considered[::2] = True
    assert judged(walk(60), considered=considered) == {}
    assert judged(walk(60), group=np.zeros(60, dtype=np.int64)) == {}


def test_each_class_is_judged_by_itself() -> None:
    paths = [f"{label}/f_{number:03d}.png" for label in "ab" for number in range(50)]
    found = judged(np.concatenate([walk(50), strangers(50)]), paths)
    assert (found[0].frames, found[1].frames) == (True, False)


def test_frames_that_were_dealt_to_sets_are_seen() -> None:
    rng = np.random.default_rng(0)
    names = [f"{rng.choice(['train', 'test'])}/a/f_{number:03d}.png" for number in range(100)]
    order = np.argsort(names)
    manifest = make_manifest([names[i] for i in order], labels=["a"] * 100)
    film = walk(100)[order]
    found = likeness_of_neighbours(manifest, np.ones(100, np.bool_), np.arange(100), lambda rows: film[rows])
    assert found[0].frames


def test_the_work_does_not_grow_with_the_data() -> None:
    asked: list[int] = []
    manifest = make_manifest([f"c{label:03d}/f_{number:03d}.png" for label in range(150) for number in range(60)])

    def thumbnails(rows: np.ndarray) -> np.ndarray:
        asked.append(len(rows))
        return strangers(len(rows))

    found = likeness_of_neighbours(manifest, np.ones(9000, np.bool_), np.arange(9000), thumbnails)
    assert len(found) == 100
    assert sum(asked) == 9_000  # three for each of 3,000 pairs


@pytest.mark.parametrize(
    ("likeness", "frames"),
    [
        (Likeness(30, 0.85, 0.6, 30.0), True),
        (Likeness(29, 1.0, 0.1, 1.0), False),
        (Likeness(300, 0.84, 0.1, 1.0), False),
        (Likeness(300, 1.0, 0.61, 1.0), False),
        (Likeness(300, 1.0, 0.1, 30.1), False),
    ],
)
def test_the_thresholds(likeness: Likeness, frames: bool) -> None:
    assert likeness.frames is frames
