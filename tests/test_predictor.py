"""Predictions: every way to name an image, in order, whatever is broken in between."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from automl_vision.bundle import Bundle, save_bundle
from automl_vision.data.preprocess import Preprocessing
from automl_vision.errors import DataError, UsageError
from automl_vision.models.classifier import build_classifier
from automl_vision.predictor import Model, load
from automl_vision.runtime import make_runtime

ARCHITECTURE = "mobilenetv3_small_100"


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return Bundle(
        backbone=ARCHITECTURE,
        head="linear",
        class_names=("cat", "dog", "emu"),
        preprocessing=Preprocessing(32, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
        temperature=2.0,
        state_dict=build_classifier(ARCHITECTURE, 3, resolution=32, seed=3).state_dict(),
    )


@pytest.fixture(scope="module")
def model(bundle: Bundle) -> Model:
    return Model(bundle, make_runtime("cpu"))


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    files = [folder / f"{number}.png" for number in range(7)]
    for file in files:
        Image.fromarray(rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(file)
    return files


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    file = tmp_path / "broken.png"
    file.write_bytes(b"\x89PNG\r\n\x1a\n cut")
    return file


def test_probabilities_are_probabilities(model: Model, paths: list[Path]) -> None:
    probabilities = model.predict_proba(paths)
    assert probabilities.shape == (7, 3)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1.0, atol=1e-12)
    assert model.predict(paths) == [model.class_names[index] for index in probabilities.argmax(axis=1)]


def test_every_form_of_an_image_gives_the_same(model: Model, paths: list[Path]) -> None:
    wanted = model.predict_proba(paths)
    with_pictures = [Image.open(file) for file in paths]
    forms = (
        [str(file) for file in paths],
        with_pictures,
        pd.DataFrame({"image": paths, "other": 1}),
        (file for file in paths),
    )
    for form in forms:
        np.testing.assert_array_equal(model.predict_proba(form), wanted)
    for one in (paths[0], str(paths[0]), with_pictures[0]):
        np.testing.assert_allclose(model.predict_proba(one), wanted[:1], atol=1e-6)


@pytest.mark.parametrize("batch_size", [1, 2, 3, 64])
def test_the_batch_size_changes_nothing(model: Model, paths: list[Path], batch_size: int) -> None:
    wanted = model.predict_proba(paths, batch_size=7)
    np.testing.assert_allclose(model.predict_proba(paths, batch_size=batch_size), wanted, atol=1e-6)


@pytest.mark.parametrize("batch_size", [2, 64])
def test_a_broken_image_keeps_its_place(model: Model, paths: list[Path], broken: Path, batch_size: int) -> None:
    named = [*paths[:2], broken, *paths[2:], broken.with_name("none.png")]
    said = list(model.stream(named, batch_size=batch_size))
    assert [each.path for each in said] == [str(file) for file in named]
    assert [each.status for each in said] == ["ok"] * 2 + ["error"] + ["ok"] * 5 + ["error"]
    failed = said[2]
    assert (failed.label, failed.probability, failed.probabilities) == (None, None, None)
    assert failed.error
    good = np.stack([each.probabilities for each in said if each.probabilities is not None])
    np.testing.assert_allclose(good, model.predict_proba(paths), atol=1e-6)


def test_a_batch_of_broken_images_only(model: Model, broken: Path) -> None:
    assert [each.status for each in model.stream([broken] * 3, batch_size=2)] == ["error"] * 3


def test_predict_refuses_what_it_cannot_read(model: Model, paths: list[Path], broken: Path) -> None:
    with pytest.raises(DataError, match=r"broken\.png"):
        model.predict([paths[0], broken])


def test_nothing_gives_nothing(model: Model) -> None:
    assert model.predict([]) == []
    assert model.predict_proba([]).shape == (0, 3)


def test_a_table_needs_its_column(model: Model) -> None:
    with pytest.raises(DataError, match="no column 'image'"):
        model.predict(pd.DataFrame({"picture": ["a.png"]}))


def test_a_batch_holds_an_image(model: Model, paths: list[Path]) -> None:
    with pytest.raises(UsageError, match="batch_size=0"):
        model.stream(paths, batch_size=0)


def test_sources_are_read_as_they_are_needed(model: Model, paths: list[Path]) -> None:
    taken = 0

    def endless() -> Iterator[Path]:
        nonlocal taken
        while True:
            taken += 1
            yield paths[taken % len(paths)]

    stream = model.stream(endless(), batch_size=4)
    assert next(stream).status == "ok"
    assert taken <= 4 * 4  # the batch in hand and those decoded ahead
    stream.close()  # type: ignore[attr-defined] # a generator


def test_a_file_says_what_the_bundle_says(bundle: Bundle, model: Model, paths: list[Path], tmp_path: Path) -> None:
    save_bundle(bundle, tmp_path / "model.pt")
    loaded = load(tmp_path / "model.pt", device="cpu")
    np.testing.assert_array_equal(loaded.predict_proba(paths), model.predict_proba(paths))


def test_the_temperature_softens_and_changes_no_label(bundle: Bundle, paths: list[Path]) -> None:
    from dataclasses import replace

    runtime = make_runtime("cpu")
    sharp = Model(replace(bundle, temperature=0.5), runtime).predict_proba(paths)
    soft = Model(replace(bundle, temperature=5.0), runtime).predict_proba(paths)
    assert (sharp.max(axis=1) > soft.max(axis=1)).all()
    np.testing.assert_array_equal(sharp.argmax(axis=1), soft.argmax(axis=1))
