"""Where a network looked: Grad-CAM (Selvaraju et al. 2017, https://arxiv.org/abs/1610.02391) for any backbone.

A map says at which places of a feature map the network's score for a class is sensitive, and in the class's favour; it
says nothing of causes. The score is explained and not the probability, as in the paper: where the network is sure, the
gradient of the probability vanishes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import nn

from automl_vision.data.preprocess import normalize
from automl_vision.models.classifier import Classifier
from automl_vision.models.ensemble import Voter

#: Cells along the sides of a map below which an earlier feature map is taken; where none has as many, the finest. Maps
#: of 3 x 3 cells point no better than chance, see docs/LOG.md.
FEWEST_CELLS = 4
#: Evidence for a class that is less than this share of all that was added up for and against it is rounding.
ROUNDING = 1e-5
#: Images whose activations are in memory at once.
BATCH = 16
#: The output of timm's `forward_features`, which is no module of its own.
LAST = ""

#: Side in pixels -> (n, 3, side, side) uint8, the same images whatever the side.
Squares = Callable[[int], torch.Tensor]


class HeatMaps:
    """Where networks that vote see evidence for a class.

    Each network's map counts by its share of the votes. One that also sees mirrored images has the mean of both maps.

    Args:
        voters: at least one, with networks on their device; they are put into evaluation mode.
    """

    def __init__(self, voters: Sequence[Voter]) -> None:
        self._voters = tuple(voters)
        self._cams = tuple(GradCam(voter.net, voter.preprocessing.size) for voter in voters)
        self.side = max(voter.preprocessing.size for voter in voters)

    @torch.inference_mode(False)
    def __call__(self, squares: Squares, classes: NDArray[np.int64]) -> NDArray[np.float32]:
        """One map per image; equal arguments give equal maps.

        Args:
            squares: the images.
            classes: (n) the class that each map is about.

        Returns:
            (n, side, side) float32. The highest value of a map is 1; a map without any evidence for its class is 0
            everywhere.
        """
        total = torch.zeros(len(classes), self.side, self.side)
        for voter, cam in zip(self._voters, self._cams, strict=True):
            total += voter.share * _scaled(self._map(voter, cam, squares(voter.preprocessing.size), classes))
        return np.ascontiguousarray(_scaled(total).numpy())

    def _map(self, voter: Voter, cam: GradCam, pixels: torch.Tensor, classes: NDArray[np.int64]) -> torch.Tensor:
        plain = self._seen(voter, cam, pixels, classes)
        return (plain + self._seen(voter, cam, pixels.flip(3), classes).flip(2)) / 2 if voter.flip else plain

    def _seen(self, voter: Voter, cam: GradCam, pixels: torch.Tensor, classes: NDArray[np.int64]) -> torch.Tensor:
        how, device = voter.preprocessing, next(voter.net.parameters()).device
        parts = zip(torch.split(pixels, BATCH), torch.split(torch.from_numpy(classes), BATCH), strict=True)
        maps = [cam(normalize(some.to(device), how.mean, how.std), own.to(device)).cpu() for some, own in parts]
        if not maps:
            return torch.zeros(0, self.side, self.side)
        larger = F.interpolate(torch.cat(maps)[:, None], (self.side,) * 2, mode="bilinear", align_corners=False)
        return larger[:, 0]


def _scaled(maps: torch.Tensor) -> torch.Tensor:
    """(n, H, W) at least 0, so that the highest value of each is 1; what is 0 everywhere stays so."""
    highest = maps.amax(dim=(1, 2), keepdim=True)
    return maps / torch.where(highest > 0, highest, 1)


class GradCam:
    """Maps of one network.

    Args:
        net: on its device; it is put into evaluation mode, and is left as it was otherwise.
        side: of its input in pixels.

    Attributes:
        layer: the feature map that is looked at: a module of the backbone, or `LAST`; None where no feature map has
            places.
        cells: rows and columns of that feature map; (1, 1) without one.
    """

    def __init__(self, net: Classifier, side: int) -> None:
        self._net = net.eval()
        # Noise, so that the choice is the same for all images.
        noise = torch.rand((1, 3, side, side), generator=torch.Generator().manual_seed(0))
        found = _chosen_layer(net.backbone, noise.to(next(net.parameters()).device))
        self.layer: str | None = found.name if found else None
        self.cells = found.cells if found else (1, 1)

    def __call__(self, images: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
        """Maps of some images.

        Args:
            images: (B, 3, side, side) float32, normalised, on the device of the network.
            classes: (B) class indices, on the same device.

        Returns:
            (B, rows, columns) float32, at least 0. 0 everywhere where nothing speaks for the class, no gradient reaches
            the feature map, or it is not finite.
        """
        if self.layer is None:
            return torch.zeros(len(images), *self.cells, device=images.device)
        backbone = self._net.eval().backbone
        with _activations_alone(self._net):
            features, pooled = _cut(backbone, self.layer, images)
            slopes = _slopes(self._net.head(pooled).gather(1, classes[:, None]).sum(), features)
        return _weighted(_as_grid(backbone, features.detach()), _as_grid(backbone, slopes))


def _weighted(values: torch.Tensor, slopes: torch.Tensor) -> torch.Tensor:
    """Equations 1 and 2 of the paper: channels weighted by their mean slope, and what is against the class cut off.

    Args:
        values, slopes: (B, D, rows, columns), the feature map and the gradient of what is explained.

    Returns:
        (B, rows, columns).
    """
    weights = slopes.mean(dim=(2, 3), keepdim=True)
    parts = weights * values
    maps = parts.sum(dim=1).relu()
    noise = ROUNDING * parts.abs().sum(dim=1).amax(dim=(1, 2))
    highest = maps.amax(dim=(1, 2))
    usable = torch.isfinite(highest) & (highest > noise)
    return torch.where(usable[:, None, None], maps, 0.0)


@dataclass(frozen=True)
class _Layer:
    """A feature map: its name, its rows and its columns."""

    name: str
    cells: tuple[int, int]


def _chosen_layer(backbone: nn.Module, images: torch.Tensor) -> _Layer | None:
    """The last feature map with enough places on which the features depend; where none has enough, the finest.

    Transformers that read one token end in a map whose other tokens lead nowhere: the map before it is taken then.
    """
    coarse: list[_Layer] = []
    for name in _layer_names(backbone):
        cells = _cells_that_count(backbone, name, images)
        if min(cells) >= FEWEST_CELLS:
            return _Layer(name, cells)
        if all(cells):
            coarse.append(_Layer(name, cells))
    return max(coarse, key=lambda layer: layer.cells, default=None)


def _layer_names(backbone: nn.Module) -> list[str]:
    """Feature maps from the last to the first, as timm names them."""
    info: Any = getattr(backbone, "feature_info", None) or ()
    modules = dict(backbone.named_modules())
    named = [each["module"] for each in getattr(info, "info", info) if each["module"] in modules]
    return [LAST, *reversed(named)]


def _cells_that_count(backbone: nn.Module, name: str, images: torch.Tensor) -> tuple[int, int]:
    """Rows and columns of a feature map; (0, 0) where it has no places, or where they do not reach the features.

    A direction of the features that no head prefers tells, so that the choice is the same for all classes.
    """
    with _activations_alone(backbone):
        try:
            features, pooled = _cut(backbone, name, images)
        except (AttributeError, TypeError):  # some networks hand several maps on together (HRNet, CrossViT)
            return 0, 0
        if not _has_places(backbone, features):
            return 0, 0
        direction = torch.randn(pooled.shape, generator=torch.Generator().manual_seed(0)).to(pooled.device)
        slopes = _as_grid(backbone, _slopes((pooled * direction).sum(), features))
    return (slopes.shape[2], slopes.shape[3]) if slopes.any() else (0, 0)


def _slopes(total: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
    (slopes,) = torch.autograd.grad(total, features, allow_unused=True, materialize_grads=True)
    return slopes


def _cut(backbone: nn.Module, name: str, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """A feature map, from which on gradients can be taken, and the (B, D) features that the network makes of it."""
    if name == LAST:
        features = backbone.forward_features(images).detach().requires_grad_()  # type: ignore[operator]  # of timm
        return features, backbone.forward_head(features)  # type: ignore[operator]  # likewise
    kept: list[torch.Tensor] = []

    def keep(_module: nn.Module, _given: object, output: torch.Tensor) -> torch.Tensor:
        kept.append(output.detach().requires_grad_())
        return kept[-1]

    hook = backbone.get_submodule(name).register_forward_hook(keep)
    try:
        pooled = backbone(images)
    finally:
        hook.remove()
    return kept[-1], pooled


def _has_places(backbone: nn.Module, features: torch.Tensor) -> bool:
    tokens = features.shape[1] - _prefix_tokens(backbone) if features.ndim == 3 else 0
    return features.ndim == 4 or (tokens > 0 and math.prod(_square(tokens)) == tokens)


def _as_grid(backbone: nn.Module, features: torch.Tensor) -> torch.Tensor:
    """Features that have places, as (B, D, rows, columns)."""
    if features.ndim == 4:
        return features.permute(0, 3, 1, 2) if getattr(backbone, "output_fmt", "") == "NHWC" else features
    tokens = features[:, _prefix_tokens(backbone) :]
    return tokens.transpose(1, 2).reshape(len(tokens), tokens.shape[2], *_square(tokens.shape[1]))


def _prefix_tokens(backbone: nn.Module) -> int:
    """Tokens in front of those that are places: of the class, of distillation, registers."""
    return int(getattr(backbone, "num_prefix_tokens", None) or 0)


def _square(tokens: int) -> tuple[int, int]:
    """Rows and columns of the places: inputs are squares, and so are maps."""
    return math.isqrt(tokens), math.isqrt(tokens)


@contextmanager
def _activations_alone(net: nn.Module) -> Iterator[None]:
    """Float32, with gradients of activations and none of weights: nothing is kept of what comes before the map."""
    _forget_predictions(net)
    learning = [parameter for parameter in net.parameters() if parameter.requires_grad]
    device = next(net.parameters()).device
    for parameter in learning:
        parameter.requires_grad_(False)
    try:
        with torch.inference_mode(False), torch.enable_grad(), torch.autocast(device.type, enabled=False):
            yield
    finally:
        for parameter in learning:
            parameter.requires_grad_(True)


def _forget_predictions(net: nn.Module) -> None:
    """Some networks keep tables of positions that they made while they predicted; no gradient passes through those."""
    for module in net.modules():
        for held in vars(module).values():
            if isinstance(held, dict) and any(map(_is_of_inference, held.values())):
                held.clear()


def _is_of_inference(held: object) -> bool:
    return isinstance(held, torch.Tensor) and held.is_inference()
