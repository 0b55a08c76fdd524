"""What is worth trying on this machine within this budget: backbones and resolutions, chosen before decoding."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from automl_vision.models.backbones import BACKBONES, backbone, patch_size
from automl_vision.models.weights import WeightSource

RESOLUTIONS = (224, 192, 160, 128, 96)
#: CPU seconds of one training step per image at 128 px for one billion multiply-adds (at 224 px); measured .1 to .2.
CPU_STEP = 0.16
#: The same on a data-centre GPU; an assumption that only decides which resolution is tried first.
GPU_STEP = 0.0003
#: A resolution is affordable when this many epochs fit into half of the budget.
EPOCHS = 5
#: Sides that are offered besides, where images are that large and there is time for this many epochs: five fine-tunes.
LARGER_RESOLUTIONS = (384, 288, 256)
LARGER_EPOCHS = 60
#: Bytes that decoded images may take for the sake of a larger side.
LARGER_BYTES = 4e9
#: Enlarging an image by more than this adds cost and nothing to see.
LARGEST_ENLARGEMENT = 3.0

#: Backbones that are tried when the user names none, cheapest first, by kind of device.
POOLS: dict[str, tuple[str, ...]] = {
    "cpu": ("efficientnet_lite0", "mobilenetv4_conv_small", "mobilenetv3_large_100"),
    "gpu": (
        "mobilenetv3_large_100",
        "efficientnet_b0",
        "convnext_nano",
        "resnet50",
        "convnext_tiny",
        "efficientnet_lite0",
    ),
}
#: What is tried from scratch when there are no pretrained weights: small networks that train from little.
FROM_SCRATCH = ("resnet18", "mobilenetv3_small_100")


@dataclass(frozen=True)
class MachinePower:
    """What the planner needs to know of the machine.

    Attributes:
        gpu: whether training runs on a GPU.
        threads: CPU threads.
    """

    gpu: bool
    threads: int


def plan_backbones(
    wanted: Sequence[str], weights: Mapping[str, WeightSource | None], power: MachinePower, *, pretrained: bool
) -> tuple[str, ...]:
    """The backbones to try, in the order in which they are probed.

    Args:
        wanted: what the user named; empty for the pool of the device.
        weights: backbone -> where its pretrained weights are, None where they cannot be had.
        power: the machine.
        pretrained: whether training starts from pretrained weights.
    """
    if wanted:
        return tuple(dict.fromkeys(wanted))
    if not pretrained:
        return FROM_SCRATCH
    pool = POOLS["gpu" if power.gpu else "cpu"]
    here = tuple(name for name in pool if weights.get(name) is not None)
    return here or tuple(name for name in BACKBONES if weights.get(name) is not None)[:3]


def plan_resolutions(
    wanted: Sequence[int],
    backbones: Sequence[str],
    power: MachinePower,
    *,
    budget: float,
    images: int,
    typical_side: int,
) -> tuple[int, ...]:
    """Sides of the input in pixels, best first.

    The largest up to 224 that the budget affords comes first, then a larger one where it pays (see
    `LARGER_RESOLUTIONS`), then the next smaller one. Plain transformers get multiples of their patches and nothing
    larger than 224, the grid that most of them were pretrained on.

    Args:
        wanted: what the user named; wins.
        backbones: what will be trained.
        power: the machine.
        budget: seconds in all; may be infinite.
        images: number of labelled images.
        typical_side: median of the images' shorter sides in pixels.
    """
    if wanted:
        return tuple(dict.fromkeys(wanted))
    patches = [patch_size(backbone(name)) for name in backbones]
    fitting = [side for side in RESOLUTIONS if all(side % patch == 0 for patch in patches)] or [RESOLUTIONS[0]]
    useful = [side for side in fitting if side <= max(LARGEST_ENLARGEMENT * typical_side, fitting[-1])]
    macs = min((backbone(name).gmacs or 1.0) for name in backbones)
    step = GPU_STEP * macs if power.gpu else CPU_STEP * macs / power.threads

    def affords(side: int, epochs: int) -> bool:
        return epochs * images * step * (side / 128) ** 2 <= budget / 2 or math.isinf(budget)

    chosen = next((side for side in useful if affords(side, EPOCHS)), useful[-1])
    larger = [
        side
        for side in LARGER_RESOLUTIONS
        if max(patches) == 1
        and side <= typical_side
        and affords(side, LARGER_EPOCHS)
        and images * 3 * _canvas(side) ** 2 <= LARGER_BYTES
    ]
    smaller = [side for side in useful if side < chosen]
    return (chosen, *larger[:1], *smaller[:1])


def stored_sizes(resolutions: Sequence[int]) -> tuple[int, ...]:
    """Sides of the squares that are stored: every resolution, and one above the largest to cut crops from."""
    return tuple(sorted({*resolutions, _canvas(max(resolutions))}))


def _canvas(side: int) -> int:
    """Side of the squares that crops for inputs of this side are cut from."""
    return math.ceil(1.15 * side / 32) * 32
