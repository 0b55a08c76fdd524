"""Batch norm that learns its statistics from a batch which several ranks share.

Mean and variance are those of the whole batch, as torch's SyncBatchNorm takes them (which needs a GPU); here plain
operations do it, the same on every device, and no module is replaced: norms of other libraries keep their own code.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

from automl_vision.training.ranks import Ranks

#: (n, 3, S, S) images, (n, C) targets, and the share of the whole batch that they are.
Piece = tuple[torch.Tensor, torch.Tensor, float]


def pieces(images: torch.Tensor, targets: torch.Tensor, count: int, whole: int) -> Iterator[Piece]:
    """This rank's part of a batch of `whole` images in `count` even pieces; a blank image of no share for an empty one.

    Ranks that share statistics go through the network equally often.
    """
    if not count:
        return
    for piece, wanted in zip(torch.tensor_split(images, count), torch.tensor_split(targets, count), strict=True):
        if len(piece):
            yield piece, wanted, len(piece) / whole
        else:
            yield piece.new_zeros((1, *piece.shape[1:])), wanted.new_zeros((1, *wanted.shape[1:])), 0.0


@dataclass(frozen=True)
class _Shared:
    """Who shares a batch, and whether this rank's images are in it: a stand-in for an empty part is not."""

    ranks: Ranks
    counts: bool

    def moments(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """(B, C, ...) to mean (C), sum of squared differences from it (C), and number of values (), over all ranks."""
        around = [axis for axis in range(images.dim()) if axis != 1]
        count = float(images.numel() // images.shape[1]) if self.counts else 0.0
        variance, mean = torch.var_mean(images.float(), dim=around, correction=0)
        every = self.ranks.every(torch.cat([mean, variance * count, mean.new_tensor([count])]))
        means, squares = every[:, :-1].chunk(2, dim=1)
        counts = every[:, -1:]
        total = counts.sum()
        together = (means * counts).sum(0) / total
        return together, (squares + counts * (means - together) ** 2).sum(0), total


class _Normalize(torch.autograd.Function):
    """Batch norm with the moments of all ranks (Ioffe and Szegedy 2015), and its gradient."""

    @staticmethod
    def forward(
        ctx: Any,
        images: torch.Tensor,
        weight: torch.Tensor | None,
        bias: torch.Tensor | None,
        eps: float,
        shared: _Shared,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        mean, squares, total = shared.moments(images)
        variance = squares / total
        ctx.save_for_backward(images, weight, mean, torch.rsqrt(variance + eps), total)
        ctx.ranks = shared.ranks
        out = F.batch_norm(images, mean, variance, weight, bias, training=False, eps=eps)
        unbiased = squares / (total - 1).clamp_min(1)
        ctx.mark_non_differentiable(mean, unbiased, total)
        return out, mean, unbiased, total

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        images, weight, mean, inverse, total = ctx.saved_tensors
        around = [axis for axis in range(images.dim()) if axis != 1]
        shape = [1, -1] + [1] * (images.dim() - 2)
        gradient = gradients[0].float()
        centred = (images.float() - mean.view(shape)) * inverse.view(shape)
        of_bias, of_weight = gradient.sum(around), (gradient * centred).sum(around)
        sums = torch.stack([of_bias, of_weight])
        ctx.ranks.sum_([sums])
        scale = inverse if weight is None else inverse * weight
        by_bias, by_weight = (each.view(shape) / total for each in sums)
        of_images = scale.view(shape) * (gradient - by_bias - centred * by_weight)
        return of_images.to(images.dtype), None if weight is None else of_weight, of_bias, None, None


class SharedStatistics(TorchFunctionMode):
    """While it is entered, batch norm that learns from a batch learns from those of all ranks together.

    All of them have to run the same layers in the same order, forward and backward.

    Args:
        ranks: who shares the batch.
        counts: False where what this rank runs is a stand-in for an empty part.
    """

    def __init__(self, ranks: Ranks, *, counts: bool = True) -> None:
        super().__init__()
        self._shared = _Shared(ranks, counts)

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Sequence[type],
        arguments: tuple[Any, ...] = (),
        named: Mapping[str, Any] | None = None,
    ) -> Any:
        """Replace one function, and leave all others."""
        named = named or {}
        if function is not F.batch_norm:
            return function(*arguments, **named)
        given = _Given(**dict(zip(_Given.__annotations__, arguments, strict=False)) | dict(named))
        return given.shared(self._shared) if given.training else function(*arguments, **named)


@dataclass(frozen=True)
class _Given:
    """The arguments of `torch.nn.functional.batch_norm`, in their order."""

    input: torch.Tensor
    running_mean: torch.Tensor | None
    running_var: torch.Tensor | None
    weight: torch.Tensor | None = None
    bias: torch.Tensor | None = None
    training: bool = False
    momentum: float = 0.1
    eps: float = 1e-5

    def shared(self, shared: _Shared) -> torch.Tensor:
        """The norm over all ranks; running statistics follow, the same on each."""
        out, mean, variance, _ = _Normalize.apply(self.input, self.weight, self.bias, self.eps, shared)
        with torch.no_grad():
            for running, new in ((self.running_mean, mean), (self.running_var, variance)):
                if running is not None:
                    running.lerp_(new.to(running.dtype), self.momentum)
        normed: torch.Tensor = out
        return normed
