"""The figures of the benchmark of copies, against a set small enough to count by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from leaky_sets import rival_programs
from leaky_sets.folder import IMAGES, TRUTH, Made, Original, Plan, one_of_kin, pool_originals, read_truth, write_set
from leaky_sets.judging import Case, Join, Verdict, figures, groups_of
from leaky_sets.pictures import half_of
from leaky_sets.project import look
from leaky_sets.rivals import RIVALS
from leaky_sets.table import pairs_table, pipelines_table, summary_table
from leaky_sets.twins import TWINS, Judged, kin, read_judged

FLIP, CHAIN = "torchvision/hflip", "torchvision/simclr"
TRUTH_OF_FIVE = {
    made.file: made
    for made in (
        *(Made(name, name.upper()) for name in "abcde"),
        *(Made("a1", "A", FLIP), Made("a2", "A", CHAIN), Made("b1", "B", FLIP), Made("b2", "B", CHAIN)),
    )
}
#: a with its copies, the second through the first; b with one of its two; c and d, and e with the other copy of b.
JOINS = (Join("a", "a1"), Join("a1", "a2"), Join("b", "b1"), Join("c", "d", 9.5), Join("e", "b2"))


def case(judged: Judged = Judged(), **said: object) -> Case:  # noqa: B008 - it is frozen
    verdict = Verdict(groups_of(TRUTH_OF_FIVE, JOINS), JOINS, **said)  # type: ignore[arg-type]
    return Case(TRUTH_OF_FIVE, verdict, judged)


def test_groups_are_closed_over_joins() -> None:
    group = groups_of("abcdef", [Join("a", "c"), Join("c", "b"), Join("f", "d")])
    assert group["a"] == group["b"] == group["c"]
    assert group["d"] == group["f"]
    assert len(set(group.values())) == 3


def test_recall_counts_groups_and_direct_joins() -> None:
    told = figures(case())
    assert (told["originals"], told["copies"]) == (5, 4)
    assert told["recall"]["single"]["group"]["found"] == 2
    assert (told["recall"]["chain"]["group"]["found"], told["recall"]["chain"]["group"]["n"]) == (1, 2)
    assert told["pipelines"][CHAIN]["direct"]["found"] == 0  # a2 is joined to a1 alone
    assert told["pipelines"][FLIP] == {"kind": "single", **told["recall"]["single"]}
    assert (told["whole_families"]["found"], told["whole_families"]["n"]) == (1, 2)
    assert [each["file"] for each in told["missed"]] == ["b2"]
    assert told["pictures"]["B"]["group"]["found"] == 1


def test_a_stranger_in_the_group_is_wrong_for_all_originals_in_it() -> None:
    told = figures(case())
    assert told["merged_wrongly"]["found"] == 3  # c and d with each other, e with a copy of b; b is alone with its own
    assert [(pair["first"], pair["second"]) for pair in told["wrong_pairs"]] == [("C", "D"), ("E", "B")]
    assert told["wrong_pairs"][1]["pipelines"] == ["", CHAIN]


def test_twins_are_not_wrong_and_a_shared_part_is_told_apart() -> None:
    twins = figures(case(Judged(twins=(("D", "C"),))))
    assert (twins["merged_wrongly"]["found"], twins["merged_with_twins_alone"]) == (1, 2)
    assert [pair["first"] for pair in twins["twin_pairs"]] == ["C"]
    part = figures(case(Judged(parts=(("C", "D"),))))
    assert (part["merged_wrongly"]["found"], part["merged_with_strangers"]["found"]) == (3, 1)
    assert [pair["shared_part"] for pair in part["wrong_pairs"]] == [True, False]


def test_what_leaks_through_the_split() -> None:
    sets = dict.fromkeys(TRUTH_OF_FIVE, "aside") | {"a": "train", "c": "test", "b2": "test", "b": "val", "e": "test"}
    told = figures(case(eligible=frozenset("bce") | {"b2"}, sets=sets, named=frozenset({"a", "b1"})))
    assert (told["copies_among_test_files"]["found"], told["copies_among_test_files"]["n"]) == (1, 3)
    assert told["test_files_with_sibling_in_train_or_val"]["found"] == 1
    assert told["originals_eligible"]["found"] == 3
    assert told["originals_without_copies_eligible"] == told["originals_without_copies_eligible"] | {"found": 2, "n": 3}
    assert told["copies_among_eligible"]["found"] == 1
    assert (told["original_named_is_right"]["found"], told["original_named_is_right"]["n"]) == (1, 2)


def test_perfect_groups_leave_no_sibling_and_as_many_copies_as_chance_has() -> None:
    joins = tuple(Join(made.source.lower(), made.file) for made in TRUTH_OF_FIVE.values() if made.is_copy)
    told = figures(Case(TRUTH_OF_FIVE, Verdict(groups_of(TRUTH_OF_FIVE, joins), joins)))
    assert told["recall"]["all"]["direct"]["value"] == 100
    kept = told["if_one_of_each_group_is_kept"]
    assert (kept["files"], kept["test_files_with_sibling_in_train"]) == (5, 0)
    assert 0 < kept["copies_among_test_files"] < 60  # two thirds of two groups of five


def test_of_kin_the_first_is_left() -> None:
    originals = [Original(name, "a", lambda: None) for name in "edcba"]  # type: ignore[arg-type, return-value]
    judged = Judged(twins=(("a", "b"),), parts=(("b", "d"),))
    assert [each.source for each in one_of_kin(originals, judged)] == ["e", "d", "c"]


def test_kinship_is_closed() -> None:
    names = kin("abcd", [("b", "a"), ("c", "b")])
    assert len({names[each] for each in "abc"}) == 1
    assert names["d"] == "d"


def test_the_list_of_twins_is_of_the_half_that_is_reported() -> None:
    judged = read_judged()
    rows = TWINS.read_text().splitlines()[1:]
    assert len(judged.twins) + len(judged.parts) == len(rows) > 0  # no other judgement
    for pair in judged.twins + judged.parts:
        assert pair[0] < pair[1]
        assert [Path(each).suffix for each in pair] == [".png", ".png"]
    assert half_of("x") in ("fit", "test")


def test_every_other_tool_has_its_program() -> None:
    assert {program.__name__ for program in rival_programs.PROGRAMS} == set(RIVALS)
    assert all(program.__doc__ for program in rival_programs.PROGRAMS)


def test_hashes_join_what_any_view_of_the_other_is_near() -> None:
    rng = np.random.default_rng(0)
    views = rng.random((4, 8, 64)) < 0.5
    views[2, 5] = views[0, 0]
    views[2, 5, :3] ^= True
    assert rival_programs._near("abcd", views, 10) == [("a", "c")]
    assert rival_programs._near("abcd", views, 2) == []


def drawing(seed: int) -> Image.Image:
    """Overlapping rectangles: corners that can be found again."""
    rng = np.random.default_rng(seed)
    pixels = np.full((180, 240, 3), 255, dtype=np.uint8)
    for _ in range(40):
        top, left, height, width = rng.integers(0, 160), rng.integers(0, 220), *rng.integers(8, 60, 2)
        pixels[top : top + height, left : left + width] = rng.integers(0, 256, 3)
    return Image.fromarray(pixels)


@pytest.mark.slow
def test_the_project_is_held_against_the_truth(tmp_path: Path) -> None:
    """Looks at a whole set, so that a change of what is wrapped or read is noticed here."""
    half = tmp_path / "pool"
    for number in range(16):
        file = half / ("clipart" if number % 2 else "sky") / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        drawing(number).save(file)
    originals = pool_originals(half, 0)
    assert sorted({each.label for each in originals}) == ["drawing", "sky"]
    write_set(originals, tmp_path / "set", Plan(augmented=0.25, libraries=("Roboflow-like",)))
    said, costs = look(tmp_path / "set" / IMAGES, threads=1)
    told = {**figures(Case(read_truth(tmp_path / "set" / TRUTH), said)), "costs": costs}
    assert (told["originals"], told["copies"]) == (16, 16)
    assert told["recall"]["all"]["group"]["found"] >= 4
    assert told["merged_wrongly"]["found"] == 0
    assert costs["pairs_compared_by_key_points"] > 0
    assert costs["pairs_laid_over_each_other"] >= 0
    assert costs["times_decoding_and_one_forward_pass"] > 1
    text = summary_table({"automl-vision": told}) + pipelines_table(told) + pairs_table(told)
    assert "| originals, copies | 16, 16 |" in text


@pytest.mark.parametrize("count", [0, 3])
def test_a_set_of_the_pool_has_as_many_as_asked(tmp_path: Path, count: int) -> None:
    for number in range(5):
        (tmp_path / "sky").mkdir(exist_ok=True)
        drawing(number).save(tmp_path / "sky" / f"{number}.png")
    chosen: list[Original] = pool_originals(tmp_path, count)
    assert len(chosen) == (count or 5)
    assert len({each.read().tobytes() for each in chosen}) == len(chosen)
