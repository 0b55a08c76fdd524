"""One recipe, given by the user: what is asked for is what is trained, by the whole way from settings to weights."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from memory_source import MemorySource

from automl_vision.config import Settings, TrainingSettings, load_settings
from automl_vision.executors import LocalExecutor
from automl_vision.runtime import Runtime
from automl_vision.search import run_trial
from automl_vision.search.run_trial import TrialRunner
from automl_vision.search.search import Search, SearchEnded, SearchTask
from automl_vision.search.trial import Trial, best_trial
from automl_vision.search.trial_files import TrialFiles
from automl_vision.stages.search import pinned
from automl_vision.training.batch_size import EFFECTIVE_BATCHES, LARGEST_BATCH, effective_batch
from automl_vision.training.loop import Trainer, TrainingData
from automl_vision.training.recipe import Recipe

N_TRAIN, N_VAL, CLASSES = 24, 12, 3
#: What every recipe here has, unless a test changes it: quick, and sensitive to every setting.
BASE: dict[str, Any] = {
    "epochs": 2,
    "batch_size": 8,
    "optimizer": "sgd",
    "ema": False,
    "freeze_norm": False,
    "head_from_probe": False,
}
#: A value that no search would choose, outside of its ranges where there are any; and what else must be so for the
#: setting to have an effect. Every setting of [training] needs a line.
GIVEN: dict[str, tuple[Any, dict[str, Any]]] = {
    "epochs": (3, {}),
    "batch_size": (5, {}),
    "gradient_accumulation": (2, {}),
    "optimizer": ("adam", {}),
    "learning_rate": (0.7, {}),
    "weight_decay": (0.9, {"learning_rate": 0.1}),
    "momentum": (0.05, {}),
    "layer_decay": (0.11, {}),
    "schedule": ("constant", {}),
    "warmup_fraction": (0.9, {}),
    "augment": ("trivial", {}),
    "horizontal_flip": (False, {}),
    "vertical_flip": (True, {}),
    "quarter_turns": (True, {}),
    "erasing": (0.9, {}),
    "mix": ("cutmix", {}),
    "loss": ("weighted", {}),
    "sampling": ("balanced", {}),
    "freeze_stages": (3, {}),
    "label_smoothing": (0.77, {}),
    "ema": (True, {"epochs": 4, "batch_size": 2}),  # an average over few steps is the last one
    "clip_norm": (0.001, {}),
    "freeze_norm": (True, {}),
    "head_from_probe": (False, {}),
    "drop_path": (0.9, {}),
    "patience": (1, {"epochs": 4, "min_improvement": 1.0, "learning_rate": 0.001}),
    "min_improvement": (1.0, {"epochs": 10, "patience": 4, "learning_rate": 0.01}),
}


@pytest.fixture(scope="module")
def data() -> TrainingData:
    labels = torch.tensor([0, 0, 0, 1, 1, 2]).repeat((N_TRAIN + N_VAL) // 6)  # uneven, or losses and sampling are one
    noise = torch.randint(0, 120, (len(labels), 3, 40, 40), generator=torch.Generator().manual_seed(0))
    images = (noise + 45 * labels[:, None, None, None]).to(torch.uint8)
    rows = torch.arange(len(labels))
    train, val = rows[:N_TRAIN], rows[N_TRAIN:]
    return TrainingData(MemorySource(images, (32, 40)), train, labels[train], val, labels[val], CLASSES)


@pytest.fixture
def trained_with(monkeypatch: pytest.MonkeyPatch) -> list[Recipe]:
    """The recipes that trainers were made with."""
    recipes: list[Recipe] = []

    class Seen(Trainer):
        def __init__(self, recipe: Recipe, *rest: Any) -> None:
            recipes.append(recipe)
            super().__init__(recipe, *rest)

    monkeypatch.setattr(run_trial, "Trainer", Seen)
    return recipes


def searched(data: TrainingData, folder: Path, settings: Settings, backbone: str = "test_vit") -> Search:
    """A search that has ended, with real training."""
    runner = TrialRunner(
        data=data,
        train_groups=np.arange(N_TRAIN),
        objective="accuracy",
        runtime=Runtime(torch.device("cpu"), None, 1),
        files=TrialFiles(folder / "trials"),
        weights={},
        seconds_left=lambda: math.inf,
    )
    task = SearchTask(
        backbones=(backbone,),
        pretrained=False,
        resolutions=(32,),
        fixed=pinned(settings.training, N_TRAIN),
        n_train=N_TRAIN,
        n_val=N_VAL,
        gmacs=lambda name: 1.0,
        max_trials=settings.search.trials,
    )
    search = Search(task, LocalExecutor(runner), [], seconds_left=lambda: math.inf)
    *_, end = list(search)
    assert isinstance(end, SearchEnded)
    return search


def one_recipe(**training: Any) -> Settings:
    return load_settings(overrides={"search.trials": 1, **{f"training.{k}": v for k, v in (BASE | training).items()}})


def fine_tunes(search: Search) -> list[Trial]:
    return [trial for trial in search.trials if trial.recipe.kind == "finetune"]


def course(search: Search) -> list[tuple[float | None, float]]:
    """What training came to, epoch by epoch: any setting with an effect changes it."""
    (trial,) = fine_tunes(search)
    return [(epoch.train_loss, epoch.val_loss) for epoch in trial.epochs]


#: Batch norm is in one of the test networks, stochastic depth in the other.
BACKBONE = {"freeze_norm": "test_efficientnet"}


@pytest.mark.parametrize("name", [each.name for each in dataclasses.fields(TrainingSettings)])
def test_what_the_user_gives_is_what_the_trainer_gets_and_it_has_an_effect(
    name: str, data: TrainingData, tmp_path: Path, trained_with: list[Recipe]
) -> None:
    value, others = GIVEN[name]
    network = BACKBONE.get(name, "test_vit")
    given = searched(data, tmp_path / "given", one_recipe(**others, **{name: value}), network)
    (recipe,) = trained_with
    assert {key: getattr(recipe, key) for key in others} == others
    assert getattr(recipe, name) == value
    assert fine_tunes(given)[0].recipe == recipe
    others = {key: each for key, each in others.items() if key != name}
    without = load_settings(overrides={"search.trials": 1, **_without(name, others)})
    plain = searched(data, tmp_path / "plain", without, network)
    assert getattr(trained_with[1], name) != value
    assert course(given) != course(plain)


def _without(name: str, others: dict[str, Any]) -> dict[str, Any]:
    """The settings that leave `name` to the search; epochs stay few."""
    kept = {key: value for key, value in (BASE | others).items() if key != name or key in ("epochs", "batch_size")}
    return {f"training.{key}": value for key, value in kept.items()}


def test_every_setting_of_training_is_a_field_of_a_recipe() -> None:
    settings = {each.name for each in dataclasses.fields(TrainingSettings)}
    assert settings <= {each.name for each in dataclasses.fields(Recipe)}
    assert settings == set(GIVEN)


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fine-tunes that score 0, whatever they learn."""
    monkeypatch.setattr(Trainer, "best_score", 0.0)


