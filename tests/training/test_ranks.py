"""Two processes that train one model make the steps that one makes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from rank_training import by_ranks, outcome, trainer

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
