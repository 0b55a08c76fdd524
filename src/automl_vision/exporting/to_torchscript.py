"""TorchScript: a traced program in one `.ts` file, for C++ and for programs that still load such files.

torch calls TorchScript deprecated and points to torch.export; it is written for what is deployed already.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.jit._trace import TracerWarning

from automl_vision.bundle import Bundle
from automl_vision.exporting.graph import example_squares, warmed
from automl_vision.exporting.to_onnx import Writer
from automl_vision.exporting.to_torch_export import DESCRIPTION
from automl_vision.exporting.torch_program import TorchProgram
from automl_vision.model_description import ModelDescription


def torchscript_writer(bundle: Bundle) -> Writer:
    """What writes a model as TorchScript, with a description that may differ from time to time."""
    with torch.no_grad(), _deprecated():
        program = torch.jit.trace(warmed(bundle), example_squares(bundle), check_trace=False)  # type: ignore[no-untyped-call]  # torch leaves it without types

    def write(description: ModelDescription, path: Path) -> None:
        file = io.BytesIO()
        with _deprecated():
            torch.jit.save(program, file, _extra_files={DESCRIPTION: description.to_json()})
        path.write_bytes(file.getvalue())

    return write


class TorchScriptModel(TorchProgram):
    """A `.ts` that this package wrote a moment ago; to check it, never to load files of others."""

    def __init__(self, path: Path) -> None:
        found: dict[str, Any] = {DESCRIPTION: ""}
        with _deprecated():
            program = torch.jit.load(  # type: ignore[no-untyped-call] # noqa: TID251 - it wrote this file itself
                io.BytesIO(path.read_bytes()), map_location="cpu", _extra_files=found
            )
        super().__init__(program, ModelDescription.from_json(found[DESCRIPTION].decode()))


@contextmanager
def _deprecated() -> Iterator[None]:
    """Torch's own word on TorchScript is passed over: the page about exports says it once."""
    with warnings.catch_warnings():
        for kind in (DeprecationWarning, FutureWarning):  # it was the one and is the other
            warnings.filterwarnings("ignore", message=r".*torch\.jit\..*deprecated", category=kind)
        # What a trace takes for constant: whether that matters is seen when real batches are compared.
        warnings.filterwarnings("ignore", category=TracerWarning)
        yield
