"""What a candidate will cost in seconds, from what this machine has shown so far."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from automl_vision.search.trial import Trial
from automl_vision.training.recipe import Recipe

#: A training step costs about this many forward passes; measured 3.3 to 5.6 on CPUs. Used only until a step was timed.
STEP_OVER_FORWARD = 4.0
#: What a training step costs with none, one, two or three stages of the backbone frozen, against none; measured, see
#: docs/LOG.md. Used only until a step of such a recipe was timed.
FROZEN_STEP = (1.0, 0.75, 0.65, 0.45)
#: Seconds to start or resume a trial: build the network, load weights, save checkpoints.
TRIAL_OVERHEAD = 1.0


@dataclass(frozen=True)
class CostModel:
    """Seconds per image and per epoch, measured where possible, else scaled from what was.

    Attributes:
        trials: the history of this run; every timed trial sharpens the estimate.
        gmacs: backbone name -> multiply-adds at 224 px, in 1e9; None where unknown.
        n_train, n_val: rows trained on and validated in each epoch.
        share: of the machine that trials have now, in (0, 1]: what was timed with another share is scaled to it. None
            for seconds as they were measured: an upper bound of what they take alone, since work that has half of a
            machine seldom takes twice as long.
    """

    trials: Sequence[Trial]
    gmacs: Callable[[str], float | None]
    n_train: int
    n_val: int
    share: float | None = None

    def epoch(self, recipe: Recipe) -> float:
        """Seconds of one epoch of `recipe`, validation included; infinity before anything was timed."""
        return self.n_train * self._step(recipe) + self.n_val * self.forward(recipe)

    def forward(self, recipe: Recipe) -> float:
        """Seconds of a forward pass per image; infinity before anything was timed."""
        return self._step(recipe) / step_over_forward(recipe)

    def _step(self, recipe: Recipe) -> float:
        timed = [trial for trial in self.trials if trial.seconds_per_image > 0]
        same = [trial for trial in timed if _workload(trial.recipe) == _workload(recipe)]
        fine_tunes = [trial for trial in same if trial.recipe.kind == "finetune"]
        if fine_tunes:
            return self._timed(fine_tunes[-1])
        nearest = same or [trial for trial in timed if trial.recipe.backbone == recipe.backbone] or timed
        if not nearest:
            return float("inf")
        return min(self._scaled(trial, recipe) for trial in nearest)

    def _timed(self, trial: Trial) -> float:
        return trial.seconds_per_image if self.share is None else trial.seconds_per_image_alone / self.share

    def _scaled(self, trial: Trial, recipe: Recipe) -> float:
        is_step = trial.recipe.kind == "finetune"
        forward = self._timed(trial) / (step_over_forward(trial.recipe) if is_step else 1.0)
        step = forward * step_over_forward(recipe)
        pixels = (recipe.resolution / trial.recipe.resolution) ** 2
        return step * pixels * self._relative_macs(recipe.backbone, trial.recipe.backbone)

    def _relative_macs(self, wanted: str, known: str) -> float:
        if wanted == known:
            return 1.0
        numerator, denominator = self.gmacs(wanted), self.gmacs(known)
        return numerator / denominator if numerator and denominator else 1.0


def step_over_forward(recipe: Recipe) -> float:
    """Forward passes that a training step costs; no gradient passes through frozen stages."""
    return STEP_OVER_FORWARD * FROZEN_STEP[recipe.freeze_stages]


def _workload(recipe: Recipe) -> tuple[str, int, int]:
    return recipe.backbone, recipe.resolution, recipe.freeze_stages
