"""When the weights, the checkpoint and the record of a fine-tune are written."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import Any

from automl_vision.search.trial import Trial
from automl_vision.search.trial_files import TrialFiles
from automl_vision.training.loop import Trainer

#: They are written as often as that takes this share of the time.
SAVING_SHARE = 0.05
#: Within an epoch a checkpoint is not written before so many seconds are over: most epochs are shorter.
WITHIN_EPOCH = 60.0


@dataclass
class TrialSaver:
    """Writes what a trial came to, as often as a small share of the time allows: a kill loses seconds, not the trial.

    Weights and record on disk are of one epoch, and the checkpoint is of the same or of a later step, so that no
    session trains again what a record has. The score and loss of a trial are those of the weights on disk; they follow
    when those are written.

    Attributes:
        files: where to.
        trainer: of the trial.
    """

    files: TrialFiles
    trainer: Trainer
    _waiting: tuple[Trial, dict[str, Any] | None] | None = None
    _written_epoch: int = 0
    _last: float = -math.inf
    _seconds: float = 0.0
    _began: float = field(default_factory=time.monotonic)

    def take(self, trial: Trial) -> Trial:
        """Take the end of an epoch; the trial as it is on disk where it was written."""
        may_go_on = trial.state in ("running", "paused")
        state = self.trainer.state() if may_go_on else None
        if trial.state == "running" and time.monotonic() - self._last < self._seconds / SAVING_SHARE:
            self._waiting = trial, state
            return trial
        return self._write(trial, state)

    def take_over(self, trial: Trial) -> Trial:
        """Write what an earlier attempt came to as that of this one, which owns its files from then on."""
        return self._write(trial, self.trainer.state())

    def between_steps(self, trial: Trial) -> None:
        """Take a step of an epoch; `trial` is as of the epoch before it."""
        pause = max(WITHIN_EPOCH, self._seconds / SAVING_SHARE)
        if time.monotonic() - max(self._last, self._began) >= pause:
            self._write(trial, self.trainer.state())

    def leave(self, trial: Trial) -> Trial:
        """Write everything as of the last step; the trial as of the newest epoch, as it is on disk then."""
        return self._write(trial, self.trainer.state())

    def _write(self, trial: Trial, state: dict[str, Any] | None) -> Trial:
        started, trainer = time.monotonic(), self.trainer
        self._waiting = None
        if trial.epochs_done:
            trial = trial.replace(score=trainer.best_score, loss=trainer.best_loss)
        if trial.epochs_done and trainer.best_epoch != self._written_epoch:
            weights, probabilities = trainer.best_weights(), trainer.best_probabilities()
            figures = trainer.best_score, trainer.best_loss
            self.files.save_result(trial.number, weights, probabilities, attempt=trial.attempt, figures=figures)
            self._written_epoch = trainer.best_epoch
        if state is not None:
            checkpoint = {"trainer": state, "trial": trial.to_dict()}
            self.files.save_checkpoint(trial.number, checkpoint, attempt=trial.attempt)
        self.files.commit(trial)
        self._last = time.monotonic()
        self._seconds = self._last - started
        return trial
