from __future__ import annotations

import numpy as np
import pytest
import torch

from automl_vision.data.file_squares import FileSquares
from automl_vision.data.preprocess import square

IMAGES = [np.random.default_rng(seed).integers(0, 256, (50 + 7 * seed, 64, 3), dtype=np.uint8) for seed in range(5)]


@pytest.mark.parametrize("threads", [0, 3])
def test_rows_come_in_the_order_they_are_asked_for_as_prediction_would_make_them(threads: int) -> None:
    squares = FileSquares(IMAGES.__getitem__, 32, threads)
    batch = squares.fetch(torch.tensor([3, 0, 3]), 32)
    assert batch.shape == (3, 3, 32, 32)
    assert batch.dtype == torch.uint8
    for image, row in zip(batch, (3, 0, 3), strict=True):
        np.testing.assert_array_equal(image.permute(1, 2, 0).numpy(), square(IMAGES[row], 32))


def test_it_makes_one_size() -> None:
    squares = FileSquares(IMAGES.__getitem__, 32, 1)
    assert (squares.sizes, squares.plane_for(16), squares.plane_for(300)) == ((32,), 32, 32)
    with pytest.raises(ValueError, match="side 32"):
        squares.fetch(torch.tensor([0]), 64)


def test_an_image_that_cannot_be_read_any_more_is_said() -> None:
    def gone(_row: int) -> np.ndarray:
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        FileSquares(gone, 32, 2).fetch(torch.tensor([0]), 32)
