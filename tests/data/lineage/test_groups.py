from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lineage_cases import make_compared, make_facts, make_manifest

from automl_vision.config import DataSettings
from automl_vision.data.lineage.evidence import EVIDENCE, LINEAGE_MODES
from automl_vision.data.lineage.groups import connected, trace_lineage
from automl_vision.data.lineage.lineage import Lineage, Link

NAMES = DataSettings(lineage="names")
OFF = DataSettings(lineage="off")
HEX = "0123456789abcdef" * 2


def roles(paths, given_settings=NAMES, pixels=None, files=None, faults=None, **columns):
    manifest = make_manifest(paths, **columns)
    lineage = trace_lineage(manifest, make_facts(manifest, pixels, files, faults), given_settings)
    return lineage.role.tolist(), lineage.orphan.tolist(), lineage.group.tolist()


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 19), st.integers(0, 19)), max_size=40))
def test_connected_rows_share_the_smallest_row(pairs: list[tuple[int, int]]) -> None:
    root = connected(20, [Link(min(p), max(p), "names", "") for p in pairs])
    expected = list(range(20))
    for _ in range(20):
        for a, b in pairs:
            low = min(expected[a], expected[b])
            expected = [low if e in (expected[a], expected[b]) else e for e in expected]
    assert root.tolist() == expected


def test_every_mode_names_rows_of_the_table_in_its_order() -> None:
    for mode in LINEAGE_MODES.values():
        assert list(mode) == [name for name in EVIDENCE if name in mode]


@pytest.mark.parametrize("name", EVIDENCE)
def test_evidence_keeps_its_contract(name: str) -> None:
    paths = ["a/x.jpg", "a/x_flip.jpg", "b/y.jpg", "b/y2.jpg", "b/z.jpg"]
    manifest = make_manifest(paths, group=("g", None, "g", None, None), is_augmented=(None, True, False, None, None))
    facts = make_facts(
        manifest,
        pixels=[0, 1, 2, 2, 3],
        faults=["", "", "", "", "empty"],
        compared=make_compared((0, 2, True)),
        taken=[7.0, 8.5, np.nan, np.nan, np.nan],
    )
    given_settings = DataSettings(group_regex="/(.)", original_regex="x", burst_window="2s")
    found = EVIDENCE[name](manifest, facts, given_settings)
    assert found.claims.shape == (5,)
    assert set(found.claims) <= {"", "original", "copy", "unsure"}
    assert found.links, "the case has something for every row of the table"
    assert all(0 <= link.first < link.second < 5 and link.evidence == name for link in found.links)
    claimed = np.isin(found.claims, ("copy", "unsure"))
    assert all(found.reasons.get(int(row), found.reason) for row in np.flatnonzero(claimed))


def test_a_group_column_makes_no_copies() -> None:
    role, orphan, group = roles(["a/1.jpg", "a/2.jpg", "b/3.jpg"], group=("p", "p", "p"))
    assert role == ["original"] * 3
    assert orphan == [False] * 3
    assert group == [0, 0, 0]


def test_the_column_beats_the_name() -> None:
    paths = ["a/x.jpg", "a/x_flip.jpg"]
    role, _, group = roles(paths, is_augmented=(None, False))
    assert role == ["original", "original"]
    assert group == [0, 0]


def test_the_pattern_beats_the_name_and_the_column_beats_the_pattern() -> None:
    paths = ["a/x.jpg", "a/x_flip.jpg"]
    given_settings = DataSettings(original_regex="flip")
    assert roles(paths, given_settings)[0] == ["copy", "original"]
    assert roles(paths, given_settings, is_augmented=(False, True))[0] == ["original", "copy"]


def test_a_group_pattern_joins_and_an_original_pattern_names_originals() -> None:
    given_settings = DataSettings(group_regex=r"/(\d+)[a-z]", original_regex=r"\da\.")
    role, orphan, group = roles(["c/1a.jpg", "c/1b.jpg", "c/2a.jpg", "c/3b.jpg"], given_settings)
    assert role == ["original", "copy", "original", "copy"]
    assert orphan == [False, False, False, True]
    assert group[0] == group[1]
    assert len(set(group)) == 3


def test_augmented_without_an_original_is_an_orphan() -> None:
    assert roles(["a/1.jpg", "a/2.jpg"], is_augmented=(True, False))[1] == [True, False]
    assert roles(["a/aug_0_1234.jpg", "a/2.jpg"])[1] == [True, False]


