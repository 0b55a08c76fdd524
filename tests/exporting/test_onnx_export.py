"""An ONNX file says what the model file says, checks itself, and predicts without torch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from automl_vision.errors import ModelFileError, UsageError
from automl_vision.exporting.export import Exported
from automl_vision.exporting.to_onnx import OPSET
from automl_vision.model_description import KEY, Input, ModelDescription
from automl_vision.onnx_operators import OPERATORS, check_operators
from automl_vision.onnx_predictor import DIGEST_KEY, NO_DIGEST, digest_of, load_onnx, with_digest
from automl_vision.predictor import Model

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


@pytest.fixture(scope="module")
def path(onnx_export: Exported) -> Path:
    return onnx_export.path


@pytest.fixture(scope="module")
def proto(path: Path) -> Any:
    return onnx.load(path)


def test_it_says_what_the_model_says(path: Path, models: dict[str, Model], pictures: list[Path]) -> None:
    expected = models["several"].predict_proba(pictures)
    said = load_onnx(path).predict_proba(pictures)
    np.testing.assert_allclose(said, expected, rtol=0, atol=1e-4)
    assert (said.argmax(axis=1) == expected.argmax(axis=1)).all()
    assert len(set(expected.argmax(axis=1))) == 3, "the pictures are told apart"
    np.testing.assert_allclose(said.sum(axis=1), 1, atol=1e-12)


@pytest.mark.parametrize("size", [1, 7])
def test_a_batch_may_have_any_size(path: Path, models: dict[str, Model], pictures: list[Path], size: int) -> None:
    few = pictures[-9:]
    said = load_onnx(path).predict_proba(few, batch_size=size)
    np.testing.assert_allclose(said, models["several"].predict_proba(few), rtol=0, atol=1e-4)


def test_others_can_run_it_as_the_description_says(path: Path, models: dict[str, Model]) -> None:
    """onnxruntime and the metadata alone."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    described = json.loads(session.get_modelmeta().custom_metadata_map[KEY])
    assert [(each["name"], each["size"]) for each in described["inputs"]] == [("images_32", 32), ("images_48", 48)]
    assert {(each["resize"], each["interpolation"]) for each in described["inputs"]} == {("squash", "bilinear")}
    assert described["class_names"] == ["cat", "dog", "emu"]
    assert described["temperature"] == 0.02
    assert [each["antialias"] for each in described["networks"]] == [True, True]
    assert described["networks"][1]["mean"] == [0.4, 0.5, 0.6]
    random = np.random.default_rng(0)
    squares = {side: random.integers(0, 256, (7, side, side, 3), dtype=np.uint8) for side in (32, 48)}
    (said,) = session.run(None, {f"images_{side}": each.transpose(0, 3, 1, 2) for side, each in squares.items()})
    np.testing.assert_allclose(said, models["several"].probabilities(squares), rtol=0, atol=1e-4)


def test_it_is_in_order_and_states_its_operators(proto: Any) -> None:
    onnx.checker.check_model(proto, full_check=True)
    assert [(each.domain, each.version) for each in proto.opset_import] == [("", OPSET)]
    assert ModelDescription.from_json(proto.metadata_props[0].value).details["opset"] == OPSET
    assert {each.key for each in proto.metadata_props} == {KEY, DIGEST_KEY}


def test_it_tells_nothing_of_the_machine_it_was_made_on(path: Path) -> None:
    data = path.read_bytes()
    for private in (b".py", str(Path(__file__).parents[2]).encode(), b"stack_trace"):
        assert private not in data


def test_noise_is_called_noise(onnx_export: Exported) -> None:
    assert onnx_export.parity.faithful
    assert onnx_export.parity.origin == "generated noise images"
    assert "No real images" in onnx_export.note
    assert load_onnx(onnx_export.path).description.details["parity"] == onnx_export.parity.to_dict()


# --- files that cannot be trusted -----------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.5, 0.9, 0.999])
def test_a_changed_byte_is_noticed(path: Path, tmp_path: Path, share: float) -> None:
    data = bytearray(path.read_bytes())
    data[int(share * (len(data) - 1))] ^= 0x40
    refused(tmp_path, bytes(data))


def test_every_byte_counts(path: Path) -> None:
    data = path.read_bytes()
    own = digest_of(data)
    for place in np.random.default_rng(0).integers(0, len(data), 40):
        changed = bytearray(data)
        changed[place] ^= 1
        try:
            assert digest_of(bytes(changed)) != own or own.encode() not in changed
        except ValueError:
            continue  # the place of the digest itself was hit


