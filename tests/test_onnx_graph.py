"""Which operations an ONNX file names, told without `onnx`."""

from __future__ import annotations

import lzma
from pathlib import Path

import numpy as np
import pytest

from automl_vision.errors import ModelFileError
from automl_vision.onnx_graph import repeats
from automl_vision.onnx_predictor import DIGEST_KEY, NO_DIGEST, load_onnx, with_digest

onnx = pytest.importorskip("onnx")
GOLDEN = Path(__file__).parent / "golden" / "model.onnx.xz"


@pytest.fixture(scope="module")
def exported() -> bytes:
    return lzma.decompress(GOLDEN.read_bytes())


def looping(exported: bytes) -> bytes:
    """The file with a loop of 2**62 rounds in its graph, and a sound digest."""
    model = onnx.load_model_from_string(exported)
    helper, kinds = onnx.helper, onnx.TensorProto
    told = {"i": kinds.INT64, "go": kinds.BOOL, "kept": kinds.FLOAT, "go_on": kinds.BOOL, "kept_on": kinds.FLOAT}
    values = {name: helper.make_tensor_value_info(name, kind, []) for name, kind in told.items()}
    same = [helper.make_node("Identity", [a], [b]) for a, b in (("go", "go_on"), ("kept", "kept_on"))]
    body = helper.make_graph(
        same, "body", [values[n] for n in ("i", "go", "kept")], [values[n] for n in ("go_on", "kept_on")]
    )
    for name, value in (("rounds", np.array(2**62)), ("yes", np.array(True)), ("none", np.array(0, np.float32))):
        model.graph.initializer.append(onnx.numpy_helper.from_array(value, name))
    last = model.graph.node[-1]
    made, last.output[0] = last.output[0], "before"
    loop = helper.make_node("Loop", ["rounds", "yes", "none"], ["spun"], body=body)
    model.graph.node.extend([loop, helper.make_node("Add", ["before", "spun"], [made])])
    for each in model.metadata_props:
        if each.key == DIGEST_KEY:
            each.value = NO_DIGEST
    return with_digest(model.SerializeToString())


def test_what_this_package_exports_computes_straight_on(exported: bytes) -> None:
    assert repeats(exported) == ""


def test_a_graph_that_never_ends_is_refused_before_it_is_asked(exported: bytes, tmp_path: Path) -> None:
    file = tmp_path / "endless.onnx"
    file.write_bytes(looping(exported))
    with pytest.raises(ModelFileError, match="for ever: its graph has Loop"):
        load_onnx(file, device="cpu")


def test_functions_that_a_file_defines_are_told() -> None:
    model = onnx.ModelProto()
    model.functions.add(name="f")
    assert repeats(model.SerializeToString()) == "a function"


def test_what_is_cut_off_or_no_such_file_is_a_value_error(exported: bytes) -> None:
    for data in (exported[:5000], b"\xff" * 30, b"\x0b", b"\x08"):
        with pytest.raises(ValueError, match="it "):
            repeats(data)
