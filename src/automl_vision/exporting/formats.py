"""The formats, as a table: adding one is one file and one line."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from automl_vision.bundle import Bundle
from automl_vision.exporting.to_huggingface import FILES, HuggingfaceModel, huggingface_writer
from automl_vision.exporting.to_onnx import Writer, onnx_writer
from automl_vision.exporting.to_torch_export import TorchExportModel, torch_export_writer
from automl_vision.exporting.to_torchscript import TorchScriptModel, torchscript_writer
from automl_vision.onnx_predictor import load_onnx
from automl_vision.prediction import ImageModel


@dataclass(frozen=True)
class Format:
    """One way to give a model to other programs.

    Attributes:
        default: name of the file or folder, beside the model.
        packages: beyond those of the package itself, as they are imported.
        writer: (model, report.json of its run or None) to what writes it.
        load: to predict with what was written.
        files: of a folder; empty for a format of one file.
    """

    default: str
    packages: tuple[str, ...]
    writer: Callable[[Bundle, Mapping[str, Any] | None], Writer]
    load: Callable[[Path], ImageModel]
    files: frozenset[str] = frozenset()


FORMATS: dict[str, Format] = {
    "onnx": Format(
        "model.onnx", ("onnx", "onnxruntime", "onnxscript"), lambda bundle, _: onnx_writer(bundle), load_onnx
    ),
    "torch-export": Format("model.pt2", (), lambda bundle, _: torch_export_writer(bundle), TorchExportModel),
    "torchscript": Format("model.ts", (), lambda bundle, _: torchscript_writer(bundle), TorchScriptModel),
    "huggingface": Format("huggingface", (), huggingface_writer, HuggingfaceModel, FILES),
}