CHANGES: dict[str, dict[str, Any]] = {
    "fewer classes": {"class_names": ["cat", "dog"]},
    "more classes": {"class_names": ["cat", "dog", "emu", "fox"]},
    "one class twice": {"class_names": ["cat", "cat", "emu"]},
    "no classes": {"class_names": None},
    "numbers for classes": {"class_names": [1, 2, 3]},
    "another side": {"inputs": [{"name": "images_32", "size": 64, "resize": "squash", "interpolation": "bilinear"}]},
    "no inputs": {"inputs": []},
    "a temperature of zero": {"temperature": 0},
    "a temperature that is text": {"temperature": "1"},
    "a newer format": {"format": 2},
    "another bias": {"class_bias": [1.0]},
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_description_that_makes_no_sense_is_refused_even_with_its_digest(
    proto: Any, tmp_path: Path, change: dict[str, Any]
) -> None:
    described = json.loads(next(each.value for each in proto.metadata_props if each.key == KEY))
    refused(tmp_path, forged(proto, json.dumps({**described, **change})))


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "[" * 100_000], ids=lambda text: text[:4])
def test_so_is_one_that_is_none(proto: Any, tmp_path: Path, text: str) -> None:
    refused(tmp_path, forged(proto, text))


def forged(proto: Any, description: str) -> bytes:
    copied = onnx.ModelProto()
    copied.CopyFrom(proto)
    onnx.helper.set_model_props(copied, {KEY: description, DIGEST_KEY: NO_DIGEST})
    return with_digest(copied.SerializeToString())


def test_foreign_and_broken_files_are_refused(path: Path, proto: Any, tmp_path: Path) -> None:
    foreign = onnx.ModelProto()
    foreign.CopyFrom(proto)
    foreign.ClearField("metadata_props")
    whole = path.read_bytes()
    digest = f"{DIGEST_KEY}\x12\x40{NO_DIGEST}".encode()
    for data in (foreign.SerializeToString(), whole[: len(whole) // 2], b"hello", b"", with_digest(digest), whole * 2):
        refused(tmp_path, data)


def refused(folder: Path, data: bytes) -> None:
    file = folder / "changed.onnx"
    file.write_bytes(data)
    with pytest.raises(ModelFileError) as caught:
        load_onnx(file)
    assert str(file) in str(caught.value)
    assert caught.value.fix


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    for missing in (tmp_path, tmp_path / "no.onnx", tmp_path / "no\0.onnx"):
        with pytest.raises(ModelFileError):
            load_onnx(missing)


def test_it_predicts_on_the_cpu(path: Path) -> None:
    with pytest.raises(UsageError, match="CPU"):
        load_onnx(path, device="cuda")


# --- without torch --------------------------------------------------------------------------------------------------

SCRIPT = """
import sys
from automl_vision.cli.app import main
sys.argv = ["automl-vision", "predict", sys.argv[1], sys.argv[2], "--format", "json"]
try:
    main()
finally:
    print(sorted({"torch", "torchvision", "timm", "onnx", "pandas", "scipy", "sklearn", "cv2"} & set(sys.modules)))
"""


def test_predicting_loads_no_torch(path: Path, models: dict[str, Model], pictures: list[Path]) -> None:
    line = [sys.executable, "-c", SCRIPT, str(path), str(pictures[-1])]
    source = str(Path(__file__).parents[2] / "src")
    ended = subprocess.run(line, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": source})
    assert ended.returncode == 0, ended.stderr
    said, loaded = ended.stdout.splitlines()
    assert loaded == "[]"
    expected = models["several"].predict_proba(pictures[-1])[0]
    assert list(json.loads(said)["probabilities"].values()) == pytest.approx(list(expected), abs=1e-4)


# --- files of foreign origin ----------------------------------------------------------------------------------------

SIDE = 32
PICTURE = Path(__file__).parents[1] / "golden" / "picture.png"


def foreign(place: Path, *nodes: Any, **constants: list[int]) -> Path:
    """A file with a digest and a description in order, whose graph makes `out` (batch) of `mean` (batch) by these nodes
    and gives it as the probability of both classes."""
    from onnx import TensorProto, helper, numpy_helper

    described = ModelDescription(("a", "b"), (Input("images", SIDE),), 1.0)
    values = {"axes": [1, 2, 3], "one": [1], **constants}
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["images"], ["numbers"], to=TensorProto.FLOAT),
            helper.make_node("ReduceMean", ["numbers", "axes"], ["mean"], keepdims=0),
            *nodes,
            helper.make_node("Unsqueeze", ["out", "one"], ["column"]),
            helper.make_node("Concat", ["column", "column"], ["probabilities"], axis=1),
        ],
        "graph",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["batch", 3, SIDE, SIDE])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", 2])],
        [numpy_helper.from_array(np.array(value, dtype=np.int64), name) for name, value in values.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=9)
    helper.set_model_props(model, {KEY: described.to_json(), DIGEST_KEY: NO_DIGEST})
    place.write_bytes(with_digest(model.SerializeToString()))
    return place


