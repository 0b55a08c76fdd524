"""Training losses."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F


def _cross_entropy(scores: torch.Tensor, labels: torch.Tensor, smoothing: float) -> torch.Tensor:
    return F.cross_entropy(scores, labels, label_smoothing=smoothing)


#: name -> ((B, C) scores, (B) class indices, label smoothing in [0, 1)) -> mean loss over the batch.
LOSSES: dict[str, Callable[[torch.Tensor, torch.Tensor, float], torch.Tensor]] = {
    "cross_entropy": _cross_entropy,
}
