"""A program that torch runs without this package, asked as every model file is."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from numpy.typing import NDArray

from automl_vision.model_description import ModelDescription
from automl_vision.prediction import ImageModel
from automl_vision.runtime import available_threads


class TorchProgram(ImageModel):
    """An exported program, to check it.

    Args:
        run: one (B, 3, S, S) uint8 batch per side, ascending, to (B, C) probabilities.
        description: what the file says of itself.
    """

    def __init__(self, run: Callable[..., torch.Tensor], description: ModelDescription) -> None:
        self.description = description
        self._run = run
        sides = (each.size for each in description.inputs)
        super().__init__(
            description.class_names, sides, available_threads(), description.decode_side, description.resize
        )

    def probabilities(self, squares: Mapping[int, NDArray[np.uint8]]) -> NDArray[np.float64]:
        """(n, C) calibrated probabilities of n images: side -> (n, side, side, 3) uint8."""
        batches = (torch.from_numpy(squares[side]).permute(0, 3, 1, 2).contiguous() for side in self.sides)
        with torch.inference_mode():
            return self._run(*batches).double().numpy()