@pytest.mark.usefixtures("scripted")
def test_the_recipe_is_the_model_however_good_the_probe_is(data: TrainingData, tmp_path: Path) -> None:
    search = searched(data, tmp_path, one_recipe(head_from_probe=True))
    kinds = [trial.recipe.kind for trial in search.trials]
    assert kinds == ["probe", "finetune"]
    best = best_trial(search.trials)
    assert best is not None
    assert best.recipe.kind == "probe"  # on validation
    assert search.task.candidates(search.trials) == fine_tunes(search)


def test_without_the_head_of_a_probe_no_probe_is_fitted(data: TrainingData, tmp_path: Path) -> None:
    search = searched(data, tmp_path, one_recipe(head_from_probe=False))
    assert [trial.recipe.kind for trial in search.trials] == ["finetune"]
    assert fine_tunes(search)[0].state == "complete"


def test_a_probe_that_is_perfect_does_not_keep_the_recipe_from_being_trained() -> None:
    task = SearchTask(("a",), True, (32,), {"epochs": 1}, 10, 10, lambda name: 1.0, max_trials=1)
    assert task.one_recipe
    assert not dataclasses.replace(task, max_trials=2).one_recipe
    assert not dataclasses.replace(task, fixed={}).one_recipe


def test_accumulated_gradients_are_those_of_one_large_batch(data: TrainingData, tmp_path: Path) -> None:
    """Without batch norm the two are the same training, up to the rounding of sums."""
    rates = {"learning_rate": 0.05}
    whole = searched(data, tmp_path / "whole", one_recipe(batch_size=12, **rates))
    parts = searched(data, tmp_path / "parts", one_recipe(batch_size=4, gradient_accumulation=3, **rates))
    (first,), (second,) = fine_tunes(whole), fine_tunes(parts)
    assert first.recipe.effective_batch == second.recipe.effective_batch == 12
    assert np.allclose(course(whole), course(parts), rtol=1e-3)


