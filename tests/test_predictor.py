"""Predicting with a model: every kind of input, in order, in batches, one at a time from an endless source."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from automl_vision.bundle import Bundle, save_bundle
from automl_vision.config import DataSettings
from automl_vision.data.decode import open_rgb
from automl_vision.data.fingerprint import mark
from automl_vision.data.preprocess import RESIZES, Preprocessing, square
from automl_vision.data.readers import read
from automl_vision.data.store import build_store
from automl_vision.errors import DataError, ImageReadError, ModelFileError, UsageError
from automl_vision.models.classifier import build_classifier
from automl_vision.prediction import _Opened
from automl_vision.predictor import BATCHES_AHEAD, Model, Prediction, load
from automl_vision.runtime import Runtime

NAMES = ("cat", "dog", "emu")
#: By how much heat in 0..1 may differ where the same figures are added up in another order.
SUMMED_OTHERWISE = 1e-5


@pytest.fixture(scope="module")
def model() -> Model:
    net = build_classifier("mobilenetv3_small_100", 3, resolution=32, seed=0)
    generator = torch.Generator().manual_seed(0)
    torch.nn.init.normal_(net.head.weight, generator=generator)  # type: ignore[arg-type] # a linear head
    bundle = Bundle(
        "mobilenetv3_small_100",
        "linear",
        NAMES,
        Preprocessing(32, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
        temperature=0.005,  # what a network of random weights says differs little
        state_dict=net.state_dict(),
    )
    return Model(bundle, Runtime(torch.device("cpu"), None, 2))


def picture(seed: int) -> Image.Image:
    random = np.random.default_rng(seed)
    coarse = Image.fromarray(random.integers(0, 256, (4, 4, 3), dtype=np.uint8))
    return coarse.resize((40 + seed % 3, 50), Image.Resampling.BICUBIC)


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("images")
    files = [folder / f"picture {number}.png" for number in range(9)]
    for number, file in enumerate(files):
        picture(number).save(file)
    return files


@pytest.fixture(scope="module")
def expected(model: Model, paths: list[Path]) -> np.ndarray[Any, np.dtype[np.float64]]:
    return model.predict_proba(paths)


def close(first: Any, second: Any) -> None:
    np.testing.assert_allclose(first, second, rtol=0, atol=1e-5)


# --- kinds of input -------------------------------------------------------------------------------------------------


def test_probabilities_are_a_row_per_image_and_sum_to_one(expected: Any) -> None:
    assert expected.shape == (9, 3)
    assert expected.dtype == np.float64
    assert (expected >= 0).all()
    close(expected.sum(axis=1), 1.0)
    assert np.ptp(expected, axis=0).max() > 0.01  # the pictures differ, so do the answers


def test_labels_are_the_most_probable_classes(model: Model, paths: list[Path], expected: Any) -> None:
    assert model.predict(paths) == [NAMES[row] for row in expected.argmax(axis=1)]
    assert model.class_names == NAMES


def test_the_same_images_in_any_form_give_the_same_answer(model: Model, paths: list[Path], expected: Any) -> None:
    forms: dict[str, Any] = {
        "texts": [str(path) for path in paths],
        "tuple": tuple(paths),
        "pictures": [picture(number) for number in range(9)],
        "opened files": [Image.open(path) for path in paths],
        "mixture": [path if number % 2 else picture(number) for number, path in enumerate(paths)],
        "bytes": [path.read_bytes() for path in paths],
        "table": pd.DataFrame({"id": range(9), "image": [str(path) for path in paths]}, index=range(50, 59)),
        "table of pictures": pd.DataFrame({"image": [picture(number) for number in range(9)]}),
        "column": pd.Series([str(path) for path in paths]),
        "generator": (path for path in paths),
    }
    for name, images in forms.items():
        np.testing.assert_allclose(model.predict_proba(images), expected, rtol=0, atol=1e-5, err_msg=name)


def test_one_image_is_a_row_of_one(model: Model, paths: list[Path], expected: Any) -> None:
    for image in (paths[4], str(paths[4]), picture(4), paths[4].read_bytes()):
        close(model.predict_proba(image), expected[4:5])
        assert len(model.predict(image)) == 1


@pytest.mark.parametrize(
    "nothing", [[], (), pd.DataFrame({"image": []}), iter(())], ids=lambda value: type(value).__name__
)
def test_nothing_asked_nothing_told(model: Model, nothing: Any) -> None:
    assert model.predict(nothing) == []
    assert model.predict_proba(nothing).shape == (0, 3)


def test_a_table_without_the_column_is_refused_with_what_it_has(model: Model) -> None:
    with pytest.raises(DataError, match="'image'") as caught:
        model.predict(pd.DataFrame({"file": ["a.png"], 3: [1]}))
    assert caught.value.value == "file, 3"
    assert "image" in caught.value.fix


@pytest.mark.parametrize("value", [None, float("nan"), 3, 2.5, {"path": "a.png"}], ids=repr)
def test_what_is_no_image_at_all_is_told_like_a_broken_one(model: Model, paths: list[Path], value: Any) -> None:
    rows = list(model.stream([paths[0], value]))
    assert [row.status for row in rows] == ["ok", "error"]
    with pytest.raises(DataError, match="cannot be read"):
        model.predict(pd.DataFrame({"image": [str(paths[0]), value]}, dtype=object))


# --- batches --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 4, 9, 1000])
def test_the_size_of_batches_does_not_matter(model: Model, paths: list[Path], expected: Any, size: int) -> None:
    close(model.predict_proba(paths, batch_size=size), expected)
    assert model.predict(paths, batch_size=size) == [NAMES[row] for row in expected.argmax(axis=1)]
    assert [row.path for row in model.stream(paths, batch_size=size)] == [str(path) for path in paths]


@pytest.mark.parametrize("size", [0, -1])
def test_a_batch_of_nothing_is_refused_at_once(model: Model, paths: list[Path], size: int) -> None:
    with pytest.raises(UsageError, match="batch"):
        model.stream(paths, batch_size=size)
    with pytest.raises(UsageError, match="batch"):
        model.predict(paths, batch_size=size)


def test_order_and_neighbours_do_not_matter(model: Model, paths: list[Path], expected: Any) -> None:
    order = [3, 3, 8, 0, 5]
    close(model.predict_proba([paths[number] for number in order], batch_size=2), expected[order])


# --- broken images --------------------------------------------------------------------------------------------------


@pytest.fixture
def broken(tmp_path: Path, paths: list[Path]) -> list[Path]:
    """Good, cut off, missing, good, text, empty, a folder, good."""
    whole = paths[0].read_bytes()
    contents = {"cut.png": whole[: len(whole) // 2], "text.jpg": b"hello", "empty.png": b""}
    for name, data in contents.items():
        (tmp_path / name).write_bytes(data)
    strange = ["cut.png", "missing.png"], ["text.jpg", "empty.png", "."]
    before, after = ([tmp_path / name for name in names] for names in strange)
    return [paths[0], *before, paths[1], *after, paths[2]]


@pytest.mark.parametrize("size", [1, 2, 3, 64])
def test_broken_images_keep_their_place(model: Model, broken: list[Path], expected: Any, size: int) -> None:
    rows = list(model.stream(broken, batch_size=size))
    assert [row.path for row in rows] == [str(path) for path in broken]
    assert [row.status for row in rows] == ["ok", "error", "error", "ok", "error", "error", "error", "ok"]
    good = [row for row in rows if row.status == "ok"]
    close(np.stack([row.probabilities for row in good]), expected[:3])
    for row in rows:
        check(row)


def check(row: Prediction) -> None:
    """A row is whole: either a class with its probability, or a reason."""
    if row.status == "error":
        assert (row.label, row.probability, row.probabilities) == (None, None, None)
        assert row.error
        return
    assert not row.error
    assert row.probabilities is not None
    assert row.label == NAMES[int(row.probabilities.argmax())]
    assert row.probability == row.probabilities.max()


def test_predicting_stops_at_a_broken_image_and_names_it(model: Model, broken: list[Path]) -> None:
    for ask in (model.predict, model.predict_proba):
        with pytest.raises(DataError) as caught:
            ask(broken)
        assert "cut.png" in str(caught.value)
        assert "stream" in caught.value.fix


def test_all_broken_is_all_rows_and_no_crash(model: Model, tmp_path: Path) -> None:
    rows = list(model.stream([tmp_path / "a", tmp_path / "b"]))
    assert [row.status for row in rows] == ["error", "error"]


def test_a_picture_in_memory_has_no_path(model: Model) -> None:
    assert [row.path for row in model.stream([picture(0), io.BytesIO(b"x")])] == ["", ""]


# --- endless sources ------------------------------------------------------------------------------------------------


class Counted:
    """Ten thousand sources that count how many were taken."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.taken = 0

    def __iter__(self) -> Iterator[Path]:
        for _ in range(10_000):
            self.taken += 1
            yield self.path


