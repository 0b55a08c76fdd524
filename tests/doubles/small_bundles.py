"""Model files of tiny real networks with random weights that tell pictures apart."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import torch

from automl_vision.bundle import Bundle, Network
from automl_vision.data.decode import open_rgb
from automl_vision.data.preprocess import Preprocessing, normalize, square
from automl_vision.models.classifier import build_classifier

NAMES = ("cat", "dog", "emu")
BACKBONE = "mobilenetv3_small_100"
HALVES, UNEVEN = (0.5, 0.5, 0.5), (0.4, 0.5, 0.6)
EXAMPLES = Path(__file__).parents[2] / "examples" / "fashion"


@cache
def _squares(side: int, mean: tuple[float, float, float]) -> torch.Tensor:
    """(16, 3, side, side) pictures of clothes."""
    files = sorted(EXAMPLES.rglob("*.png"))[::57][:16]
    pictures = np.stack([square(open_rgb(file).pixels, side) for file in files])
    return normalize(torch.from_numpy(pictures).permute(0, 3, 1, 2), mean, mean)


def weights(
    seed: int, side: int, head: str = "linear", backbone: str = BACKBONE, mean: tuple[float, float, float] = UNEVEN
) -> dict[str, torch.Tensor]:
    """Of a network of random weights; each of its classes is the best of some pictures."""
    net = build_classifier(backbone, len(NAMES), resolution=side, seed=seed, head=head).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in net.head.named_parameters():
            if name.endswith("weight"):
                tensor.normal_(std=0.5, generator=generator)
        last = [tensor for name, tensor in net.head.named_parameters() if name.endswith("bias")][-1]
        last -= net(_squares(side, mean)).mean(dim=0)
    return dict(net.state_dict())


def single() -> Bundle:
    """One network, with a temperature, a class bias, and JPEGs that are decoded at a fraction."""
    prepared = Preprocessing(32, UNEVEN, UNEVEN, decode_side=256)
    return Bundle(BACKBONE, "linear", NAMES, prepared, 0.001, weights(0, 32), class_bias=(0.0, 0.0004, 0.0002))


def several() -> Bundle:
    """Two networks of different kinds, sides and statistics, the first with the mirror image; temperature and bias."""
    first = Preprocessing(32, HALVES, HALVES)
    other = "test_efficientnet"
    second = Preprocessing(48, UNEVEN, UNEVEN)
    return Bundle(
        "test_resnet",
        "linear",
        NAMES,
        first,
        0.02,
        weights(0, 32, backbone="test_resnet", mean=HALVES),
        flip=True,
        share=0.75,
        others=(Network(other, "linear", second, weights(1, 48, backbone=other), share=0.25),),
        class_bias=(0.0, 0.004, 0.002),
    )
