"""How many trials run at a time, with GPUs that are none."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from memory_source import MemorySource

from automl_vision.config import load_settings
from automl_vision.errors import ConfigError
from automl_vision.runtime import Runtime
from automl_vision.search.run_trial import TrialRunner
from automl_vision.search.trial_files import TrialFiles
from automl_vision.stages import slots, trial_executor
from automl_vision.stages.slots import CONTEXT_BYTES, MOST_PER_GPU, VISIBLE, Gpu, bytes_of_a_trial, cpu_slots, gpu_slots
from automl_vision.training.loop import TrainingData

GB = 10**9


def never() -> int:
    raise AssertionError("nobody needs to know")


def gpus(*free: float) -> list[Gpu]:
    return [Gpu(str(number), int(each * GB)) for number, each in enumerate(free)]


def where(found: slots.Slots) -> list[str]:
    return [slot.environment[VISIBLE] for slot in found.slots]


# --- on a CPU -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "threads", "count", "each"), [(0, 8, 1, 8), (1, 8, 1, 8), (2, 8, 2, 4), (3, 8, 3, 2)]
)
def test_trials_share_the_threads_of_a_cpu(wanted: int, threads: int, count: int, each: int) -> None:
    found = cpu_slots(wanted, threads)
    assert (len(found), found.threads, found.share) == (count, each, 1 / count)
    assert {slot.environment["OMP_NUM_THREADS"] for slot in found.slots} == {str(each)}


def test_more_trials_than_threads_have_one_each() -> None:
    assert (len(cpu_slots(4, 2)), cpu_slots(4, 2).threads) == (4, 1)


# --- on GPUs --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("free", "needed", "each"),
    [(24, 5, 4), (24, 6, 3), (24, 11, 1), (24, 10.7, 2), (8, 30, 1), (80, 1, MOST_PER_GPU)],
)
def test_as_many_trials_share_a_gpu_as_its_memory_has_room_for(free: float, needed: float, each: int) -> None:
    found = gpu_slots(gpus(free), 0, None, 16, lambda: int(needed * GB))
    assert len(found) == each
    assert found.share == 1 / each
    assert found.threads == 16 // each
    assert "GB" in found.reason


def test_the_gpu_with_the_least_room_decides_and_slots_are_dealt_out_in_turn() -> None:
    found = gpu_slots(gpus(24, 12), 0, None, 8, lambda: 5 * GB)
    assert where(found) == ["0", "1", "0", "1"]
    assert (found.share, found.threads) == (0.5, 2)


def test_no_more_than_the_user_wants_and_on_all_gpus() -> None:
    found = gpu_slots(gpus(80, 80, 80), 4, None, 12, lambda: GB)
    assert where(found) == ["0", "1", "2", "0"]
    assert found.share == 0.5
    found = gpu_slots(gpus(80, 80, 80), 2, None, 12, never)
    assert (where(found), found.share) == (["0", "1"], 1.0)


@pytest.mark.parametrize(("part", "each"), [(1.0, 1), (0.5, 2), (0.34, 2), (1 / 3, 3), (0.1, 10)])
def test_who_says_what_a_trial_has_is_not_asked_for_memory(part: float, each: int) -> None:
    found = gpu_slots(gpus(24, 24), 0, part, 20, never)
    assert len(found) == 2 * each
    assert found.share == 1 / each


def test_gpus_are_named_as_the_process_sees_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda number: (number + 1, 9))
    monkeypatch.setenv(VISIBLE, "5,GPU-abc")
    assert slots.visible_gpus(torch.device("cuda")) == (Gpu("5", 1), Gpu("GPU-abc", 2))
    assert slots.visible_gpus(torch.device("cuda:1")) == (Gpu("GPU-abc", 2),)
    monkeypatch.delenv(VISIBLE)
    assert slots.visible_gpus(torch.device("cuda")) == (Gpu("0", 1), Gpu("1", 2))


def runner(tmp_path: Path, side: int = 32, device: str = "cpu") -> TrialRunner:
    labels = torch.arange(64) % 2
    data = TrainingData(
        source=MemorySource(torch.zeros((96, 3, side, side), dtype=torch.uint8), (side,)),
        train_rows=torch.arange(64),
        train_labels=labels,
        val_rows=torch.arange(64, 96),
        val_labels=labels[:32],
        num_classes=2,
    )
    return TrialRunner(
        data=data,
        train_groups=np.arange(64),
        objective="accuracy",
        runtime=Runtime(torch.device(device), None, 2),
        files=TrialFiles(tmp_path),
        weights={},
        seconds_left=lambda: 1e9,
    )


def test_what_a_trial_takes_is_what_a_step_was_seen_to_take_and_the_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Watched:
        bytes = 2 * GB

        def __enter__(self) -> Watched:
            return self

        def __exit__(self, *_: object) -> None:
            """Seen."""

    monkeypatch.setattr(slots, "watched_memory", lambda device: Watched())
    found = bytes_of_a_trial(runner(tmp_path), "resnet18", 32, {"epochs": 9, "batch_size": 8, "optimizer": "sgd"})
    assert found == 3 * GB + CONTEXT_BYTES + 96 * 3 * 32 * 32
    assert not any(tmp_path.iterdir())


def test_one_slot_on_a_gpu_machine_needs_no_worker_and_two_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial_executor, "visible_gpus", lambda device: tuple(gpus(24)))
    monkeypatch.setattr(trial_executor, "bytes_of_a_trial", lambda runner, name, side, fixed: 6 * GB)
    plan: Any = SimpleNamespace(backbones=("resnet18", "resnet50"), resolutions=(64,))
    prepared: Any = SimpleNamespace(store=None)

    def found(**settings: Any) -> slots.Slots:
        overrides = {f"machine.{name}": value for name, value in settings.items()}
        context: Any = SimpleNamespace(settings=load_settings(overrides=overrides))
        on_gpu = runner(tmp_path)
        on_gpu.runtime = dataclasses.replace(on_gpu.runtime, device=torch.device("cuda"))
        return trial_executor.slots_of(context, prepared, plan, on_gpu, {})

    assert len(found()) == 3
    assert len(found(max_parallel=1)) == 1
    assert len(found(max_parallel=2)) == 2
    assert len(found(gpus_per_trial=0.5)) == 2


def test_a_part_of_a_gpu_where_there_is_none_is_said(tmp_path: Path) -> None:
    notes: list[str] = []
    settings = load_settings(overrides={"machine.gpus_per_trial": 0.5})
    context: Any = SimpleNamespace(settings=settings, note=lambda text, warning: notes.append(text))
    plan: Any = SimpleNamespace(backbones=("resnet18",), resolutions=(64,))
    prepared: Any = SimpleNamespace(store=None)
    assert len(trial_executor.slots_of(context, prepared, plan, runner(tmp_path), {})) == 1
    assert notes == ["Trials run without a GPU: gpus_per_trial says nothing."]


@pytest.mark.parametrize(
    ("name", "value"), [("max_parallel", -1), ("max_parallel", 5000), ("gpus_per_trial", 0.0), ("gpus_per_trial", 2.0)]
)
def test_numbers_that_make_no_sense_are_refused(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=name):
        load_settings(overrides={f"machine.{name}": value})
