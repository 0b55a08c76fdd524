"""How many trials run at a time, and where: in this process, in as many as the user wants, or as GPUs have room for."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from automl_vision.executors import Slot
from automl_vision.models.memory import free_memory, watched_memory
from automl_vision.search.run_trial import TrialRunner
from automl_vision.training.loop import Trainer, TrainingData, TrialFailed
from automl_vision.training.recipe import Recipe

#: Trials that share a GPU at most: more wait for each other. An assumption; it was not measured.
MOST_PER_GPU = 4
#: What trials may take of the memory that is free, by what one of them was seen to take.
MEMORY_SHARE = 0.9
#: What a trial takes over the one that was tried: other recipes, and blocks that the allocator holds unused.
CAUTION = 1.5
#: Bytes that a process takes on a GPU before its first tensor; an assumption, it was not measured here.
CONTEXT_BYTES = 600_000_000
#: Images of the training step that is tried.
TRIED_IMAGES = 32
#: Variables that say how many threads a process starts.
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
#: The variable that says which GPUs a process sees.
VISIBLE = "CUDA_VISIBLE_DEVICES"


@dataclass(frozen=True)
class Gpu:
    """A GPU of this machine.

    Attributes:
        name: as CUDA_VISIBLE_DEVICES has it.
        free: bytes.
    """

    name: str
    free: int


@dataclass(frozen=True)
class Slots:
    """Trials at a time.

    Attributes:
        slots: where each of them runs; one means in the driver's process.
        threads: of the CPU that each has.
        share: of a GPU's memory, or of the CPU's threads, that each has.
        reason: of their number, for people; empty where nothing was asked for or found out.
        elsewhere: whether they are on other machines.
    """

    slots: tuple[Slot, ...]
    threads: int
    share: float
    reason: str = ""
    elsewhere: bool = False

    @property
    def in_this_process(self) -> bool:
        """Whether trials run where the search does, one after the other."""
        return len(self) == 1 and not self.elsewhere

    def __len__(self) -> int:
        return len(self.slots)


def cpu_slots(wanted: int, threads: int) -> Slots:
    """As many as the user wants, each with its share of the threads; one where nothing is wanted."""
    count = max(wanted, 1)
    each = max(threads // count, 1)
    return Slots((Slot(_threads(each)),) * count, each, 1 / count)


def gpu_slots(
    gpus: Sequence[Gpu], wanted: int, per_trial: float | None, threads: int, needed: Callable[[], int | None]
) -> Slots:
    """Slots on GPUs, dealt out one GPU after the other. Where nobody asks for more, a GPU has one trial at a time:
    what it gains from several was not measured yet.

    Args:
        gpus: at least one.
        wanted: trials at a time, if there is room for them; 0 for one on each GPU.
        per_trial: the part of a GPU that each has; None for as little as its memory allows.
        threads: of the CPU, which they share.
        needed: bytes that one trial takes, None where nobody could find out; asked only where more are wanted than
            there are GPUs, and nobody says how many fit.
    """
    if per_trial is not None:
        each, reason = int(1 / per_trial + 1e-9), f"each trial has {per_trial:g} of a GPU"
    elif wanted <= len(gpus) or (bytes_needed := needed()) is None:
        each, reason = 1, ""
    else:
        each = min(_room(gpu, bytes_needed) for gpu in gpus)
        reason = f"a trial takes about {bytes_needed / 1e9:.1f} GB of a GPU"
    names = [gpu.name for _ in range(each) for gpu in gpus][: wanted or None]
    on_one = math.ceil(len(names) / len(gpus))
    own = max(threads // len(names), 1)
    slots = tuple(Slot({**_threads(own), VISIBLE: name}) for name in names)
    return Slots(slots, own, 1 / on_one, reason)


def _room(gpu: Gpu, needed: int) -> int:
    return max(1, min(int(MEMORY_SHARE * gpu.free / max(needed, 1)), MOST_PER_GPU))


def _threads(count: int) -> dict[str, str]:
    return dict.fromkeys(THREADS, str(count))


def visible_gpus(device: torch.device) -> tuple[Gpu, ...]:
    """The GPUs that a run may use: all that this process sees, or the one that was named by its number."""
    listed = [name for name in os.environ.get(VISIBLE, "").split(",") if name.strip()]
    numbers = range(torch.cuda.device_count()) if device.index is None else [device.index]
    return tuple(
        Gpu(listed[number] if number < len(listed) else str(number), torch.cuda.mem_get_info(number)[0])
        for number in numbers
    )


def bytes_of_a_trial(runner: TrialRunner, backbone: str, side: int, fixed: dict[str, Any]) -> int:
    """What a process that trains takes of the device: a step is tried, and the images that stay there are added.

    Args:
        runner: what would train, with images that are not on the device.
        backbone, side: what is trained.
        fixed: fields of every recipe that the user gave.

    Raises:
        TrialFailed: the time ended before a step was done, one image does not fit, or the loss is not finite.
        WeightsError: the weights cannot be had.
        TrialInterrupted: the user stopped the run.
        RuntimeError, MemoryError: memory ran out.
    """
    device, data = runner.runtime.device, runner.data
    pinned = {name: value for name, value in fixed.items() if name not in ("epochs", "batch_size")}
    recipe = Recipe("finetune", backbone, side, epochs=1, batch_size=int(fixed.get("batch_size", TRIED_IMAGES)))
    recipe = dataclasses.replace(recipe, **{**pinned, "head_from_probe": False})
    few = slice(0, recipe.effective_batch)
    one_step = dataclasses.replace(
        data,
        train_rows=data.train_rows[few],
        train_labels=data.train_labels[few],
        val_rows=data.val_rows[few],
        val_labels=data.val_labels[few],
    )
    try:
        taken = _peak_of_a_step(runner, recipe, one_step)
    finally:
        free_memory(device)
    stored = data.source.plane_for(side)
    images = (len(data.train_rows) + len(data.val_rows)) * 3 * stored * stored
    return int(CAUTION * taken) + CONTEXT_BYTES + images


def _peak_of_a_step(runner: TrialRunner, recipe: Recipe, data: TrainingData) -> int:
    """Bytes of the device in use at most, while nothing else of this process is there."""
    net = runner.classifier(recipe)
    trainer = Trainer(recipe, data, net, runner.preprocessing(recipe), runner.runtime, lambda *_: 0.0)
    with watched_memory(runner.runtime.device) as peak:
        result = trainer.run_epoch(runner.seconds_left)
    if not result.images:
        raise TrialFailed("the time ended before a step was done")
    return peak.bytes
