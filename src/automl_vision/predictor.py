"""Predictions with a model file: paths, pictures in memory, or a table; in batches; broken images keep their place."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from automl_vision.bundle import Bundle, load_bundle
from automl_vision.prediction import BATCHES_AHEAD as BATCHES_AHEAD
from automl_vision.prediction import ImageModel
from automl_vision.prediction import Prediction as Prediction
from automl_vision.runtime import Runtime, make_runtime


class Model(ImageModel):
    """A loaded model file.

    Args:
        bundle: what the file holds.
        runtime: where to run; None picks the best device of this machine.
    """

    def __init__(self, bundle: Bundle, runtime: Runtime | None = None) -> None:
        self.bundle = bundle
        self._runtime = runtime or make_runtime()
        self._ensemble = bundle.ensemble(self._runtime)
        sides = (network.preprocessing.size for network in bundle.networks)
        how = bundle.preprocessing  # in what matters here, the same for all of its networks
        super().__init__(bundle.class_names, sides, self._runtime.threads, how.decode_side, how.resize)

    def probabilities(self, squares: Mapping[int, NDArray[np.uint8]]) -> NDArray[np.float64]:
        """(n, C) calibrated probabilities of n images: side -> (n, side, side, 3) uint8."""
        batches = {side: torch.from_numpy(squares[side]).permute(0, 3, 1, 2) for side in self.sides}
        return self.bundle.probabilities(self._ensemble.log_probabilities(lambda side: [batches[side]]))


def load(path: str | Path, *, device: str = "auto") -> Model:
    """Load a model file.

    Args:
        path: the `model.pt` of a run.
        device: auto, cpu, cuda, cuda:N or mps.

    Raises:
        ModelFileError: the file is missing, damaged, foreign or newer than this version.
        UsageError: the device is not on this machine.
    """
    return Model(load_bundle(Path(path)), make_runtime(device))
