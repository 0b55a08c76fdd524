from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from automl_vision.data.lineage.agreement import Agreement
from automl_vision.data.lineage.group_sizes import GroupSizes
from automl_vision.data.lineage.missing_copies import missing_copies
from automl_vision.data.lineage.neighbours import nearest_pairs
from automl_vision.data.lineage.registration import Registration

#: Twelve groups of four, one of three, one of two; and five images that are alone.
ROOT = np.array([*np.repeat(np.arange(12) * 4, 4), 48, 48, 48, 51, 51, *range(53, 58)])
ROWS = np.arange(len(ROOT))
SIZES = GroupSizes.of(ROOT, ROWS)


def found(points: int) -> Registration:
    """A pair that may show one picture, and no more."""
    return Registration(inliers=points, agreement=Agreement(correlation=0.8))


def views(**like: tuple[int, float]) -> np.ndarray:
    """Descriptors of strangers, of which some resemble another row by so much."""
    made = np.random.default_rng(0).normal(size=(1, len(ROOT), 128)).astype(np.float32)
    for name, (row, much) in like.items():
        made[0, int(name[1:])] += much * made[0, row]
    return made


def claimed(made: np.ndarray, *pairs: tuple[int, int, int]) -> list[tuple[int, int]]:
    perhaps = [((a, b), found(points)) for a, b, points in pairs]
    return missing_copies(perhaps, ROWS, made, nearest_pairs(made), ROOT, SIZES)


def test_what_resembles_a_group_that_lost_a_copy_most_and_may_be_one_is_it() -> None:
    assert claimed(views(r53=(48, 0.6)), (48, 53, 6), (4, 54, 6)) == [(48, 53)], "the other group has all its copies"


def test_what_resembles_it_less_than_others_do_is_not() -> None:
    made = views(r53=(48, 0.9), r54=(48, 0.8), r55=(48, 0.7), r56=(48, -0.5))
    assert claimed(made, (48, 56, 6)) == []


def test_a_group_gets_no_more_than_it_has_lost_the_most_alike_first() -> None:
    made = views(r53=(48, 0.5), r54=(48, 0.9))
    assert claimed(made, (48, 53, 6), (49, 54, 6)) == [(49, 54)]
    made = views(r53=(51, 0.5), r54=(51, 0.9), r55=(51, 0.7))
    assert claimed(made, (51, 53, 6), (51, 54, 6), (52, 55, 6)) == [(51, 54), (52, 55)], "it has lost two"


def test_an_image_goes_to_one_group_alone() -> None:
    made = views(r53=(48, 0.9))
    made[0, 53] += 0.5 * made[0, 51]
    assert claimed(made, (48, 53, 6), (51, 53, 6)) == [(48, 53)]


def test_of_several_pairs_the_one_that_says_most_is_told() -> None:
    assert claimed(views(r53=(48, 0.6)), (48, 53, 6), (49, 53, 8), (50, 53, 7)) == [(49, 53)]


def test_where_no_size_is_usual_nothing_is_expected() -> None:
    root = np.repeat(np.arange(0, 40, 2), 2)
    made = np.random.default_rng(0).normal(size=(1, 40, 16)).astype(np.float32)
    sizes = GroupSizes.of(root, np.arange(40))
    assert missing_copies([((0, 3), found(6))], np.arange(40), made, nearest_pairs(made), root, sizes) == []


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.tuples(st.sampled_from(range(48, 53)), st.sampled_from(range(53, 58)), st.integers(4, 9)), max_size=12)
)
def test_no_group_grows_beyond_what_is_usual(pairs: list[tuple[int, int, int]]) -> None:
    chosen = claimed(
        views(r53=(48, 0.5), r54=(51, 0.5), r55=(48, 0.3)), *{(a, b): (a, b, p) for a, b, p in pairs}.values()
    )
    lone = [b for _, b in chosen]
    assert len(set(lone)) == len(lone)
    assert sum(a < 51 for a, _ in chosen) <= 1
    assert sum(a >= 51 for a, _ in chosen) <= 2


def test_what_only_may_be_the_same_is_not_expected() -> None:
    assert claimed(views(r53=(48, 0.6)), (48, 53, 5)) == []


def test_less_is_asked_of_a_pair_that_is_expected_and_it_says_so() -> None:
    assert (found(6).same, found(6).perhaps, found(6).nearly) == (False, True, True)
    assert (found(5).perhaps, found(5).nearly) == (True, False)
    expected = replace(found(6), expected=True)
    assert expected.same
    assert expected.detail.endswith("and its group has lost a copy")
    assert not replace(found(5), expected=True).same
    assert not replace(found(6), expected=True, tiny=True).same
