"""Averages of weights of networks that were trained from the same beginning.

Wortsman et al. 2022, "Model soups: averaging weights of multiple fine-tuned models improves accuracy without increasing
inference time" (arXiv 2203.05482). Statistics of batch norm are no weights: an average of networks has statistics of
its own, which are measured again on training images where the members do not share them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import nn

from automl_vision.data.preprocess import Preprocessing, normalize
from automl_vision.models.inference import autocast
from automl_vision.runtime import Runtime

State = Mapping[str, torch.Tensor]
_STATISTICS = ("running_mean", "running_var")


def average(members: Sequence[State]) -> dict[str, torch.Tensor]:
    """The mean of each tensor, in the type of the first; whole numbers are those of the first.

    Args:
        members: state dicts of one architecture, at least one.
    """
    first = members[0]
    return {
        name: torch.stack([member[name].double() for member in members]).mean(dim=0).to(tensor.dtype)
        if tensor.is_floating_point()
        else tensor
        for name, tensor in first.items()
    }


def share_statistics(members: Sequence[State]) -> bool:
    """Whether all members have the same statistics of batch norm, or none; those of their average are then known."""
    names = [name for name in members[0] if name.endswith(_STATISTICS)]
    return all(torch.equal(members[0][name], other[name]) for other in members[1:] for name in names)


def measure_statistics(
    net: nn.Module, batches: Iterable[torch.Tensor], preprocessing: Preprocessing, runtime: Runtime
) -> None:
    """Set the statistics of every batch norm to those of these images, each batch with the same weight.

    Args:
        net: on `runtime.device`; left in evaluation mode.
        batches: (B, 3, S, S) uint8 with S = `preprocessing.size` and B >= 2.
        preprocessing: what is done to the pixels.
        runtime: device and precision.
    """
    norms = [each for each in net.modules() if isinstance(each, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain mean over batches
    net.eval()
    for norm in norms:
        norm.train()
    with torch.no_grad():
        for batch in batches:
            images = normalize(batch.to(runtime.device), preprocessing.mean, preprocessing.std)
            with autocast(runtime):
                net(images)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    net.eval()
