"""Stage `search`: how much time it leaves for what comes after."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from automl_vision.stages.reserve import FIRST_MODEL_SHARE
from automl_vision.stages.search import _TimeLeft


def time_left(*, remaining: float, crowding: float = 1.0, images: int = 100, classes: int = 10) -> float:
    rows = {"test": np.arange(images), "val": np.arange(images)}
    split: Any = SimpleNamespace(rows=rows.__getitem__, augmented_val=np.arange(0))
    clock: Any = SimpleNamespace(remaining=remaining, wall_per_cpu_second=crowding)
    prepared: Any = SimpleNamespace(split=split, manifest=SimpleNamespace(class_names=("c",) * classes))
    context: Any = SimpleNamespace(clock=clock)
    return _TimeLeft(context, prepared, [])()


@pytest.mark.parametrize("remaining", [1.0, 10.0, 30.0])
@pytest.mark.parametrize("crowding", [0.6, 3.0, 100.0])
def test_the_first_model_is_tried_however_busy_the_machine_is(remaining: float, crowding: float) -> None:
    assert time_left(remaining=remaining, crowding=crowding) >= FIRST_MODEL_SHARE * remaining


def test_no_time_is_left_once_the_budget_is_over() -> None:
    assert time_left(remaining=-1.0) < 0


def test_many_judged_images_and_classes_take_longer_to_report() -> None:
    few = time_left(remaining=1000.0)
    assert time_left(remaining=1000.0, images=10_000) < few - 3
    assert time_left(remaining=1000.0, images=10_000, classes=300) < few - 10


def test_a_budget_without_end_leaves_time_without_end() -> None:
    assert time_left(remaining=float("inf")) == float("inf")
