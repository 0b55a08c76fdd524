"""`--data hf:NAME` and folders of `datasets`, as a user gives them."""

from __future__ import annotations

import json

import numpy as np
import pytest
from command import BY_NAMES


def test_without_the_package_the_line_that_installs_it_is_said(command, monkeypatch):
    monkeypatch.setattr("automl_vision.extras.find_spec", lambda name: None)
    for name in ("search", "inspect"):
        result = command(name, "--data", "hf:me/pets")
        assert result.code == 2
        assert "pip install 'automl-vision[hub]'" in result.err


def test_a_name_that_is_none_is_told_before_anything_is_loaded(command):
    result = command("inspect", "--data", "hf:me@v1@v2")
    assert result.code == 2
    assert "hf:NAME@REVISION" in result.err


def test_a_tracker_that_is_not_installed_is_told_before_anything_is_loaded(command, monkeypatch, smoke):
    monkeypatch.setattr("automl_vision.extras.find_spec", lambda name: None)
    result = command("search", "--data", smoke, "--track", "tensorboard", "--track", "mlflow")
    assert result.code == 2
    assert "TensorBoard" in result.err
    assert "pip install 'automl-vision[track]'" in result.err


def test_a_saved_set_is_inspected_and_listed_in_the_cache(command, tmp_path):
    datasets = pytest.importorskip("datasets", reason="the package datasets (extra hub) is not installed")
    from PIL import Image

    images = [Image.fromarray(np.random.default_rng(n).integers(0, 255, (40, 40, 3), np.uint8)) for n in range(12)]
    features = datasets.Features({"img": datasets.Image(), "fine": datasets.Value("string")})
    rows = {"img": images, "fine": ["cat", "dog"] * 6}
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(str(tmp_path / "saved"))
    cache = tmp_path / "cache"
    options = ("--cache-dir", cache, *BY_NAMES)
    asked = command("inspect", "--data", tmp_path / "saved", *options)
    assert asked.code == 2
    assert "--label-column" in asked.err
    result = command("inspect", "--data", tmp_path / "saved", "--label-column", "fine", "--json", *options)
    assert result.code == 0, result.err
    assert json.loads(result.out)["images"] == 12
    kept = json.loads(command("cache", "ls", "--cache-dir", cache, "--json").out)["entries"]
    assert sorted(each["kind"] for each in kept) == ["decoded", "unpacked"]
    assert "as files" in command("cache", "ls", "--cache-dir", cache).out


def test_trackers_of_a_settings_file_stay_where_no_option_names_any(command, tmp_path, smoke, monkeypatch):
    monkeypatch.setattr("automl_vision.extras.find_spec", lambda name: None)
    (tmp_path / "own.toml").write_text('[output]\ntrack = ["wandb"]\n')
    result = command("search", "--data", smoke, "--config", tmp_path / "own.toml")
    assert result.code == 2
    assert "Weights & Biases" in result.err
