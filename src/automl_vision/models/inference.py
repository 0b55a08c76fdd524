"""Running a network forward: one path for validation, test and prediction, so that their numbers agree.

They agree up to rounding: sums are rounded in another order for another number of images at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from automl_vision.data.preprocess import Preprocessing, normalize
from automl_vision.models.cpu_convolutions import cpu_convolutions
from automl_vision.models.memory import free_memory, is_out_of_memory
from automl_vision.runtime import Runtime

#: Images in a batch from which on a pass is worth preparing.
_FOLDED_FROM = 16


def logits(
    net: nn.Module, batches: Iterable[torch.Tensor], preprocessing: Preprocessing, runtime: Runtime
) -> NDArray[np.float32]:
    """Outputs of `net` for all images of `batches`.

    Args:
        net: a module on `runtime.device`; it is put into evaluation mode.
        batches: (B, 3, S, S) uint8 with S = `preprocessing.size`.
        preprocessing: what is done to the pixels.
        runtime: device and precision.

    Returns:
        (n, C) float32; (0, 0) where there are no batches.
    """
    parts = [part.numpy() for part in outputs(net, batches, preprocessing, runtime)]
    return np.concatenate(parts) if parts else np.zeros((0, 0), dtype=np.float32)


def outputs(
    net: nn.Module, batches: Iterable[torch.Tensor], preprocessing: Preprocessing, runtime: Runtime
) -> Iterator[torch.Tensor]:
    """(B, C) float32 on the CPU for each batch; a batch that does not fit is run in halves."""
    net.eval()
    for batch in batches:
        yield _forward_within_memory(net, batch, preprocessing, runtime)


def softmax(scores: NDArray[np.float32]) -> NDArray[np.float32]:
    """(n, C) logits to (n, C) probabilities."""
    return torch.from_numpy(scores).softmax(dim=1).numpy()


def autocast(runtime: Runtime) -> torch.autocast:
    """The precision that `runtime` asks for where a network judges or predicts, as a context."""
    return _autocast(runtime.device, runtime.amp_dtype)


@contextmanager
def fastest_training(net: nn.Module, side: int, runtime: Runtime) -> Iterator[None]:
    """Precision and convolutions of the forward passes of training; gradients may be taken outside.

    Args:
        net: on the device of the runtime.
        side: of the images in pixels.
        runtime: device and precision.
    """
    dtype = _training_dtype(net, runtime)
    with ExitStack() as stack:
        stack.enter_context(_autocast(runtime.device, dtype))
        if runtime.device.type == "cpu":
            stack.enter_context(cpu_convolutions(net, side).in_use(getattr(torch, dtype) if dtype else None))
        yield


def training_autocast(net: nn.Module, runtime: Runtime) -> torch.autocast:
    """The precision alone of `fastest_training`, for passes that are compiled: they leave no convolution to replace."""
    return _autocast(runtime.device, _training_dtype(net, runtime))


def _training_dtype(net: nn.Module, runtime: Runtime) -> str | None:
    return runtime.training_dtype if _keeps_statistics(net) else runtime.amp_dtype


def _keeps_statistics(net: nn.Module) -> bool:
    """Whether there is batch norm and none of it learns from the batch: only there training in bfloat16 was measured
    to end as well on a CPU, and where it learns it ended worse."""
    learning = [each.training for each in net.modules() if isinstance(each, _BatchNorm)]
    return bool(learning) and not any(learning)


def prepare(net: nn.Module, side: int, runtime: Runtime) -> None:
    """Look at a network before `fastest_training` needs to: no step waits for it, or stumbles over it."""
    if runtime.device.type == "cpu":
        cpu_convolutions(net, side)


def _autocast(device: torch.device, name: str | None) -> torch.autocast:
    dtype = getattr(torch, name) if name else None
    return torch.autocast(device.type, dtype=dtype, enabled=dtype is not None)


def _folded(net: nn.Module, images: torch.Tensor, runtime: Runtime) -> AbstractContextManager[None]:
    """Batch norm inside the convolutions, where that is worth the look at the network that it takes."""
    plain = runtime.device.type != "cpu" or runtime.amp_dtype is not None or len(images) < _FOLDED_FROM
    return nullcontext() if plain else cpu_convolutions(net, images.shape[-1]).in_use()


def _forward_within_memory(
    net: nn.Module, batch: torch.Tensor, preprocessing: Preprocessing, runtime: Runtime
) -> torch.Tensor:
    try:
        return _forward(net, batch, preprocessing, runtime)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error) or len(batch) == 1:
            raise
    # Outside of the handler: the traceback of the error would keep the activations alive.
    free_memory(runtime.device)
    halves = torch.split(batch, (len(batch) + 1) // 2)
    return torch.cat([_forward_within_memory(net, half, preprocessing, runtime) for half in halves])


@torch.inference_mode()
def _forward(net: nn.Module, batch: torch.Tensor, preprocessing: Preprocessing, runtime: Runtime) -> torch.Tensor:
    pixels = batch.to(runtime.device, non_blocking=True)
    images = normalize(pixels, preprocessing.mean, preprocessing.std)
    with autocast(runtime), _folded(net, images, runtime):
        scores: torch.Tensor = net(images)
    return scores.float().cpu()
