"""Stage `costs`: what is measured within which time, and what becomes of what is too slow."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from automl_vision.data.preprocess import Preprocessing
from automl_vision.models.costs import BATCHES, PASSES, WARM_UP, BatchCost, Form, Limits, Timing
from automl_vision.runtime import Runtime
from automl_vision.search.trial import EpochRecord, Trial
from automl_vision.stages import costs as stage
from automl_vision.stages.costs import CostMeter, Measured, OnDevice, measure_forms, without_slow
from automl_vision.stages.costs_section import front_of, points_of, training_costs
from automl_vision.stages.limits import Room, form_of
from automl_vision.stages.reserve import COSTS_SHARE, MOST_COSTS_SECONDS, costs_seconds, most_costs_seconds
from automl_vision.training.recipe import Recipe

CPU = Runtime(torch.device("cpu"), None, 2)
FAST, SLOW = Form("mobilenetv3_small_100", 32), Form("mobilenetv3_small_100", 64)


def trial(number: int, form: Form = FAST, score: float | None = 0.5, **fields: Any) -> Trial:
    recipe = Recipe("finetune", form.backbone, form.resolution)
    return Trial(number, recipe, {}, "portfolio", state="complete", score=score, loss=1.0, **fields)


def meter(limits: Limits = Limits(), **timed: float) -> CostMeter:  # noqa: B008  # it is immutable
    forms = {"fast": FAST, "slow": SLOW}
    timings = {(forms[name],): Timing(value, value, PASSES) for name, value in timed.items()}
    return CostMeter(Room(limits, 3), CPU, timings)


def measured(limits: Limits = Limits(), **timed: float) -> Measured:  # noqa: B008
    found = meter(limits, **timed)
    return Measured(found, {form: {"cpu": OnDevice(timing)} for (form,), timing in found.timings.items()})


# --- measuring -------------------------------------------------------------------------------------------------------


@pytest.fixture
def counted_passes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Networks that are never built; a pass of each is written down."""
    asked: list[str] = []

    def asking(ensemble: Any, images: int, device: torch.device) -> Any:
        return lambda: asked.append(f"{ensemble}x{images}")

    monkeypatch.setattr(stage, "random_ensemble", lambda forms, *_: str(forms[0].resolution))
    monkeypatch.setattr(stage, "asking", asking)
    monkeypatch.setattr(stage, "batch_cost", lambda ensemble, runtime: asked.append("batch") or BatchCost(8, 99.0, 1))
    return asked


def test_all_are_timed_in_turns_and_then_in_batches(counted_passes: list[str]) -> None:
    found, missing = measure_forms([FAST, SLOW], 3, CPU, lambda: 1e6)
    assert missing == 0
    assert [cost.timing.passes for cost in found.values()] == [PASSES, PASSES]
    assert counted_passes[:4] == ["32x1"] * 2 + ["64x1"] * 2  # how long a pass takes, to know what fits
    assert counted_passes[4:-2] == ["32x1", "64x1"] * (PASSES + WARM_UP)
    assert counted_passes[-2:] == ["batch"] * 2
    assert found[FAST].to_dict()["batch"] == {"images": 8, "images_per_second": 99.0, "memory_bytes": 1}


def test_what_has_no_time_is_counted_and_not_guessed(counted_passes: list[str]) -> None:
    assert measure_forms([FAST, SLOW], 3, CPU, lambda: 0.0) == ({}, 2)
    assert counted_passes == []
    looks = iter([1e6] * 9 + [0.0] * 99)  # over in the middle of the rounds
    assert measure_forms([FAST, SLOW], 3, CPU, lambda: next(looks)) == ({}, 2)
    looks = iter([1e6] * (2 + WARM_UP + PASSES) + [0.0] * 99)  # over before the batches
    found, missing = measure_forms([FAST], 3, CPU, lambda: next(looks))
    assert (found[FAST].batch, missing) == (None, 1)


def test_real_networks_are_measured() -> None:
    found, missing = measure_forms([FAST], 3, CPU, lambda: 1e6)
    assert missing == 0
    cost = found[FAST]
    assert 0 < cost.timing.p50_ms <= cost.timing.p95_ms
    assert cost.batch is not None
    assert cost.batch.images_per_second > 0
    assert BATCHES > 0


def test_the_cpu_is_measured_besides_a_gpu() -> None:
    assert [each.device.type for each in stage._runtimes(CPU)] == ["cpu"]
    gpu = Runtime(torch.device("cuda:0"), "bfloat16", 2)
    both = stage._runtimes(gpu)
    told = [(each.device.type, each.amp_dtype, each.threads) for each in both]
    assert told == [("cuda", "bfloat16", 2), ("cpu", None, 2)]


