"""Predictions with an exported `model.onnx`: onnxruntime, Pillow and numpy, and no torch.

The file's bytes are checked by a digest that lies among its metadata, its description is checked as a foreign one, and
so are the operators of the graph and the shapes that it declares. A digest is no signature: what a file does is bounded
by its operators, which compute each tensor once (`onnx_operators`), and whatever the runtime says of it is text.
"""

from __future__ import annotations

import hashlib
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from automl_vision.errors import ModelFileError, UsageError
from automl_vision.extras import require
from automl_vision.model_description import KEY, OUTPUT, Input, ModelDescription
from automl_vision.onnx_operators import check_operators
from automl_vision.prediction import ImageModel
from automl_vision.runtime import available_threads

if TYPE_CHECKING:
    import onnxruntime

SUFFIX = ".onnx"
DIGEST_KEY = "automl_vision_digest"
#: What stands in place of the digest while it is computed.
NO_DIGEST = "0" * 64
LARGEST_FILE = 2 << 30  # bytes: what the format itself can hold
#: Key and value of the digest as the format writes them: the key, then field 2 with 64 bytes.
_WRITTEN_DIGEST = re.compile(DIGEST_KEY.encode() + rb"\x12\x40([0-9a-f]{64})")
#: How far the probabilities of an image may be from 1 in all: what float32 loses, and no more.
_ROUNDING = 1e-3
_AGAIN = "export it again, or copy it again from where it was made"


class OnnxModel(ImageModel):
    """An exported model, on the CPU.

    Args:
        session: of the graph.
        description: what the file says of itself.
    """

    def __init__(self, session: onnxruntime.InferenceSession, description: ModelDescription) -> None:
        sides = (each.size for each in description.inputs)
        how = description.decode_side, description.resize
        super().__init__(description.class_names, sides, available_threads(), *how)
        self.description = description
        self._session = session

    def probabilities(self, squares: Mapping[int, NDArray[np.uint8]]) -> NDArray[np.float64]:
        """(n, C) calibrated probabilities of n images: side -> (n, side, side, 3) uint8.

        Raises:
            ModelFileError: the graph does not give probabilities.
        """
        feeds = {
            each.name: np.ascontiguousarray(squares[each.size].transpose(0, 3, 1, 2))
            for each in self.description.inputs
        }
        given = self._run(feeds)
        count = len(next(iter(feeds.values())))
        if given.shape != (count, len(self.class_names)) or not (given >= 0).all() or not np.isfinite(given).all():
            raise ModelFileError("the model does not give probabilities", value=f"shape {given.shape}", fix=_AGAIN)
        sums = given.sum(axis=1, keepdims=True)
        if np.abs(sums - 1).max() > _ROUNDING:
            value = f"they add up to {float(sums.min()):g} to {float(sums.max()):g}"
            raise ModelFileError("the model does not give probabilities", value=value, fix=_AGAIN)
        return np.asarray(given / sums)

    def _run(self, feeds: Mapping[str, NDArray[np.uint8]]) -> NDArray[np.float64]:
        try:
            return np.asarray(self._session.run([OUTPUT], dict(feeds))[0], dtype=np.float64)
        except Exception as error:  # onnxruntime has a class for each reason, and none for all of them
            raise ModelFileError("the model cannot be run", value=_one_line(error), fix=_AGAIN) from error


def load_onnx(path: str | Path, *, device: str = "auto") -> OnnxModel:
    """Load a file that `automl-vision export --format onnx` wrote.

    Args:
        path: the file.
        device: auto or cpu.

    Raises:
        ModelFileError: the file is missing, damaged, foreign or newer than this version.
        UsageError: another device, or onnxruntime is not installed.
    """
    require(["onnxruntime"], "export", "predicting with an ONNX file")
    if device not in ("auto", "cpu"):
        raise UsageError("ONNX files predict on the CPU", value=repr(device), fix="use --device cpu, or the model.pt")
    file = Path(path)
    data = _read(file)
    try:
        _check_digest(data)
        check_operators(data)
        session = _session(data)
        description = ModelDescription.from_json(session.get_modelmeta().custom_metadata_map.get(KEY, ""))
        _check_graph(session, description)
    except ValueError as error:
        raise ModelFileError(f"this ONNX file cannot be used ({error})", value=str(file), fix=_AGAIN) from error
    return OnnxModel(session, description)


def digest_of(data: bytes) -> str:
    """blake2b-256 over the bytes of a file, with zeros in place of the digest that is among them; hex.

    Raises:
        ValueError: there is not exactly one place for a digest.
    """
    places = list(_WRITTEN_DIGEST.finditer(data))
    if len(places) != 1:
        raise ValueError("automl-vision did not write it, or it was cut off")
    start, end = places[0].span(1)
    total = hashlib.blake2b(digest_size=32)
    for part in (memoryview(data)[:start], NO_DIGEST.encode(), memoryview(data)[end:]):
        total.update(part)
    return total.hexdigest()


def with_digest(data: bytes) -> bytes:
    """The bytes of a file with its digest where `NO_DIGEST` was."""
    digest = digest_of(data)
    start, end = next(_WRITTEN_DIGEST.finditer(data)).span(1)
    return b"".join((data[:start], digest.encode(), data[end:]))


def _read(file: Path) -> bytes:
    try:
        status = file.stat()
        regular = stat.S_ISREG(status.st_mode)
        data = file.read_bytes() if regular and status.st_size <= LARGEST_FILE else b""
    except (OSError, ValueError) as error:
        raise ModelFileError("the model file cannot be read", value=f"{file} ({error})", fix="check the path") from None
    if not data:
        why = f"{status.st_size} bytes" if regular else "no regular file"
        raise ModelFileError("this is no ONNX file", value=f"{file} ({why})", fix=_AGAIN)
    return data


def _check_digest(data: bytes) -> None:
    found = _WRITTEN_DIGEST.search(data)
    if found is None or digest_of(data) != found[1].decode():
        raise ValueError("it was changed after it was written" if found else "automl-vision did not write it")


def _session(data: bytes) -> onnxruntime.InferenceSession:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = available_threads()
    options.log_severity_level = 4  # what matters is raised; its log would put names of nodes on a terminal as they are
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # waiting threads leave the cores alone
    try:
        return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has a class for each reason, and none for all of them
        raise ValueError(_one_line(error)) from error


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def _check_graph(session: onnxruntime.InferenceSession, description: ModelDescription) -> None:
    """Inputs and output must be those that the description tells of."""
    declared = {each.name: (each.type, list(each.shape)) for each in session.get_inputs()}
    wanted = {each.name: each for each in description.inputs}
    if set(declared) != set(wanted):
        raise ValueError(f"its inputs are {sorted(declared)}")
    for name, (kind, shape) in declared.items():
        if kind != "tensor(uint8)" or not _fits(shape, _shape(wanted[name])):
            raise ValueError(f"its input {name} takes {kind} of shape {shape}")
    outputs = [(each.name, each.type, list(each.shape)) for each in session.get_outputs()]
    name, kind, shape = outputs[0]
    if (
        len(outputs) != 1
        or (name, kind) != (OUTPUT, "tensor(float)")
        or not _fits(shape, [len(description.class_names)])
    ):
        raise ValueError(f"its outputs are {outputs}"[:200])


def _shape(described: Input) -> list[int]:
    return [3, described.size, described.size]


def _fits(shape: list[Any], wanted: list[int]) -> bool:
    """Whether the first dimension is free and the others are as wanted."""
    return bool(shape) and isinstance(shape[0], str) and shape[1:] == wanted
