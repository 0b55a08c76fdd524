"""Weights & Biases: one run per search. Without an account on this machine, offline: files in the run folder."""

from __future__ import annotations

import os
import shlex
import uuid
from collections.abc import Mapping, Sequence
from netrc import NetrcParseError, netrc
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from automl_vision.tracking.tracker import Subject, plain, recipe_values, scores, trial_name

if TYPE_CHECKING:
    from automl_vision.search.trial import EpochRecord, Trial

PROJECT = "automl-vision"
SERVER = "https://api.wandb.ai"


class WandbTracker:
    """A curve per trial over its epochs; recipes, figures and the report in the run."""

    def __init__(self) -> None:
        self._run: Any = None

    def start(self, subject: Subject) -> str:
        """Begin the run; it is asked for no account, and told neither code nor machine."""
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        import wandb

        resumed = "id" in subject.memory
        offline = "WANDB_MODE" not in os.environ and not _has_account()
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=subject.name,
            id=subject.memory.setdefault("id", uuid.uuid4().hex[:8]),
            resume="allow" if resumed and not offline else None,
            dir=str(subject.path),
            mode="offline" if offline else None,
            config={name: plain(value) for name, value in subject.settings.items()},
            settings=wandb.Settings(
                host="-",
                console="off",
                silent=True,
                disable_git=True,
                disable_code=True,
                save_code=False,
                x_disable_meta=True,
                x_disable_stats=True,
                x_save_requirements=False,
            ),
        )
        if self._run.offline:
            return f"Weights & Biases: wandb sync {shlex.quote(str(Path(self._run.dir).parent))}"
        return f"Weights & Biases: {self._run.url}"

    def trial(self, trial: Trial, epochs: Sequence[EpochRecord]) -> None:
        """Add points to the curves of the trial."""
        name = trial_name(trial)
        if f"{name}/recipe" not in self._run.config:
            self._run.define_metric(f"{name}/epoch", hidden=True)
            self._run.define_metric(f"{name}/*", step_metric=f"{name}/epoch")
            self._run.config.update({f"{name}/recipe": recipe_values(trial)}, allow_val_change=True)
        for epoch in epochs:
            self._run.log({f"{name}/epoch": epoch.epoch, **{f"{name}/{key}": v for key, v in scores(epoch).items()}})
        if not trial.epochs and trial.score is not None:
            self._run.log({f"{name}/epoch": 0, f"{name}/score": trial.score})

    def finish(self, figures: Mapping[str, float], files: Sequence[Path]) -> None:
        """Send the figures as the summary, and the files as an artifact."""
        import wandb

        self._run.summary.update(dict(figures))
        artifact = wandb.Artifact(f"report-{self._run.id}", type="report")
        for file in files:
            artifact.add_file(str(file), policy="immutable")
        self._run.log_artifact(artifact)

    def close(self, *, failed: bool) -> None:
        """End the run, and what sends it."""
        if self._run is not None:
            self._run.finish(exit_code=int(failed))


def _has_account() -> bool:
    """Whether a key is known for the server, in the environment or where `wandb login` leaves it."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlsplit(os.environ.get("WANDB_BASE_URL", SERVER)).hostname or ""
    try:
        return netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, NetrcParseError):
        return False
