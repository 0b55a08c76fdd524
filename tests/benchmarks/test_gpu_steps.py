"""What is measured on a GPU runs on a CPU as well, and says where arms do not agree."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import gpu_steps
from automl_vision.models.device_images import DeviceImages
from automl_vision.runtime import Runtime
from gpu_steps import SCENES, compiled_rows, tier_rows
from speed_steps import Scene, store_of

CPU = Runtime(torch.device("cpu"), None, 1)
SCENE = Scene("test_efficientnet", 32, batch=4, images=8)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for number in range(8):
        file = root / "ab"[number % 2] / f"{number}.png"
        file.parent.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(file)
    return root


def test_tiers_agree(pictures: Path) -> None:
    row = tier_rows(SCENE, pictures, CPU, rounds=1)
    assert row["agrees"]
    assert set(row["images_per_second"]) == {"resident", "copied ahead", "copied when asked for"}
    assert all(speed > 0 for speed in row["images_per_second"].values())


def test_a_batch_that_is_another_is_noticed(pictures: Path) -> None:
    class Darker(DeviceImages):
        def fetch(self, rows: torch.Tensor, size: int) -> torch.Tensor:
            return super().fetch(rows, size) // 2

    store, rows = store_of(pictures, SCENE, 1), torch.arange(4)
    right, wrong = (kind(store, rows, CPU.device, 0) for kind in (DeviceImages, Darker))
    assert gpu_steps._same([right], rows, 32, store)
    assert not gpu_steps._same([right, wrong], rows, 32, store)


def test_compiled_steps_are_compared_with_eager_ones(pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    modes: list[str] = []

    def not_compiled(function: Any, mode: str, **_options: Any) -> Any:
        modes.append(mode)
        return function

    monkeypatch.setattr(torch, "compile", not_compiled)
    row = compiled_rows(SCENE, pictures, CPU, rounds=1)
    assert modes == ["default", "reduce-overhead"]
    assert row["agrees"]
    monkeypatch.setattr(
        torch, "compile", lambda function, **_: lambda net, images: function(net, images) + torch.arange(10.0)
    )
    assert not compiled_rows(SCENE, pictures, CPU, rounds=1)["agrees"]

    def fail(*_arguments: object) -> torch.Tensor:
        raise RuntimeError("no compiler")

    monkeypatch.setattr(torch, "compile", lambda function, **_: fail)
    fallen = compiled_rows(SCENE, pictures, CPU, rounds=1)
    assert not fallen["agrees"]  # it was not compiled at all
    assert "no compiler" in fallen["told"]["graphs"]


def test_the_file_has_every_scene_that_was_measured(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu_steps, "write_photographs", lambda *_: pictures)
    monkeypatch.setattr(gpu_steps, "settle_process", lambda: None)
    monkeypatch.setitem(SCENES, "tiers", (SCENE, dataclasses.replace(SCENE, batch=8)))
    file = tmp_path / "tiers.json"
    with pytest.raises(SystemExit) as ended:
        gpu_steps.main(["tiers", "--device", "cpu", "--rounds", "1", "--json", str(file)])
    assert ended.value.code == 0
    assert [row["batch"] for row in json.loads(file.read_text())["rows"]] == [4, 8]
