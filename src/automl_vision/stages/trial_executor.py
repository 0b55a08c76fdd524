"""Where the trials of a run go: into this process, or into as many workers as there are slots."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from automl_vision import run_dir
from automl_vision.data.preparation import Prepared, cache_folder
from automl_vision.errors import ResolutionError, WeightsError
from automl_vision.executors import EXECUTORS, Executor, Workplace
from automl_vision.models.backbones import backbone
from automl_vision.models.memory import is_out_of_memory
from automl_vision.place import Place
from automl_vision.search.run_trial import Assignment, TrialInterrupted, TrialRunner
from automl_vision.search.trial import Trial
from automl_vision.stages.cluster import cluster_executor, cluster_slots
from automl_vision.stages.context import RunContext
from automl_vision.stages.plan import Plan
from automl_vision.stages.slots import Slots, bytes_of_a_trial, cpu_slots, gpu_slots, visible_gpus
from automl_vision.stages.trial_site import OPENING, ROWS, SITE, TOGETHER, Machine, write_site
from automl_vision.training.loop import TrialFailed

_LOGS = f"what they print is in {run_dir.WORKERS}/"
#: Said where workers cannot open the squares that the driver has.
UNSEEN_IMAGES = (
    "No disk has room for decoded images, and workers do not see what this process holds in memory: they decode "
    "images from their files again for every batch, which is slow. Give --cache-dir a folder with room, or let one "
    "trial run at a time (--max-parallel 1)."
)


def slots_of(
    context: RunContext, prepared: Prepared, plan: Plan, runner: TrialRunner, fixed: Mapping[str, Any]
) -> Slots:
    """How many trials run at a time, and where.

    Args:
        context: of the run.
        prepared: its data.
        plan: what is going to be tried.
        runner: what would run trials in this process; on GPUs it tries a step, where nobody says how many fit.
        fixed: fields of every recipe that the user gave.
    """
    machine, device = context.settings.machine, runner.runtime.device
    if context.cluster is not None:
        return cluster_slots(context.cluster, machine)
    if not context.ranks.alone:
        return cpu_slots(1, runner.runtime.threads)
    if device.type != "cuda":
        if machine.gpus_per_trial is not None:
            context.note("Trials run without a GPU: gpus_per_trial says nothing.", warning=True)
        return cpu_slots(machine.max_parallel, runner.runtime.threads)
    dearest = max(plan.backbones, key=lambda name: backbone(name).gmacs or 1.0)

    def needed() -> int | None:
        # Images that stayed on the device would be in the way of those that share it.
        untouched = dataclasses.replace(runner, data=dataclasses.replace(runner.data, source=prepared.store))
        try:
            return bytes_of_a_trial(untouched, dearest, plan.resolutions[0], dict(fixed))
        except TrialInterrupted:
            return None  # the search ends before it begins
        except (TrialFailed, WeightsError, ResolutionError, RuntimeError, MemoryError) as error:
            reason = _why_not_tried(error)
        context.note(
            f"One trial at a time runs on each GPU: how much one takes could not be tried: {reason}.", warning=True
        )
        return None

    gpus = visible_gpus(device)
    return gpu_slots(gpus, machine.max_parallel, machine.gpus_per_trial, runner.runtime.threads, needed)


def _why_not_tried(error: TrialFailed | WeightsError | ResolutionError | RuntimeError | MemoryError) -> str:
    """Why a step could not be tried, for people; what is no fault of a candidate is raised again."""
    if isinstance(error, TrialFailed | WeightsError | ResolutionError):
        return str(error).splitlines()[0].rstrip(".")
    if not is_out_of_memory(error):
        raise error
    return "not even one image at a time fits into memory"


@contextmanager
def trial_executor(
    context: RunContext, prepared: Prepared, runner: TrialRunner, slots: Slots, seconds_left: Callable[[], float]
) -> Iterator[Executor[Assignment, Trial]]:
    """What runs trials, closed in the end.

    Args:
        context: of the run.
        prepared: its data.
        runner: runs trials here, or is written down for those that do elsewhere.
        slots: of `slots_of`.
        seconds_left: seconds until trials must end.

    Raises:
        RunError: a worker cannot start.
        OSError: the run folder cannot be written.
    """
    logs = (context.run.path / run_dir.WORKERS).absolute()
    folder = site_folder(context)
    workplace = Workplace(
        here=runner,
        opening=OPENING,
        folder=str(folder),
        encode=Assignment.to_dict,
        decode=Trial.from_dict,
        seconds_left=seconds_left,
        stopped=lambda: context.stop.requested,
        slots=slots.slots,
        logs=logs,
    )
    if not context.ranks.alone:
        write_site(folder, prepared, runner, _machine(context, runner, slots))
        context.note(f"{context.ranks.size} processes train each model together; {_LOGS}.")
        together = dataclasses.replace(workplace, ranks=context.ranks, opening=TOGETHER)
        yield from _until_closed(EXECUTORS["ranks"](together))
        return
    if slots.in_this_process:
        yield from _until_closed(EXECUTORS["local"](workplace))
        return
    write_site(folder, prepared, runner, _machine(context, runner, slots))
    context.note(_in_words(slots))
    if prepared.store.folder is None:
        context.note(UNSEEN_IMAGES, warning=True)
    try:
        with context.clock.waiting_for_others():
            if context.cluster is None:
                yield from _until_closed(EXECUTORS["workers"](workplace))
            else:
                yield from _until_closed(cluster_executor(context, context.cluster, workplace))
    finally:
        remove_site(folder)


def _until_closed(executor: Executor[Assignment, Trial]) -> Iterator[Executor[Assignment, Trial]]:
    try:
        yield executor
    finally:
        executor.close()


def _machine(context: RunContext, runner: TrialRunner, slots: Slots) -> Machine:
    machine, device = context.settings.machine, runner.runtime.device
    gigabytes = machine.cache_gigabytes
    return Machine(
        device=machine.device if slots.elsewhere else _device_of_worker(device),
        precision=machine.precision,
        threads=slots.threads,
        share=slots.share,
        compile=machine.compile,
        cache_dir=cache_folder(context.settings),
        cache_bytes=None if gigabytes is None else int(gigabytes * 1e9),
        offline=context.settings.search.offline,
    )


def _device_of_worker(device: torch.device) -> str:
    """Of the GPUs, a worker sees the one that is its own."""
    return "cuda" if device.type == "cuda" else str(device)


def _in_words(slots: Slots) -> str:
    threads = f"{slots.threads} thread{'s' * (slots.threads != 1)}"
    why = f" ({slots.reason})" if slots.reason else ""
    if slots.elsewhere:
        return f"Trials run on the cluster{why}; {_LOGS}."
    return f"{len(slots)} trials run at a time{why}, each in a process of its own with {threads}; {_LOGS}."


def site_folder(context: RunContext) -> Place:
    """Where those that run trials, or take part in them, find what these need."""
    logs = (context.run.path / run_dir.WORKERS).absolute()
    return logs if context.run.keeps_trials else context.run.trials / run_dir.WORKERS


def remove_site(folder: Place) -> None:
    """It names files by their whole paths, and serves nobody any more."""
    for name in (SITE, ROWS):
        (folder / name).unlink(missing_ok=True)
