"""Predictions with a model file: paths, pictures in memory, or a table; in batches; broken images keep their place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from automl_vision.bundle import Bundle, load_bundle
from automl_vision.data.decode import open_rgb
from automl_vision.data.heat_overlay import overlay
from automl_vision.data.preprocess import fitted, png, square
from automl_vision.errors import ModelFileError, UsageError
from automl_vision.models.grad_cam import HeatMaps
from automl_vision.prediction import BATCHES_AHEAD as BATCHES_AHEAD
from automl_vision.prediction import ImageModel
from automl_vision.prediction import Prediction as Prediction
from automl_vision.runtime import Runtime, make_runtime


@dataclass(frozen=True, eq=False)
class Explanation:
    """A Grad-CAM heat map of one image.

    Attributes:
        label: the class that it is about.
        heat: (S, S) float32 in 0..1, of the square that the image was made to, S being the model's largest input.
        picture: (H, W, 3) uint8, the image in grey with the map over it.
    """

    label: str
    heat: NDArray[np.float32]
    picture: NDArray[np.uint8]

    @property
    def is_empty(self) -> bool:
        """Whether no place of the image speaks for the class, so that there is nothing to show."""
        return not self.heat.any()

    def png(self) -> bytes:
        """The picture as the bytes of a PNG file."""
        return png(self.picture)


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
        """(n, C) calibrated probabilities of n images: side -> (n, side, side, 3) uint8.

        Raises:
            ModelFileError: the weights are such that nothing comes of them; no network that was trained here is.
        """
        batches = {side: torch.from_numpy(squares[side]).permute(0, 3, 1, 2) for side in self.sides}
        with np.errstate(invalid="ignore"):
            votes = self._ensemble.log_probabilities(lambda side: [batches[side]])
        if np.isnan(votes).any():
            raise ModelFileError(
                "the model does not give probabilities", value="NaN", fix="make it again, or use another one"
            )
        return self.bundle.probabilities(votes)

    def explain(self, image: Any, label: str | None = None, *, side: int = 1024) -> Explanation:
        """Where in an image the networks see evidence for a class; see docs/explain.md for what that says.

        Args:
            image: a path, the bytes of a file, or a PIL image.
            label: the class; None for the most probable one.
            side: longer side of the picture in pixels, at most.

        Raises:
            ImageReadError: the image cannot be read.
            UsageError: the model knows no such class.
        """
        if label is not None and label not in self.class_names:
            classes = ", ".join(self.class_names[:10])
            raise UsageError(
                "the model knows no such class", value=repr(label), fix=f"use one of its classes: {classes}"
            )
        pixels = open_rgb(image, self.decode_side).pixels
        squares = {each: square(pixels, each, self.resize) for each in self.sides}
        return self.explain_squares(squares, fitted(pixels, side), label)

    def explain_squares(
        self, squares: Mapping[int, NDArray[np.uint8]], shown: NDArray[np.uint8], label: str | None
    ) -> Explanation:
        """`explain`, for who decodes elsewhere.

        Args:
            squares: side -> (side, side, 3) uint8 for each of `sides`, as `data.preprocess.squares` makes them.
            shown: (H, W, 3) uint8, the whole image, which the map is laid over.
            label: one of the classes; None for the most probable one.
        """
        stacked = {each: np.stack([squares[each]]) for each in self.sides}
        index = int(self.probabilities(stacked).argmax()) if label is None else self.class_names.index(label)
        batches = {each: torch.from_numpy(stacked[each]).permute(0, 3, 1, 2) for each in self.sides}
        heat = self._heat_maps(batches.__getitem__, np.array([index]))[0]
        return Explanation(self.class_names[index], heat, overlay(shown, heat, self.resize))

    @cached_property
    def _heat_maps(self) -> HeatMaps:
        return HeatMaps(self._ensemble.voters)


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
