"""torch.export: a program in one `.pt2` that any later torch runs without this package, for batches of any size."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from automl_vision.bundle import Bundle
from automl_vision.exporting.graph import captured
from automl_vision.exporting.to_onnx import Writer
from automl_vision.model_description import KEY, ModelDescription
from automl_vision.prediction import ImageModel
from automl_vision.runtime import available_threads

#: Name of the description among the extra files of the archive.
DESCRIPTION = f"{KEY}.json"


def torch_export_writer(bundle: Bundle) -> Writer:
    """What writes a model as .pt2, with a description that may differ from time to time."""
    program = captured(bundle)

    def write(description: ModelDescription, path: Path) -> None:
        with path.open("wb") as file:
            torch.export.save(program, file, extra_files={DESCRIPTION: description.to_json()})

    return write


class TorchExportModel(ImageModel):
    """A `.pt2` that this package wrote a moment ago; to check it, not to load files of others."""

    def __init__(self, path: Path) -> None:
        found = {DESCRIPTION: ""}
        with path.open("rb") as file:
            program = torch.export.load(file, extra_files=found)
        self.description = ModelDescription.from_json(found[DESCRIPTION])
        self._run: Callable[..., torch.Tensor] = program.module()
        sides = (each.size for each in self.description.inputs)
        how = self.description
        super().__init__(how.class_names, sides, available_threads(), how.decode_side, how.resize)

    def probabilities(self, squares: Mapping[int, NDArray[np.uint8]]) -> NDArray[np.float64]:
        """(n, C) calibrated probabilities of n images: side -> (n, side, side, 3) uint8."""
        batches = (torch.from_numpy(squares[side]).permute(0, 3, 1, 2).contiguous() for side in self.sides)
        with torch.inference_mode():
            return self._run(*batches).double().numpy()
