"""A running average of the weights, which validates better than the last step's weights."""

from __future__ import annotations

import copy
from typing import cast

import torch

from automl_vision.models.classifier import Classifier

#: The average looks back over about this share of the whole training.
_WINDOW = 0.05


class WeightAverage:
    """Exponential moving average of a classifier's tensors.

    The decay is 1 - 1 / (5 % of all steps), and rises to it as (1 + t) / (10 + t), so that an average of few
    steps does not hang on to the start.

    Attributes:
        net: the classifier with the averaged weights.
    """

    def __init__(self, classifier: Classifier, total_steps: int) -> None:
        self.net = copy.deepcopy(classifier).requires_grad_(False).eval()
        self.decay = max(0.0, 1 - 1 / max(1.0, _WINDOW * total_steps))
        self._steps = 0

    @torch.no_grad()
    def update(self, classifier: Classifier) -> None:
        """Take the weights of one more step into the average."""
        self._steps += 1
        decay = min(self.decay, (1 + self._steps) / (10 + self._steps))
        ours, theirs = _float_tensors(self.net), _float_tensors(classifier)
        torch._foreach_lerp_(ours, theirs, 1 - decay)
        for average, current in zip(self.net.buffers(), classifier.buffers(), strict=True):
            if not average.is_floating_point():
                average.copy_(current)

    def state(self) -> dict[str, object]:
        """Plain types and tensors."""
        return {"net": self.net.state_dict(), "steps": self._steps}

    def load_state(self, state: dict[str, object]) -> None:
        """Go on from what `state` gave."""
        self.net.load_state_dict(cast("dict[str, torch.Tensor]", state["net"]))
        self._steps = cast("int", state["steps"])


def _float_tensors(net: Classifier) -> list[torch.Tensor]:
    tensors = [*net.parameters(), *net.buffers()]
    return [tensor.detach() for tensor in tensors if tensor.is_floating_point()]
