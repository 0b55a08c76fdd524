"""Whatever a file holds: upright 8-bit RGB pixels, or one error type with the reason."""

from __future__ import annotations

import io
import math
import os
import struct
import threading
import time
import tracemalloc
import warnings
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from automl_vision.data import decode
from automl_vision.data.decode import (
    MAX_PIXELS,
    dimensions,
    draft_scale,
    jpeg_scale,
    jpeg_scales,
    open_rgb,
    signature_of,
)
from automl_vision.data.files import MAX_BYTES
from automl_vision.data.frames import MOST_FRAMES
from automl_vision.data.pixel_room import PixelRoom
from automl_vision.errors import IMAGE_FAULTS, ImageReadError


def encoded(image: Image.Image, form: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def scene(width: int = 40, height: int = 24) -> Image.Image:
    """Smooth and without symmetry, so that a wrong turn shows and JPEG keeps it."""
    y, x = np.mgrid[0:height, 0:width]
    channels = [x * 255 / width, y * 255 / height, (x * y) * 255 / (width * height)]
    return Image.fromarray(np.stack(channels, axis=2).astype(np.uint8))


def kind_of(source: object) -> str:
    with pytest.raises(ImageReadError) as caught:
        open_rgb(source)
    assert "\n" not in caught.value.detail
    return caught.value.kind


LOSSLESS = {"PNG": {}, "BMP": {}, "TIFF": {}, "PPM": {}, "WEBP": {"lossless": True}}


@pytest.mark.parametrize("form", LOSSLESS)
def test_lossless_formats_give_the_pixels_that_went_in(form: str) -> None:
    decoded = open_rgb(encoded(scene(), form, **LOSSLESS[form]))
    np.testing.assert_array_equal(decoded.pixels, np.asarray(scene()))
    assert (decoded.width, decoded.height, decoded.format, decoded.mode) == (40, 24, form, "RGB")
    assert (decoded.frames, decoded.exif_rotated) == (1, False)


def test_every_kind_of_source_gives_the_same_pixels(tmp_path: Path) -> None:
    data = encoded(scene(), "PNG")
    file = tmp_path / "named as a.jpg"
    file.write_bytes(data)
    for source in (file, str(file), data, io.BytesIO(data), Image.open(file), scene()):
        np.testing.assert_array_equal(open_rgb(source).pixels, np.asarray(scene()))


GREY = np.full((8, 8), 77, dtype=np.uint8)
RED = np.dstack([np.full((8, 8), v, dtype=np.uint8) for v in (255, 0, 0)])
MODES = {
    "1": (Image.fromarray(GREY).point(lambda _: 255).convert("1"), "PNG", (255, 255, 255)),
    "L": (Image.fromarray(GREY), "PNG", (77, 77, 77)),
    "LA": (Image.fromarray(GREY).convert("LA"), "PNG", (77, 77, 77)),
    "P": (Image.fromarray(RED).convert("P"), "PNG", (255, 0, 0)),
    "RGB": (Image.fromarray(RED), "PNG", (255, 0, 0)),
    "RGBA": (Image.fromarray(RED).convert("RGBA"), "PNG", (255, 0, 0)),
    "CMYK": (Image.fromarray(RED).convert("CMYK"), "TIFF", (255, 0, 0)),
    "YCbCr": (Image.fromarray(RED).convert("YCbCr"), "TIFF", (254, 0, 0)),
}


@pytest.mark.parametrize("mode", MODES)
def test_odd_modes_become_rgb(mode: str) -> None:
    image, form, expected = MODES[mode]
    decoded = open_rgb(encoded(image, form))
    assert decoded.mode == mode
    assert decoded.pixels.shape == (8, 8, 3)
    assert np.abs(decoded.pixels.astype(int) - expected).max() <= 1


def hidden(mode: str) -> bytes:
    """An image whose left half is fully transparent and whose colours are red throughout."""
    rgba = Image.fromarray(RED).convert("RGBA")
    alpha = np.full((8, 8), 255, dtype=np.uint8)
    alpha[:, :4] = 0
    rgba.putalpha(Image.fromarray(alpha))
    if mode == "P":
        palette = Image.fromarray((alpha == 0).astype(np.uint8)).convert("P")
        palette.putpalette([255, 0, 0] * 2)
        return encoded(palette, "PNG", transparency=1)
    if mode == "RGB+key":
        keyed = np.asarray(rgba.convert("RGB")).copy()
        keyed[:, :4] = (255, 0, 1)
        return encoded(Image.fromarray(keyed), "PNG", transparency=(255, 0, 1))
    return encoded(rgba.convert(mode), "PNG")


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "RGB+key"])
def test_what_is_transparent_is_white_whatever_colour_hides_there(mode: str) -> None:
    pixels = open_rgb(hidden(mode)).pixels
    assert (pixels[:, :4] == 255).all()
    assert (pixels[:, 4:] != 255).any()


