"""How many trials run at a time, with GPUs that are none."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from memory_source import MemorySource

from automl_vision.config import load_settings
from automl_vision.errors import ConfigError, WeightsError
from automl_vision.runtime import Clock, Runtime
from automl_vision.search.run_trial import TrialInterrupted, TrialRunner
from automl_vision.search.trial_files import TrialFiles
from automl_vision.stages import slots, trial_executor
from automl_vision.stages.slots import CONTEXT_BYTES, MOST_PER_GPU, VISIBLE, Gpu, bytes_of_a_trial, cpu_slots, gpu_slots
from automl_vision.training.loop import TooLittleMemory, TrainingData, TrialFailed
from automl_vision.training.ranks import ALONE

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
    found = gpu_slots(gpus(free), 16, None, 16, lambda: int(needed * GB))
    assert len(found) == each
    assert found.share == 1 / each
    assert found.threads == 16 // each
    assert "GB" in found.reason


def test_the_gpu_with_the_least_room_decides_and_slots_are_dealt_out_in_turn() -> None:
    found = gpu_slots(gpus(24, 12), 8, None, 8, lambda: 5 * GB)
    assert where(found) == ["0", "1", "0", "1"]
    assert (found.share, found.threads) == (0.5, 2)


@pytest.mark.parametrize("count", [1, 3])
def test_where_nobody_asks_for_more_each_gpu_has_one_trial_and_nothing_is_tried(count: int) -> None:
    found = gpu_slots(gpus(*[80] * count), 0, None, 6, never)
    assert (where(found), found.share, found.threads) == ([str(k) for k in range(count)], 1.0, 6 // count)


def test_each_gpu_has_one_trial_where_nobody_can_find_out_what_it_takes() -> None:
    found = gpu_slots(gpus(80, 80), 8, None, 8, lambda: None)
    assert (where(found), found.share, found.reason) == (["0", "1"], 1.0, "")


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


#: A run that no other machine and no other process takes part in.
ON_THIS_MACHINE: dict[str, Any] = {"cluster": None, "ranks": ALONE}
PLAN: Any = SimpleNamespace(backbones=("resnet18", "resnet50"), resolutions=(64,))


def on_one_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, takes: Callable[..., int], **settings: Any
) -> tuple[slots.Slots, list[str]]:
    """The slots on a GPU with 24 GB free, and what the user is told."""
    notes: list[str] = []
    monkeypatch.setattr(trial_executor, "visible_gpus", lambda device: tuple(gpus(24)))
    monkeypatch.setattr(trial_executor, "bytes_of_a_trial", takes)
    overrides = {f"machine.{name}": value for name, value in settings.items()}
    context: Any = SimpleNamespace(
        settings=load_settings(overrides=overrides),
        note=lambda text, warning: notes.append(text),
        **ON_THIS_MACHINE,
    )
    on_gpu = runner(tmp_path)
    on_gpu.runtime = dataclasses.replace(on_gpu.runtime, device=torch.device("cuda"))
    prepared: Any = SimpleNamespace(store=None)
    return trial_executor.slots_of(context, prepared, PLAN, on_gpu, {}), notes


@pytest.mark.parametrize(
    ("settings", "count"),
    [
        ({}, 1),
        ({"max_parallel": 1}, 1),
        ({"max_parallel": 2}, 2),
        ({"max_parallel": 8}, 3),
        ({"gpus_per_trial": 0.5}, 2),
    ],
)
def test_one_slot_on_a_gpu_machine_needs_no_worker_and_two_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], count: int
) -> None:
    found, notes = on_one_gpu(tmp_path, monkeypatch, lambda runner, name, side, fixed: 6 * GB, **settings)
    assert (len(found), notes) == (count, [])


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (WeightsError("no weights here", fix="go online"), "could not be tried: no weights here."),
        (TooLittleMemory("one image needs 90 GB"), "could not be tried: one image needs 90 GB."),
        (TrialFailed("the loss is not finite"), "could not be tried: the loss is not finite."),
        (torch.OutOfMemoryError("CUDA out of memory."), "could not be tried: not even one image at a time fits into"),
        (MemoryError(), "could not be tried: not even one image at a time fits into memory."),
        (TrialInterrupted(), None),
    ],
)
def test_a_step_that_cannot_be_tried_ends_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, told: str | None
) -> None:
    def fails(*_: Any) -> int:
        raise error

    found, notes = on_one_gpu(tmp_path, monkeypatch, fails, max_parallel=4)
    assert (len(found), found.share) == (1, 1.0)
    assert [told in note for note in notes] == ([True] if told else [])


def test_a_mistake_in_the_program_is_not_taken_for_too_little_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any) -> int:
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes"):
        on_one_gpu(tmp_path, monkeypatch, fails, max_parallel=4)


def test_the_step_that_is_tried_ends_with_the_time_and_when_the_user_stops(tmp_path: Path) -> None:
    late = runner(tmp_path)
    late.seconds_left = lambda: -1.0
    with pytest.raises(TrialFailed, match="time ended"):
        bytes_of_a_trial(late, "resnet18", 32, {})

    def stopped() -> float:
        raise TrialInterrupted

    late.seconds_left = stopped
    with pytest.raises(TrialInterrupted):
        bytes_of_a_trial(late, "resnet18", 32, {})


@pytest.mark.parametrize(("folder", "count", "told"), [("squares", 2, False), (None, 2, True), (None, 1, False)])
def test_who_waits_for_workers_is_not_busy_and_says_where_they_must_decode(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str | None, count: int, told: bool
) -> None:
    class Executor:
        def __init__(self, _: object) -> None:
            """Opens nothing."""

        def close(self) -> None:
            """Has nothing open."""

    notes: list[str] = []
    clock = Clock(0.0, 1e4)
    context: Any = SimpleNamespace(
        settings=load_settings(),
        run=SimpleNamespace(path=tmp_path, keeps_trials=True),
        **ON_THIS_MACHINE,
        stop=SimpleNamespace(requested=False),
        clock=clock,
        note=lambda text, warning=False: notes.append(text),
    )
    prepared: Any = SimpleNamespace(store=SimpleNamespace(folder=folder))
    monkeypatch.setattr(trial_executor, "write_site", lambda *_: None)
    monkeypatch.setattr(trial_executor, "EXECUTORS", {"local": Executor, "workers": Executor})
    with trial_executor.trial_executor(context, prepared, runner(tmp_path), cpu_slots(count, 2), lambda: 1.0):
        crowd = clock.wall_per_cpu_second
        time.sleep(0.01)
        assert (clock.wall_per_cpu_second == crowd) == (count > 1)
    assert (trial_executor.UNSEEN_IMAGES in notes) == told


def test_a_part_of_a_gpu_where_there_is_none_is_said(tmp_path: Path) -> None:
    notes: list[str] = []
    settings = load_settings(overrides={"machine.gpus_per_trial": 0.5})
    context: Any = SimpleNamespace(settings=settings, note=lambda text, warning: notes.append(text), **ON_THIS_MACHINE)
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
