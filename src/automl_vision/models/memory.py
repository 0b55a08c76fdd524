"""Telling "there is not enough memory" from other failures, on every device."""

from __future__ import annotations

import gc

import torch

#: What the CPU, MPS and cuDNN allocators say; they raise a plain RuntimeError.
_ALLOCATOR_PHRASES = (
    "DefaultCPUAllocator",
    "out of memory",
    "can't allocate memory",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUBLAS_STATUS_ALLOC_FAILED",
)


def is_out_of_memory(error: BaseException) -> bool:
    """True where an allocator ran dry, as opposed to a mistake in the program."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(phrase in str(error) for phrase in _ALLOCATOR_PHRASES)


def free_memory(device: torch.device) -> None:
    """Give unused blocks back, after an allocation failed."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()
