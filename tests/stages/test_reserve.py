"""What the search leaves for the finish: little, and nothing before there is something to finish."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from automl_vision.config import OutputSettings
from automl_vision.search.trial import EpochRecord, Trial
from automl_vision.stages.reserve import FINISH_SHARE, REFIT_SHARE, seconds_to_finish, seconds_to_report
from automl_vision.training.recipe import Recipe

RECIPE = Recipe("finetune", "resnet18", 96, epochs=2)
EPOCHS = tuple(EpochRecord(k, 1.0, 1.0, 0.5, 1e-3, 1.0) for k in (1, 2))
TUNED = Trial(1, RECIPE, {}, "portfolio", state="complete", epochs=EPOCHS, score=0.8, seconds_per_image=0.04)
PROBE = Trial(0, replace(RECIPE, kind="probe"), {}, "probe", state="complete", score=0.5, seconds_per_image=0.01)


def prepared_of(images: int = 100) -> Any:
    split = SimpleNamespace(rows=lambda _: np.arange(images), augmented_val=np.arange(0), dealt=("test", "val"))
    return SimpleNamespace(split=split, manifest=SimpleNamespace(class_names=("a", "b")))


def context_of(*, refit: str = "off", budget: float = 600.0) -> Any:
    clock = SimpleNamespace(budget=budget, remaining=budget, wall_per_cpu_second=1.0)
    return SimpleNamespace(
        clock=clock,
        settings=SimpleNamespace(
            search=SimpleNamespace(refit=refit, trials=0, budget_per_backbone=""), output=OutputSettings()
        ),
    )


def test_nothing_is_left_before_there_is_something_to_finish() -> None:
    assert seconds_to_finish(context_of(refit="on"), prepared_of(), []) == 0.0
    assert seconds_to_finish(context_of(), prepared_of(), [PROBE]) == 0.0  # nothing is tried on a probe


def test_more_mates_for_a_soup_and_a_refit_take_longer() -> None:
    one = seconds_to_finish(context_of(), prepared_of(), [PROBE, TUNED])
    two = seconds_to_finish(context_of(), prepared_of(), [PROBE, TUNED, TUNED.replace(number=2)])
    assert 0 < one < two
    refit = seconds_to_finish(context_of(refit="on"), prepared_of(), [PROBE, TUNED]) - one
    assert refit >= 2 * 200 * 0.04  # two epochs on training and validation images
    assert seconds_to_finish(context_of(refit="on"), prepared_of(), [PROBE]) > 0


def test_unasked_time_for_a_refit_is_kept_once_a_fine_tune_is_whole_and_where_it_is_enough() -> None:
    def kept(*trials: Trial, way: str = "auto", budget: float = 600.0, images: int = 100) -> float:
        return seconds_to_finish(context_of(refit=way, budget=budget), prepared_of(images), trials) - seconds_to_finish(
            context_of(budget=budget), prepared_of(images), trials
        )

    assert kept(PROBE) == kept(PROBE, TUNED.replace(state="running")) == 0.0
    assert kept(PROBE, TUNED) == kept(PROBE, TUNED, way="on") > 0
    assert kept(PROBE, TUNED, images=10_000) == 0.0 < kept(PROBE, TUNED, way="on", images=10_000)
    assert kept(PROBE, TUNED, budget=math.inf) == 0.0


@pytest.mark.parametrize("budget", [30.0, 600.0, math.inf])
@pytest.mark.parametrize("images", [10, 100_000])
def test_the_finish_takes_no_more_than_its_shares(budget: float, images: int) -> None:
    found = seconds_to_finish(context_of(refit="on", budget=budget), prepared_of(images), [PROBE, TUNED])
    assert 0 < found <= (FINISH_SHARE + REFIT_SHARE) * budget
    assert math.isfinite(found)


def test_an_ensemble_takes_longer_to_test() -> None:
    one, three = (seconds_to_report(context_of(), prepared_of(1000), [TUNED], passes) for passes in (1, 3))
    assert three - one == pytest.approx(1.5 * 2 * 1000 * 0.01)


def test_deadlines_rest_on_seconds_as_measured_where_trials_shared_the_machine() -> None:
    """Work with half of a machine seldom takes twice as long: what it would take alone is no promise."""
    alone, beside = ([PROBE, TUNED.replace(notes=notes)] for notes in ({}, {"share": 0.25}))
    for trials in (alone, beside):
        assert seconds_to_finish(context_of(refit="on"), prepared_of(), trials) == seconds_to_finish(
            context_of(refit="on"), prepared_of(), alone
        )
        assert seconds_to_report(context_of(), prepared_of(), trials) == seconds_to_report(
            context_of(), prepared_of(), alone
        )
