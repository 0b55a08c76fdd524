"""Stage `search`: candidates are trained and compared on validation; the best so far is always on disk."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from automl_vision import run_dir
from automl_vision.bundle import save_bundle
from automl_vision.data.preparation import Prepared
from automl_vision.events import TrialChanged
from automl_vision.executors import EXECUTORS
from automl_vision.metrics import objective_for
from automl_vision.models.backbones import backbone
from automl_vision.models.heads import LINEAR
from automl_vision.runtime import Runtime
from automl_vision.search.choice import Chooser
from automl_vision.search.judge import Judge
from automl_vision.search.run_trial import TrialInterrupted, TrialRunner
from automl_vision.search.samplers import sampler_for
from automl_vision.search.search import Search, SearchEnded, SearchTask
from automl_vision.search.trial import Trial
from automl_vision.search.trial_files import TrialFiles
from automl_vision.stages.context import RunContext
from automl_vision.stages.finish import bundle_of
from automl_vision.stages.impact import impact_images, impact_seconds
from automl_vision.stages.plan import Plan
from automl_vision.stages.reserve import seconds_to_finish, seconds_to_report
from automl_vision.training.loop import TrainingData


@dataclass(frozen=True)
class Searched:
    """What a search came to.

    Attributes:
        search: all trials, and the space they are of.
        runner: what trained them; it knows their files and their preprocessing.
        chooser: says which of them is the model.
        stop_reason: a key of `search.search.STOP_REASONS`.
    """

    search: Search
    runner: TrialRunner
    chooser: Chooser
    stop_reason: str


def objective_of(context: RunContext, prepared: Prepared) -> str:
    """What validation maximises: a name of `METRICS`.

    Copies do not count: a small class that was filled up with them is still small where models are judged.
    """
    train = prepared.split.rows("train")
    train = train[prepared.audit.lineage.role[train] != "copy"]
    counts = np.bincount(prepared.labels(train), minlength=len(prepared.manifest.class_names))
    return objective_for(counts.tolist(), context.settings.search.objective)


def search_trials(context: RunContext, prepared: Prepared, plan: Plan, runtime: Runtime) -> Searched:
    """Search until the time or the trials end. Trials see training and validation images, and no others."""
    files = TrialFiles(context.run.path / run_dir.TRIALS)
    history, damaged = files.read()
    for name in damaged:
        context.note(f"The record trials/{name} is damaged; it was set aside and its trial is lost.", warning=True)
    time_left = _TimeLeft(context, prepared, history, impact_images(context, prepared))
    runner = _runner(context, prepared, plan, runtime, files, time_left)
    search = Search(
        _task(context, prepared, plan),
        EXECUTORS["local"](runner),
        history,
        seconds_left=time_left,
        interrupted=lambda: context.stop.requested,
    )
    chooser = Chooser(files, judge_of(prepared, runner.objective))
    keeper = _Keeper(context, prepared, runner, chooser)
    for event in search:
        if isinstance(event, SearchEnded):
            return Searched(search, runner, chooser, event.reason)
        time_left.trials = search.trials
        keeper.take(event, search.trials)
    raise RuntimeError("a search ends with an event that says why")


def judge_of(prepared: Prepared, objective: str) -> Judge:
    """What compares candidates: the validation images and their groups."""
    val = prepared.split.rows("val")
    return Judge(prepared.labels(val), prepared.groups(val), len(prepared.manifest.class_names), objective)


@dataclass
class _TimeLeft:
    """Seconds until the search must end, so that what comes after it still fits into the budget."""

    context: RunContext
    prepared: Prepared
    trials: list[Trial]
    impact_images: int = 0

    def __call__(self) -> float:
        after = seconds_to_report(self.context, self.prepared, self.trials)
        impact = impact_seconds(self.impact_images, self.context, self.prepared, self.trials)
        finish = seconds_to_finish(self.context, self.prepared, self.trials)
        return self.context.clock.remaining - after - impact - finish


@dataclass
class _Keeper:
    """Keeps records, disk and the model file in step with the trials, and tells what happens."""

    context: RunContext
    prepared: Prepared
    runner: TrialRunner
    chooser: Chooser
    shipped: Trial | None = None

    def take(self, trial: Trial, trials: list[Trial]) -> None:
        """Take one change of one trial."""
        if trial.state in ("stopped", "failed"):
            self.runner.files.commit(trial)  # given up by the search, after its process last wrote it
        choice = self.chooser.choose(trials)
        best = choice.trial if choice else None
        self.context.tell(TrialChanged(trial, best, self.context.clock.remaining))
        if trial.state == "running" and not trial.epochs:
            return
        self.context.run.log(
            f"trial {trial.number} {trial.state} epoch {trial.epochs_done} score {trial.score} {trial.error}".rstrip()
        )
        self.context.run.note_spent(self.context.clock.elapsed)
        if trial.state != "running":
            self.runner.files.prune(trials, also=choice.weights if choice else ())
        if best is not None and best.state != "running" and best != self.shipped:
            self._ship(best)

    def _ship(self, best: Trial) -> None:
        result = self.runner.files.load_result(best.number)
        if result is not None:
            bundle = bundle_of(best, result, self.runner, self.prepared, self.context)
            save_bundle(bundle, self.context.run.path / run_dir.MODEL)
        self.shipped = best


def _runner(
    context: RunContext,
    prepared: Prepared,
    plan: Plan,
    runtime: Runtime,
    files: TrialFiles,
    time_left: _TimeLeft,
) -> TrialRunner:
    train, val = prepared.split.rows("train"), prepared.split.rows("val")
    data = TrainingData(
        source=prepared.store.sealed(prepared.split.augmented_val),  # they are only ever reported
        train_rows=torch.from_numpy(train),
        train_labels=torch.from_numpy(prepared.labels(train)),
        val_rows=torch.from_numpy(val),
        val_labels=torch.from_numpy(prepared.labels(val)),
        num_classes=len(prepared.manifest.class_names),
    )
    return TrialRunner(
        data=data,
        train_groups=prepared.groups(train),
        objective=objective_of(context, prepared),
        runtime=runtime,
        files=files,
        weights=plan.weights,
        seconds_left=_unless_stopped(context, time_left),
        history=time_left.trials,
        keeps_features=context.settings.search.head != LINEAR,
    )


def _unless_stopped(context: RunContext, seconds_left: Callable[[], float]) -> Callable[[], float]:
    """What a trial asks at every step: the time left, or to leave at once because the user stopped the run."""

    def ask() -> float:
        if context.stop.requested:
            raise TrialInterrupted
        return seconds_left()

    return ask


def _task(context: RunContext, prepared: Prepared, plan: Plan) -> SearchTask:
    settings = context.settings
    return SearchTask(
        backbones=plan.backbones,
        pretrained=plan.pretrained,
        resolutions=plan.resolutions,
        fixed={name: value for name, value in vars(settings.training).items() if value is not None},
        n_train=len(prepared.split.rows("train")),
        n_val=len(prepared.split.rows("val")),
        gmacs=lambda name: backbone(name).gmacs,
        sampler=sampler_for(settings.search.sampler),
        head=settings.search.head,
        max_trials=settings.search.trials,
        seed=settings.machine.seed,
        imagenet_top1=lambda name: backbone(name).imagenet_top1,
    )
