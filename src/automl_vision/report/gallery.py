"""Mistakes as pictures: which test images a report shows, and what it says of each.

What is shown follows from the predictions; the pictures themselves are made by `stages.gallery` and kept in
`gallery.json`, from which the page can be rendered again.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from automl_vision.report.predictions import Predictions

FORMAT = 1
#: Mistakes and pairs of classes that are shown at most.
MOST_MISTAKES, MOST_PAIRS = 12, 6
_PICTURE = re.compile(r"data:image/(png|jpeg);base64,[A-Za-z0-9+/]+={0,2}")


@dataclass(frozen=True)
class Heat:
    """A heat map.

    Attributes:
        label: the class that it is about.
        picture: `data:` URI; empty where nothing in the image speaks for the class.
    """

    label: str
    picture: str


@dataclass(frozen=True)
class Shot:
    """A test image.

    Attributes:
        path: as in the manifest.
        label, predicted: its class, and what the model says.
        probability: of the predicted class.
        own_probability: of its class.
        picture: `data:` URI; empty where the file is gone.
        tiny: whether it is so small that it is shown pixel by pixel.
        heats: its heat maps.
    """

    path: str
    label: str
    predicted: str
    probability: float
    own_probability: float
    picture: str = ""
    tiny: bool = False
    heats: tuple[Heat, ...] = ()


@dataclass(frozen=True)
class Pair:
    """A confusion of two classes.

    Attributes:
        label, predicted: the class, and what it was taken for.
        count: images of the class that were taken for it.
        share: of the class.
        mistaken: the one that the model was surest of.
        example: the image of the other class that it recognises best; None where it recognises none.
    """

    label: str
    predicted: str
    count: int
    share: float
    mistaken: Shot
    example: Shot | None


@dataclass(frozen=True)
class Gallery:
    """What the report shows of the test images.

    Attributes:
        total: mistaken test images.
        mistakes: the worst ones, one of each group.
        pairs: the confusions that happen most often.
        cut_short: whether the budget ended before all were drawn.
        trouble: why there are none, where making them failed.
    """

    total: int
    mistakes: tuple[Shot, ...]
    pairs: tuple[Pair, ...]
    cut_short: bool = False
    trouble: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain types, ready for JSON."""
        return {"format": FORMAT, **asdict(self)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Gallery:
        """The inverse of `to_dict`, for values of unknown origin.

        Raises:
            ValueError: it is not what `to_dict` writes.
        """
        try:
            return cls(
                int(values["total"]),
                tuple(map(_shot, values["mistakes"])),
                tuple(map(_pair, values["pairs"])),
                bool(values["cut_short"]),
                str(values.get("trouble", "")),  # runs of earlier versions lack it
            )
        except (TypeError, LookupError, AttributeError, ArithmeticError) as error:
            raise ValueError(f"it holds no gallery: {error}") from None


@dataclass(frozen=True)
class Confusion:
    """Positions in the predictions of an image that was mistaken, and of one that shows what it was mistaken for."""

    label: int
    predicted: int
    count: int
    share: float
    mistaken: int
    example: int | None


def worst_mistakes(predictions: Predictions, most: int = MOST_MISTAKES) -> list[int]:
    """Positions of mistaken images, the ones that the model was surest of first, one of each group."""
    said, sure = predictions.predicted, predictions.probabilities.max(axis=1)
    own = predictions.probabilities[np.arange(len(predictions)), predictions.labels]
    order = np.lexsort((own, -sure))
    wrong = order[(said != predictions.labels)[order]]
    _, first = np.unique(predictions.groups[wrong], return_index=True)
    return [int(each) for each in wrong[np.sort(first)][:most]]


def worst_confusions(predictions: Predictions, most: int = MOST_PAIRS) -> list[Confusion]:
    """Pairs of classes that are mistaken most often, as `confused` of report.json has them, each with two images."""
    labels, said = predictions.labels, predictions.predicted
    wrong = np.flatnonzero(labels != said)
    pairs, counts = np.unique(np.stack([labels[wrong], said[wrong]]), axis=1, return_counts=True)
    support = np.bincount(labels, minlength=len(predictions.class_names))
    worst = np.argsort(-counts, kind="stable")[:most]
    return [
        _confusion(predictions, int(pairs[0, k]), int(pairs[1, k]), int(counts[k]), int(support[pairs[0, k]]))
        for k in worst
    ]


def _confusion(predictions: Predictions, label: int, said: int, count: int, support: int) -> Confusion:
    [mistaken], recognised = _surest(predictions, label, said), _surest(predictions, said, said)
    return Confusion(label, said, count, count / support, mistaken, recognised[0] if recognised else None)


def _surest(predictions: Predictions, label: int, said: int) -> list[int]:
    """Of the images of a class that the model says `said` of, the one that it is surest of; nothing without any."""
    rows = np.flatnonzero((predictions.labels == label) & (predictions.predicted == said))
    best = np.argsort(-predictions.probabilities[rows, said], kind="stable")[:1]
    return [int(each) for each in rows[best]]


def shot(predictions: Predictions, position: int) -> Shot:
    """An image without its pictures."""
    names, chances = predictions.class_names, predictions.probabilities[position]
    label, said = int(predictions.labels[position]), int(predictions.predicted[position])
    path = predictions.paths[position]
    return Shot(path, names[label], names[said], float(chances[said]), float(chances[label]))


def _shot(values: Mapping[str, Any]) -> Shot:
    heats = tuple(Heat(str(each["label"]), _uri(each["picture"])) for each in values["heats"])
    path, label, predicted = (str(values[key]) for key in ("path", "label", "predicted"))
    probability, own = (float(values[key]) for key in ("probability", "own_probability"))
    return Shot(path, label, predicted, probability, own, _uri(values["picture"]), bool(values["tiny"]), heats)


def _pair(values: Mapping[str, Any]) -> Pair:
    example = values["example"]
    return Pair(
        str(values["label"]),
        str(values["predicted"]),
        int(values["count"]),
        float(values["share"]),
        _shot(values["mistaken"]),
        _shot(example) if example else None,
    )


def _uri(text: Any) -> str:
    if text != "" and not (isinstance(text, str) and _PICTURE.fullmatch(text)):
        raise ValueError(f"it holds no picture: {str(text)[:40]!r}")
    return str(text)
