"""Predictions with a model file: paths, pictures in memory, or a table; in batches; broken images keep their place."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from automl_vision.bundle import Bundle, load_bundle
from automl_vision.data.decode import open_rgb
from automl_vision.data.fingerprint import Mark, mark
from automl_vision.data.preprocess import square
from automl_vision.errors import DataError, ImageReadError, UsageError
from automl_vision.runtime import Runtime, make_runtime

IMAGE_COLUMN = "image"
BATCHES_AHEAD = 2  # decoded while the network is busy; bounds the memory whatever the number of images


@dataclass(frozen=True)
class Prediction:
    """What the model says of one image.

    Attributes:
        path: as given; "" for a picture in memory.
        status: "ok" or "error".
        label: the most probable class, None on error.
        probability: of that class, after calibration; None on error.
        probabilities: (C) in the order of the model's classes; None on error.
        error: what is wrong with the image.
        mark: what it is looked up by in a model's fingerprint, where that was asked for; else None.
    """

    path: str
    status: str
    label: str | None = None
    probability: float | None = None
    probabilities: NDArray[np.float64] | None = None
    error: str = ""
    mark: Mark | None = None


@dataclass(frozen=True)
class _Opened:
    """An image that could be read: side S -> (S, S, 3) uint8, and its mark where that was asked for."""

    squares: dict[int, NDArray[np.uint8]]
    mark: Mark | None


class Model:
    """A loaded model file.

    Args:
        bundle: what the file holds.
        runtime: where to run; None picks the best device of this machine.
    """

    def __init__(self, bundle: Bundle, runtime: Runtime | None = None) -> None:
        self.bundle = bundle
        self._runtime = runtime or make_runtime()
        self._ensemble = bundle.ensemble(self._runtime)
        self._sides = sorted({network.preprocessing.size for network in bundle.networks})
        self._decode_side = bundle.preprocessing.decode_side  # the same for all of its networks

    @property
    def class_names(self) -> tuple[str, ...]:
        """(C) class names in the order of the probabilities."""
        return self.bundle.class_names

    def predict(self, images: Any, *, batch_size: int = 64) -> list[str]:
        """The most probable class of each image.

        Args:
            images: a path, a PIL image, a sequence of those, or a DataFrame with a column `image` of those. Of a large
                JPEG, give the path: pixels that are in memory are not those that its file is decoded to (docs/data.md).
            batch_size: images per forward pass.

        Raises:
            DataError: an image cannot be read; use `stream` to get an error row instead.
        """
        return [self.class_names[index] for index in self.predict_proba(images, batch_size=batch_size).argmax(axis=1)]

    def predict_proba(self, images: Any, *, batch_size: int = 64) -> NDArray[np.float64]:
        """(n, C) calibrated class probabilities; arguments and errors as for `predict`."""
        rows = [_probabilities_or_raise(each) for each in self.stream(_sources(images), batch_size=batch_size)]
        return np.stack(rows) if rows else np.empty((0, len(self.class_names)))

    def stream(self, sources: Iterable[Any], *, batch_size: int = 64, marked: bool = False) -> Iterator[Prediction]:
        """One prediction per source, in order; a broken image gives a row with status "error".

        Args:
            sources: paths or PIL images; read lazily, so a million of them need no memory.
            batch_size: images per forward pass, >= 1.
            marked: give each prediction the mark of its image.

        Raises:
            UsageError: the batch size is below 1.
        """
        if batch_size < 1:
            raise UsageError("a batch holds at least one image", value=f"batch_size={batch_size}", fix="use 1 or more")
        return self._stream(sources, batch_size, marked)

    def _stream(self, sources: Iterable[Any], batch_size: int, marked: bool) -> Iterator[Prediction]:
        with ThreadPoolExecutor(self._runtime.threads) as pool:
            waiting: deque[tuple[list[Any], list[Future[Any]]]] = deque()
            iterator = iter(sources)
            while chunk := list(islice(iterator, batch_size)):
                waiting.append((chunk, [pool.submit(self._prepare, source, marked) for source in chunk]))
                if len(waiting) > BATCHES_AHEAD:
                    yield from self._finish(*waiting.popleft())
            while waiting:
                yield from self._finish(*waiting.popleft())

    def _prepare(self, source: Any, marked: bool) -> _Opened | ImageReadError:
        try:
            image = open_rgb(source, self._decode_side)
            whole = None if image.scale == 1 else lambda: open_rgb(source).pixels
            known_by = mark(image.pixels, whole) if marked else None
        except ImageReadError as error:
            return error
        return _Opened({side: square(image.pixels, side) for side in self._sides}, known_by)

    def _finish(self, sources: Sequence[Any], futures: Sequence[Future[Any]]) -> list[Prediction]:
        prepared = [future.result() for future in futures]
        good = [each.squares for each in prepared if isinstance(each, _Opened)]
        rows = iter(self._probabilities(good))
        return [
            self._succeeded(source, each, next(rows)) if isinstance(each, _Opened) else _failed(source, each)
            for source, each in zip(sources, prepared, strict=True)
        ]

    def _probabilities(self, images: Sequence[dict[int, NDArray[np.uint8]]]) -> NDArray[np.float64]:
        if not images:
            return np.empty((0, len(self.class_names)))
        batches = {
            side: torch.from_numpy(np.stack([squares[side] for squares in images])).permute(0, 3, 1, 2)
            for side in self._sides
        }
        return self.bundle.probabilities(self._ensemble.log_probabilities(lambda side: [batches[side]]))

    def _succeeded(self, source: Any, opened: _Opened, probabilities: NDArray[np.float64]) -> Prediction:
        best = int(probabilities.argmax())
        label, probability = self.class_names[best], float(probabilities[best])
        return Prediction(_name(source), "ok", label, probability, probabilities, mark=opened.mark)


def load(path: str | Path, *, device: str = "auto") -> Model:
    """Load a model file.

    Args:
        path: the `model.pt` of a run.
        device: auto, cpu, cuda, cuda:N or mps.

    Raises:
        ModelFileError: the file is missing, damaged, foreign or newer than this version.
        UsageError: the device is not on this machine.
    """
    return Model(load_bundle(Path(path)), make_runtime(device))


def _sources(images: Any) -> Iterable[Any]:
    if _is_table(images):
        if IMAGE_COLUMN not in images:
            raise DataError(
                f"the table has no column '{IMAGE_COLUMN}'",
                value=", ".join(map(str, images.columns)),
                fix=f"rename the column that holds the images to '{IMAGE_COLUMN}'",
            )
        return list(images[IMAGE_COLUMN])
    if isinstance(images, str | bytes | Path) or not isinstance(images, Iterable):
        return [images]
    return images


def _is_table(images: Any) -> bool:
    """Whether it is a DataFrame; who never imported pandas has none, and need not wait for it."""
    pandas = sys.modules.get("pandas")
    return pandas is not None and isinstance(images, pandas.DataFrame)


def _probabilities_or_raise(prediction: Prediction) -> NDArray[np.float64]:
    if prediction.probabilities is None:
        raise DataError(
            "an image cannot be read",
            value=f"{prediction.path} ({prediction.error})",
            fix="remove it, or use stream(), which gives an error row and goes on",
        )
    return prediction.probabilities


def _failed(source: Any, error: ImageReadError) -> Prediction:
    return Prediction(_name(source), "error", error=str(error))


def _name(source: Any) -> str:
    return str(source) if isinstance(source, str | Path) else ""
