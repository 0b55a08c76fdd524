"""Measuring a model on another set: what counts, what the model knows of it, and what the user is told."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from automl_vision.bundle import Bundle, save_bundle
from automl_vision.config import Settings
from automl_vision.data.fingerprint import Fingerprint, Marks, mark
from automl_vision.data.preparation import read_manifest
from automl_vision.data.preprocess import Preprocessing
from automl_vision.data.store import build_store
from automl_vision.errors import DataError
from automl_vision.events import Event, Note
from automl_vision.models.classifier import build_classifier
from automl_vision.pipeline import evaluate
from automl_vision.run_dir import RunDir
from make_smoke_data import make_smoke_data

SETTINGS = replace(Settings(), machine=replace(Settings().machine, device="cpu"))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    make_smoke_data(tmp_path / "data", images=3, copies=2)
    return tmp_path / "data"


def model_of(
    folder: Path,
    data_fingerprint: str,
    fingerprint: Fingerprint | None = None,
    looks: list[dict[str, Any]] | None = None,
    decode_side: int = 0,
    class_names: tuple[str, ...] = ("circle", "square", "triangle"),
    test: Any = None,
) -> Path:
    net = build_classifier("mobilenetv3_small_100", 3, resolution=32)
    bundle = Bundle(
        backbone="mobilenetv3_small_100",
        head="linear",
        class_names=class_names,
        preprocessing=Preprocessing(32, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), decode_side=decode_side),
        temperature=1.0,
        state_dict=net.state_dict(),
        provenance={"data_fingerprint": data_fingerprint, "looks": looks or [], "test": test},
        fingerprint=fingerprint,
    )
    save_bundle(bundle, folder / "model.pt")
    return folder / "model.pt"


def test_copies_of_one_original_are_one_piece_of_evidence(tmp_path: Path, data: Path) -> None:
    found = evaluate(model_of(tmp_path, ""), data, SETTINGS)
    assert found.figures is not None
    assert found.figures["n"] == len(found.predictions) == 27
    assert found.figures["groups"] == 9


@pytest.mark.parametrize("ending", [".png", ".bmp"], ids=["same file", "same pixels"])
def test_the_same_pictures_many_times_make_no_narrower_interval(tmp_path: Path, data: Path, ending: str) -> None:
    model = model_of(tmp_path, "")
    once = evaluate(model, data, SETTINGS).figures
    for number, file in enumerate(sorted(data.rglob("*.png"))):
        for copy in range(9):
            with Image.open(file) as image:
                image.save(file.with_name(f"q{chr(97 + number)}x{chr(97 + copy)}{ending}"))
    often = evaluate(model, data, SETTINGS).figures
    assert once is not None and often is not None
    assert (often["n"], often["groups"]) == (270, once["groups"])
    assert often["accuracy"] == pytest.approx(once["accuracy"])


COPIES = {
    "as JPEGs": lambda image, k: (image, {"format": "JPEG", "quality": 40 + 5 * k}),
    "scaled": lambda image, k: (image.resize((image.width + 9 * k, image.height + 5 * k)), {"format": "PNG"}),
    "turned, mirrored and scaled": lambda image, k: (
        image.transpose(list(Image.Transpose)[k % 7]).resize((100 + 7 * k, 120)),
        {"format": "PNG"},
    ),
}


@pytest.mark.parametrize("way", COPIES)
def test_altered_copies_make_no_narrower_interval(tmp_path: Path, way: str) -> None:
    """Their names say nothing, and no two of them are equal."""
    for number, label in enumerate(("circle", "square", "triangle") * 2):
        folder = tmp_path / "often" / label
        folder.mkdir(parents=True, exist_ok=True)
        for k in range(9):
            image, options = COPIES[way](scene(number), k)
            image.save(folder / f"q{chr(97 + number)}x{chr(97 + k)}.img.{options['format'].lower()}", **options)
    often = evaluate(model_of(tmp_path, ""), tmp_path / "often", SETTINGS).figures
    assert often is not None
    assert (often["n"], often["groups"]) == (54, 6)


@pytest.mark.parametrize("own", [True, False])
def test_the_set_that_the_model_was_made_from_is_called_so(tmp_path: Path, data: Path, own: bool) -> None:
    fingerprint = read_manifest(data, SETTINGS).fingerprint if own else "another"
    heard: list[Event] = []
    found = evaluate(model_of(tmp_path, fingerprint), data, SETTINGS, tell=heard.append)
    assert own == any(isinstance(each, Note) and "was made from" in each.text for each in heard)
    assert found.known == {
        "checked": False,
        "reason": "the model file has no fingerprint of the images it was made with",
    }
    assert found.seen == 0


# --- what the model knows -------------------------------------------------------------------------------------------


def scene(seed: int) -> Image.Image:
    """A picture with something at every scale."""
    rng = np.random.default_rng(seed)
    layers = [
        np.asarray(Image.fromarray(rng.integers(0, 256, (n, n, 3), dtype=np.uint8)).resize((160, 120)))
        for n in (4, 8, 16)
    ]
    return Image.fromarray(np.mean(layers, axis=0).astype(np.uint8))


def marks(*seeds: int) -> Marks:
    found = [mark(np.asarray(scene(seed))) for seed in seeds]
    return Marks.of([f"{each.digest:016x}" for each in found], [f"{each.hash:016x}" for each in found if each.hash])


SEEN, TESTED = range(6), range(10, 13)
FINGERPRINT = Fingerprint(seen=marks(*SEEN), test=marks(*TESTED))


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """Of the class `circle`, what was trained on; of `square`, what was tested on; of `triangle`, new ones."""
    folder = tmp_path / "mixed"
    for label in ("circle", "square", "triangle"):
        (folder / label).mkdir(parents=True)
    for seed in (0, 1):
        scene(seed).save(folder / "circle" / f"equal{seed}.png")
    scene(2).save(folder / "circle" / "again.jpg", quality=70)
    scene(3).resize((80, 90)).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(folder / "circle" / "small.png")
    scene(10).save(folder / "square" / "tested.png")
    scene(11).save(folder / "square" / "tested.webp", quality=70)
    for seed in range(20, 25):
        scene(seed).save(folder / "triangle" / f"{seed}.png")
    return folder


def test_known_images_are_counted_and_do_not_count(tmp_path: Path, mixed: Path) -> None:
    found = evaluate(model_of(tmp_path, "", FINGERPRINT), mixed, SETTINGS)
    known = found.known
    assert known["checked"]
    assert (known["seen"], known["test"]) == ({"exactly": 2, "nearly": 2}, {"exactly": 1, "nearly": 1})
    assert (found.seen, known["excluded"], len(found.predictions)) == (4, 4, 11)
    assert found.figures is not None
    assert (found.figures["n"], known["new"]["n"], known["all"]["n"]) == (7, 7, 11)
    assert {name: found.figures[name] for name in known["new"]} == known["new"]
    assert {(each["path"], each["set"], each["how"]) for each in known["images"]} == {
        ("circle/equal0.png", "seen", "exactly"),
        ("circle/equal1.png", "seen", "exactly"),
        ("circle/again.jpg", "seen", "nearly"),
        ("circle/small.png", "seen", "nearly"),
        ("square/tested.png", "test", "exactly"),
        ("square/tested.webp", "test", "nearly"),
    }


def test_they_count_where_the_user_wants_them(tmp_path: Path, mixed: Path) -> None:
    found = evaluate(model_of(tmp_path, "", FINGERPRINT), mixed, SETTINGS, include_seen=True)
    assert found.figures is not None
    assert (found.figures["n"], found.known["excluded"], found.seen) == (11, 0, 4)
    assert (found.known["new"]["n"], found.known["all"]["n"]) == (7, 11)


def test_where_every_image_is_known_there_is_no_figure(tmp_path: Path, mixed: Path) -> None:
    everything = Fingerprint(seen=marks(*SEEN, *TESTED, *range(20, 25)), test=marks())
    found = evaluate(model_of(tmp_path, "", everything), mixed, SETTINGS)
    assert (found.figures, found.known["new"], found.seen) == (None, None, 11)


def test_an_image_of_both_sets_is_where_its_pixels_are(tmp_path: Path, mixed: Path) -> None:
    near = tmp_path / "near.jpg"
    scene(10).save(near, quality=80)
    likeness = mark(np.asarray(Image.open(near)))
    seen = Marks.of([f"{likeness.digest:016x}"], [f"{likeness.hash:016x}"])
    found = evaluate(model_of(tmp_path, "", Fingerprint(seen, marks(10))), mixed, SETTINGS)
    assert found.known["test"]["exactly"] == 1
    assert found.known["seen"] == {"exactly": 0, "nearly": 0}


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """Large JPEGs, two of them plain."""
    folder = tmp_path / "photographs" / "circle"
    folder.mkdir(parents=True)
    for seed in range(4):
        scene(seed).resize((1100, 700)).save(folder / f"{seed}.jpg", quality=90)
    for grey in (40, 90):
        flat = np.full((700, 1100, 3), grey, np.uint8)
        flat[300:400, 500:700] += np.random.default_rng(grey).integers(0, 3, (100, 200, 3), dtype=np.uint8)
        Image.fromarray(flat).save(folder / f"plain{grey}.jpg", quality=98)
    return folder.parent


@pytest.mark.parametrize("lossless_first", [False, True])
@pytest.mark.parametrize("side", [0, 256])
def test_copies_of_large_jpegs_are_known(tmp_path: Path, photographs: Path, side: int, lossless_first: bool) -> None:
    """The same files, lossless copies and smaller ones, whichever of them the model was made with."""
    lossless = tmp_path / "lossless" / "circle"
    lossless.mkdir(parents=True)
    for file in photographs.rglob("*.jpg"):
        Image.open(file).save(lossless / f"{file.stem}.png", compress_level=1)
    made_with, shown = lossless.parent, photographs
    if not lossless_first:
        made_with, shown = shown, made_with
    store, facts = build_store(read_manifest(made_with, SETTINGS), [32], None, 1, decode_side=side)
    store.close()
    known = Marks.of(facts.known_digests.tolist(), facts.picture_hashes.tolist())
    model = model_of(tmp_path, "", Fingerprint(seen=known, test=marks()), decode_side=side)
    assert evaluate(model, made_with, SETTINGS).known["seen"] == {"exactly": 6, "nearly": 0}
    expected = {"exactly": 2, "nearly": 4} if side else {"exactly": 6, "nearly": 0}
    assert evaluate(model, shown, SETTINGS).known["seen"] == expected
    for file in shown.rglob("*.*"):
        if "plain" in file.name:
            file.unlink()
        else:
            Image.open(file).resize((550, 350)).save(file.with_suffix(".jpg"), quality=80)
            file.with_suffix(".png").unlink(missing_ok=True)
    assert evaluate(model, shown, SETTINGS).known["seen"] == {"exactly": 0, "nearly": 4}


# --- looks ----------------------------------------------------------------------------------------------------------

FIRST = {"number": 1, "when": "2026-01-01T00:00:00+00:00", "reason": "final evaluation", "images": 3}


def run_of(tmp_path: Path, looks: list[dict[str, Any]]) -> Path:
    RunDir.create(tmp_path / "run", SETTINGS, {"data": "x", "fingerprint": "ours"}).close()
    (tmp_path / "run" / "looks.json").write_text(json.dumps(looks))
    return tmp_path / "run"


def test_a_look_at_the_models_own_test_images_is_counted_and_written(tmp_path: Path, mixed: Path) -> None:
    run = run_of(tmp_path, [FIRST])
    model = model_of(run, "ours", FINGERPRINT, [FIRST])
    for number in (2, 3):
        look = evaluate(model, mixed, SETTINGS).known["look"]
        assert look == {"number": number, "images": 2, "unwritten": ""}
        ledger = json.loads((run / "looks.json").read_text())
        assert [each["number"] for each in ledger] == list(range(1, number + 1))
        assert ledger[-1]["images"] == 2


def test_without_test_images_it_is_no_look(tmp_path: Path, mixed: Path) -> None:
    run = run_of(tmp_path, [FIRST])
    unknown = Fingerprint(seen=marks(*SEEN), test=marks(90, 91))
    assert evaluate(model_of(run, "ours", unknown, [FIRST]), mixed, SETTINGS).known["look"] is None
    assert json.loads((run / "looks.json").read_text()) == [FIRST]


@pytest.mark.parametrize("case", ["no run", "other data", "other ledger", "in use"])
def test_a_look_that_cannot_be_written_is_told_all_the_same(tmp_path: Path, mixed: Path, case: str) -> None:
    ledger = [{**FIRST, "when": "2027"}] if case == "other ledger" else [FIRST]
    folder = tmp_path if case == "no run" else run_of(tmp_path, ledger)
    before = (folder / "looks.json").read_text() if case != "no run" else ""
    model = model_of(folder, "another" if case == "other data" else "ours", FINGERPRINT, [FIRST])
    busy = RunDir.open(folder) if case == "in use" else None
    look = evaluate(model, mixed, SETTINGS).known["look"]
    if busy:
        busy.close()
    assert (look["number"], look["images"]) == (2, 2)
    assert look["unwritten"]
    assert case == "no run" or (folder / "looks.json").read_text() == before


@pytest.mark.parametrize("looks", [5, "x", None, {"a": 1}])
def test_a_ledger_of_nonsense_is_no_ledger(tmp_path: Path, mixed: Path, looks: Any) -> None:
    look = evaluate(model_of(tmp_path, "", FINGERPRINT, looks), mixed, SETTINGS).known["look"]
    assert look["number"] == 1


# --- classes and the drop -------------------------------------------------------------------------------------------


def renamed(data: Path, before: str, after: str) -> Path:
    (data / before).rename(data / after)
    return data


def test_unknown_classes_are_named_with_the_nearest(tmp_path: Path, data: Path) -> None:
    renamed(renamed(data, "circle", "Circel"), "square", "zebra")
    with pytest.raises(DataError) as caught:
        evaluate(model_of(tmp_path, ""), data, SETTINGS)
    said = str(caught.value)
    assert "2 of 3 classes" in said
    assert "Circel (did you mean circle?), zebra\n" in said
    assert "--label-map" in said


def test_a_label_map_matches_classes_and_missing_ones_are_said(tmp_path: Path, data: Path) -> None:
    shutil.rmtree(renamed(data, "circle", "ring") / "triangle")
    (tmp_path / "map.csv").write_text("ring,circle\nsquare,square\n")
    mapped = replace(SETTINGS, data=replace(SETTINGS.data, label_map=str(tmp_path / "map.csv")))
    found = evaluate(model_of(tmp_path, ""), data, mapped)
    assert found.missing == ("triangle",)
    assert set(found.predictions.labels.tolist()) == {0, 1}


def test_one_name_in_two_unicode_forms_is_one_class(tmp_path: Path, data: Path) -> None:
    renamed(data, "circle", "cafe\u0301")
    model = model_of(tmp_path, "", class_names=("caf\u00e9", "square", "triangle"))
    assert evaluate(model, data, SETTINGS).missing == ()


def test_without_test_figures_there_is_no_drop_and_a_reason(tmp_path: Path, data: Path) -> None:
    drop = evaluate(model_of(tmp_path, ""), data, SETTINGS).drop
    assert drop == {
        "measured": False,
        "reason": "the model file does not say what the model reached on its own test set",
    }


def test_known_images_that_count_leave_no_drop(tmp_path: Path, mixed: Path) -> None:
    perfect = {"value": 1.0, "low": 0.9, "high": 1.0}
    model = model_of(tmp_path, "", FINGERPRINT, test={"n": 30, "accuracy": perfect, "macro_f1": perfect})
    assert evaluate(model, mixed, SETTINGS).drop["measured"]
    counted = evaluate(model, mixed, SETTINGS, include_seen=True).drop
    assert not counted["measured"]
    assert counted["reason"].startswith("4 images that the model was made with")


def test_a_damaged_report_beside_the_model_is_passed_by(tmp_path: Path, data: Path) -> None:
    (tmp_path / "report.json").write_text("{")
    assert not evaluate(model_of(tmp_path, ""), data, SETTINGS).drop["measured"]
