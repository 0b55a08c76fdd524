from __future__ import annotations

import json
import math
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from automl_vision.models.backbones import BACKBONES
from automl_vision.search.prior import Curve, Levels, Prior, Traits, rate_at_reference, recipe_prior, traits_of
from automl_vision.training.recipe import Recipe

TRAITS = st.dictionaries(
    st.sampled_from(
        ["backbone", "imagenet_top1", "optimizer", "learning_rate", "weight_decay", "dropout", "never_heard_of"]
    ),
    st.one_of(st.text(max_size=3), st.floats(0, 1e3), st.sampled_from(["adamw", "sgd"])),
)


def test_a_level_adds_its_number_and_a_stranger_nothing() -> None:
    effect = Levels("optimizer", {"adamw": 0.1, "sgd": -0.1})
    assert [effect({"optimizer": name}) for name in ("adamw", "sgd", "lion")] == [0.1, -0.1, 0.0]
    assert effect({}) == 0.0


def test_a_curve_is_straight_between_knots_and_flat_beyond() -> None:
    effect = Curve("dropout", (0.0, 0.2), (0.1, -0.1))
    assert [effect({"dropout": value}) for value in (-1.0, 0.0, 0.05, 0.2, 9.0)] == pytest.approx(
        [0.1, 0.1, 0.05, -0.1, -0.1]
    )
    assert effect({}) == effect({"dropout": "high"}) == 0.0


def test_a_curve_may_be_straight_in_the_logarithm() -> None:
    effect = Curve("weight_decay", (1e-6, 1e-2), (0.0, 1.0), log=True)
    assert effect({"weight_decay": 1e-4}) == pytest.approx(0.5)
    assert effect({"weight_decay": 0.0}) == 0.0


def test_an_effect_counts_only_under_its_condition() -> None:
    effect = Curve("learning_rate", (1e-4, 1e-3), (1.0, 2.0), log=True, when={"optimizer": ("adamw",)})
    assert effect({"learning_rate": 1e-3, "optimizer": "adamw"}) == 2.0
    assert effect({"learning_rate": 1e-3, "optimizer": "sgd"}) == effect({"learning_rate": 1e-3}) == 0.0


def test_a_prior_survives_being_written() -> None:
    prior = Prior(
        "by hand",
        ("a",),
        0.5,
        (Levels("optimizer", {"adamw": 0.1}), Curve("dropout", (0.0, 1.0), (0.0, 1.0), True, ADAMW_ONLY)),
    )
    assert Prior.from_dict(json.loads(json.dumps(prior.to_dict()))) == prior
    with pytest.raises(KeyError):
        Prior.from_dict({**prior.to_dict(), "effects": [{"kind": "spline"}]})


ADAMW_ONLY = {"optimizer": ("adamw",)}


@given(TRAITS)
def test_whatever_a_recipe_is_the_expectation_is_a_share(traits: Traits) -> None:
    """Effects are bounded and add up to no more than all: a stranger is neither certain to win nor to lose."""
    assert -0.2 <= recipe_prior()(traits) <= 1.2


def test_nothing_known_is_the_middle() -> None:
    assert 0.3 < recipe_prior()({}) < 0.7
    assert recipe_prior()({"backbone": "nobody_knows_it"}) == recipe_prior()({})


@pytest.mark.parametrize("name", BACKBONES)
def test_backbones_that_were_not_recorded_are_told_apart_by_their_imagenet_accuracy(name: str) -> None:
    recipe = Recipe("finetune", name, 224)
    known = recipe_prior()(traits_of(recipe, BACKBONES[name].imagenet_top1))
    better = recipe_prior()(traits_of(recipe, 89.0))
    assert recipe_prior()(traits_of(recipe, 60.0)) < known < better


def test_it_holds_what_is_known_of_recipes() -> None:
    """AdamW has a plateau, its ends and plain SGD at small steps lose."""
    expected = {
        rate: recipe_prior()(traits_of(Recipe("finetune", "x", 224, learning_rate=rate), None))
        for rate in (1e-6, 3e-4, 5e-2)
    }
    assert expected[3e-4] > max(expected[1e-6], expected[5e-2]) + 0.1
    small_sgd = traits_of(Recipe("finetune", "x", 224, optimizer="sgd", learning_rate=1e-4), None)
    assert recipe_prior()(small_sgd) < expected[3e-4]


@given(st.floats(1e-6, 1.0), st.sampled_from([1, 8, 32, 512]))
def test_learning_rates_are_told_at_one_batch_size(rate: float, batch: int) -> None:
    assert rate_at_reference(rate, 32, "sgd") == rate_at_reference(rate, 32, "adamw") == rate
    assert rate_at_reference(rate, batch, "sgd") == pytest.approx(rate * 32 / batch)
    assert rate_at_reference(rate, batch, "adamw") == pytest.approx(rate * math.sqrt(32 / batch))


def test_it_needs_no_torch() -> None:
    asked = (
        "import sys; from automl_vision.search import prior; prior.recipe_prior()({}); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
