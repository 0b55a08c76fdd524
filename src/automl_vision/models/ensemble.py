"""Networks that vote: one path from images to probabilities, however many networks and views of an image there are.

A network may see an image and its mirror image; its vote is the mean of both. Several networks vote by their shares,
as in Caruana et al. 2004, "Ensemble Selection from Libraries of Models". Validation, test and prediction all come
through here, so that their probabilities agree.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from automl_vision.data.preprocess import Preprocessing
from automl_vision.models.classifier import Classifier
from automl_vision.models.inference import logits
from automl_vision.runtime import Runtime

Floats = NDArray[np.float64]
#: Side in pixels -> batches of (B, 3, side, side) uint8, the same images whatever the side.
Batches = Callable[[int], Iterable[torch.Tensor]]

#: An ensemble picks so often at most, and so many different networks: each of them costs a forward pass for ever.
MOST_PICKS = 20
MOST_NETWORKS = 3


@dataclass(frozen=True)
class Voter:
    """One network of an ensemble.

    Attributes:
        net: on the device of the runtime.
        preprocessing: how images become its input.
        flip: whether it also sees every image mirrored.
        share: of the votes, > 0.
    """

    net: Classifier
    preprocessing: Preprocessing
    flip: bool = False
    share: float = 1.0


class Ensemble:
    """Networks that vote.

    Args:
        voters: at least one; their shares sum to 1.
        runtime: device and precision.
    """

    def __init__(self, voters: Sequence[Voter], runtime: Runtime) -> None:
        self.voters = tuple(voters)
        self._runtime = runtime

    @property
    def parameters(self) -> int:
        """Weights of all networks."""
        return sum(parameter.numel() for voter in self.voters for parameter in voter.net.parameters())

    @property
    def passes(self) -> int:
        """Forward passes per image."""
        return sum(1 + voter.flip for voter in self.voters)

    def log_probabilities(self, batches: Batches) -> Floats:
        """(n, C) logarithm of the mean vote, before calibration; (0, 0) without images."""
        votes = [self._vote(voter, batches) for voter in self.voters]
        return mixed(votes, [voter.share for voter in self.voters])

    def _vote(self, voter: Voter, batches: Batches) -> Floats:
        size = voter.preprocessing.size
        plain = self._seen(voter, batches(size))
        if not voter.flip:
            return plain
        return mixed([plain, self._seen(voter, (batch.flip(3) for batch in batches(size)))], [0.5, 0.5])

    def _seen(self, voter: Voter, batches: Iterable[torch.Tensor]) -> Floats:
        scores = torch.from_numpy(logits(voter.net, batches, voter.preprocessing, self._runtime)).double()
        return scores.log_softmax(dim=1).numpy()


def mixed(votes: Sequence[Floats], shares: Sequence[float]) -> Floats:
    """(n, C) logarithm of the weighted mean of probabilities that are given as logarithms; shares sum to 1."""
    if len(votes) == 1:
        return votes[0]
    weighted = [vote + math.log(share) for vote, share in zip(votes, shares, strict=True)]
    return np.asarray(np.logaddexp.reduce(weighted), dtype=np.float64)


def greedy_shares(votes: Sequence[Floats], labels: NDArray[np.int64]) -> dict[int, float]:
    """Which votes to mix: picked one by one, with replacement, each time the one that lowers the log-loss most.

    Args:
        votes: (n, C) log-probabilities each; the first is picked first.
        labels: (n) class index.

    Returns:
        index -> share; at most `MOST_NETWORKS` of them. It ends where nothing lowers the loss any more.
    """
    own = np.stack([np.exp(vote[np.arange(len(labels)), labels]) for vote in votes])  # (votes, n): all the loss needs
    picks = [0]
    total = own[0].copy()
    while len(picks) < MOST_PICKS:
        allowed = sorted(set(picks)) if len(set(picks)) == MOST_NETWORKS else range(len(votes))
        losses = {k: _log_loss((total + own[k]) / (len(picks) + 1)) for k in allowed}
        best = min(losses, key=lambda k: (losses[k], k not in picks, k))
        if losses[best] >= _log_loss(total / len(picks)):
            break
        picks.append(best)
        total += own[best]
    return {k: picks.count(k) / len(picks) for k in sorted(set(picks))}


def _log_loss(own: Floats) -> float:
    return float(-np.log(np.clip(own, 1e-30, None)).mean())
