"""One point of the search space: everything that decides how a candidate is trained."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Kind = Literal["probe", "head", "finetune"]


@dataclass(frozen=True)
class Recipe:
    """How one candidate is trained. Plain values only, so that a recipe is a row of JSON.

    Attributes:
        kind: "probe" (a linear head on frozen features), "head" (another head on the same features) or "finetune".
        backbone: a name of `models.backbones.BACKBONES`, or any other timm name.
        resolution: side of the square input in pixels.
        pretrained: start from pretrained weights.
        epochs: the horizon of the schedule; 0 for a probe.
        batch_size: images at once; where memory is too small for them, their gradients are gathered in smaller parts.
        gradient_accumulation: batches per optimizer step; their gradients are averaged.
        optimizer: a name of `training.optimizers.OPTIMIZERS`.
        learning_rate: peak learning rate, > 0.
        weight_decay: >= 0; not applied to biases and norm layers.
        momentum: SGD momentum or Adam beta1, in [0, 1).
        layer_decay: factor on the learning rate per layer towards the input, in (0, 1].
        schedule: a name of `training.schedule.SCHEDULES`.
        warmup_fraction: share of all steps with a rising learning rate, in [0, 1).
        augment: a name of `training.augment.AUGMENTATIONS`.
        horizontal_flip: half of the images are mirrored left-right, wherever `augment` is not "none".
        vertical_flip: the same upside-down.
        quarter_turns: images are turned by 0, 90, 180 or 270 degrees, wherever `augment` is not "none".
        erasing: share of the images in which a rectangle is erased, in [0, 1].
        mix: a name of `training.mix.MIXES`.
        loss: a name of `training.losses.LOSSES`.
        sampling: a name of `training.sampling.SAMPLINGS`.
        label_smoothing: in [0, 1).
        ema: average the weights over time and validate the average.
        clip_norm: largest gradient norm; 0 turns clipping off.
        freeze_norm: keep the running statistics of batch norm as they were pretrained.
        freeze_stages: how many of the four stages of the backbone stay as they were pretrained, counted from the input.
        head_from_probe: start the head from the one that was fitted to frozen features of the same backbone.
        head: a description of `models.heads`.
        drop_path: stochastic depth rate, in [0, 1).
        patience: epochs without an improvement of at least `min_improvement` before stopping; 0 turns it off.
        min_improvement: smallest gain of the objective that counts, >= 0.
        seed: order, augmentation and initial weights depend on it and nothing else.
    """

    kind: Kind
    backbone: str
    resolution: int
    pretrained: bool = True
    epochs: int = 0
    batch_size: int = 32
    gradient_accumulation: int = 1
    optimizer: str = "adamw"
    learning_rate: float = 2e-4
    weight_decay: float = 1e-4
    momentum: float = 0.9
    layer_decay: float = 0.75
    schedule: str = "cosine"
    warmup_fraction: float = 0.08
    augment: str = "light"
    horizontal_flip: bool = True
    vertical_flip: bool = False
    quarter_turns: bool = False
    erasing: float = 0.0
    mix: str = "none"
    loss: str = "cross_entropy"
    sampling: str = "shuffled"
    label_smoothing: float = 0.1
    ema: bool = True
    clip_norm: float = 5.0
    freeze_norm: bool = True
    freeze_stages: int = 0
    head_from_probe: bool = True
    head: str = "linear"
    drop_path: float = 0.0
    patience: int = 0
    min_improvement: float = 0.0
    seed: int = 0

    @property
    def effective_batch(self) -> int:
        """Images per optimizer step."""
        return self.batch_size * self.gradient_accumulation

    def to_dict(self) -> dict[str, Any]:
        """Plain types, ready for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Recipe:
        """The recipe that `to_dict` wrote, also an earlier version's.

        Raises:
            TypeError: a key is not known, or a value is of another type or not finite.
        """
        recipe = typed(cls(**values))
        if recipe.kind not in get_args(Kind):
            raise TypeError(f"unknown kind, got {recipe.kind!r:.80}")
        return recipe


_Told = TypeVar("_Told", bound="DataclassInstance")
#: How a field is declared -> what a value of JSON has to be for it; other fields are not looked at.
_DECLARED: Mapping[str, tuple[type, ...]] = MappingProxyType(
    {
        "int": (int,),
        "float": (int, float),
        "float | None": (int, float, type(None)),
        "str": (str,),
        "bool": (bool,),
        "Mapping[str, Any]": (dict,),
    }
)


def typed(value: _Told) -> _Told:
    """The value, if its fields hold what they are declared as: a file may come from anybody.

    Raises:
        TypeError: one does not.
    """
    for each in dataclasses.fields(value):
        require_declared(each.name, str(each.type), getattr(value, each.name))
    return value


def require_declared(name: str, declared: str, found: object) -> None:
    """Refuse what is not of the type that a field is declared as, and numbers that nothing can be calculated with.

    Raises:
        TypeError: with the name and what was found.
    """
    kinds = _DECLARED.get(declared)
    if kinds is None:
        return
    is_of_kind = isinstance(found, kinds) and (bool in kinds or not isinstance(found, bool))  # True is no number
    if not is_of_kind or not _is_finite(found):
        raise TypeError(f"{name} must be {declared}, got {_shown(found)}")


def _is_finite(value: object) -> bool:
    """Whether it fits into a float, if it is a number: JSON has numbers of any length."""
    if not isinstance(value, int | float):
        return True
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def _shown(value: object) -> str:
    return "a number that is too large" if isinstance(value, int) else f"{value!r:.80}"
