"""The clock, the device and what importing costs."""

from __future__ import annotations

import dataclasses
import importlib.util
import subprocess
import sys
import time

import pytest

from automl_vision.errors import UsageError
from automl_vision.runtime import Clock, available_threads, make_runtime

#: Modules that the command line needs before any work starts, or that only handle tables.
LIGHT_MODULES = (
    "automl_vision",
    "automl_vision.errors",
    "automl_vision.rules",
    "automl_vision.config",
    "automl_vision.runtime",
    "automl_vision.metrics",
    "automl_vision.data.manifest",
    "automl_vision.data.facts",
    "automl_vision.data.split",
    "automl_vision.data.audit",
    "automl_vision.data.readers",
    "automl_vision.data.lineage.lineage",
    "automl_vision.training.recipe",
    "automl_vision.report",
)


def test_a_budget_runs_down() -> None:
    time = iter([15.0, 15.0, 25.0])
    clock = Clock(start=10.0, budget=12.0, now=lambda: next(time))
    assert clock.elapsed == 5.0
    assert clock.remaining == 7.0
    assert clock.remaining == -3.0


def test_a_budget_may_be_endless() -> None:
    assert Clock(start=0.0, budget=float("inf")).remaining == float("inf")


def test_waiting_for_workers_does_not_make_the_machine_look_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    """A driver that works, then waits for its workers, then works again."""
    now = [0.0, 0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(time, "process_time", lambda: now[1])

    def passes(wall: float, cpu: float) -> None:
        now[0] += wall
        now[1] += cpu

    clock = Clock(start=0.0, budget=1e4)
    passes(10.0, 8.0)
    with clock.waiting_for_others():
        passes(600.0, 3.0)
        assert clock.wall_per_cpu_second == pytest.approx(10 / 8)
        assert dataclasses.replace(clock, budget=2e4).wall_per_cpu_second == pytest.approx(10 / 8)
    assert clock.wall_per_cpu_second == pytest.approx(10 / 8)
    with clock.waiting_for_others():
        passes(100.0, 0.5)
    passes(10.0, 2.0)
    assert clock.wall_per_cpu_second == pytest.approx(20 / 10)


def test_at_least_one_thread() -> None:
    assert available_threads() >= 1


def test_light_modules_load_no_network_library() -> None:
    there = [name for name in LIGHT_MODULES if importlib.util.find_spec(name)]
    program = (
        f"import sys, importlib\nfor name in {there!r}:\n    importlib.import_module(name)\n"
        "print(*({'torch', 'timm', 'optuna', 'torchvision'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


@pytest.fixture
def torch_threads():
    import torch

    before = torch.get_num_threads()
    yield torch
    torch.set_num_threads(before)


def test_cpu_runs_in_float32_on_the_threads_asked_for(torch_threads) -> None:
    runtime = make_runtime("cpu", threads=1)
    assert (runtime.device.type, runtime.amp_dtype, runtime.threads) == ("cpu", None, 1)
    assert torch_threads.get_num_threads() == 1


@pytest.mark.parametrize(("precision", "amp"), [("float32", None), ("bfloat16", "bfloat16"), ("float16", "float16")])
def test_a_precision_that_was_asked_for_is_used(torch_threads, precision: str, amp: str | None) -> None:
    assert make_runtime("cpu", precision, threads=1).amp_dtype == amp


@pytest.mark.parametrize(("instruction", "trained"), [(True, "bfloat16"), (False, None)])
def test_a_cpu_that_multiplies_bfloat16_trains_in_it_and_judges_in_float32(
    torch_threads, monkeypatch: pytest.MonkeyPatch, instruction: bool, trained: str | None
) -> None:
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.setattr(torch_threads.cpu, name, lambda: instruction, raising=False)
    runtime = make_runtime("cpu", threads=1)
    assert (runtime.amp_dtype, runtime.training_dtype) == (None, trained)
    assert runtime.precision == ("float32, trained in bfloat16" if instruction else "float32")
    assert make_runtime("cpu", "float32", threads=1).precision == "float32"


def test_a_device_that_is_not_there_is_a_usage_error(torch_threads, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_threads.cuda, "is_available", lambda: False)
    with pytest.raises(UsageError, match="not on this machine"):
        make_runtime("cuda")
    with pytest.raises(UsageError, match="unknown device"):
        make_runtime("gpu")


def test_a_gpu_number_beyond_the_last_is_a_usage_error(torch_threads, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_threads.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch_threads.cuda, "device_count", lambda: 2)
    with pytest.raises(UsageError, match="this machine has 2"):
        make_runtime("cuda:2")
