"""Compiled steps: those of the eager loop, for one size of a batch, and only where there is time for them."""

from __future__ import annotations

import dataclasses
import gc
import math
import shutil
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from memory_source import MemorySource
from torch import nn
from torch._dynamo.exc import FailOnRecompileLimitHit
from torch._dynamo.utils import counters

from automl_vision.data.preprocess import Preprocessing
from automl_vision.models.classifier import build_classifier
from automl_vision.models.inference import training_autocast
from automl_vision.runtime import Runtime
from automl_vision.training import compiling, epoch_so_far, loop
from automl_vision.training.compiling import ASSUMED_SECONDS, LAUNCH_BOUND, WORTH, Kind, StepCompiler
from automl_vision.training.loop import EpochResult, Trainer, TrainingData
from automl_vision.training.recipe import Recipe

PREPROCESSING = Preprocessing(size=32, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
RECIPE = Recipe(
    kind="finetune",
    backbone="test_efficientnet",
    resolution=32,
    epochs=3,
    batch_size=4,
    learning_rate=1e-3,
    layer_decay=1.0,
)
KIND = Kind(network="a", images=32, giga_macs=1.0, parts=1, device="cuda")


def trainer(runtime: Runtime, source: MemorySource, compiler: StepCompiler | None = None, **changes: Any) -> Trainer:
    """Ten images in batches of 4, 4 and 2, and two to validate."""
    recipe = dataclasses.replace(RECIPE, **changes)
    rows = torch.arange(12)
    data = TrainingData(source, rows[:10], rows[:10] % 2, rows[10:], rows[10:] % 2, 2)
    net = build_classifier(recipe.backbone, 2, resolution=32, drop_path=recipe.drop_path, seed=0)
    return Trainer(
        recipe, data, net, PREPROCESSING, runtime, lambda _labels, scores: float(scores[0, 0]), None, compiler
    )


def run(trainer: Trainer) -> list[EpochResult]:
    results = []
    while not trainer.finished:
        results.append(trainer.run_epoch())
    return results


@pytest.fixture
def graphs() -> Iterator[Callable[[], int]]:
    """How many graphs torch traced so far."""
    torch.compiler.reset()
    counters.clear()
    yield lambda: counters["stats"]["unique_graphs"]
    torch.compiler.reset()


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch, graphs: Callable[[], int]) -> Callable[[], int]:
    """Traced as for every backend, and run as it is; generating code takes a minute."""
    real = torch.compile

    def quick(function: Any, mode: str, **options: Any) -> Any:
        return real(function, backend="eager", **options)

    monkeypatch.setattr(torch, "compile", quick)
    return graphs


VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "batch norm learns": {"freeze_norm": False, "ema": False, "clip_norm": 0.0},
    "frozen stages": {"freeze_stages": 2, "freeze_norm": False, "mix": "mixup", "loss": "weighted"},
    "parts": {"batch_size": 2, "gradient_accumulation": 2, "optimizer": "sgd"},
    "drop path": {"backbone": "test_vit", "drop_path": 0.5},
}


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eager steps leave convolutions as they are, as compiled ones do."""
    monkeypatch.setattr(loop, "fastest_training", lambda net, _side, runtime: training_autocast(net, runtime))


@pytest.mark.usefixtures("plain")
@pytest.mark.parametrize("variant", VARIANTS)
def test_compiled_training_is_eager_training(
    cpu: Runtime, source: MemorySource, traced: Callable[[], int], variant: str
) -> None:
    compiled = trainer(cpu, source, StepCompiler("on"), **VARIANTS[variant])
    for mine, theirs in zip(run(compiled), run(trainer(cpu, source, **VARIANTS[variant])), strict=True):
        assert (mine.train_loss, mine.val_loss, mine.score) == (theirs.train_loss, theirs.val_loss, theirs.score)
    assert traced() == 1  # whatever else an epoch does: validation, averages, a smaller last batch
    assert compiled.forward.note.startswith("training steps on")


@pytest.mark.usefixtures("plain")
def test_bfloat16_is_compiled_in(source: MemorySource, traced: Callable[[], int]) -> None:
    half = Runtime(torch.device("cpu"), "bfloat16", 1, training_dtype="bfloat16")
    compiled, eager = trainer(half, source, StepCompiler("on")), trainer(half, source)
    assert [each.train_loss for each in run(compiled)] == [each.train_loss for each in run(eager)]
    assert traced() == 1


def test_another_network_of_the_kind_takes_what_was_compiled(
    cpu: Runtime, source: MemorySource, traced: Callable[[], int]
) -> None:
    compiler = StepCompiler("on")
    first = trainer(cpu, source, compiler)
    losses = [each.train_loss for each in run(first)]
    assert first.forward.note
    del first
    gc.collect()
    for changes in ({}, {"label_smoothing": 0.0, "learning_rate": 1e-4, "optimizer": "sgd", "augment": "none"}):
        later = trainer(cpu, source, compiler, **changes)
        assert (losses == [each.train_loss for each in run(later)]) == (not changes)
        assert later.forward.note == ""
    assert traced() == 1
    run(trainer(cpu, source, compiler, freeze_stages=1))
    assert traced() == 2


def test_names_in_state_dicts_stay(cpu: Runtime, source: MemorySource, traced: Callable[[], int]) -> None:
    compiled, eager = trainer(cpu, source, StepCompiler("on")), trainer(cpu, source)
    run(compiled)
    run(eager)
    assert traced() == 1
    for mine, theirs in (
        (compiled.best_weights(), eager.best_weights()),
        (compiled.last_weights(), eager.last_weights()),
        (compiled.state()["classifier"], eager.state()["classifier"]),
    ):
        assert mine.keys() == theirs.keys()


@pytest.mark.parametrize("variant", ["batch norm learns", "drop path"])
def test_a_resumed_trial_is_the_undisturbed_one(
    cpu: Runtime, source: MemorySource, traced: Callable[[], int], variant: str
) -> None:
    compiler = StepCompiler("on")
    straight = trainer(cpu, source, compiler, **VARIANTS[variant])
    expected = [each.train_loss for each in run(straight)]
    begun = trainer(cpu, source, compiler, **VARIANTS[variant])
    begun.run_epoch()
    resumed = trainer(cpu, source, compiler, **VARIANTS[variant])
    resumed.load_state(begun.state())
    assert [each.train_loss for each in run(resumed)] == expected[1:]
    assert traced() == 1
    ours, theirs = resumed.last_weights(), straight.last_weights()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_what_memory_halved_is_run_eagerly(
    cpu: Runtime, source: MemorySource, traced: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Trainer._gradients

    def tight(
        self: Trainer, step: int, images: torch.Tensor, targets: torch.Tensor, size: int, whole: int
    ) -> torch.Tensor:
        if size > 2:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return real(self, step, images, targets, size, whole)

    compiled = trainer(cpu, source, StepCompiler("on"))
    compiled.run_epoch()
    monkeypatch.setattr(Trainer, "_gradients", tight)
    results = run(compiled)
    assert [each.micro_batch for each in results] == [2, 2]
    assert traced() == 1
    assert "failed" not in compiled.forward.note  # memory ran out before a compiled pass


def broken(monkeypatch: pytest.MonkeyPatch, error: Exception, calls: int = 0) -> list[int]:
    """Compiled functions that fail after so many calls; how often they were called."""
    called: list[int] = []

    def compile_nothing(function: Any, **_options: Any) -> Any:
        def fail(net: nn.Module, images: torch.Tensor) -> torch.Tensor:
            called.append(len(images))
            if len(called) > calls:
                raise error
            return function(net, images)  # type: ignore[no-any-return]

        return fail

    monkeypatch.setattr(torch, "compile", compile_nothing)
    return called


FAILURES = {
    "compiler": RuntimeError("No working C++\n compiler " + 300 * "x"),
    "memory": torch.OutOfMemoryError("CUDA out of memory"),
    "recompiled": FailOnRecompileLimitHit("too often"),
}


@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize("calls", [0, 3])
def test_what_cannot_be_compiled_is_told_and_trained_eagerly(
    cpu: Runtime, source: MemorySource, monkeypatch: pytest.MonkeyPatch, failure: str, calls: int
) -> None:
    called = broken(monkeypatch, FAILURES[failure], calls)
    compiler = StepCompiler("on")
    fallen = trainer(cpu, source, compiler)
    for mine, theirs in zip(run(fallen), run(trainer(cpu, source)), strict=True):
        assert mine.train_loss == pytest.approx(theirs.train_loss, rel=1e-4)
    assert fallen.micro_batch.size == 4
    assert fallen.forward.note.startswith("training steps are not compiled, because that failed: ")
    assert str(FAILURES[failure]).split()[0] in fallen.forward.note
    assert "\n" not in fallen.forward.note
    assert len(fallen.forward.note) < 300
    run(trainer(cpu, source, compiler))
    assert len(called) == calls + 1  # nobody tries again


def test_a_generated_backward_pass_that_fails_is_told_as_well(
    cpu: Runtime, source: MemorySource, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Fails(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, scores: torch.Tensor) -> torch.Tensor:
            return scores.clone()

        @staticmethod
        def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
            raise RuntimeError("the backward pass was not to be had")

    monkeypatch.setattr(torch, "compile", lambda function, **_: lambda net, images: Fails.apply(function(net, images)))
    fallen = trainer(cpu, source, StepCompiler("on"))
    assert [each.train_loss for each in run(fallen)] == [each.train_loss for each in run(trainer(cpu, source))]
    assert "not to be had" in fallen.forward.note


def test_other_failures_are_not_taken_for_those_of_compiling(
    cpu: Runtime, source: MemorySource, traced: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_arguments: object) -> torch.Tensor:
        raise RuntimeError("a mistake in the program")

    monkeypatch.setattr(Trainer, "_inputs", fail)
    with pytest.raises(RuntimeError, match="a mistake"):
        trainer(cpu, source, StepCompiler("on")).run_epoch()


def test_without_time_for_it_nothing_is_compiled(cpu: Runtime, source: MemorySource, traced: Callable[[], int]) -> None:
    hurried = trainer(cpu, source, StepCompiler("on"))
    result = hurried.run_epoch(lambda: WORTH * ASSUMED_SECONDS - 1)
    assert (traced(), result.compile_seconds) == (0, 0.0)
    assert result.compiling == "not compiled, which may take 60 s: 119 s are left"


@pytest.mark.parametrize("setting", ["off", "auto"])
def test_a_cpu_compiles_only_where_it_is_told_to(
    cpu: Runtime, source: MemorySource, traced: Callable[[], int], setting: Any
) -> None:
    results = run(trainer(cpu, source, StepCompiler(setting)))
    assert traced() == 0
    assert [each.compiling for each in results] == 3 * [""]


def test_compiling_counts_for_the_deadline_and_not_for_what_validation_takes(
    cpu: Runtime, source: MemorySource, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock stands still but for compiling, 50 s of the 60 that are left after it."""
    now = [0.0]
    clock = SimpleNamespace(monotonic=lambda: now[0], process_time=lambda: now[0])
    for module in (loop, compiling, epoch_so_far):
        monkeypatch.setattr(module, "time", clock)

    def slow(function: Any, **_options: Any) -> Any:
        def compile_first(net: nn.Module, images: torch.Tensor) -> torch.Tensor:
            now[0] += 500.0 if now[0] == 0 else 0.0
            return function(net, images)  # type: ignore[no-any-return]

        return compile_first

    monkeypatch.setattr(torch, "compile", slow)
    compiled = trainer(cpu, source, StepCompiler("on"))
    result = compiled.run_epoch(lambda: 510.0 - now[0] if now[0] else 1000.0)
    assert (result.seconds, result.compile_seconds, result.images) == (500.0, 500.0, 10)
    assert result.finished == ""
    assert "in 500 s" in result.compiling
    assert compiled.run_epoch().compile_seconds == 0.0
    late = trainer(cpu, source, StepCompiler("on"))
    now[0] = 0.0
    assert late.run_epoch(lambda: 400.0 - now[0]).finished == "deadline"  # seen at the next step


