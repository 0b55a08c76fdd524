"""SAMPLERS: who proposes the next recipe. The only door to optuna.

Optuna proposes, by ask and tell, on a study in memory that is rebuilt from the trials of the run each time; so the
trial files stay the only truth, and a resumed search asks the same question an undisturbed one would have asked.
"""

from __future__ import annotations

import sqlite3
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.samplers import BaseSampler, RandomSampler, TPESampler

from automl_vision.search.space import Choice, Dimension, Space
from automl_vision.search.trial import Trial

STARTUP_TRIALS = 8
SEEDS = 2**32  # what numpy takes


def _tpe(seed: int) -> BaseSampler:
    with warnings.catch_warnings():
        # `group` is marked experimental; it is what makes TPE joint over the dimensions that exist together.
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return TPESampler(seed=seed, n_startup_trials=STARTUP_TRIALS, multivariate=True, group=True, constant_liar=True)


def _random(seed: int) -> BaseSampler:
    return RandomSampler(seed=seed)


SAMPLERS: dict[str, Callable[[int], BaseSampler]] = {"tpe": _tpe, "random": _random}


def propose(name: str, space: Space, trials: Sequence[Trial], *, seed: int) -> dict[str, Any]:
    """The next point to try.

    Args:
        name: a name of `SAMPLERS`.
        space: where to look.
        trials: what is known; those whose point is not of this space are passed over.
        seed: together with the number of trials it decides every random draw.

    Returns:
        a point of `space`.
    """
    study = optuna.create_study(direction="maximize", sampler=SAMPLERS[name]((seed + len(trials)) % SEEDS))
    study.add_trials(_as_optuna(space, trials))
    asked = study.ask()

    def ask(dimension: Dimension) -> Any:
        if isinstance(dimension, Choice):
            return asked.suggest_categorical(dimension.name, dimension.options)
        return asked.suggest_float(dimension.name, dimension.low, dimension.high, log=dimension.log)

    return space.suggest(ask)


def export_study(file: Path, space: Space, trials: Sequence[Trial], *, name: str) -> None:
    """Write the trials as an SQLite study that optuna-dashboard opens. It is an export; nothing reads it back.

    Raises:
        OSError: `file` exists and cannot be replaced.
    """
    file.unlink(missing_ok=True)
    # A connection of our own, since an address would read '?' in the path as the beginning of options.
    storage = optuna.storages.RDBStorage("sqlite://", engine_kwargs={"creator": lambda: sqlite3.connect(file)})
    study = optuna.create_study(study_name=name, storage=storage, direction="maximize")
    study.add_trials(_as_optuna(space, trials))
    storage.engine.dispose()


def _as_optuna(space: Space, trials: Sequence[Trial]) -> list[optuna.trial.FrozenTrial]:
    """The history as Optuna sees it: failures count as the worst score, so that the sampler keeps away from them."""
    scores = [trial.score for trial in trials if trial.score is not None]
    worst = min(scores, default=0.0)
    known = [trial for trial in trials if trial.recipe.kind == "finetune" and space.contains(trial.parameters)]
    return [
        optuna.trial.create_trial(
            params=dict(trial.parameters),
            distributions={name: _distribution(each) for name, each in space.active(trial.parameters).items()},
            value=worst if trial.score is None or trial.state == "failed" else trial.score,
            intermediate_values={epoch.epoch: epoch.score for epoch in trial.epochs},
            user_attrs={"number": trial.number, "origin": trial.origin, "state": trial.state},
        )
        for trial in known
    ]


def _distribution(dimension: Dimension) -> BaseDistribution:
    if isinstance(dimension, Choice):
        return CategoricalDistribution(dimension.options)
    return FloatDistribution(dimension.low, dimension.high, log=dimension.log)


optuna.logging.set_verbosity(optuna.logging.WARNING)  # our own lines tell what happens
