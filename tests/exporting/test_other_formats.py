"""torch.export and folders for the hub say what the model file says, and load as their own libraries load them."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from small_bundles import several, single, weights

from automl_vision.bundle import Bundle, save_bundle
from automl_vision.data.preprocess import RESIZES
from automl_vision.errors import UsageError
from automl_vision.exporting.export import Exported, Order, export
from automl_vision.exporting.graph import captured, describe
from automl_vision.exporting.to_huggingface import (
    CONFIG,
    FILES,
    HuggingfaceModel,
    _card,
    _pretrained_cfg,
    huggingface_writer,
)
from automl_vision.exporting.to_torch_export import DESCRIPTION, TorchExportModel
from automl_vision.exporting.to_torchscript import TorchScriptModel
from automl_vision.model_description import ModelDescription
from automl_vision.predictor import Model, load


def test_a_program_says_what_the_model_says(
    program_export: Exported, models: dict[str, Model], pictures: list[Path]
) -> None:
    expected = models["several"].predict_proba(pictures)
    said = TorchExportModel(program_export.path).predict_proba(pictures)
    np.testing.assert_allclose(said, expected, rtol=0, atol=1e-4)
    assert (said.argmax(axis=1) == expected.argmax(axis=1)).all()
    assert program_export.parity.faithful
    assert (program_export.parity.images, program_export.parity.origin) == (256, "images of --data")


@pytest.mark.parametrize("size", [1, 7])
def test_torch_alone_runs_it_for_any_batch(program_export: Exported, models: dict[str, Model], size: int) -> None:
    found = {DESCRIPTION: ""}
    program = torch.export.load(program_export.path, extra_files=found)
    described = ModelDescription.from_json(found[DESCRIPTION])
    random = np.random.default_rng(0)
    squares = {e.size: random.integers(0, 256, (size, e.size, e.size, 3), dtype=np.uint8) for e in described.inputs}
    batches = (torch.from_numpy(each).permute(0, 3, 1, 2).contiguous() for each in squares.values())
    said = program.module()(*batches)
    np.testing.assert_allclose(said.numpy(), models["several"].probabilities(squares), rtol=0, atol=1e-4)


@pytest.mark.slow
def test_a_network_that_keeps_what_its_first_pass_computes_is_captured_without_a_warning() -> None:
    bundle = dataclasses.replace(
        single(), backbone="tiny_vit_5m", state_dict=weights(0, 32, backbone="tiny_vit_5m"), class_bias=()
    )
    program = captured(bundle).module()
    random = np.random.default_rng(0)
    for size in (1, 7):
        squares = {32: random.integers(0, 256, (size, 32, 32, 3), dtype=np.uint8)}
        said = program(torch.from_numpy(squares[32]).permute(0, 3, 1, 2))
        np.testing.assert_allclose(said.numpy(), Model(bundle).probabilities(squares), rtol=0, atol=1e-3)


@pytest.mark.parametrize("size", [1, 7])
def test_torchscript_runs_in_torch_alone_for_any_batch(
    script_export: Exported, models: dict[str, Model], size: int
) -> None:
    """In a process that has only torch, as those who still use TorchScript have it."""
    described = TorchScriptModel(script_export.path).description
    random = np.random.default_rng(0)
    squares = {e.size: random.integers(0, 256, (size, e.size, e.size, 3), dtype=np.uint8) for e in described.inputs}
    inputs = script_export.path.parent / f"{size}.npz"
    np.savez(inputs, *(each.transpose(0, 3, 1, 2) for each in squares.values()))
    program = (
        "import sys, warnings, numpy, torch; warnings.simplefilter('ignore'); model = torch.jit.load(sys.argv[1]); "
        "print(model(*(torch.from_numpy(each) for each in numpy.load(sys.argv[2]).values())).tolist())"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program, str(script_export.path), str(inputs)],
        capture_output=True,
        text=True,
        check=True,
    )
    np.testing.assert_allclose(json.loads(ran.stdout), models["several"].probabilities(squares), rtol=0, atol=1e-4)
    assert script_export.parity.faithful


# --- folders --------------------------------------------------------------------------------------------------------


def test_timm_reads_the_folder_and_its_softmax_is_calibrated(
    folder_export: Exported, models: dict[str, Model], pictures: list[Path]
) -> None:
    """With the transform that timm makes of it, from the files."""
    net = timm.create_model(f"local-dir:{folder_export.path}", pretrained=True).eval()
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(net))
    with torch.inference_mode():
        images = torch.stack([transform(Image.open(path).convert("RGB")) for path in pictures])
        said = net(images).softmax(dim=1).numpy()
    expected = models["single"].predict_proba(pictures)
    np.testing.assert_allclose(said, expected, rtol=0, atol=1e-4)
    assert (said.argmax(axis=1) == expected.argmax(axis=1)).all()
    assert len(set(expected.argmax(axis=1))) > 1


def test_the_configuration_says_how_images_are_prepared(folder_export: Exported) -> None:
    assert {each.name for each in folder_export.path.iterdir()} == FILES
    config = json.loads((folder_export.path / CONFIG).read_text())
    assert (config["architecture"], config["num_classes"]) == ("mobilenetv3_small_100", 3)
    assert config["label_names"] == ["cat", "dog", "emu"]
    prepared = config["pretrained_cfg"]
    wanted = {"crop_pct": 1.0, "crop_mode": "squash", "interpolation": "bilinear", "mean": [0.4, 0.5, 0.6]}
    assert {key: prepared[key] for key in wanted} == wanted
    assert prepared["input_size"] == [3, 32, 32]


def test_the_middle_is_what_timm_calls_the_centre(bundles: dict[str, Bundle]) -> None:
    plain = bundles["single"]
    middles = dataclasses.replace(plain, preprocessing=dataclasses.replace(plain.preprocessing, resize="middle"))
    assert _pretrained_cfg(middles)["crop_mode"] == "center"
    assert "square in the middle" in _card(middles, describe(middles), None)
    assert "squashed" in _card(plain, describe(plain), None)
    assert (describe(middles).resize, describe(plain).resize) == ("middle", "squash")


@pytest.mark.parametrize("resize", RESIZES)
def test_what_is_exported_sees_what_the_model_file_sees(
    bundles: dict[str, Bundle], pictures: list[Path], tmp_path: Path, resize: str
) -> None:
    """From the file on: pictures that are no squares."""
    plain = bundles["single"]
    bundle = dataclasses.replace(plain, preprocessing=dataclasses.replace(plain.preprocessing, resize=resize))
    save_bundle(bundle, tmp_path / "model.pt")
    exported = export(Order(tmp_path / "model.pt", "torch-export"))
    oblong, model = pictures[-12:], load(tmp_path / "model.pt", device="cpu")
    expected = model.predict_proba(oblong)
    np.testing.assert_allclose(TorchExportModel(exported.path).predict_proba(oblong), expected, rtol=0, atol=1e-4)
    assert (np.abs(expected - Model(plain).predict_proba(oblong)).max() > 0.01) == (resize == "middle")


def test_the_card_says_how_to_use_it_and_what_it_was_checked_on(folder_export: Exported) -> None:
    card = (folder_export.path / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: timm\n")
    assert "pipeline(" in card
    assert "On 256 images of --data 256 classes agree" in card
    assert "temperature 0.001 and the class bias" in card


def test_the_files_can_be_read_by_whoever_may_read_the_folder(folder_export: Exported) -> None:
    modes = {each.stat().st_mode & 0o777 for each in folder_export.path.iterdir()}
    assert len(modes) == 1


BEYOND: dict[str, Bundle] = {
    "2 networks": several(),
    "mirror image": dataclasses.replace(single(), flip=True),
    "mlp:8-gelu": dataclasses.replace(single(), head="mlp:8-gelu", state_dict=weights(0, 32, "mlp:8-gelu")),
}


@pytest.mark.parametrize("part", BEYOND)
def test_what_a_folder_cannot_hold_is_refused_with_its_name(part: str) -> None:
    with pytest.raises(UsageError, match="one network with a linear head") as caught:
        huggingface_writer(BEYOND[part])
    assert part in str(caught.value.value)
    assert "onnx" in caught.value.fix


def test_a_folder_with_other_weights_says_something_else(
    folder_export: Exported, models: dict[str, Model], pictures: list[Path], tmp_path: Path
) -> None:
    """What the comparison is for: without the folded temperature the answers differ."""
    plain = dataclasses.replace(single(), temperature=1.0, class_bias=())
    from automl_vision.exporting.graph import describe

    huggingface_writer(plain)(describe(plain), tmp_path / "plain")
    said = HuggingfaceModel(tmp_path / "plain").predict_proba(pictures[:20])
    assert np.abs(said - models["single"].predict_proba(pictures[:20])).max() > 0.01


PIPELINE = """
import json, os, sys
os.environ["HF_HUB_OFFLINE"] = "1"
from transformers import pipeline
folder, *paths = sys.argv[1:]
told = pipeline("image-classification", model=folder)(paths, top_k=3)
print(json.dumps([{each["label"]: each["score"] for each in one} for one in told]))
"""


@pytest.mark.slow
def test_the_pipeline_of_transformers_says_the_same(
    folder_export: Exported, models: dict[str, Model], pictures: list[Path]
) -> None:
    pytest.importorskip("transformers")
    few = pictures[-12:]
    line = [sys.executable, "-c", PIPELINE, str(folder_export.path), *map(str, few)]
    ended = subprocess.run(line, capture_output=True, text=True, env={**os.environ, "TRANSFORMERS_VERBOSITY": "error"})
    assert ended.returncode == 0, ended.stderr[-2000:]
    told: list[dict[str, Any]] = json.loads(ended.stdout.splitlines()[-1])
    said = np.array([[each[name] for name in models["single"].class_names] for each in told])
    np.testing.assert_allclose(said, models["single"].predict_proba(few), rtol=0, atol=1e-4)