SECONDS = st.floats(0, 1e6)


@given(SECONDS, SECONDS, SECONDS)
def test_more_to_come_never_speaks_against_it_and_too_little_time_always_does(
    to_come: float, more: float, left: float
) -> None:
    compiler = StepCompiler("auto")
    if compiler.is_wanted(KIND, to_come, left):
        assert compiler.is_wanted(KIND, to_come + more, left)
        assert left >= WORTH * ASSUMED_SECONDS
        assert StepCompiler("on").is_wanted(KIND, to_come, left)
    assert not StepCompiler("off").is_wanted(KIND, to_come, left)


def test_the_rule_goes_by_what_was_assumed_and_then_by_what_was_measured() -> None:
    compiler = StepCompiler("auto")
    enough = WORTH * ASSUMED_SECONDS / (1 - 1 / 1.25)
    assert compiler.is_wanted(KIND, enough + 1, math.inf)
    assert not compiler.is_wanted(KIND, enough - 1, math.inf)
    assert not compiler.is_wanted(KIND, 2 * enough, enough - 1)  # what is to come ends with the time
    compiler.note_speed(KIND, False, 2e-3)
    compiler.note_speed(KIND, True, 1e-3)
    assert compiler.is_wanted(KIND, 4 * ASSUMED_SECONDS, math.inf)
    compiler.note_speed(KIND, False, 0.9e-3)  # the first epoch was slow for another reason
    assert not compiler.is_wanted(KIND, 1e9, math.inf)
    assert not compiler.is_wanted(dataclasses.replace(KIND, device="cpu"), 1e9, math.inf)


