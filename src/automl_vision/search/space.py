"""The search space: a table of dimensions, each with the condition under which it exists."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from automl_vision.models.heads import LINEAR
from automl_vision.models.symmetry import UNTESTED
from automl_vision.training.recipe import Recipe

Condition = Mapping[str, tuple[Any, ...]]

#: Mixing pairs needs this many training images, and this many epochs to pay for learning slower.
MIX_IMAGES, MIX_EPOCHS = 2_000, 15
#: Classes are uneven where the largest has more than this many times the images of the smallest.
UNEVEN = 5.0
#: Images per pass, as shares of those that learning rates are told for, the usual one first. More than the usual number
#: are offered where an epoch still has so many steps.
BATCH_FACTORS = (1.0, 0.5, 2.0, 4.0)
STEPS_PER_EPOCH = 20
#: Augmentations that flips, turns and erasing come with.
_VARIED = ("light", "trivial", "randaugment", "geometric")


@dataclass(frozen=True)
class Choice:
    """One of several values.

    Attributes:
        name: unique in the space.
        options: plain values.
        sets: the field of `Recipe` that it sets; the name where empty.
        when: the dimension exists only where every named dimension has one of these values.
    """

    name: str
    options: tuple[Any, ...]
    sets: str = ""
    when: Condition = field(default_factory=dict)


@dataclass(frozen=True)
class Range:
    """A number between two bounds, both included; `log` searches its logarithm."""

    name: str
    low: float
    high: float
    log: bool = False
    sets: str = ""
    when: Condition = field(default_factory=dict)


Dimension = Choice | Range


class Suggest(Protocol):
    """Who answers with a value for a dimension: an Optuna trial, or a table of known values."""

    def __call__(self, dimension: Dimension) -> Any: ...


@dataclass(frozen=True)
class Space:
    """Dimensions in the order in which they are asked; conditions refer to earlier ones.

    Attributes:
        dimensions: what is searched.
        fixed: fields of `Recipe` that every candidate has in common; they win over dimensions.
    """

    dimensions: tuple[Dimension, ...]
    fixed: Mapping[str, Any]

    def suggest(self, ask: Suggest) -> dict[str, Any]:
        """One point: every dimension that exists under the values before it."""
        point: dict[str, Any] = {}
        for dimension in self.dimensions:
            if _exists(dimension, point):
                point[dimension.name] = ask(dimension)
        return point

    def active(self, point: Mapping[str, Any]) -> dict[str, Dimension]:
        """The dimensions that exist at `point`."""
        return {each.name: each for each in self.dimensions if _exists(each, point)}

    def contains(self, point: Mapping[str, Any]) -> bool:
        """Whether `point` names exactly the dimensions that exist there, each inside its range."""
        active = self.active(point)
        return set(active) == set(point) and all(_inside(active[name], value) for name, value in point.items())

    def complete(self, partial: Mapping[str, Any]) -> dict[str, Any]:
        """`partial` made a point of the space: foreign names dropped, values moved inside, gaps filled."""
        return self.suggest(lambda dimension: _nearest(dimension, partial.get(dimension.name)))

    def recipe(self, point: Mapping[str, Any], **changes: Any) -> Recipe:
        """The recipe that a point stands for."""
        active = self.active(point)
        chosen = {active[name].sets or name: value for name, value in point.items()}
        return Recipe(**{"kind": "finetune", **chosen, **self.fixed, **changes})


def fine_tuning_space(
    *,
    backbones: tuple[str, ...],
    resolutions: tuple[int, ...],
    pretrained: bool,
    n_train: int,
    fixed: Mapping[str, Any],
    heads: Mapping[str, str] | None = None,
    horizon: int = 0,
    imbalance: float = 1.0,
    symmetries: Mapping[str, bool] = UNTESTED,
    stochastic_depth: tuple[str, ...] = (),
) -> Space:
    """The space of fine-tunes; ranges for a batch of 32. docs/search.md lists it, with the source of each range.

    Pretrained networks want small steps, smaller towards the input, and on few images the statistics of their batch
    norms as they are; networks from scratch want none of it. Dimensions that set a field of `fixed` are left out.

    Args:
        backbones: names to choose from.
        resolutions: sides of the input to choose from.
        pretrained: whether training starts from pretrained weights.
        n_train: images trained on.
        fixed: fields of `Recipe` that the user pinned.
        heads: the head that was adopted on frozen features, by backbone; fine-tunes have it or the linear one.
        horizon: epochs of a full schedule.
        imbalance: training images of the largest class over those of the smallest.
        symmetries: flips and turns (fields of `Recipe`) that keep the class of an image.
        stochastic_depth: those of `backbones` that have it.
    """
    step = (2e-5, 2e-3) if pretrained else (1e-4, 1e-2)
    adamw: Condition = {"optimizer": ("adamw", "adam")}  # Adam only where it is pinned
    sgd: Condition = {"optimizer": ("sgd",)}
    optimizers = (fixed["optimizer"],) if fixed.get("optimizer") else ("adamw", "sgd")
    dimensions: list[Dimension] = [
        Choice("backbone", backbones),
        Choice("resolution", resolutions),
        Choice("optimizer", optimizers),
        Range("learning_rate_adamw", *step, log=True, sets="learning_rate", when=adamw),
        Range("learning_rate_sgd", 5e-4, 1e-1, log=True, sets="learning_rate", when=sgd),
        Range("weight_decay_adamw", 1e-6, 2e-2, log=True, sets="weight_decay", when=adamw),
        Range("weight_decay_sgd", 1e-6, 1e-3, log=True, sets="weight_decay", when=sgd),
        Range("momentum", 0.85, 0.98, when=sgd),
        Range("label_smoothing", 0.0, 0.15),
        Choice("augment", ("none", *_VARIED)),
        *_image_changes(fixed, symmetries),
        Choice("batch_size", batch_sizes(n_train, fixed.get("gradient_accumulation", 1))),
    ]
    if n_train >= MIX_IMAGES and horizon >= MIX_EPOCHS:
        dimensions.append(Choice("mix", ("none", "mixup", "cutmix")))
    if imbalance > UNEVEN:
        dimensions.append(Choice("loss", ("cross_entropy", "logit_adjusted", "weighted")))
        dimensions.append(Choice("sampling", ("shuffled", "balanced")))
    if stochastic_depth:
        dimensions.append(Choice("drop_path", (0.0, 0.1), when={"backbone": stochastic_depth}))
    dimensions += [
        Choice(f"head_{name}", (head, LINEAR), sets="head", when={"backbone": (name,)})
        for name, head in (heads or {}).items()
    ]
    rules: dict[str, Any] = {"horizontal_flip": symmetries["horizontal_flip"]}
    if pretrained:
        dimensions += [Range("layer_decay", 0.55, 1.0), Choice("freeze_stages", (0, 1, 2, 3))]
    else:
        rules["layer_decay"] = 1.0
    if pretrained and n_train < 20_000:
        dimensions.append(Choice("freeze_norm", (True, False)))
    else:
        rules["freeze_norm"] = False  # a network from scratch has no statistics worth keeping
    kept = [each for each in dimensions if (each.sets or each.name) not in fixed or each.name == "optimizer"]
    return Space(tuple(kept), {**rules, **fixed})


def batch_sizes(n_train: int, accumulation: int = 1) -> tuple[int, ...]:
    """Images per pass to choose from, the usual number first.

    Args:
        n_train: images trained on; larger batches leave `STEPS_PER_EPOCH` optimizer steps in an epoch.
        accumulation: passes per optimizer step.
    """
    sizes = [int(factor * Recipe.batch_size) for factor in BATCH_FACTORS]
    most = n_train / (STEPS_PER_EPOCH * accumulation)
    return tuple(size for size in sizes if size <= max(most, Recipe.batch_size))


def _image_changes(fixed: Mapping[str, Any], symmetries: Mapping[str, bool]) -> list[Dimension]:
    """What may be done to images besides the augmentation; nothing where the user wants none."""
    if fixed.get("augment") == "none":
        return []
    varied: Condition = {} if "augment" in fixed else {"augment": _VARIED}
    turns = [name for name in ("vertical_flip", "quarter_turns") if symmetries[name]]
    return [
        Choice("erasing", (0.0, 0.25), when=varied),
        *(Choice(name, (False, True), when=varied) for name in turns),
    ]


def _exists(dimension: Dimension, point: Mapping[str, Any]) -> bool:
    return all(point.get(name) in values for name, values in dimension.when.items())


def _inside(dimension: Dimension, value: Any) -> bool:
    if isinstance(dimension, Choice):
        return value in dimension.options
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and bool(dimension.low <= value <= dimension.high)


def _nearest(dimension: Dimension, value: Any) -> Any:
    if isinstance(dimension, Choice):
        return value if value in dimension.options else dimension.options[0]
    if value is None:
        return (dimension.low * dimension.high) ** 0.5 if dimension.log else (dimension.low + dimension.high) / 2
    return min(max(value, dimension.low), dimension.high)
