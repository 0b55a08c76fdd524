"""export, and predict with what it wrote."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from command import assert_harmless, assert_mistake


@pytest.fixture(scope="module")
def exported(finished, tmp_path_factory):
    """The finished run as ONNX, and what the command left."""
    for package in ("onnx", "onnxruntime", "onnxscript"):
        pytest.importorskip(package)
    from command import run_command

    out = tmp_path_factory.mktemp("exported") / "model.onnx"
    return out, run_command("export", finished.model, "--format", "onnx", "--out", out, "--json")


def objects(result):
    return [json.loads(line) for line in result.lines()]


def test_it_is_compared_on_training_images_of_the_run(exported, finished):
    out, result = exported
    assert result.code == 0, result.err
    told = json.loads(result.out)
    assert told["path"] == str(out)
    assert told["bytes"] == out.stat().st_size
    with (finished.path / "split.csv").open() as file:
        train = sum(row["split"] == "train" for row in csv.DictReader(file))
    assert (told["parity"]["images"], told["parity"]["origin"]) == (train, "training images of the run")
    assert told["parity"]["agreeing"] == train
    assert told["parity"]["largest_difference"] < 1e-3
    assert told["note"] == ""


@pytest.mark.parametrize("form", ["json", "csv", "table"])
def test_predict_prints_the_same_rows(exported, finished, command, form):
    out, _ = exported
    arguments = (finished.data, "--format", form, "--abstain", "0.4")
    with_onnx, with_torch = (command("predict", model, *arguments) for model in (out, finished.model))
    assert (with_onnx.code, with_onnx.err) == (0, "")
    assert len(with_onnx.lines()) == len(with_torch.lines())
    for one, other in zip(read(with_onnx, form), read(with_torch, form), strict=True):
        assert one[0] == other[0]
        assert one[1] == pytest.approx(other[1], abs=2e-3)


def read(result, form):
    """Texts and numbers of each row."""
    if form == "json":
        rows = [
            [each["path"], each["status"], str(each["label"]), *each["probabilities"].values()]
            for each in objects(result)
        ]
    elif form == "csv":
        rows = [list(row.values()) for row in csv.DictReader(io.StringIO(result.out))]
    else:
        rows = [line.split() for line in result.lines()]
    return [split_up(row) for row in rows]


def split_up(row):
    texts, numbers = [], []
    for cell in row:
        try:
            numbers.append(float(cell))
        except ValueError:
            texts.append(cell)
    return texts, numbers


def test_a_broken_image_keeps_its_place(exported, finished, command, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes((finished.data / "circle" / "0000.png").read_bytes()[:60])
    good = finished.data / "circle" / "0001.png"
    result = command("predict", exported[0], good, broken, good, "--format", "json")
    assert result.code == 3
    assert [each["status"] for each in objects(result)] == ["ok", "error", "ok"]
    assert "Error: images could not be read: 1\nFix: " in result.err


def test_mistakes_with_the_file(exported, finished, command, tmp_path):
    image = finished.data / "circle" / "0001.png"
    changed = tmp_path / "changed.onnx"
    data = bytearray(exported[0].read_bytes())
    data[len(data) // 2] ^= 1
    changed.write_bytes(data)
    assert_mistake(command("predict", changed, image), 2, "changed after it was written", "changed.onnx")
    (tmp_path / "text.onnx").write_text("hello")
    assert_mistake(command("predict", tmp_path / "text.onnx", image), 2, "cannot be used")
    assert_mistake(command("predict", tmp_path / "no.onnx", image), 2, "no model file")
    assert_mistake(command("predict", exported[0], image, "--device", "cuda"), 2, "CPU")
    assert_mistake(command("predict", exported[0], tmp_path / "no.png"), 2, "no image at this path")


def test_mistakes_with_the_command(finished, command, tmp_path):
    out = tmp_path / "model.pt2"
    form = ("--format", "torch-export", "--out", out)
    assert_mistake(command("export", tmp_path / "no.pt", *form), 2, "no model file")
    assert_mistake(command("export", finished.model, *form, "--data", tmp_path / "no"), 2, "no images at this path")
    assert_mistake(command("export", finished.model, *form, "--push-to-hub", "me"), 2, "USER/NAME")
    assert_mistake(command("export", finished.model, *form, "--int8"), 2, "--int8")
    assert_mistake(command("export", finished.model, "--format", "tflite"), 2, "torchscript")
    out.write_text("precious")
    assert_mistake(command("export", finished.model, *form), 2, "something at this place", "model.pt2")
    assert out.read_text() == "precious"


def test_a_folder_has_the_card_of_its_run(finished, command, tmp_path):
    result = command("export", finished.model, "--format", "huggingface", "--out", tmp_path / "hub")
    if result.code == 2:  # the model of this run may be more than one network
        assert_mistake(result, 2, "one network with a linear head")
        return
    assert result.code == 0, result.err
    assert_harmless(result)
    assert "classes agree with the model file" in result.out
    card = (Path(tmp_path) / "hub" / "README.md").read_text()
    assert "## Figures on the test set" in card
    assert "automl-vision predict model.pt" not in card
