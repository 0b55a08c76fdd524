"""torch.export: a program in one `.pt2` that any later torch runs without this package, for batches of any size."""

from __future__ import annotations

from pathlib import Path

import torch

from automl_vision.bundle import Bundle
from automl_vision.exporting.graph import captured
from automl_vision.exporting.to_onnx import Writer
from automl_vision.exporting.torch_program import TorchProgram
from automl_vision.model_description import KEY, ModelDescription

#: Name of the description among the extra files of the archive.
DESCRIPTION = f"{KEY}.json"


def torch_export_writer(bundle: Bundle) -> Writer:
    """What writes a model as .pt2, with a description that may differ from time to time."""
    program = captured(bundle)

    def write(description: ModelDescription, path: Path) -> None:
        with path.open("wb") as file:
            torch.export.save(program, file, extra_files={DESCRIPTION: description.to_json()})

    return write


class TorchExportModel(TorchProgram):
    """A `.pt2` that this package wrote a moment ago; to check it, not to load files of others."""

    def __init__(self, path: Path) -> None:
        found = {DESCRIPTION: ""}
        with path.open("rb") as file:
            program = torch.export.load(file, extra_files=found)  # noqa: TID251 - it wrote this file itself
        super().__init__(program.module(), ModelDescription.from_json(found[DESCRIPTION]))
