"""The size of a WebP image is what Pillow says, and one that is too large is not opened to find that out."""

from __future__ import annotations

import io
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from automl_vision.data.decode import open_rgb
from automl_vision.data.webp_header import webp_size
from automl_vision.errors import ImageReadError

#: Kind of the first chunk -> how Pillow is made to write it.
KINDS: dict[str, dict[str, Any]] = {
    "VP8 ": {"quality": 50},
    "VP8L": {"lossless": True},
    "VP8X": {"quality": 50, "exif": b"Exif\0\0II*\0\x08\0\0\0\0\0\0\0\0\0"},
}


def webp(size: tuple[int, int], kind: str) -> bytes:
    file = io.BytesIO()
    Image.linear_gradient("L").resize(size).convert("RGB").save(file, "WEBP", **KINDS[kind])
    assert file.getvalue()[12:16] == kind.encode()
    return file.getvalue()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [(1, 1), (3, 500), (500, 3), (257, 256), (16383, 1), (1, 16383)])
def test_the_size_is_what_was_written(size: tuple[int, int], kind: str) -> None:
    assert webp_size(webp(size, kind)) == size


def test_of_an_animation_it_is_that_of_the_canvas() -> None:
    file = io.BytesIO()
    frames = [Image.new("RGBA", (40, 30), colour) for colour in ("red", "blue")]
    frames[0].save(file, "WEBP", save_all=True, append_images=frames[1:], duration=100)
    assert webp_size(file.getvalue()) == (40, 30)


@given(st.binary(max_size=40), st.sampled_from(sorted(KINDS)))
def test_whatever_the_bytes_are_it_is_a_size_or_none(noise: bytes, kind: str) -> None:
    assert webp_size(noise) is None
    size = webp_size(b"RIFF\0\0\0\0WEBP" + kind.encode() + noise)
    assert size is None or all(0 <= each <= 2**24 for each in size)


def _with_size(data: bytes, kind: str, side: int) -> bytes:
    """The same file, whose header says that it is a square of that side."""
    at, number = {
        "VP8 ": (26, struct.pack("<HH", side, side)),
        "VP8L": (21, struct.pack("<I", (side - 1) | (side - 1) << 14)),
        "VP8X": (24, 2 * (side - 1).to_bytes(3, "little")),
    }[kind]
    return data[:at] + number + data[at + len(number) :]


@pytest.mark.parametrize("kind", KINDS)
def test_one_that_is_too_large_is_refused_before_the_decoder_has_it(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = _with_size(webp((20, 20), kind), kind, 9000)
    assert webp_size(data) == (9000, 9000)
    monkeypatch.setattr(Image, "open", None)  # it sets twice 324 MB aside
    with pytest.raises(ImageReadError) as told:
        open_rgb(data)
    assert (told.value.kind, told.value.detail) == ("too_large", "9000 x 9000 pixels, over 64 million")
