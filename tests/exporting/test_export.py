"""What is refused, what is left in place, and what an export is checked with."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_bundles import EXAMPLES, single, weights

from automl_vision.bundle import Bundle
from automl_vision.data.decode import open_rgb
from automl_vision.data.fingerprint import Fingerprint, Marks, mark
from automl_vision.errors import AutomlVisionError, DataError, UsageError
from automl_vision.exporting import export as exporting
from automl_vision.exporting.export import Exported, Order, export
from automl_vision.exporting.formats import FORMATS
from automl_vision.exporting.parity import Parity, Reference, ask, parity_of
from automl_vision.exporting.pictures import Pictures, find_material
from automl_vision.predictor import Model


@pytest.fixture
def model(files: dict[str, Path], tmp_path: Path) -> Path:
    """The model of one network in a folder of its own."""
    return Path(shutil.copy(files["single"], tmp_path / "model.pt"))


def left_in(folder: Path) -> set[str]:
    return {each.name for each in folder.iterdir()}


# --- what is in the way ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FORMATS)
def test_nothing_is_replaced_without_being_told_to(model: Path, name: str) -> None:
    place = model.parent / FORMATS[name].default
    place.write_text("precious")
    with pytest.raises(UsageError, match="something at this place") as caught:
        export(Order(model, name))
    assert "--force" in caught.value.fix
    assert place.read_text() == "precious"


def test_force_replaces_what_an_export_left(model: Path) -> None:
    first = export(Order(model, "huggingface"))
    before = {each.name: each.read_bytes() for each in first.path.iterdir()}
    (first.path / "config.json").write_text("{}")
    export(Order(model, "huggingface", force=True))
    assert {each.name: each.read_bytes() for each in first.path.iterdir()} == before
    assert left_in(model.parent) == {"model.pt", "huggingface"}


def test_force_replaces_no_folder_of_other_files_and_not_the_model(model: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "letter.txt").write_text("dear")
    for order in (
        Order(model, "huggingface", out=home, force=True),
        Order(model, "torch-export", out=home, force=True),
        Order(model, "torch-export", out=model, force=True),
        Order(model, "huggingface", out=model, force=True),
    ):
        with pytest.raises(UsageError):
            export(order)
    assert left_in(home) == {"letter.txt"}
    Model(single())  # the file below is still one
    assert model.stat().st_size > 1_000_000


def test_a_folder_that_is_not_there_is_named(model: Path) -> None:
    place = model.parent / "no" / "folder"
    with pytest.raises(UsageError, match="cannot be written") as caught:
        export(Order(model, "huggingface", out=place))
    assert str(place) in str(caught.value.value)


@pytest.mark.parametrize("name", ["torch-export", "huggingface"])
def test_eight_bits_are_onnx_alone(model: Path, name: str) -> None:
    with pytest.raises(UsageError, match="--int8"):
        export(Order(model, name, int8=True))


def test_eight_bits_need_images(model: Path) -> None:
    for package in FORMATS["onnx"].packages:
        pytest.importorskip(package)
    with pytest.raises(DataError, match="8 bits need labelled images"):
        export(Order(model, "onnx", int8=True))
    with pytest.raises(DataError, match="8 bits need labelled images"):  # its classes are others
        export(Order(model, "onnx", int8=True, data=EXAMPLES))


def test_a_missing_package_is_named_with_what_to_install(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lacking = dataclasses.replace(FORMATS["onnx"], packages=("no_such_package",))
    monkeypatch.setitem(FORMATS, "onnx", lacking)
    with pytest.raises(UsageError, match="not installed") as caught:
        export(Order(model, "onnx"))
    assert caught.value.value == "no_such_package"
    assert caught.value.fix == "pip install 'automl-vision[export]'"


# --- an export that is not the model --------------------------------------------------------------------------------


@pytest.mark.parametrize("force", [False, True])
def test_one_that_says_something_else_is_not_kept(model: Path, monkeypatch: pytest.MonkeyPatch, force: bool) -> None:
    form = FORMATS["huggingface"]
    place = model.parent / "huggingface"
    if force:
        place.mkdir()
        (place / "config.json").write_text("former")

    def of_another(bundle: Bundle, report: Any) -> Any:
        return form.writer(dataclasses.replace(bundle, state_dict=weights(5, 32)), report)

    monkeypatch.setitem(FORMATS, "huggingface", dataclasses.replace(form, writer=of_another))
    with pytest.raises(AutomlVisionError, match="does not say what the model says"):
        export(Order(model, "huggingface", force=force))
    assert left_in(model.parent) == {"model.pt"} | ({"huggingface"} if force else set())
    assert not force or (place / "config.json").read_text() == "former"


def reference(probabilities: Any) -> Reference:
    values = np.array(probabilities, dtype=np.float64)
    return Reference(Pictures((b"",) * len(values), np.full(len(values), -1), "images"), values)


@pytest.mark.parametrize(
    ("said", "faithful"),
    [
        ([[0.6, 0.4], [0.3, 0.7]], True),
        ([[0.6009, 0.3991], [0.3, 0.7]], True),
        ([[0.601, 0.399], [0.3, 0.7]], False),
        ([[0.4, 0.6], [0.3, 0.7]], False),
    ],
)
def test_what_is_the_same(said: Any, faithful: bool) -> None:
    assert parity_of(reference([[0.6, 0.4], [0.3, 0.7]]), np.array(said)).faithful is faithful


def test_another_class_is_another_answer_however_near() -> None:
    near = parity_of(reference([[0.5001, 0.4999]]), np.array([[0.4999, 0.5001]]))
    assert (near.agreeing, near.faithful) == (0, False)
    tied = parity_of(reference([[0.5, 0.5]]), np.array([[0.5 - 1e-9, 0.5 + 1e-9]]))
    assert tied.faithful
    assert not Parity(0, "images", 0, 0.0).faithful


# --- what it is checked with ----------------------------------------------------------------------------------------


def test_images_of_the_test_set_are_left_out(pictures: list[Path]) -> None:
    few = pictures[-12:]
    marks = [mark(open_rgb(path).pixels) for path in few[:5]]
    tested = Marks(np.unique(np.array([each.digest for each in marks], np.uint64)), np.empty(0, np.uint64))
    fingerprint = Fingerprint(Marks(np.empty(0, np.uint64), np.empty(0, np.uint64)), tested)
    model = Model(dataclasses.replace(single(), fingerprint=fingerprint))
    asked = ask(model, Pictures(tuple(few), np.arange(12), "images"), fingerprint)
    assert list(asked.pictures.labels) == list(range(5, 12))
    np.testing.assert_allclose(asked.probabilities, model.predict_proba(few[5:]), atol=1e-6)
    with pytest.raises(AutomlVisionError, match="no image to check"):
        ask(model, Pictures(tuple(few[:5]), np.arange(5), "images"), fingerprint)


def test_what_is_measured_on_was_not_calibrated_with(files: dict[str, Path], bundles: dict[str, Bundle]) -> None:
    material = find_material(files["single"], bundles["single"], EXAMPLES)
    assert material.measured is not None
    assert not set(material.checked.sources) & set(material.measured.sources)
    assert len(material.checked) == 256
    assert set(material.checked.labels) == {-1}, "the model has none of these classes"


def test_the_data_of_the_run_without_a_fingerprint_are_not_measured_on(files: dict[str, Path]) -> None:
    from automl_vision.config import Settings
    from automl_vision.data.preparation import read_manifest

    manifest = read_manifest(EXAMPLES, Settings())
    provenance = {"data_fingerprint": manifest.fingerprint}
    bundle = dataclasses.replace(single(), provenance=provenance)
    material = find_material(files["single"], bundle, EXAMPLES)
    assert material.measured is None
    assert "test images" in material.note


def test_broken_images_are_passed_over(model: Path, tmp_path: Path, pictures: list[Path]) -> None:
    folder = tmp_path / "data"
    for number, path in enumerate(pictures[-12:]):
        (folder / ("cat" if number % 2 else "dog")).mkdir(parents=True, exist_ok=True)
        shutil.copy(path, folder / ("cat" if number % 2 else "dog") / path.name)
    (folder / "cat" / "broken.png").write_bytes(b"no")
    exported = export(Order(model, "huggingface", data=folder))
    assert 5 <= exported.parity.images <= 7
    assert exported.parity.faithful


# --- eight bits -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_eight_bits_say_what_they_cost(model: Path, tmp_path: Path, pictures: list[Path]) -> None:
    for package in FORMATS["onnx"].packages:
        pytest.importorskip(package)
    folder = labelled_by_the_model(model, tmp_path / "data", pictures)
    exported = export(Order(model, "onnx", int8=True, data=folder))
    assert exported.path == model.parent / "model-int8.onnx"
    assert exported.int8 is not None
    assert exported.int8.accuracy_before == 1.0, "the labels are what the model says"
    assert exported.int8.accuracy_after is not None
    assert exported.int8.accuracy_after == exported.parity.agreeing / exported.parity.images
    assert exported.int8.accuracy_after > 0.5
    assert exported.parity.largest_difference > 0
    assert exported.bytes < 0.5 * model.stat().st_size
    said = FORMATS["onnx"].load(exported.path)
    told = said.description.details["quantisation"]  # type: ignore[attr-defined] # of an ONNX file
    assert told["accuracy_after"] == exported.int8.accuracy_after
    assert "images of --data" in told["calibrated_on"]


def labelled_by_the_model(model: Path, folder: Path, pictures: list[Path]) -> Path:
    labels = Model(single()).predict(pictures)
    for number, (path, label) in enumerate(zip(pictures, labels, strict=True)):
        (folder / label).mkdir(parents=True, exist_ok=True)
        shutil.copy(path, folder / label / f"{number}.png")
    return folder


def test_the_work_is_told_step_by_step(model: Path) -> None:
    steps: list[str] = []
    exported: Exported = exporting.export(Order(model, "huggingface"), steps.append)
    assert steps == ["asking the model", "writing huggingface", "comparing"]
    assert exported.bytes == sum(each.stat().st_size for each in exported.path.iterdir())