def context_of(budget: float) -> Any:
    return SimpleNamespace(clock=SimpleNamespace(budget=budget))


def test_the_search_leaves_what_it_takes_up_to_a_share() -> None:
    assert costs_seconds(context_of(1000.0), []) == 0.0
    one = [trial(0, seconds_per_image=0.01)]
    two = [*one, trial(1, SLOW, seconds_per_image=0.01)]
    first, both = (costs_seconds(context_of(1000.0), each) for each in (one, two))
    assert 0 < first < both <= COSTS_SHARE * 1000
    assert costs_seconds(context_of(10.0), two) == COSTS_SHARE * 10
    assert most_costs_seconds(float("inf")) == MOST_COSTS_SECONDS


# --- limits at the end ---------------------------------------------------------------------------------------------


def network(form: Form) -> Any:
    preprocessing = Preprocessing(form.resolution, (0.5,) * 3, (0.5,) * 3)
    return SimpleNamespace(backbone=form.backbone, head=form.head, flip=form.flip, preprocessing=preprocessing)


def test_a_model_is_refused_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    assert meter().refusal([network(FAST)]) == ""
    small = meter(Limits(params_m=2.0))
    assert small.refusal([network(FAST)]) == ""
    assert "3.04 million parameters (limit 2)" in small.refusal([network(FAST), network(SLOW)])
    assert small.refusal([network(FAST), network(SLOW)], [network(FAST), network(SLOW)]) == ""  # no worse than before
    timed: list[Any] = []
    monkeypatch.setattr(stage, "time_in_turns", lambda asks: timed.append(asks) or {key: [0.009] for key in asks})
    slow = meter(Limits(latency_ms=8.0), fast=5.0)
    flipped = Form(FAST.backbone, FAST.resolution, flip=True)
    assert slow.refusal([network(FAST)]) == ""
    assert timed == []
    for _ in range(2):
        assert slow.refusal([network(flipped)]) == "9.00 ms for one image (limit 8)"
    assert len(timed) == 1  # and is known then


def searched(*trials: Trial) -> Any:
    from automl_vision.stages.search import Searched

    task = SimpleNamespace(candidates=list)
    return Searched(SimpleNamespace(trials=list(trials), task=task), None, None, "budget")  # type: ignore[arg-type]


def test_what_proved_too_slow_is_no_candidate_while_there_are_others() -> None:
    notes: list[str] = []
    context: Any = SimpleNamespace(note=lambda text, warning: notes.append(text))
    a_search = searched(trial(0), trial(1, SLOW))
    kept = without_slow(context, a_search, measured(Limits(latency_ms=10.0), fast=9.0, slow=11.0))
    assert [each.number for each in kept.candidates] == [0]
    assert "mobilenetv3_small_100 at 64 px" in notes[0]
    kept = without_slow(context, a_search, measured(Limits(latency_ms=8.0), fast=9.0, slow=11.0))
    assert [each.number for each in kept.candidates] == [0, 1]  # a model that is a little slow is better than none
    assert len(notes) == 1


# --- the report ----------------------------------------------------------------------------------------------------


def test_points_are_of_scored_trials_whose_network_was_timed() -> None:
    found = measured(fast=5.0)
    trials = [trial(0, score=0.7), trial(1, score=0.8), trial(2, SLOW, score=0.9), trial(3, score=None)]
    assert [(each.trial, each.latency_ms) for each in points_of(trials, found)] == [(0, 5.0), (1, 5.0)]
    assert front_of(trials, found) == {1}
    assert front_of(trials, measured(fast=5.0, slow=6.0)) == {1, 2}
    assert front_of(trials, measured(fast=5.0, slow=4.0)) == {2}


def test_training_is_told_by_its_records() -> None:
    def epoch(seconds: float, cpu: float | None) -> EpochRecord:
        return EpochRecord(1, 1.0, 1.0, 0.5, 1e-3, seconds, cpu)

    known = trial(0, peak_bytes=700, epochs=(epoch(10.0, 15.0), epoch(10.0, 5.0)))
    older = trial(1, peak_bytes=900, epochs=(epoch(99.0, None),))
    probe = Trial(2, Recipe("probe", "net", 32), {}, "probe", peak_bytes=10_000)
    assert training_costs([known, older, probe], 2) == {"peak_bytes": 900, "cpu_utilisation": 0.5}
    half = known.replace(notes={"share": 0.5})
    assert training_costs([half], 2)["cpu_utilisation"] == 2 * training_costs([known], 2)["cpu_utilisation"]
    assert training_costs([probe], 2) == {"peak_bytes": None, "cpu_utilisation": None}


def test_forms_are_what_recipes_say() -> None:
    assert form_of(Recipe("finetune", "net_a", 96, head="mlp:8-gelu")) == Form("net_a", 96, "mlp:8-gelu")
