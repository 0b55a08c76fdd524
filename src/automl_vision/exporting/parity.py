"""Whether an exported model says what the model file says, on real images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from automl_vision.data.fingerprint import Fingerprint
from automl_vision.errors import AutomlVisionError
from automl_vision.exporting.pictures import Pictures
from automl_vision.prediction import ImageModel, Prediction

#: A probability that differs by this much is another probability.
TOLERANCE = 1e-3
#: Two classes whose probabilities differ by less are equally probable: their order is the rounding of float32.
TIE = 1e-5
_BATCH = 32

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Parity:
    """How two forms of a model compare.

    Attributes:
        images: that both were asked about.
        origin: what they are.
        agreeing: images on which both name the same class.
        largest_difference: of a probability, over all images and classes.
    """

    images: int
    origin: str
    agreeing: int
    largest_difference: float

    @property
    def faithful(self) -> bool:
        """Whether they are the same model."""
        return self.images > 0 and self.agreeing == self.images and self.largest_difference < TOLERANCE

    def to_dict(self) -> dict[str, Any]:
        """Plain types."""
        return asdict(self)


@dataclass(frozen=True)
class Reference:
    """What the model file says of images.

    Attributes:
        pictures: those that can be read, without those that the model was tested on.
        probabilities: (n, C).
    """

    pictures: Pictures
    probabilities: Floats


def ask(model: ImageModel, pictures: Pictures, fingerprint: Fingerprint | None) -> Reference:
    """What a model says of the images that can be read, test images left out where a fingerprint tells them.

    Raises:
        AutomlVisionError: none is left.
    """
    said = list(model.stream(pictures.sources, batch_size=_BATCH, marked=fingerprint is not None))
    tested = _tested(said, fingerprint)
    rows = [row for row, each in enumerate(said) if each.probabilities is not None and not tested[row]]
    if not rows:
        raise AutomlVisionError(
            "there is no image to check the export with",
            value=f"{len(pictures)} {pictures.origin}, none of which can be used",
            fix="give readable images with --data that are not the model's test images",
        )
    probabilities = np.stack([p for row in rows if (p := said[row].probabilities) is not None])
    return Reference(pictures.pick(rows), probabilities)


def _tested(said: Sequence[Prediction], fingerprint: Fingerprint | None) -> list[bool]:
    tested = [False] * len(said)
    if fingerprint is None:
        return tested
    marked = [(row, each.mark) for row, each in enumerate(said) if each.mark is not None]
    hows = fingerprint.test.recognise([mark for _, mark in marked])
    for (row, _), how in zip(marked, hows, strict=True):
        tested[row] = how != ""
    return tested


def compare(reference: Reference, exported: ImageModel) -> tuple[Parity, Floats]:
    """How an exported model compares, through its own path from file to probability; and what it says, (n, C)."""
    said = exported.predict_proba(reference.pictures.sources, batch_size=_BATCH)
    return parity_of(reference, said), said


def parity_of(reference: Reference, said: Floats) -> Parity:
    """How probabilities (n, C) compare with those of the model file."""
    rows = np.arange(len(said))
    best = reference.probabilities.max(axis=1)
    named = reference.probabilities[rows, said.argmax(axis=1)]
    return Parity(
        images=len(said),
        origin=reference.pictures.origin,
        agreeing=int((best - named < TIE).sum()),
        largest_difference=float(np.abs(said - reference.probabilities).max()),
    )


def require_faithful(parity: Parity, form: str) -> None:
    """Raise where an exported model is not the model file's.

    Raises:
        AutomlVisionError: a class differs, or a probability by `TOLERANCE` or more.
    """
    if not parity.faithful:
        raise AutomlVisionError(
            f"the {form} export does not say what the model says, so it was not kept",
            value=f"{parity.agreeing} of {parity.images} classes agree, probabilities differ by up to "
            f"{parity.largest_difference:.2g}",
            fix="use another --format, and report it with the backbone's name",
        )


def accuracy_of(probabilities: Floats, pictures: Pictures) -> float:
    """Share of images whose most probable class is their label."""
    return float((probabilities.argmax(axis=1) == pictures.labels).mean())


def agreement_text(values: Mapping[str, Any]) -> str:
    """A parity, as `to_dict` gives it, in words."""
    return (
        f"On {values['images']:,} {values['origin']} {values['agreeing']:,} classes agree; "
        f"the largest difference of a probability is {values['largest_difference']:.1e}."
    )
