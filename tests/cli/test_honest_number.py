"""What the figure stands on: chance stays chance, copies never cross, the test set stays shut until the end."""

from __future__ import annotations

import csv
import json
import shutil
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from command import BY_NAMES
from PIL import Image

from automl_vision import load, search
from automl_vision.data import decode, survey
from automl_vision.data.store import ImageStore
from automl_vision.pipeline import Run
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


@pytest.fixture(scope="module")
def copied_noise(noise, tmp_path_factory):
    """The same with four copies of each, a little brighter or darker."""
    folder = tmp_path_factory.mktemp("noise") / "copied"
    shutil.copytree(noise, folder)
    chance = np.random.default_rng(6)
    for file in sorted(folder.rglob("*.png")):
        for number in range(4):
            pixels = np.asarray(Image.open(file)) * chance.uniform(0.9, 1.1)
            Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(
                file.with_name(f"{file.stem}_aug_{number}.png")
            )
    return folder


def test_labels_without_meaning_show_what_a_naive_split_pretends(copied_noise, quick, command, tmp_path):
    run, options = tmp_path / "run", ("--measure-impact", "--budget", "60s", *BY_NAMES)
    result = command("search", "--data", copied_noise, *quick, *options, "--out", run)
    assert result.code == 0, result.err
    report = json.loads((run / "report.json").read_text())
    impact = report["impact"]
    assert impact["measured"]
    assert impact["clean"]["low"] <= 0.25 <= impact["clean"]["high"], impact
    assert impact["naive"]["low"] > 0.35, impact
    assert impact["difference"]["low"] > 0.1, impact
    assert impact["trained_on"]["naive"] == pytest.approx(impact["trained_on"]["clean"], rel=0.02)
    assert report["test"]["accuracy"]["low"] <= 0.25 <= report["test"]["accuracy"]["high"]
    assert "at most 6 s of the budget, measure what a naive split would pretend" in result.err
    assert "copies on both sides add" in result.out
    page = (run / "report.html").read_text()
    assert "What a naive split would have said" in page
    assert "no test image was read for it" in page
    assert sum(report["seconds"].values()) < 60
    assert report["seconds"]["impact"] < 12


def test_labels_without_meaning_stay_at_chance(noise, quick, command, tmp_path):
    result = command("search", "--data", noise, *quick, "--test-share", "0.4", *BY_NAMES, "--out", tmp_path / "run")
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


@dataclass(frozen=True)
class Watched:
    """A search through the library, and in which phase ("before the split", "sealed", "looked") it read what."""

    run: Run
    fetched: dict[str, set[int]]
    files: dict[str, set[Path]]

    def rows(self, *sets: str) -> set[int]:
        """Rows of the manifest in these sets."""
        table = rows(self.run.path / "split.csv")  # in the order of the manifest
        return {number for number, row in enumerate(table) if row["split"] in sets}


@pytest.fixture(scope="module")
def watched(smoke, tmp_path_factory):
    """Copies are sought in the pictures too, so that a network describes every image before the split.

    The cache is its own: what other tests left there would not be read again.
    """
    out = tmp_path_factory.mktemp("runs") / "watched"
    data = out.parent / "data"
    shutil.copytree(smoke, data)
    for file in sorted(data.rglob("*.png")):
        Image.open(file).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(file.with_name(f"{file.stem}_hflip.png"))
    fetched, files = defaultdict(set), defaultdict(set)
    fetch, read = ImageStore.fetch, decode.read_bytes

    def phase():
        if (out / "looks.json").exists():
            return "looked"
        return "sealed" if (out / "split.csv").exists() else "before the split"

    def watched_fetch(self, asked, size):
        fetched[phase()] |= set(torch.as_tensor(asked).tolist())
        return fetch(self, asked, size)

    def watched_read(path):
        files[phase()].add(Path(path))
        return read(path)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ImageStore, "fetch", watched_fetch)
        patch.setattr(decode, "read_bytes", watched_read)
        patch.setattr(survey, "read_bytes", watched_read)
        options = {"backbones": ["efficientnet_lite0"], "resolutions": [32], "epochs": 1, "batch_size": 8}
        options |= {
            "measure_impact": True,
            "offline": True,
            "device": "cpu",
            "cache_dir": str(out.parent / "cache"),
        }
        yield Watched(search(data, budget=None, out=out, trials=1, **options), fetched, files)


def test_test_images_are_read_only_after_the_look_is_in_the_ledger(watched):
    tested = watched.rows("test")
    assert tested
    assert watched.fetched["sealed"] & tested == set()
    assert tested <= watched.fetched["looked"]
    assert watched.run.report["looks"] == json.loads((watched.run.path / "looks.json").read_text())


def test_before_the_look_only_training_and_validation_images_and_copies_of_these_are_read(watched):
    table = rows(watched.run.path / "split.csv")
    validated = {row["group"] for row in table if row["split"] == "val"}
    of_validation = {number for number in watched.rows("aside") if table[number]["group"] in validated}
    assert watched.run.report["impact"]["measured"]
    assert of_validation < watched.rows("aside"), "no copy of a test image was set aside, so that this shows nothing"
    assert watched.fetched["sealed"] == watched.rows("train", "val") | of_validation


def test_what_finds_copies_opens_test_images_before_the_split_and_the_store_shows_none(watched):
    table = rows(watched.run.path / "split.csv")
    opened = {file.name for file in watched.files["before the split"]}
    assert {Path(table[number]["path"]).name for number in watched.rows("test")} <= opened
    assert watched.fetched["before the split"] == set()


def test_who_shows_pictures_of_files_shows_those_that_may_be_seen(watched):
    """Labels that look wrong are shown before the look, and mistakes after it; all else goes through the store."""
    table = rows(watched.run.path / "split.csv")

    def names(*sets):
        return {table[number]["path"] for number in watched.rows(*sets)}

    sealed, looked = ({"/".join(file.parts[-2:]) for file in watched.files[each]} for each in ("sealed", "looked"))
    assert watched.files["before the split"]
    assert sealed <= names("train", "val")
    assert looked <= names("train", "val", "test")
    assert not sealed & names("test")


def test_the_model_file_has_the_ledger(watched):
    (look,) = load(watched.run.model).bundle.provenance["looks"]
    assert (look["number"], look["images"]) == (1, len(watched.rows("test")))


def test_the_library_returns_the_run(watched):
    run = watched.run
    assert run.model == run.path / "model.pt"
    assert run.report == json.loads((run.path / "report.json").read_text())
    assert not run.interrupted


def test_the_model_predicts_what_the_run_measured(watched, smoke):
    run = watched.run
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
