"""The history of a search as samplers see it, and the dimensions in the terms of Optuna."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution

from automl_vision.search.samplers.flat import FlatSpace
from automl_vision.search.space import Choice, Dimension, Space
from automl_vision.search.trial import Trial

#: How far below the worst score a failure counts: this share of what lies between the scores, and this much at least.
FAILURE_STEP, LEAST_STEP = 0.5, 0.01


@dataclass(frozen=True)
class Known:
    """A fine-tune of the space, and what it counts for."""

    trial: Trial
    score: float

    @property
    def is_measured(self) -> bool:
        """Whether the score is more than a stand-in for one that is not there yet."""
        return self.trial.score is not None or self.trial.state == "failed"


def known_trials(space: Space, trials: Sequence[Trial]) -> list[Known]:
    """What can be learned from.

    A failure counts as less than the worst score, so that samplers keep away from what cannot be trained, for memory or
    otherwise. (Optuna's samplers pass over its own state of failed trials, and all but TPE over that of pruned ones; a
    failure that ties with the worst score is among the best where there are few others.)
    """
    own = [trial for trial in trials if trial.recipe.kind == "finetune" and space.contains(trial.parameters)]
    scores = [trial.score for trial in own if trial.score is not None and trial.state != "failed"]
    worst, best = min(scores, default=0.0), max(scores, default=0.0)
    failure = worst - max(FAILURE_STEP * (best - worst), LEAST_STEP)
    return [Known(trial, _counted(trial, worst, failure)) for trial in own]


def _counted(trial: Trial, worst: float, failure: float) -> float:
    if trial.state == "failed":
        return failure
    return worst if trial.score is None else trial.score


def distribution(dimension: Dimension) -> BaseDistribution:
    """A dimension in the terms of Optuna."""
    if isinstance(dimension, Choice):
        return CategoricalDistribution(dimension.options)
    return FloatDistribution(dimension.low, dimension.high, log=dimension.log)


def flat_distributions(flat: FlatSpace) -> dict[str, BaseDistribution]:
    """Every coordinate and every choice of a flat space in the terms of Optuna."""
    numbers = {name: FloatDistribution(0.0, 1.0) for name in flat.coordinates}
    return {**numbers, **{each.name: distribution(each) for each in flat.choices}}


def as_optuna(space: Space, known: Sequence[Known]) -> list[optuna.trial.FrozenTrial]:
    """The history as trials of Optuna, each with the dimensions that exist at its point."""
    return [
        optuna.trial.create_trial(
            params=dict(each.trial.parameters),
            distributions={name: distribution(one) for name, one in space.active(each.trial.parameters).items()},
            value=each.score,
            intermediate_values={epoch.epoch: epoch.score for epoch in each.trial.epochs},
            user_attrs={"number": each.trial.number, "origin": each.trial.origin, "state": each.trial.state},
        )
        for each in known
    ]


def suggested(asked: optuna.trial.Trial, dimension: Dimension) -> Any:
    """The value that Optuna suggests for a dimension."""
    if isinstance(dimension, Choice):
        return asked.suggest_categorical(dimension.name, dimension.options)
    return asked.suggest_float(dimension.name, dimension.low, dimension.high, log=dimension.log)
