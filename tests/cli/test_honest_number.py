"""What the figure stands on: chance stays chance, copies never cross, the test set stays shut until the end."""

from __future__ import annotations

import csv
import json
import shutil
from collections import defaultdict

import numpy as np
import pytest
import torch
from PIL import Image

from automl_vision import load, search
from automl_vision.data.store import ImageStore
from make_smoke_data import make_smoke_data


def rows(file):
    with file.open(newline="") as stream:
        return list(csv.DictReader(stream))


# --- chance -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def noise(tmp_path_factory):
    """120 squares of coloured noise, and labels that have nothing to do with them."""
    folder = tmp_path_factory.mktemp("noise")
    chance = np.random.default_rng(5)
    for number, label in enumerate(chance.permutation(np.repeat(list("abcd"), 30))):
        (folder / label).mkdir(exist_ok=True)
        hue = chance.uniform(0, 255, 3)
        pixels = np.clip(hue + chance.normal(0, 30, (32, 32, 3)), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / label / f"{number}.png")
    return folder


def test_labels_without_meaning_stay_at_chance(noise, quick, command, tmp_path):
    result = command("search", "--data", noise, *quick, "--test-share", "0.4", "--out", tmp_path / "run")
    assert result.code == 0, result.err
    accuracy = json.loads((tmp_path / "run" / "report.json").read_text())["test"]["accuracy"]
    assert accuracy["low"] <= 0.25 <= accuracy["high"], accuracy


# --- copies -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """Every original has two copies under names of known tools; some have an equal file of another name as well."""
    folder = tmp_path_factory.mktemp("planted")
    make_smoke_data(folder, images=12, copies=1)
    for file in sorted(folder.rglob("[0-9][0-9][0-9][0-9].png")):
        pixels = np.asarray(Image.open(file))
        original = f"{file.parent.name}_original_{file.name}_{'0' * 8}-0000-4000-8000-{'0' * 12}.png"
        Image.fromarray(pixels[::-1]).save(file.with_name(original))
    for file in sorted(folder.rglob("000[0-5].png")):
        shutil.copy(file, file.with_name(f"another-{file.stem}.png"))
    return folder


def source(path):
    """The original that a path of `planted` goes back to."""
    label, _, name = path.partition("/")
    stem = name.removeprefix("another-").removeprefix(f"{label}_original_")
    return label, stem[:4]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_planted_copies_never_cross(planted, command, cache, tmp_path, seed):
    options = ("--cache-dir", cache, "--out", tmp_path, "--seed", str(seed), "--quiet")
    assert command("inspect", "--data", planted, *options).code == 0
    table = rows(tmp_path / "split.csv")
    assert len(table) == 3 * (12 * 3 + 6)
    sets, originals = defaultdict(set), defaultdict(int)
    for row in table:
        sets[source(row["path"])].add(row["split"])
        originals[source(row["path"])] += row["role"] == "original"
        assert row["role"] == "original" or row["split"] != "test", row
    assert [key for key, names in sets.items() if len(names & {"train", "val", "test"}) > 1] == []
    assert set(originals.values()) == {1}
    tested = [source(row["path"]) for row in table if row["split"] == "test"]
    assert len(tested) == len(set(tested)) > 0


def test_a_search_keeps_copies_apart_and_shows_what_they_would_have_pretended(planted, quick, command, tmp_path):
    result = command("search", "--data", planted, *quick, "--out", tmp_path / "run", "--quiet")
    assert result.code == 0, result.err
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    table = rows(tmp_path / "run" / "split.csv")
    tested = [row for row in table if row["split"] == "test"]
    assert report["test"]["n"] == len(tested) == len({source(row["path"]) for row in tested})
    assert {row["role"] for row in tested} == {"original"}
    validated = {source(row["path"]) for row in table if row["split"] == "val"}
    augmented = rows(tmp_path / "run" / "predictions_augmented_val.csv")
    assert {source(row["path"]) for row in augmented} == validated
    assert report["augmented_validation"]["n"] == len(augmented)


# --- the seal, and the library ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def watched(smoke, cache, tmp_path_factory):
    """A search through the library; every fetch of rows, and whether the look was in the ledger by then."""
    out = tmp_path_factory.mktemp("runs") / "watched"
    fetched = []
    honest = ImageStore.fetch

    def watch(self, asked, size):
        looked = (out / "looks.json").exists()
        fetched.extend((int(row), looked) for row in torch.as_tensor(asked).tolist())
        return honest(self, asked, size)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ImageStore, "fetch", watch)
        options = {"backbones": ["efficientnet_lite0"], "resolutions": [32], "epochs": 1, "batch_size": 8}
        run = search(smoke, budget=None, out=out, trials=1, offline=True, device="cpu", cache_dir=str(cache), **options)
    return run, fetched


def test_test_rows_are_read_only_after_the_look_is_in_the_ledger(watched):
    run, fetched = watched
    table = rows(run.path / "split.csv")  # in the order of the rows
    tested = {number for number, row in enumerate(table) if row["split"] == "test"}
    assert {looked for row, looked in fetched if row in tested} == {True}
    used = {number for number, row in enumerate(table) if row["split"] in {"train", "val"}}
    assert used <= {row for row, looked in fetched if not looked}
    assert run.report["looks"] == json.loads((run.path / "looks.json").read_text())


def test_the_library_returns_the_run(watched):
    run, _ = watched
    assert run.model == run.path / "model.pt"
    assert run.report == json.loads((run.path / "report.json").read_text())
    assert not run.interrupted


def test_the_model_predicts_what_the_run_measured(watched, smoke):
    run, _ = watched
    saved = rows(run.path / "predictions_test.csv")
    model = load(run.model)
    assert model.predict([smoke / row["path"] for row in saved]) == [row["predicted"] for row in saved]
    said = model.predict_proba([Image.open(smoke / row["path"]) for row in saved])
    wanted = [[float(row[f"p:{name}"]) for name in model.class_names] for row in saved]
    np.testing.assert_allclose(said, wanted, atol=1e-5)
    assert model.predict(smoke / saved[0]["path"]) == [saved[0]["predicted"]]


def test_the_library_refuses_an_unknown_setting(smoke):
    from automl_vision.errors import ConfigError

    with pytest.raises(ConfigError, match="epochz"):
        search(smoke, budget="1m", epochz=1)