def test_of_equal_pixels_one_is_the_original() -> None:
    role, orphan, group = roles(["a/1.jpg", "a/2.jpg", "b/3.jpg"], pixels=[7, 7, 7])
    assert sorted(role) == ["copy", "copy", "original"]
    assert orphan == [False] * 3
    assert group == [0, 0, 0]


def test_which_of_equal_pixels_is_kept_depends_on_content() -> None:
    files = ["f1", "f2"]
    kept = roles(["a/1.jpg", "a/2.jpg"], pixels=[7, 7], files=files)[0].index("original")
    swapped = roles(["a/1.jpg", "a/2.jpg"], pixels=[7, 7], files=files[::-1])[0].index("original")
    assert kept != swapped


def test_of_equal_files_the_plainer_name_and_the_test_set_win() -> None:
    paths = ["a/photo (1).jpg", "a/photo.jpg"]
    assert roles(paths, pixels=[7, 7], files=[1, 1])[0] == ["copy", "original"]
    assert roles(paths, pixels=[7, 7], files=[1, 1], split=("test", "train"))[0] == ["original", "copy"]


def test_names_decide_which_of_equal_pixels_is_the_original() -> None:
    for files in ([1, 2], [2, 1]):
        paths = ["a/augmented/q.jpg", "a/w.jpg"]
        role, orphan, _ = roles(paths, pixels=[7, 7], files=files)
        assert role == ["copy", "original"]
        assert orphan == [False, False]


def test_pixels_equal_to_a_named_copy_are_a_copy_too() -> None:
    for files in ([1, 2, 3], [3, 2, 1]):
        assert roles(["a/x.jpg", "a/x_flip.jpg", "a/zz.jpg"], pixels=[1, 7, 7], files=files)[0] == [
            "original",
            "copy",
            "copy",
        ]


def test_other_evidence_settles_which_of_one_source_is_the_original() -> None:
    paths = [f"a/x_jpg.rf.{HEX}.jpg", f"a/x_jpg.rf.f{HEX[1:]}.jpg"]
    assert roles(paths)[0] == ["unsure", "unsure"]
    assert roles(paths, is_augmented=(None, False))[0] == ["copy", "original"]


def test_an_unreadable_original_is_still_an_original() -> None:
    role, orphan, group = roles(["a/x.jpg", "a/x_flip.jpg"], faults=["truncated", ""])
    assert role[1] == "copy"
    assert orphan == [False, False]
    assert group == [0, 0]


def test_lineage_off_reads_no_names() -> None:
    paths = ["a/x.jpg", "a/x_flip.jpg", "a/y.jpg"]
    role, _, group = roles(paths, OFF, pixels=[1, 2, 1])
    assert role[1] == "original"
    assert sorted(role) == ["copy", "original", "original"]
    assert group[0] == group[2] != group[1]


def test_reasons_explain_every_orphan_and_unsure_row() -> None:
    paths = ["a/aug_0_1234.jpg", f"a/x_jpg.rf.{HEX}.jpg", f"a/x_jpg.rf.f{HEX[1:]}.jpg", "b/augmented/q.jpg"]
    manifest = make_manifest([*paths, "b/w.jpg"])
    reasons = trace_lineage(manifest, make_facts(manifest), NAMES).reasons
    assert set(reasons) == {0, 1, 2, 3}
    assert "Keras" in reasons[0]
    assert "Roboflow" in reasons[1]
    assert "augmented" in reasons[3]


@settings(deadline=None)
@given(st.permutations(range(8)))
def test_group_numbers_are_dense_and_follow_content(order: list[int]) -> None:
    paths = ["a/1.jpg", "a/2.jpg", "a/3.jpg", "a/3_flip.jpg", "b/5.jpg", "b/6.jpg", "b/7.jpg", "b/8.jpg"]
    pixels = [1, 2, 3, 4, 5, 6, 1, 8]
    faults = [""] * 4 + ["empty", "", "", "truncated"]
    _, _, group = roles(paths, pixels=pixels, faults=faults)
    _, _, shuffled = roles(
        [paths[i] for i in order], pixels=[pixels[i] for i in order], faults=[faults[i] for i in order]
    )
    assert shuffled == [group[i] for i in order]
    assert sorted(set(group)) == list(range(6))
    assert (group[4], group[7]) == (4, 5), "quarantined rows come last, by path"


