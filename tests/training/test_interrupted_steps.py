"""A trainer that is interrupted at any step and goes on elsewhere ends as the undisturbed one, to the last bit."""

from __future__ import annotations

import dataclasses
import io
import math
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from memory_source import MemorySource

from automl_vision.data.preprocess import Preprocessing
from automl_vision.models.classifier import build_classifier
from automl_vision.runtime import Runtime
from automl_vision.training.loop import EpochResult, Trainer, TrainingData
from automl_vision.training.recipe import Recipe

RECIPE = Recipe(
    kind="finetune",
    backbone="test_efficientnet",
    resolution=32,
    epochs=2,
    batch_size=4,
    learning_rate=1e-3,
    layer_decay=1.0,
    freeze_norm=False,
)
VARIANTS: dict[str, dict[str, Any]] = {
    "batch norm, ema, mixup, clipped": {"ema": True, "mix": "mixup", "clip_norm": 0.1},
    "dropout, gradients of two parts": {
        "backbone": "test_vit",
        "drop_path": 0.5,
        "gradient_accumulation": 2,
        "batch_size": 2,
        "augment": "trivial",
        "mix": "cutmix",
    },
    "sgd, rare classes": {"optimizer": "sgd", "sampling": "balanced", "loss": "weighted", "ema": False},
}
#: Steps of an epoch, of which the last is on three images.
STEPS = 6


class Interrupted(Exception):
    """What leaves a trial."""


def data() -> TrainingData:
    images = torch.randint(0, 255, (33, 3, 40, 40), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    rows = torch.arange(33)
    return TrainingData(MemorySource(images, (32, 40)), rows[:23], rows[:23] % 3, rows[23:], rows[23:] % 3, 3)


def fresh(cpu: Runtime, changes: dict[str, Any]) -> Trainer:
    recipe = dataclasses.replace(RECIPE, **changes)
    net = build_classifier(recipe.backbone, 3, resolution=32, drop_path=recipe.drop_path, seed=recipe.seed)
    preprocessing = Preprocessing(size=32, mean=(0.5,) * 3, std=(0.5,) * 3)
    return Trainer(
        recipe, data(), net, preprocessing, cpu, lambda labels, said: float(np.mean(said.argmax(1) == labels))
    )


def on_disk(trainer: Trainer) -> dict[str, Any]:
    """Its state, written and read again."""
    file = io.BytesIO()
    torch.save(trainer.state(), file)
    file.seek(0)
    state: dict[str, Any] = torch.load(file, weights_only=True)
    return state


def interrupted_at(*times: int) -> Callable[[], float]:
    """Seconds left, until it was asked so often."""
    asked = 0

    def seconds_left() -> float:
        nonlocal asked
        asked += 1
        if asked in times:
            raise Interrupted
        return math.inf

    return seconds_left


def trained(trainer: Trainer, anew: Callable[[], Trainer], seconds_left: Callable[[], float]) -> tuple[Any, Trainer]:
    """Train to the end; whenever it is interrupted, a new trainer goes on from what is on disk."""
    results: list[EpochResult] = []
    while not trainer.finished:
        try:
            result = trainer.run_epoch(seconds_left)
            results.append(dataclasses.replace(result, seconds=0, cpu_seconds=0))
        except Interrupted:
            state = on_disk(trainer)
            torch.rand(11)  # whatever else the process draws must not matter
            trainer = anew()
            trainer.load_state(state)
    return results, trainer


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("seed", range(3))
def test_an_epoch_goes_on_at_the_step_it_was_left_at(cpu: Runtime, variant: str, seed: int) -> None:
    changes = VARIANTS[variant]
    expected, straight = trained(fresh(cpu, changes), lambda: fresh(cpu, changes), lambda: math.inf)
    moments = random.Random(seed).sample(range(1, 2 * STEPS), 3)
    got, resumed = trained(fresh(cpu, changes), lambda: fresh(cpu, changes), interrupted_at(*moments))
    assert got == expected
    for ours, theirs in (
        (resumed.classifier.state_dict(), straight.classifier.state_dict()),
        (resumed.best_weights(), straight.best_weights()),
        (resumed.last_weights(), straight.last_weights()),
    ):
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert np.array_equal(resumed.probabilities, straight.probabilities)


def test_validation_is_left_too_and_trains_no_step_again(cpu: Runtime) -> None:
    changes: dict[str, Any] = {"batch_size": 2, "gradient_accumulation": 2, "freeze_norm": True}
    expected, _ = trained(fresh(cpu, changes), lambda: fresh(cpu, changes), lambda: math.inf)
    first = fresh(cpu, changes)
    with pytest.raises(Interrupted):
        first.run_epoch(interrupted_at(STEPS + 1))  # asked before each step, then between batches of validation
    assert first.state()["so_far"]["steps"] == STEPS
    second = fresh(cpu, changes)
    second.load_state(on_disk(first))
    result = second.run_epoch()
    assert dataclasses.replace(result, seconds=0, cpu_seconds=0) == expected[0]


def test_the_seconds_of_all_sittings_count(cpu: Runtime) -> None:
    first = fresh(cpu, {})
    with pytest.raises(Interrupted):
        first.run_epoch(interrupted_at(4))
    state = on_disk(first)
    assert state["so_far"]["images"] == 12
    assert state["so_far"]["cpu_seconds"] > 0
    state["so_far"].update(seconds=1000.0, cpu_seconds=2000.0)
    second = fresh(cpu, {})
    second.load_state(state)
    result = second.run_epoch()
    assert (result.seconds > 1000, result.cpu_seconds > 2000, result.images) == (True, True, 23)


def test_a_trainer_that_was_left_can_go_on_itself(cpu: Runtime) -> None:
    expected, straight = trained(fresh(cpu, {}), lambda: fresh(cpu, {}), lambda: math.inf)
    same = fresh(cpu, {})
    for moment in (3, 2):
        with pytest.raises(Interrupted):
            same.run_epoch(interrupted_at(moment))
    results = [same.run_epoch(), same.run_epoch()]
    assert [dataclasses.replace(each, seconds=0, cpu_seconds=0) for each in results] == expected
    assert all(torch.equal(same.last_weights()[name], each) for name, each in straight.last_weights().items())


def test_a_state_from_before_there_were_steps_begins_with_an_epoch(cpu: Runtime) -> None:
    first = fresh(cpu, {})
    first.run_epoch()
    state = first.state()
    del state["so_far"]
    second = fresh(cpu, {})
    second.load_state(state)
    assert dataclasses.replace(second.run_epoch(), seconds=0, cpu_seconds=0) == dataclasses.replace(
        first.run_epoch(), seconds=0, cpu_seconds=0
    )
