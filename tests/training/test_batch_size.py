from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from automl_vision.training import batch_size
from automl_vision.training.batch_size import LearnedMemory, MicroBatch, StepMemory, largest_even_part
from automl_vision.training.recipe import Recipe

CPU = torch.device("cpu")
PER_IMAGE = StepMemory(fixed=100, per_image=10)


@given(
    images=st.integers(1, 300),
    at_most=st.integers(1, 300),
    fixed=st.integers(-50, 1_000),
    per_image=st.integers(0, 100),
    room=st.integers(0, 5_000),
)
def test_the_part_is_even_and_fits_and_no_larger_one_does(
    images: int, at_most: int, fixed: int, per_image: int, room: int
) -> None:
    memory = StepMemory(fixed, per_image)
    even = {math.ceil(images / parts) for parts in range(1, images + 1)}
    fitting = [size for size in even if size <= at_most and memory(size) <= room]
    assert largest_even_part(images, at_most, memory, room) == max(fitting, default=0)


@pytest.mark.parametrize(
    ("free", "size"),
    [(None, 32), (10_000, 32), (math.ceil(420 / 0.85), 32), (math.floor(419 / 0.85), 16), (130 / 0.85 + 1, 3)],
)
def test_a_batch_becomes_the_largest_even_part_that_fits(free: int | None, size: int) -> None:
    batch = MicroBatch(32, CPU)
    assert batch.fit(32, PER_IMAGE, lambda: free) is None
    assert batch.size == size


def test_a_part_of_an_accumulated_batch_stays_where_it_fits() -> None:
    batch = MicroBatch(32, CPU)
    batch.fit(128, PER_IMAGE, lambda: 500)
    assert batch.size == 32
    batch.fit(128, PER_IMAGE, lambda: 300)
    assert batch.size == 15  # nine parts of 14 and 15 images


def test_where_no_image_fits_it_says_what_is_free() -> None:
    batch = MicroBatch(32, CPU)
    assert batch.fit(32, PER_IMAGE, lambda: 120) == 120
    assert batch.size == 32


def test_what_is_kept_is_given_up_first(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    monkeypatch.setattr(batch_size, "free_memory", lambda device: done.append("freed"))

    def release() -> bool:
        done.append("released")
        return True

    batch = MicroBatch(32, CPU, release)
    batch.fit(32, PER_IMAGE, lambda: 1_000 if done else 200)
    assert done == ["released", "freed"]
    assert batch.size == 32
    batch.fit(32, PER_IMAGE, lambda: 1_000)
    assert len(done) == 2  # nothing is given up where there is room


def test_a_size_that_was_halved_is_where_later_trials_begin() -> None:
    learned = LearnedMemory()
    recipe = Recipe("finetune", "net_a", 96, batch_size=32)
    batch = MicroBatch(32, CPU, halved=lambda size: learned.ran_out(recipe, size))
    sizes = []

    def step(size: int) -> torch.Tensor:
        sizes.append(size)
        if size > 5:
            raise torch.OutOfMemoryError("full")
        return torch.zeros(())

    batch.run(step)
    assert sizes == [32, 16, 8, 4]
    assert learned.at_most(recipe) == 4
    assert learned.at_most(Recipe("finetune", "net_a", 96, batch_size=2, optimizer="sgd")) == 2
    assert learned.at_most(Recipe("finetune", "net_a", 128)) == 32
    assert learned.at_most(Recipe("finetune", "net_b", 96)) == 32
    learned.ran_out(recipe, 8)
    assert learned.at_most(recipe) == 4


def recipe(**changes: Any) -> Recipe:
    return Recipe("finetune", **{"backbone": "net_a", "resolution": 96, **changes})


def test_passes_are_measured_once_for_each_kind_of_trial() -> None:
    learned, measured = LearnedMemory(), []

    def measure() -> StepMemory:
        measured.append(1)
        return StepMemory(0, len(measured))

    kinds = [recipe(), recipe(backbone="net_b"), recipe(resolution=128), recipe(freeze_stages=2), recipe(head="mlp")]
    assert [learned.kept(kind, measure).per_image for kind in kinds] == [1, 2, 3, 4, 5]
    assert learned.kept(recipe(learning_rate=0.5, augment="none"), measure).per_image == 1
