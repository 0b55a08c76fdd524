"""One preprocessing for every place that meets an image."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
import torch
from PIL import Image

from automl_vision.data.preprocess import (
    LEAST_DECODE_SIDE,
    THUMBNAIL_BYTES,
    TINY_SIDE,
    Preprocessing,
    decode_side_of,
    normalize,
    square,
    thumbnail,
)

GOOD = {
    "size": 96,
    "mean": [0.5, 0.5, 0.5],
    "std": [0.5, 0.25, 1],
    "resize": "squash",
    "interpolation": "bilinear",
    "decode_side": 384,
}


def test_a_dict_comes_back_as_it_went_through_json() -> None:
    spec = Preprocessing.from_dict(GOOD)
    assert Preprocessing.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec
    assert hash(spec) == hash(Preprocessing(96, (0.5, 0.5, 0.5), (0.5, 0.25, 1.0), decode_side=384))


def test_what_was_written_without_a_side_was_decoded_wholly() -> None:
    old = {key: value for key, value in GOOD.items() if key != "decode_side"}
    assert Preprocessing.from_dict(old) == Preprocessing.from_dict(GOOD | {"decode_side": 0})
    assert Preprocessing.from_dict(old).decode_side == 0


@pytest.mark.parametrize(("sizes", "expected"), [((8,), 256), ((128, 96), 256), ((160, 192), 384), ((320,), 640)])
def test_no_side_falls_below_twice_the_largest_square(sizes: tuple[int, ...], expected: int) -> None:
    assert decode_side_of(sizes) == expected
    assert expected >= max(LEAST_DECODE_SIDE, 2 * max(sizes))


@pytest.mark.parametrize(
    "change",
    [
        {"size": 0},
        {"size": "96"},
        {"size": True},
        {"size": 10**9},
        {"mean": [0.5, 0.5]},
        {"mean": 0.5},
        {"mean": [float("nan"), 0, 0]},
        {"mean": [10**400, 0, 0]},
        {"std": [0, 1, 1]},
        {"std": ["1", 1, 1]},
        {"std": [True, 1, 1]},
        {"resize": "crop"},
        {"resize": ["squash"]},
        {"interpolation": "nearest"},
        {"interpolation": []},
        {"decode_side": -1},
        {"decode_side": 1},
        {"decode_side": 255},
        {"decode_side": 10**6},
        {"decode_side": 384.0},
        {"decode_side": True},
        {"decode_side": None},
        {"more": 1},
    ],
)
def test_values_of_unknown_origin_are_checked(change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(change))):
        Preprocessing.from_dict(GOOD | change)


def test_nothing_may_be_missing() -> None:
    with pytest.raises(ValueError, match="std"):
        Preprocessing.from_dict({key: value for key, value in GOOD.items() if key != "std"})
    with pytest.raises(ValueError, match="table"):
        Preprocessing.from_dict([1, 2])


@pytest.mark.parametrize(("height", "width"), [(5, 90), (64, 64), (300, 200), (1, 1)])
def test_square_is_pillows_antialiased_bilinear_of_the_whole_image(height: int, width: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    expected = np.asarray(Image.fromarray(pixels).resize((32, 32), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(square(pixels, 32), expected)
    np.testing.assert_array_equal(square(pixels[:, ::-1], 32), square(pixels[:, ::-1].copy(), 32))


def test_a_square_of_its_own_size_is_untouched() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    np.testing.assert_array_equal(square(pixels, 32), pixels)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_normalize_is_the_textbook_formula(layout: torch.memory_format) -> None:
    batch = torch.randint(0, 256, (3, 3, 8, 8), dtype=torch.uint8).contiguous(memory_format=layout)
    before = batch.clone()
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    wide = batch.double() / 255
    expected = (wide - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    result = normalize(batch, mean, std)
    torch.testing.assert_close(result.double(), expected, rtol=0, atol=2e-6)
    assert result.dtype == torch.float32
    assert result.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(batch, before)


def test_normalize_of_no_images_is_no_images() -> None:
    assert normalize(torch.empty(0, 3, 8, 8, dtype=torch.uint8), (0, 0, 0), (1, 1, 1)).shape == (0, 3, 8, 8)


@pytest.mark.parametrize("shape", [(64, 64), (65, 64), (160, 160), (700, 900), (1, 2000), (2000, 1), (1, 1)])
def test_a_thumbnail_keeps_the_aspect_and_is_small_even_of_noise(shape: tuple[int, int]) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    media, data = thumbnail(noise, 160)
    with Image.open(io.BytesIO(data)) as small:
        assert media == f"image/{small.format.lower()}"
        width, height = small.size
    scale = min(1.0, 160 / max(shape))
    assert (width, height) == (max(1, round(shape[1] * scale)), max(1, round(shape[0] * scale)))
    assert len(data) <= (13_000 if media == "image/png" else THUMBNAIL_BYTES)


def test_a_thumbnail_of_a_tiny_image_loses_nothing() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (28, TINY_SIDE, 3), dtype=np.uint8)
    with Image.open(io.BytesIO(thumbnail(pixels, 160)[1])) as small:
        np.testing.assert_array_equal(np.asarray(small), pixels)
