"""Heads: from the features of a backbone to one score per class."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn


def _linear(features: int, classes: int) -> nn.Module:
    head = nn.Linear(features, classes)
    # Nearly nothing at first: a large random head would push large random gradients into pretrained layers.
    nn.init.trunc_normal_(head.weight, std=0.01)
    nn.init.zeros_(head.bias)
    return head


#: name -> (features, classes) -> module from (B, features) to (B, classes).
HEADS: dict[str, Callable[[int, int], nn.Module]] = {
    "linear": _linear,
}
