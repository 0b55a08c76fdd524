"""What a candidate will cost in seconds, from what this machine has shown so far."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from automl_vision.search.trial import Trial
from automl_vision.training.recipe import Recipe

#: A training step costs about this many forward passes; measured 3.3 to 5.6 on CPUs. Used only until a step was timed.
STEP_OVER_FORWARD = 4.0
#: Seconds to start or resume a trial: build the network, load weights, save checkpoints.
TRIAL_OVERHEAD = 1.0


@dataclass(frozen=True)
class CostModel:
    """Seconds per image and per epoch, measured where possible, else scaled from what was.

    Attributes:
        trials: the history of this run; every timed trial sharpens the estimate.
        gmacs: backbone name -> multiply-adds at 224 px, in 1e9; None where unknown.
        n_train, n_val: rows trained on and validated in each epoch.
    """

    trials: Sequence[Trial]
    gmacs: Callable[[str], float | None]
    n_train: int
    n_val: int

    def epoch(self, recipe: Recipe) -> float:
        """Seconds of one epoch of `recipe`, validation included; infinity before anything was timed."""
        step = self._step(recipe)
        return self.n_train * step + self.n_val * step / STEP_OVER_FORWARD

    def forward(self, recipe: Recipe) -> float:
        """Seconds of a forward pass per image; infinity before anything was timed."""
        return self._step(recipe) / STEP_OVER_FORWARD

    def _step(self, recipe: Recipe) -> float:
        timed = [trial for trial in self.trials if trial.seconds_per_image > 0]
        same = [trial for trial in timed if _workload(trial.recipe) == _workload(recipe)]
        fine_tunes = [trial for trial in same if trial.recipe.kind == "finetune"]
        if fine_tunes:
            return fine_tunes[-1].seconds_per_image
        nearest = same or [trial for trial in timed if trial.recipe.backbone == recipe.backbone] or timed
        if not nearest:
            return float("inf")
        return min(self._scaled(trial, recipe) for trial in nearest)

    def _scaled(self, trial: Trial, recipe: Recipe) -> float:
        step = trial.seconds_per_image * (STEP_OVER_FORWARD if trial.recipe.kind == "probe" else 1.0)
        pixels = (recipe.resolution / trial.recipe.resolution) ** 2
        return step * pixels * self._relative_macs(recipe.backbone, trial.recipe.backbone)

    def _relative_macs(self, wanted: str, known: str) -> float:
        if wanted == known:
            return 1.0
        numerator, denominator = self.gmacs(wanted), self.gmacs(known)
        return numerator / denominator if numerator and denominator else 1.0


def _workload(recipe: Recipe) -> tuple[str, int]:
    return recipe.backbone, recipe.resolution
