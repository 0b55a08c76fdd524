"""Which settings made the difference: PED-ANOVA (Watanabe et al. 2023), on the trials of a search."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import optuna
from optuna.importance import PedAnovaImportanceEvaluator

from automl_vision.search.samplers.flat import FlatSpace
from automl_vision.search.samplers.history import flat_distributions, known_trials
from automl_vision.search.space import Space
from automl_vision.search.trial import Trial

#: Below this many fine-tunes the shares are noise.
ENOUGH_TRIALS = 30
#: Trials that count as good: the best tenth, and no fewer than this.
FEWEST_GOOD = 5


def importances(space: Space, trials: Sequence[Trial]) -> dict[str, float]:
    """How much each setting decided whether a fine-tune is among the good ones.

    Returns:
        setting -> share, all shares together 1, largest first; empty below `ENOUGH_TRIALS` fine-tunes.
    """
    flat = FlatSpace(space)
    known = [each for each in known_trials(space, trials) if each.is_measured]
    if len(known) < ENOUGH_TRIALS:
        return {}
    dimensions = flat_distributions(flat)
    study = optuna.create_study(direction="maximize")
    for each in known:
        values = flat.meant(each.trial.parameters)
        distributions = {name: dimensions[name] for name in values}
        study.add_trial(optuna.trial.create_trial(params=values, distributions=distributions, value=each.score))
    good = max(0.1, FEWEST_GOOD / len(known))
    with warnings.catch_warnings():
        # Said of a setting that only one trial has, or where all scores are equal; both end as a share of 0.
        warnings.simplefilter("ignore", UserWarning)
        evaluator = PedAnovaImportanceEvaluator(target_quantile=good)
        return dict(optuna.importance.get_param_importances(study, evaluator=evaluator))
