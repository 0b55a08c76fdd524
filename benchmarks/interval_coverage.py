"""How often the 95 % intervals of a report hold the truth.

    python benchmarks/interval_coverage.py                # 1,000 draws of every setting, about five minutes
    python benchmarks/interval_coverage.py --draws 200

Each draw is a new test set from a known population: labels from a prior, predictions from a confusion
matrix, so the true accuracy and macro-F1 are known. With groups, the images of one group share their label
and prediction half of the time. A row is printed per setting; a 95 % interval should hold the truth in 93
to 97 % of the draws.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from automl_vision.report.intervals import Sample, class_intervals, metric_intervals

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Population:
    """Classes, accuracy of each, and how skewed the class sizes are."""

    classes: int
    accuracy: float
    skew: float
    per_group: int = 1

    @property
    def prior(self) -> Floats:
        sizes = np.exp(-self.skew * np.arange(self.classes) / max(1, self.classes - 1))
        return np.asarray(sizes / sizes.sum())

    @property
    def confusion(self) -> Floats:
        """(C, C) probability of each prediction given the truth; the rarest class is the hardest."""
        rng = np.random.default_rng(7)
        right = np.clip(self.accuracy + 0.05 * np.linspace(1, -1, self.classes), 0.02, 0.99)
        matrix = np.zeros((self.classes, self.classes))
        for row, share in enumerate(right):
            others = np.arange(self.classes) != row
            matrix[row, others] = (1 - share) * rng.dirichlet(np.ones(self.classes - 1))
            matrix[row, row] = share
        return matrix

    @property
    def truth(self) -> dict[str, float]:
        joint = self.prior[:, None] * self.confusion
        f1 = 2 * np.diag(joint) / (joint.sum(axis=0) + joint.sum(axis=1))
        return {
            "accuracy": float(np.trace(joint)),
            "macro_f1": float(f1.mean()),
            "f1 of the rarest": float(f1[-1]),
        }


def draw(population: Population, n: int, rng: np.random.Generator) -> Sample:
    """A test set of n images."""
    groups = np.arange(n) // population.per_group
    labels = rng.choice(population.classes, size=groups[-1] + 1, p=population.prior)[groups]
    shared = rng.random(n) < 0.5
    luck = np.where(shared & (population.per_group > 1), rng.random(groups[-1] + 1)[groups], rng.random(n))
    predicted = (luck[:, None] > population.confusion.cumsum(axis=1)[labels]).sum(axis=1)
    predicted = predicted.clip(0, population.classes - 1)
    return Sample(labels, np.eye(population.classes)[predicted], groups)


def coverage(population: Population, n: int, draws: int, resamples: int) -> dict[str, tuple[float, float]]:
    """Share of draws whose interval holds the truth, and the mean width, by figure."""
    rng = np.random.default_rng(0)
    truth = population.truth
    held = dict.fromkeys(truth, 0)
    width = dict.fromkeys(truth, 0.0)
    for number in range(draws):
        sample = draw(population, n, rng)
        found = metric_intervals(["accuracy", "macro_f1"], sample, resamples=resamples, seed=number)
        low, high = class_intervals(sample, resamples=resamples, seed=number)["f1"]
        found["f1 of the rarest"] = (float(low[-1]), float(high[-1]))
        for name, (lower, upper) in found.items():
            held[name] += lower <= truth[name] <= upper
            width[name] += upper - lower
    return {name: (held[name] / draws, width[name] / draws) for name in truth}


SETTINGS = [
    Population(10, 0.85, 0.0),
    Population(10, 0.85, 2.0),
    Population(10, 0.94, 0.0),
    Population(2, 0.90, 0.0),
    Population(3, 0.70, 1.0),
    Population(37, 0.80, 0.0),
    Population(100, 0.70, 0.0),
    Population(10, 0.85, 0.0, per_group=2),
    Population(2, 0.90, 0.0, per_group=3),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--resamples", type=int, default=500)
    options = parser.parse_args()
    print("| classes | accuracy | skew | per group | n | accuracy | macro-F1 | F1 of the rarest |")
    print("|---|---|---|---|---|---|---|---|")
    for population in SETTINGS:
        for n in (120, 500):
            found = coverage(population, n, options.draws, options.resamples)
            cells = " | ".join(f"{share:.1%} (width {width:.3f})" for share, width in found.values())
            head = (population.classes, population.accuracy, population.skew, population.per_group, n)
            print("| " + " | ".join(f"{each:g}" for each in head) + f" | {cells} |", flush=True)


if __name__ == "__main__":
    main()
