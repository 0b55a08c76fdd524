"""What all model files have in common when they predict: sources in, one row per source out, broken images too.

Nothing here loads torch: a model that was exported predicts without it.
"""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from automl_vision.data.decode import open_rgb
from automl_vision.data.fingerprint import Mark, mark
from automl_vision.data.preprocess import SQUASH, square
from automl_vision.errors import DataError, ImageReadError, UsageError

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
        heat_map: path of the picture that says where the model looked, where one was drawn; else None.
    """

    path: str
    status: str
    label: str | None = None
    probability: float | None = None
    probabilities: NDArray[np.float64] | None = None
    error: str = ""
    mark: Mark | None = None
    heat_map: str | None = None


@dataclass(frozen=True)
class _Opened:
    """An image that could be read: side S -> (S, S, 3) uint8, and its mark where that was asked for."""

    squares: dict[int, NDArray[np.uint8]]
    mark: Mark | None


class ImageModel(ABC):
    """A model that is loaded.

    Args:
        class_names: (C) in the order of the probabilities.
        sides: sides in pixels of the squares that it takes.
        threads: that read and decode.
        decode_side, resize: as in `data.preprocess.Preprocessing`.
    """

    def __init__(
        self,
        class_names: Sequence[str],
        sides: Iterable[int],
        threads: int,
        decode_side: int = 0,
        resize: str = SQUASH,
    ) -> None:
        self.class_names = tuple(class_names)
        self.sides = tuple(sorted(set(sides)))
        self.decode_side = decode_side
        self.resize = resize
        self._threads = threads

    @abstractmethod
    def probabilities(self, squares: Mapping[int, NDArray[np.uint8]]) -> NDArray[np.float64]:
        """(n, C) calibrated probabilities of images that are squares already.

        Args:
            squares: side -> (n, side, side, 3) uint8 for each of `sides`, the same n >= 1 images.
        """

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

    def predict_squares(self, images: Sequence[Mapping[int, NDArray[np.uint8]]]) -> list[Prediction]:
        """One prediction per image, for who decodes elsewhere.

        Args:
            images: side -> (side, side, 3) uint8 for each of `sides`, as `data.preprocess.squares` makes them.
        """
        return [self._succeeded(None, row, None) for row in self._stacked(images)]

    def _stream(self, sources: Iterable[Any], batch_size: int, marked: bool) -> Iterator[Prediction]:
        with ThreadPoolExecutor(self._threads) as pool:
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
            image = open_rgb(source, self.decode_side)
            whole = None if image.scale == 1 else lambda: open_rgb(source).pixels
            known_by = mark(image.pixels, whole) if marked else None
        except ImageReadError as error:
            return error
        return _Opened({side: square(image.pixels, side, self.resize) for side in self.sides}, known_by)

    def _finish(self, sources: Sequence[Any], futures: Sequence[Future[Any]]) -> list[Prediction]:
        prepared = [future.result() for future in futures]
        good = [each.squares for each in prepared if isinstance(each, _Opened)]
        rows = iter(self._stacked(good))
        return [
            self._succeeded(source, next(rows), each.mark) if isinstance(each, _Opened) else _failed(source, each)
            for source, each in zip(sources, prepared, strict=True)
        ]

    def _stacked(self, images: Sequence[Mapping[int, NDArray[np.uint8]]]) -> NDArray[np.float64]:
        if not images:
            return np.empty((0, len(self.class_names)))
        return self.probabilities({side: np.stack([squares[side] for squares in images]) for side in self.sides})

    def _succeeded(self, source: Any, probabilities: NDArray[np.float64], known_by: Mark | None) -> Prediction:
        best = int(probabilities.argmax())
        label, probability = self.class_names[best], float(probabilities[best])
        return Prediction(_name(source), "ok", label, probability, probabilities, mark=known_by)


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
