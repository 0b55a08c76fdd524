"""A backbone and a head: from images to one score per class."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.overrides import TorchFunctionMode

from automl_vision.errors import UsageError, WeightsError
from automl_vision.models.backbones import (
    Backbone,
    backbone,
    classifier_prefixes,
    create_network,
    feature_dim,
    set_resolution,
    translate_checkpoint,
    uncounted,
)
from automl_vision.models.heads import LINEAR, build_head, features_seen, is_head


class Classifier(nn.Module):
    """(B, 3, S, S) normalised images to (B, C) scores.

    Attributes:
        backbone: images to (B, D) features.
        head: features to scores.
    """

    def __init__(self, backbone: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(B, 3, S, S) float to (B, C)."""
        scores: torch.Tensor = self.head(self.backbone(images))
        return scores


def build_classifier(
    backbone_name: str,
    num_classes: int,
    *,
    resolution: int,
    weights: Mapping[str, torch.Tensor] | None = None,
    head: str = LINEAR,
    drop_path: float = 0.0,
    seed: int = 0,
) -> Classifier:
    """A classifier on the CPU, in training mode.

    Args:
        backbone_name: a name that `models.backbones.backbone` knows.
        num_classes: C >= 1.
        resolution: side of the input in pixels.
        weights: pretrained weights as `models.weights.load_weights` gives them; None for random ones.
        head: a description of `models.heads`.
        drop_path: stochastic depth rate, in [0, 1).
        seed: random weights depend on it and nothing else; torch's global generator is left as it is.

    Raises:
        UsageError: unknown backbone or head; ResolutionError: a resolution that the backbone cannot take.
        WeightsError: the weights are another network's.
    """
    row = backbone(backbone_name)
    if not is_head(head):
        raise UsageError("unknown head", value=repr(head), fix="use linear, or layers like mlp:256-gelu")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = create_network(row, drop_path=drop_path)
        if weights is not None:
            load_backbone(net, row, weights)
        set_resolution(net, row, resolution)
        return Classifier(net, build_head(head, feature_dim(net, resolution), num_classes))


class _Unfilled(TorchFunctionMode):
    """What networks fill their tensors with at first is left out: random numbers that nobody will see take most of
    the time in which a network is built."""

    _FILLING = frozenset((torch.Tensor.normal_, torch.Tensor.uniform_, torch.Tensor.fill_, torch.Tensor.zero_))

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        return args[0] if func in self._FILLING else func(*args, **(kwargs or {}))


def empty_classifier(
    backbone_name: str, num_classes: int, *, resolution: int, head: str, state: Mapping[str, object]
) -> Classifier:
    """The classifier that a state dict claims to belong to, on the meta device: names, shapes and types, no memory.

    Args:
        backbone_name, num_classes, resolution, head: as for `build_classifier`.
        state: what the classifier will be given; only the width of its head is looked at.

    Raises:
        UsageError: as for `build_classifier`.
    """
    row = uncounted(backbone_name)
    own = {name.removeprefix("head."): value for name, value in state.items() if name.startswith("head.")}
    with torch.device("meta"), _Unfilled():
        net = create_network(row)
        set_resolution(net, row, resolution)
        features = feature_dim(net, resolution, expected=features_seen(head, own))
        return Classifier(net, build_head(head, features, num_classes))


def fill(empty: Classifier, state: Mapping[str, torch.Tensor]) -> bool:
    """Give an empty classifier copies of the tensors of a state dict, which has to fit.

    Returns:
        whether it is whole: some networks have tensors that no state dict holds, such as tables of positions.
    """
    own = empty.state_dict()
    empty.load_state_dict({name: state[name].to(own[name].dtype, copy=True) for name in own}, assign=True)
    return not any(tensor.is_meta for module in empty.modules() for tensor in _tensors(module))


def _tensors(module: nn.Module) -> list[torch.Tensor]:
    held = (vars(module), module._parameters, module._buffers)
    return [value for each in held for value in each.values() if isinstance(value, torch.Tensor)]


def placed(classifier: Classifier, device: torch.device) -> Classifier:
    """The classifier moved to `device`, in the memory layout that convolutions are fastest in."""
    moved: Classifier = classifier.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload] # torch's stub lacks this form
    return moved


def load_backbone(net: nn.Module, row: Backbone, weights: Mapping[str, torch.Tensor]) -> None:
    """Copy pretrained weights into a network without a classifier; every tensor of it must be there.

    Raises:
        WeightsError: tensors are missing, have other shapes, or hold NaN or infinity.
    """
    prefixes = tuple(f"{prefix}." for prefix in classifier_prefixes(row))
    usable = {name: tensor for name, tensor in weights.items() if not name.startswith(prefixes)}
    mismatch = _mismatch(net, usable)
    if mismatch:
        usable = translate_checkpoint(row, usable, net)
        mismatch = _mismatch(net, usable)
    if mismatch:
        raise WeightsError(
            f"these weights do not fit {row.timm_name}",
            value=mismatch,
            fix=f"use weights of {row.timm_name}, or name their backbone",
        )
    broken = [name for name, tensor in usable.items() if not torch.isfinite(tensor).all()]
    if broken:
        raise WeightsError(
            "these weights hold NaN or infinity",
            value=f"{len(broken)} tensors, the first is {broken[0]}",
            fix="fetch the file again, or use other weights",
        )
    net.load_state_dict(usable, strict=False)


def set_linear_head(classifier: Classifier, weight: NDArray[np.float32], bias: NDArray[np.float32]) -> None:
    """Start a linear head from a probe's weight (C, D) and bias (C).

    Raises:
        ValueError: the head is not linear, or has another shape.
    """
    head = classifier.head
    if not isinstance(head, nn.Linear) or tuple(head.weight.shape) != weight.shape:
        raise ValueError(f"a linear head of shape {weight.shape} was expected, got {head}")
    with torch.no_grad():
        head.weight.copy_(torch.from_numpy(weight))
        head.bias.copy_(torch.from_numpy(bias))


def _mismatch(net: nn.Module, weights: Mapping[str, torch.Tensor]) -> str:
    """What keeps `weights` from filling the network; empty where nothing does."""
    wanted = {name: t for name, t in net.state_dict().items() if not name.endswith("num_batches_tracked")}
    missing = [name for name in wanted if name not in weights]
    if missing:
        return f"{len(missing)} tensors are missing, the first is {missing[0]}"
    other = [name for name in wanted if wanted[name].shape != weights[name].shape]
    if other:
        first = other[0]
        return f"{first} has shape {tuple(weights[first].shape)} instead of {tuple(wanted[first].shape)}"
    return ""
