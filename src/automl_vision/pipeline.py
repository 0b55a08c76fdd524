"""The order of the stages. The only file that knows it.

    read -> plan -> decode -> audit -> search -> finish -> test -> report

Nothing is printed here: what happens is told to a listener, and the result is returned.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from automl_vision import run_dir
from automl_vision.bundle import Bundle, save_bundle
from automl_vision.calibration import apply_temperature, fit_temperature
from automl_vision.config import Settings, load_settings, setting_names
from automl_vision.data.manifest import Manifest
from automl_vision.data.preparation import Prepared, decode, prepare, read_manifest
from automl_vision.data.preprocess import Preprocessing
from automl_vision.data.split import split_table
from automl_vision.errors import BudgetExhausted, DataError, Interrupted, RunError
from automl_vision.events import Note, Progress, StageStarted, Tell, TrialChanged, silent
from automl_vision.executors import EXECUTORS
from automl_vision.metrics import objective_for
from automl_vision.models.backbones import backbone, statistics
from automl_vision.models.classifier import Classifier
from automl_vision.models.image_source import ImageSource, resized_batches
from automl_vision.models.inference import logits
from automl_vision.models.weights import WeightSource, find_weights, require_weights
from automl_vision.predictor import Model, load
from automl_vision.report.predictions import Predictions
from automl_vision.run_dir import RunDir
from automl_vision.runtime import Clock, Runtime, environment, make_runtime
from automl_vision.search.costs import CostModel
from automl_vision.search.planner import POOLS, MachinePower, plan_backbones, plan_resolutions, stored_sizes
from automl_vision.search.run_trial import TrialInterrupted, TrialRunner
from automl_vision.search.samplers import export_study
from automl_vision.search.search import Search, SearchEnded, SearchTask
from automl_vision.search.trial import Trial, best_trial
from automl_vision.search.trial_files import TrialFiles
from automl_vision.training.loop import TrainingData

__all__ = ["Model", "Run", "StopRequest", "inspect", "load", "resume_search", "run_search", "search"]

#: Seconds kept for the plots and the report; measured on two cores, see docs/benchmarks.md.
REPORT_SECONDS = 8.0
INFERENCE_BATCH = 128


@dataclass
class StopRequest:
    """Set by a signal handler to end a run tidily with the best model so far."""

    requested: bool = False


@dataclass(frozen=True)
class Run:
    """A finished search.

    Attributes:
        path: the run folder.
        report: the content of report.json.
    """

    path: Path
    report: dict[str, Any]

    @property
    def model(self) -> Path:
        """The model file."""
        return self.path / run_dir.MODEL

    @property
    def interrupted(self) -> bool:
        """Whether the user ended it early; it can be resumed."""
        return bool(self.report["stop_reason"] == "interrupted")

    def load(self) -> Model:
        """The model, ready to predict."""
        return load(self.model)


def search(data: str | Path, budget: str | None = None, *, out: str | Path | None = None, **settings: Any) -> Run:
    """Find the best classifier for a folder or table of labelled images.

    Args:
        data: folder of class folders, or a CSV, TSV or Parquet table.
        budget: wall-clock time for everything: "90s", "10m", "1h".
        out: the run folder to make; `runs/<data>-<date>` by default.
        **settings: any setting of docs/settings.md by its key (`device="cpu"`, `backbones=["resnet18"]`, ...).

    Raises:
        ConfigError: an unknown or wrong setting.
        DataError: the images cannot be used.
        BudgetExhausted: the budget ended before one usable model.
    """
    names = setting_names()
    overrides = {names.get(key, f"unknown.{key}"): value for key, value in settings.items()}
    chosen = load_settings(overrides={**overrides, "search.budget": budget})
    return run_search(Path(data), chosen, out=Path(out) if out else None)


def run_search(
    data: Path,
    settings: Settings,
    *,
    out: Path | None = None,
    tell: Tell = silent,
    stop: StopRequest | None = None,
    started: float | None = None,
) -> Run:
    """A new run.

    Args:
        data: the images.
        settings: all settings.
        out: the run folder to make; by default named by the settings, or after the data and the date.
        tell: listener for events.
        stop: may be set at any time to end the run tidily.
        started: monotonic seconds from which the budget counts; now by default.
    """
    started = time.monotonic() if started is None else started
    if not data.exists():
        raise DataError("there are no images at this path", value=str(data), fix="check the path given to --data")
    run = RunDir.create(out or _run_path(data, settings), settings, {"data": str(data.resolve())})
    return _held(run, Session(run, data, settings, tell, stop or StopRequest(), started))


def resume_search(
    path: Path, *, tell: Tell = silent, stop: StopRequest | None = None, started: float | None = None
) -> Run:
    """Go on with a run that was interrupted or killed; a finished one is returned as it is.

    Raises:
        RunError: there is no run, another process works in it, or its data changed.
    """
    started = time.monotonic() if started is None else started
    run = RunDir.open(path)
    finished = run.report
    if finished is not None and finished["stop_reason"] != "interrupted":
        run.close()
        tell(Note(f"This run is complete ({finished['stop_reason']}); nothing is left to do."))
        return Run(path, finished)
    return _held(run, Session(run, Path(run.about["data"]), run.settings, tell, stop or StopRequest(), started))


def inspect(data: Path, settings: Settings, *, tell: Tell = silent) -> Prepared:
    """What `search` would use, what is wrong with it and how it would be split; nothing is trained.

    Raises:
        DataError: the images cannot be used.
    """
    tell(StageStarted("read"))
    manifest = read_manifest(data, settings)
    runtime = make_runtime("cpu", "float32", settings.machine.threads)
    plan = make_plan(manifest, settings, runtime, offline=True)
    tell(StageStarted("decode"))
    store, facts = decode(
        manifest, settings, stored_sizes(plan.resolutions), runtime.threads, lambda n, of: tell(Progress(n, of))
    )
    tell(StageStarted("audit"))
    return prepare(manifest, facts, store, settings)


@dataclass(frozen=True)
class Plan:
    """What is going to be tried.

    Attributes:
        backbones: in the order in which they are probed.
        weights: where the pretrained weights of each are; none for those that start from random weights.
        resolutions: sides of the input in pixels, best first.
        notes: what the user should know.
    """

    backbones: tuple[str, ...]
    weights: dict[str, WeightSource]
    resolutions: tuple[int, ...]
    notes: tuple[str, ...] = ()


def make_plan(manifest: Manifest, settings: Settings, runtime: Runtime, *, offline: bool = False) -> Plan:
    """Backbones, weights and resolutions for these data on this machine.

    Raises:
        UsageError: an unknown backbone.
        WeightsError: none of the backbones that the user named has weights within reach.
    """
    wanted, pretrained = settings.search.backbones, settings.search.pretrained
    power = MachinePower(gpu=runtime.device.type != "cpu", threads=runtime.threads)
    asked = wanted or [*dict.fromkeys(name for pool in POOLS.values() for name in pool)]
    found = _find_all_weights(asked, settings, offline) if pretrained else {}
    backbones, notes = _with_weights(
        plan_backbones(wanted, found, power, pretrained=pretrained), found, settings, named=bool(wanted)
    )
    resolutions = plan_resolutions(
        settings.search.resolutions,
        backbones,
        power,
        budget=settings.budget_seconds,
        images=len(manifest),
        typical_side=typical_side(manifest),
    )
    weights = {name: source for name in backbones if (source := found.get(name)) is not None}
    return Plan(backbones, weights, resolutions, notes)
