"""Training losses."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F

#: (B, C) scores, (B, C) probabilities, label smoothing in [0, 1), (C) share of each class in what is trained on, above
#: 0 -> mean over the batch.
Loss = Callable[[torch.Tensor, torch.Tensor, float, torch.Tensor], torch.Tensor]


def _cross_entropy(
    scores: torch.Tensor, targets: torch.Tensor, smoothing: float, _shares: torch.Tensor
) -> torch.Tensor:
    return F.cross_entropy(scores, targets, label_smoothing=smoothing)


def _logit_adjusted(
    scores: torch.Tensor, targets: torch.Tensor, smoothing: float, shares: torch.Tensor
) -> torch.Tensor:
    """Logit adjustment with tau = 1 (Menon et al. 2021): scores are learned without the frequencies of the classes."""
    return F.cross_entropy(scores + shares.log(), targets, label_smoothing=smoothing)


def _weighted(scores: torch.Tensor, targets: torch.Tensor, smoothing: float, shares: torch.Tensor) -> torch.Tensor:
    """Weights of 1 / sqrt(share), 1 on average over what is trained on, so that the learning rate keeps its meaning."""
    weights = shares.rsqrt()
    return F.cross_entropy(scores, targets, weight=weights / (weights * shares).sum(), label_smoothing=smoothing)


#: name -> loss.
LOSSES: dict[str, Loss] = {
    "cross_entropy": _cross_entropy,
    "logit_adjusted": _logit_adjusted,
    "weighted": _weighted,
}