FULL = DataSettings(lineage="full")


def traced(paths, *found, **columns):
    manifest = make_manifest(paths, **columns)
    return trace_lineage(manifest, make_facts(manifest, compared=make_compared(*found)), FULL)


def test_what_pixels_join_is_one_group_without_a_known_original() -> None:
    lineage = traced(["a/1x.jpg", "a/2y.jpg", "a/3z.jpg", "b/w.jpg"], (0, 1, True), (1, 2, True))
    assert len(set(lineage.group[:3])) == 1
    assert lineage.group[3] != lineage.group[0]
    assert lineage.role.tolist() == ["unsure"] * 3 + ["original"]
    assert "same picture" in lineage.reasons[0]
    assert [(link.evidence, link.score) for link in lineage.links] == [("pixels_registered", 20.0)] * 2


def test_a_name_says_which_of_the_joined_is_the_original() -> None:
    lineage = traced(["a/x.jpg", "a/x_hflip.jpg", "a/q.jpg"], (0, 2, True))
    assert lineage.role.tolist() == ["original", "copy", "copy"]


def test_of_two_originals_by_name_that_show_one_picture_neither_is_sure() -> None:
    paths = ["a/x.jpg", "a/x_hflip.jpg", "a/y.jpg", "a/y_hflip.jpg"]
    lineage = traced(paths, (0, 2, True))
    assert lineage.role.tolist() == ["unsure", "copy", "unsure", "copy"]
    assert not lineage.orphan.any()


def test_the_column_settles_what_pixels_joined() -> None:
    lineage = traced(["a/x.jpg", "a/y.jpg", "a/z.jpg"], (0, 1, True), (1, 2, True), is_augmented=(False, False, True))
    assert lineage.role.tolist() == ["original", "original", "copy"]


def test_perhaps_joins_nothing_and_bars_both_groups_whole() -> None:
    lineage = traced(["a/x.jpg", "a/x_hflip.jpg", "a/y.jpg", "a/z.jpg"], (1, 2, False))
    assert len(set(lineage.group.tolist())) == 3
    assert lineage.barred.tolist() == [True, True, True, False]
    assert [(link.first, link.second, link.evidence) for link in lineage.unsure] == [(1, 2, "pixels_registered")]


def test_perhaps_inside_a_group_bars_nothing() -> None:
    lineage = traced(["a/x.jpg", "a/y.jpg"], (0, 1, True), (0, 1, False))
    assert not lineage.barred.any()
    assert lineage.unsure == ()


def test_comparisons_count_only_where_they_are_asked_for() -> None:
    manifest = make_manifest(["a/x.jpg", "a/y.jpg"])
    lineage = trace_lineage(manifest, make_facts(manifest, compared=make_compared((0, 1, True))), NAMES)
    assert lineage.role.tolist() == ["original", "original"]


def pixels_say(paths, original, *found, marked=None, pixels=None, **columns):
    manifest = make_manifest(paths, **columns)
    compared = make_compared(*found, original=original, marked=marked)
    return trace_lineage(manifest, make_facts(manifest, pixels=pixels, compared=compared), FULL)


def test_where_pixels_are_sure_the_rest_of_the_group_are_copies() -> None:
    paths = ["a/p.jpg", "a/q.jpg", "a/r.jpg", "b/s.jpg"]
    lineage = pixels_say(paths, {0: 0.003, 1: 0.995, 2: 0.001}, (0, 1, True), (1, 2, True))
    assert lineage.role.tolist() == ["copy", "original", "copy", "original"]
    assert not lineage.orphan.any()


def test_where_pixels_are_not_sure_all_stay_unsure_and_the_reader_sees_the_probability() -> None:
    lineage = pixels_say(["a/p.jpg", "a/q.jpg"], {0: 0.06, 1: 0.93}, (0, 1, True))
    assert lineage.role.tolist() == ["unsure", "unsure"]
    assert "93%" in lineage.reasons[1]


def test_names_beat_pixels() -> None:
    paths = ["a/x.jpg", "a/x_hflip.jpg", "a/q.jpg"]
    for sure in (0, 1, 2):
        lineage = pixels_say(paths, {sure: 0.999}, (0, 2, True))
        assert lineage.role.tolist() == ["original", "copy", "copy"]


