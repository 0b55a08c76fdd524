"""Does the expected calibration error fall when a temperature is fitted on validation?

    python benchmarks/calibration_error.py

Scores are drawn whose softmax is the true probability of each class, and then stretched: a factor of 2 is an
overconfident model, .5 a hesitant one, 1 a calibrated one. The temperature is fitted on validation images and judged on
other test images, 200 draws of each setting. With 120 images the error that is measured is mostly the noise of its
bins: a calibrated model has about as much of it.
"""

from __future__ import annotations

import argparse

import numpy as np
from numpy.typing import NDArray

from automl_vision.calibration import apply_temperature, fit_temperature
from automl_vision.metrics import METRICS

CLASSES, SPREAD = 10, 2.0
SETTINGS = [(stretch, n) for stretch in (0.5, 1.0, 2.0) for n in (120, 2000)]


def drawn(n: int, stretch: float, rng: np.random.Generator) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Scores (n, C) of a model that stretches the true ones, and labels (n)."""
    scores = SPREAD * rng.normal(size=(n, CLASSES))
    chances = apply_temperature(scores, 1.0)
    labels = (rng.random((n, 1)) > chances.cumsum(axis=1)).sum(axis=1).clip(0, CLASSES - 1)
    return stretch * scores, labels.astype(np.int64)


def figures(n: int, stretch: float, rng: np.random.Generator) -> tuple[float, float]:
    """ECE on n test images before and after a temperature from n validation images."""
    scores, labels = drawn(n, stretch, rng)
    temperature = fit_temperature(scores, labels)
    scores, labels = drawn(n, stretch, rng)
    before, after = (METRICS["ece"].function(labels, apply_temperature(scores, by)) for by in (1.0, temperature))
    return float(before or 0.0), float(after or 0.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=200)
    draws = parser.parse_args().draws
    print("| stretched by | images | ECE before | after | fell in |")
    print("|---|---|---|---|---|")
    for stretch, n in SETTINGS:
        rng = np.random.default_rng(0)
        found = np.array([figures(n, stretch, rng) for _ in range(draws)])
        before, after = found.mean(axis=0)
        fell = (found[:, 1] < found[:, 0]).mean()
        print(f"| {stretch:g} | {n:,} | {before:.3f} | {after:.3f} | {fell:.0%} |", flush=True)


if __name__ == "__main__":
    main()
