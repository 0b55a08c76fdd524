"""The Pareto front."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from automl_vision.search.front import KEPT_FORMS, Point, best_of_forms, pareto_front
from automl_vision.search.trial import Trial
from automl_vision.training.recipe import Recipe

few = st.integers(0, 3).map(float)
POINTS = st.lists(st.tuples(few, few, few), max_size=12).map(
    lambda rows: [Point(number, *row) for number, row in enumerate(rows)]
)


def better(a: Point, b: Point) -> bool:
    """Written without the code under test."""
    as_good = a.score >= b.score and a.latency_ms <= b.latency_ms and a.size_mb <= b.size_mb
    return as_good and (a.score, a.latency_ms, a.size_mb) != (b.score, b.latency_ms, b.size_mb)


@given(POINTS)
def test_nothing_beats_what_is_on_the_front_and_something_beats_what_is_not(points: list[Point]) -> None:
    front = pareto_front(points)
    assert not [(a, b) for a in points for b in front if better(a, b)]
    values = [(each.score, each.latency_ms, each.size_mb) for each in front]
    assert len(set(values)) == len(values)  # of equals one
    for point in points:
        if point not in front:
            assert any(better(a, point) or (a.trial < point.trial and not better(point, a)) for a in front)
    assert [each.latency_ms for each in front] == sorted(each.latency_ms for each in front)
    assert bool(front) == bool(points)


@given(POINTS)
def test_the_front_does_not_depend_on_the_order(points: list[Point]) -> None:
    assert pareto_front(points) == pareto_front(points[::-1])


def trial(number: int, backbone: str = "net_a", side: int = 96, score: float | None = 0.5, loss: float = 1.0) -> Trial:
    recipe = Recipe("finetune", backbone, side)
    return Trial(number, recipe, {}, "portfolio", state="complete", score=score, loss=loss)


def test_each_network_is_represented_by_its_best_trial() -> None:
    trials = [
        trial(0, score=0.7), trial(1, score=0.9), trial(2, score=0.9, loss=0.5), trial(3, side=64, score=0.6),
        trial(4, "net_b", score=0.8), trial(5, "net_c", score=None),
    ]  # fmt: skip
    assert [each.number for each in best_of_forms(trials)] == [2, 4, 3]
    many = [trial(k, f"net_{k}", score=k / 100) for k in range(KEPT_FORMS + 3)]
    assert [each.number for each in best_of_forms(many)] == list(range(KEPT_FORMS + 2, 2, -1))
