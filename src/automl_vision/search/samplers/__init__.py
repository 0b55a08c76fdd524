"""SAMPLERS: who proposes the next recipe. The only door to optuna and cmaes.

A sampler is a function of the trials of the run and a seed: what it works with is rebuilt from the trial files each
time it is asked. So the trial files stay the only truth, no sampler has a state that must be stored (let alone
unpickled), and a resumed search asks the same question an undisturbed one would have asked.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import optuna

from automl_vision.files import write_atomically
from automl_vision.search.samplers.bayesian import by_chance, gaussian_process, tpe
from automl_vision.search.samplers.history import Known, as_optuna, known_trials
from automl_vision.search.samplers.importance import importances
from automl_vision.search.space import Space
from automl_vision.search.trial import Trial

__all__ = ["AUTO", "SAMPLERS", "export_study", "importances", "propose", "sampler_for"]

SEEDS = 2**32  # what numpy takes

Sampler = Callable[[Space, Sequence[Known], int], dict[str, Any]]


def _cma_es(space: Space, known: Sequence[Known], seed: int) -> dict[str, Any]:
    from automl_vision.search.samplers.evolution import cma_es  # loads what no other sampler needs

    return cma_es(space, known, seed)


#: name -> (space, what is known of it, seed) -> the next point; the seed decides every random draw.
SAMPLERS: dict[str, Sampler] = {
    "tpe": tpe,
    "gp": gaussian_process,
    "random": by_chance,
    "cmaes": _cma_es,
}
#: What the setting "auto" stands for.
AUTO = "tpe"


def sampler_for(setting: str) -> str:
    """The name in `SAMPLERS` that a value of the setting `search.sampler` stands for."""
    return AUTO if setting == "auto" else setting


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
    return SAMPLERS[name](space, known_trials(space, trials), (seed + len(trials)) % SEEDS)


def export_study(file: Path, space: Space, trials: Sequence[Trial], *, name: str) -> None:
    """Write the trials as an SQLite study that optuna-dashboard opens. It is an export; nothing reads it back.

    It is made in memory and written at once: where the process dies meanwhile, the former study stays as it was.

    Raises:
        OSError: `file` exists and cannot be replaced, or the disk is full.
    """
    with contextlib.closing(sqlite3.connect(":memory:", check_same_thread=False)) as connection:
        storage = optuna.storages.RDBStorage("sqlite://", engine_kwargs={"creator": lambda: connection})
        study = optuna.create_study(study_name=name, storage=storage, direction="maximize")
        study.add_trials(as_optuna(space, known_trials(space, trials)))
        content = connection.serialize()
        storage.engine.dispose()
    write_atomically(file, lambda unfinished: unfinished.write(content))


# Our own lines tell what happens. What Optuna warns of is ruled out by the flat view, or is no business of the user
# (a package that it could go faster with).
optuna.logging.set_verbosity(optuna.logging.ERROR)
