"""The Pareto front: models that no other one beats in one respect without losing in another."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from automl_vision.search.trial import Trial

#: Trials whose weights stay on disk during a search because they are the best of their backbone, side and head; it is
#: known only afterwards which of them are on the front.
KEPT_FORMS = 8


@dataclass(frozen=True)
class Point:
    """One model.

    Attributes:
        trial: its number.
        score: on validation; more is better.
        latency_ms: of one image; less is better.
        size_mb: of its file; less is better.
    """

    trial: int
    score: float
    latency_ms: float
    size_mb: float

    def dominates(self, other: Point) -> bool:
        """Whether it is as good in every respect and better in one; of equals, the older trial."""
        own, others = (self._badness, other._badness)
        return all(a <= b for a, b in zip(own, others, strict=True)) and (own, self.trial) < (others, other.trial)

    @property
    def _badness(self) -> tuple[float, float, float]:
        return -self.score, self.latency_ms, self.size_mb


def pareto_front(points: Sequence[Point]) -> list[Point]:
    """The points that no other one dominates, fastest first."""
    kept = [point for point in points if not any(other.dominates(point) for other in points)]
    return sorted(kept, key=lambda point: (point.latency_ms, point.trial))


def best_of_forms(trials: Iterable[Trial], most: int = KEPT_FORMS) -> list[Trial]:
    """The best scored trial of every backbone, side and head, best first: what can be on the front at all."""
    best: dict[tuple[str, int, str], Trial] = {}
    for trial in sorted(trials, key=lambda trial: trial.number):
        if trial.score is None:
            continue
        recipe = trial.recipe
        form = recipe.backbone, recipe.resolution, recipe.head
        if form not in best or trial.rank > best[form].rank:
            best[form] = trial
    return sorted(best.values(), key=lambda trial: (*trial.rank, -trial.number), reverse=True)[:most]
