"""Stage `search`: candidates are trained and compared on validation; the best so far is always on disk."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from typing import Any, cast

import numpy as np
import torch

from automl_vision import run_dir
from automl_vision.bundle import save_bundle
from automl_vision.config import TrainingSettings
from automl_vision.data.preparation import Prepared
from automl_vision.events import TrialChanged
from automl_vision.executors import Executor
from automl_vision.metrics import objective_for
from automl_vision.models.backbones import backbone, has_stochastic_depth
from automl_vision.models.device_images import on_device
from automl_vision.models.heads import LINEAR
from automl_vision.models.symmetry import SYMMETRIES, symmetry_line
from automl_vision.report.html import duration
from automl_vision.runtime import Runtime
from automl_vision.search.choice import Chooser
from automl_vision.search.front import best_of_forms
from automl_vision.search.history_file import History, RunFacts, history_file
from automl_vision.search.judge import Judge
from automl_vision.search.run_trial import Assignment, TrialInterrupted, TrialRunner
from automl_vision.search.samplers import sampler_for
from automl_vision.search.search import Search, SearchEnded, SearchTask
from automl_vision.search.trial import Trial
from automl_vision.search.trial_check import Expected, set_aside_unsound
from automl_vision.search.trial_files import TrialFiles
from automl_vision.search.turns import Shares, TurnBegan, Turns
from automl_vision.stages.context import RunContext
from automl_vision.stages.finish import bundle_of
from automl_vision.stages.impact import IMPACT_SHARE, impact_images, impact_seconds
from automl_vision.stages.limits import form_of, room_of
from automl_vision.stages.plan import Plan
from automl_vision.stages.reserve import (
    costs_seconds,
    most_costs_seconds,
    report_seconds,
    seconds_to_finish,
    seconds_to_report,
)
from automl_vision.stages.trial_executor import slots_of, trial_executor
from automl_vision.training.batch_size import effective_batch
from automl_vision.training.compiling import Setting, StepCompiler
from automl_vision.training.loop import TrainingData

#: The batch size that follows from the number of images.
AUTO = "auto"


@dataclass(frozen=True)
class Searched:
    """What a search came to.

    Attributes:
        search: all trials, and the space they are of; `Turns` where each backbone had a time of its own.
        runner: what trained them; it knows their files and their preprocessing.
        chooser: says which of them is the model.
        stop_reason: a key of `search.search.STOP_REASONS`.
        too_slow: numbers of trials that proved too slow for the limit when the search was over.
    """

    search: Search | Turns
    runner: TrialRunner
    chooser: Chooser
    stop_reason: str
    too_slow: frozenset[int] = frozenset()

    @property
    def candidates(self) -> list[Trial]:
        """The trials of which the best becomes the model."""
        return self.search.task.candidates([each for each in self.search.trials if each.number not in self.too_slow])


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
    files = TrialFiles(context.run.trials)
    history, damaged = files.read()
    for name in damaged:
        context.note(f"The record trials/{name} is damaged; it was set aside and what it told is lost.", warning=True)
    for told in set_aside_unsound(files, history, _expected(prepared)) if history else ():
        context.note(f"trials/{told} cannot be used; it was set aside, and what needs it is done again.", warning=True)
    time_left = _TimeLeft(context, prepared, history, impact_images(context, prepared))
    shares, task = shares_of(context), _task(context, prepared, plan)
    until = shares.left if shares is not None else time_left
    runner = _runner(context, prepared, plan, runtime, files, _unless_stopped(context, until), history)
    slots = slots_of(context, prepared, plan, runner, task.fixed)
    task = replace(task, share=slots.share)
    if not slots.in_this_process:
        files.fence()
    with trial_executor(context, prepared, runner, slots, until) as executor:
        search = _search(context, task, executor, history, files, until, shares)
        if task.one_recipe:
            context.note(_one_recipe(task))
        chooser = Chooser(files, judge_of(prepared, runner.objective))
        keeper = _Keeper(context, prepared, runner, task, chooser, shares, _history(context, runner, history))
        keeper.copies = _copies(context, history)
        return _followed(context, search, keeper, time_left)


def _expected(prepared: Prepared) -> Expected:
    manifest, val = prepared.manifest, prepared.split.rows("val")
    return Expected(len(manifest), len(val), len(manifest.class_names))


def _search(
    context: RunContext,
    task: SearchTask,
    executor: Executor[Assignment, Trial],
    history: list[Trial],
    files: TrialFiles,
    until: Callable[[], float],
    shares: Shares | None,
) -> Search | Turns:
    def interrupted() -> bool:
        return context.stop.requested

    if shares is not None:
        return Turns(task, executor, history, shares=shares, interrupted=interrupted, records=files)
    return Search(task, executor, history, seconds_left=until, interrupted=interrupted, records=files)


def _followed(context: RunContext, search: Search | Turns, keeper: _Keeper, time_left: _TimeLeft) -> Searched:
    """Take what a search yields until it ends."""
    for event in search:
        if isinstance(event, SearchEnded):
            keeper.note_spent()
            return Searched(search, keeper.runner, keeper.chooser, event.reason)
        if isinstance(event, TurnBegan):
            if event.seconds > 0:
                left = duration(event.seconds)
                context.note(f"Turn {event.place} of {event.of}: {event.backbone} has {left}.")
            continue
        time_left.trials = search.trials
        keeper.runner.learn(event)
        keeper.take(event, search.trials)
    raise RuntimeError("a search ends with an event that says why")


def memory_line(trial: Trial) -> str:
    """What a user reads of a trial whose batch did not fit into memory."""
    at_once = trial.notes["micro_batch"]
    return (
        f"Memory has room for {at_once} images at once of {trial.recipe.backbone} at {trial.recipe.resolution} px: "
        f"a step on {trial.recipe.effective_batch} gathers their gradients part by part."
    )


def unread_line(trial: Trial) -> str:
    """What a user reads of a trial that could not go on from a checkpoint that is there."""
    files = ", ".join(trial.notes["unread"])
    return f"Trial {trial.number} trains epochs again, since a checkpoint cannot be read: {files}."


def compiling_line(trial: Trial) -> str:
    """What a user reads of a trial whose steps were compiled, or were to be."""
    return f"{trial.recipe.backbone} at {trial.recipe.resolution} px: {trial.notes['compiling']}."


def shares_of(context: RunContext) -> Shares | None:
    """The time of each backbone, with what earlier sessions used; None where they share the budget."""
    each = context.settings.seconds_per_backbone
    return None if each is None else Shares(each, context.run.turns)


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
        costs = costs_seconds(self.context, self.trials)
        return self.context.clock.remaining - after - impact - finish - costs


def with_turns(context: RunContext, prepared: Prepared, plan: Plan) -> RunContext:
    """The context with a clock that gives every backbone what is left of its own time, whatever preparing took.

    It is the same context where backbones share the budget.
    """
    shares = shares_of(context)
    if shares is None:
        return context
    to_come = shares.to_come(plan.backbones)
    measuring = IMPACT_SHARE * to_come if impact_images(context, prepared) else 0.0
    count = len(plan.backbones)
    after = report_seconds(context, prepared) + measuring + most_costs_seconds(to_come)
    clock = replace(context.clock, budget=context.clock.elapsed + to_come + after)
    context.note(
        f"{count} backbone{'s' * (count != 1)}, one after the other, each with {duration(shares.seconds)}: "
        f"{duration(to_come)} of search to come. With {duration(context.clock.elapsed)} so far, and about "
        f"{duration(after)} for the test and the report, {duration(clock.budget)} in all."
    )
    return replace(context, clock=clock)


@dataclass
class _Keeper:
    """Keeps records, disk and the model file in step with the trials, and tells what happens."""

    context: RunContext
    prepared: Prepared
    runner: TrialRunner
    task: SearchTask
    chooser: Chooser
    shares: Shares | None = None
    history: History | None = None
    copies: TrialFiles | None = None
    shipped: Trial | None = None
    told: set[str] = field(default_factory=set)

    def take(self, trial: Trial, trials: list[Trial]) -> None:
        """Take one change of one trial."""
        if trial.state in ("stopped", "failed"):
            self.runner.files.commit(trial)  # given up by the search, after its process last wrote it
        if self.copies is not None:
            self.copies.commit(trial)
        choice = self.chooser.choose(self.task.candidates(trials))
        best = choice.trial if choice else None
        self.context.tell(TrialChanged(trial, best, self.context.clock.remaining))
        if trial.notes.get("lost_why") and trial.state == "running":
            self._tell_once(
                f"Trial {trial.number} goes on elsewhere as attempt {trial.attempt}: {trial.notes['lost_why']}."
            )
        if trial.notes.get("unread"):
            self._tell_once(unread_line(trial))
        if trial.state == "running" and not trial.epochs:
            return
        if trial.recipe.kind == "probe" and "symmetries" in trial.notes:
            self.context.note(symmetry_line(trial.notes["symmetries"]))
        self._tell_of_steps(trial)
        self.context.run.log(
            f"trial {trial.number} {trial.state} epoch {trial.epochs_done} score {trial.score} {trial.error}".rstrip()
        )
        self.note_spent()
        self._remember(trial)
        if trial.state != "running":
            kept = self.context.settings.output.kept_checkpoints
            fronts = {each.number for each in best_of_forms(trials)}
            self.runner.files.prune(trials, kept, also=fronts | (choice.weights if choice else frozenset()))
        if best is not None and best.state != "running" and best != self.shipped:
            self._ship(best)

    def _tell_of_steps(self, trial: Trial) -> None:
        """One line where memory was too small for a batch, or steps were compiled: once for what it says."""
        lines = [memory_line(trial)] if "micro_batch" in trial.notes else []
        lines += [compiling_line(trial)] if "compiling" in trial.notes else []
        for line in lines:
            self._tell_once(line)

    def _tell_once(self, line: str) -> None:
        if line not in self.told:
            self.told.add(line)
            self.context.note(line)

    def note_spent(self) -> None:
        """Record the time used, so that a run that is killed goes on with what is left."""
        if self.shares is not None:
            self.context.run.note_turns(self.shares.spent())
        self.context.run.note_spent(self.context.clock.elapsed)

    def _remember(self, trial: Trial) -> None:
        """Add to the history of this machine; a run does not depend on it."""
        if self.history is None:
            return
        try:
            self.history.take(trial, _descriptors(trial.recipe.backbone))
        except OSError as error:
            reason = error.strerror or str(error)
            self.context.note(f"The history {self.history.file} is not written on: {reason}.", warning=True)
            self.history = None

    def _ship(self, best: Trial) -> None:
        result = self.runner.files.load_result(best.number)
        if result is not None:
            bundle = bundle_of(best, result, self.runner, self.prepared, self.context)
            self.context.run.put_report_aside()
            save_bundle(bundle, self.context.run.path / run_dir.MODEL)
        self.shipped = best


def _runner(
    context: RunContext,
    prepared: Prepared,
    plan: Plan,
    runtime: Runtime,
    files: TrialFiles,
    seconds_left: Callable[[], float],
    history: list[Trial],
) -> TrialRunner:
    train, val = prepared.split.rows("train"), prepared.split.rows("val")
    train_rows, val_rows = torch.from_numpy(train), torch.from_numpy(val)
    store = prepared.store.sealed(prepared.split.augmented_val)  # they are only ever reported
    data = TrainingData(
        source=on_device(store, (train_rows, val_rows), runtime.device),
        train_rows=train_rows,
        train_labels=torch.from_numpy(prepared.labels(train)),
        val_rows=val_rows,
        val_labels=torch.from_numpy(prepared.labels(val)),
        num_classes=len(prepared.manifest.class_names),
        blocks=_blocks(context, prepared),
    )
    return TrialRunner(
        data=data,
        train_groups=prepared.groups(train),
        objective=objective_of(context, prepared),
        runtime=runtime,
        files=files,
        weights=plan.weights,
        seconds_left=seconds_left,
        history=history,
        keeps_features=context.settings.search.head != LINEAR,
        tests_symmetries=_asks_for_symmetries(context),
        decode_side=store.decode_side,
        compiler=StepCompiler(cast(Setting, context.settings.machine.compile)),
        resize=store.resize,
        ranks=context.ranks,
    )


def _copies(context: RunContext, trials: list[Trial]) -> TrialFiles | None:
    """Copies of the records, for a run whose trials are kept elsewhere."""
    if context.run.keeps_trials:
        return None
    copies = TrialFiles(context.run.path / run_dir.TRIALS)
    for trial in trials:
        copies.commit(trial)
    return copies


def _blocks(context: RunContext, prepared: Prepared) -> torch.Tensor | None:
    """(N) shard of every image, where images are decoded from shards whenever they are asked for.

    A resumed run keeps to what it began with, wherever images are then: the order of the images follows from it.
    """
    sharded = prepared.manifest.sharded
    if sharded is None:
        return None
    by_shards = bool(context.run.about.get("by_shards", prepared.store.is_on_demand))
    context.run.add_about(by_shards=by_shards)
    return torch.from_numpy(sharded.shard.astype(np.int64)) if by_shards else None


def _history(context: RunContext, runner: TrialRunner, trials: list[Trial]) -> History | None:
    """Where rungs are recorded beyond this run; None where the user wants none."""
    if not context.settings.output.history:
        return None
    name = context.run.about.get("history") or secrets.token_hex(8)
    context.run.add_about(history=name)  # a resumed run is the same run
    labels = runner.data.train_labels.numpy()
    counts = np.bincount(labels)
    facts = RunFacts(
        run=name,
        objective=runner.objective,
        data={
            "n_train": len(labels),
            "n_val": len(runner.data.val_labels),
            "n_classes": runner.data.num_classes,
            "imbalance": float(counts.max() / counts[counts > 0].min()),
        },
        device=runner.runtime.device.type,
        precision=runner.runtime.training_dtype or "float32",
        version=version("automl-vision"),
    )
    return History(history_file(), facts, trials)


def _descriptors(name: str) -> dict[str, float | None]:
    row = backbone(name)
    return {"parameters_m": row.parameters_m, "gmacs": row.gmacs, "imagenet_top1": row.imagenet_top1}


def _asks_for_symmetries(context: RunContext) -> bool:
    """Whether anything depends on which symmetries the classes have."""
    training = context.settings.training
    pinned = all(getattr(training, name) is not None for name in SYMMETRIES)
    return not pinned and training.augment != "none"


def _unless_stopped(context: RunContext, seconds_left: Callable[[], float]) -> Callable[[], float]:
    """What a trial asks at every step: the time left, or to leave at once because the user stopped the run."""

    def ask() -> float:
        if context.stop.requested:
            raise TrialInterrupted
        return seconds_left()

    return ask


def pinned(training: TrainingSettings, n_train: int) -> dict[str, Any]:
    """Fields of every recipe that the settings give, "auto" made a number."""
    given = {name: value for name, value in vars(training).items() if value is not None}
    if given.get("batch_size") == AUTO:
        given["batch_size"] = max(1, effective_batch(n_train) // given.get("gradient_accumulation", 1))
    return given


def _one_recipe(task: SearchTask) -> str:
    """What happens to the one recipe that the user asked for."""
    probe = "a linear probe is a baseline, and no candidate" if task.needs_probes else "nothing else is trained"
    return f"One recipe was asked for: it is trained as it was given, and it is the model; {probe}."


def _task(context: RunContext, prepared: Prepared, plan: Plan) -> SearchTask:
    settings = context.settings
    train = prepared.split.rows("train")
    n_train, counts = len(train), np.bincount(prepared.labels(train))
    room = room_of(context, prepared)
    return SearchTask(
        backbones=plan.backbones,
        pretrained=plan.pretrained,
        resolutions=plan.resolutions,
        fixed=pinned(settings.training, n_train),
        n_train=n_train,
        n_val=len(prepared.split.rows("val")),
        gmacs=lambda name: backbone(name).gmacs,
        sampler=sampler_for(settings.search.sampler),
        head=settings.search.head,
        max_trials=settings.search.trials,
        seed=settings.machine.seed,
        imagenet_top1=lambda name: backbone(name).imagenet_top1,
        imbalance=float(counts.max() / max(counts.min(), 1)),
        stochastic_depth=tuple(name for name in plan.backbones if has_stochastic_depth(backbone(name))),
        sides=plan.sides,
        may_ship=lambda recipe: not room.excess(form_of(recipe)),
    )