@pytest.mark.parametrize("n_train", [1, 1_999, 2_000, 19_999, 20_000, 10**6])
@pytest.mark.parametrize("accumulation", [None, 1, 4, 1024])
def test_an_automatic_batch_goes_with_the_number_of_images(n_train: int, accumulation: int | None) -> None:
    training = load_settings(
        overrides={"training.batch_size": "auto", "training.gradient_accumulation": accumulation}
    ).training
    size = pinned(training, n_train)["batch_size"]
    assert size >= 1
    assert size * (accumulation or 1) == max(effective_batch(n_train), accumulation or 1)
    assert effective_batch(n_train) in {*(size for _, size in EFFECTIVE_BATCHES), LARGEST_BATCH}


def test_a_rate_that_is_searched_goes_with_the_batch_and_one_that_is_given_does_not(
    data: TrainingData, tmp_path: Path, trained_with: list[Recipe]
) -> None:
    for batch in (8, 2):
        searched(data, tmp_path / f"sgd{batch}", one_recipe(batch_size=batch, epochs=1))
        searched(data, tmp_path / f"given{batch}", one_recipe(batch_size=batch, epochs=1, learning_rate=0.3))
        searched(data, tmp_path / f"adam{batch}", one_recipe(batch_size=batch, epochs=1, optimizer="adam"))
    sgd, given, adam, small_sgd, small_given, small_adam = (recipe.learning_rate for recipe in trained_with)
    assert sgd == pytest.approx(4 * small_sgd)
    assert adam == pytest.approx(2 * small_adam)
    assert given == small_given == 0.3


def test_a_smaller_micro_batch_is_told(data: TrainingData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Trainer._gradients

    def tight(
        self: Trainer, step: int, images: torch.Tensor, labels: torch.Tensor, size: int, whole: int
    ) -> torch.Tensor:
        if size > 4:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return real(self, step, images, labels, size, whole)

    monkeypatch.setattr(Trainer, "_gradients", tight)
    (trial,) = fine_tunes(searched(data, tmp_path, one_recipe()))
    assert trial.recipe.batch_size == 8
    assert trial.notes["micro_batch"] == 4


def test_a_size_that_fitted_is_where_later_trials_of_a_run_begin(
    data: TrainingData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, sizes = Trainer._gradients, []

    def tight(
        self: Trainer, step: int, images: torch.Tensor, labels: torch.Tensor, size: int, whole: int
    ) -> torch.Tensor:
        sizes.append(size)
        if size > 4:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return real(self, step, images, labels, size, whole)

    monkeypatch.setattr(Trainer, "_gradients", tight)
    settings = load_settings(overrides={"search.trials": 2, "training.batch_size": 8, "training.epochs": 1})
    first, second = fine_tunes(searched(data, tmp_path, settings))
    assert sizes.count(8) == 1
    assert first.notes["micro_batch"] == second.notes["micro_batch"] == 4
