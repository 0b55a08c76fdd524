"""A conditional space as a flat one, whose dimensions exist at every point.

Gaussian processes and CMA-ES know no conditions: Optuna's falls back to chance, without a word, for every dimension
that one trial of the history lacks. So dimensions that stand for the same field of a recipe (the learning rate of
AdamW and that of SGD) share one coordinate, the share of the way through their own range. A coordinate that means
nothing at a point rests at `UNUSED` there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from automl_vision.search.space import Choice, Dimension, Range, Space

#: Where a coordinate rests that means nothing at a point.
UNUSED = 0.5


@dataclass(frozen=True)
class FlatSpace:
    """The flat view of a space; `point(flatten(p)) == p` up to the rounding of numbers.

    Attributes:
        space: what it is a view of.
    """

    space: Space

    @property
    def coordinates(self) -> tuple[str, ...]:
        """Names of the numbers, each in [0, 1], in the order of the space."""
        return tuple(dict.fromkeys(_coordinate(each) for each in self.space.dimensions if isinstance(each, Range)))

    @property
    def choices(self) -> tuple[Choice, ...]:
        """The choices; where the condition of one is not met, it has its first option."""
        return tuple(each for each in self.space.dimensions if isinstance(each, Choice))

    def flatten(self, point: Mapping[str, Any]) -> dict[str, Any]:
        """A point of the space with a value for every coordinate and every choice."""
        flat: dict[str, Any] = dict.fromkeys(self.coordinates, UNUSED)
        flat |= {choice.name: choice.options[0] for choice in self.choices}
        return flat | self.meant(point)

    def meant(self, point: Mapping[str, Any]) -> dict[str, Any]:
        """Only those coordinates and choices that mean something at the point."""
        active = self.space.active(point)
        return {_coordinate(active[name]): _share(active[name], value) for name, value in point.items()}

    def point(self, flat: Mapping[str, Any]) -> dict[str, Any]:
        """The point of the space that a flat one stands for."""
        return self.space.suggest(lambda dimension: _value(dimension, flat[_coordinate(dimension)]))


def _coordinate(dimension: Dimension) -> str:
    return dimension.name if isinstance(dimension, Choice) else dimension.sets or dimension.name


def _share(dimension: Dimension, value: Any) -> Any:
    if isinstance(dimension, Choice):
        return value
    low, high, value = (math.log(x) if dimension.log else x for x in (dimension.low, dimension.high, value))
    return min(max((value - low) / (high - low), 0.0), 1.0) if high > low else UNUSED


def _value(dimension: Dimension, share: Any) -> Any:
    if isinstance(dimension, Choice):
        return share
    if dimension.log:
        value = math.exp(math.log(dimension.low) + share * math.log(dimension.high / dimension.low))
    else:
        value = dimension.low + share * (dimension.high - dimension.low)
    return min(max(value, dimension.low), dimension.high)  # rounding may lead out
