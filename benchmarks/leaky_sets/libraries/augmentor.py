"""Augmentor, which works on files: here its operations are applied to pictures in memory."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np

from leaky_sets.pipeline import Change, Kind, Picture, Pipeline, Rng, seed_from

LIBRARY = "Augmentor"
MODULE = "Augmentor"
#: (an empty pipeline of the library, the picture): adds operations.
Build = Callable[[Any, Picture], object]

_SINGLE: dict[str, Build] = {
    "rotate": lambda p, _: p.rotate(1, 25, 25),
    "rotate_random_90": lambda p, _: p.rotate_random_90(1),
    "random_distortion": lambda p, image: p.random_distortion(1, 4, 4, max(2, max(image.size) // 40)),
    "skew": lambda p, _: p.skew(1, 0.5),
    "shear": lambda p, _: p.shear(1, 15, 15),
    "crop_random": lambda p, _: p.crop_random(1, 0.7),
    "zoom_random": lambda p, _: p.zoom_random(1, 0.6),
    "random_erasing": lambda p, _: p.random_erasing(1, 0.3),
    "random_brightness": lambda p, _: p.random_brightness(1, 0.5, 1.5),
    "random_color": lambda p, _: p.random_color(1, 0.0, 2.0),
    "histogram_equalisation": lambda p, _: p.histogram_equalisation(1),
}


def _read_me(p: Any, _: Picture) -> None:
    """The first example of its page."""
    p.rotate(0.7, 10, 10)
    p.zoom(0.5, 1.1, 1.5)


def _flip_and_crop(p: Any, image: Picture) -> None:
    """The second: flips, turns by right angles, half the area."""
    p.rotate90(0.5)
    p.rotate270(0.5)
    p.flip_left_right(0.8)
    p.flip_top_bottom(0.3)
    p.crop_random(1, 0.5)
    p.resize(1, image.width, image.height)


def _distort(p: Any, image: Picture) -> None:
    """Its documentation on elastic distortions, with the flip and the zoom that notebooks add."""
    p.flip_left_right(0.5)
    p.random_distortion(1, 4, 4, max(2, max(image.size) // 40))
    p.zoom_random(0.5, 0.8)


_CHAIN: dict[str, Build] = {"read_me": _read_me, "flip_and_crop": _flip_and_crop, "distort": _distort}


def _change(build: Build) -> Change:
    def change(picture: Picture, rng: Rng) -> Picture:
        import Augmentor

        pipeline = Augmentor.Pipeline()
        build(pipeline, picture)
        seed = seed_from(rng)
        before = random.getstate(), np.random.get_state()
        random.seed(seed)
        np.random.seed(seed)
        changed: Picture = pipeline.torch_transform()(picture.copy())
        random.setstate(before[0])
        np.random.set_state(before[1])
        return changed.convert("RGB")

    return change


def _rows(kind: Kind, table: dict[str, Build]) -> list[Pipeline]:
    return [Pipeline(operation, LIBRARY, kind, _change(build)) for operation, build in table.items()]


PIPELINES = (*_rows("single", _SINGLE), *_rows("chain", _CHAIN))
