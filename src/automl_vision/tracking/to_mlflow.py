"""MLflow: a run per search, one below it per trial; where `MLFLOW_TRACKING_URI` says, else a database beside."""

from __future__ import annotations

import logging
import os
import shlex
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from automl_vision.tracking.tracker import Subject, plain, recipe_values, scores, trial_name

if TYPE_CHECKING:
    from automl_vision.search.trial import EpochRecord, Trial

#: The database and the folder of files, beside the run folder.
DATABASE, FILES = "mlflow.db", "mlflow-files"
EXPERIMENT = "automl-vision"
_BATCH = 100
_LONGEST = 500
_ENDED = {"complete": "FINISHED", "stopped": "FINISHED", "failed": "FAILED"}


class MLflowTracker:
    """Figures of the search in its run; recipe and curve of each trial in a run below it."""

    def __init__(self) -> None:
        self._client: Any = None
        self._run = self._experiment = ""
        self._memory: dict[str, Any] = {}

    def start(self, subject: Subject) -> str:
        """Find or make the experiment and the run, and send the settings."""
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        from mlflow.tracking import MlflowClient

        for noisy in ("mlflow", "alembic"):
            logging.getLogger(noisy).setLevel(logging.ERROR)
        given = os.environ.get("MLFLOW_TRACKING_URI", "")
        database = subject.path.parent / DATABASE
        self._client = MlflowClient(given or f"sqlite:///{database}")
        self._memory = subject.memory
        self._experiment = self._found_or_made("" if given else (subject.path.parent / FILES).as_uri())
        self._run = subject.memory.get("run", "")
        if self._run:
            self._client.update_run(self._run, status="RUNNING")
        else:
            self._run = subject.memory["run"] = self._made(subject.name, {}, subject.settings)
        if given:
            return f"MLflow: run {subject.name} on the server of MLFLOW_TRACKING_URI"
        return f"MLflow: mlflow ui --backend-store-uri {shlex.quote(f'sqlite:///{database}')}"

    def trial(self, trial: Trial, epochs: Sequence[EpochRecord]) -> None:
        """Add points to the curves of the trial's own run."""
        runs = self._memory.setdefault("trials", {})
        run = runs.get(str(trial.number))
        if run is None:
            parent = {"mlflow.parentRunId": self._run}
            run = runs[str(trial.number)] = self._made(trial_name(trial), parent, recipe_values(trial))
        self._send(run, [(name, value, each.epoch) for each in epochs for name, value in scores(each).items()])
        if trial.score is not None:
            self._send(run, [("best_score", trial.score, trial.epochs_done)])
        if trial.state in _ENDED:
            self._client.set_terminated(run, _ENDED[trial.state])

    def finish(self, figures: Mapping[str, float], files: Sequence[Path]) -> None:
        """Send the figures and the files of the search."""
        self._send(self._run, [(name, value, 0) for name, value in figures.items()])
        for file in files:
            self._client.log_artifact(self._run, str(file))

    def close(self, *, failed: bool) -> None:
        """Say how it ended."""
        if self._run:
            self._client.set_terminated(self._run, "FAILED" if failed else "FINISHED")

    def _found_or_made(self, files: str) -> str:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", EXPERIMENT)
        known = self._client.get_experiment_by_name(name)
        if known is not None:
            return str(known.experiment_id)
        return str(self._client.create_experiment(name, artifact_location=files or None))

    def _made(self, name: str, tags: Mapping[str, str], values: Mapping[str, Any]) -> str:
        from mlflow.entities import Param

        run = self._client.create_run(self._experiment, run_name=name, tags=dict(tags)).info.run_id
        parameters = [Param(key, str(plain(value))[:_LONGEST]) for key, value in values.items()]
        for start in range(0, len(parameters), _BATCH):
            self._client.log_batch(run, params=parameters[start : start + _BATCH])
        return str(run)

    def _send(self, run: str, points: Sequence[tuple[str, float, int]]) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        for start in range(0, len(points), _BATCH):
            part = points[start : start + _BATCH]
            self._client.log_batch(run, metrics=[Metric(name, value, now, step) for name, value, step in part])
