"""Small sound images of every format and mode that is read: what mutated images begin with."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

WIDTH, HEIGHT = 72, 56
#: File name ending by Pillow's format.
_ENDINGS = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp", "GIF": "gif", "BMP": "bmp", "TIFF": "tif", "PPM": "ppm"}


@dataclass(frozen=True)
class Seed:
    """One sound image.

    Attributes:
        name: what it is, in a few words.
        ending: of its file, without the dot.
        data: the file.
    """

    name: str
    ending: str
    data: bytes


def scene(shift: int = 0) -> Image.Image:
    """(56, 72) RGB: gradients with a disc, moved by `shift` pixels."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    disc = (x - 30 - shift) ** 2 + (y - 25) ** 2 < 300
    channels = [x * 255 // WIDTH, np.where(disc, 220, y * 255 // HEIGHT), (x * y) % 256]
    return Image.fromarray(np.stack(channels, axis=2).astype(np.uint8))


def _exif(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x010F] = "maker"
    exif.get_ifd(0x8769).update({0x9003: "2023:04:01 12:34:56", 0x9291: "25"})
    return exif


def _deep(kind: type[np.generic], scale: float) -> Image.Image:
    ramp = np.tile(np.linspace(0.0, 1.0, WIDTH), (HEIGHT, 1)) * scale
    return Image.fromarray(ramp.astype(kind))


def _alpha() -> Image.Image:
    image = scene().convert("RGBA")
    image.putalpha(scene().convert("L"))
    return image


#: Pictures by name, made when they are asked for.
_PICTURES: Mapping[str, Callable[[], Image.Image]] = {
    "rgb": scene,
    "grey": lambda: scene().convert("L"),
    "grey and alpha": lambda: _alpha().convert("LA"),
    "rgba": _alpha,
    "palette": lambda: scene().quantize(32),
    "black and white": lambda: scene().convert("1"),
    "cmyk": lambda: scene().convert("CMYK"),
    "ycbcr": lambda: scene().convert("YCbCr"),
    "16 bits": lambda: _deep(np.uint16, 65535),
    "32 bits": lambda: _deep(np.int32, 2**30),
    "floats": lambda: _deep(np.float32, 1000.0),
}
#: For files with several pictures.
_MORE = {"save_all": True}

#: Format, picture and what it is saved with.
_SAVED: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("JPEG", "rgb", {"quality": 90}),
    ("JPEG", "rgb", {"progressive": True}),
    ("JPEG", "rgb", {"subsampling": 0, "restart_marker_blocks": 3}),
    ("JPEG", "grey", {}),
    ("JPEG", "cmyk", {}),
    ("JPEG", "cmyk", {"progressive": True}),
    ("JPEG", "rgb", {"exif": _exif(6)}),
    ("JPEG", "rgb", {"icc_profile": b"profile" * 20, "comment": b"a comment"}),
    ("MPO", "rgb", _MORE),
    ("PNG", "rgb", {}),
    ("PNG", "rgba", {"optimize": True}),
    ("PNG", "grey", {}),
    ("PNG", "grey and alpha", {}),
    ("PNG", "palette", {"transparency": 3}),
    ("PNG", "black and white", {}),
    ("PNG", "16 bits", {}),
    ("PNG", "rgb", {"exif": _exif(3), "dpi": (72, 72)}),
    ("PNG", "rgb", {**_MORE, "duration": 40}),
    ("WEBP", "rgb", {"quality": 80}),
    ("WEBP", "rgba", {"lossless": True}),
    ("WEBP", "rgba", {**_MORE, "duration": 40}),
    ("WEBP", "rgb", {"exif": _exif(8)}),
    ("GIF", "palette", {}),
    ("GIF", "palette", {"transparency": 3, "interlace": 1}),
    ("GIF", "rgb", {**_MORE, "duration": 40}),
    ("BMP", "rgb", {}),
    ("BMP", "rgba", {}),
    ("BMP", "palette", {}),
    ("BMP", "black and white", {}),
    ("TIFF", "rgb", {}),
    ("TIFF", "rgb", {"compression": "tiff_lzw"}),
    ("TIFF", "rgb", {"compression": "tiff_adobe_deflate"}),
    ("TIFF", "rgb", {"compression": "packbits"}),
    ("TIFF", "ycbcr", {"compression": "jpeg"}),
    ("TIFF", "black and white", {"compression": "group4"}),
    ("TIFF", "rgb", _MORE),
    ("TIFF", "rgb", {"exif": _exif(5)}),
    ("TIFF", "16 bits", {}),
    ("TIFF", "32 bits", {"compression": "tiff_adobe_deflate"}),
    ("TIFF", "floats", {}),
    ("TIFF", "cmyk", {}),
    ("TIFF", "rgb", {"big_tiff": True}),
    ("PPM", "rgb", {}),
    ("PPM", "grey", {}),
    ("PPM", "black and white", {}),
)


def _interlaced_png() -> bytes:
    """8 x 8 grey pixels in the seven passes of Adam7, which Pillow reads and does not write."""
    import struct
    import zlib

    passes = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
    grey = np.arange(64, dtype=np.uint8).reshape(8, 8) * 3
    lines = b"".join(b"\0" + line.tobytes() for x, y, dx, dy in passes for line in grey[y::dy, x::dx])
    parts = (
        (b"IHDR", struct.pack(">IIBBBBB", 8, 8, 8, 0, 0, 0, 1)),
        (b"IDAT", zlib.compress(lines)),
        (b"IEND", b""),
    )
    chunks = (struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in parts)
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def _by_hand() -> tuple[Seed, ...]:
    rows = scene().tobytes()
    text = " ".join(map(str, scene().convert("L").resize((9, 7)).tobytes()))
    deep = (np.arange(HEIGHT * WIDTH) * 16).astype(">u2").tobytes()
    return (
        Seed("PNG interlaced", "png", _interlaced_png()),
        Seed("PPM 16 bits", "pgm", b"P5 %d %d 65535\n" % (WIDTH, HEIGHT) + deep),
        Seed("PPM text", "pgm", f"P2 # as text\n9 7 255\n{text}\n".encode("ascii")),
        Seed("PPM with comment", "ppm", b"P6 # c\n%d %d 255\n" % (WIDTH, HEIGHT) + rows),
    )


def seeds() -> tuple[Seed, ...]:
    """All of them, each another format or mode; the same bytes each time."""
    made = []
    for form, picture, options in _SAVED:
        stream = io.BytesIO()
        # Made anew: saving leaves marks on what was saved.
        more = {"append_images": [scene(4), scene(9)]} if "save_all" in options else {}
        _PICTURES[picture]().save(stream, form, **options, **more)
        said = ", ".join(sorted(options))
        made.append(Seed(f"{form} {picture} {said}".strip(), _ENDINGS.get(form, "jpg"), stream.getvalue()))
    return (*made, *_by_hand())