def test_half_transparent_is_half_white() -> None:
    image = Image.fromarray(np.zeros((2, 2, 3), dtype=np.uint8)).convert("RGBA")
    image.putalpha(128)
    assert np.abs(open_rgb(encoded(image, "PNG")).pixels.astype(int) - 127).max() <= 1


RAMP = np.tile(np.linspace(0, 65535, 256).round(), (4, 1))
RAMPS = {
    "16-bit PNG": encoded(Image.fromarray(RAMP.astype(np.uint16)), "PNG"),
    "16-bit TIFF": encoded(Image.fromarray(RAMP.astype(np.uint16)), "TIFF"),
    "16-bit PGM": b"P5 256 4 65535\n" + RAMP.astype(">u2").tobytes(),
    "32-bit TIFF": encoded(Image.fromarray((RAMP * 30000).astype(np.int32)), "TIFF"),
    "32-bit TIFF, 16 bits used": encoded(Image.fromarray(RAMP.astype(np.int32)), "TIFF"),
    "32-bit TIFF, 8 bits used": encoded(Image.fromarray((RAMP // 257).astype(np.int32)), "TIFF"),
    "32-bit TIFF, signed": encoded(Image.fromarray((RAMP - 32768).astype(np.int32)), "TIFF"),
    "float TIFF, 0 to 1": encoded(Image.fromarray((RAMP / 65535).astype(np.float32)), "TIFF"),
    "float TIFF, any": encoded(Image.fromarray((RAMP * 7 - 1e5).astype(np.float32)), "TIFF"),
    "float TIFF, huge": encoded(Image.fromarray(((RAMP / 65535 - 0.5) * 6e38).astype(np.float32)), "TIFF"),
}


@pytest.mark.parametrize("name", RAMPS)
def test_a_deep_ramp_keeps_its_mean_and_ends(name: str) -> None:
    pixels = open_rgb(RAMPS[name]).pixels
    assert abs(pixels.mean() - 127.5) <= 2
    assert (pixels.min(), pixels.max()) == (0, 255)
    assert (np.diff(pixels[0, :, 0].astype(int)) >= 0).all()


def test_a_dark_deep_image_stays_dark() -> None:
    dark = np.full((4, 4), 200, dtype=np.uint16)
    assert open_rgb(encoded(Image.fromarray(dark), "PNG")).pixels.max() == 1
    assert open_rgb(b"P5 4 4 65535\n" + dark.astype(">u2").tobytes()).pixels.max() == 1


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_floats_that_are_no_numbers_are_black(value: float) -> None:
    values = np.full((4, 4), 0.5, dtype=np.float32)
    values[0, 0] = value
    pixels = open_rgb(Image.fromarray(values)).pixels
    assert pixels[0, 0, 0] == 0
    assert pixels[1, 1, 0] == 128
    assert (open_rgb(Image.fromarray(np.full((2, 2), value, np.float32))).pixels == 0).all()


# How the camera stored the picture, by the orientation that it wrote.
STORED = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


@pytest.mark.parametrize("form", ["PNG", "TIFF", "WEBP", "JPEG"])
@pytest.mark.parametrize("orientation", STORED)
def test_eight_orientations_are_one_picture(form: str, orientation: int) -> None:
    turn = STORED[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = scene() if turn is None else scene().transpose(turn)
    decoded = open_rgb(encoded(stored, form, exif=exif, **LOSSLESS.get(form, {"quality": 98})))
    tolerance = 12 if form == "JPEG" else 0
    assert np.abs(decoded.pixels.astype(int) - np.asarray(scene())).max() <= tolerance
    assert decoded.exif_rotated == (orientation != 1)


def exif_taken(text: object, fraction: object = None) -> Image.Exif:
    exif = Image.Exif()
    exif[0x010F] = "maker"  # without any plain tag Pillow leaves the block out of a PNG
    exif.get_ifd(0x8769).update({0x9003: text} | ({} if fraction is None else {0x9291: fraction}))
    return exif


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_when_a_picture_was_taken_is_read_in_seconds_by_the_cameras_clock(form: str) -> None:
    moment = datetime(2023, 4, 1, 12, 34, 56, tzinfo=UTC).timestamp()
    assert open_rgb(encoded(scene(), form, exif=exif_taken("2023:04:01 12:34:56"))).taken == moment
    assert open_rgb(encoded(scene(), form, exif=exif_taken("2023:04:01 12:34:56", "25"))).taken == moment + 0.25


def test_when_a_tiff_was_taken_is_read_too() -> None:
    tags = ImageFileDirectory_v2()
    tags[0x8769] = {0x9003: "2023:04:01 12:34:56"}
    assert open_rgb(encoded(scene(), "TIFF", tiffinfo=tags)).taken == 1680352496.0


@pytest.mark.parametrize(
    "text",
    ["0000:00:00 00:00:00", "    :  :     :  :  ", "2023-04-01", "", "2023:13:01 00:00:00", "2023:02:30 00:00:00"],
)
def test_a_camera_without_a_clock_tells_no_time(text: str) -> None:
    decoded = open_rgb(encoded(scene(), "JPEG", exif=exif_taken(text, "12")))
    assert math.isnan(decoded.taken)
    assert decoded.width


@pytest.mark.parametrize("fraction", ["", "   ", "x", "-5", "1e9", "²"])
def test_an_odd_fraction_of_a_second_is_none(fraction: str) -> None:
    found = open_rgb(encoded(scene(), "JPEG", exif=exif_taken("2023:04:01 12:34:56", fraction.encode()))).taken
    assert found % 1 == 0.0


def test_pictures_without_a_camera_tell_no_time() -> None:
    assert math.isnan(open_rgb(encoded(scene(), "PNG")).taken)
    assert math.isnan(open_rgb(scene()).taken)


@pytest.mark.parametrize("exif", [b"Exif\0\0garbage", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff", b""])
def test_damaged_exif_does_not_cost_the_image(exif: bytes) -> None:
    decoded = open_rgb(encoded(scene(), "JPEG", exif=exif))
    assert not decoded.exif_rotated
    assert math.isnan(decoded.taken)
    assert decoded.pixels.shape == (24, 40, 3)


@pytest.mark.parametrize(("form", "options"), [("GIF", {}), ("WEBP", {"lossless": True}), ("TIFF", {}), ("PNG", {})])
def test_the_first_of_many_frames_is_used(form: str, options: dict[str, object]) -> None:
    frames = [Image.fromarray(np.full((8, 8, 3), v, dtype=np.uint8)) for v in (255, 100, 0)]
    data = encoded(frames[0], form, save_all=True, append_images=frames[1:], **options)
    decoded = open_rgb(data)
    assert decoded.frames == 3
    assert (decoded.pixels == 255).all()


FORMS = [
    ("JPEG", {}),
    ("JPEG", {"progressive": True}),
    ("PNG", {}),
    ("GIF", {}),
    ("WEBP", {}),
    ("BMP", {}),
    ("TIFF", {}),
    ("TIFF", {"compression": "tiff_lzw"}),
    ("PPM", {}),
]


@pytest.mark.parametrize(("form", "options"), FORMS)
def test_a_cut_file_never_passes_with_pixels_missing(form: str, options: dict[str, object]) -> None:
    data = encoded(scene(), form, **options)
    whole = open_rgb(data).pixels
    for end in np.unique(np.linspace(0, len(data) - 1, 60).astype(int)):
        try:
            pixels = open_rgb(data[:end]).pixels
        except ImageReadError as error:
            assert error.kind in ("empty", "not_an_image", "truncated")
            continue
        np.testing.assert_array_equal(pixels, whole)


SEEDS = [encoded(scene(), form, **options) for form, options in FORMS] + [RAMPS["16-bit PNG"], hidden("P")]


@given(
    seed=st.sampled_from(SEEDS),
    changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=8),
)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_mutated_files_decode_or_raise_the_one_error(seed: bytes, changes: list[tuple[float, int]]) -> None:
    data = bytearray(seed)
    for place, value in changes:
        data[int(place * len(data))] = value
    try:
        decoded = open_rgb(bytes(data))
    except ImageReadError as error:
        assert error.kind in IMAGE_FAULTS
    else:
        assert decoded.pixels.shape == (decoded.height, decoded.width, 3)
        assert decoded.pixels.dtype == np.uint8


@given(st.binary(max_size=200))
@settings(max_examples=100, deadline=None)
def test_random_bytes_raise_the_one_error(data: bytes) -> None:
    try:
        open_rgb(data)
    except ImageReadError as error:
        assert error.kind in IMAGE_FAULTS


@pytest.mark.parametrize(
    ("data", "kind", "hint"),
    [
        (b"", "empty", "0 bytes"),
        (b"hello, world\n" * 10, "not_an_image", "text"),
        (b"\0" * 5000, "not_an_image", "zero bytes only"),
        (b"<!DOCTYPE html><html></html>", "not_an_image", "HTML"),
        (b"\xef\xbb\xbf  <svg xmlns='x'/>", "not_an_image", "SVG"),
        (b"%PDF-1.7", "not_an_image", "PDF"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "not_an_image", "git lfs pull"),
        (b"\0\0\0\x18ftypheic" + b"\0" * 20, "not_an_image", "HEIC: convert"),
        (b"\0\0\0\x18ftypavif" + b"\0" * 20, "not_an_image", "AVIF: convert"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not_an_image", "PostScript"),
        (b"\xff\xd8\xff\xe0", "truncated", "header"),
    ],
)
def test_a_file_that_is_no_image_says_what_it_is(data: bytes, kind: str, hint: str) -> None:
    with pytest.raises(ImageReadError, match=hint) as caught:
        open_rgb(data)
    assert caught.value.kind == kind


def bomb(width: int, height: int) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + header
    start = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    return start + b"\0\0\0\0IDAT\0\0\0\0"


@pytest.mark.parametrize("side", [65535, 12000, 8001])
def test_bombs_are_refused_from_the_header(side: int) -> None:
    assert kind_of(bomb(side, side)) == "too_large"


def test_a_text_chunk_bomb_is_refused() -> None:
    packed = b"zTXtk\0\0" + zlib.compress(b"\0" * 100_000_000)
    chunk = struct.pack(">I", len(packed) - 4) + packed + struct.pack(">I", zlib.crc32(packed))
    good = encoded(scene(), "PNG")
    assert kind_of(good[:33] + chunk + good[33:]) == "truncated"


def test_bytes_are_capped_before_decoding(tmp_path: Path) -> None:
    file = tmp_path / "sparse.png"
    with file.open("wb") as handle:
        handle.truncate(MAX_BYTES + 1)
    assert kind_of(file) == "too_large"


def test_paths_that_are_no_files(tmp_path: Path) -> None:
    (tmp_path / "folder.png").mkdir()
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    (tmp_path / "loop.png").symlink_to("loop.png")
    (tmp_path / "dangling.png").symlink_to("nowhere")
    kinds = {
        "folder.png": "not_a_file",
        "pipe.png": "not_a_file",
        "zero.png": "not_a_file",
        "loop.png": "unreadable",
        "dangling.png": "missing",
        "absent.png": "missing",
        "x" * 300: "missing",
        "nul\0.png": "missing",
    }
    assert {name: kind_of(tmp_path / name) for name in kinds} == kinds


def test_warnings_of_the_decoder_do_not_escape_in_any_thread() -> None:
    # This test runs under filters that turn every warning into an error, as the whole suite does.
    truncated_exif = encoded(scene(), "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x05\x01\x12")
    outcomes: list[object] = []

    def work() -> None:
        outcomes.append(open_rgb(truncated_exif).width)
        outcomes.append(kind_of(bomb(11000, 11000)))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(map(str, outcomes)) == ["40"] * 4 + ["too_large"] * 4


def test_other_warnings_of_the_program_still_count() -> None:
    open_rgb(encoded(scene(), "PNG"))
    with pytest.raises(UserWarning, match="mine"):
        warnings.warn("mine", stacklevel=1)


def test_the_signature_tells_programs_and_qualities_apart_but_not_pictures() -> None:
    kinds = [
        encoded(scene(), "JPEG", quality=90),
        encoded(scene(), "JPEG", quality=60),
        encoded(scene(), "JPEG", quality=90, subsampling=0),
        encoded(scene(), "JPEG", quality=90, progressive=True),
        encoded(scene().convert("L"), "JPEG", quality=90),
        encoded(scene(), "PNG"),
        encoded(scene(), "WEBP"),
    ]
    found = [signature_of(data) for data in kinds]
    assert len({each.writer for each in found}) == len(kinds)
    assert signature_of(encoded(scene(80, 64), "JPEG", quality=90)).writer == found[0].writer
    assert found[1].step > found[0].step > 0 == found[5].step
    assert not any(each.camera for each in found)


def test_the_signature_names_cameras_and_survives_damaged_exif() -> None:
    exif = Image.Exif()
    exif[0x0110] = "Phone 9"
    assert signature_of(encoded(scene(), "JPEG", exif=exif)).camera
    broken = encoded(scene(), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    assert not signature_of(broken).camera


def test_what_is_no_image_has_no_signature() -> None:
    with pytest.raises(ImageReadError):
        signature_of(b"text")


# --- a fraction of the size -----------------------------------------------------------------------------------------

SIDES = st.integers(1, 70_000)


@given(SIDES, SIDES, SIDES)
def test_the_scale_is_the_largest_that_leaves_no_side_below_the_least(width: int, height: int, least: int) -> None:
    scale = draft_scale(width, height, least)
    assert scale in (1, 2, 4, 8)
    assert scale == draft_scale(height, width, least), "a turned image is decoded like the image"
    shorter = min(width, height)
    assert scale == 1 or shorter >= scale * least
    assert scale == 8 or shorter < 2 * scale * least
    assert draft_scale(width, height, 0) == 1


@given(SIDES, SIDES, SIDES, st.integers(0, 1000))
def test_a_larger_least_side_never_shrinks_more(width: int, height: int, least: int, more: int) -> None:
    assert draft_scale(width, height, least + more) <= draft_scale(width, height, least)


@given(width=st.integers(8, 90), height=st.integers(8, 90), least=st.integers(1, 40), grey=st.booleans())
@settings(max_examples=60, deadline=None)
def test_what_is_decoded_has_the_promised_sides(width: int, height: int, least: int, grey: bool) -> None:
    image = scene(width, height).convert("L") if grey else scene(width, height)
    decoded = open_rgb(encoded(image, "JPEG", quality=95), least)
    scale = draft_scale(width, height, least)
    assert (decoded.scale, decoded.width, decoded.height) == (scale, width, height)
    assert decoded.pixels.shape == (-(-height // scale), -(-width // scale), 3)
    assert min(decoded.pixels.shape[:2]) >= min(width, height, least)


KINDS_OF_JPEG: dict[str, dict[str, object]] = {
    "4:4:4": {"subsampling": "4:4:4"},
    "4:2:2": {"subsampling": "4:2:2"},
    "4:2:0": {"subsampling": "4:2:0"},
    "progressive": {"progressive": True},
    "restart markers": {"restart_marker_blocks": 3},
    "rgb": {"keep_rgb": True},
}


@pytest.mark.parametrize("kind", KINDS_OF_JPEG)
@pytest.mark.parametrize("scale", [2, 4, 8])
def test_a_fraction_of_a_jpeg_shows_the_same(kind: str, scale: int) -> None:
    data = encoded(scene(803, 481), "JPEG", quality=95, **KINDS_OF_JPEG[kind])
    whole, draft = open_rgb(data), open_rgb(data, 481 // scale)
    assert (whole.scale, draft.scale) == (1, scale)
    assert (draft.width, draft.height) == (whole.width, whole.height) == (803, 481)
    size = draft.pixels.shape[1], draft.pixels.shape[0]
    shrunk = np.asarray(Image.fromarray(whole.pixels).resize(size, Image.Resampling.BOX))
    assert np.abs(shrunk.astype(int) - draft.pixels).mean() < 2


@pytest.mark.parametrize("orientation", STORED)
def test_a_fraction_of_a_turned_jpeg_is_upright(orientation: int) -> None:
    turn = STORED[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    upright = scene(803, 481)
    stored = upright if turn is None else upright.transpose(turn)
    draft = open_rgb(encoded(stored, "JPEG", exif=exif, quality=98), 100)
    assert draft.exif_rotated == (orientation != 1)
    assert (draft.scale, draft.width, draft.height) == (4, 803, 481)
    expected = np.asarray(upright.resize((201, 121), Image.Resampling.BOX))
    assert np.abs(expected.astype(int) - draft.pixels).max() <= 12


@pytest.mark.parametrize("form", LOSSLESS)
def test_any_other_format_is_decoded_wholly(form: str) -> None:
    data = encoded(scene(), form, **LOSSLESS[form])
    decoded = open_rgb(data, 8)
    assert (decoded.scale, decoded.width, decoded.height) == (1, 40, 24)
    np.testing.assert_array_equal(decoded.pixels, open_rgb(data).pixels)


def test_a_cmyk_jpeg_is_decoded_at_a_fraction_too() -> None:
    data = encoded(scene(800, 480).convert("CMYK"), "JPEG", quality=95)
    draft = open_rgb(data, 200)
    assert (draft.scale, draft.mode, draft.pixels.shape) == (2, "CMYK", (240, 400, 3))
    expected = np.asarray(Image.fromarray(open_rgb(data).pixels).resize((400, 240), Image.Resampling.BOX))
    assert np.abs(expected.astype(int) - draft.pixels).mean() < 2


def test_the_first_frame_of_several_is_decoded_at_a_fraction() -> None:
    frames = scene(800, 480), scene(800, 480).transpose(Image.Transpose.ROTATE_180)
    data = encoded(frames[0], "MPO", save_all=True, append_images=[frames[1]], quality=95)
    draft = open_rgb(data, 200)
    assert (draft.format, draft.frames, draft.scale) == ("JPEG", 2, 2)
    assert np.abs(np.asarray(scene(400, 240)).astype(int) - draft.pixels).mean() < 3


@pytest.mark.parametrize("progressive", [False, True])
def test_a_cut_jpeg_is_refused_at_every_fraction(progressive: bool) -> None:
    data = encoded(scene(800, 480), "JPEG", progressive=progressive)
    for side in (0, 240, 120, 60):
        with pytest.raises(ImageReadError) as caught:
            open_rgb(data[: len(data) // 2], side)
        assert caught.value.kind == "truncated"


def test_what_is_no_image_is_refused_at_a_fraction_as_well() -> None:
    with pytest.raises(ImageReadError) as caught:
        open_rgb(b"<html>404", 100)
    assert caught.value.kind == "not_an_image"


def test_an_opened_file_is_decoded_like_its_path_and_left_as_it_was(tmp_path: Path) -> None:
    file = tmp_path / "large.jpg"
    file.write_bytes(encoded(scene(800, 480), "JPEG"))
    expected = open_rgb(file, 100).pixels
    with Image.open(file) as image:
        for _ in range(2):
            np.testing.assert_array_equal(open_rgb(image, 100).pixels, expected)
        assert image.size == (800, 480)
        np.testing.assert_array_equal(np.asarray(image), open_rgb(file).pixels)
        assert open_rgb(image, 100).scale == 1, "pixels that are in memory are taken as they are"


def test_one_opened_file_may_be_asked_for_in_several_threads() -> None:
    data = encoded(scene(800, 480), "JPEG")
    expected = open_rgb(data, 100).pixels
    with Image.open(io.BytesIO(data)) as image, ThreadPoolExecutor(4) as pool:
        for decoded in pool.map(lambda _: open_rgb(image, 100), range(40)):
            np.testing.assert_array_equal(decoded.pixels, expected)


def test_an_image_that_its_owner_drafted_or_wound_on_is_taken_as_it_is(tmp_path: Path) -> None:
    with Image.open(io.BytesIO(encoded(scene(800, 480), "JPEG"))) as image:
        image.draft("RGB", (400, 240))
        assert open_rgb(image, 100).pixels.shape == (240, 400, 3)
    second = scene(800, 480).transpose(Image.Transpose.ROTATE_180)
    data = encoded(scene(800, 480), "MPO", save_all=True, append_images=[second], quality=95)
    with Image.open(io.BytesIO(data)) as image:
        image.seek(1)
        assert np.abs(open_rgb(image, 100).pixels.astype(int) - np.asarray(second)).mean() < 3


@pytest.mark.parametrize(("form", "options"), FORMS)
def test_dimensions_are_those_of_the_image_and_need_its_header_alone(form: str, options: dict[str, object]) -> None:
    data = encoded(scene(40, 24), form, **options)
    assert dimensions(data) == (40, 24)


def test_dimensions_refuse_what_has_none_or_too_many() -> None:
    for data, kind in ((b"", "empty"), (b"hello", "not_an_image"), (bomb(9000, 9000), "too_large")):
        with pytest.raises(ImageReadError) as caught:
            dimensions(data)
        assert caught.value.kind == kind


# --- large images ---------------------------------------------------------------------------------------------------


def exif_orientation(value: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = value
    return exif


def photograph(width: int, height: int) -> bytes:
    return encoded(scene(width, height), "JPEG", quality=95)


@pytest.fixture
def small_limit(monkeypatch: pytest.MonkeyPatch) -> int:
    """A limit of 10,000 pixels, which files of a test are soon above."""
    monkeypatch.setattr(decode, "MAX_PIXELS", 10_000)
    monkeypatch.setattr(decode, "MAX_READ_PIXELS", 40_000)
    return 10_000


@given(SIDES, SIDES, SIDES | st.just(0))
def test_a_jpeg_over_the_limit_is_divided_until_it_fits(width: int, height: int, least: int) -> None:
    scale = jpeg_scale(width, height, least)
    assert jpeg_scales(np.array([width]), np.array([height]), least).tolist() == [scale]
    left = -(-width // scale) * -(-height // scale)
    before = -(-width * 2 // scale) * -(-height * 2 // scale)
    assert left <= MAX_PIXELS or scale == 8
    assert scale == draft_scale(width, height, least) or before > MAX_PIXELS, "and not further"


@pytest.mark.parametrize(("size", "side", "scale"), [((120, 80), 0, 1), ((160, 100), 0, 2), ((160, 100), 12, 8)])
def test_a_jpeg_over_the_limit_is_decoded_at_a_fraction(
    small_limit: int, size: tuple[int, int], side: int, scale: int
) -> None:
    data = photograph(*size)
    decoded = open_rgb(data, side)
    assert (decoded.width, decoded.height, decoded.scale) == (*size, scale)
    assert decoded.pixels.shape == (-(-size[1] // scale), -(-size[0] // scale), 3)
    shrunk = np.asarray(scene(*size).resize(decoded.pixels.shape[1::-1], Image.Resampling.BOX))
    assert np.abs(shrunk.astype(int) - decoded.pixels).mean() < 3
    assert np.prod(dimensions(data)) <= small_limit, "what a server may take is what it would decode"
    with Image.open(io.BytesIO(data)) as image:
        np.testing.assert_array_equal(open_rgb(image, side).pixels, decoded.pixels)


@pytest.mark.parametrize(
    ("form", "size", "options", "said"),
    [
        ("PNG", (160, 100), {}, "160 x 100 pixels"),
        ("JPEG", (300, 200), {}, "300 x 200 pixels"),  # over what is read of one
        ("JPEG", (160, 100), {"progressive": True}, "in several scans"),
    ],
)
def test_what_no_fraction_helps_is_refused(
    small_limit: int, form: str, size: tuple[int, int], options: dict[str, object], said: str
) -> None:
    data = encoded(scene(*size), form, **options)
    for look in (open_rgb, dimensions):
        with pytest.raises(ImageReadError, match=said) as caught:
            look(data)
        assert caught.value.kind == "too_large"


def test_a_sequential_jpeg_in_several_scans_is_refused_too(small_limit: int) -> None:
    data = photograph(160, 100)
    at = data.index(b"\xff\xda")
    alone = data[: at + 2] + b"\x00\x08\x01\x01\x00\x00\x3f\x00" + data[at + 14 :]  # its first scan: one component
    with pytest.raises(ImageReadError, match="in several scans"):
        open_rgb(alone)


def test_a_photograph_that_pillow_alone_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    data = photograph(400, 240)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 40_000)  # it warns above, and refuses twice as many
    with pytest.raises(Image.DecompressionBombError):
        Image.open(io.BytesIO(data))
    assert open_rgb(data).pixels.shape == (240, 400, 3)
    assert Image.MAX_IMAGE_PIXELS == 40_000, "whoever else uses Pillow in this process keeps the limit"
    assert kind_of(encoded(scene(400, 240), "PNG")) == "too_large"
    assert kind_of(data[: len(data) // 2]) == "truncated"


BANDED = {
    **RAMPS,
    **{mode: encoded(image, form) for mode, (image, form, _) in MODES.items()},
    **{mode: hidden(mode) for mode in ("RGBA", "LA", "P", "RGB+key")},
    "NaN in one band": encoded(Image.fromarray(np.where(np.eye(64) > 0, np.nan, 7.0).astype(np.float32)), "TIFF"),
    "turned": encoded(scene(), "PNG", exif=exif_orientation(6)),
}


@pytest.mark.parametrize("name", BANDED)
def test_pixels_are_the_same_band_by_band(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = open_rgb(BANDED[name]).pixels
    monkeypatch.setattr(decode, "_BAND_PIXELS", 50)
    np.testing.assert_array_equal(open_rgb(BANDED[name]).pixels, expected)


@pytest.mark.parametrize("mode", ["F", "I"])
def test_a_deep_image_takes_little_memory_beside_its_pixels(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    side = 1_500
    monkeypatch.setattr(decode, "_BAND_PIXELS", 100_000)
    data = encoded(Image.new(mode, (side, side), -7), "TIFF", compression="tiff_adobe_deflate")
    tracemalloc.start()
    try:
        assert open_rgb(data).pixels.shape == (side, side, 3)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 6 * side**2, "bytes of arrays; 24 and more where all is converted at once"


def test_room_for_pixels_is_shared_and_who_needs_all_of_it_is_alone() -> None:
    room, most, now, lock = PixelRoom(100), [0], [0], threading.Lock()

    def take(pixels: int) -> None:
        with room.held(pixels):
            with lock:
                now[0] += pixels
                most[0] = max(most[0], now[0])
                assert now[0] <= 100 or now[0] == pixels
            time.sleep(0.001)
            with lock:
                now[0] -= pixels

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(take, [30, 60, 150, 30, 30, 100, 20, 60, 150, 40] * 3))
    assert most[0] == 150
    assert now[0] == 0


def chained_gif(frames: int) -> bytes:
    """A GIF of so many frames of one pixel behind the first."""
    frame = b",\0\0\0\0\1\0\1\0\0" + b"\2" + b"\2D\1" + b"\0"
    return encoded(Image.new("P", (8, 8)), "GIF")[:-1] + frame * (frames - 1) + b";"


def chained_tiff(pages: int) -> bytes:
    """A TIFF of so many pages without an entry behind the first."""
    body = bytearray(encoded(Image.new("L", (4, 4)), "TIFF"))
    first = struct.unpack_from("<I", body, 4)[0]
    struct.pack_into("<I", body, first + 2 + 12 * struct.unpack_from("<H", body, first)[0], len(body))
    places = range(len(body) + 6, len(body) + 6 * pages, 6)
    return bytes(body) + b"".join(struct.pack("<HI", 0, place) for place in places)


@pytest.mark.parametrize("made", [chained_gif, chained_tiff])
def test_millions_of_frames_are_not_walked_through(made: Callable[[int], bytes]) -> None:
    assert open_rgb(made(40)).frames == 40
    data = made(1_000_000)
    spent = time.process_time()
    assert open_rgb(data).frames == MOST_FRAMES
    assert time.process_time() - spent < 2  # with Pillow's own count 10 and more


@pytest.mark.parametrize("tail", [b"!\xfe" + b"\1a" * 500_000, b",", b",\0\0", b"!", b"q" * 1000, b""])
def test_what_is_damaged_behind_the_first_frame_costs_nothing(tail: bytes) -> None:
    whole = encoded(Image.new("P", (8, 8)), "GIF")[:-1]
    assert open_rgb(whole + tail).frames == 1
