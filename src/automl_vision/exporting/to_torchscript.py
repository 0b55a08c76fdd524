"""TorchScript: a traced program in one `.ts` file, for C++ and for programs that still load such files.

torch calls TorchScript deprecated and points to torch.export; it is written for what is deployed already.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.jit._trace import TracerWarning

from automl_vision.bundle import Bundle
from automl_vision.exporting.graph import example_squares, warmed
from automl_vision.exporting.to_onnx import Writer
from automl_vision.exporting.to_torch_export import DESCRIPTION
from automl_vision.model_description import ModelDescription
from automl_vision.prediction import ImageModel
from automl_vision.runtime import available_threads


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


class TorchScriptModel(ImageModel):
    """A `.ts` that this package wrote a moment ago; to check it, never to load files of others."""

    def __init__(self, path: Path) -> None:
        found: dict[str, Any] = {DESCRIPTION: ""}
        with _deprecated():
            self._run: Callable[..., torch.Tensor] = torch.jit.load(  # type: ignore[no-untyped-call]
                io.BytesIO(path.read_bytes()), map_location="cpu", _extra_files=found
            )
        self.description = ModelDescription.from_json(found[DESCRIPTION].decode())
        sides = (each.size for each in self.description.inputs)
        how = self.description
        super().__init__(how.class_names, sides, available_threads(), how.decode_side, how.resize)

    def probabilities(self, squares: Mapping[int, NDArray[np.uint8]]) -> NDArray[np.float64]:
        """(n, C) calibrated probabilities of n images: side -> (n, side, side, 3) uint8."""
        batches = (torch.from_numpy(squares[side]).permute(0, 3, 1, 2).contiguous() for side in self.sides)
        with torch.inference_mode():
            return self._run(*batches).double().numpy()


@contextmanager
def _deprecated() -> Iterator[None]:
    """Torch's own word on TorchScript is passed over: the page about exports says it once."""
    with warnings.catch_warnings():
        for kind in (DeprecationWarning, FutureWarning):  # it was the one and is the other
            warnings.filterwarnings("ignore", message=r".*torch\.jit\..*deprecated", category=kind)
        # What a trace takes for constant: whether that matters is seen when real batches are compared.
        warnings.filterwarnings("ignore", category=TracerWarning)
        yield
