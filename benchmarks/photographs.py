"""JPEGs that cost a decoder what photographs cost it: generated, so that nothing has to be downloaded.

    python benchmarks/photographs.py OUT --count 64 --width 2048 --height 1536

A picture is noise with the spectrum of natural scenes (amplitude falls with frequency), with a few shapes that have
edges; its JPEG quality is chosen for about `BITS_PER_PIXEL`, as cameras write them.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

BITS_PER_PIXEL = 4.0
#: Amplitude goes with frequency to this power (Field 1987: about -1 for natural scenes).
_SLOPE = -1.1
_QUALITIES = range(98, 40, -4)
#: How much the colours of a pixel have in common.
_SHARED = 0.8


def photograph(width: int, height: int, rng: np.random.Generator) -> Image.Image:
    """One picture.

    Args:
        width, height: in pixels.
        rng: decides what it shows.
    """
    shared = noise(width, height, rng)
    channels = [_SHARED * shared + (1 - _SHARED) * noise(width, height, rng) for _ in range(3)]
    pixels = np.stack([np.clip(128 + 55 * channel, 0, 255) for channel in channels], axis=-1)
    image = Image.fromarray(pixels.astype(np.uint8))
    canvas = ImageDraw.Draw(image)
    for _ in range(6):
        (left, right), (top, bottom) = np.sort(rng.integers(width, size=2)), np.sort(rng.integers(height, size=2))
        canvas.ellipse((int(left), int(top), int(right), int(bottom)), outline=_colour(rng), width=3)
    return image


def jpeg(image: Image.Image) -> bytes:
    """The largest JPEG of at most `BITS_PER_PIXEL`, with the chroma at half size as cameras write it."""
    most = BITS_PER_PIXEL * image.width * image.height / 8
    for quality in _QUALITIES:
        stream = io.BytesIO()
        image.save(stream, "JPEG", quality=quality, subsampling="4:2:0")
        if stream.tell() <= most:
            break
    return stream.getvalue()


def write_photographs(out: Path, count: int, width: int, height: int, classes: int = 10, seed: int = 0) -> Path:
    """`out/class_k/name.jpg`, evenly over the classes; a folder that is there is taken to be complete.

    Args:
        out: folder to make.
        count: pictures in all.
        width, height: in pixels.
        classes: folders.
        seed: of everything random.
    """
    if out.exists():
        return out
    unfinished = out.with_name(out.name + ".unfinished")
    rng = np.random.default_rng(seed)
    for number in range(count):
        folder = unfinished / f"class_{number % classes}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number:05d}.jpg").write_bytes(jpeg(photograph(width, height, rng)))
    unfinished.replace(out)
    return out


def noise(width: int, height: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """(height, width) with mean 0, standard deviation 1 and a falling spectrum."""
    spectrum = np.fft.rfft2(rng.standard_normal((height, width)))
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    frequency[0, 0] = np.inf  # no mean
    field = np.fft.irfft2(spectrum * frequency**_SLOPE, s=(height, width))
    return np.asarray(field / field.std())


def _colour(rng: np.random.Generator) -> tuple[int, int, int]:
    red, green, blue = rng.integers(256, size=3).tolist()
    return red, green, blue


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--count", type=int, default=256)
    parser.add_argument("--width", type=int, default=500)
    parser.add_argument("--height", type=int, default=375)
    options = parser.parse_args(arguments)
    print(write_photographs(options.out, options.count, options.width, options.height))


if __name__ == "__main__":
    main()
