"""Stage `finish`: what is tried on the chosen trial, what is adopted, and one path of probabilities for all."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from memory_source import MemorySource
from PIL import Image

from automl_vision.bundle import load_bundle, save_bundle
from automl_vision.config import OutputSettings
from automl_vision.errors import WeightsError
from automl_vision.models.classifier import build_classifier
from automl_vision.models.costs import Form, Limits, Timing
from automl_vision.models.features import OutOfTime
from automl_vision.models.image_source import resized_batches
from automl_vision.models.inference import logits, softmax
from automl_vision.predictor import Model
from automl_vision.runtime import Runtime
from automl_vision.search import choice
from automl_vision.search import retrain as retraining
from automl_vision.search.choice import Chooser
from automl_vision.search.judge import Gain, Judge
from automl_vision.search.run_trial import TrialRunner
from automl_vision.search.trial import EpochRecord, Trial
from automl_vision.search.trial_files import TrialFiles
from automl_vision.stages import finish as finishing
from automl_vision.stages import improve as steps
from automl_vision.stages import refit as refitting
from automl_vision.stages.context import StopRequest
from automl_vision.stages.costs import CostMeter
from automl_vision.stages.finish import finish
from automl_vision.stages.improve import Attempt, Bench, Draft, Row, improve, stored_votes
from automl_vision.stages.limits import Room
from automl_vision.stages.refit import refitted
from automl_vision.training.loop import TrainingData
from automl_vision.training.recipe import Recipe

CPU = Runtime(torch.device("cpu"), None, 1)
NAMES = ("a", "b", "c")
TRAIN, VAL, TEST = np.arange(9), np.arange(9, 24), np.arange(24, 30)
LABELS = np.arange(30) % 3
RECIPE = Recipe(
    "finetune", "mobilenetv3_small_100", 32, pretrained=False, epochs=1, batch_size=4, head_from_probe=False
)


@pytest.fixture(scope="module")
def source() -> MemorySource:
    """Thirty pictures; the three classes differ in their colour, and in which side it is on."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 200, (30, 3, 32, 32), dtype=torch.uint8, generator=generator)
    for row, label in enumerate(LABELS):
        images[row, label, :, :16] += 55
    return MemorySource(images, (32,))


def records(losses: list[float]) -> tuple[EpochRecord, ...]:
    return tuple(EpochRecord(k, loss, loss, 0.5, 1e-3, 1.0) for k, loss in enumerate(losses, start=1))


SEARCH = {"ensemble": False, "refit": "off", "measure_impact": False, "trials": 0, "budget_per_backbone": ""}


class Run:
    """A search that came to an end, in a folder: trials with real networks of random weights."""

    def __init__(self, path: Path, source: MemorySource, *, objective: str = "accuracy", **search: Any) -> None:
        self.source = source
        data = TrainingData(
            source, torch.from_numpy(TRAIN), torch.from_numpy(LABELS[TRAIN]), torch.from_numpy(VAL),
            torch.from_numpy(LABELS[VAL]), 3,
        )  # fmt: skip
        files = TrialFiles(path / "trials")
        self.runner = TrialRunner(data, TRAIN, objective, CPU, files, {}, lambda: math.inf)
        self.judge = Judge(LABELS[VAL], VAL, 3, objective)
        self.trials: list[Trial] = []
        rows = {"train": TRAIN, "val": VAL, "test": TEST}
        split = SimpleNamespace(rows=rows.__getitem__, augmented_val=np.arange(0), dealt=("test", "val"))
        self.prepared: Any = SimpleNamespace(
            split=split,
            store=source,
            fingerprint=None,
            labels=LABELS.__getitem__,
            groups=lambda each: each,
            manifest=SimpleNamespace(class_names=NAMES, fingerprint="f"),
        )
        settings = SimpleNamespace(
            search=SimpleNamespace(**SEARCH | search),
            output=OutputSettings(fingerprint=False),
            machine=SimpleNamespace(seed=0),
        )
        self.context: Any = SimpleNamespace(
            clock=SimpleNamespace(remaining=math.inf, budget=math.inf, wall_per_cpu_second=1.0),
            settings=settings,
            stop=StopRequest(),
            run=SimpleNamespace(looks=[]),
            data_fingerprint="f",
        )

    def add(self, seed: int, recipe: Recipe = RECIPE, *, head: float = 1.0, **fields: Any) -> Trial:
        """A finished trial whose network has random weights."""
        number = len(self.trials)
        net = build_classifier(recipe.backbone, 3, resolution=recipe.resolution, seed=seed)
        torch.nn.init.normal_(net.head.weight, std=head, generator=torch.Generator().manual_seed(seed))  # type: ignore[arg-type] # a linear head
        batches = resized_batches(self.source, torch.from_numpy(VAL), recipe.resolution, 8)
        probabilities = softmax(logits(net, batches, self.runner.preprocessing(recipe), CPU))
        self.runner.files.save_result(number, net.state_dict(), probabilities)
        trial = Trial(number, recipe, {}, "portfolio", state="complete", epochs=records([1.0]), seconds_per_image=0.01)
        score = self.judge.score(probabilities.argmax(axis=1))
        self.trials.append(trial.replace(score=score, loss=1.0, **fields))
        return self.trials[-1]

    @property
    def searched(self) -> Any:
        return SimpleNamespace(
            search=SimpleNamespace(trials=self.trials),
            candidates=self.trials,
            runner=self.runner,
            chooser=Chooser(self.runner.files, self.judge),
            stop_reason="trials",
        )

    @property
    def bench(self) -> Bench:
        chosen = self.searched.chooser.choose(self.trials)
        result = self.runner.files.load_result(chosen.trial.number)
        assert result is not None
        return Bench(self.context, self.prepared, self.searched, chosen, result)


