"""What a network costs to keep and to ask, whatever its weights are: counted where possible, else measured here.

Latency and throughput go the way of a prediction (`models.ensemble`, `models.inference`): from uint8 pixels in memory
to probabilities, on the device and with the threads of a runtime. Reading and decoding image files is not in them.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeVar

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from automl_vision.data.preprocess import Preprocessing
from automl_vision.models.backbones import backbone, statistics
from automl_vision.models.classifier import build_classifier, empty_classifier, placed
from automl_vision.models.ensemble import Ensemble, Voter
from automl_vision.models.heads import LINEAR
from automl_vision.models.memory import free_memory, watched_memory
from automl_vision.runtime import Runtime

#: Passes of one image that percentiles are taken of, after those that warm up.
PASSES, WARM_UP = 30, 3
#: Images of a batch, and how many batches the throughput is the median of.
BATCH, BATCHES = 32, 3
#: Seconds between two looks at main memory during a batch.
LOOK_SECONDS = 0.002
#: What a model file has beside the bytes of its tensors: for each of them (place in the archive, alignment) besides its
#: name, and for itself (recipe, class names, ledger); no less than what was found, see the tests.
BYTES_PER_TENSOR, BYTES_PER_FILE = 310, 16_384
MEGA = 1e6

Key = TypeVar("Key")


@dataclass(frozen=True)
class Form:
    """What the cost of a network depends on.

    Attributes:
        backbone: name of the architecture.
        resolution: side of the input in pixels.
        head: a description of `models.heads`.
        flip: whether it also sees every image mirrored.
    """

    backbone: str
    resolution: int
    head: str = LINEAR
    flip: bool = False


@dataclass(frozen=True)
class Counted:
    """What follows from the architecture alone.

    Attributes:
        parameters: weights that are trained.
        macs: multiply-adds of an answer for one image, mirror image included: matrix products and convolutions.
        file_bytes: of a model file with this network, nearly and no less; without digests of images.
    """

    parameters: int
    macs: int
    file_bytes: int

    def __add__(self, other: Counted) -> Counted:
        """Of both together, in one file."""
        return Counted(
            self.parameters + other.parameters,
            self.macs + other.macs,
            self.file_bytes + other.file_bytes - BYTES_PER_FILE,
        )


@dataclass(frozen=True)
class Timing:
    """Milliseconds of a pass of one image.

    Attributes:
        p50_ms, p95_ms: median and 95th percentile.
        passes: that were timed.
    """

    p50_ms: float
    p95_ms: float
    passes: int

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Timing:
        """From at least one time in seconds."""
        p50, p95 = np.percentile(seconds, [50, 95]) * 1e3
        return cls(float(p50), float(p95), len(seconds))

    def to_dict(self) -> dict[str, Any]:
        """Plain types, ready for JSON."""
        return dict(vars(self))


@dataclass(frozen=True)
class BatchCost:
    """What a batch costs.

    Attributes:
        images: of the batch.
        images_per_second: median over batches.
        memory_bytes: weights, and what a batch took on top at its peak; None where the system does not tell.
    """

    images: int
    images_per_second: float
    memory_bytes: int | None

    def to_dict(self) -> dict[str, Any]:
        """Plain types, ready for JSON."""
        return dict(vars(self))


@dataclass(frozen=True)
class Limits:
    """What a model may cost; infinity where nobody cares.

    Attributes:
        latency_ms: median of one image.
        size_mb: megabytes of the model file.
        params_m: millions of parameters.
    """

    latency_ms: float = math.inf
    size_mb: float = math.inf
    params_m: float = math.inf

    @property
    def any(self) -> bool:
        """Whether there is one."""
        return math.isfinite(min(vars(self).values()))

    @property
    def times(self) -> bool:
        """Whether something has to be timed for them."""
        return math.isfinite(self.latency_ms)

    def excess(self, counted: Counted, latency_ms: float | None = None) -> dict[str, tuple[float, float]]:
        """Name of a limit -> (what there is, what is allowed), of each that is exceeded."""
        found = {
            "params_m": counted.parameters / MEGA,
            "size_mb": counted.file_bytes / MEGA,
            "latency_ms": 0.0 if latency_ms is None else latency_ms,
        }
        return {name: (value, getattr(self, name)) for name, value in found.items() if value > getattr(self, name)}

    def to_dict(self) -> dict[str, float | None]:
        """Plain types, ready for JSON; None where there is no limit."""
        return {name: value if math.isfinite(value) else None for name, value in vars(self).items()}


#: How a limit and its excess are told: the option, and a figure in its unit.
LIMIT_WORDS: dict[str, tuple[str, str]] = {
    "params_m": ("--max-params-m", "{:.2f} million parameters"),
    "size_mb": ("--max-size-mb", "{:.2f} MB"),
    "latency_ms": ("--max-latency-ms", "{:.2f} ms for one image"),
}


def excess_words(excess: Mapping[str, tuple[float, float]]) -> str:
    """What exceeds what, in one phrase; empty where nothing does."""
    return " and ".join(
        f"{LIMIT_WORDS[name][1].format(value)} (limit {limit:g})" for name, (value, limit) in excess.items()
    )


@lru_cache(maxsize=512)
def count(form: Form, num_classes: int) -> Counted:
    """Parameters, multiply-adds and bytes, from shapes alone: the network is built without memory.

    Raises:
        UsageError: unknown backbone, or a resolution that it cannot take.
    """
    side = form.resolution
    net = empty_classifier(form.backbone, num_classes, resolution=side, head=form.head, state={}).eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        net(torch.zeros((1, 3, side, side), device="meta"))
    tensors = (each.nbytes + len(name) + BYTES_PER_TENSOR for name, each in net.state_dict().items())
    return Counted(
        parameters=sum(each.numel() for each in net.parameters()),
        macs=counter.get_total_flops() // 2 * (1 + form.flip),
        file_bytes=sum(tensors) + BYTES_PER_FILE,
    )


def count_all(forms: Sequence[Form], num_classes: int) -> Counted:
    """The same of networks that vote together."""
    total, *others = (count(form, num_classes) for form in forms)
    for other in others:
        total += other
    return total


def random_ensemble(forms: Sequence[Form], num_classes: int, runtime: Runtime) -> Ensemble:
    """Networks of these forms with random weights, which take as long as any others."""
    share = 1 / len(forms)
    voters = (
        Voter(
            placed(build_classifier(form.backbone, num_classes, resolution=form.resolution, head=form.head), device),
            Preprocessing(form.resolution, *statistics(backbone(form.backbone))),
            form.flip,
            share,
        )
        for form, device in ((form, runtime.device) for form in forms)
    )
    return Ensemble(tuple(voters), runtime)


def asking(ensemble: Ensemble, images: int, device: torch.device) -> Callable[[], None]:
    """What asks an ensemble about so many images of noise, as a prediction does, and waits for the device."""
    sides = {voter.preprocessing.size for voter in ensemble.voters}
    pictures = {side: torch.randint(0, 256, (images, side, side, 3), dtype=torch.uint8) for side in sides}
    batches = {side: pixels.permute(0, 3, 1, 2) for side, pixels in pictures.items()}

    def ask() -> None:
        ensemble.log_probabilities(lambda side: [batches[side]])
        wait_for(device)

    return ask


def wait_for(device: torch.device) -> None:
    """Return when the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def time_in_turns(
    asks: Mapping[Key, Callable[[], None]],
    passes: int = PASSES,
    *,
    warm_up: int = WARM_UP,
    late: Callable[[], bool] = lambda: False,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[Key, list[float]]:
    """Seconds of each pass, all in turns, so that what else the machine does meets them alike.

    Args:
        asks: what is timed.
        passes: of each that count.
        warm_up: of each that do not.
        late: asked before every round; passes so far are given back where time is over.
        clock: replaceable in tests.
    """
    found: dict[Key, list[float]] = {key: [] for key in asks}
    for turn in range(warm_up + passes):
        if late():
            break
        for key, ask in asks.items():
            started = clock()
            ask()
            if turn >= warm_up:
                found[key].append(clock() - started)
    return found


def batch_cost(ensemble: Ensemble, runtime: Runtime, images: int = BATCH, batches: int = BATCHES) -> BatchCost:
    """Throughput and memory of an ensemble; the first batch is watched and not timed."""
    device = runtime.device
    ask = asking(ensemble, images, device)
    weights = sum(each.nbytes for voter in ensemble.voters for each in voter.net.state_dict().values())
    free_memory(device)
    with watched_memory(device, LOOK_SECONDS) as standing:
        pass
    with watched_memory(device, LOOK_SECONDS) as peak:
        ask()
    took = weights + max(0, peak.bytes - standing.bytes) if peak.bytes else None
    seconds = time_in_turns({"": ask}, batches, warm_up=0)[""]
    return BatchCost(images, images / float(np.median(seconds)), took)
