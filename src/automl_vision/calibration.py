"""Probabilities that mean what they say: one temperature, fitted on validation.

Guo, Pleiss, Sun, Weinberger: "On Calibration of Modern Neural Networks", ICML 2017 (arXiv 1706.04599):
dividing the logits by one number removes most of the over-confidence of a network, and cannot change which
class is first.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

TEMPERATURE_RANGE = (0.05, 20.0)

#: Logits further than this below the best of their row are lifted to it; exp(-700) is still a number.
_LOWEST = -700.0


def logarithm(probabilities: NDArray[Any]) -> Floats:
    """(N, C) probabilities to finite log-probabilities."""
    logs: Floats = np.log(np.clip(probabilities.astype(np.float64), 1e-30, None))
    return logs


def fit_temperature(logits: Floats, labels: NDArray[np.int64]) -> float:
    """The temperature in 0.05..20 with the least log-loss of softmax(logits / temperature).

    Args:
        logits: (N, C) logits or log-probabilities; -inf is allowed.
        labels: (N) class index.

    Returns:
        The temperature; 1.0 where the data do not determine one: no rows, one class, nothing but ties, or
        every row right (any sharper temperature would then fit better still). Never one that fits worse than
        1.0.

    Raises:
        ValueError: a logit is NaN or +inf.
    """
    from scipy.optimize import minimize_scalar  # predicting, which applies a temperature, starts without it

    shifted = _shifted(logits)
    if _undetermined(shifted, labels):
        return 1.0
    low, high = (math.log(bound) for bound in TEMPERATURE_RANGE)
    found = minimize_scalar(lambda log_t: _loss(shifted, labels, math.exp(log_t)), bounds=(low, high), method="bounded")
    temperature = math.exp(found.x)
    return temperature if found.fun < _loss(shifted, labels, 1.0) else 1.0


def apply_temperature(logits: Floats, temperature: float) -> Floats:
    """Probabilities (N, C) softmax(logits / temperature), float64, rows sum to 1.

    Args:
        logits: (N, C) logits or log-probabilities; -inf is allowed.
        temperature: > 0.

    Raises:
        ValueError: the temperature is not positive, or a logit is NaN or +inf.
    """
    if not temperature > 0:
        raise ValueError(f"a temperature must be positive, got {temperature=}")
    if not len(logits):
        return np.asarray(logits, dtype=np.float64)
    raised = np.exp(_shifted(logits) / temperature)
    return np.asarray(raised / raised.sum(axis=1, keepdims=True))


def class_bias(counts: NDArray[np.int64], strength: float) -> tuple[float, ...]:
    """(C) what is added to log-probabilities so that rare classes are named more often; empty where that is nothing.

    Logit adjustment: minus `strength` times the logarithm of the class frequency, and 0 for the largest class.

    Args:
        counts: (C) images of each class that were trained on; a class without any counts as half an image.
        strength: >= 0; 1 turns probabilities under these frequencies into those under equal ones.
    """
    logs = np.log(np.maximum(counts, 0.5))
    return tuple((strength * (logs.max() - logs)).tolist()) if strength else ()


def _shifted(logits: Floats) -> Floats:
    values = np.asarray(logits, dtype=np.float64)
    if np.isnan(values).any() or np.isposinf(values).any():
        raise ValueError("logits must not hold NaN or +inf")
    if values.size == 0:
        return values
    best = values.max(axis=1, keepdims=True)
    if np.isneginf(best).any():
        raise ValueError("a row of logits holds nothing but -inf")
    return np.asarray(np.maximum(values - best, _LOWEST))


def _undetermined(shifted: Floats, labels: NDArray[np.int64]) -> bool:
    if shifted.size == 0 or shifted.shape[1] < 2 or not shifted.any():
        return True
    own = shifted[np.arange(len(labels)), labels]
    return bool((own == 0).all())


def _loss(shifted: Floats, labels: NDArray[np.int64], temperature: float) -> float:
    scaled = shifted / temperature
    own = scaled[np.arange(len(labels)), labels]
    return float(np.mean(np.log(np.exp(scaled).sum(axis=1)) - own))
