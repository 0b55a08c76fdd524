"""Squares of the middles of images: the pixels that Pillow gives, kept apart from squares of whole images."""

from __future__ import annotations

import pickle
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from pictures import picture
from PIL import Image, ImageOps

from automl_vision.config import DataSettings, Settings
from automl_vision.data import planes, survey
from automl_vision.data.build import Wanted
from automl_vision.data.decode import open_rgb
from automl_vision.data.manifest import Manifest
from automl_vision.data.preparation import _whole_images
from automl_vision.data.preprocess import MIDDLE, RESIZES, SQUASH, middle_box, square, squares, squares_and_whole
from automl_vision.data.readers import read
from automl_vision.data.store import build_store, store_of_files, thumbnails, undecoded_files
from automl_vision.data.undisked import MemoryWriter, UndecodedWriter

SIZES = (8, 16)
build = partial(build_store, threads=1)


def by_pillow(image: Image.Image, size: int) -> NDArray[np.uint8]:
    """The same in other words: the middle is cut out of the upright image, and that is resized."""
    upright = ImageOps.exif_transpose(image).convert("RGB")
    side, over = min(upright.size), abs(upright.width - upright.height)
    before, after = over // 2, over - over // 2
    if upright.width > upright.height:
        middle = ImageOps.crop(upright, (before, 0, after, 0))
    else:
        middle = ImageOps.crop(upright, (0, before, 0, after))
    assert middle.size == (side, side)
    return np.asarray(middle.resize((size, size), Image.Resampling.BILINEAR))


# --- pixels -----------------------------------------------------------------------------------------------------------


@given(st.integers(1, 70), st.integers(1, 70), st.integers(8, 40), st.integers(0, 99))
def test_the_middle_has_the_pixels_that_pillow_gives(width: int, height: int, size: int, seed: int) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    made = square(pixels, size, MIDDLE)
    np.testing.assert_array_equal(made, by_pillow(Image.fromarray(pixels), size))
    if width == height:
        np.testing.assert_array_equal(made, square(pixels, size))


@given(st.integers(1, 10_000), st.integers(1, 10_000))
def test_the_box_is_whole_inside_and_in_the_middle(width: int, height: int) -> None:
    left, top, side = middle_box(width, height)
    assert side == min(width, height)
    assert 0 <= (width - side - left) - left <= 1, "the odd pixel is cut off at the right"
    assert 0 <= (height - side - top) - top <= 1, "or at the bottom"
    assert min(left, top) == 0


@pytest.mark.parametrize(("shape", "box"), [((1, 9), (0, 4, 1)), ((9, 1), (4, 0, 1)), ((6, 3), (1, 0, 3))])
def test_an_odd_pixel_is_cut_off_at_the_far_end(shape: tuple[int, int], box: tuple[int, int, int]) -> None:
    assert middle_box(*shape) == box


@pytest.mark.parametrize("ends", [0, 255])
def test_the_ends_have_no_share_in_it(ends: int) -> None:
    pixels = np.full((20, 60, 3), ends, dtype=np.uint8)
    pixels[:, 20:40] = np.random.default_rng(0).integers(0, 256, (20, 20, 3), dtype=np.uint8)
    np.testing.assert_array_equal(square(pixels, 9, MIDDLE), square(pixels[:, 20:40], 9))


def test_whole_squares_are_made_beside_middles_of_one_decoding() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (21, 60, 3), dtype=np.uint8)
    kept, (whole,) = squares_and_whole(pixels, (8, 16), (12,), MIDDLE)
    for made, expected in zip((*kept, whole), (*squares(pixels, (8, 16), MIDDLE), square(pixels, 12)), strict=True):
        np.testing.assert_array_equal(made, expected)


def test_another_way_is_refused() -> None:
    with pytest.raises(ValueError, match="resize must be one of"):
        square(np.zeros((4, 4, 3), dtype=np.uint8), 8, "crop")


