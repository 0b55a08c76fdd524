from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from automl_vision.models.backbones import BACKBONES
from automl_vision.models.weights import WeightSource
from automl_vision.search.planner import (
    FROM_SCRATCH,
    LARGER_BYTES,
    LARGER_RESOLUTIONS,
    LARGEST_ENLARGEMENT,
    POOLS,
    RESOLUTIONS,
    MachinePower,
    plan_backbones,
    plan_resolutions,
    stored_sizes,
)

CPU, GPU = MachinePower(gpu=False, threads=2), MachinePower(gpu=True, threads=16)
HERE = WeightSource("package", "somewhere", "here")
NAMES = ("resnet18", "mobilenetv3_small_100")


def sides(
    budget: float = 600.0,
    images: int = 1000,
    typical_side: int = 224,
    power: MachinePower = CPU,
    names: tuple[str, ...] = NAMES,
) -> tuple[int, ...]:
    return plan_resolutions((), names, power, budget=budget, images=images, typical_side=typical_side)


@pytest.mark.parametrize("name", [*FROM_SCRATCH, *(name for pool in POOLS.values() for name in pool)])
def test_all_that_is_planned_is_in_the_table(name: str) -> None:
    assert name in BACKBONES


@pytest.mark.parametrize("power", [CPU, GPU])
@pytest.mark.parametrize("pretrained", [True, False])
def test_what_the_user_names_wins(power: MachinePower, pretrained: bool) -> None:
    assert plan_backbones(["b", "a", "b"], {}, power, pretrained=pretrained) == ("b", "a")
    assert plan_resolutions([33, 640, 33], NAMES, power, budget=1.0, images=10**6, typical_side=8) == (33, 640)


@pytest.mark.parametrize("power", [CPU, GPU])
def test_only_backbones_whose_weights_are_here_are_planned(power: MachinePower) -> None:
    pool = POOLS["gpu" if power.gpu else "cpu"]
    everything = plan_backbones([], dict.fromkeys(BACKBONES, HERE), power, pretrained=True)
    assert everything == pool
    some = {name: HERE if name == pool[1] else None for name in pool}
    assert plan_backbones([], some, power, pretrained=True) == (pool[1],)
    outside = {**dict.fromkeys(pool), "vit_small": HERE}
    assert plan_backbones([], outside, power, pretrained=True) == ("vit_small",)
    assert plan_backbones([], {}, power, pretrained=False) == FROM_SCRATCH


@given(
    st.floats(0.0, 1e6) | st.just(math.inf), st.integers(1, 10**6), st.integers(1, 5000), st.sampled_from([CPU, GPU])
)
def test_planned_sides_descend_and_never_enlarge_more_than_is_useful(
    budget: float, images: int, typical_side: int, power: MachinePower
) -> None:
    planned = sides(budget, images, typical_side, power)
    usual = [side for side in planned if side in RESOLUTIONS]
    larger = [side for side in planned if side in LARGER_RESOLUTIONS]
    assert planned[0] == usual[0] and len(usual) + len(larger) == len(planned)
    assert usual == sorted(set(usual), reverse=True) and len(usual) <= 2 and len(larger) <= 1
    assert all(side <= max(LARGEST_ENLARGEMENT * typical_side, min(RESOLUTIONS)) for side in planned)
    assert all(side <= typical_side and planned[0] == RESOLUTIONS[0] for side in larger)


def test_a_larger_side_is_offered_where_images_are_large_and_there_is_time() -> None:
    plenty = {"budget": 36_000.0, "images": 5_000, "typical_side": 1_000, "power": GPU}
    assert sides(**plenty) == (224, 384, 192)
    assert sides(**{**plenty, "typical_side": 300}) == (224, 288, 192)
    assert sides(**{**plenty, "typical_side": 255}) == (224, 192)
    assert sides(**{**plenty, "budget": 20.0})[1:] == (192,)
    assert sides(**{**plenty, "power": CPU, "budget": 3_600.0})[1:] == (192,)


def test_a_larger_side_is_not_offered_where_its_pixels_would_fill_the_disk() -> None:
    images = int(LARGER_BYTES / (3 * 448**2))
    assert sides(float("inf"), images, 1_000, GPU) == (224, 384, 192)
    assert sides(float("inf"), images + 1, 1_000, GPU) == (224, 288, 192)
    assert sides(float("inf"), 10**6, 1_000, GPU) == (224, 192)


def test_plain_transformers_get_multiples_of_their_patches_and_nothing_larger() -> None:
    assert sides(float("inf"), 1_000, 1_000, GPU, ("resnet50", "vit_small")) == (224, 192)
    for typical_side in (20, 1_000):
        assert sides(10.0, 10_000, typical_side, CPU, ("vit_small_patch14_dinov2.lvd142m",)) == (224,)
    assert sides(float("inf"), 1_000, 1_000, GPU, ("tiny_vit_5m",)) == (224, 384, 192)


@given(st.floats(1.0, 1e5), st.integers(1, 10**5), st.integers(1, 1000), st.floats(1.0, 100.0))
def test_more_time_power_or_pixels_never_shrink_the_side_and_more_images_never_enlarge_it(
    budget: float, images: int, typical_side: int, factor: float
) -> None:
    (here, *_) = sides(budget, images, typical_side)
    assert sides(budget * factor, images, typical_side)[0] >= here
    assert sides(budget, images, int(typical_side * factor))[0] >= here
    assert sides(budget, images, typical_side, MachinePower(gpu=False, threads=64))[0] >= here
    assert sides(budget, images, typical_side, GPU)[0] >= here
    assert sides(budget, int(images * factor) + 1, typical_side)[0] <= here
    assert sides(math.inf, images, typical_side)[0] >= here


@given(st.lists(st.integers(16, 4096), min_size=1, max_size=4))
def test_every_side_is_stored_and_crops_have_room(resolutions: list[int]) -> None:
    stored = stored_sizes(resolutions)
    assert set(resolutions) <= set(stored)
    assert stored[-1] >= 1.15 * max(resolutions)
    assert list(stored) == sorted(set(stored))
