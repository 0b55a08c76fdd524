"""One vector per picture that its copies have nearly, too: for finding candidates, not for deciding."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.metadata import version
from pathlib import Path

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
from automl_vision.models.weights import WeightSource, find_weights, load_weights
from automl_vision.runtime import Runtime

#: Its weights come as a package, so that they are there without a hub.
NETWORK = "efficientnet_lite0"
#: Side of the input in pixels. The matrices were fitted at 224; at 176 as many copies are among the ten nearest, in six
#: tenths of the time.
SIDE = 176
#: The same where most pictures are tiny: enlarging them further tells little more, and takes three times as long.
SIDE_TINY = 96
#: One matrix for each part, (D + 1, directions) float16, as `fitting/copy_descriptor.py` fits them; the last row is
#: added to the product.
MATRICES = Path(__file__).with_name("copy_descriptor.npz")
#: Columns of what `CopyFeatures` gives.
PARTS = {"last": slice(0, 1280), "texture": slice(1280, 1504)}
#: Power of the generalised mean: between mean (1) and maximum (Radenovic et al., "Fine-tuning CNN Image Retrieval
#: with No Human Annotation", TPAMI 2019).
_POWER = 3.0
#: Images at once on a CPU, whose caches hold no more (64 take 1.3 times as long for each), and on a GPU.
_BATCH = (8, 128)
#: The stage whose texture is kept beside the last features: still fine enough to see what was not recoloured.
_MIDDLE = 5


class CopyFeatures(nn.Module):
    """(B, 3, S, S) normalised images to (B, 1504): last features, and mean and generalised mean of a middle stage.

    Attributes:
        net: EfficientNet-Lite0 of timm without its classifier.
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


def copy_features() -> CopyFeatures | None:
    """The network on the CPU, ready to be used; None where its weights are not on this machine."""
    found = find_weights(backbone(NETWORK), offline=True)
    return None if found is None else _features_of(found)


def _features_of(found: WeightSource) -> CopyFeatures:
    weights = load_weights(found, backbone(NETWORK))
    return CopyFeatures(build_classifier(NETWORK, 1, resolution=SIDE, weights=weights).backbone).eval()


class CopyDescriptor(nn.Module):
    """(B, 3, S, S) normalised images to (B, D): the features through their matrices, each part of length 1."""

    def __init__(self, features: CopyFeatures) -> None:
        super().__init__()
        self.features = features
        for name, matrix in _matrices().items():
            self.register_buffer(name, torch.from_numpy(matrix), persistent=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Copies of one picture get nearly the same vector."""
        features = self.features(images).float()
        matrices = {name: self.get_buffer(name) for name in PARTS}
        parts = [features[:, PARTS[name]] @ matrix[:-1] + matrix[-1] for name, matrix in matrices.items()]
        return torch.cat([F.normalize(part) for part in parts], dim=1)


@dataclass(frozen=True)
class Describer:
    """Descriptors of the rows of `source`.

    The network is made when it is first asked: where earlier runs left every descriptor, never.

    Attributes:
        weights: where those of the network are.
        source: where the images are.
        preprocessing: input size, mean and std.
        runtime: device and precision.
        progress: told the number of images that are done, of those asked for.
    """

    weights: WeightSource
    source: ImageSource
    preprocessing: Preprocessing
    runtime: Runtime
    progress: Callable[[int], None] | None = None

    def __call__(self, rows: NDArray[np.int64], stop: float) -> NDArray[np.float32] | None:
        """(n) rows, and the monotonic seconds until which there is time -> (n, D); None where time was up.

        Batches are always full: the sums of a smaller one are rounded in another order, and what an image is
        described by must not depend on how many others are asked for.
        """
        count = len(rows)
        batch = _BATCH[self.runtime.device.type == "cuda"]
        full = np.concatenate([rows, np.repeat(rows[-1:], -count % batch)])

        def late() -> bool:
            return time.monotonic() > stop

        def tell(done: int) -> None:
            if self.progress:
                self.progress(min(done, count))

        try:
            return extract_features(
                self.net,
                self.source,
                torch.from_numpy(full),
                self.preprocessing,
                self.runtime,
                batch_size=batch,
                should_stop=late,
                progress=tell,
            )[:count]
        except OutOfTime:
            return None

    @cached_property
    def net(self) -> CopyDescriptor:
        """The network, on the device of `runtime`."""
        net = CopyDescriptor(_features_of(self.weights)).eval().to(self.runtime.device)
        return net.to(memory_format=torch.channels_last)

    @cached_property
    def name(self) -> str:
        """Equal where equal images get equal descriptors: the weights, the size, the machine's way to calculate.

        The weights are known by their file: a digest of it takes a small part of the time that the network takes.
        """
        size = self.preprocessing.size
        digest = hashlib.blake2b(Path(self.weights.location).read_bytes(), digest_size=16)
        for matrix in _matrices().values():
            digest.update(matrix.tobytes())
        how = [NETWORK, digest.hexdigest(), size, self.source.plane_for(size), self.runtime.device.type]
        made_with = [torch.__version__, version("timm")]
        return ", ".join(map(str, [*how, self.runtime.amp_dtype, self.runtime.threads, *made_with]))


def describer(source: ImageSource, runtime: Runtime, progress: Callable[[int], None] | None = None) -> Describer | None:
    """What describes the rows of `source`; None where the weights are not on this machine.

    Args:
        source: where the images are.
        runtime: device and precision.
        progress: told the number of images that are done, of those asked for.
    """
    weights = find_weights(backbone(NETWORK), offline=True)
    if weights is None:
        return None
    mean, std = statistics(backbone(NETWORK))
    return Describer(weights, source, Preprocessing(min(SIDE, source.sizes[-1]), mean, std), runtime, progress)


@cache
def _matrices() -> dict[str, NDArray[np.float32]]:
    with np.load(MATRICES, allow_pickle=False) as stored:
        return {name: stored[name].astype(np.float32) for name in PARTS}


def _generalised_mean(maps: torch.Tensor) -> torch.Tensor:
    return maps.float().clamp(min=1e-6).pow(_POWER).mean(dim=(2, 3)).pow(1 / _POWER)
