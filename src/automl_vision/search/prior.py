"""What a recipe is expected to be worth before it was tried: the effects of its traits, added up.

`recipe_prior.json` holds the effects and `fitting/recipe_prior.py` fits them, to recorded fine-tunes of 24 networks
(Quick-Tune, Arango et al., ICLR 2024). An effect is a shrunken mean: what is rare in the records moves little, and what
is not in them (another backbone, another optimizer, a trait that nobody recorded) adds nothing.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import resources
from typing import Any, Protocol

import numpy as np

from automl_vision.training.recipe import Recipe

Trait = float | str
Traits = Mapping[str, Trait]
#: The effect counts only where every named trait has one of these values.
Condition = Mapping[str, tuple[str, ...]]

#: Learning rates are told at this batch size: what goes with larger steps goes with larger batches.
REFERENCE_BATCH = 32
#: Optimizers whose step does not grow with the gradient; their learning rate goes with the root of the batch.
ADAPTIVE = ("adam", "adamp", "adamw")


class Effect(Protocol):
    """What one trait adds to the expectation."""

    def __call__(self, traits: Traits) -> float: ...

    def to_dict(self) -> dict[str, Any]: ...


@dataclass(frozen=True)
class Levels:
    """The effect of a name: one number per known name, 0 for any other.

    Attributes:
        trait: whose effect it is.
        effects: name -> what it adds.
        when: where it counts.
    """

    trait: str
    effects: Mapping[str, float]
    when: Condition = field(default_factory=dict)

    def __call__(self, traits: Traits) -> float:
        return self.effects.get(str(traits.get(self.trait)), 0.0) if _counts(self.when, traits) else 0.0

    def to_dict(self) -> dict[str, Any]:
        return {"kind": "levels", "trait": self.trait, "when": _plain(self.when), "effects": dict(self.effects)}


@dataclass(frozen=True)
class Curve:
    """The effect of a number: straight lines between knots, and no further change beyond the outer ones.

    Attributes:
        trait: whose effect it is; 0 where the recipe has no such trait.
        knots: ascending.
        effects: what is added at each knot.
        log: the lines are straight in the logarithm of the number.
        when: where it counts.
    """

    trait: str
    knots: tuple[float, ...]
    effects: tuple[float, ...]
    log: bool = False
    when: Condition = field(default_factory=dict)

    def __call__(self, traits: Traits) -> float:
        value = traits.get(self.trait)
        if not isinstance(value, int | float) or not _counts(self.when, traits):
            return 0.0
        return float(np.interp(*self.scaled(value), self.effects))

    def scaled(self, value: float) -> tuple[float, list[float]]:
        """`value` and the knots where the lines are straight; below the first knot all numbers are alike."""
        if not self.log:
            return value, list(self.knots)
        return math.log(max(value, self.knots[0])), [math.log(knot) for knot in self.knots]

    def to_dict(self) -> dict[str, Any]:
        effects = {"knots": list(self.knots), "effects": list(self.effects)}
        return {"kind": "curve", "trait": self.trait, "log": self.log, "when": _plain(self.when), **effects}


@dataclass(frozen=True)
class Prior:
    """An additive model of recipes.

    Attributes:
        fitted: what it was fitted with.
        sets: names of the data sets that it was fitted to.
        base: what is expected of a recipe of which nothing is known.
        effects: what is added.
    """

    fitted: str
    sets: tuple[str, ...]
    base: float
    effects: tuple[Effect, ...]

    def __call__(self, traits: Traits) -> float:
        """The expectation for a recipe with these traits; a trait that is missing adds nothing."""
        return self.base + math.fsum(effect(traits) for effect in self.effects)

    def to_dict(self) -> dict[str, Any]:
        """Plain types, ready for JSON."""
        effects = [effect.to_dict() for effect in self.effects]
        return {"fitted": self.fitted, "sets": list(self.sets), "base": self.base, "effects": effects}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Prior:
        """The prior that `to_dict` wrote.

        Raises:
            KeyError: an effect is of no known kind, or a value is missing.
        """
        effects = tuple(_KINDS[each["kind"]](each) for each in values["effects"])
        return cls(values["fitted"], tuple(values["sets"]), values["base"], effects)


@lru_cache(maxsize=1)
def recipe_prior() -> Prior:
    """The prior that comes with this package: the share of recipes that a recipe is expected to beat."""
    file = resources.files(__package__).joinpath("recipe_prior.json")
    return Prior.from_dict(json.loads(file.read_text("utf-8")))


def rate_at_reference(rate: float, batch_size: float, optimizer: str) -> float:
    """The learning rate that does at a batch of 32 what `rate` does at `batch_size`.

    It grows with the batch for SGD (Goyal et al. 2017) and with its root for adaptive optimizers (Malladi et al. 2022).
    """
    return rate / _rate_factor(batch_size, optimizer)


def rate_at_batch(rate: float, batch_size: float, optimizer: str) -> float:
    """The learning rate that does at `batch_size` what `rate` does at a batch of 32."""
    return rate * _rate_factor(batch_size, optimizer)


def _rate_factor(batch_size: float, optimizer: str) -> float:
    factor = batch_size / REFERENCE_BATCH
    return math.sqrt(factor) if optimizer in ADAPTIVE else factor


def traits_of(recipe: Recipe, imagenet_top1: float | None) -> dict[str, Trait]:
    """What the prior may know a recipe by.

    Args:
        recipe: a fine-tune.
        imagenet_top1: of its backbone in percent; None where it is not known.
    """
    known: dict[str, Trait] = {} if imagenet_top1 is None else {"imagenet_top1": imagenet_top1}
    return {
        **known,
        "backbone": recipe.backbone,
        "optimizer": recipe.optimizer,
        "learning_rate": rate_at_reference(recipe.learning_rate, recipe.effective_batch, recipe.optimizer),
        "weight_decay": recipe.weight_decay,
    }


def _levels(values: Mapping[str, Any]) -> Levels:
    return Levels(values["trait"], dict(values["effects"]), _condition(values["when"]))


def _curve(values: Mapping[str, Any]) -> Curve:
    knots, effects = tuple(values["knots"]), tuple(values["effects"])
    return Curve(values["trait"], knots, effects, values["log"], _condition(values["when"]))


_KINDS: dict[str, Callable[[Mapping[str, Any]], Effect]] = {"levels": _levels, "curve": _curve}


def _condition(values: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    return {trait: tuple(names) for trait, names in values.items()}


def _plain(condition: Condition) -> dict[str, list[str]]:
    return {trait: list(names) for trait, names in condition.items()}


def _counts(condition: Condition, traits: Traits) -> bool:
    return all(traits.get(trait) in names for trait, names in condition.items())
