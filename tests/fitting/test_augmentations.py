from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from augmentations import AUGMENTATIONS, augment


def picture() -> Image.Image:
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8))
    return coarse.resize((160, 120), Image.Resampling.BICUBIC)


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_a_copy_is_another_picture_and_only_the_generator_decides_which(name: str) -> None:
    image = picture()
    before = image.tobytes()
    first = [augment(name, image, np.random.default_rng(seed)) for seed in range(4)]
    again = [augment(name, image, np.random.default_rng(seed)) for seed in range(4)]
    assert image.tobytes() == before
    assert [each.tobytes() for each in first] == [each.tobytes() for each in again]
    assert all(each.mode == "RGB" and min(each.size) >= 24 for each in first)
    assert any(each.tobytes() != before for each in first)


def test_there_are_single_operations_and_chains() -> None:
    kinds = [each.kind for each in AUGMENTATIONS.values()]
    assert kinds.count("single") >= 35
    assert kinds.count("chain") >= 8


@pytest.mark.parametrize("name", [name for name, each in AUGMENTATIONS.items() if each.lossless])
def test_lossless_copies_keep_the_histogram_of_their_original(name: str) -> None:
    image = picture()
    made = np.asarray(augment(name, image, np.random.default_rng(1)))
    values = 255 - made if name == "invert" else made
    assert np.array_equal(np.sort(values, axis=None), np.sort(np.asarray(image), axis=None))