def node(operator: str, inputs: list[str], **attributes: Any) -> Any:
    from onnx import helper

    return helper.make_node(operator, inputs, ["out"], **attributes)


def test_a_file_of_halves_is_used(tmp_path: Path) -> None:
    """So that what is refused below is refused for what it does."""
    same = [onnx.helper.make_node("Sub", ["mean", "mean"], ["none"]), onnx.helper.make_node("Exp", ["none"], ["whole"])]
    both = onnx.helper.make_node("Add", ["whole", "whole"], ["two"])
    said = load_onnx(foreign(tmp_path / "m.onnx", *same, both, node("Div", ["whole", "two"]))).predict_proba([PICTURE])
    assert said.tolist() == [[0.5, 0.5]]


def test_what_adds_up_to_nothing_is_no_probability(tmp_path: Path) -> None:
    model = load_onnx(foreign(tmp_path / "m.onnx", node("Sub", ["mean", "mean"])))
    with pytest.raises(ModelFileError, match="add up to 0"):
        model.predict_proba([PICTURE])


def test_a_graph_that_fails_is_a_fault_of_the_file_and_writes_nothing(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    name = "\x1b]0;pwned\x07"
    sevens = onnx.helper.make_node("Reshape", ["mean", "shape"], ["sevens"], name=name)
    total = node("ReduceSum", ["sevens", "one"], keepdims=0)
    model = load_onnx(foreign(tmp_path / "m.onnx", sevens, total, shape=[-1, 7]))
    with pytest.raises(ModelFileError, match="cannot be run"):
        model.predict_proba([PICTURE])
    assert "pwned" not in "".join(capfd.readouterr())


def looping() -> Any:
    from onnx import TensorProto, helper

    body = helper.make_graph(
        [helper.make_node("Identity", ["on"], ["still"]), helper.make_node("Abs", ["so_far"], ["next"])],
        "body",
        [
            helper.make_tensor_value_info("turn", TensorProto.INT64, []),
            helper.make_tensor_value_info("on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("so_far", TensorProto.FLOAT, ["batch"]),
        ],
        [
            helper.make_tensor_value_info("still", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", TensorProto.FLOAT, ["batch"]),
        ],
    )
    return node("Loop", ["turns", "", "mean"], body=body)


def hidden() -> Any:
    """A harmless operator with a graph in it."""
    loop = looping()
    loop.op_type = "Abs"
    return loop


REFUSED = {
    "loop": (looping, "has a graph in a graph|operator"),
    "graph in a graph": (hidden, "has a graph in a graph"),
    "chance": (lambda: node("RandomNormalLike", ["mean"]), "operator b'RandomNormalLike'"),
    "another domain": (lambda: node("Gelu", ["mean"], domain="com.microsoft"), "operators of b'com.microsoft'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_no_classifier_needs_is_refused_before_it_is_read(tmp_path: Path, case: str) -> None:
    make, said = REFUSED[case]
    file = foreign(tmp_path / "m.onnx", make(), turns=[2**62])
    with pytest.raises(ModelFileError, match=said):
        load_onnx(file)


def test_functions_of_its_own_and_bytes_of_nothing_are_refused(proto: Any) -> None:
    from onnx import helper

    data = proto.SerializeToString()
    check_operators(data)
    function = helper.make_function("own", "F", [], [], [], [helper.make_opsetid("", OPSET)])
    added = onnx.ModelProto()
    added.CopyFrom(proto)
    added.functions.append(function)
    for wrong in (added.SerializeToString(), data[:-1], data + b"\x03", data + b"\xff" * 12, data + b"\x00\x00"):
        with pytest.raises(ValueError, match=r"it has functions|no ONNX model"):
            check_operators(wrong)


REFUSED_OPERATORS = {
    *("Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"),
    *("If", "Loop", "Scan", "SequenceMap"),
    *("Optional", "OptionalGetElement", "OptionalHasElement"),
    *("ConcatFromSequence", "SequenceAt", "SequenceConstruct", "SequenceEmpty", "SequenceErase", "SequenceInsert"),
    *("SequenceLength", "SplitToSequence"),
    *("ImageDecoder", "RegexFullMatch", "StringConcat", "StringNormalizer", "StringSplit", "TfIdfVectorizer"),
    *("NegativeLogLikelihoodLoss", "SoftmaxCrossEntropyLoss"),
}


def test_every_operator_of_the_format_is_judged() -> None:
    """What torch's exporter may write for some backbone is allowed, so that no export is refused later."""
    known = {each.name for each in onnx.defs.get_all_schemas_with_history() if each.domain == ""}
    of_opset = {name for name in known if onnx.defs.has(name, OPSET, "")}
    assert of_opset == {name for name in of_opset if (name in OPERATORS) != (name in REFUSED_OPERATORS)}