def test_a_stream_reads_no_further_ahead_than_a_few_batches(model: Model, paths: list[Path]) -> None:
    sources = Counted(paths[0])
    stream = model.stream(sources, batch_size=4)
    assert sources.taken == 0
    for told in range(1, 21):
        next(stream)
        assert sources.taken <= told + (BATCHES_AHEAD + 1) * 4
    stream.close()  # type: ignore[attr-defined] # a generator
    assert sources.taken < 60


def test_predicting_stops_reading_at_a_broken_image(model: Model, tmp_path: Path) -> None:
    sources = Counted(tmp_path / "missing.png")
    with pytest.raises(DataError):
        model.predict(sources, batch_size=4)
    assert sources.taken < 60


# --- loading --------------------------------------------------------------------------------------------------------


def test_a_saved_model_predicts_the_same(model: Model, paths: list[Path], expected: Any, tmp_path: Path) -> None:
    save_bundle(model.bundle, tmp_path / "model.pt")
    close(load(str(tmp_path / "model.pt"), device="cpu").predict_proba(paths), expected)


def test_loading_says_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="no model file"):
        load(tmp_path / "model.pt")


def test_the_temperature_softens(model: Model, paths: list[Path], expected: Any) -> None:
    softer = Model(dataclasses.replace(model.bundle, temperature=50.0), Runtime(torch.device("cpu"), None, 1))
    probabilities = softer.predict_proba(paths)
    assert (probabilities.argmax(axis=1) == expected.argmax(axis=1)).all()
    assert probabilities.max() < expected.max()


