"""Stage `search`: how much time it leaves for what comes after, and which model it leaves while it goes on."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from automl_vision.config import Settings, load_settings
from automl_vision.search.choice import Chooser
from automl_vision.search.judge import Judge
from automl_vision.search.trial import Trial
from automl_vision.search.trial_files import TrialFiles
from automl_vision.stages import search as stage
from automl_vision.stages.reserve import FIRST_MODEL_SHARE
from automl_vision.stages.search import _Keeper, _TimeLeft
from automl_vision.training.recipe import Recipe


def time_left(*, remaining: float, crowding: float = 1.0, images: int = 100, classes: int = 10) -> float:
    rows = {"test": np.arange(images), "val": np.arange(images)}
    split: Any = SimpleNamespace(rows=rows.__getitem__, augmented_val=np.arange(0))
    clock: Any = SimpleNamespace(remaining=remaining, wall_per_cpu_second=crowding)
    prepared: Any = SimpleNamespace(split=split, manifest=SimpleNamespace(class_names=("c",) * classes))
    context: Any = SimpleNamespace(clock=clock, settings=Settings())
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


def test_the_model_on_disk_follows_the_rule_of_the_final_choice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fine-tune that ties with the probe is not shipped; one that is plainly better is."""
    files, shipped, told = TrialFiles(tmp_path), [], []
    monkeypatch.setattr(stage, "bundle_of", lambda trial, *_: trial.number)
    monkeypatch.setattr(stage, "save_bundle", lambda number, _path: shipped.append(number))
    aside: list[int] = []
    run = SimpleNamespace(log=lambda _: None, note_spent=lambda _: None, path=tmp_path)
    run.put_report_aside = lambda: aside.append(len(shipped))
    clock, settings = SimpleNamespace(remaining=1.0, elapsed=1.0), load_settings()
    context: Any = SimpleNamespace(run=run, tell=told.append, clock=clock, settings=settings)
    runner: Any = SimpleNamespace(files=files)
    judge = Judge(np.zeros(100, np.int64), np.arange(100), 2, "accuracy")
    task: Any = SimpleNamespace(candidates=list)
    keeper = _Keeper(context, SimpleNamespace(), runner, task, Chooser(files, judge))  # type: ignore[arg-type]
    trials = []
    for number, wrong in enumerate([20, 20, 5]):
        chances = np.tile(np.array([[0.9, 0.1]], np.float32), (100, 1))
        chances[:wrong] = [0.1, 0.9]
        files.save_result(number, {"w": torch.ones(1)}, chances)
        recipe = Recipe("finetune" if number else "probe", "net_a", 96)
        trial = Trial(number, recipe, {}, "portfolio" if number else "probe", state="complete")
        trials.append(trial.replace(score=1 - wrong / 100, loss=0.5 if number else 0.9))
        keeper.take(trials[-1], trials)
    assert [each.best.number for each in told] == [0, 0, 2]
    assert shipped == [0, 2]
    assert aside == [0, 1]  # each time before the model is another


@pytest.fixture
def notes() -> list[str]:
    """What the user was told."""
    return []


@pytest.fixture
def keeper(tmp_path: Path, notes: list[str]) -> _Keeper:
    """What takes trials of a search that tells `notes`."""
    run = SimpleNamespace(log=lambda _: None, note_spent=lambda _: None, path=tmp_path)
    clock, settings = SimpleNamespace(remaining=1.0, elapsed=1.0), load_settings()
    context: Any = SimpleNamespace(run=run, tell=lambda _: None, clock=clock, settings=settings, note=notes.append)
    files = TrialFiles(tmp_path)
    chooser = Chooser(files, Judge(np.zeros(10, np.int64), np.arange(10), 2, "accuracy"))
    runner: Any = SimpleNamespace(files=files)
    task: Any = SimpleNamespace(candidates=list)
    return _Keeper(context, SimpleNamespace(), runner, task, chooser)  # type: ignore[arg-type]


def test_the_user_reads_once_that_a_batch_did_not_fit(keeper: _Keeper, notes: list[str]) -> None:
    recipe = Recipe("finetune", "net_a", 96, batch_size=32, gradient_accumulation=2)
    trial = Trial(0, recipe, {}, "portfolio", state="failed")
    for number, at_once in enumerate((None, 8, 8, 4)):
        noted = {} if at_once is None else {"micro_batch": at_once}
        keeper.take(trial.replace(number=number, notes=noted), [])
    assert [line.split(":")[0] for line in notes] == [
        f"Memory has room for {at_once} images at once of net_a at 96 px" for at_once in (8, 4)
    ]
    assert "a step on 64" in notes[0]


def test_the_user_reads_once_what_came_of_compiling(keeper: _Keeper, notes: list[str]) -> None:
    trial = Trial(0, Recipe("finetune", "net_a", 96), {}, "portfolio", state="failed")
    for number, said in enumerate(("", "steps were compiled in 40 s", "steps were compiled in 40 s")):
        keeper.take(trial.replace(number=number, notes={"compiling": said} if said else {}), [])
    assert notes == ["net_a at 96 px: steps were compiled in 40 s."]


def test_the_user_reads_once_that_a_checkpoint_cannot_be_read(keeper: _Keeper, notes: list[str]) -> None:
    trial = Trial(3, Recipe("finetune", "net_a", 96), {}, "portfolio", notes={"unread": ["000003/checkpoint.pt"]})
    for state in ("running", "running", "stopped"):
        keeper.take(trial.replace(state=state), [])
    assert notes == ["Trial 3 trains epochs again, since a checkpoint cannot be read: 000003/checkpoint.pt."]
