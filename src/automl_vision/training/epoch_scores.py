"""What the epochs of a trial scored: which of them is kept, and whether its patience is over."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray


@dataclass(frozen=True)
class BestEpoch:
    """The epoch that is kept.

    Attributes:
        epoch: counted from 1.
        score: the objective on the validation rows.
        val_loss: mean cross-entropy on them.
        weights: state dict of the classifier, on the CPU.
        probabilities: (m, C) of the validation rows.
    """

    epoch: int
    score: float
    val_loss: float
    weights: dict[str, torch.Tensor]
    probabilities: NDArray[np.float32]


@dataclass
class EpochScores:
    """Takes the score of one epoch after the other.

    Attributes:
        best: the newest epoch whose score is within one standard error of the highest; None before the first.
    """

    best: BestEpoch | None = None
    _highest: float = -math.inf
    _bar: float = -math.inf  # the score that patience compares with
    _stale: int = 0  # epochs since it was last passed

    def is_kept(self, score: float, images: int) -> bool:
        """Take a score; whether the newest epoch is within one standard error of the best (Breiman et al. 1984).

        Which of several epochs a few validation images like best is mostly luck, and later ones saw smaller learning
        rates. On many images an error is next to nothing.

        Args:
            score: of the newest epoch.
            images: that it was validated on.
        """
        self._highest = max(self._highest, score)
        return score >= self._highest - _standard_error(self._highest, images)

    def ran_out(self, score: float, patience: int, min_improvement: float) -> bool:
        """Take a score; whether this was the last of `patience` epochs without a gain; 0 waits for ever."""
        gained = score > self._bar + min_improvement
        self._stale = 0 if gained else self._stale + 1
        self._bar = score if gained else self._bar
        return 0 < patience <= self._stale

    def require_best(self) -> BestEpoch:
        """The epoch that is kept.

        Raises:
            RuntimeError: none was validated yet.
        """
        if self.best is None:
            raise RuntimeError("no epoch was validated yet")
        return self.best

    def state(self) -> dict[str, Any]:
        """Plain types and tensors."""
        best = self.best
        return {
            "patience": {"bar": self._bar, "stale": self._stale},
            "best": vars(best) | {"probabilities": torch.from_numpy(best.probabilities)} if best else None,
            "highest": self._highest,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave."""
        best = state["best"]
        self.best = None if best is None else BestEpoch(**best | {"probabilities": best["probabilities"].numpy()})
        self._bar, self._stale = state["patience"]["bar"], state["patience"]["stale"]
        self._highest = state.get("highest", self.best.score if self.best else -math.inf)  # older ones lack it


def _standard_error(score: float, images: int) -> float:
    """Of an accuracy; that of the other objectives is taken to be as large."""
    share = min(max(score, 0.0), 1.0)
    return math.sqrt(share * (1 - share) / max(images, 1))
