"""Samplers of Optuna: TPE and chance on the space as it is, a Gaussian process on its flat view."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import optuna
from optuna.samplers import BaseSampler, GPSampler, RandomSampler, TPESampler

from automl_vision.search.samplers.flat import FlatSpace
from automl_vision.search.samplers.history import Known, as_optuna, flat_distributions, suggested
from automl_vision.search.space import Space

#: Trials before a model of the scores takes the place of chance.
STARTUP_TRIALS = 8


def tpe(space: Space, known: Sequence[Known], seed: int) -> dict[str, Any]:
    """Tree-structured Parzen estimators (Bergstra et al. 2011), joint over the dimensions that exist together."""
    with warnings.catch_warnings():
        # `group` is marked experimental; it is what makes TPE joint over the dimensions that exist together.
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        sampler = TPESampler(
            seed=seed, n_startup_trials=STARTUP_TRIALS, multivariate=True, group=True, constant_liar=True
        )
    return _asked(space, known, sampler)


def by_chance(space: Space, known: Sequence[Known], seed: int) -> dict[str, Any]:
    """Independent draws."""
    return _asked(space, known, RandomSampler(seed=seed))


def gaussian_process(space: Space, known: Sequence[Known], seed: int) -> dict[str, Any]:
    """Bayesian optimisation: a Gaussian process (Matérn 5/2) and log expected improvement (Ament et al. 2023).

    Every trial counts as complete, with its best score so far: the sampler passes over all others.
    """
    flat = FlatSpace(space)
    study = optuna.create_study(direction="maximize", sampler=GPSampler(seed=seed, n_startup_trials=STARTUP_TRIALS))
    distributions = flat_distributions(flat)
    study.add_trials(
        optuna.trial.create_trial(
            params=flat.flatten(each.trial.parameters), distributions=distributions, value=each.score
        )
        for each in known
    )
    return flat.point(study.ask(fixed_distributions=distributions).params)


def _asked(space: Space, known: Sequence[Known], sampler: BaseSampler) -> dict[str, Any]:
    study = optuna.create_study(direction="maximize", sampler=sampler)
    study.add_trials(as_optuna(space, known))
    asked = study.ask()
    return space.suggest(lambda dimension: suggested(asked, dimension))
