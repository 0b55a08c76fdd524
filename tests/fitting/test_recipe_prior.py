"""Effects that were put into made-up records come out of the fit, smaller where there is little to go by."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from automl_vision.search.history_file import RungRecord
from automl_vision.search.prior import Curve, Levels, Prior
from automl_vision.training.recipe import Recipe
from recipe_prior import COSTS, QUALITY, fit_costs, fit_quality, history_sets, share_beaten
from recorded_runs import RecordedRun, RecordedSet


def made_up(number: int, seed: int, *, name: str = "made_up", images: int = 1_000) -> RecordedSet:
    """Dropout costs 40 points, the first backbone is 10 points better; epochs take 1 ms per image, the second 4."""
    rng = np.random.default_rng(seed)
    runs = []
    for key in range(number):
        dropout, second = rng.uniform(0, 0.4), bool(rng.integers(2))
        traits: dict[str, Any] = {
            "backbone": "second" if second else "first",
            "size": "small",
            "gmacs": 1.0,
            "imagenet_top1": 80.0,
            "optimizer": "adamw",
            "learning_rate": 1e-4,
            "weight_decay": 1e-4,
            "batch_size": 32.0,
            "mixed_precision": "yes",
            "dropout": dropout,
            "stochastic_norm": "no",
            "frozen_share": 0.0,
        }
        final = 80 - 100 * dropout - 10 * second + rng.normal(0, 1)
        seconds = np.full(3, images * (0.004 if second else 0.001))
        runs.append(RecordedRun(str(key), traits, 0, np.array([1.0, 2.0, final]), seconds))
    return RecordedSet(name, images, tuple(runs))


def effect_of(prior: Prior, trait: str) -> Any:
    return next(each for each in prior.effects if isinstance(each, Curve | Levels) and each.trait == trait)


def test_what_was_put_in_comes_out() -> None:
    prior = fit_quality([made_up(300, seed) for seed in range(3)])
    dropout, backbone = effect_of(prior, "dropout").effects, effect_of(prior, "backbone").effects
    assert dropout[0] > dropout[2] > dropout[4]
    assert backbone["first"] > 0 > backbone["second"]
    assert set(backbone) == {"first", "second"}


def test_few_runs_move_little() -> None:
    few, many = (fit_quality([made_up(number, 0)]) for number in (12, 600))
    assert abs(effect_of(few, "backbone").effects["first"]) < abs(effect_of(many, "backbone").effects["first"])


def test_what_it_expects_of_runs_it_has_not_seen_goes_with_what_came() -> None:
    prior, other = fit_quality([made_up(300, 0)]), made_up(300, 1)
    expected = [prior(run.traits) for run in other.runs]
    assert np.corrcoef(expected, share_beaten(other))[0, 1] > 0.9
    assert np.mean(expected) == pytest.approx(0.5, abs=0.05)


def test_costs_are_those_of_the_backbone() -> None:
    prior = fit_costs([made_up(300, 0), made_up(300, 1, images=50_000)])
    seconds = {name: math.exp(prior(run_of(name).traits)) for name in ("first", "second")}
    assert seconds == pytest.approx({"first": 0.001, "second": 0.004}, rel=0.1)


def run_of(name: str) -> RecordedRun:
    return next(run for run in made_up(50, 5).runs if run.traits["backbone"] == name)


def test_shares_beaten_ignore_how_far_accuracies_are_spread() -> None:
    recorded = made_up(20, 0)
    squeezed = replace(recorded, runs=tuple(replace(run, accuracy=run.accuracy / 10) for run in recorded.runs))
    shares = share_beaten(recorded)
    assert shares == pytest.approx(share_beaten(squeezed))
    assert (min(shares), max(shares), np.mean(shares)) == pytest.approx((0.0, 1.0, 0.5))
    equal = replace(recorded, runs=(recorded.runs[0],) * 4)
    assert share_beaten(equal) == pytest.approx([0.5] * 4)


def of_history(run: str, trial: int, epoch: int, score: float, **recipe: Any) -> RungRecord:
    values = Recipe("finetune", "resnet18", 96, epochs=6, **recipe).to_dict()
    figures = {"parameters_m": 11.7, "gmacs": 1.8, "imagenet_top1": 73.2}
    data = {"n_train": 500, "n_val": 100, "n_classes": 4, "imbalance": 1.0}
    return RungRecord(
        run=run,
        trial=trial,
        kind="finetune",
        state="paused",
        epoch=epoch,
        score=score,
        loss=1.0,
        seconds=2.0 * epoch,
        objective="accuracy",
        recipe=values,
        backbone=figures,
        data=data,
        device="cpu",
        precision="float32",
        version="0.1.0",
    )


def test_a_history_is_recorded_sets_one_for_each_run() -> None:
    lines = [
        *(of_history("a", 1, epoch, score) for epoch, score in ((2, 0.4), (6, 0.7))),
        of_history("a", 2, 2, 0.5, batch_size=16, gradient_accumulation=4),
        of_history("b", 1, 2, 0.9),  # alone in its run: it beat nobody
        *(of_history("c", number, 1, 0.1 * number) for number in (1, 2)),  # one epoch says nothing
        *(of_history("d", number, 2, 0.1 * number, pretrained=False) for number in (1, 2)),
    ]
    (only,) = history_sets(lines)
    assert (only.name, only.images) == ("history a", 500)
    assert [run.best for run in only.runs] == [70.0, 50.0]
    assert [run.traits["learning_rate"] for run in only.runs] == [
        pytest.approx(2e-4),
        pytest.approx(2e-4 / math.sqrt(2)),
    ]
    assert only.runs[0].seconds.tolist() == [2.0, 2.0]
    assert share_beaten(only).tolist() == [1.0, 0.0]


def test_a_prior_is_fitted_to_records_and_history_alike() -> None:
    lines = [
        of_history("a", number, 2, 0.9 if number % 2 else 0.3, optimizer=("adamw", "sgd")[number % 2])
        for number in range(60)
    ]
    prior = fit_quality([made_up(100, 0), *history_sets(lines)])
    optimizers = effect_of(prior, "optimizer").effects
    assert optimizers["sgd"] > optimizers["adamw"]
    assert "history a" in prior.sets


def test_there_is_nothing_to_fit_to_nothing() -> None:
    with pytest.raises(ValueError, match="at least one"):
        fit_quality([])


def test_the_prior_that_ships_has_the_effects_that_are_fitted() -> None:
    from automl_vision.search.prior import recipe_prior

    wanted = [(type(each.effect), each.effect.trait) for each in QUALITY]
    assert [(type(each), each.trait) for each in recipe_prior().effects if isinstance(each, Curve | Levels)] == wanted
    assert COSTS.exists()
