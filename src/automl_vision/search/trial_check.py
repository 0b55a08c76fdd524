"""What an earlier session left of its trials, looked at before it is used.

A file may have been damaged since, be of another run, or be crafted: sound, and of other values than a search writes.
What cannot be used is renamed to `*.corrupt` and named, and the run goes on without it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from automl_vision.errors import ModelFileError, RunError, ShortOfMemory, UsageError
from automl_vision.models.classifier import empty_classifier
from automl_vision.models.memory import is_out_of_memory
from automl_vision.place import Place, files_below, set_aside
from automl_vision.search.trial import Trial
from automl_vision.search.trial_files import (
    BEST,
    CHECKPOINT,
    HELD_OUT,
    PREDICTED,
    RETRAINED,
    TrialFiles,
    held_out_of,
    predicted_of,
    result_of,
)
from automl_vision.tensor_file import load_tensors

#: What values raise that are of other types than those that are written, or are not there.
_OF_OTHER_VALUES = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RuntimeError)
#: What the sum of a row of probabilities may differ from 1 by, 16-bit arithmetic included.
_ROUNDING = 0.02


@dataclass(frozen=True)
class Expected:
    """What the files of a run are about.

    Attributes:
        images: N of the manifest.
        val_images: m that validation judges by.
        classes: C.
    """

    images: int
    val_images: int
    classes: int


def set_aside_unsound(files: TrialFiles, trials: Sequence[Trial], expected: Expected) -> list[str]:
    """Rename what cannot be used; of each such file its name below the folder of trials and what is wrong with it."""
    known = {trial.number: trial for trial in trials}
    told = []
    for name in sorted(each for each in files_below(files.folder) if each.endswith(".pt")):
        fault = _fault(files.folder / name, known.get(_number(name)), expected)
        if fault:
            set_aside(files.folder / name)
            told.append(f"{name} ({fault})")
    return told


@contextmanager
def told_as_damage(file: Place) -> Iterator[None]:
    """Whoever changed a file of a run is told so, and not that this program has a fault.

    Raises:
        RunError: what is done inside fails as it does on values that no search wrote.
    """
    try:
        yield
    except _OF_OTHER_VALUES as error:
        if is_out_of_memory(error):
            raise
        raise RunError(
            "a file of the run is not as a search leaves it",
            value=f"{file} ({type(error).__name__}: {' '.join(str(error).split())[:200]})",
            fix="restore it from a copy, or remove it: what it was of begins again when the run is resumed",
        ) from error


def _number(name: str) -> int:
    """Of the trial that a file belongs to, -1 where it is of the whole run."""
    folder = name.partition("/")[0]
    return int(folder) if folder.isdecimal() else -1


def _fault(file: Place, trial: Trial | None, expected: Expected) -> str:
    check = _CHECKS.get(file.name)
    if check is None:
        return ""
    try:
        return check(load_tensors(file), trial, expected)
    except (ShortOfMemory, MemoryError):
        return ""  # what needs it will say so: the file may be sound
    except ModelFileError as error:
        return error.what
    except (*_OF_OTHER_VALUES, UsageError) as error:
        if is_out_of_memory(error):
            return ""
        return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


# --- one of each kind -----------------------------------------------------------------------------------------------


def _best(content: Mapping[str, Any], trial: Trial | None, expected: Expected) -> str:
    result = result_of(content)
    if result is None:
        return "it holds no weights with their probabilities"
    if result.probabilities.shape != (expected.val_images, expected.classes):
        return f"its probabilities are {result.probabilities.shape}, not of {expected.val_images} validation images"
    if not _are_shares(result.probabilities):
        return "its probabilities are none"
    return "" if trial is None else _weights_fault(result.weights, trial, expected)


def _weights_fault(weights: Mapping[str, torch.Tensor], trial: Trial, expected: Expected) -> str:
    recipe = trial.recipe
    net = empty_classifier(
        recipe.backbone, expected.classes, resolution=recipe.resolution, head=recipe.head, state=weights
    )
    wanted = net.state_dict()
    if set(wanted) != set(weights):
        return f"its weights are not those of {recipe.backbone}"
    unlike = [name for name, tensor in weights.items() if tensor.shape != wanted[name].shape]
    if unlike:
        return f"{len(unlike)} of its tensors have other shapes than {recipe.backbone} has"
    finite = all(bool(torch.isfinite(tensor).all()) for tensor in weights.values() if tensor.is_floating_point())
    return "" if finite else "its weights are not finite"


def _predicted(content: Mapping[str, Any], _: Trial | None, expected: Expected) -> str:
    predicted = predicted_of(content)
    if predicted is None or len(predicted) != expected.val_images:
        return f"it holds no classes of {expected.val_images} validation images"
    return "" if _are_below(predicted, expected.classes) else "it names classes that there are not"


def _held_out(content: Mapping[str, Any], _: Trial | None, expected: Expected) -> str:
    held_out = held_out_of(content)
    if held_out is None or held_out.probabilities.shape[1] != expected.classes:
        return "it does not hold what a probe says of training images"
    if not _are_below(held_out.rows, expected.images):
        return "it names images that there are not"
    return "" if _are_shares(held_out.probabilities) else "its probabilities are none"


def _checkpoint(content: Mapping[str, Any], trial: Trial | None, _: Expected) -> str:
    kept = Trial.from_dict(content["trial"])
    own = trial is None or kept.number == trial.number
    return "" if own and isinstance(content["trainer"], dict) else "it is no checkpoint of this trial"


def _retrained(content: Mapping[str, Any], _: Trial | None, __: Expected) -> str:
    kinds = {"trial": int, "rows": str, "loss": float, "trainer": dict}
    return "" if all(type(content[name]) is kind for name, kind in kinds.items()) else "it is no checkpoint"


def _are_shares(probabilities: np.ndarray[Any, Any]) -> bool:
    """Whether rows are finite, not negative, and sum to 1."""
    sums = probabilities.sum(axis=1, dtype=np.float64)
    whole = bool(np.isfinite(probabilities).all()) and bool((probabilities >= 0).all())
    return whole and bool((abs(sums - 1) <= _ROUNDING).all()) and math.isfinite(float(sums.sum()))


def _are_below(numbers: np.ndarray[Any, Any], count: int) -> bool:
    return bool(((numbers >= 0) & (numbers < count)).all())


#: name -> (its content, the trial it is of, what is expected) to what is wrong with it; empty for nothing.
_CHECKS: dict[str, Callable[[Mapping[str, Any], Trial | None, Expected], str]] = {
    BEST: _best,
    PREDICTED: _predicted,
    HELD_OUT: _held_out,
    CHECKPOINT: _checkpoint,
    RETRAINED: _retrained,
}
