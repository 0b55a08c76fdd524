"""A model file as one module: from uint8 squares to calibrated probabilities, all networks, views and shares inside."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict

import torch
from torch import nn
from torch.export import Dim, ExportedProgram

from automl_vision import __version__
from automl_vision.bundle import Bundle, Network
from automl_vision.data.preprocess import Preprocessing
from automl_vision.model_description import Input, ModelDescription

#: A batch that is captured must be larger than one, or the size is taken for a constant.
_EXAMPLES = 2


class Vote(nn.Module):
    """One network: (B, 3, S, S) uint8 to (B, C) log-probabilities, the mean over the views of an image."""

    scale: torch.Tensor
    shift: torch.Tensor

    def __init__(self, network: Network, num_classes: int) -> None:
        super().__init__()
        self.network = network.classifier(num_classes).float()
        self.flip = network.flip
        self.classes = num_classes
        scale, shift = _normalisation(network.preprocessing)
        self.register_buffer("scale", scale, persistent=False)
        self.register_buffer("shift", shift, persistent=False)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """(B, 3, S, S) uint8 to (B, C)."""
        images = pixels.float() * self.scale + self.shift
        if not self.flip:
            return torch.log_softmax(self.network(images), dim=1)
        both = torch.cat([images, images.flip(3)])  # one pass through one copy of the network
        votes = torch.log_softmax(self.network(both), dim=1).reshape(2, -1, self.classes)
        return torch.logsumexp(votes, dim=0) - math.log(2)


class Probabilities(nn.Module):
    """A whole model: one batch of squares per side, ascending, to (B, C) calibrated probabilities, float32.

    The same as `Bundle.probabilities` of the votes of `models.ensemble`, in float32.
    """

    bias: torch.Tensor

    def __init__(self, bundle: Bundle) -> None:
        super().__init__()
        classes = len(bundle.class_names)
        self.sides = sides_of(bundle)
        self.votes = nn.ModuleList(Vote(each, classes) for each in bundle.networks)
        self.inputs = [self.sides.index(each.preprocessing.size) for each in bundle.networks]
        self.shares = [math.log(each.share) for each in bundle.networks]
        self.temperature = bundle.temperature
        self.register_buffer("bias", torch.tensor(bundle.class_bias or (0.0,) * classes), persistent=False)
        self.requires_grad_(False)

    def forward(self, *squares: torch.Tensor) -> torch.Tensor:
        """(B, 3, S, S) uint8 for each side to (B, C)."""
        votes = [
            vote(squares[place]) + share
            for vote, place, share in zip(self.votes, self.inputs, self.shares, strict=True)
        ]
        mean = votes[0] if len(votes) == 1 else torch.logsumexp(torch.stack(votes), dim=0)
        return torch.softmax((mean + self.bias) / self.temperature, dim=1)


def sides_of(bundle: Bundle) -> tuple[int, ...]:
    """Sides in pixels of the squares that a model takes, ascending, each once."""
    return tuple(sorted({each.preprocessing.size for each in bundle.networks}))


def input_names(sides: Sequence[int]) -> tuple[str, ...]:
    """`images`, or `images_96`, `images_224` ... where there are several."""
    return ("images",) if len(sides) == 1 else tuple(f"images_{side}" for side in sides)


def captured(bundle: Bundle) -> ExportedProgram:
    """The model as a program of torch.export, in evaluation mode, for batches of any size from 1 on."""
    squares = example_squares(bundle)
    batch = Dim("batch", min=1)
    module = warmed(bundle)
    with torch.no_grad():
        return torch.export.export(module, squares, dynamic_shapes=(tuple({0: batch} for _ in squares),))


def warmed(bundle: Bundle) -> Probabilities:
    """The model in evaluation mode after a first pass: some networks keep what that one computes (tiny_vit)."""
    module = Probabilities(bundle).eval()
    with torch.no_grad():
        module(*example_squares(bundle))
    return module


def example_squares(bundle: Bundle) -> tuple[torch.Tensor, ...]:
    """(B, 3, S, S) uint8 for each side that the model takes: black, to be captured with."""
    return tuple(torch.zeros(_EXAMPLES, 3, side, side, dtype=torch.uint8) for side in sides_of(bundle))


def describe(bundle: Bundle) -> ModelDescription:
    """What an exported file says of itself."""
    sides = sides_of(bundle)
    return ModelDescription(
        class_names=bundle.class_names,
        inputs=tuple(_input(bundle, *pair) for pair in zip(input_names(sides), sides, strict=True)),
        temperature=bundle.temperature,
        class_bias=bundle.class_bias,
        networks=tuple(_about(each) for each in bundle.networks),
        made_by=f"automl-vision {__version__}",
        details={"provenance": dict(bundle.provenance)},
    )


def _input(bundle: Bundle, name: str, side: int) -> Input:
    how = next(each.preprocessing for each in bundle.networks if each.preprocessing.size == side)
    return Input(name, side, how.resize, how.interpolation, how.decode_side)


def _about(network: Network) -> dict[str, object]:
    preprocessing = {**asdict(network.preprocessing), "antialias": True}
    return {
        "backbone": network.backbone,
        "head": network.head,
        "flip": network.flip,
        "share": network.share,
        **preprocessing,
    }


def _normalisation(preprocessing: Preprocessing) -> tuple[torch.Tensor, torch.Tensor]:
    """(1, 3, 1, 1) each: what a pixel of 0..255 is multiplied with, and what is added then."""
    mean, std = (torch.tensor(each, dtype=torch.float64) for each in (preprocessing.mean, preprocessing.std))
    scale, shift = 1 / (255 * std), -mean / std
    return scale.float().reshape(1, 3, 1, 1), shift.float().reshape(1, 3, 1, 1)
