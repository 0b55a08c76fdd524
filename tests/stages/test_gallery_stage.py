"""Stage `report`: pictures of mistakes are made of the tested pixels, after the look, and within the budget."""

from __future__ import annotations

import base64
import io
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import small_bundles
import torch
from memory_source import MemorySource
from PIL import Image

from automl_vision.data.store import SealedRowError
from automl_vision.report.gallery import Gallery, Shot
from automl_vision.report.predictions import Predictions
from automl_vision.runtime import Runtime
from automl_vision.stages.gallery import make_gallery

CPU = Runtime(torch.device("cpu"), None, 1)
N = 9


class Scene:
    """Nine test images whose files and pixels agree, and a model that is wrong about six of them."""

    def __init__(self, folder: Path, remaining: Any = math.inf) -> None:
        coarse = torch.randint(0, 256, (N, 3, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
        pixels = torch.nn.functional.interpolate(coarse, (80, 80))
        self.files = [folder / f"{k}.png" for k in range(N)]
        for file, each in zip(self.files, pixels, strict=True):
            Image.fromarray(each.permute(1, 2, 0).numpy()).save(file)
        self.ledgers: list[Any] = []
        self.prepared: Any = SimpleNamespace(
            split=SimpleNamespace(rows=lambda name: np.arange(N)), open_test=self._open, pixels=pixels
        )
        self.opened: Any = SimpleNamespace(
            store=MemorySource(pixels, (32, 48)), manifest=SimpleNamespace(file=self.files.__getitem__)
        )
        labels = np.arange(N, dtype=np.int64) % 3
        chances = np.full((N, 3), 0.2)
        chances[np.arange(N), np.where(np.arange(N) < 6, (labels + 1) % 3, labels)] = 0.6
        names = tuple(f"{k}.png" for k in range(N))
        self.looked: Any = SimpleNamespace(
            test=Predictions(names, labels, np.arange(N), chances, small_bundles.NAMES), looks=[{"images": N}]
        )
        self.finished: Any = SimpleNamespace(ensemble=small_bundles.several().ensemble(CPU))
        left = iter(remaining) if isinstance(remaining, list) else None
        self.context: Any = SimpleNamespace(clock=_Clock(left, remaining))

    def _open(self, ledger: Any) -> Any:
        self.ledgers.append(ledger)
        if not ledger:
            raise SealedRowError("no look")
        return self.opened

    def gallery(self) -> Gallery:
        return make_gallery(self.context, self.prepared, self.finished, self.looked, reserve=1.0)


class _Clock:
    def __init__(self, left: Any, constant: Any) -> None:
        self._left, self._constant = left, constant

    @property
    def remaining(self) -> float:
        return next(self._left) if self._left else self._constant


def pixels_of(uri: str) -> Any:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))).convert("RGB")).astype(int)


def test_every_mistake_has_its_picture_and_two_heat_maps(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    gallery = scene.gallery()
    assert scene.ledgers == [scene.looked.looks]  # opened for the look in the ledger, and once
    assert (gallery.total, len(gallery.mistakes), gallery.cut_short) == (6, 6, False)
    for each in gallery.mistakes:
        assert [heat.label for heat in each.heats] == [each.predicted, each.label]
        original = np.asarray(Image.open(tmp_path / each.path)).astype(int)
        assert abs(pixels_of(each.picture) - original).mean() < 25  # a JPEG
        for heat in each.heats:
            assert not heat.picture or pixels_of(heat.picture).shape == original.shape
    assert any(heat.picture for each in gallery.mistakes for heat in each.heats)
    assert len(gallery.pairs) == 3
    assert all(pair.example and pair.example.label == pair.predicted for pair in gallery.pairs)
    assert gallery == Scene(tmp_path).gallery()


def test_a_file_that_is_gone_keeps_its_place(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    scene.files[0].unlink()
    gone = next(each for each in scene.gallery().mistakes if each.path == "0.png")
    assert isinstance(gone, Shot)
    assert (gone.picture, gone.heats) == ("", ())


@pytest.mark.parametrize(("remaining", "mistakes", "pairs"), [(0.5, 0, 0), ([9, 9, 9, 0], 2, 0), ([9] * 8 + [0], 6, 1)])
def test_what_the_budget_has_no_time_for_is_left_out_and_said(
    tmp_path: Path, remaining: Any, mistakes: int, pairs: int
) -> None:
    gallery = Scene(tmp_path, remaining).gallery()
    assert (len(gallery.mistakes), len(gallery.pairs), gallery.cut_short) == (mistakes, pairs, True)


def test_where_nothing_was_mistaken_nothing_is_opened(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    test = scene.looked.test
    right = np.eye(3)[test.labels]
    scene.looked.test = Predictions(test.paths, test.labels, test.groups, right, test.class_names)
    assert scene.gallery() == Gallery(0, (), ())
    assert scene.ledgers == []
