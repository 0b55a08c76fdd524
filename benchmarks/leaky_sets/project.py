"""What this project says of a set, and what that costs."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch

from automl_vision.config import load_settings
from automl_vision.data.file_squares import FileSquares
from automl_vision.data.lineage import sight
from automl_vision.data.preparation import Prepared, read_pixels
from automl_vision.events import Event, StageStarted
from automl_vision.models.copy_descriptor import SIDE, describer
from automl_vision.pipeline import inspect
from automl_vision.runtime import make_runtime
from leaky_sets.judging import Join, Verdict


def look(images: Path, threads: int = 0) -> tuple[Verdict, dict[str, Any]]:
    """`inspect` with `data.lineage = "full"` and without a cache: what it said, and its costs.

    Args:
        images: the folder of classes.
        threads: 0 for as many as the project takes by itself.
    """
    machine = {"machine.threads": threads} if threads else {}
    settings = load_settings(overrides={"data.lineage": "full", "machine.cache": False, **machine})
    stages = _Stages()
    with _counted("register") as registered, _counted("lay_over") as laid_over:
        started = time.monotonic()
        prepared = inspect(images, settings, tell=stages)
        seconds = time.monotonic() - started
    by_stage = stages.seconds()
    forward = _forward_seconds(prepared, settings.machine.threads)
    count = len(prepared.manifest)
    least = by_stage["decode"] + forward
    return verdict_of(prepared), {
        "files": count,
        "seconds": round(seconds, 2),
        "images_per_second": round(count / seconds, 2),
        "stage_seconds": {name: round(value, 2) for name, value in by_stage.items()},
        "forward_pass_seconds": round(forward, 2),
        "times_decoding_and_one_forward_pass": round(seconds / least, 2),
        "pairs_compared_by_key_points": registered(),
        "pairs_per_image": round(registered() / count, 2),
        "pairs_laid_over_each_other": laid_over(),
    }


def verdict_of(prepared: Prepared) -> Verdict:
    """Groups, roles, sets and links, by path."""
    paths, lineage = prepared.manifest.paths, prepared.audit.lineage
    sizes = np.bincount(lineage.group)
    named = (lineage.role == "original") & (sizes[lineage.group] > 1)
    return Verdict(
        group={path: int(group) for path, group in zip(paths, lineage.group, strict=True)},
        joins=tuple(Join(paths[link.first], paths[link.second], link.score) for link in lineage.links),
        named=frozenset(paths[row] for row in np.flatnonzero(named)),
        eligible=frozenset(paths[row] for row in np.flatnonzero(prepared.split.eligible)),
        sets={path: str(name) for path, name in zip(paths, prepared.split.name, strict=True)},
    )


class _Stages:
    """A listener that notes when each stage began."""

    def __init__(self) -> None:
        self._began: list[tuple[str, float]] = []

    def __call__(self, event: Event) -> None:
        if isinstance(event, StageStarted):
            self._began.append((event.name, time.monotonic()))

    def seconds(self) -> dict[str, float]:
        """Of each stage; the last one ends now."""
        ends = [began for _, began in self._began[1:]] + [time.monotonic()]
        return {name: end - began for (name, began), end in zip(self._began, ends, strict=True)}


@contextmanager
def _counted(name: str) -> Iterator[Callable[[], int]]:
    """How often a function of the comparison is called; it is wrapped while it is counted."""
    numbers, real = itertools.count(), vars(sight)[name]
    done = [0]

    def counting(*given: Any, **options: Any) -> Any:
        done[0] = next(numbers) + 1  # `next` is one step for all threads
        return real(*given, **options)

    with mock.patch.object(sight, name, counting):
        yield lambda: done[0]


@dataclass(frozen=True)
class _Opened:
    """Squares that are in memory: a pass over them reads no files.

    Attributes:
        squares: (n, 3, S, S) uint8.
    """

    squares: torch.Tensor

    @property
    def sizes(self) -> tuple[int, ...]:
        return (self.squares.shape[-1],)

    def plane_for(self, _size: int) -> int:
        return self.squares.shape[-1]

    def fetch(self, rows: torch.Tensor, _size: int) -> torch.Tensor:
        return self.squares[rows]


def _forward_seconds(prepared: Prepared, threads: int) -> float:
    """Of the images, once more, through the network that describes them, at the size that it sees."""
    runtime = make_runtime("cpu", "float32", threads)
    rows = np.flatnonzero(prepared.facts.usable)
    files = FileSquares(partial(read_pixels, prepared.manifest), SIDE, runtime.threads)
    describe = describer(_Opened(files.fetch(torch.from_numpy(rows), SIDE)), runtime)
    if describe is None:
        raise RuntimeError("the network's weights are not installed")
    started = time.monotonic()
    describe(np.arange(len(rows)), math.inf)
    return time.monotonic() - started
