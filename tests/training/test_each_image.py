from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import torch

from automl_vision.training.augment import AUGMENTATIONS, augmented
from automl_vision.training.each_image import each_image
from automl_vision.training.randomness import keyed_generator
from automl_vision.training.recipe import Recipe


@pytest.fixture(params=[1, 2, 3])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.parametrize("count", [0, 1, 2, 7])
def test_every_image_is_worked_on_once(threads: int, count: int) -> None:
    seen: list[int] = []
    each_image(seen.append, count)
    assert sorted(seen) == list(range(count))


def test_its_threads_compute_alone_and_torch_keeps_its_own(threads: int) -> None:
    """Where the calling thread does the work, it is the only one."""
    found: set[tuple[str, int]] = set()
    each_image(lambda _: found.add((threading.current_thread().name, torch.get_num_threads())), 50)
    assert {number for _, number in found} == {1}
    assert torch.get_num_threads() == threads
    if threads > 1:
        assert threading.current_thread().name not in {name for name, _ in found}


def test_a_mistake_in_a_thread_is_raised(threads: int) -> None:
    def fail(image: int) -> None:
        if image == 3:
            raise ValueError(f"image {image}")

    with pytest.raises(ValueError, match="image 3"):
        each_image(fail, 7)


@pytest.mark.parametrize("augment", AUGMENTATIONS)
def test_threads_change_no_pixel(augment: str) -> None:
    recipe = Recipe("finetune", "net", 32, augment=augment, vertical_flip=True, quarter_turns=True, erasing=0.5)
    batch = torch.randint(0, 256, (13, 3, 40, 40), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    before, made = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            made.append(augmented(batch, 32, recipe, keyed_generator(0)))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(made[0], made[1]) and torch.equal(made[0], made[2])
