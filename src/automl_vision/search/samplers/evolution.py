"""CMA-ES (Hansen 2016) on the numbers of a space, by the library `cmaes`; TPE decides the choices.

Optuna's own sampler keeps the state of the strategy as a pickle in the study. Here there is no state to keep: the
strategy is told all its earlier proposals again, generation by generation, each time it is asked. Nothing is
unpickled, and a resumed search goes on as an undisturbed one would have.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from cmaes import CMA, get_warm_start_mgd
from numpy.typing import NDArray

from automl_vision.search.samplers.bayesian import tpe
from automl_vision.search.samplers.flat import FlatSpace
from automl_vision.search.samplers.history import Known
from automl_vision.search.space import Space

NAME = "cmaes"
#: Step size of a start that knows nothing, as a share of each range; around the best of others it is `NEARBY`.
SIGMA, NEARBY = 1 / 6, 0.1
#: The best of the trials that others proposed, of which the start is made.
BEST_SHARE = 0.1

Solution = tuple[NDArray[np.float64], float]


def cma_es(space: Space, known: Sequence[Known], seed: int) -> dict[str, Any]:
    """The next member of the generation that is under way.

    What others proposed (the default recipes) says where to start: the strategy is warm-started from the best of it
    (Nomura et al. 2021).
    """
    flat = FlatSpace(space)
    chosen = flat.flatten(tpe(space, known, seed))
    if not flat.coordinates:
        return flat.point(chosen)
    measured = [each for each in known if each.is_measured]
    own = [_solution(flat, each) for each in measured if each.trial.origin == NAME]
    others = [_solution(flat, each) for each in measured if each.trial.origin != NAME]
    strategy = _started(len(flat.coordinates), others)
    for generation in _generations(own, strategy.population_size):
        strategy.tell(generation)
    strategy.reseed_rng(seed)
    numbers = dict(zip(flat.coordinates, strategy.ask().tolist(), strict=True))
    return flat.point({**chosen, **numbers})


def _started(dimensions: int, others: Sequence[Solution]) -> CMA:
    bounds = np.tile([0.0, 1.0], (dimensions, 1))
    if not others:
        return CMA(mean=np.full(dimensions, 0.5), sigma=SIGMA, bounds=bounds)
    best = sorted(others, key=lambda each: each[1])[: max(1, int(BEST_SHARE * len(others)))]
    mean, sigma, cov = get_warm_start_mgd(best, gamma=1.0, alpha=NEARBY)
    return CMA(mean=mean, sigma=sigma, cov=cov, bounds=bounds)


def _generations(solutions: Sequence[Solution], size: int) -> Iterator[list[Solution]]:
    """Whole generations, in the order in which they were proposed."""
    for start in range(0, len(solutions) - size + 1, size):
        yield list(solutions[start : start + size])


def _solution(flat: FlatSpace, known: Known) -> Solution:
    """Coordinates and loss: CMA-ES minimises."""
    values = flat.flatten(known.trial.parameters)
    return np.array([values[name] for name in flat.coordinates]), -known.score
