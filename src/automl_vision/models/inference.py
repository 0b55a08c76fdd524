"""Running a network forward: one path for validation, test and prediction, so that their numbers agree."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from automl_vision.data.preprocess import Preprocessing, normalize
from automl_vision.models.memory import free_memory, is_out_of_memory
from automl_vision.runtime import Runtime


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
    """The precision that `runtime` asks for, as a context."""
    dtype = getattr(torch, runtime.amp_dtype) if runtime.amp_dtype else None
    return torch.autocast(runtime.device.type, dtype=dtype, enabled=dtype is not None)


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
    with autocast(runtime):
        scores: torch.Tensor = net(images)
    return scores.float().cpu()
