"""The work of a trial, with a stand-in for the network and its training."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from histories import finetune

from automl_vision.runtime import Runtime
from automl_vision.search import run_trial
from automl_vision.search.run_trial import Assignment, TrialInterrupted, TrialRunner
from automl_vision.search.trial import Trial
from automl_vision.search.trial_files import TrialFiles
from automl_vision.training.loop import EpochResult, TrainingData, TrialFailed
from automl_vision.training.recipe import Recipe

RECIPE = Recipe("finetune", "resnet18", 32, epochs=6, head_from_probe=False)
LABELS = torch.tensor([0, 1] * 4)
DATA = TrainingData(
    source=None,  # type: ignore[arg-type] # nothing is fetched
    train_rows=torch.arange(8),
    train_labels=LABELS,
    val_rows=torch.arange(8),
    val_labels=LABELS,
    num_classes=2,
)


class StandIn:
    """Trains nothing: epoch n scores n/10; `fault` may raise in an epoch."""

    fault: Callable[[int], None] = staticmethod(lambda epoch: None)
    val_loss: Callable[[int], float] = staticmethod(lambda epoch: 1.0 / epoch)

    def __init__(self, recipe: Recipe, *_: Any) -> None:
        self.recipe = recipe
        self.epoch = 0

    def run_epoch(self, seconds_left: Callable[[], float]) -> EpochResult:
        seconds_left()
        self.epoch += 1
        StandIn.fault(self.epoch)
        ended = "horizon" if self.epoch == self.recipe.epochs else ""
        return EpochResult(self.epoch, 1.0, StandIn.val_loss(self.epoch), self.epoch / 10, 1e-3, 2.0, 8, ended)

    def best_weights(self) -> dict[str, torch.Tensor]:
        return {"epoch": torch.tensor(self.epoch)}

    def best_probabilities(self) -> np.ndarray[Any, np.dtype[np.float32]]:
        return np.full((8, 2), 0.5, dtype=np.float32)

    def state(self) -> dict[str, Any]:
        return {"epoch": self.epoch, "recipe": self.recipe.to_dict()}

    def load_state(self, state: dict[str, Any]) -> None:
        if state["recipe"] != self.recipe.to_dict():
            raise ValueError("this state belongs to another recipe")
        self.epoch = state["epoch"]


@pytest.fixture
def runner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TrialRunner:
    monkeypatch.setattr(run_trial, "Trainer", StandIn)
    monkeypatch.setattr(TrialRunner, "classifier", lambda self, recipe: None)
    monkeypatch.setattr(StandIn, "fault", staticmethod(lambda epoch: None))
    return TrialRunner(
        data=DATA,
        train_groups=np.arange(8),
        objective="accuracy",
        runtime=Runtime(torch.device("cpu"), None, 1),
        files=TrialFiles(tmp_path / "trials"),
        weights={},
        seconds_left=lambda: math.inf,
    )


def fresh(number: int = 0, recipe: Recipe = RECIPE) -> Trial:
    return Trial(number, recipe, {}, "portfolio")


def states(trials: list[Trial]) -> list[tuple[int, str]]:
    return [(trial.epochs_done, trial.state) for trial in trials]


def on_disk(runner: TrialRunner) -> list[Trial]:
    trials, damaged = runner.files.read()
    assert not damaged
    return trials


def test_each_epoch_is_on_disk_before_it_is_told(runner: TrialRunner) -> None:
    told = []
    for trial in runner(Assignment(fresh(), until=3)):
        assert on_disk(runner) == [trial]
        told.append(trial)
    assert states(told) == [(1, "running"), (2, "running"), (3, "paused")]
    assert told[-1].score == 0.3
    assert told[-1].seconds == 6.0


def test_a_paused_trial_goes_on_from_its_checkpoint(runner: TrialRunner) -> None:
    *_, paused = runner(Assignment(fresh(), until=2))
    rest = list(runner(Assignment(paused, until=6)))
    assert states(rest) == [(3, "running"), (4, "running"), (5, "running"), (6, "complete")]
    assert rest[-1].epochs[:2] == paused.epochs


def test_a_user_who_stops_leaves_the_trial_as_of_its_last_epoch(runner: TrialRunner) -> None:
    asked = 0

    def seconds_left() -> float:
        nonlocal asked
        asked += 1
        if asked > 2:
            raise TrialInterrupted
        return 1.0

    runner.seconds_left = seconds_left
    told = list(runner(Assignment(fresh(), until=6)))
    assert states(told) == [(1, "running"), (2, "running"), (2, "paused")]
    runner.seconds_left = lambda: math.inf
    assert states(list(runner(Assignment(told[-1], until=3)))) == [(3, "paused")]


def test_a_checkpoint_ahead_of_its_record_counts(runner: TrialRunner) -> None:
    """The process died after the checkpoint of the last epoch, before its record."""
    first, last = runner(Assignment(fresh(), until=2))
    runner.files.commit(first)
    adopted = first.replace(state="paused", attempt=2)
    told = list(runner(Assignment(adopted, until=2)))
    assert states(told) == [(2, "paused")]
    assert told[0] == last.replace(attempt=2)
    assert on_disk(runner) == told


def test_a_lost_checkpoint_costs_the_epochs_and_nothing_else(runner: TrialRunner) -> None:
    *_, paused = runner(Assignment(fresh(), until=3))
    runner.files.discard(0)
    told = list(runner(Assignment(paused, until=4)))
    assert states(told) == [(1, "running"), (2, "running"), (3, "running"), (4, "paused")]
    assert runner.files.load_result(0) is not None


def test_a_checkpoint_of_another_recipe_is_not_gone_on_from(runner: TrialRunner) -> None:
    """A trial whose record was lost leaves its files to the next one of its number."""
    list(runner(Assignment(fresh(), until=3)))
    other = dataclasses.replace(RECIPE, epochs=4, learning_rate=0.5)
    told = list(runner(Assignment(fresh(recipe=other), until=2)))
    assert states(told) == [(1, "running"), (2, "paused")]
    assert told[-1].recipe == other


def not_finite(epoch: int) -> None:
    if epoch == 2:
        raise TrialFailed("loss is not finite in epoch 2")


def no_memory(epoch: int) -> None:
    if epoch == 2:
        raise torch.OutOfMemoryError("CUDA out of memory")


def no_memory_on_the_cpu(epoch: int) -> None:
    if epoch == 2:
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")


@pytest.mark.parametrize("fault", [not_finite, no_memory, no_memory_on_the_cpu])
def test_a_failure_ends_the_trial_and_not_the_run(
    runner: TrialRunner, monkeypatch: pytest.MonkeyPatch, fault: Callable[[int], None]
) -> None:
    monkeypatch.setattr(StandIn, "fault", staticmethod(fault))
    told = list(runner(Assignment(fresh(), until=6)))
    assert states(told) == [(1, "running"), (1, "failed")]
    assert told[-1].error
    assert told[-1].score == 0.1
    assert on_disk(runner) == [told[-1]]


def test_figures_that_are_not_finite_fail_the_trial(runner: TrialRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(StandIn, "val_loss", staticmethod(lambda epoch: math.inf if epoch == 2 else 1.0))
    assert states(list(runner(Assignment(fresh(), until=6)))) == [(1, "running"), (1, "failed")]


def test_a_mistake_in_the_program_is_not_hidden(runner: TrialRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    def mistake(epoch: int) -> None:
        raise RuntimeError("shapes cannot be multiplied")

    monkeypatch.setattr(StandIn, "fault", staticmethod(mistake))
    with pytest.raises(RuntimeError, match="multiplied"):
        list(runner(Assignment(fresh(), until=6)))


def test_the_weights_kept_are_those_of_the_best_epoch(runner: TrialRunner) -> None:
    list(runner(Assignment(fresh(), until=4)))
    result = runner.files.load_result(0)
    assert result is not None
    assert int(result.weights["epoch"]) == 4


def test_an_earlier_session_s_probes_are_known(runner: TrialRunner) -> None:
    done = Trial(4, Recipe("probe", "resnet18", 32), {}, "probe", state="complete", score=0.5)
    failed = Trial(5, Recipe("probe", "resnet34", 32), {}, "probe", state="failed")
    again = dataclasses.replace(runner, history=[done, failed, finetune(6, [0.5])])
    assert again._probes == {"resnet18": 4}
