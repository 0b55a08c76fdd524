"""Which symmetries the classes have, as a probe on frozen features tells: may images be mirrored or turned in training?

The probe learns from images as they are and is asked, by cross-validation, about the same images mirrored and turned.
Where it is right about as often, the change keeps the class; digits and letters fail, most photographs do not.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from automl_vision.models.image_source import ImageSource
from automl_vision.models.probe import deal_folds, fit_linear

FOLDS = 3
#: Images that are shown changed, at most and at least. Networks that were pretrained with mirrored images hardly see
#: the difference: with 300 images mirrored digits were refused half of the time only, see docs/LOG.md.
MOST_IMAGES, FEWEST_IMAGES = 1_000, 50
#: Images that the test is done with, those that are only learned from included, at most.
MOST_LEARNED = 1_500
#: A probe that beats naming the largest class by less than this many standard errors cannot tell.
CLEARLY = 3.0

Change = Callable[[torch.Tensor], torch.Tensor]


def _turned(batch: torch.Tensor) -> torch.Tensor:
    """Quarter turns, every other image the other way round."""
    turned = batch.rot90(1, (2, 3)).clone()
    turned[1::2] = batch[1::2].rot90(3, (2, 3))
    return turned


#: Field of `Recipe` -> what it does to (B, 3, P, P) images.
SYMMETRIES: dict[str, Change] = {
    "horizontal_flip": lambda batch: batch.flip(3),
    "vertical_flip": lambda batch: batch.flip(2),
    "quarter_turns": _turned,
}
#: What is allowed where nothing was tested.
UNTESTED: Mapping[str, bool] = {"horizontal_flip": True, "vertical_flip": False, "quarter_turns": False}
_WORDS = {"horizontal_flip": "left-right", "vertical_flip": "upside-down", "quarter_turns": "quarter turns"}


@dataclass(frozen=True)
class Changed:
    """An image source that shows every image changed.

    Attributes:
        source: the images as they are.
        change: what is done to a batch.
    """

    source: ImageSource
    change: Change

    @property
    def sizes(self) -> tuple[int, ...]:
        """Stored sides in pixels, ascending."""
        return self.source.sizes

    def plane_for(self, size: int) -> int:
        """The smallest stored side that is at least `size`, else the largest."""
        return self.source.plane_for(size)

    def fetch(self, rows: torch.Tensor, size: int) -> torch.Tensor:
        """(B) int64 rows to (B, 3, size, size) uint8, channels_last."""
        return self.change(self.source.fetch(rows, size)).contiguous(memory_format=torch.channels_last)


@dataclass(frozen=True)
class SymmetryTest:
    """What the test found.

    Attributes:
        images: how many were shown.
        accuracy: of the probe on held-out images as they are, in [0, 1].
        largest_class: share of the largest class among them.
        changed: field of `Recipe` -> accuracy on the same images changed.
    """

    images: int
    accuracy: float
    largest_class: float
    changed: Mapping[str, float]

    @property
    def standard_error(self) -> float:
        """Of the accuracy, with one right and one wrong answer added, so that it is never 0."""
        share = (self.accuracy * self.images + 1) / (self.images + 2)
        return math.sqrt(share * (1 - share) / self.images)

    @property
    def can_tell(self) -> bool:
        """Whether the probe knows the classes at all."""
        return self.accuracy - self.largest_class > CLEARLY * self.standard_error

    @property
    def allowed(self) -> dict[str, bool]:
        """Field of `Recipe` -> whether the accuracy falls by less than one standard error."""
        if not self.can_tell:
            return dict(UNTESTED)
        return {name: self.accuracy - after < self.standard_error for name, after in self.changed.items()}

    def to_dict(self) -> dict[str, Any]:
        """Plain types, ready for JSON."""
        return {
            "tested": self.can_tell,
            "reason": "" if self.can_tell else "the probe does not know the classes well enough",
            "images": self.images,
            "accuracy": self.accuracy,
            "standard_error": self.standard_error,
            "changed": dict(self.changed),
            "allowed": self.allowed,
        }


def not_tested(reason: str) -> dict[str, Any]:
    """The same as `SymmetryTest.to_dict` where there was no test."""
    return {"tested": False, "reason": reason, "allowed": dict(UNTESTED)}


def symmetry_line(found: Mapping[str, Any]) -> str:
    """The verdicts in one line, from `SymmetryTest.to_dict` or `not_tested`."""
    if not found["tested"]:
        return f"mirror images: not tested ({found['reason']}); left-right as usual"
    verdicts = (f"{words} {'yes' if found['allowed'][name] else 'no'}" for name, words in _WORDS.items())
    return f"mirror images: {', '.join(verdicts)}"


def shown_rows(groups: NDArray[np.int64], most: int, seed: int) -> NDArray[np.int64]:
    """Positions of at most `most` images at random, no two of one group, so that each counts for itself."""
    order = np.random.default_rng(seed).permutation(len(groups))
    _, first = np.unique(groups[order], return_index=True)
    return order[np.sort(first)[:most]]


def compare_symmetries(
    features: NDArray[np.float32],
    labels: NDArray[np.int64],
    groups: NDArray[np.int64],
    num_classes: int,
    shown: NDArray[np.int64],
    changed: Mapping[str, NDArray[np.float32]],
    *,
    strength: float,
    seed: int = 0,
) -> SymmetryTest:
    """Held-out accuracy on images as they are, and on the same images changed.

    Args:
        features: (n, D) of the images as they are.
        labels: (n) class indices below `num_classes`.
        groups: (n) rows of one group are held out together; at least two groups.
        num_classes: C.
        shown: (m) positions of the images that were changed.
        changed: field of `Recipe` -> (m, D) their features after the change.
        strength: penalty of the probe.
        seed: chooses the images to learn from and deals the folds.
    """
    others = np.random.default_rng(seed).permutation(np.setdiff1d(np.arange(len(labels)), shown))
    rows = np.concatenate([shown, others])[: max(MOST_LEARNED, len(shown))]
    fold = deal_folds(labels[rows], groups[rows], FOLDS, seed)
    asked = {"unchanged": features[shown], **changed}
    right = dict.fromkeys(asked, 0)
    for each in np.unique(fold[: len(shown)]):
        # Each fold has a probe of its own that met no image of it, not even to scale features: the images as they are
        # must have no advantage over the same images changed.
        weight, bias = fit_linear(features[rows[fold != each]], labels[rows[fold != each]], num_classes, strength)
        held_out = fold[: len(shown)] == each
        for name, seen in asked.items():
            predicted = (seen[held_out] @ weight.T + bias).argmax(axis=1)
            right[name] += int((predicted == labels[shown][held_out]).sum())
    return SymmetryTest(
        images=len(shown),
        accuracy=right["unchanged"] / len(shown),
        largest_class=float(np.bincount(labels[shown]).max() / len(shown)),
        changed={name: right[name] / len(shown) for name in changed},
    )
