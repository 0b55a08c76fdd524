from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from automl_vision.training.augment import (
    AUGMENTATIONS,
    OPERATIONS,
    _crop_by_grid,
    _crop_by_slices,
    crop_boxes,
)
from automl_vision.training.randomness import epoch_order, keyed_generator


def noise(count: int = 8, side: int = 40) -> torch.Tensor:
    images = torch.randint(
        0, 256, (count, 3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    return images.contiguous(memory_format=torch.channels_last)


def smooth(count: int, side: int) -> torch.Tensor:
    ramp = torch.linspace(0, 255, side)
    image = torch.stack([ramp.expand(side, side), ramp.expand(side, side).T, ramp.flip(0).expand(side, side)])
    return image.to(torch.uint8).expand(count, -1, -1, -1).contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_batches_keep_their_type_and_get_their_size(name: str) -> None:
    got = AUGMENTATIONS[name].transform(noise(), 32, keyed_generator(0))
    assert got.shape == (8, 3, 32, 32) and got.dtype == torch.uint8


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_the_key_decides_and_the_input_stays(name: str) -> None:
    transform, batch = AUGMENTATIONS[name].transform, noise()
    first, again, other = (transform(batch, 32, keyed_generator("a", key)) for key in (1, 1, 2))
    assert torch.equal(first, again)
    assert torch.equal(first, other) == (name == "none")
    assert torch.equal(batch, noise())


@pytest.mark.parametrize("name", ["light", "trivial"])
def test_every_image_has_its_own_parameters(name: str) -> None:
    same = noise(1).expand(16, -1, -1, -1)
    got = AUGMENTATIONS[name].transform(same, 32, keyed_generator(3))
    assert len({tuple(image.flatten().tolist()) for image in got}) >= 15


def test_light_flips_about_half() -> None:
    ramp = torch.arange(40, dtype=torch.uint8).expand(200, 3, 40, 40) * 6
    got = AUGMENTATIONS["light"].transform(ramp, 32, keyed_generator(0)).float()
    flipped = (got[:, 0, 0, 0] > got[:, 0, 0, -1]).float().mean()
    assert 0.4 < float(flipped) < 0.6


@given(side=st.integers(1, 300), seed=st.integers(0, 1000))
@settings(deadline=None)
def test_crops_lie_inside_and_keep_most_of_the_image(side: int, seed: int) -> None:
    top, left, height, width = crop_boxes(16, side, keyed_generator(seed)).unbind(1)
    assert (torch.stack([top, left]) >= 0).all() and (torch.stack([height, width]) >= 1).all()
    assert (top + height <= side).all() and (left + width <= side).all()
    if side >= 64:
        assert (height * width >= 0.55 * side * side).all()


def test_both_ways_to_crop_agree() -> None:
    boxes = crop_boxes(6, 48, keyed_generator(1))
    images = smooth(6, 48)
    difference = _crop_by_slices(images, boxes, 40).float() - _crop_by_grid(images, boxes, 40).float()
    assert difference.abs().mean() < 1.0


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("strength", [0.0, 1.0])
def test_operations_stay_finite_at_both_ends(name: str, strength: float) -> None:
    images = torch.cat([noise(2, 24), torch.full((1, 3, 24, 24), 7, dtype=torch.uint8)]).float()
    got = OPERATIONS[name](images, torch.full((3,), strength), torch.tensor([-1.0, 1.0, 1.0]))
    assert got.shape == images.shape and torch.isfinite(got).all()


GRADUAL = ["shear_x", "shear_y", "translate_x", "translate_y", "rotate", "brightness", "colour", "contrast"]


@pytest.mark.parametrize("name", [*GRADUAL, "sharpness", "posterize", "identity"])
def test_an_operation_without_strength_changes_nothing(name: str) -> None:
    images = noise(3, 24).float()
    got = OPERATIONS[name](images, torch.zeros(3), torch.ones(3))
    assert torch.allclose(got, images, atol=0.02)


def test_a_translation_moves_to_the_side() -> None:
    images = torch.zeros(1, 3, 56, 56)
    images[..., 28] = 255
    got = OPERATIONS["translate_x"](images, torch.ones(1), torch.ones(1))
    assert int(got[0, 0, 20].argmax()) == 20


def test_the_order_depends_on_seed_and_epoch_only() -> None:
    assert torch.equal(epoch_order(50, 1, 2), epoch_order(50, 1, 2))
    assert not torch.equal(epoch_order(50, 1, 2), epoch_order(50, 1, 3))
    assert not torch.equal(epoch_order(50, 1, 2), epoch_order(50, 2, 1))
    assert torch.equal(epoch_order(50, 1, 2).sort().values, torch.arange(50))
