"""predict, inspect, evaluate, models and doctor."""

from __future__ import annotations

import csv
import errno
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from command import BY_NAMES, assert_harmless, assert_mistake
from PIL import Image

from make_smoke_data import make_smoke_data

CLASSES = {"circle", "square", "triangle"}


def objects(result):
    return [json.loads(line) for line in result.lines()]


# --- predict ----------------------------------------------------------------------------------------------------


def test_predict_a_folder_as_json(finished, command):
    result = command("predict", finished.model, finished.data / "circle", "--format", "json")
    assert (result.code, result.err) == (0, "")
    said = objects(result)
    assert [Path(each["path"]).name for each in said] == [f"{n:04d}.png" for n in range(7)]
    for each in said:
        assert set(each) == {"path", "status", "label", "probability", "probabilities"}
        assert each["status"] == "ok"
        assert set(each["probabilities"]) == CLASSES
        assert sum(each["probabilities"].values()) == pytest.approx(1)
        assert each["label"] == max(each["probabilities"], key=each["probabilities"].get)
        assert each["probability"] == each["probabilities"][each["label"]]


def test_predict_says_what_the_report_says(finished, command):
    with (finished.path / "predictions_test.csv").open() as file:
        saved = {row["path"]: row for row in csv.DictReader(file)}
    result = command("predict", finished.model, *(finished.data / path for path in saved), "--format", "json")
    for each, (path, row) in zip(objects(result), saved.items(), strict=True):
        assert each["path"] == str(finished.data / path)
        assert each["label"] == row["predicted"]
        for name in CLASSES:
            assert each["probabilities"][name] == pytest.approx(float(row[f"p:{name}"]), abs=1e-5)


def test_predict_abstains_below_a_probability(finished, command):
    images = finished.data / "circle"
    plain = objects(command("predict", finished.model, images, "--format", "json"))
    threshold = sorted(each["probability"] for each in plain)[3]
    result = command("predict", finished.model, images, "--format", "json", "--abstain", threshold)
    assert (result.code, result.err) == (0, "")
    for before, each in zip(plain, objects(result), strict=True):
        sure = before["probability"] >= threshold
        assert each == (before if sure else {**before, "status": "abstained", "label": None})
    table = command("predict", finished.model, images, "--abstain", "1")
    assert all("abstained: " in line for line in table.lines())
    assert command("predict", finished.model, images, "--abstain", "1.5").code == 2


def test_predict_a_pattern_and_a_table_of_paths(finished, command, tmp_path):
    table = tmp_path / "list.csv"
    wanted = [finished.data / "square" / "0003.png", finished.data / "circle" / "0001.png"]
    table.write_text("image\n" + "".join(f"{path}\n" for path in wanted))
    named = command("predict", finished.model, table, "--format", "json")
    assert [each["path"] for each in objects(named)] == [str(path) for path in wanted]
    pattern = command("predict", finished.model, f"{finished.data}/*/0001.png", "--format", "json")
    assert [Path(each["path"]).parent.name for each in objects(pattern)] == ["circle", "square", "triangle"]