def test_a_copy_by_name_is_no_original_by_pixels() -> None:
    paths = ["a/augmented/p.jpg", "a/q.jpg", "a/r.jpg"]
    assert pixels_say(paths, {0: 0.999}, (0, 1, True), (1, 2, True)).role.tolist() == ["copy", "unsure", "unsure"]
    assert pixels_say(paths, {1: 0.999}, (0, 1, True), (1, 2, True)).role.tolist() == ["copy", "original", "copy"]


def test_the_column_beats_pixels() -> None:
    lineage = pixels_say(["a/p.jpg", "a/q.jpg"], {0: 0.999}, (0, 1, True), is_augmented=(True, False))
    assert lineage.role.tolist() == ["copy", "original"]


def test_pixels_settle_what_names_leave_open() -> None:
    paths = [f"a/dog_jpg.rf.{HEX}.jpg", f"a/dog_jpg.rf.{HEX[::-1]}.jpg", "a/q.jpg"]
    assert pixels_say(paths, {}, (0, 2, True)).role.tolist()[:2] == ["unsure", "unsure"]
    lineage = pixels_say(paths, {1: 0.995}, (0, 2, True))
    assert lineage.role.tolist() == ["copy", "original", "copy"]


def test_of_equal_pictures_that_pixels_take_for_the_original_one_is() -> None:
    paths = ["a/p.jpg", "a/q.jpg", "a/r.jpg"]
    for chosen in (0, 2):
        lineage = pixels_say(paths, {0: 0.0, 1: 0.0, 2: 0.0} | {chosen: 0.995}, (0, 2, True), pixels=[0, 0, 1])
        assert sorted(lineage.role.tolist()) == ["copy", "copy", "original"]
        assert lineage.role[2] == ("original" if chosen == 2 else "copy")


def test_a_group_column_holds_an_original_for_each_picture() -> None:
    paths = [f"a/{name}.jpg" for name in "pqrstu"]
    lineage = pixels_say(paths, {0: 0.999, 1: 0.0, 2: 0.2, 3: 0.5}, (0, 1, True), (2, 3, True), group=("g",) * 6)
    assert lineage.role.tolist() == ["original", "copy", "unsure", "unsure", "original", "original"]


def test_what_looks_augmented_is_barred_alone_unless_something_stronger_vouches_for_it() -> None:
    paths = ["a/p.jpg", "a/q.jpg", "a/x.jpg", "a/x_hflip.jpg", "a/v.jpg"]
    marked = dict.fromkeys(range(4), ("wedges",))
    lineage = pixels_say(paths, {}, marked=marked, is_augmented=(None, False, None, None, None))
    assert lineage.role.tolist() == ["original", "original", "original", "copy", "original"]
    assert lineage.barred.tolist() == [True, False, False, False, False]


@given(st.permutations(range(4)))
def test_the_order_of_rows_does_not_change_what_pixels_name(order: list[int]) -> None:
    paths, probability = ["a/p.jpg", "a/q.jpg", "a/r.jpg", "a/s.jpg"], [0.001, 0.992, 0.002, 0.0]
    place = [order.index(row) for row in range(4)]
    found = [(*sorted((place[a], place[b])), True) for a, b in ((0, 1), (1, 2))]
    lineage = pixels_say([paths[i] for i in order], {place[row]: probability[row] for row in range(3)}, *found)
    assert [lineage.role[place[row]] for row in range(4)] == ["copy", "original", "copy", "original"]


def doubting(copies: int, **told) -> Lineage:
    """Forty images, some of which show what the first shows."""
    paths = [f"a/p{chr(97 + i // 26)}{chr(97 + i % 26)}.jpg" for i in range(40)]
    columns = {key: told.pop(key) for key in ("is_augmented",) if key in told}
    manifest = make_manifest(paths, **columns)
    found = make_compared(*((0, row, True) for row in range(1, copies)), **told)
    return trace_lineage(manifest, make_facts(manifest, compared=found), FULL)


def test_in_a_folder_full_of_copies_lone_images_that_resemble_another_or_are_plain_are_barred() -> None:
    lineage = doubting(4, resembling=[2, 10, 12], plain=[3, 12, 30])
    assert lineage.doubtful == (10, 12, 30), "what belongs to a group has been recognised"
    assert np.flatnonzero(lineage.barred).tolist() == [10, 12, 30]
    assert set(lineage.role[[10, 12, 30]]) == {"original"}


