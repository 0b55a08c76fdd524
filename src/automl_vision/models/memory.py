"""What memory there is and what a network asks of it, on every device."""

from __future__ import annotations

import ctypes
import gc
import math
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from automl_vision.main_memory import available_memory, own_memory, resident_memory, total_memory


class MoreThanAllowed(Exception):
    """A forward pass keeps more bytes than it may."""


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
    """Give unused blocks back, after an allocation failed or before memory is counted."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()
    elif sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's alone
        if trim is not None:
            trim(0)


def available_bytes(device: torch.device) -> int | None:
    """Bytes that can still be had on a device, with what its allocator holds unused; None where nobody tells.

    On the CPU, blocks that malloc keeps count as used: `free_memory` gives them back.
    """
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.current_allocated_memory()
    if device.type == "cpu":
        return available_memory()
    return None


def left_of_share(device: torch.device, share: float) -> float:
    """Bytes that a process may still take of its share of all memory; infinity where it has all, or nobody tells.

    What is free at the moment says nothing of that: others may not have taken their shares yet, or have.
    """
    total, own = _held(device) if share < 1.0 else (None, None)
    return math.inf if total is None or own is None else max(share * total - own, 0.0)


def _held(device: torch.device) -> tuple[int | None, int | None]:
    """Bytes of a device, and those of them that this process has in use."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[1], torch.cuda.memory_allocated(device)
    if device.type == "mps":
        return torch.mps.recommended_max_memory(), torch.mps.current_allocated_memory()
    if device.type == "cpu":
        return total_memory(), own_memory()
    return None, None


@dataclass
class Peak:
    """The most memory that was seen in use.

    Attributes:
        bytes: of the allocator of a GPU, or of the whole process on a CPU; 0 where nobody tells.
    """

    bytes: int = 0

    def see(self, now: int | None) -> None:
        """Take one more look."""
        self.bytes = max(self.bytes, now or 0)


@contextmanager
def watched_memory(device: torch.device, every: float = 0.05) -> Iterator[Peak]:
    """The peak of what is in use until the end of the context, known after it.

    A GPU's allocator counts by itself. Main memory is looked at every so many seconds, by a thread: the kernel's own
    high-water mark can only be had by resetting it, and whoever watches the process from outside reads it too.

    Args:
        device: whose memory.
        every: seconds between two looks at main memory.
    """
    peak = Peak()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        try:
            yield peak
        finally:
            peak.see(torch.cuda.max_memory_allocated(device))
        return
    if device.type != "cpu":
        yield peak
        return
    done = threading.Event()

    def look() -> None:
        peak.see(resident_memory())
        while not done.wait(every):
            peak.see(resident_memory())

    thread = threading.Thread(target=look, name="memory", daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        done.set()
        thread.join()
        peak.see(resident_memory())


def saved_bytes(net: nn.Module, forward: Callable[[], torch.Tensor], at_most: float) -> int:
    """Bytes that a forward pass and the backward pass after it need at once, parameters and buffers left out.

    These are what autograd keeps until the backward pass, and the gradient of the largest output of a module. They do
    not depend on the device: tensors are counted as they are saved, and those that share a storage count once.

    Args:
        net: what runs forward. Its buffers are as they were afterwards; its batch norms do not learn from the pass.
        forward: the pass, with gradients.
        at_most: where more is kept, or the device has no more, the pass ends early.

    Raises:
        MoreThanAllowed: more than `at_most` bytes are kept.
    """
    standing = {tensor.untyped_storage().data_ptr() for tensor in (*net.parameters(), *net.buffers())}
    found: dict[int, int] = {}

    def count(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in standing:
            found[storage.data_ptr()] = storage.nbytes()
        if sum(found.values()) > at_most:
            raise MoreThanAllowed
        return tensor

    try:
        with _unchanged(net), _largest_output(net) as largest, torch.autograd.graph.saved_tensors_hooks(count, _itself):
            kept = forward()  # the graph keeps the storages alive, so that no address is used twice
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise MoreThanAllowed from None
    del kept
    return sum(found.values()) + largest[0]


@contextmanager
def _unchanged(net: nn.Module) -> Iterator[None]:
    """Passes leave no trace: batch norms do not learn, every buffer is put back, and no algorithms are compared.

    Batch norm in evaluation mode keeps as much for the backward pass, and takes a single image.
    """
    learning = [module for module in net.modules() if isinstance(module, _BatchNorm) and module.training]
    former = [buffer.clone() for buffer in net.buffers()]
    compares, torch.backends.cudnn.benchmark = torch.backends.cudnn.benchmark, False
    for module in learning:
        module.eval()
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = compares
        for module in learning:
            module.train()
        with torch.no_grad():
            for buffer, value in zip(net.buffers(), former, strict=True):
                buffer.copy_(value)


@contextmanager
def _largest_output(net: nn.Module) -> Iterator[list[int]]:
    """One number: bytes of the largest output of a module so far."""
    largest = [0]

    def look(_module: nn.Module, _inputs: object, output: object) -> None:
        if isinstance(output, torch.Tensor):
            largest[0] = max(largest[0], output.nbytes)

    hooks = [module.register_forward_hook(look) for module in net.modules()]
    try:
        yield largest
    finally:
        for hook in hooks:
            hook.remove()


def _itself(tensor: torch.Tensor) -> torch.Tensor:
    return tensor