# --- stores -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Wide, high, odd and very thin pictures, in all orientations; one is damaged."""
    folder = tmp_path / "data" / "cat"
    shapes = [(60, 20), (61, 20), (20, 33), (1, 30), (30, 1), (17, 17), (5, 4), (40, 39)]
    for number, shape in enumerate(shapes):
        picture(folder / f"{number}.png", seed=number, size=shape)
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        pixels = np.random.default_rng(orientation).integers(0, 256, (23, 48, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"turned{orientation}.jpg", exif=exif, quality=95)
    (folder / "cut.png").write_bytes((folder / "0.png").read_bytes()[:100])
    return folder.parent


def manifest_of(root: Path) -> Manifest:
    return read(root, DataSettings())


def check(store: object, manifest: Manifest, resize: str) -> None:
    for row in range(len(manifest)):
        if not store.has_image([row])[0]:  # type: ignore[attr-defined] # a store
            continue
        for size in store.sizes:  # type: ignore[attr-defined] # a store
            made = store.fetch([row], size)[0].permute(1, 2, 0).numpy()  # type: ignore[attr-defined] # a store
            expected = square(open_rgb(manifest.file(row)).pixels, size, resize)
            np.testing.assert_array_equal(made, expected, err_msg=manifest.paths[row])


def test_a_store_of_middles_holds_what_pillow_cuts_from_the_upright_image(root: Path, tmp_path: Path) -> None:
    manifest = manifest_of(root)
    store, facts = build(manifest, SIZES, tmp_path / "cache", resize=MIDDLE)
    assert store.resize == MIDDLE and (~facts.usable).sum() == 1
    for row in np.flatnonzero(facts.usable):
        with Image.open(manifest.file(row)) as image:
            for size in SIZES:
                made = store.fetch([row], size)[0].permute(1, 2, 0).numpy()
                np.testing.assert_array_equal(made, by_pillow(image, size), err_msg=manifest.paths[row])
    store.close()


def test_what_recognises_images_does_not_depend_on_it(root: Path) -> None:
    manifest, settings = manifest_of(root), Settings()
    (whole, facts), (middle, same) = (build(manifest, SIZES, None, resize=resize) for resize in RESIZES)
    assert facts.table.equals(same.table)
    rows, threads = np.flatnonzero(facts.usable), settings.machine.threads
    seen = thumbnails(_whole_images(manifest, same, middle, settings), rows)
    np.testing.assert_array_equal(seen, thumbnails(whole, rows))
    assert not np.array_equal(thumbnails(middle, rows), seen)
    assert _whole_images(manifest, facts, whole, settings) is whole
    assert threads == 0, "all threads of the machine"


@pytest.mark.parametrize("resize", RESIZES)
def test_squares_made_when_they_are_asked_for_are_the_same(root: Path, resize: str) -> None:
    manifest = manifest_of(root)
    store, facts = build(manifest, SIZES, None, resize=resize)
    asked = store_of_files(manifest, facts, SIZES[1], 2, store.decode_side, resize)
    np.testing.assert_array_equal(asked.has_image(range(len(manifest))), facts.usable)
    rows = np.flatnonzero(facts.usable)
    np.testing.assert_array_equal(asked.fetch(rows, SIZES[1]).numpy(), store.fetch(rows, SIZES[1]).numpy())


def test_a_large_jpeg_leaves_its_middle_as_many_pixels_as_the_whole(tmp_path: Path) -> None:
    """Its shorter side, which is that of the middle, decides the fraction."""
    folder = tmp_path / "data" / "cat"
    folder.mkdir(parents=True)
    coarse = Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 16, 3), dtype=np.uint8))
    coarse.resize((3001, 1025)).save(folder / "wide.jpg", quality=90)
    manifest = manifest_of(folder.parent)
    store, facts = build(manifest, (128,), None, decode_side=256, resize=MIDDLE)
    assert facts.table["scale"].tolist() == [4]
    drafted = open_rgb(manifest.file(0), 256).pixels
    assert min(drafted.shape[:2]) >= 256
    made = store.fetch([0], 128)[0].permute(1, 2, 0).numpy()
    np.testing.assert_array_equal(made, square(drafted, 128, MIDDLE))
    assert np.abs(made.astype(int) - square(open_rgb(manifest.file(0)).pixels, 128, MIDDLE)).mean() < 2