def test_what_is_compiled_already_costs_nothing() -> None:
    compiler = StepCompiler("auto")
    assert not compiler.is_wanted(KIND, 0.0, 1.0)
    assert compiler.note_compiled(KIND)
    assert not compiler.note_compiled(KIND)
    assert compiler.is_wanted(KIND, 0.0, 1.0)
    compiler.give_up(dataclasses.replace(KIND, images=8))  # lets go of all that was compiled
    assert not compiler.is_wanted(KIND, 0.0, 1.0)


@pytest.mark.parametrize(
    ("changes", "mode"),
    [
        ({}, "reduce-overhead"),
        ({"giga_macs": LAUNCH_BOUND + 1}, "default"),
        ({"parts": 2}, "default"),
        ({"device": "cpu"}, "default"),
    ],
)
def test_graphs_are_for_small_steps_of_one_part_on_a_gpu(changes: dict[str, Any], mode: str) -> None:
    assert dataclasses.replace(KIND, **changes).mode == mode


def test_auto_compiles_in_the_middle_of_a_trial_and_goes_back_where_it_is_slower(
    cpu: Runtime, source: MemorySource, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU: the first epoch tells what is to come, the second is compiled, and slower."""
    now = [0.0]
    clock = SimpleNamespace(monotonic=lambda: now[0], process_time=lambda: now[0])
    for module in (loop, compiling, epoch_so_far):
        monkeypatch.setattr(module, "time", clock)
    monkeypatch.setattr(Kind, "mode", "reduce-overhead")
    kind = Trainer._kind
    monkeypatch.setattr(Trainer, "_kind", lambda self: dataclasses.replace(kind(self), device="cuda"))
    went: list[str] = []

    def passing(name: str, seconds: float, function: Any) -> Any:
        def timed(*arguments: Any) -> Any:
            went.append(name)
            now[0] += seconds
            return function(*arguments)

        return timed

    monkeypatch.setattr(torch, "compile", lambda function, **_: passing("compiled", 200.0, function))
    monkeypatch.setattr(Trainer, "_eager", passing("eager", 100.0, Trainer._eager))
    run(trainer(cpu, source, StepCompiler("auto"), epochs=6))
    assert went[:6] == 3 * ["eager"] + 2 * ["compiled"] + ["eager"]  # the last batch of an epoch is smaller
    assert went[6:] == 12 * ["eager"]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="there is no compiler here that torch could call")
def test_generated_code_trains_as_torch_does(cpu: Runtime, source: MemorySource, graphs: Callable[[], int]) -> None:
    compiled = trainer(cpu, source, StepCompiler("on"))
    for mine, theirs in zip(run(compiled), run(trainer(cpu, source)), strict=True):
        assert mine.train_loss == pytest.approx(theirs.train_loss, rel=1e-4)
        np.testing.assert_allclose(mine.score, theirs.score, rtol=1e-3)
    assert graphs() == 1
    assert "were compiled in" in compiled.forward.note


needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")


@needs_gpu
@pytest.mark.parametrize(
    ("variant", "dtype"), [("plain", None), ("batch norm learns", "bfloat16"), ("parts", "float16")]
)
def test_generated_code_on_a_gpu_trains_as_torch_does(
    source: MemorySource, graphs: Callable[[], int], variant: str, dtype: str | None
) -> None:
    gpu = Runtime(torch.device("cuda"), dtype, 1, training_dtype=dtype)
    compiled = trainer(gpu, source, StepCompiler("on"), **VARIANTS[variant])
    for mine, theirs in zip(run(compiled), run(trainer(gpu, source, **VARIANTS[variant])), strict=True):
        assert mine.train_loss == pytest.approx(theirs.train_loss, rel=1e-3 if dtype is None else 0.03)
    assert "were compiled in" in compiled.forward.note
    assert graphs() == 1
