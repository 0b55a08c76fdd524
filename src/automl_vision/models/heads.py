"""Heads: from the features of a backbone to one score per class.

A head is described by one line of text, which recipes and model files carry and from which it is rebuilt:

    linear                      one linear map
    mlp:256-gelu                a layer of 256 units with GELU, then a linear map
    mlp:256-gelu,64-tanh        two such layers
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import nn

LINEAR = "linear"
#: name -> the module that applies it. Each works element by element and has no weights.
ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {"relu": nn.ReLU, "gelu": nn.GELU, "tanh": nn.Tanh}
MOST_LAYERS, WIDEST = 4, 8192
_LAYER = re.compile(r"([1-9][0-9]{0,3})-([a-z]+)", re.ASCII)


@dataclass(frozen=True)
class Layer:
    """A hidden layer: a linear map to `width` numbers, then an activation (a name of `ACTIVATIONS`)."""

    width: int
    activation: str


def describe_head(layers: tuple[Layer, ...]) -> str:
    """The description of a head with these hidden layers; "linear" without any."""
    listed = ",".join(f"{layer.width}-{layer.activation}" for layer in layers)
    return f"mlp:{listed}" if layers else LINEAR


def read_head(description: str) -> tuple[Layer, ...]:
    """The hidden layers that a description stands for.

    Raises:
        ValueError: it is not one that `describe_head` writes, or its layers are too many or too wide.
    """
    if description == LINEAR:
        return ()
    kind, _, listed = description.partition(":")
    parts = [_LAYER.fullmatch(part) for part in listed.split(",", MOST_LAYERS)]
    layers = tuple(Layer(int(part[1]), part[2]) for part in parts if part is not None and part[2] in ACTIVATIONS)
    in_order = kind == "mlp" and len(layers) == len(parts) <= MOST_LAYERS
    if not in_order or any(layer.width > WIDEST for layer in layers):
        raise ValueError(f"unknown head, got {description[:80]!r}")
    return layers


def is_head(description: str) -> bool:
    """Whether a head can be built from this description."""
    try:
        read_head(description)
    except ValueError:
        return False
    return True


def build_head(description: str, features: int, classes: int) -> nn.Module:
    """A module from (B, features) to (B, classes) with random weights.

    Raises:
        ValueError: the description is none.
    """
    layers = read_head(description)
    return build_mlp(layers, features, classes) if layers else _nearly_zero(nn.Linear(features, classes))


def build_mlp(layers: tuple[Layer, ...], features: int, classes: int) -> nn.Sequential:
    """A module from (B, features) to (B, classes) with these hidden layers and random weights."""
    modules: list[nn.Module] = []
    for layer in layers:
        modules += [nn.Linear(features, layer.width), ACTIVATIONS[layer.activation]()]
        features = layer.width
    return nn.Sequential(*modules, _nearly_zero(nn.Linear(features, classes)))


def features_seen(description: str, state: Mapping[str, object]) -> int | None:
    """How many features the head takes that this state dict belongs to; None where it belongs to no such head."""
    weight = state.get("0.weight" if read_head(description) else "weight")
    return int(weight.shape[1]) if isinstance(weight, torch.Tensor) and weight.ndim == 2 else None


def _nearly_zero(linear: nn.Linear) -> nn.Linear:
    # Nearly nothing at first: large random scores would push large random gradients into pretrained layers.
    nn.init.trunc_normal_(linear.weight, std=0.01)
    nn.init.zeros_(linear.bias)
    return linear
