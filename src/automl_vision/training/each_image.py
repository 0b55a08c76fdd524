"""Small work on one image after the other, spread over threads that compute alone.

torch spreads even a single image over all cores, and waking them costs more than the image: on two cores a crop took
three times the CPU seconds that one thread takes (docs/LOG.md).
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import torch
from threadpoolctl import threadpool_limits


def each_image(work: Callable[[int], None], count: int) -> None:
    """Call `work` for 0 to `count` - 1, in as many threads as torch has; the calls must not touch each other's images.

    Raises:
        What `work` raises, when all threads are done.
    """
    threads = min(torch.get_num_threads(), count)
    if threads <= 1:
        _work_through(work, range(count))
        return
    parts = [range(first, count, threads) for first in range(threads)]
    for done in [_pool(torch.get_num_threads()).submit(_work_through, work, part) for part in parts]:
        done.result()


def _work_through(work: Callable[[int], None], images: range) -> None:
    for image in images:
        work(image)


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="images", initializer=_compute_alone)


def _compute_alone() -> None:
    torch.get_num_threads()  # torch sets a thread up when it is first asked, and would undo what follows
    threadpool_limits(1, "openmp")  # holds for this thread only