def test_a_head_of_layers_predicts_the_same_from_its_file(paths: list[Path], tmp_path: Path) -> None:
    """Bit for bit: the file holds a description of the head and its weights, and nothing else of it."""
    head = "mlp:24-gelu,16-tanh"
    net = build_classifier("mobilenetv3_small_100", 3, resolution=32, seed=0, head=head)
    generator = torch.Generator().manual_seed(0)
    for name, tensor in net.head.state_dict().items():
        if name.endswith("weight"):
            torch.nn.init.normal_(tensor, generator=generator)
    preprocessing = Preprocessing(32, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    bundle = Bundle("mobilenetv3_small_100", head, NAMES, preprocessing, 1.0, net.state_dict())
    save_bundle(bundle, tmp_path / "model.pt")
    here = Model(bundle, Runtime(torch.device("cpu"), None, 1)).predict_proba(paths)
    assert len(np.unique(here.round(6), axis=0)) > 1, "the pictures are told apart"
    assert np.array_equal(load(tmp_path / "model.pt", device="cpu").predict_proba(paths), here)


# --- large JPEGs ----------------------------------------------------------------------------------------------------


def large_jpeg(file: Path, orientation: int = 1, size: tuple[int, int] = (1100, 700)) -> Path:
    rng = np.random.default_rng(orientation)
    coarse = Image.fromarray(rng.integers(0, 256, (9, 16, 3), dtype=np.uint8))
    exif = Image.Exif()
    exif[0x0112] = orientation
    coarse.resize(size, Image.Resampling.BICUBIC).save(file, quality=90, exif=exif)
    return file


def drafting(model: Model, side: int, resize: str = "squash") -> Model:
    preprocessing = dataclasses.replace(model.bundle.preprocessing, decode_side=side, resize=resize)
    return Model(dataclasses.replace(model.bundle, preprocessing=preprocessing), Runtime(torch.device("cpu"), None, 2))


@pytest.mark.parametrize("resize", RESIZES)
@pytest.mark.parametrize("side", [0, 256, 320])
def test_a_prediction_sees_the_very_squares_that_were_validated_on(
    model: Model, tmp_path: Path, side: int, resize: str
) -> None:
    """All orientations, and sides just above and below what is decoded at a half and at a quarter."""
    (tmp_path / "data" / "a").mkdir(parents=True)
    for orientation in range(1, 9):
        large_jpeg(tmp_path / "data" / "a" / f"{orientation}.jpg", orientation)
    for shorter in (511, 512, 513, 1023, 1024):
        large_jpeg(tmp_path / "data" / "a" / f"{shorter}.jpg", size=(1200, shorter))
    manifest = read(tmp_path / "data", DataSettings())
    store, facts = build_store(manifest, [32], None, 1, decode_side=side, resize=resize)
    assert set(facts.table["scale"]) == {0: {1}, 256: {1, 2, 4}, 320: {1, 2}}[side]
    asked = drafting(model, store.decode_side, store.resize)
    for row in range(len(manifest)):
        stored = store.fetch([row], 32)[0].permute(1, 2, 0).numpy()
        with Image.open(manifest.file(row)) as opened:
            for source in (manifest.file(row), str(manifest.file(row)), opened):
                prepared = asked._prepare(source, marked=False)
                assert isinstance(prepared, _Opened)
                np.testing.assert_array_equal(prepared.squares[32], stored)
    store.close()


def test_an_image_is_recognised_by_all_of_it_whatever_the_networks_see(model: Model, tmp_path: Path) -> None:
    file = large_jpeg(tmp_path / "large.jpg")
    marks = [drafting(model, 256, resize)._prepare(file, marked=True) for resize in RESIZES]
    whole, middle = (each for each in marks if isinstance(each, _Opened))
    assert whole.mark == middle.mark
    assert not np.array_equal(whole.squares[32], middle.squares[32])


def test_the_file_of_an_older_model_decodes_wholly(model: Model, tmp_path: Path) -> None:
    file = large_jpeg(tmp_path / "large.jpg")
    prepared = {side: drafting(model, side)._prepare(file, marked=False) for side in (0, 256)}
    whole = square(open_rgb(file).pixels, 32)
    assert np.array_equal(prepared[0].squares[32], whole)
    assert not np.array_equal(prepared[256].squares[32], whole)
    assert model.bundle.preprocessing.decode_side == 0


def test_a_draft_that_is_plain_is_marked_by_its_whole_pixels(model: Model, tmp_path: Path) -> None:
    file = tmp_path / "plain.jpg"
    Image.new("RGB", (1100, 700), (40, 50, 60)).save(file)
    asked = drafting(model, 256)
    [plain, telling] = asked.stream([file, large_jpeg(tmp_path / "large.jpg")], marked=True)
    assert plain.mark is not None and telling.mark is not None
    assert (plain.mark.hash, telling.mark.whole) == (None, None)
    assert plain.mark.whole == mark(open_rgb(file).pixels).digest != plain.mark.digest


# --- heat maps ------------------------------------------------------------------------------------------------------


def test_a_picture_is_explained_at_its_own_shape(model: Model, paths: list[Path], expected: Any) -> None:
    explained = model.explain(paths[0])
    assert explained.label == NAMES[expected[0].argmax()]
    assert explained.heat.shape == (32, 32)
    assert explained.picture.shape == (50, 40, 3)
    assert not explained.is_empty
    assert explained.heat.max() == 1
    assert Image.open(io.BytesIO(explained.png())).size == (40, 50)
    assert model.explain(paths[0], side=25).picture.shape == (25, 20, 3)
    same = model.explain(picture(0), explained.label)
    np.testing.assert_allclose(same.heat, explained.heat, rtol=0, atol=SUMMED_OTHERWISE)


def test_a_model_of_middles_is_explained_by_its_middles(model: Model) -> None:
    bundle = model.bundle
    of_middles = Model(
        dataclasses.replace(bundle, preprocessing=dataclasses.replace(bundle.preprocessing, resize="middle"))
    )
    wide = np.random.default_rng(0).integers(0, 256, (40, 120, 3), dtype=np.uint8)
    middle = Image.fromarray(wide[:, 40:80])
    seen, alone = (of_middles.explain(each, NAMES[0]) for each in (Image.fromarray(wide), middle))
    np.testing.assert_allclose(seen.heat, alone.heat, rtol=0, atol=SUMMED_OTHERWISE)
    np.testing.assert_array_equal(seen.picture[:, 40:80], alone.picture)
    assert (seen.picture[:, :40].std(axis=2) == 0).all(), "grey where it does not look"


def test_every_class_can_be_asked_about_and_no_other(model: Model, paths: list[Path]) -> None:
    heats = [model.explain(paths[1], name).heat for name in NAMES]
    assert all(not np.array_equal(heats[k], heats[k - 1]) for k in range(3))
    with pytest.raises(UsageError, match="no such class"):
        model.explain(paths[1], "unicorn")


def test_a_broken_picture_is_not_explained(model: Model, tmp_path: Path) -> None:
    (tmp_path / "x.png").write_text("none")
    with pytest.raises(ImageReadError):
        model.explain(tmp_path / "x.png")
