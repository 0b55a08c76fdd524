from __future__ import annotations

import numpy as np
import pytest
import torch

from automl_vision.config import TrainingSettings
from automl_vision.training.mix import MIXES, mixed

CHANGING = [name for name, change in MIXES.items() if change]


def plain(count: int, side: int = 24) -> tuple[torch.Tensor, torch.Tensor]:
    """Images of one level each, every one of its own class."""
    levels = torch.arange(count, dtype=torch.uint8) * (250 // count)
    images = levels.view(-1, 1, 1, 1).expand(count, 3, side, side).contiguous(memory_format=torch.channels_last)
    return images, torch.eye(count)


def test_the_setting_offers_what_there_is() -> None:
    assert TrainingSettings.__dataclass_fields__["mix"].metadata["rule"].allowed == f"one of {', '.join(MIXES)}"


@pytest.mark.parametrize("mix", MIXES)
def test_the_generator_decides_and_the_inputs_stay(mix: str) -> None:
    images, targets = plain(16)
    first, again, other = (mixed(images, targets, mix, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert torch.equal(first[0], again[0]) and torch.equal(first[1], again[1])
    assert torch.equal(first[0], other[0]) == (mix == "none")
    assert torch.equal(images, plain(16)[0]) and torch.equal(targets, plain(16)[1])


@pytest.mark.parametrize("mix", MIXES)
def test_targets_say_what_the_pixels_are_made_of(mix: str) -> None:
    images, targets = plain(32)
    got, said = mixed(images, targets, mix, np.random.default_rng(3))
    assert got.dtype == torch.uint8 and got.shape == images.shape
    assert torch.allclose(said.sum(dim=1), torch.ones(32), atol=1e-6) and said.min() >= 0
    levels = images[:, 0, 0, 0].float()
    assert (got.float().mean(dim=(1, 2, 3)) - said @ levels).abs().max() < 0.51  # the rounding of pixels


@pytest.mark.parametrize("mix", CHANGING)
def test_every_image_has_its_own_share(mix: str) -> None:
    _, said = mixed(*plain(64), mix, np.random.default_rng(5))
    largest = said.max(dim=1).values
    assert len(set(largest.tolist())) > 16
    assert (said > 0).sum(dim=1).max() <= 2


def test_cutmix_pastes_whole_pixels_in_one_rectangle() -> None:
    images, targets = plain(32)
    got, said = mixed(images, targets, "cutmix", np.random.default_rng(6))
    for image, own, target in zip(got[:, 0], images[:, 0, 0, 0], said, strict=True):
        foreign = image != own
        assert len(image.unique()) <= 2
        if foreign.any():
            rows, columns = foreign.any(dim=1), foreign.any(dim=0)
            assert int(foreign.sum()) == int(rows.sum() * columns.sum())
            assert 1 - float(foreign.float().mean()) == pytest.approx(
                float(target.gather(0, own.long() // 7)), abs=1e-5
            )


def test_mixup_leaves_most_images_nearly_alone() -> None:
    """Beta(.2, .2): one of the two images has more than nine tenths in over half of the pairs."""
    _, said = mixed(*plain(200), "mixup", np.random.default_rng(7))
    assert 0.5 < float((said.max(dim=1).values > 0.9).float().mean()) < 0.9


@pytest.mark.parametrize("mix", MIXES)
def test_a_single_image_has_no_partner(mix: str) -> None:
    images, targets = plain(1)
    got, said = mixed(images, targets, mix, np.random.default_rng(0))
    assert torch.equal(got, images) and torch.equal(said, targets)
