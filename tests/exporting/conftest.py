"""Models of two kinds, what was exported of them (once), and pictures to compare with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from small_bundles import EXAMPLES, several, single

from automl_vision.bundle import Bundle, save_bundle
from automl_vision.exporting.export import Exported, Order, export
from automl_vision.predictor import Model
from automl_vision.runtime import Runtime

CPU = Runtime(torch.device("cpu"), None, 1)


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """300 pictures of clothes, and 12 in colour that are no squares."""
    clothes = sorted(EXAMPLES.rglob("*.png"))[::3][:300]
    assert len(clothes) == 300
    folder = tmp_path_factory.mktemp("coloured")
    coloured = [folder / f"{number}.png" for number in range(12)]
    for number, path in enumerate(coloured):
        random = np.random.default_rng(number)
        small = Image.fromarray(random.integers(0, 256, (4, 4, 3), dtype=np.uint8))
        small.resize((40 + 7 * number, 60), Image.Resampling.BICUBIC).save(path)
    return [*clothes, *coloured]


@pytest.fixture(scope="session")
def bundles() -> dict[str, Bundle]:
    return {"single": single(), "several": several()}


@pytest.fixture(scope="session")
def models(bundles: dict[str, Bundle]) -> dict[str, Model]:
    return {name: Model(bundle, CPU) for name, bundle in bundles.items()}


@pytest.fixture(scope="session")
def files(bundles: dict[str, Bundle], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Their model files, each in a folder of its own."""
    made = {name: tmp_path_factory.mktemp(name) / "model.pt" for name in bundles}
    for name, bundle in bundles.items():
        save_bundle(bundle, made[name])
    return made


@pytest.fixture(scope="session")
def onnx_export(files: dict[str, Path]) -> Exported:
    """The model of several networks as ONNX, checked on noise."""
    for package in ("onnx", "onnxruntime", "onnxscript"):
        pytest.importorskip(package)
    return export(Order(files["several"], "onnx"))


@pytest.fixture(scope="session")
def program_export(files: dict[str, Path]) -> Exported:
    """The same for torch.export, checked on pictures."""
    return export(Order(files["several"], "torch-export", data=EXAMPLES))


@pytest.fixture(scope="session")
def script_export(files: dict[str, Path]) -> Exported:
    """The same for TorchScript."""
    return export(Order(files["several"], "torchscript", data=EXAMPLES))


@pytest.fixture(scope="session")
def folder_export(files: dict[str, Path]) -> Exported:
    """The model of one network for the hub."""
    return export(Order(files["single"], "huggingface", data=EXAMPLES))
