"""One vector per picture that its copies have nearly, too: for finding candidates, not for deciding."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import nn

from automl_vision.data.preprocess import Preprocessing
from automl_vision.models.backbones import backbone, statistics
from automl_vision.models.classifier import build_classifier
from automl_vision.models.features import OutOfTime, extract_features
from automl_vision.models.image_source import ImageSource
from automl_vision.models.weights import find_weights, load_weights
from automl_vision.runtime import Runtime

#: Its weights come as a package, so that they are there without a hub.
NETWORK = "efficientnet_lite0"
#: Side of the input in pixels, where the stored images have as much.
SIDE = 224
#: Power of the generalised mean: between mean (1) and maximum (Radenovic et al., "Fine-tuning CNN Image Retrieval
#: with No Human Annotation", TPAMI 2019).
_POWER = 3.0
#: The stage whose texture is kept beside the last features: still fine enough to see what was not recoloured.
_MIDDLE = 5


class CopyDescriptor(nn.Module):
    """(B, 3, S, S) normalised images to (B, D): last features, and mean and generalised mean of a middle stage.

    Attributes:
        net: an EfficientNet of timm without its classifier.
    """

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Each part has length 1."""
        blocks = list(self.net.get_submodule("blocks").children())
        middle = self._through(["conv_stem", "bn1"], images)
        for block in blocks[:_MIDDLE]:
            middle = block(middle)
        last = middle
        for block in blocks[_MIDDLE:]:
            last = block(last)
        last = self._through(["conv_head", "bn2"], last)
        texture = torch.cat([middle.mean(dim=(2, 3)), _generalised_mean(middle)], dim=1)
        return torch.cat([F.normalize(_generalised_mean(last)), F.normalize(texture)], dim=1)

    def _through(self, names: list[str], images: torch.Tensor) -> torch.Tensor:
        for name in names:
            images = self.net.get_submodule(name)(images)
        return images


def _generalised_mean(maps: torch.Tensor) -> torch.Tensor:
    return maps.float().clamp(min=1e-6).pow(_POWER).mean(dim=(2, 3)).pow(1 / _POWER)


def describer(
    source: ImageSource, runtime: Runtime, progress: Callable[[int], None] | None = None
) -> Callable[[NDArray[np.int64], float], NDArray[np.float32] | None] | None:
    """(n) rows of `source`, and the monotonic seconds until which there is time -> (n, D) descriptors.

    None where the weights are not on this machine; it gives None where time was up. `progress` is told the number
    of images that are done.
    """
    row = backbone(NETWORK)
    found = find_weights(row, offline=True)
    if found is None:
        return None
    size = min(SIDE, source.sizes[-1])
    weights = load_weights(found, row)
    net = CopyDescriptor(build_classifier(NETWORK, 1, resolution=size, weights=weights).backbone).to(runtime.device)
    mean, std = statistics(row)
    preprocessing = Preprocessing(size, mean, std)

    def describe(rows: NDArray[np.int64], stop: float) -> NDArray[np.float32] | None:
        chosen = torch.from_numpy(rows)

        def late() -> bool:
            return time.monotonic() > stop

        try:
            return extract_features(net, source, chosen, preprocessing, runtime, should_stop=late, progress=progress)
        except OutOfTime:
            return None

    return describe
