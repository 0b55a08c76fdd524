"""The pictures of the report: worst mistakes and confusions, each with its heat maps.

Only images that the look in the ledger was at are opened, after that look, by the same door.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from automl_vision.data.decode import open_rgb
from automl_vision.data.files import Place
from automl_vision.data.heat_overlay import overlay
from automl_vision.data.preparation import Prepared
from automl_vision.data.preprocess import TINY_SIDE, fitted, thumbnail
from automl_vision.errors import ImageReadError
from automl_vision.models.grad_cam import HeatMaps
from automl_vision.models.image_source import ImageSource, resized_batches
from automl_vision.report.gallery import (
    Gallery,
    Heat,
    Pair,
    Shot,
    shot,
    worst_confusions,
    worst_mistakes,
)
from automl_vision.report.predictions import Predictions
from automl_vision.stages.context import RunContext
from automl_vision.stages.finish import Finished
from automl_vision.stages.test import Looked

#: Longer side of a picture in pixels.
SIDE = 160


def make_gallery(
    context: RunContext, prepared: Prepared, finished: Finished, looked: Looked, *, reserve: float
) -> Gallery:
    """Worst mistakes and confusions of the test set, as far as the budget allows.

    Args:
        context: of the run.
        prepared: its data.
        finished: the model.
        looked: what it said of the test set, and the ledger.
        reserve: seconds that the rest of the report needs.
    """
    test = looked.test
    rows = prepared.split.rows("test")
    total = int((test.predicted != test.labels).sum())
    if not total or context.clock.remaining < reserve:
        return Gallery(total, (), (), cut_short=bool(total))
    opened = prepared.open_test(looked.looks)
    files = [opened.manifest.file(int(row)) for row in rows]
    voters = finished.ensemble.voters
    resize = voters[0].preprocessing.resize  # that of all
    studio = Studio(HeatMaps(voters), opened.store, rows, files, test, resize)
    mistakes: list[Shot] = []
    pairs: list[Pair] = []
    for position in worst_mistakes(test):
        if context.clock.remaining < reserve:
            return Gallery(total, tuple(mistakes), (), cut_short=True)
        mistakes.append(studio.shot(position, [int(test.predicted[position]), int(test.labels[position])]))
    for each in worst_confusions(test):
        if context.clock.remaining < reserve:
            return Gallery(total, tuple(mistakes), tuple(pairs), cut_short=True)
        example = None if each.example is None else studio.shot(each.example, [each.predicted])
        names = test.class_names[each.label], test.class_names[each.predicted]
        pairs.append(Pair(*names, each.count, each.share, studio.shot(each.mistaken, [each.predicted]), example))
    return Gallery(total, tuple(mistakes), tuple(pairs))


class Studio:
    """Makes pictures of test images.

    Args:
        heat_maps: of the model.
        store: shows the test images.
        rows: (N_test) rows of the store.
        files: their files.
        test: what the model said of them.
        resize: how images became squares.
    """

    def __init__(
        self,
        heat_maps: HeatMaps,
        store: ImageSource,
        rows: NDArray[np.int64],
        files: Sequence[Place],
        test: Predictions,
        resize: str,
    ) -> None:
        self._heat_maps, self._store = heat_maps, store
        self._rows, self._files, self._test = rows, files, test
        self._resize = resize

    def shot(self, position: int, classes: Sequence[int]) -> Shot:
        """One image with heat maps about some classes; without pictures where its file is gone."""
        plain = shot(self._test, position)
        try:
            image = open_rgb(self._files[position], SIDE)
        except ImageReadError:
            return plain  # the page says that there is no picture
        pixels = fitted(image.pixels, SIDE)
        maps = self._heat_maps(lambda side: self._squares(position, side, len(classes)), np.array(classes))
        names = [self._test.class_names[each] for each in classes]
        heats = [
            Heat(name, _uri(overlay(pixels, heat, self._resize)) if heat.any() else "")
            for name, heat in zip(names, maps, strict=True)
        ]
        tiny = max(image.width, image.height) <= TINY_SIDE
        return replace(plain, picture=_uri(pixels), tiny=tiny, heats=tuple(heats))

    def _squares(self, position: int, side: int, count: int) -> torch.Tensor:
        """(count, 3, side, side) the pixels that were tested, as often as there are classes."""
        row = torch.from_numpy(self._rows[position : position + 1])
        (pixels,) = resized_batches(self._store, row, side, 1)
        return pixels.expand(count, -1, -1, -1)


def _uri(pixels: NDArray[np.uint8]) -> str:
    media, data = thumbnail(pixels, SIDE)
    return f"data:{media};base64,{base64.b64encode(data).decode('ascii')}"
