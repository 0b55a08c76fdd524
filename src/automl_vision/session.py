"""One search from start to report: the state that its stages share, and the stages."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from automl_vision import run_dir
from automl_vision.bundle import Bundle, save_bundle
from automl_vision.calibration import apply_temperature, fit_temperature
from automl_vision.config import Settings
from automl_vision.data.manifest import Manifest
from automl_vision.data.preparation import Prepared, decode, prepare, read_manifest
from automl_vision.data.split import split_table
from automl_vision.data.store import ImageStore
from automl_vision.errors import BudgetExhausted, Interrupted, RunError
from automl_vision.events import Note, Progress, StageStarted, Tell, TrialChanged
from automl_vision.executors import EXECUTORS
from automl_vision.files import write_json, write_text
from automl_vision.metrics import objective_for
from automl_vision.models.backbones import backbone
from automl_vision.models.classifier import Classifier, placed
from automl_vision.models.image_source import resized_batches
from automl_vision.models.inference import logits
from automl_vision.plan import Plan, make_plan
from automl_vision.report.html import render_html
from automl_vision.report.plots import draw_plots
from automl_vision.report.predictions import Predictions
from automl_vision.report.report import ReportInputs, build_report
from automl_vision.run_dir import RunDir
from automl_vision.runtime import Clock, Runtime, environment, make_runtime
from automl_vision.search.costs import CostModel
from automl_vision.search.planner import stored_sizes
from automl_vision.search.run_trial import TrialInterrupted, TrialRunner
from automl_vision.search.samplers import export_study
from automl_vision.search.search import Search, SearchEnded, SearchTask
from automl_vision.search.trial import Trial, best_trial
from automl_vision.search.trial_files import Result, TrialFiles
from automl_vision.training.loop import TrainingData

#: CPU seconds of the last model file, the plots and the report; measured on two cores, see docs/benchmarks.md.
REPORT_CPU_SECONDS = 6.0
INFERENCE_BATCH = 128
#: Writing the study for optuna-dashboard takes about this long; it is left out when less is left of the budget.
STUDY_SECONDS = 3.0


@dataclass
class StopRequest:
    """Set by a signal handler to end a run tidily with the best model so far."""

    requested: bool = False


@dataclass(frozen=True)
class Finished:
    """The winner of a search.

    Attributes:
        trial: the winning trial.
        bundle: as it will be shipped, without the test figures.
        net: its network on the runtime's device.
        validation: (N_val, C) calibrated probabilities of the validation rows.
        search: all trials.
        stop_reason: why the search ended.
    """

    trial: Trial
    bundle: Bundle
    net: Classifier
    validation: NDArray[np.float64]
    search: Search
    stop_reason: str


@dataclass(frozen=True)
class Looked:
    """What the winner says of each set. The test set was opened for it, and the look is in the ledger."""

    test: Predictions
    val: Predictions
    augmented_val: Predictions | None
    baselines: dict[str, NDArray[np.float64]]
    looks: list[dict[str, Any]]

    @property
    def by_set(self) -> dict[str, Predictions]:
        """The predictions that are written to files, by set."""
        sets = {"test": self.test, "val": self.val, "augmented_val": self.augmented_val}
        return {name: predictions for name, predictions in sets.items() if predictions is not None}


@dataclass
class Session:
    """The stages of one run, to be called in their order; each takes what the ones before gave.

    Attributes:
        run: the run folder, locked.
        data: the images.
        settings: all settings.
        tell: listener for events.
        stop: set from outside to end tidily.
        clock: the budget.
        seconds: wall time by stage.
    """

    run: RunDir
    data: Path
    settings: Settings
    tell: Tell
    stop: StopRequest
    clock: Clock
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str, detail: str = "") -> Iterator[None]:
        """Tell that a stage begins, and time it."""
        self.tell(StageStarted(name, detail))
        self.run.log(f"stage {name} {detail}".rstrip())
        started = time.monotonic()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.monotonic() - started

    def note(self, text: str, *, warning: bool = False) -> None:
        """Tell the user one sentence, and keep it in the log."""
        self.run.log(text)
        self.tell(Note(text, "warning" if warning else "info"))

    # --- data ---------------------------------------------------------------------------------------------------

    def read(self) -> Manifest:
        """The list of images; on resuming it must be the one the run began with."""
        manifest = read_manifest(self.data, self.settings)
        begun_with = self.run.about.get("fingerprint")
        if begun_with is not None and begun_with != manifest.fingerprint:
            raise RunError(
                "the data changed since the run began",
                value=str(self.data),
                fix="restore the images and labels, or start a new run",
            )
        self.run.add_about(fingerprint=manifest.fingerprint, images=len(manifest))
        return manifest

    def plan(self, manifest: Manifest) -> tuple[Runtime, Plan]:
        """The machine, and what is worth trying on it. A resumed run keeps its plan."""
        machine = self.settings.machine
        runtime = make_runtime(machine.device, machine.precision, machine.threads)
        plan = make_plan(manifest, self._as_planned(), runtime)
        for text in plan.notes:
            self.note(text, warning=True)
        self.run.add_about(plan={"backbones": list(plan.backbones), "resolutions": list(plan.resolutions)})
        return runtime, plan

    def _as_planned(self) -> Settings:
        """The settings, with what an earlier session of the run planned in place of what is left to the plan."""
        kept = self.run.about.get("plan", {})
        return replace(self.settings, search=replace(self.settings.search, **kept))

    def objective(self, prepared: Prepared) -> str:
        """What validation maximises: a name of `METRICS`."""
        train = prepared.split.rows("train")
        counts = np.bincount(prepared.labels(train), minlength=len(prepared.manifest.class_names))
        return objective_for(counts.tolist(), self.settings.search.objective)

    def decode(self, manifest: Manifest, plan: Plan, runtime: Runtime) -> Prepared:
        """Decode every image once, check them all, trace copies and deal the sets."""
        with self.stage("decode", f"{len(manifest):,} images"):
            store, facts = decode(
                manifest, self.settings, stored_sizes(plan.resolutions), runtime.threads, self._progress
            )
        for text in store.notes:
            self.note(text, warning=True)
        with self.stage("audit"):
            prepared = prepare(manifest, facts, store, self.settings)
            write_tables(prepared, self.run.path)
        return prepared

    def _progress(self, done: int, total: int) -> None:
        if self.stop.requested:
            raise Interrupted("stopped while decoding", value=f"{done} of {total} images", fix=self._how_to_resume())
        if self.clock.remaining < 0:
            raise BudgetExhausted(
                "the budget ended while decoding",
                value=f"{done} of {total} images in {self.clock.elapsed:.0f} s",
                fix="give a longer --budget or fewer images with --max-samples",
            )
        self.tell(Progress(done, total))

    # --- search -------------------------------------------------------------------------------------------------

    def search(self, prepared: Prepared, plan: Plan, runtime: Runtime) -> tuple[Search, str, TrialRunner]:
        """Run the search; the best model so far is always on disk."""
        files = TrialFiles(self.run.path / run_dir.TRIALS)
        history, damaged = files.read()
        for name in damaged:
            self.note(f"The record trials/{name} is damaged; it was set aside and its trial is lost.", warning=True)
        runner = self._runner(prepared, plan, runtime, files, history)
        search = Search(
            self._task(prepared, plan),
            EXECUTORS["local"](runner),
            history,
            seconds_left=lambda: self.clock.remaining - self._reserve(prepared, search),
            interrupted=lambda: self.stop.requested,
        )
        runner.seconds_left = self._trial_time(lambda: self.clock.remaining - self._reserve(prepared, search))
        reason = "budget"
        shipped: Trial | None = None
        for event in search:
            if isinstance(event, SearchEnded):
                reason = event.reason
            else:
                shipped = self._on_trial(event, search, runner, prepared, shipped)
        return search, reason, runner

    def _runner(
        self, prepared: Prepared, plan: Plan, runtime: Runtime, files: TrialFiles, history: list[Trial]
    ) -> TrialRunner:
        train, val = prepared.split.rows("train"), prepared.split.rows("val")
        data = TrainingData(
            source=prepared.store.sealed(prepared.split.rows("test")),
            train_rows=torch.from_numpy(train),
            train_labels=torch.from_numpy(prepared.labels(train)),
            val_rows=torch.from_numpy(val),
            val_labels=torch.from_numpy(prepared.labels(val)),
            num_classes=len(prepared.manifest.class_names),
        )
        return TrialRunner(
            data=data,
            train_groups=prepared.groups(train),
            objective=self.objective(prepared),
            runtime=runtime,
            files=files,
            weights=plan.weights,
            seconds_left=lambda: math.inf,
            history=history,
        )

    def _task(self, prepared: Prepared, plan: Plan) -> SearchTask:
        pinned = {name: value for name, value in vars(self.settings.training).items() if value is not None}
        return SearchTask(
            backbones=plan.backbones,
            pretrained=plan.pretrained,
            resolutions=plan.resolutions,
            fixed=pinned,
            n_train=len(prepared.split.rows("train")),
            n_val=len(prepared.split.rows("val")),
            gmacs=lambda name: backbone(name).gmacs,
            sampler=self.settings.search.sampler,
            max_trials=self.settings.search.trials,
            seed=self.settings.machine.seed,
        )

    def _trial_time(self, seconds_left: Any) -> Any:
        def ask() -> float:
            if self.stop.requested:
                raise TrialInterrupted
            return float(seconds_left())

        return ask

    def _reserve(self, prepared: Prepared, search: Search) -> float:
        """Seconds that the stages after the search will need, from what this machine has shown so far.

        The report is work for one core; where other programs leave this process less than that, it takes longer.
        """
        report = REPORT_CPU_SECONDS * max(1.0, self.clock.wall_per_cpu_second)
        best = best_trial(search.trials)
        if best is None:
            return report
        rows = len(prepared.split.augmented_val) + 2 * len(prepared.split.rows("test"))
        costs = CostModel(search.trials, lambda name: backbone(name).gmacs, 0, 0)
        return report + 1.5 * rows * costs.forward(best.recipe)

    def _on_trial(
        self, trial: Trial, search: Search, runner: TrialRunner, prepared: Prepared, shipped: Trial | None
    ) -> Trial | None:
        if trial.state in ("stopped", "failed"):
            runner.files.commit(trial)  # given up by the search, after its process last wrote it
        best = best_trial(search.trials)
        self.tell(TrialChanged(trial, best, self.clock.remaining))
        if trial.state == "running" and not trial.epochs:
            return shipped
        self.run.log(f"trial {trial.number} {trial.state} epoch {trial.epochs_done} score {trial.score} {trial.error}")
        self.run.note_spent(self.clock.elapsed)
        if trial.state != "running":
            runner.files.prune(search.trials)
        if best is None or best.state == "running" or best == shipped:
            return shipped
        result = runner.files.load_result(best.number)
        if result is not None:
            save_bundle(self._bundle(best, result, runner, prepared), self.run.path / run_dir.MODEL)
        return best

    # --- finish -------------------------------------------------------------------------------------------------

    def finish(self, prepared: Prepared, search: Search, reason: str, runner: TrialRunner) -> Finished:
        """Calibrate the best trial and build its network.

        Raises:
            BudgetExhausted, Interrupted: no trial was validated.
        """
        best = runner.files.best(search.trials)
        if best is None:
            raise self._no_model(search, reason)
        winner, result = best
        bundle = self._bundle(winner, result, runner, prepared)
        net = placed(bundle.classifier(), runner.runtime.device)
        calibrated = apply_temperature(_log(result.probabilities), bundle.temperature)
        return Finished(winner, bundle, net, calibrated, search, reason)

    def _no_model(self, search: Search, reason: str) -> Exception:
        errors = {trial.error for trial in search.trials if trial.error}
        if reason == "interrupted":
            return Interrupted("stopped before there was a model", value=str(self.run.path), fix=self._how_to_resume())
        return BudgetExhausted(
            "the budget ended before one usable model",
            value=f"{self.clock.elapsed:.0f} s used" + (f"; {'; '.join(sorted(errors))}" if errors else ""),
            fix="give a longer --budget, fewer images with --max-samples, or a smaller --resolutions",
        )

    def _bundle(self, trial: Trial, result: Result, runner: TrialRunner, prepared: Prepared) -> Bundle:
        val_labels = prepared.labels(prepared.split.rows("val"))
        return Bundle(
            backbone=trial.recipe.backbone,
            head="linear",
            class_names=prepared.manifest.class_names,
            preprocessing=runner.preprocessing(trial.recipe),
            temperature=fit_temperature(_log(result.probabilities), val_labels),
            state_dict=result.weights,
            provenance={
                "created": run_dir.now(),
                "data_fingerprint": prepared.manifest.fingerprint,
                "trial": trial.number,
                "recipe": trial.recipe.to_dict(),
                "objective": runner.objective,
                "validation_score": trial.score,
                "seed": self.settings.machine.seed,
            },
        )

    def look(self, prepared: Prepared, finished: Finished, runner: TrialRunner) -> Looked:
        """Open the test set, once, and write the look to the ledger before doing so."""
        test = prepared.split.rows("test")
        looks = self.run.record_look(_reason_to_look(finished.stop_reason, len(self.run.looks)), len(test))
        if len(looks) > 1:
            self.note(f"This is look {len(looks)} at the test set; the report lists every look.", warning=True)
        val = prepared.split.rows("val")
        augmented = prepared.split.augmented_val
        return Looked(
            test=self._predictions(prepared, test, self._predict(finished, runner, prepared.store, test)),
            val=self._predictions(prepared, val, finished.validation),
            augmented_val=self._predictions(
                prepared, augmented, self._predict(finished, runner, prepared.store, augmented)
            )
            if len(augmented)
            else None,
            baselines=self._baselines(prepared, finished, runner, test),
            looks=looks,
        )

    def _predict(
        self, finished: Finished, runner: TrialRunner, store: ImageStore, rows: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        return predict_rows(finished.net, finished.bundle, store, rows, runner.runtime)

    def _predictions(
        self, prepared: Prepared, rows: NDArray[np.int64], probabilities: NDArray[np.float64]
    ) -> Predictions:
        return Predictions(
            paths=tuple(prepared.manifest.paths[row] for row in rows),
            labels=prepared.labels(rows),
            groups=prepared.groups(rows),
            probabilities=probabilities,
            class_names=prepared.manifest.class_names,
        )

    def _baselines(
        self, prepared: Prepared, finished: Finished, runner: TrialRunner, test: NDArray[np.int64]
    ) -> dict[str, NDArray[np.float64]]:
        """What two much simpler models say of the test rows: always the largest class, and the best linear probe."""
        counts = np.bincount(runner.data.train_labels.numpy(), minlength=runner.data.num_classes)
        baselines = {"majority class": np.tile(counts / counts.sum(), (len(test), 1))}
        best = runner.files.best(trial for trial in finished.search.trials if trial.recipe.kind == "probe")
        if best is not None and best[0].number != finished.trial.number:
            bundle = self._bundle(*best, runner, prepared)
            net = placed(bundle.classifier(), runner.runtime.device)
            baselines["linear probe"] = predict_rows(net, bundle, prepared.store, test, runner.runtime)
        return baselines

    # --- report -------------------------------------------------------------------------------------------------

    def ship(self, prepared: Prepared, finished: Finished, looked: Looked, runner: TrialRunner) -> dict[str, Any]:
        """Write the model with its test figures, the predictions, the tables and the report; gives report.json."""
        folder = self.run.path
        report = build_report(self._report_inputs(prepared, finished, looked, runner))
        figures = {name: report["test"][name] for name in ("n", "accuracy", "macro_f1")}
        provenance = {**finished.bundle.provenance, "test": figures, "looks": looked.looks}
        save_bundle(replace(finished.bundle, provenance=provenance), folder / run_dir.MODEL)
        for name, predictions in looked.by_set.items():
            predictions.to_csv(folder / run_dir.predictions_file(name))
        self._write_trials(finished.search)
        plots = draw_plots(report)
        report["seconds"] = self._seconds_by_stage()
        write_text(folder / run_dir.REPORT_HTML, render_html(report, plots))
        write_json(folder / run_dir.REPORT_JSON, report)
        self.run.note_spent(self.clock.elapsed)
        return report

    def _report_inputs(
        self, prepared: Prepared, finished: Finished, looked: Looked, runner: TrialRunner
    ) -> ReportInputs:
        net = finished.net
        return ReportInputs(
            name=self.run.path.name,
            created=run_dir.now(),
            test=looked.test,
            validation=looked.val,
            objective=runner.objective,
            augmented_validation=looked.augmented_val,
            baselines=looked.baselines,
            seed=self.settings.machine.seed,
            data=data_section(prepared, self.data),
            looks=tuple(looked.looks),
            stop_reason=finished.stop_reason,
            budget_seconds=None if math.isinf(self.clock.budget) else self.clock.budget,
            seconds=self._seconds_by_stage(),
            trials=trials_section(finished.search.trials),
            model={
                "file": run_dir.MODEL,
                "trial": finished.trial.number,
                "backbone": finished.trial.recipe.backbone,
                "kind": finished.trial.recipe.kind,
                "resolution": finished.trial.recipe.resolution,
                "parameters": sum(parameter.numel() for parameter in net.parameters()),
                "temperature": finished.bundle.temperature,
                "recipe": finished.trial.recipe.to_dict(),
            },
            environment={
                **environment(runner.runtime),
                "data_fingerprint": prepared.manifest.fingerprint,
                "seed": self.settings.machine.seed,
            },
        )

    def _seconds_by_stage(self) -> dict[str, float]:
        """Wall seconds so far; "start" is what came before the first stage (imports), "report" what is left over."""
        spent = {"earlier sessions": self.run.spent} if self.run.spent else {}
        known = {"start": self.clock.at_open - self.run.spent, **spent, **self.seconds}
        return {**known, "report": self.clock.elapsed - sum(known.values())}

    def _write_trials(self, search: Search) -> None:
        table = pd.DataFrame(
            {
                **{key: row[key] for key in ("number", "origin", "kind", "state", "epochs", "score", "seconds")},
                **row["hyperparameters"],
            }
            for row in trials_section(search.trials)["table"]
        )
        write_text(self.run.path / run_dir.TRIALS_CSV, table.to_csv(index=False, lineterminator="\n"))
        if self.clock.remaining > STUDY_SECONDS:
            export_study(self.run.path / run_dir.STUDY, search.task.space, search.trials, name=self.run.path.name)

    def _how_to_resume(self) -> str:
        return f"go on with: automl-vision search --resume {self.run.path}"


def predict_rows(
    net: Classifier, bundle: Bundle, store: ImageStore, rows: NDArray[np.int64], runtime: Runtime
) -> NDArray[np.float64]:
    """(n, C) calibrated probabilities of stored images."""
    if not len(rows):
        return np.empty((0, len(bundle.class_names)))
    batches = resized_batches(store, torch.from_numpy(rows), bundle.preprocessing.size, INFERENCE_BATCH)
    return apply_temperature(logits(net, batches, bundle.preprocessing, runtime).astype(np.float64), bundle.temperature)


def write_tables(prepared: Prepared, folder: Path) -> None:
    """Write split.csv and audit.csv.

    Raises:
        OSError: the folder cannot be written.
    """
    table = split_table(prepared.manifest, prepared.facts, prepared.audit, prepared.split)
    write_text(folder / run_dir.SPLIT, table.to_csv(index=False, lineterminator="\n"))
    findings = prepared.audit.to_frame(prepared.manifest)
    write_text(folder / run_dir.AUDIT, findings.to_csv(index=False, lineterminator="\n"))


def data_section(prepared: Prepared, data: Path) -> dict[str, Any]:
    """What the report says of the data: counts by set and class, and the findings."""
    manifest, lineage, dealt = prepared.manifest, prepared.audit.lineage, prepared.split
    classes = len(manifest.class_names)
    sets = {name: dealt.rows(name) for name in ("train", "val", "test", "aside", "quarantine")}
    return {
        "source": str(data),
        "images": len(manifest),
        "class_counts": {
            name: np.bincount(manifest.labels[rows], minlength=classes).tolist() for name, rows in sets.items()
        },
        "quarantined": len(sets["quarantine"]),
        "aside": len(sets["aside"]),
        "copies": int((lineage.role == "copy").sum()),
        "unsure": int((lineage.role == "unsure").sum()),
        "groups": len(np.unique(lineage.group)),
        "conflicts": int(prepared.audit.label_conflict.sum()),
        "eligible": int(dealt.eligible.sum()),
        "leaks": len(dealt.leaks),
        "dropped_classes": list(prepared.dropped_classes),
        "findings": [
            {
                "kind": finding.kind,
                "severity": finding.severity,
                "path": manifest.paths[finding.row] if finding.row >= 0 else "",
                "detail": finding.message,
                "fix": finding.fix,
            }
            for finding in prepared.audit.findings
        ],
    }


def trials_section(trials: list[Trial]) -> dict[str, Any]:
    """Counts by state, and one row per trial."""
    states = [trial.state for trial in trials]
    return {
        "total": len(trials),
        **{state: states.count(state) for state in ("complete", "stopped", "paused", "failed")},
        "table": [_trial_row(trial) for trial in trials],
    }


def _trial_row(trial: Trial) -> dict[str, Any]:
    recipe = trial.recipe
    return {
        "number": trial.number,
        "origin": trial.origin,
        "kind": recipe.kind,
        "backbone": recipe.backbone,
        "resolution": recipe.resolution,
        "epochs": trial.epochs_done,
        "score": trial.score,
        "loss": trial.loss,
        "seconds": trial.seconds,
        "state": trial.state,
        "error": trial.error,
        "hyperparameters": {**dict(trial.notes), **(recipe.to_dict() if recipe.kind == "finetune" else {})},
        "curve": [
            {key: getattr(epoch, key) for key in ("epoch", "score", "train_loss", "val_loss")} for epoch in trial.epochs
        ],
    }


def _log(probabilities: NDArray[Any]) -> NDArray[np.float64]:
    logs: NDArray[np.float64] = np.log(np.clip(probabilities.astype(np.float64), 1e-30, None))
    return logs


def _reason_to_look(stop_reason: str, looks_before: int) -> str:
    which = "final evaluation" if stop_reason != "interrupted" else "evaluation of an interrupted run"
    return f"{which}, after {looks_before} earlier" if looks_before else which