@pytest.fixture
def run(tmp_path: Path, source: MemorySource) -> Callable[..., Run]:
    return lambda **fields: Run(tmp_path, source, **fields)


def tried(bench: Bench) -> dict[str, Any]:
    return {step.name: step for step in improve(bench).steps}


# --- one path of probabilities ---------------------------------------------------------------------------------------


def test_everything_adopted_or_nothing_file_stage_and_prediction_say_the_same(
    run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(choice, "IMAGES_PER_TRIAL", 1)  # all three take part
    for margin in (-math.inf, math.inf):
        monkeypatch.setattr(Gain, "exceeds", lambda self, errors, m=margin: m < 0)
        # Votes that never hurt, so that each step has something to adopt.
        monkeypatch.setattr(steps, "TAUS", (0.7,))
        monkeypatch.setattr(Bench, "log_loss", lambda self, votes: 0.0)
        monkeypatch.setattr(steps, "greedy_shares", lambda votes, labels: {0: 0.5, 1: 0.25, 2: 0.25})
        a_run = run(objective="macro_f1", ensemble=True)
        for seed in range(3):
            a_run.add(seed)
        finished = finish(a_run.context, a_run.prepared, a_run.searched)
        adopted = [step.name for step in finished.improved.steps if step.adopted]
        assert adopted == (["soup", "flip", "ensemble", "adjustment"] if margin < 0 else [])
        assert len(finished.bundle.networks) == (3 if margin < 0 else 1)

        from_stage = finished.bundle.probabilities(stored_votes(finished.ensemble, a_run.source, VAL))
        save_bundle(finished.bundle, tmp_path / "model.pt")
        pictures = [Image.fromarray(a_run.source.planes[32][row].permute(1, 2, 0).numpy()) for row in VAL]
        model = Model(load_bundle(tmp_path / "model.pt"), CPU)
        assert np.ptp(finished.validation, axis=0).max() > 0.01
        for said in (from_stage, model.predict_proba(pictures)):
            np.testing.assert_allclose(said, finished.validation, rtol=0, atol=2e-6)
        one_by_one = model.predict_proba(pictures[:2], batch_size=1)
        np.testing.assert_allclose(one_by_one, finished.validation[:2], rtol=0, atol=2e-6)


# --- the rule ---------------------------------------------------------------------------------------------------------


def shipping(predicted: np.ndarray[Any, Any]) -> Callable[[Bench, Draft], Attempt]:
    """A step that ships a model with these predictions."""
    votes = np.log(np.eye(3)[predicted] * 0.9 + 0.01)
    return lambda _bench, draft: Attempt(replace(draft, votes=votes), "a stand-in")


def test_a_step_has_to_beat_what_is_simpler_by_more_than_one_standard_error(
    run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    a_run = run()
    a_run.add(0)
    truth = LABELS[VAL]
    start, one_better, much_better, worse = (truth.copy() for _ in range(4))
    start[:6] = (truth[:6] + 1) % 3
    one_better[:5] = (truth[:5] + 1) % 3
    much_better[:1] = (truth[:1] + 1) % 3
    worse[:2] = (truth[:2] + 1) % 3
    monkeypatch.setattr(Bench, "draft", lambda self: shipping(start)(self, Draft((), start)).draft)
    table = {"tie": start, "one": one_better, "much": much_better, "worse": worse}
    monkeypatch.setattr(steps, "STEPS", {name: Row(name, shipping(said)) for name, said in table.items()})
    improved = improve(a_run.bench)
    assert {step.name: step.adopted for step in improved.steps} == {
        "tie": False, "one": False, "much": True, "worse": False,
    }  # fmt: skip
    assert (improved.draft.predicted == much_better).all()
    assert len(improved.candidates) == 4
    said = improved.steps[1].to_dict()
    assert said["gain"] == pytest.approx(1 / 15)
    assert said["gain"] == pytest.approx(said["standard_error"], rel=0.05)
    assert (said["simpler"], said["candidate"]) == (pytest.approx(9 / 15), pytest.approx(10 / 15))
    assert improved.steps[3].to_dict()["simpler"] == pytest.approx(14 / 15)  # against what was adopted


def test_one_trial_on_frozen_features_leaves_nothing_to_try(run: Callable[..., Run]) -> None:
    a_run = run()
    a_run.add(0, replace(RECIPE, kind="probe", augment="none"))
    found = tried(a_run.bench)
    assert {name: step.tried for name, step in found.items()} == dict.fromkeys(steps.STEPS, False)
    assert "no other fine-tune" in found["soup"].detail
    assert "without mirrored images" in found["flip"].detail
    assert "--ensemble" in found["ensemble"].detail
    assert "counts images, not classes" in found["adjustment"].detail


def test_fine_tunes_of_another_beginning_are_no_mates(run: Callable[..., Run]) -> None:
    a_run = run()
    a_run.add(0)
    for other in ({"seed": 1}, {"head": "mlp:8-gelu"}, {"resolution": 64}, {"pretrained": True}, {"kind": "probe"}):
        a_run.trials.append(a_run.trials[0].replace(number=len(a_run.trials), recipe=replace(RECIPE, **other)))
    a_run.trials.append(a_run.trials[0].replace(number=9, state="stopped"))
    assert "no other fine-tune" in tried(a_run.bench)["soup"].detail


def test_a_soup_takes_who_does_not_hurt_and_leaves_who_does(
    run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choice, "IMAGES_PER_TRIAL", 1)
    a_run = run()
    for _ in range(3):  # twins, and one that is sure of a wrong class
        a_run.add(0, head=0.1)
    files = a_run.runner.files
    stranger = files.load_result(2)
    assert stranger is not None
    files.save_result(2, {**stranger.weights, "head.bias": torch.tensor([900.0, 0, 0])}, stranger.probabilities)
    bench = a_run.bench
    assert bench.trial.number == 0
    attempt = steps.STEPS["soup"].attempt(bench, bench.draft())
    assert attempt.detail == "the weights of 2 of 3 fine-tunes"
    assert attempt.draft is not None
    np.testing.assert_allclose(attempt.draft.votes, bench.draft().votes, atol=1e-5)


@pytest.mark.parametrize("where", ["stopped", "late", "interrupted"])
def test_without_time_nothing_is_tried_and_the_report_says_so(run: Callable[..., Run], where: str) -> None:
    a_run = run(ensemble=True, refit="on")
    for _ in range(2):
        a_run.add(0)
    bench = a_run.bench
    a_run.context.stop.requested = where == "stopped"
    a_run.context.clock.remaining = 4.5 if where == "late" else math.inf
    bench.searched.stop_reason = "interrupted" if where == "interrupted" else "trials"
    found = tried(bench)
    reason = "no time: it needs" if where == "late" else "stopped early"
    for name in ("soup", "flip") if where == "late" else ("soup", "flip", "ensemble"):  # an ensemble takes no time now
        assert not found[name].tried
        assert reason in found[name].detail
    assert reason in refitted(bench, improve(bench)).detail


# --- limits of the model ----------------------------------------------------------------------------------------------


def test_what_would_cost_too_much_is_not_adopted_however_good_it_is(
    run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choice, "IMAGES_PER_TRIAL", 1)
    monkeypatch.setattr(Gain, "exceeds", lambda self, errors: True)
    monkeypatch.setattr(Bench, "log_loss", lambda self, votes: 0.0)
    monkeypatch.setattr(steps, "greedy_shares", lambda votes, labels: {0: 0.5, 1: 0.25, 2: 0.25})
    a_run = run(ensemble=True)
    for seed in range(3):
        a_run.add(seed)
    form = Form(RECIPE.backbone, RECIPE.resolution)
    timings = {(form,): Timing(5.0, 6.0, 30), (replace(form, flip=True),): Timing(9.0, 9.0, 30)}
    meter = CostMeter(Room(Limits(latency_ms=8.0, params_m=2.0), 3), CPU, timings)
    finished = finish(a_run.context, a_run.prepared, a_run.searched, meter)
    adopted = {step.name: step.adopted for step in finished.improved.steps}
    assert adopted == {"soup": True, "flip": False, "ensemble": False, "adjustment": False}
    details = {step.name: step.detail for step in finished.improved.steps}
    assert "it would cost 9.00 ms for one image (limit 8)" in details["flip"]
    assert "million parameters (limit 2)" in details["ensemble"]
    assert [each.flip for each in finished.bundle.networks] == [False]
    free = finish(a_run.context, a_run.prepared, a_run.searched, CostMeter(Room(Limits(), 3), CPU))
    assert len(free.bundle.networks) == 3


# --- logit adjustment -------------------------------------------------------------------------------------------------


def test_rare_classes_are_named_more_often_where_the_objective_counts_classes(
    run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    a_run = run(objective="balanced_accuracy")
    a_run.add(0)
    bench = a_run.bench
    truth = LABELS[VAL]
    chances = np.full((15, 3), 0.05)
    chances[:, 0] = 0.55  # class 0 is named for everything, and the true class comes second
    chances[np.arange(15), truth] += 0.35
    draft = Draft((), np.log(chances / chances.sum(axis=1, keepdims=True)))
    monkeypatch.setattr(Bench, "train_counts", lambda self: np.array([80, 10, 10]))
    attempt = steps.STEPS["adjustment"].attempt(bench, draft)
    assert bench.judge.score(draft.predicted) == pytest.approx(1 / 3)
    assert attempt.draft is not None
    assert bench.judge.score(attempt.draft.predicted) == 1.0
    assert attempt.draft.class_bias[0] == 0.0
    assert attempt.draft.class_bias[1] == pytest.approx(0.2 * math.log(8))  # the least strength that does it
    monkeypatch.setattr(Bench, "train_counts", lambda self: np.array([10, 10, 10]))
    assert steps.STEPS["adjustment"].attempt(bench, draft).draft is None


# --- once more --------------------------------------------------------------------------------------------------------


def test_a_refit_trains_on_validation_images_too_and_leaves_the_validation_figures(run: Callable[..., Run]) -> None:
    a_run = run(refit="on")
    a_run.add(0, head=0.01)
    finished = finish(a_run.context, a_run.prepared, a_run.searched)
    assert finished.refit is not None
    assert finished.refit.to_dict()["done"]
    assert finished.refit.images == len(TRAIN) + len(VAL)
    before = a_run.runner.files.load_result(0)
    assert before is not None
    name = "backbone.conv_stem.weight"
    assert not torch.equal(finished.bundle.state_dict[name], before.weights[name])
    logs = np.log(before.probabilities.astype(np.float64))
    assert finished.bundle.temperature > 0
    np.testing.assert_allclose(finished.bundle.probabilities(logs), finished.validation, atol=1e-9)


def test_a_probe_is_fitted_again_with_its_penalty(run: Callable[..., Run]) -> None:
    a_run = run(refit="on")
    recipe = replace(RECIPE, kind="probe", augment="none", epochs=0)
    a_run.add(0, recipe, notes={"strength": 0.1}, epochs=())
    found = refitted(a_run.bench, improve(a_run.bench))
    assert found.weights is not None
    before = a_run.runner.files.load_result(0)
    assert before is not None
    changed = {name for name, tensor in found.weights.items() if not torch.equal(tensor, before.weights[name])}
    assert "head.weight" in changed


def test_a_refit_that_comes_to_nothing_is_dropped(run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch) -> None:
    a_run = run(refit="on")
    a_run.add(0)
    bench = a_run.bench
    improved = improve(bench)
    monkeypatch.setattr(refitting, "DIVERGED", 0.0)
    found = refitted(bench, improved)
    assert found.weights is None
    assert "the training loss ended at" in found.detail
    calls = []

    def late(self: Bench, passes: int = 1) -> float:
        calls.append(passes)
        return math.inf if len(calls) == 1 else 0.0  # the first question is whether to begin

    monkeypatch.setattr(Bench, "seconds_left", late)
    found = refitted(bench, improved)
    assert found.weights is None
    assert "its time ended in epoch 1 of 1" in found.detail


def test_what_is_no_single_trained_network_is_not_refitted(run: Callable[..., Run]) -> None:
    a_run = run(refit="on")
    a_run.add(0)
    improved = improve(a_run.bench)
    adopted = replace(improved, steps=(replace(improved.steps[0], adopted=True), *improved.steps[1:]))
    assert "cannot be trained once more" in refitted(a_run.bench, adopted).detail


def on_a_budget(a_run: Run, remaining: float = 300.0) -> Any:
    """What came of training once more, where the run had a budget."""
    a_run.context.clock.budget, a_run.context.clock.remaining = 600.0, remaining
    return finish(a_run.context, a_run.prepared, a_run.searched).refit


def test_unasked_a_fine_tune_is_trained_once_more_where_a_budget_leaves_time(run: Callable[..., Run]) -> None:
    a_run = run(refit="auto")
    a_run.add(0, head=0.01)
    found = on_a_budget(a_run)
    assert found is not None
    assert found.weights is not None


@pytest.mark.parametrize(
    "search", [{"refit": "off"}, {"trials": 1}, {"budget_per_backbone": "10m"}], ids=["off", "one recipe", "turns"]
)
def test_what_was_asked_for_is_not_trained_once_more_unasked(run: Callable[..., Run], search: dict[str, Any]) -> None:
    a_run = run(**{"refit": "auto", **search})
    a_run.add(0, head=0.01)
    assert on_a_budget(a_run) is None


@pytest.mark.parametrize("why", ["no budget", "no time", "their validation", "interrupted"])
def test_nor_without_time_or_for_validation_images_of_the_user(run: Callable[..., Run], why: str) -> None:
    a_run = run(refit="auto")
    a_run.add(0, head=0.01)
    a_run.context.stop.requested = why == "interrupted"
    a_run.prepared.split.dealt = ("test",) if why == "their validation" else ("test", "val")
    if why == "no budget":
        assert finish(a_run.context, a_run.prepared, a_run.searched).refit is None
    else:
        assert on_a_budget(a_run, remaining=4.5 if why == "no time" else 300.0) is None


def test_nor_a_probe(run: Callable[..., Run]) -> None:
    a_run = run(refit="auto")
    recipe = replace(RECIPE, kind="probe", augment="none", epochs=0)
    a_run.add(0, recipe, notes={"strength": 0.1}, epochs=())
    assert on_a_budget(a_run) is None


def test_nor_an_average(run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch) -> None:
    tuned = run(refit="auto")
    tuned.add(0)
    improved = improve(tuned.bench)
    adopted = replace(improved, steps=(replace(improved.steps[0], adopted=True), *improved.steps[1:]))
    monkeypatch.setattr(finishing, "improve", lambda bench: adopted)
    assert on_a_budget(tuned) is None


def test_copies_of_validation_images_are_judged_by_the_model_that_did_not_train_on_them(
    run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    a_run = run(refit="on")
    a_run.add(0, head=0.01)
    finished = finish(a_run.context, a_run.prepared, a_run.searched)
    assert finished.bundle.provenance["refitted"]
    before, after = (
        finished.bundle.probabilities(stored_votes(ensemble, a_run.prepared.store, VAL))
        for ensemble in (finished.validated, finished.ensemble)
    )
    np.testing.assert_allclose(before, finished.validation, atol=1e-5)
    assert np.abs(after - before).max() > 1e-3


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("full"), MemoryError(), WeightsError("gone")])
def test_a_refit_that_cannot_be_done_costs_no_model(
    run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    a_run = run(refit="auto")
    a_run.add(0)

    def fail(*_arguments: object) -> None:
        raise error

    monkeypatch.setattr(refitting, "retrain", fail)
    found = on_a_budget(a_run)
    assert found is not None
    assert found.weights is None
    assert "kept the model before it" in found.detail


def test_a_probe_is_fitted_again_to_no_more_images_than_fit_into_memory_and_stops_in_time(
    run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    a_run = run(refit="on")
    recipe = replace(RECIPE, kind="probe", augment="none", epochs=0)
    trial = a_run.add(0, recipe, notes={"strength": 0.1}, epochs=())
    monkeypatch.setattr(retraining, "PROBE_ROWS", 12)
    seen: list[int] = []
    fit = retraining.fit_probe

    def counted(features: Any, *arguments: Any, **options: Any) -> Any:
        seen.append(len(features))
        return fit(features, *arguments, **options)

    monkeypatch.setattr(retraining, "fit_probe", counted)
    rows = np.concatenate([TRAIN, VAL])
    on = retraining.Rows(rows, LABELS[rows], rows)
    retraining.retrain(a_run.runner, trial, on, lambda: math.inf)
    assert seen == [12]
    left = iter([1.0, 1.0, 0.0])
    with pytest.raises(OutOfTime):
        retraining.retrain(a_run.runner, trial, on, lambda: next(left, 0.0))
