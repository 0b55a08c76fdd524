"""Learning-rate schedules: pure functions from the share of steps done to a factor on the peak rate."""

from __future__ import annotations

import math
from collections.abc import Callable

#: The share of the steps over which a trapezoid cools down.
_COOL_DOWN = 0.25


def _cosine(progress: float) -> float:
    return 0.5 * (1 + math.cos(math.pi * progress))


def _linear(progress: float) -> float:
    return 1 - progress


def _constant(_progress: float) -> float:
    return 1.0


def _with_warmup(decay: Callable[[float], float]) -> Callable[[float, float], float]:
    def factor(done: float, warmup: float) -> float:
        if done < warmup:
            return done / warmup
        return decay((done - warmup) / (1 - warmup))

    return factor


def _one_cycle(done: float, warmup: float) -> float:
    """Cosine up from 1/25, down to 1/10,000 (Smith and Topin 2018); peak at 30 % without a warm-up."""
    peak = warmup or 0.3
    if done < peak:
        return 1 / 25 + (1 - 1 / 25) * (1 - _cosine(done / peak))
    return 1e-4 + (1 - 1e-4) * _cosine((done - peak) / (1 - peak))


def _trapezoid(done: float, warmup: float) -> float:
    """Warm up, stay, cool down linearly (Haegele et al. 2024)."""
    if done < warmup:
        return done / warmup
    return min(1.0, (1 - done) / min(_COOL_DOWN, 1 - warmup))


#: name -> (share of steps done in [0, 1], share of steps that warm up in [0, 1)) -> factor in [0, 1].
SCHEDULES: dict[str, Callable[[float, float], float]] = {
    "cosine": _with_warmup(_cosine),
    "linear": _with_warmup(_linear),
    "constant": _with_warmup(_constant),
    "one_cycle": _one_cycle,
    "trapezoid": _trapezoid,
}
