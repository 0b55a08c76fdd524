"""Keras 3 on torch: its layers, and the ImageDataGenerator of a thousand notebooks."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

from leaky_sets.pipeline import Change, Kind, Picture, Pipeline, Rng, seed_from

LIBRARY = "keras"
MODULE = "keras"
#: (the module `layers`, a seed) -> layers in turn.
BuildLayers = Callable[[Any, int], list[Any]]

#: Settings of an ImageDataGenerator.
_GENERATOR_SINGLE: dict[str, dict[str, Any]] = {
    "generator_rotation": {"rotation_range": 40},
    "generator_rotation_black": {"rotation_range": 40, "fill_mode": "constant"},
    "generator_shift": {"width_shift_range": 0.2, "height_shift_range": 0.2},
    "generator_shift_wrap": {"width_shift_range": 0.2, "height_shift_range": 0.2, "fill_mode": "wrap"},
    "generator_shear": {"shear_range": 20},
    "generator_zoom": {"zoom_range": 0.3, "fill_mode": "reflect"},
    "generator_channel_shift": {"channel_shift_range": 60.0},
    "generator_brightness": {"brightness_range": (0.5, 1.5)},
}
_GENERATOR_CHAIN: dict[str, dict[str, Any]] = {
    # "Building powerful image classification models using very little data"
    "little_data": {
        "rotation_range": 40,
        "width_shift_range": 0.2,
        "height_shift_range": 0.2,
        "shear_range": 0.2,
        "zoom_range": 0.2,
        "horizontal_flip": True,
        "fill_mode": "nearest",
    },
    "generator_mild": {
        "rotation_range": 15,
        "width_shift_range": 0.1,
        "height_shift_range": 0.1,
        "zoom_range": 0.1,
        "brightness_range": (0.8, 1.2),
        "horizontal_flip": True,
    },
}

_LAYERS_SINGLE: dict[str, BuildLayers] = {
    "translation": lambda layers, seed: [layers.RandomTranslation(0.2, 0.2, seed=seed)],
    "zoom_out": lambda layers, seed: [layers.RandomZoom((0.2, 0.4), fill_mode="constant", seed=seed)],
    "contrast": lambda layers, seed: [layers.RandomContrast(0.5, value_range=(0, 255), seed=seed)],
    "hue": lambda layers, seed: [layers.RandomHue(0.5, seed=seed)],
}
_LAYERS_CHAIN: dict[str, BuildLayers] = {
    # "Image classification from scratch"
    "from_scratch": lambda layers, seed: [
        layers.RandomFlip("horizontal", seed=seed),
        layers.RandomRotation(0.1, seed=seed + 1),
    ],
    # "Data augmentation", and the tutorial with the flowers
    "flowers": lambda layers, seed: [
        layers.RandomFlip("horizontal", seed=seed),
        layers.RandomRotation(0.1, seed=seed + 1),
        layers.RandomZoom(0.1, seed=seed + 2),
    ],
    "flip_any_rotation": lambda layers, seed: [
        layers.RandomFlip("horizontal_and_vertical", seed=seed),
        layers.RandomRotation(0.2, seed=seed + 1),
    ],
}


def _with_layers(build: BuildLayers) -> Change:
    def change(picture: Picture, rng: Rng) -> Picture:
        os.environ.setdefault("KERAS_BACKEND", "torch")
        import keras

        values = np.array(picture, dtype=np.float32)[None]
        for layer in build(keras.layers, seed_from(rng)):
            values = layer(values, training=True)
        return _picture(keras.ops.convert_to_numpy(values)[0])

    return change


def _with_generator(settings: dict[str, Any]) -> Change:
    def change(picture: Picture, rng: Rng) -> Picture:
        os.environ.setdefault("KERAS_BACKEND", "torch")
        # Keras offers it under tensorflow.keras only; this is where it lives.
        from keras.src.legacy.preprocessing.image import ImageDataGenerator

        before = np.random.get_state()
        values = ImageDataGenerator(**settings).random_transform(np.array(picture, dtype=np.float32), seed_from(rng))
        np.random.set_state(before)
        return _picture(values)

    return change


def _picture(values: Any) -> Picture:
    return Image.fromarray(np.clip(np.rint(values), 0, 255).astype(np.uint8)).convert("RGB")


def _rows(kind: Kind, settings: dict[str, dict[str, Any]], layers: dict[str, BuildLayers]) -> list[Pipeline]:
    changes = {name: _with_generator(each) for name, each in settings.items()}
    changes |= {name: _with_layers(each) for name, each in layers.items()}
    return [Pipeline(operation, LIBRARY, kind, change) for operation, change in changes.items()]


PIPELINES = (
    *_rows("single", _GENERATOR_SINGLE, _LAYERS_SINGLE),
    *_rows("chain", _GENERATOR_CHAIN, _LAYERS_CHAIN),
)
