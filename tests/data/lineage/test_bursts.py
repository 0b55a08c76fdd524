"""What running numbers and camera times keep together."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lineage_cases import make_facts, make_manifest

from automl_vision.config import DataSettings
from automl_vision.data.lineage.bursts import burst_links
from automl_vision.data.lineage.groups import connected, declared_groups, trace_lineage
from automl_vision.rules import BurstWindow, parse_burst_window

NAN = float("nan")


def together(paths: list[str], window: str, taken: list[float] | None = None) -> set[frozenset[str]]:
    """The groups of more than one file."""
    manifest = make_manifest(paths, labels=["x"] * len(paths))
    times = None if taken is None else np.array(taken)
    root = connected(len(paths), burst_links(manifest, times, parse_burst_window(window)))
    groups = [frozenset(np.array(paths)[root == each].tolist()) for each in set(root.tolist())]
    return {group for group in groups if len(group) > 1}


def test_numbers_within_the_window_are_one_burst_and_windows_chain() -> None:
    paths = [f"a/f_{number:03d}.jpg" for number in (1, 2, 3, 4, 9, 12, 20)]
    assert together(paths, "1") == {frozenset(paths[:4])}
    assert together(paths, "3") == {frozenset(paths[:4]), frozenset(paths[4:6])}
    assert together(paths, "8") == {frozenset(paths)}


def test_the_pattern_must_be_the_same() -> None:
    assert together(["a/f_1.jpg", "a/g_2.jpg"], "5") == set()
    assert together(["a/1_left.jpg", "a/2_right.jpg"], "5") == set()
    assert together(["a/f_1.jpg", "b/f_2.jpg"], "5") == set()
    assert together(["a/f_0001.jpg", "a/f_02.jpg"], "5") == set()
    assert together(["a/v1_f1.jpg", "a/v2_f2.jpg"], "5") == set()
    assert together(["a/x.jpg", "a/y.jpg"], "5") == set()


def test_numbers_without_zeros_in_front_may_grow() -> None:
    assert together(["a/f9.jpg", "a/f10.jpg"], "1") == {frozenset({"a/f9.jpg", "a/f10.jpg"})}
    assert together(["a/f_0999.jpg", "a/f_1000.jpg"], "1") == {frozenset({"a/f_0999.jpg", "a/f_1000.jpg"})}


def test_the_ending_does_not_matter_and_what_follows_the_number_does() -> None:
    assert len(together(["a/f1_left.jpg", "a/f2_left.PNG"], "1")) == 1
    assert together(["a/f1_left.jpg", "a/f2_left_small.jpg"], "1") == set()


def test_folders_that_only_name_a_set_are_one_series() -> None:
    paths = ["train/cat/f_1.jpg", "test/cat/f_2.jpg", "valid/cat/f_3.jpg", "test/dog/f_2.jpg"]
    assert together(paths, "1") == {frozenset(paths[:3])}


def test_camera_times_within_the_window_are_one_burst() -> None:
    paths = ["a/q.jpg", "a/w.jpg", "a/e.jpg", "a/r.jpg", "b/t.jpg"]
    taken = [100.0, 101.5, 103.5, NAN, 100.2]
    assert together(paths, "2s", taken) == {frozenset(paths[:3])}
    assert together(paths, "1.9s", taken) == {frozenset(paths[:2])}
    assert together(paths, "1s", taken) == set()
    assert together(paths, "2s") == set()


def test_numbers_or_times_are_enough() -> None:
    paths = ["a/f_1.jpg", "a/f_2.jpg", "a/f_9.jpg"]
    assert together(paths, "1,2s", [0.0, 50.0, 51.0]) == {frozenset(paths)}


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 40)), unique=True, max_size=30),
    st.integers(1, 6),
    st.randoms(use_true_random=False),
)
def test_groups_do_not_depend_on_the_order_of_rows_or_on_the_names_of_folders(
    files: list[tuple[str, int]], window: int, random: object
) -> None:
    paths = [f"{folder}/f{number}.jpg" for folder, number in files]
    shuffled = list(paths)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    plain = together(paths, str(window))
    assert together(shuffled, str(window)) == plain
    moved = together([path.replace("a/", "x1/Katze/").replace("b/", "y 2/") for path in paths], str(window))
    assert {frozenset(p.replace("x1/Katze/", "a/").replace("y 2/", "b/") for p in group) for group in moved} == plain


@settings(deadline=None, max_examples=50)
@given(st.sets(st.integers(0, 60), max_size=30), st.integers(1, 6))
def test_two_neighbours_are_together_exactly_where_no_gap_is_wider_than_the_window(
    numbers: set[int], window: int
) -> None:
    paths = [f"a/f{number}.jpg" for number in sorted(numbers)]
    links = burst_links(make_manifest(paths, labels=["x"] * len(paths)), None, BurstWindow(window))
    root = connected(len(paths), links)
    gaps = np.diff(sorted(numbers)) > window
    expected = np.concatenate([[0], np.cumsum(gaps)]) if paths else np.zeros(0)
    assert len(set(root.tolist())) == len(set(expected.tolist()))
    assert len({*zip(root.tolist(), expected.tolist(), strict=True)}) == len(set(expected.tolist()))


def test_members_of_a_burst_are_originals_that_stay_together() -> None:
    manifest = make_manifest(["a/f_1.jpg", "a/f_2.jpg", "a/f_2_hflip.jpg", "a/f_7.jpg"])
    lineage = trace_lineage(manifest, make_facts(manifest), DataSettings(burst_window="1"))
    assert lineage.role.tolist() == ["original", "original", "copy", "original"]
    assert lineage.group[0] == lineage.group[1] == lineage.group[2] != lineage.group[3]
    assert len(set(trace_lineage(manifest, make_facts(manifest), DataSettings()).group.tolist())) == 3


def test_two_labels_in_one_burst_are_no_contradiction() -> None:
    from automl_vision.data.audit import audit

    manifest = make_manifest(["in/f_1.jpg", "in/f_2.jpg"], labels=["a", "b"])
    checked = audit(manifest, make_facts(manifest), DataSettings(burst_window="1"))
    assert checked.lineage.group.tolist() == [0, 0]
    assert not checked.label_conflict.any()


@pytest.mark.parametrize("window", ["1", "2s", "1,2s"])
def test_numbers_count_before_any_file_was_opened_and_times_do_not(window: str) -> None:
    manifest = make_manifest(["a/f_1.jpg", "a/f_2.jpg"])
    groups = declared_groups(manifest, DataSettings(burst_window=window))
    assert len(set(groups.tolist())) == (2 if window == "2s" else 1)


def test_a_number_of_thousands_of_digits_is_read_by_its_end() -> None:
    paths = [f"a/f{'1' * 5_000}{last}.jpg" for last in (1, 2, 7)]
    assert together(paths, "1") == {frozenset(paths[:2])}
