from __future__ import annotations

import math
from typing import Any

import pytest
from histories import finetune, probe
from hypothesis import given
from hypothesis import strategies as st

from automl_vision.search.costs import FROZEN_STEP, STEP_OVER_FORWARD, CostModel
from automl_vision.search.trial import Trial
from automl_vision.training.recipe import Recipe

GMACS = {"net_a": 0.4, "net_b": 4.0, "net_c": None}


def costs(trials: list[Trial], n_train: int = 100, n_val: int = 20) -> CostModel:
    return CostModel(trials, GMACS.get, n_train, n_val)


def recipe(backbone: str = "net_a", resolution: int = 96, **fields: Any) -> Recipe:
    return Recipe("finetune", backbone, resolution, **fields)


def test_nothing_timed_costs_infinitely_much() -> None:
    assert math.isinf(costs([]).epoch(recipe()))
    assert math.isinf(costs([finetune(0, [0.5]), probe(1)]).forward(recipe()))


@given(st.floats(1e-6, 10.0), st.integers(1, 10_000), st.integers(0, 10_000))
def test_a_probe_tells_what_a_step_costs(seconds: float, n_train: int, n_val: int) -> None:
    model = costs([probe(0, seconds_per_image=seconds)], n_train, n_val)
    assert model.forward(recipe()) == pytest.approx(seconds)
    assert model.epoch(recipe()) == pytest.approx(n_train * seconds * STEP_OVER_FORWARD + n_val * seconds)


@given(st.floats(1e-6, 10.0), st.sampled_from(["net_a", "net_b", "net_c"]), st.integers(32, 512), st.integers(1, 512))
def test_more_pixels_images_and_multiply_adds_never_cost_less(
    seconds: float, backbone: str, side: int, more: int
) -> None:
    trials = [probe(0, backbone="net_b", seconds_per_image=seconds)]
    here = costs(trials).epoch(recipe(backbone, side))
    assert 0 < here < math.inf
    assert costs(trials).epoch(recipe(backbone, side + more)) > here
    assert costs(trials, n_train=100 + more).epoch(recipe(backbone, side)) > here
    assert costs(trials, n_val=20 + more).epoch(recipe(backbone, side)) > here
    assert costs(trials).epoch(recipe("net_b", side)) >= costs(trials).epoch(recipe("net_a", side))


def test_what_was_measured_wins_over_what_was_scaled() -> None:
    timed = finetune(1, [0.5], seconds_per_image=0.7)
    trials = [probe(0, seconds_per_image=0.1), timed]
    assert costs(trials, 10, 0).epoch(recipe()) == pytest.approx(7.0)
    slower = finetune(2, [0.5], seconds_per_image=0.9)
    assert costs([*trials, slower], 10, 0).epoch(recipe()) == pytest.approx(9.0)


def test_the_same_backbone_is_a_better_witness_than_another() -> None:
    trials = [probe(0, backbone="net_b", seconds_per_image=1e-9), probe(1, seconds_per_image=0.1, resolution=48)]
    assert costs(trials).forward(recipe()) == pytest.approx(0.4)


def test_unknown_multiply_adds_count_as_equal() -> None:
    trials = [probe(0, backbone="net_c", seconds_per_image=0.1)]
    assert costs(trials).forward(recipe("net_a")) == pytest.approx(0.1)


def test_frozen_stages_make_steps_cheaper_and_forward_passes_as_dear() -> None:
    for trials in ([probe(0, seconds_per_image=0.1)], [finetune(0, [0.5], seconds_per_image=0.1)]):
        model = costs(trials, 10, 0)
        steps = [model.epoch(recipe(freeze_stages=count)) for count in range(4)]
        assert [step / steps[0] for step in steps] == pytest.approx(FROZEN_STEP)
        assert len({round(model.forward(recipe(freeze_stages=count)), 9) for count in range(4)}) == 1


def test_a_frozen_fine_tune_does_not_make_whole_ones_look_cheap() -> None:
    frozen = finetune(0, [0.5], seconds_per_image=0.1, recipe=recipe(freeze_stages=3))
    assert costs([frozen], 10, 0).epoch(recipe()) == pytest.approx(10 * 0.1 / FROZEN_STEP[3])
    assert costs([frozen], 10, 0).epoch(recipe(freeze_stages=3)) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("notes", "share", "seconds"),
    [
        ({"share": 0.5}, None, 20.0),  # as measured
        ({"share": 0.5}, 0.5, 20.0),
        ({"share": 0.5}, 1.0, 10.0),
        ({"share": 0.125}, 0.5, 5.0),
        ({}, 0.5, 40.0),
        ({}, 1.0, 20.0),
        ({}, None, 20.0),
    ],
)
def test_seconds_of_another_share_of_the_machine_are_scaled_to_the_one_that_trials_have_now(
    notes: dict[str, float], share: float | None, seconds: float
) -> None:
    timed = finetune(1, [0.5], recipe=recipe(), seconds_per_image=0.2, notes=notes)
    assert CostModel([timed], {"net_a": 1.0}.get, 100, 0, share=share).epoch(recipe()) == pytest.approx(seconds)
