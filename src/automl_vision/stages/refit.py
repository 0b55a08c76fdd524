"""Training the chosen recipe once more, on training and validation images, as `search.refit` says.

Nothing is left to judge the result by, so nothing is decided on it: as many epochs as before, no early stopping, the
last weights. It is dropped where its training did not come as far as before. Temperature and class bias stay those of
the model before it, and so do all validation figures.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from automl_vision.errors import WeightsError
from automl_vision.models.features import OutOfTime
from automl_vision.models.memory import is_out_of_memory
from automl_vision.search.retrain import Rows, retrain
from automl_vision.search.run_trial import TrialInterrupted
from automl_vision.search.trial import is_frozen
from automl_vision.stages.improve import Bench, Improved
from automl_vision.stages.reserve import refit_seconds, refits_unasked
from automl_vision.training.loop import TrialFailed

#: It is dropped where its last training loss is more than this many times that of the model before.
DIVERGED = 2.0


@dataclass(frozen=True)
class Refit:
    """What came of it.

    Attributes:
        detail: one phrase: what was done, or why not.
        images: that it was trained on.
        seconds: wall time.
        weights: state dict of the network; None where the model before it is kept.
    """

    detail: str
    images: int = 0
    seconds: float = 0.0
    weights: dict[str, torch.Tensor] | None = field(default=None, repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Plain types, ready for JSON."""
        done = self.weights is not None
        return {"done": done, "detail": self.detail, "images": self.images, "seconds": self.seconds}


def refit(bench: Bench, improved: Improved) -> Refit | None:
    """Train once more where that was asked for, or where there is time and it is wanted unasked; else None."""
    if bench.context.settings.search.refit == "on":
        return refitted(bench, improved)
    unasked = refits_unasked(bench.context, bench.prepared) and not is_frozen(bench.trial)
    return refitted(bench, improved) if unasked and not _refusal(bench, improved) else None


def refitted(bench: Bench, improved: Improved) -> Refit:
    """Train the chosen recipe on training and validation images, or say why not."""
    trial = bench.trial
    refusal = _refusal(bench, improved)
    if refusal:
        return Refit(refusal)
    started = time.monotonic()
    rows = np.concatenate([bench.prepared.split.rows(name) for name in ("train", "val")])
    passes = sum(1 + network.flip for network in improved.draft.networks)
    try:
        on = Rows(rows, bench.prepared.labels(rows), bench.prepared.groups(rows))
        if not is_frozen(trial):
            runner = bench.searched.runner
            heads = runner.known_heads
            runner.ranks.say({"do": "job", "job": {"retrain": trial.to_dict(), "heads": heads}})
        weights, loss = retrain(bench.searched.runner, trial, on, lambda: _seconds_left(bench, passes))
    except (OutOfTime, TrialFailed, TrialInterrupted, WeightsError) as error:
        reason = str(error) or "the run was stopped"
        return Refit(f"kept the model before it: {reason}", len(rows), time.monotonic() - started)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return Refit("kept the model before it: not enough memory", len(rows), time.monotonic() - started)
    seconds = time.monotonic() - started
    before = next((epoch.train_loss for epoch in reversed(trial.epochs) if epoch.train_loss is not None), math.inf)
    if loss > DIVERGED * before:
        detail = f"kept the model before it: the training loss ended at {loss:.3f} instead of {before:.3f}"
        return Refit(detail, len(rows), seconds)
    return Refit(f"trained on {len(rows):,} training and validation images", len(rows), seconds, weights)


def _seconds_left(bench: Bench, passes: int) -> float:
    """As a trial asks for them: it leaves where the run is to end, and a later session goes on."""
    if bench.context.stop.requested:
        raise TrialInterrupted
    return bench.seconds_left(passes)


def _refusal(bench: Bench, improved: Improved) -> str:
    adopted = {step.name for step in improved.steps if step.adopted}
    if adopted & {"soup", "ensemble"}:
        return "an average or an ensemble of networks cannot be trained once more"
    if is_frozen(bench.trial) and bench.trial.recipe.kind != "probe":
        return "a head with hidden layers is not fitted again"
    return bench.refusal(refit_seconds(bench.trial, bench.prepared, bench.trials))
