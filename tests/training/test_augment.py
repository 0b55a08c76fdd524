from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from automl_vision.config import TrainingSettings
from automl_vision.training.augment import (
    AUGMENTATIONS,
    _crop_by_grid,
    _crop_by_slices,
    augmented,
    crop_boxes,
    rectangles,
)
from automl_vision.training.operations import OPERATIONS
from automl_vision.training.randomness import Draws, epoch_order, keyed_generator
from automl_vision.training.recipe import Recipe


def recipe(augment: str, **changes: Any) -> Recipe:
    return Recipe("finetune", "net", 32, augment=augment, **changes)


def noise(count: int = 8, side: int = 40) -> torch.Tensor:
    images = torch.randint(
        0, 256, (count, 3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    return images.contiguous(memory_format=torch.channels_last)


def smooth(count: int, side: int) -> torch.Tensor:
    ramp = torch.linspace(0, 255, side)
    image = torch.stack([ramp.expand(side, side), ramp.expand(side, side).T, ramp.flip(0).expand(side, side)])
    return image.to(torch.uint8).expand(count, -1, -1, -1).contiguous(memory_format=torch.channels_last)


def test_the_setting_offers_what_there_is() -> None:
    rule = TrainingSettings.__dataclass_fields__["augment"].metadata["rule"]
    assert not any(rule.check(name) for name in AUGMENTATIONS)
    assert rule.allowed == f"one of {', '.join(AUGMENTATIONS)}"


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_batches_keep_their_type_and_get_their_size(name: str) -> None:
    got = augmented(noise(), 32, recipe(name, erasing=0.5), keyed_generator(0))
    assert got.shape == (8, 3, 32, 32) and got.dtype == torch.uint8


@pytest.mark.parametrize("size", [32, 40])
@pytest.mark.parametrize("erasing", [0.0, 0.5])
@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_the_key_decides_and_the_input_stays(name: str, erasing: float, size: int) -> None:
    own, batch = recipe(name, vertical_flip=True, quarter_turns=True, erasing=erasing), noise()
    first, again, other = (augmented(batch, size, own, keyed_generator("a", key)) for key in (1, 1, 2))
    assert torch.equal(first, again)
    assert torch.equal(first, other) == (name == "none" and not erasing)
    assert torch.equal(batch, noise())


@pytest.mark.parametrize("name", ["light", "trivial", "randaugment", "geometric"])
def test_every_image_has_its_own_parameters(name: str) -> None:
    same = noise(1).expand(16, -1, -1, -1)
    got = augmented(same, 32, recipe(name), keyed_generator(3))
    assert len({tuple(image.flatten().tolist()) for image in got}) >= 15


def test_light_flips_about_half() -> None:
    ramp = torch.arange(40, dtype=torch.uint8).expand(200, 3, 40, 40) * 6
    got = augmented(ramp, 32, recipe("light"), keyed_generator(0)).float()
    flipped = (got[:, 0, 0, 0] > got[:, 0, 0, -1]).float().mean()
    assert 0.4 < float(flipped) < 0.6


def corners(images: torch.Tensor) -> torch.Tensor:
    """(B) which corner is the brightest: 0 top left, 1 top right, 2 bottom left, 3 bottom right."""
    half = images.shape[-1] // 2
    parts = (
        images[:, 0, :half, :half],
        images[:, 0, :half, half:],
        images[:, 0, half:, :half],
        images[:, 0, half:, half:],
    )
    return torch.stack([part.float().mean(dim=(1, 2)) for part in parts], dim=1).argmax(dim=1)


def bright_corner(count: int) -> torch.Tensor:
    images = torch.zeros(count, 3, 40, 40, dtype=torch.uint8)
    images[:, :, :18, :18] = 250
    return images.contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    ("flips", "seen"),
    [
        ({"horizontal_flip": False}, {0}),
        ({}, {0, 1}),
        ({"horizontal_flip": False, "vertical_flip": True}, {0, 2}),
        ({"horizontal_flip": False, "quarter_turns": True}, {0, 1, 2, 3}),
    ],
)
@pytest.mark.parametrize("name", ["light", "geometric"])
def test_only_the_symmetries_of_the_recipe_are_used(name: str, flips: dict[str, bool], seen: set[int]) -> None:
    got = corners(augmented(bright_corner(200), 40, recipe(name, **flips), keyed_generator(4)))
    assert set(got.tolist()) == seen
    shares = torch.bincount(got, minlength=4)[sorted(seen)] / 200
    assert (shares - 1 / len(seen)).abs().max() < 0.12


def test_without_augmentation_nothing_is_turned() -> None:
    own = recipe("none", vertical_flip=True, quarter_turns=True)
    assert torch.equal(augmented(bright_corner(20), 40, own, keyed_generator(0)), bright_corner(20))


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_erasing_hits_its_share_of_the_images_and_a_third_of_each_at_most(share: float) -> None:
    images = noise(400, 32)
    got = augmented(images, 32, recipe("none", erasing=share), keyed_generator(1))
    gone = (got != images).any(dim=1).float().mean(dim=(1, 2))
    assert abs(float((gone > 0).float().mean()) - share) < 0.07
    assert gone.max() < 0.4
    assert not share or gone[gone > 0].min() > 0.005


def test_a_rectangle_covers_its_box() -> None:
    mask = rectangles(torch.tensor([[1, 2, 3, 1], [0, 0, 0, 0]]), 6)
    assert mask.shape == (2, 1, 6, 6) and int(mask[0].sum()) == 3 and not mask[1].any()
    assert mask[0, 0, 1:4, 2].all()


def test_randaugment_changes_more_gently_than_its_widest_operation() -> None:
    """Magnitude 9 of 30 leaves a picture recognisable: bright corners stay where they are."""
    own = recipe("randaugment", horizontal_flip=False)
    kept = corners(augmented(bright_corner(300), 40, own, keyed_generator(8))) == 0
    assert 0.8 < float(kept.float().mean()) < 1.0  # solarize and equalize may turn it round


def test_geometry_bounds_what_it_moves() -> None:
    images = torch.zeros(300, 3, 64, 64, dtype=torch.uint8)
    images[..., 30:34, 30:34] = 255
    got = augmented(images, 64, recipe("geometric", horizontal_flip=False), keyed_generator(2)).float()[:, 0]
    weight = got.sum(dim=(1, 2))
    places = torch.arange(64.0)
    column, row = ((got.sum(dim=axis) * places).sum(dim=1) / weight for axis in (1, 2))
    shift = torch.stack([column, row]) - 31.5
    assert 5 < shift.abs().max() < 64 * 0.1 * 1.25 + 2
    assert shift.mean(dim=1).abs().max() < 1
    area = weight / 255 / 16
    assert 0.55 < area.min() < 0.75 and 1.3 < area.max() < 1.8


@given(side=st.integers(1, 300), seed=st.integers(0, 1000))
@settings(deadline=None)
def test_crops_lie_inside_and_keep_most_of_the_image(side: int, seed: int) -> None:
    top, left, height, width = crop_boxes(Draws(keyed_generator(seed), 16), side).unbind(1)
    assert (torch.stack([top, left]) >= 0).all() and (torch.stack([height, width]) >= 1).all()
    assert (top + height <= side).all() and (left + width <= side).all()
    if side >= 64:
        assert (height * width >= 0.55 * side * side).all()


def test_both_ways_to_crop_agree() -> None:
    boxes = crop_boxes(Draws(keyed_generator(1), 6), 48)
    images = smooth(6, 48)
    difference = _crop_by_slices(images, boxes, 40).float() - _crop_by_grid(images, boxes, 40).float()
    assert difference.abs().mean() < 1.0


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("strength", [0.0, 1.0])
def test_operations_stay_finite_at_both_ends(name: str, strength: float) -> None:
    images = torch.cat([noise(2, 24), torch.full((1, 3, 24, 24), 7, dtype=torch.uint8)]).float()
    got = OPERATIONS[name](images, torch.full((3,), strength), torch.tensor([-1.0, 1.0, 1.0]))
    assert got.shape == images.shape and torch.isfinite(got).all()


def test_operations_are_as_strong_as_told() -> None:
    images = smooth(1, 24).float()
    brighter = OPERATIONS["brightness"](images, torch.ones(1), torch.ones(1))
    assert torch.allclose(brighter, images * 1.99, atol=0.01)


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