def test_a_broken_image_keeps_its_place_and_the_exit_code_is_3(finished, command, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes((finished.data / "circle" / "0000.png").read_bytes()[:60])
    good = finished.data / "circle" / "0001.png"
    result = command("predict", finished.model, good, broken, good, "--format", "json")
    assert result.code == 3
    assert [each["status"] for each in objects(result)] == ["ok", "error", "ok"]
    middle = objects(result)[1]
    assert middle["path"] == str(broken)
    assert (middle["label"], middle["probability"], middle["probabilities"]) == (None, None, None)
    assert "truncated" in middle["error"]
    assert "Error: images could not be read: 1\nFix: " in result.err


def test_predict_as_csv_and_as_a_table(finished, command, tmp_path):
    image = finished.data / "circle" / "0001.png"
    out = tmp_path / "predictions.csv"
    result = command("predict", finished.model, image, "--format", "csv", "--out", out)
    assert (result.code, result.out) == (0, "")
    (row,) = csv.DictReader(io.StringIO(out.read_text()))
    assert row["path"] == str(image)
    assert {f"p:{name}" for name in CLASSES} <= set(row)
    shown = command("predict", finished.model, image, "--top", "3")
    assert shown.code == 0
    assert all(name in shown.out for name in CLASSES)


def test_predict_without_an_image(finished, command, tmp_path):
    assert_mistake(command("predict", finished.model, tmp_path / "no.png"), 2, "no image at this path", "no.png")
    assert_mistake(command("predict", finished.model, f"{tmp_path}/*.png"), 2, "no image at this path", "*.png")
    assert_mistake(command("predict", finished.model, tmp_path), 2, "no images", str(tmp_path))


def test_predict_with_no_model(command, finished, tmp_path):
    image = finished.data / "circle" / "0001.png"
    assert_mistake(command("predict", tmp_path / "model.pt", image), 2, "no model file", "model.pt")
    assert_mistake(command("predict", image, image), 2, str(image))
    assert_mistake(command("predict", tmp_path, image), 2, str(tmp_path))


# --- inspect ----------------------------------------------------------------------------------------------------


def compared_by(finished):
    """Pairs of paths that the search found to show one picture, or perhaps one."""
    with (finished.path / "split.csv").open() as file:
        paths = [row["path"] for row in csv.DictReader(file)]  # in the order of the manifest
    pairs = json.loads((finished.path / "compared.json").read_text())["pairs"]
    return {(paths[first], paths[second]) for first, second in pairs}


def test_inspect_plans_the_split_that_the_search_used(finished, command, cache, tmp_path):
    options = ("--config", finished.path / "config.toml", "--out", tmp_path / "seen")
    result = command("inspect", "--data", finished.data, *options)
    assert result.code == 0, result.err
    assert_harmless(result)
    assert "21 images" in result.out
    for name in ("split.csv", "audit.csv"):
        assert (tmp_path / "seen" / name).read_bytes() == (finished.path / name).read_bytes()
    with (tmp_path / "seen" / "evidence.csv").open() as file:
        pairs = {(row["first"], row["second"]) for row in csv.DictReader(file)}
    assert pairs == compared_by(finished)
    assert "21 images in 3 classes" in (tmp_path / "seen" / "inspect.html").read_text()
    assert str(tmp_path / "seen" / "inspect.html") in result.out


def test_inspect_compares_what_pictures_show(finished, command, cache, tmp_path):
    options = ("--cache-dir", cache, "--out", tmp_path / "seen")
    result = command("inspect", "--data", finished.data, *options)
    assert result.code == 0, result.err
    assert "Comparing images that look alike" in result.err
    assert "do not certify the test set" in (tmp_path / "seen" / "audit.csv").read_text()  # 32 px are too few


def test_inspect_json(finished, command, cache):
    result = command("inspect", "--data", finished.data, "--cache-dir", cache, "--json", *BY_NAMES)
    assert (result.code, result.err) == (0, "")
    said = json.loads(result.out)
    assert said["images"] == 21
    assert set(said["classes"]) == CLASSES
    assert said["verdict"]["summary"].startswith("21 images in 3 classes: 21 originals")
    assert said["verdict"]["doubts"]
    assert said["verdict"]["unchecked"]
    assert {finding["kind"] for finding in said["findings"]} >= {"class_counts", "tiny_class"}


def test_inspect_says_when_the_cache_cannot_take_the_images(finished, command, tmp_path):
    (tmp_path / "file").write_text("")
    result = command("inspect", "--data", finished.data, "--cache-dir", tmp_path / "file" / "cache")
    assert result.code == 0
    assert "decoded images are not kept" in result.err
    assert "comparisons of pictures are not kept" in result.err


@pytest.fixture
def leaky(tmp_path):
    """train/ and test/ folders that share one picture."""
    for name in ("train", "test"):
        make_smoke_data(tmp_path / "sets" / name, images=4, seed=len(name))
    shutil.copy(tmp_path / "sets/train/circle/0000.png", tmp_path / "sets/test/circle/same.png")
    return tmp_path / "sets"


def test_search_fails_on_a_leak_before_it_trains(command, leaky, cache, tmp_path):
    out = tmp_path / "run"
    options = ("--cache-dir", cache, "--trials", "1", "--offline", "--out", out, *BY_NAMES)
    result = command("search", "--data", leaky, *options, "--fail-on-leak")
    assert result.code == 4
    assert "Error: the split that came with the data leaks: 1 images" in result.err
    assert (out / "split.csv").exists()
    assert not (out / "trials").exists()
    again = command("search", "--resume", out)
    assert (again.code, again.err) == (4, result.err), "what the run was begun with holds"
    assert not (out / "trials").exists()


def test_inspect_fails_on_a_leak_when_asked_to(command, leaky, cache):
    arguments = ("inspect", "--data", leaky, "--cache-dir", cache, *BY_NAMES)
    assert command(*arguments).code == 0
    result = command(*arguments, "--fail-on-leak")
    assert result.code == 4
    assert "Error: the split that came with the data leaks: 1 images" in result.err


def test_inspect_writes_everything_before_it_fails_on_a_leak_that_only_pixels_tell(command, tmp_path, cache):
    for number, name in enumerate(("train", "test")):
        for seed, shape in enumerate(("a", "b")):
            for each in range(4):
                blobs(tmp_path / "sets" / name / shape / f"{each}.png", seed=100 * number + 10 * seed + each)
    with Image.open(tmp_path / "sets/train/a/0.png") as image:  # mirrored and brightened, under a name of its own
        image.transpose(Image.Transpose.FLIP_LEFT_RIGHT).point(lambda v: min(255, v + 20)).save(
            tmp_path / "sets/test/a/q7.png"
        )
    arguments = ("inspect", "--data", tmp_path / "sets", "--cache-dir", cache, "--fail-on-leak")
    assert command(*arguments, *BY_NAMES).code == 0  # names cannot tell
    result = command(*arguments, "--out", tmp_path / "seen")
    assert result.code == 4, result.err
    assert "test/a/q7.png: in test, but its group is elsewhere too" in result.out
    assert {file.name for file in (tmp_path / "seen").iterdir()} == {
        *("inspect.html", "split.csv", "audit.csv", "evidence.csv"),
    }
    with (tmp_path / "seen" / "evidence.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert {row["first"], row["second"]} == {"train/a/0.png", "test/a/q7.png"}
    assert (row["evidence"], row["effect"]) == ("pixels_registered", "joined")
    assert "(came as" in (tmp_path / "seen" / "inspect.html").read_text()


@pytest.mark.parametrize(
    ("more", "code", "words"), [((), 2, "no image of the given test set"), (("--fail-on-leak",), 4, "leaks")]
)
def test_inspect_writes_the_page_of_data_that_it_refuses(command, cache, tmp_path, more, code, words):
    make_smoke_data(tmp_path / "sets" / "train", images=4)
    for file in sorted((tmp_path / "sets" / "train").rglob("0000.png")):
        copy = tmp_path / "sets" / "test" / file.parent.name / "0000_hflip.png"
        copy.parent.mkdir(parents=True)
        with Image.open(file) as image:
            image.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(copy)
    out = tmp_path / "seen"
    options = ("--cache-dir", cache, "--out", out, "--quiet", *BY_NAMES)
    result = command("inspect", "--data", tmp_path / "sets", *options, *more)
    assert_mistake(result, code, words)
    assert "copy in test" in (out / "inspect.html").read_text()
    with (out / "split.csv").open() as file:
        assert [row["split"] for row in csv.DictReader(file) if row["path"].startswith("test")] == ["aside"] * 3


def blobs(file, seed, size=140):
    """A picture with enough in it to be recognised."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 220, (14, 14, 3), dtype=np.uint8))
    file.parent.mkdir(parents=True, exist_ok=True)
    coarse.resize((size, size), Image.Resampling.BICUBIC).save(file)


def test_inspect_stays_short_with_many_classes(command, cache, tmp_path):
    for number in range(60):
        for each in range(3 + number % 5):
            blobs(tmp_path / f"class {number:03d}" / f"{each}.png", seed=10 * number + each, size=20)
    result = command("inspect", "--data", tmp_path, "--cache-dir", cache, "--quiet", *BY_NAMES)
    assert result.code == 0, result.err
    assert "60 of 60 classes have fewer than 10 originals: class 000 (3), class 005 (3)," in result.out
    assert "40 more classes" in result.out
    assert len(result.lines()) < 45


# --- evaluate ---------------------------------------------------------------------------------------------------


def test_evaluate_on_other_images(finished, command, tmp_path):
    make_smoke_data(tmp_path / "other", images=5, seed=9)
    arguments = ("evaluate", finished.model, "--data", tmp_path / "other", "--device", "cpu")
    result = command(*arguments, "--json", "--out", tmp_path / "predictions.csv")
    assert (result.code, result.err) == (0, "")
    said = json.loads(result.out)
    assert said["n"] == 15
    assert set(said["accuracy"]) == {"value", "low", "high"}
    assert said["failed"] == []
    assert len((tmp_path / "predictions.csv").read_text().splitlines()) == 16


def test_evaluate_counts_what_cannot_be_read(finished, command, tmp_path):
    make_smoke_data(tmp_path / "other", images=3, seed=9)
    (tmp_path / "other" / "circle" / "broken.png").write_bytes(b"no image")
    result = command("evaluate", finished.model, "--data", tmp_path / "other", "--device", "cpu")
    assert result.code == 3
    assert "circle/broken.png" in result.err
    assert "accuracy" in result.out


def test_evaluate_on_classes_that_the_model_does_not_know(finished, command, tmp_path):
    make_smoke_data(tmp_path / "other", classes=4, images=2)
    result = command("evaluate", finished.model, "--data", tmp_path / "other", "--quiet")
    assert_mistake(result, 2, "classes that the model does not know: cross", "the model knows circle")


def of_set(run, *sets):
    with (run / "split.csv").open(newline="") as file:
        return [row["path"] for row in csv.DictReader(file) if row["split"] in sets]


def test_evaluate_leaves_out_what_the_model_was_made_with(copied, command):
    made_with, tested = of_set(copied.path, "train", "val"), of_set(copied.path, "test")
    arguments = ("evaluate", copied.model, "--data", copied.data, "--device", "cpu")
    result = command(*arguments, "--json")
    assert (result.code, result.err) == (0, "")
    said = json.loads(result.out)
    assert said["n"] == said["known"]["new"]["n"] == len(tested)
    assert said["known"]["all"]["n"] == len(made_with) + len(tested)
    assert said["known"]["seen"] == {"exactly": len(made_with), "nearly": 0}
    assert said["known"]["test"] == {"exactly": len(tested), "nearly": 0}
    assert {each["path"] for each in said["known"]["images"] if each["set"] == "seen"} == set(made_with)
    assert said["accuracy"] == copied.report["test"]["accuracy"]  # the same images, the same model
    included = json.loads(command(*arguments, "--json", "--include-seen").out)
    assert included["n"] == len(made_with) + len(tested)


def test_evaluate_says_what_the_model_knows_and_which_look_it_is(copied, command):
    arguments = ("evaluate", copied.model, "--data", copied.data, "--device", "cpu")
    result = command(*arguments)
    assert result.code == 0
    assert_harmless(result)
    for words in (
        "of 21 images were in training or validation",
        "do not count",
        "Accuracy on all images",
        "new images",
    ):
        assert words in result.out
    assert "look 2 at the test set" in result.out
    assert "look 3 at the test set" in command(*arguments, "--include-seen").out
    ledger = json.loads((copied.path / "looks.json").read_text())
    assert [look["number"] for look in ledger] == [1, 2, 3]
    assert command("report", copied.path).code == 0
    page = (copied.path / "report.html").read_text()
    assert "The test set was looked at 3 times" in page
    assert page.count("evaluate, with images of the test set") == 2
    assert command("report", copied.path, "--verify").code == 0


def test_evaluate_fails_on_a_leak_when_asked_to(copied, command):
    arguments = ("evaluate", copied.model, "--data", copied.data, "--device", "cpu", "--fail-on-leak")
    count = len(of_set(copied.path, "train", "val"))
    for more in ((), ("--include-seen",), ("--json",)):
        result = command(*arguments, *more)
        assert result.code == 4
        assert f"Error: the model was trained on or chosen with images of this set: {count} of 21 images" in result.err
        assert result.out


def test_evaluate_passes_where_nothing_leaks(finished, command, tmp_path):
    make_smoke_data(tmp_path / "other", images=5, seed=9)
    result = command("evaluate", finished.model, "--data", tmp_path / "other", "--device", "cpu", "--fail-on-leak")
    assert result.code == 0, result.err
    assert "None of the 15 images is known from training or validation" in result.out


def test_evaluate_has_no_figure_where_every_image_is_known(copied, command, tmp_path):
    for path in of_set(copied.path, "train"):
        (tmp_path / "known" / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(copied.data / path, tmp_path / "known" / path)
    arguments = ("evaluate", copied.model, "--data", tmp_path / "known", "--device", "cpu")
    result = command(*arguments)
    assert result.code == 2
    assert "Error: the model was trained on or chosen with every image of this set" in result.err
    assert json.loads(command(*arguments, "--json").out)["n"] == 0
    assert command(*arguments, "--include-seen").code == 0
    assert command(*arguments, "--fail-on-leak").code == 4


def test_a_model_without_a_fingerprint_can_be_made_and_says_so(smoke, quick, command, tmp_path):
    out = tmp_path / "run"
    assert command("search", "--data", smoke, *quick, "--no-fingerprint", "--out", out, "--quiet").code == 0
    arguments = ("evaluate", out / "model.pt", "--data", smoke, "--device", "cpu")
    result = command(*arguments)
    assert result.code == 0, result.err
    assert "Whether the model knows these images cannot be checked" in result.out
    assert json.loads(command(*arguments, "--json").out)["known"]["checked"] is False
    refused = command(*arguments, "--fail-on-leak")
    assert refused.code == 2
    assert "nothing to check with" in refused.err


# --- models, doctor ---------------------------------------------------------------------------------------------


def test_models_json(command):
    result = command("models", "--json")
    assert (result.code, result.err) == (0, "")
    table = {row["name"]: row for row in json.loads(result.out)}
    assert {"resnet18", "efficientnet_lite0", "convnext_tiny"} <= set(table)
    assert table["efficientnet_lite0"]["weights"]
    assert all(row["licence"] for row in table.values())


def test_models_as_a_table(command):
    result = command("models")
    assert result.code == 0
    assert "efficientnet_lite0" in result.out


@pytest.mark.parametrize("reachable", [True, False])
def test_doctor(command, monkeypatch, reachable):
    monkeypatch.setattr("automl_vision.models.weights.hub_reachable", lambda: reachable)
    said = json.loads(command("doctor", "--json").out)
    assert {"python", "torch", "timm", "device", "cache", "weights here", "weight hub"} <= set(said)
    assert said["extra export"].startswith("onnx ")
    assert ("not answer" in said["weight hub"]) is not reachable
    shown = command("doctor")
    assert shown.code == 0
    assert "efficientnet_lite0" in shown.out


GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.fixture
def kept(tmp_path):
    """A model file that may be lost."""
    return Path(shutil.copy(GOLDEN / "run" / "model.pt", tmp_path / "kept.pt"))


@pytest.mark.parametrize("form", ["csv", "json"])
def test_predictions_do_not_replace_what_is_read(kept, command, tmp_path, form):
    image = tmp_path / "images" / "x.png"
    image.parent.mkdir()
    make_smoke_data(tmp_path / "data", images=1)
    shutil.copy(GOLDEN / "picture.png", image)
    (tmp_path / "list.csv").write_text(f"image\n{image}\n")
    (tmp_path / "link.csv").symlink_to(image)
    before = {file: file.read_bytes() for file in (kept, image, tmp_path / "list.csv")}
    for named, out in (
        (image, kept),
        (image, image),
        (image.parent, image),
        (image.parent, tmp_path / "link.csv"),
        (tmp_path / "list.csv", tmp_path / "list.csv"),
        (tmp_path / "list.csv", image),
    ):
        result = command("predict", kept, named, "--format", form, "--out", out)
        assert_mistake(result, 2, "this would replace")
    for out in (kept, image):
        result = command("evaluate", kept, "--data", tmp_path / "data", "--quiet", "--out", out)
        assert_mistake(result, 2, "this would replace")
    assert {file: file.read_bytes() for file in before} == before


def test_predictions_are_there_when_they_are_whole(kept, command, tmp_path, monkeypatch):
    out = tmp_path / "predictions.csv"
    out.write_text("former")

    def broken(*_):
        yield "half a line"
        raise OSError(errno.ENOSPC, "No space left on device", str(out))

    monkeypatch.setattr("automl_vision.cli.predict._csv_lines", broken)
    assert command("predict", kept, GOLDEN / "picture.png", "--format", "csv", "--out", out).code != 0
    assert out.read_text() == "former"
    assert {each.name for each in tmp_path.iterdir()} == {out.name, kept.name}