@pytest.mark.parametrize("resize", RESIZES)
def test_views_and_other_processes_know_how_they_were_made(root: Path, tmp_path: Path, resize: str) -> None:
    store, _ = build(manifest_of(root), SIZES, tmp_path / "cache", decode_side=256, resize=resize)
    for view in (store.take([1, 0]), store.sealed([0]), pickle.loads(pickle.dumps(store))):
        assert (view.resize, view.decode_side) == (resize, 256)


@pytest.mark.parametrize("resize", RESIZES)
@pytest.mark.parametrize("writer_of", [MemoryWriter, UndecodedWriter])
def test_where_no_disk_has_room_they_are_made_in_the_same_way(
    root: Path, resize: str, writer_of: type[MemoryWriter] | type[UndecodedWriter]
) -> None:
    files = {survey._find(file).digest: file for file in sorted(root.rglob("*.png")) if file.stem != "cut"}
    writer = writer_of(Wanted(files, SIZES, 1, lambda _done, _total: None, 0, resize))
    for digest, file in files.items():
        writer.add(*survey.look_into(file, digest, SIZES, resize=resize))
    rows = np.arange(len(files))
    for size, plane in writer.planes().squares.items():
        expected = np.stack([square(open_rgb(file).pixels, size, resize) for file in files.values()])
        np.testing.assert_array_equal(plane.read(rows), expected)
        np.testing.assert_array_equal(pickle.loads(pickle.dumps(plane)).read(rows), expected)


# --- the cache --------------------------------------------------------------------------------------------------------


def test_squares_of_whole_images_keep_the_keys_that_they_had() -> None:
    assert list(planes.how_made(SIZES, 256)) == ["format", "pillow", "sides", "decode_side"]
    assert planes.how_made(SIZES, 256, SQUASH) == planes.how_made(SIZES, 256)
    assert planes.how_made(SIZES, 256, MIDDLE) == {**planes.how_made(SIZES, 256), "resize": MIDDLE}


@pytest.mark.parametrize("first", RESIZES)
def test_the_two_never_mix(root: Path, tmp_path: Path, first: str) -> None:
    """Neither where the same files are asked for, nor where rows of another set could be copied."""
    cache, manifest = tmp_path / "cache", manifest_of(root)
    second = next(resize for resize in RESIZES if resize != first)
    check(build(manifest, SIZES, cache, resize=first)[0], manifest, first)
    readable = len(manifest)
    assert undecoded_files(manifest, SIZES, cache, 1, resize=first) == 0
    assert undecoded_files(manifest, SIZES, cache, 1, resize=second) == readable
    check(build(manifest, SIZES, cache, resize=second)[0], manifest, second)
    picture(root / "cat" / "new.png", seed=99, size=(50, 20))
    more = manifest_of(root)
    for resize in RESIZES:
        assert undecoded_files(more, SIZES, cache, 1, resize=resize) == 1
        check(build(more, SIZES, cache, resize=resize)[0], more, resize)


@pytest.mark.parametrize("left", RESIZES)
def test_what_a_stopped_build_left_is_taken_by_its_own_kind_alone(root: Path, tmp_path: Path, left: str) -> None:
    cache, manifest = tmp_path / "cache", manifest_of(root)
    other = next(resize for resize in RESIZES if resize != left)

    def stop(done: int, total: int) -> None:
        if done > total // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(manifest, SIZES, cache, progress=stop, resize=left)
    assert undecoded_files(manifest, SIZES, cache, 1, resize=left) < len(manifest)
    assert undecoded_files(manifest, SIZES, cache, 1, resize=other) == len(manifest)
    for resize in (other, left):
        check(build(manifest, SIZES, cache, resize=resize)[0], manifest, resize)