def test_in_a_folder_without_many_copies_nothing_is_doubtful() -> None:
    for copies in (0, 3):
        lineage = doubting(copies, resembling=[10, 12], plain=[30])
        assert lineage.doubtful == ()
        assert not lineage.barred.any()


def test_pairs_that_may_be_the_same_do_not_make_a_folder_full_of_copies() -> None:
    manifest = make_manifest([f"a/{chr(97 + i)}.jpg" for i in range(20)])
    found = make_compared(*((row, row + 1, False) for row in range(0, 18, 2)), resembling=[19])
    assert trace_lineage(manifest, make_facts(manifest, compared=found), FULL).doubtful == ()


def test_what_the_user_calls_an_original_is_not_doubted() -> None:
    said = [None] * 40
    said[10], said[12] = False, True
    lineage = doubting(4, resembling=[10, 11, 12], is_augmented=tuple(said))
    assert lineage.doubtful == (11,)
    assert lineage.barred.tolist() == [row == 11 for row in range(40)]


def test_names_only_do_not_doubt() -> None:
    manifest = make_manifest([f"a/p{chr(97 + i)}.jpg" for i in range(8)])
    found = make_compared((0, 1, True), (0, 2, True), resembling=[5])
    assert trace_lineage(manifest, make_facts(manifest, compared=found), NAMES).doubtful == ()


def hundred(*, looked: int, unseen: list[int], of_b: int = 0) -> Lineage:
    """A hundred images, eight of which show one picture; the last ones are of another class."""
    names = [f"p{chr(97 + i // 26)}{chr(97 + i % 26)}" for i in range(100)]
    manifest = make_manifest([f"{'b' if i >= 100 - of_b else 'a'}/{name}.jpg" for i, name in enumerate(names)])
    found = make_compared(*((0, row, True) for row in range(1, 8)), looked=looked, unseen=unseen)
    return trace_lineage(manifest, make_facts(manifest, compared=found), FULL)


def test_where_many_pairs_were_copies_when_time_ended_what_was_not_compared_is_barred() -> None:
    assert hundred(looked=30, unseen=[3, *range(50, 100)]).doubtful == tuple(range(50, 100))
    assert hundred(looked=100, unseen=[3, *range(50, 100)]).doubtful == (), "few pairs were"
    assert hundred(looked=30, unseen=[]).doubtful == (), "all were compared"
    assert hundred(looked=7, unseen=[60]).doubtful == (60,), "seven of thirty, if no more were looked at"


def test_a_class_that_would_be_left_with_too_few_originals_is_trusted() -> None:
    lineage = hundred(looked=30, unseen=list(range(40, 99)), of_b=14)
    assert lineage.doubtful == tuple(range(40, 86))
    assert not lineage.barred[86:].any()


def families(*sizes: int, **columns) -> Lineage:
    """Pictures with their copies, the first of each named the original by pixels; and two alone."""
    starts = np.cumsum([0, *sizes])
    paths = [f"a/p{chr(97 + i // 26)}{chr(97 + i % 26)}.jpg" for i in range(int(starts[-1]) + 2)]
    manifest = make_manifest(paths, **columns)
    pairs = [(first, row, True) for first, last in pairwise(starts.tolist()) for row in range(first + 1, last)]
    found = make_compared(*pairs, original=dict.fromkeys(starts[:-1].tolist(), 0.999))
    return trace_lineage(manifest, make_facts(manifest, compared=found), FULL)


def test_the_original_of_a_group_that_is_smaller_than_nearly_all_others_is_barred() -> None:
    lineage = families(*[4] * 11, 3)
    assert lineage.short == {44: "3 files show this picture, where nearly all that have copies have 4"}
    assert np.flatnonzero(lineage.barred).tolist() == [44]
    assert lineage.role[44] == "original", "it is one, but a copy of it may be trained on"


def test_where_sizes_vary_or_the_user_says_what_is_an_original_nothing_is_barred() -> None:
    assert families(*[4] * 5, *[3] * 5, *[2] * 5).short == {}
    said = tuple(None if row != 44 else False for row in range(49))
    assert families(*[4] * 11, 3, is_augmented=said).short == {}
