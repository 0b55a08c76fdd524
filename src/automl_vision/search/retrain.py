"""The recipe of a trial trained once more, on other rows."""

from __future__ import annotations

import dataclasses
import hashlib
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from automl_vision.errors import ShortOfMemory
from automl_vision.models.classifier import placed, set_linear_head
from automl_vision.models.features import OutOfTime, extract_features
from automl_vision.models.probe import fit_probe
from automl_vision.search.run_trial import FEATURE_BATCH, PROBE_ROWS, TrialInterrupted, TrialRunner
from automl_vision.search.trial import Trial
from automl_vision.search.trial_check import told_as_damage
from automl_vision.search.trial_files import TrialFiles
from automl_vision.search.trial_saver import SAVING_SHARE, WITHIN_EPOCH
from automl_vision.training.loop import TooLittleMemory, Trainer
from automl_vision.training.ranks import OVER, RankLost
from automl_vision.training.recipe import Recipe

#: Weights after the last epoch, and the last training loss (0 for a probe).
Retrained = tuple[dict[str, torch.Tensor], float]


@dataclass(frozen=True)
class Rows:
    """What it is trained on: (n) rows of the store, and their labels and groups."""

    rows: NDArray[np.int64]
    labels: NDArray[np.int64]
    groups: NDArray[np.int64]


def retrain(runner: TrialRunner, trial: Trial, on: Rows, seconds_left: Callable[[], float]) -> Retrained:
    """Train for as many epochs as the trial had, without early stopping.

    Args:
        runner: what trained it.
        trial: a probe or a fine-tune.
        on: what it is trained on.
        seconds_left: asked at every step.

    A fine-tune that is left between two steps (`seconds_left` raises, or another rank is lost) goes on there when it
    is asked for again.

    Raises:
        OutOfTime, TrialFailed, TrialInterrupted: it did not come to an end.
    """
    return {"probe": _probe, "finetune": _fine_tune}[trial.recipe.kind](runner, trial, on, seconds_left)


def _probe(runner: TrialRunner, trial: Trial, on: Rows, seconds_left: Callable[[], float]) -> Retrained:
    net = placed(runner.classifier(trial.recipe), runner.runtime.device)
    some = np.random.default_rng(trial.recipe.seed).permutation(len(on.rows))[:PROBE_ROWS]
    features = extract_features(
        net.backbone,
        runner.data.source,
        torch.from_numpy(on.rows[some]),
        runner.preprocessing(trial.recipe),
        runner.runtime,
        batch_size=FEATURE_BATCH,
        should_stop=lambda: seconds_left() <= 0,
    )
    strengths = (trial.notes["strength"],)
    probe = fit_probe(
        features,
        on.labels[some],
        on.groups[some],
        runner.data.num_classes,
        strengths=strengths,
        folds=2,
        should_stop=lambda: seconds_left() <= 0,
    )
    if seconds_left() <= 0:
        raise OutOfTime("its time ended before the head was fitted")
    set_linear_head(net, probe.weight, probe.bias)
    return net.state_dict(), 0.0


def follow_retraining(runner: TrialRunner, trial: Trial, on: Rows) -> None:
    """Take part in what the first rank does in `retrain`.

    Raises:
        RankLost, RanksDiffer: the other ranks are gone, or hold other weights.
    """
    trainer = _trainer(runner, trial, on)
    _Keeper(runner.files, trainer, trial.number, _digest(on)).load()
    trainer.follow()


def _trainer(runner: TrialRunner, trial: Trial, on: Rows) -> Trainer:
    recipe = dataclasses.replace(trial.recipe, patience=0)
    data = dataclasses.replace(
        runner.data,
        train_rows=torch.from_numpy(on.rows),
        train_labels=torch.from_numpy(on.labels),
        val_rows=runner.data.val_rows[:1],  # it is trained on: what it says of them decides nothing
        val_labels=runner.data.val_labels[:1],
    )
    net = runner.classifier(recipe)
    if recipe.head_from_probe:
        runner.start_head(net, recipe)
    preprocessing = runner.preprocessing(recipe)
    return Trainer(
        recipe,
        data,
        net,
        preprocessing,
        runner.runtime,
        lambda _labels, _said: 0.0,
        runner.learned,
        runner.compiler,
        runner.ranks,
    )


def _fine_tune(runner: TrialRunner, trial: Trial, on: Rows, seconds_left: Callable[[], float]) -> Retrained:
    try:
        return _fine_tuned(runner, trial, on, seconds_left)
    finally:
        runner.ranks.say(OVER)


def _fine_tuned(runner: TrialRunner, trial: Trial, on: Rows, seconds_left: Callable[[], float]) -> Retrained:
    trainer = _trainer(runner, trial, on)
    keeper = _Keeper(runner.files, trainer, trial.number, _digest(on))
    keeper.load()
    loss = keeper.loss
    try:
        while trainer.epoch < trial.epochs_done:
            result = trainer.run_epoch(partial(keeper.ask, seconds_left))
            if result.finished == "deadline":
                raise OutOfTime(f"its time ended in epoch {result.epoch} of {trial.epochs_done}")
            loss = keeper.loss = result.train_loss
    except (TrialInterrupted, RankLost):
        keeper.save()
        raise
    runner.files.drop_retrained()
    return trainer.last_weights(), loss


@dataclass
class _Keeper:
    """Writes where the training is when it is left, and in long ones from time to time.

    Attributes:
        loss: of the newest epoch.
    """

    files: TrialFiles
    trainer: Trainer
    number: int
    rows: str
    loss: float = math.nan
    _saved: float = field(default_factory=time.monotonic)
    _seconds: float = 0.0

    def ask(self, seconds_left: Callable[[], float]) -> float:
        """`seconds_left`, between two steps."""
        if time.monotonic() - self._saved >= max(WITHIN_EPOCH, self._seconds / SAVING_SHARE):
            self.save()
        return seconds_left()

    def save(self) -> None:
        """Write it."""
        started = time.monotonic()
        known = {"trial": self.number, "rows": self.rows, "loss": self.loss}
        self.files.save_retrained({**known, "trainer": self.trainer.state()})
        self._saved = time.monotonic()
        self._seconds = self._saved - started

    def load(self) -> None:
        """Go on where a training of the same trial on the same rows was left, if there is one.

        Raises:
            TooLittleMemory: there is one, and it does not fit.
        """
        try:
            left = self.files.load_retrained()
        except ShortOfMemory as error:
            raise TooLittleMemory(f"too little memory to go on where it was left: {error.what}") from error
        if left is None:
            return
        with told_as_damage(self.files.name_of_retrained):
            if (left["trial"], left["rows"]) != (self.number, self.rows):
                return
            if Recipe.from_dict(left["trainer"]["recipe"]) == self.trainer.recipe:
                self.trainer.load_state(left["trainer"])
                self.loss = float(left["loss"])


def _digest(on: Rows) -> str:
    digest = hashlib.blake2b(on.rows.tobytes(), digest_size=16)
    digest.update(on.labels.tobytes())
    return digest.hexdigest()
