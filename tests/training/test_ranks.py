"""Two processes that train one model make the steps that one makes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from rank_training import by_ranks, outcome, trainer

import automl_vision
from automl_vision.training.ranks import ALONE, LeftByFirst, Ranks, StepGate
from automl_vision.training.shared_statistics import pieces

#: Batches of eight over 27 images: the last has three, two of the first rank and one of the second.
SAME: dict[str, dict[str, Any]] = {
    "norms_kept": {},
    "layer_norm_in_parts": {"backbone": "test_vit", "batch_size": 4, "gradient_accumulation": 2, "momentum": 0.9},
    "mixup": {"mix": "mixup", "augment": "trivial", "quarter_turns": True, "ema": True},
    "cutmix": {"mix": "cutmix", "augment": "randaugment", "erasing": 0.5, "freeze_stages": 1},
    "clipped": {"clip_norm": 0.05, "momentum": 0.9, "loss": "weighted", "sampling": "balanced", "augment": "geometric"},
    "batch_norm_learns": {"freeze_norm": False, "backbone": "test_resnet", "learning_rate": 0.01},
}


def alone(changes: dict[str, Any]) -> dict[str, Any]:
    return outcome(trainer(changes))


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, dict[str, Any]]]:
    folder = tmp_path_factory.mktemp("two")
    return folder, by_ranks(folder, 2, SAME)


@pytest.mark.parametrize("variant", SAME)
def test_two_ranks_end_where_one_does(together: Any, variant: str) -> None:
    folder, outcomes = together
    got, expected = outcomes[variant], alone(SAME[variant])
    for name, theirs in expected["weights"].items():
        assert torch.allclose(got["weights"][name], theirs, atol=1e-5, rtol=0), name
    assert torch.allclose(got["results"], expected["results"], atol=1e-4)
    assert got["probabilities"].shape == (11, 3)
    assert torch.allclose(got["probabilities"], expected["probabilities"], atol=1e-4)
    other = torch.load(folder / f"{variant}.1.pt", weights_only=True)
    assert int(other["epoch"]) == 2
    assert all(torch.equal(each, got["weights"][name]) for name, each in other["weights"].items())


def test_the_steps_moved_the_weights(together: Any) -> None:
    """Or all of the above would hold for trainers that do nothing."""
    before = trainer(SAME["norms_kept"]).last_weights()
    moved = [float((each - before[name]).abs().max()) for name, each in together[1]["norms_kept"]["weights"].items()]
    assert max(moved) > 1e-2


def test_a_rank_that_holds_other_weights_ends_the_run(tmp_path: Path) -> None:
    came = by_ranks(tmp_path, 2, {"differs": {"fault": "differs"}})["differs"]
    other = torch.load(tmp_path / "differs.1.pt", weights_only=True)
    for each in (came, other):
        assert each["error"][0] == "RanksDiffer"
        assert "1 of " in each["error"][1] and "head.bias" in each["error"][1]


def test_a_rank_that_dies_ends_the_others_at_once_between_two_steps(tmp_path: Path) -> None:
    came = by_ranks(tmp_path, 2, {"dies": {"fault": "dies"}}, codes=(0, 9))["dies"]
    assert came["error"][0] == "RankLost"
    assert came["seconds"] < 30
    assert came["steps"] == 1


@pytest.mark.slow
def test_ranks_without_an_image_join_in(tmp_path: Path) -> None:
    """Three ranks: of a last batch of two, one has nothing; batch norm learns from the others alone."""
    variants: dict[str, dict[str, Any]] = {
        "norms_kept": {"train": 26, "val": 2},
        "pieces": {"train": 26, "batch_size": 1, "gradient_accumulation": 8, "mix": "mixup"},
    }
    _require_the_same(by_ranks(tmp_path, 3, variants), variants)


@pytest.mark.slow
@pytest.mark.xfail(strict=True, reason="weights drift by more than 1e-5 where a rank has nothing to add to statistics")
def test_so_do_they_where_batch_norm_learns(tmp_path: Path) -> None:
    learns = {"train": 26, "freeze_norm": False, "backbone": "test_resnet", "learning_rate": 0.01}
    _require_the_same(by_ranks(tmp_path, 3, {"batch_norm_learns": learns}), {"batch_norm_learns": learns})


def _require_the_same(came: dict[str, Any], variants: dict[str, dict[str, Any]]) -> None:
    for name, got in came.items():
        expected = alone(variants[name])
        assert got["probabilities"].shape == expected["probabilities"].shape
        for part, theirs in expected["weights"].items():
            assert torch.allclose(got["weights"][part], theirs, atol=1e-5, rtol=0), (name, part)


# --- the parts of it ------------------------------------------------------------------------------------------------


@given(count=st.integers(0, 200), size=st.integers(1, 9))
def test_parts_are_contiguous_even_and_all_of_it(count: int, size: int) -> None:
    parts = [Ranks(rank, size).part(count) for rank in range(size)]
    assert [place for part in parts for place in part] == list(range(count))
    sizes = [len(part) for part in parts]
    assert max(sizes) - min(sizes) <= 1
    assert sizes == sorted(sizes, reverse=True), "the first rank is never without an image"


@pytest.mark.parametrize("count", [0, 1, 2, 5])
def test_pieces_are_as_many_as_wanted(count: int) -> None:
    images, targets = torch.full((3, 3, 4, 4), 7, dtype=torch.uint8), torch.eye(3)
    got = list(pieces(images, targets, count, whole=12))
    assert len(got) == count
    assert all(len(piece) == len(wanted) >= 1 for piece, wanted, _ in got)
    if count:
        assert sum(share for *_, share in got) == pytest.approx(3 / 12)
    assert all(share or not piece.any() for piece, _, share in got), "a stand-in is blank"


class Wire(Ranks):
    """Two ranks in one process: what the first one tells is what the second one hears."""

    told: ClassVar[list[int]] = []

    def of_first(self, value: int) -> int:
        if self.first:
            self.told.append(value)
            return value
        return self.told.pop(0)


def gates(ask: Any) -> tuple[StepGate, StepGate]:
    Wire.told.clear()
    return StepGate(Wire(0, 2), ask), StepGate(Wire(1, 2), lambda: pytest.fail("only the first rank decides"))


def test_both_ranks_take_the_same_steps() -> None:
    asked = iter([False] * 5 + [True])
    first, second = gates(lambda: next(asked))
    steps = {"first": 0, "second": 0}
    while not first.is_shut():
        steps["first"] += 1
    assert len(Wire.told) == 6
    assert Wire.told[0] == 1, "nobody knows yet how long a step takes"
    assert max(Wire.told) > 1, "steps of microseconds are not asked for one by one"
    while not second.is_shut():
        steps["second"] += 1
    assert steps["first"] == steps["second"]


def test_what_ends_the_first_rank_ends_the_others() -> None:
    def ask() -> bool:
        raise KeyboardInterrupt

    first, second = gates(ask)
    with pytest.raises(KeyboardInterrupt):
        first.is_shut()
    with pytest.raises(LeftByFirst):
        second.is_shut()


def test_torch_distributed_has_one_door() -> None:
    """The contracts of import-linter know packages of others as a whole only."""
    root = Path(automl_vision.__file__).parent
    users = {
        str(file.relative_to(root))
        for file in root.rglob("*.py")
        if re.search(r"^\s*(?:import|from) torch\.distributed", file.read_text("utf-8"), re.MULTILINE)
    }
    assert users == {"training/ranks.py"}


def test_one_process_needs_no_store() -> None:
    assert ALONE.alone and ALONE.first
    ALONE.say({"do": "epoch"})
    ALONE.meet("here", lambda: pytest.fail("nobody is waited for"))
    assert ALONE.differing({"a": torch.ones(2)}) == []
    assert (ALONE.lowest(3), ALONE.of_first(4)) == (3, 4)
