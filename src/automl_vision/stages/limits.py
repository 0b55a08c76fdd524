"""What the settings allow the shipped model to cost, and which of the planned networks can keep to it.

Parameters and file size follow from the architecture. Latency is measured, for seconds, before anything is decoded or
trained; `stages.costs` measures it again when the search is over.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from automl_vision.config import Settings
from automl_vision.data.preparation import Prepared
from automl_vision.errors import UsageError
from automl_vision.models.backbones import backbone, patch_size
from automl_vision.models.costs import (
    LIMIT_WORDS,
    Counted,
    Form,
    Limits,
    Timing,
    asking,
    count,
    excess_words,
    random_ensemble,
    time_in_turns,
)
from automl_vision.runtime import Runtime
from automl_vision.search.planner import RESOLUTIONS
from automl_vision.stages.context import RunContext
from automl_vision.training.recipe import Recipe

if TYPE_CHECKING:
    from automl_vision.stages.plan import Plan

#: Passes of one image that the first look at latency is the median of.
EARLY_PASSES = 15
#: What a digest and a hash of an image take in a model file.
BYTES_PER_IMAGE = 16
#: Side at which parameters are counted before sides are planned; they hardly depend on it.
_USUAL_SIDE = 224


def limits_of(settings: Settings) -> Limits:
    """The limits that were set."""
    wanted = settings.limits
    given = {"latency_ms": wanted.max_latency_ms, "size_mb": wanted.max_size_mb, "params_m": wanted.max_params_m}
    return Limits(**{name: value for name, value in given.items() if value is not None})


@dataclass(frozen=True)
class Room:
    """What a network has to fit into.

    Attributes:
        limits: of the whole model.
        num_classes: C.
        digests: bytes of the model file that are taken by digests of images.
    """

    limits: Limits
    num_classes: int
    digests: int = 0

    @classmethod
    def of(cls, settings: Settings, num_classes: int, images: int) -> Room:
        """For so many classes and images."""
        return cls(limits_of(settings), num_classes, BYTES_PER_IMAGE * images * settings.output.fingerprint)

    def counted(self, form: Form) -> Counted:
        """What is known of a network before it is measured, in a file with digests."""
        counted = count(form, self.num_classes)
        return replace(counted, file_bytes=counted.file_bytes + self.digests)

    def excess(self, form: Form, latency_ms: float | None = None) -> dict[str, tuple[float, float]]:
        """Name of a limit -> (what there is, what is allowed), of each that a network exceeds."""
        return self.limits.excess(self.counted(form), latency_ms) if self.limits.any else {}

    def takes(self, name: str) -> bool:
        """Whether a backbone has few enough parameters and bytes."""
        return not self.excess(Form(name, _USUAL_SIDE))

    def left_out(self, names: Iterable[str]) -> tuple[str, ...]:
        """What the user reads of backbones that have too many."""
        return _notes({Form(name, _USUAL_SIDE): self.excess(Form(name, _USUAL_SIDE)) for name in names})

    def refusal(self, names: Iterable[str]) -> UsageError:
        """The error where none of these backbones has few enough parameters and bytes."""
        return nothing_fits({Form(name, _USUAL_SIDE): self.excess(Form(name, _USUAL_SIDE)) for name in names})


def room_of(context: RunContext, prepared: Prepared) -> Room:
    """What the model has to fit into."""
    return Room.of(context.settings, len(prepared.manifest.class_names), len(prepared.manifest))


def form_of(recipe: Recipe) -> Form:
    """What the cost of a recipe's network depends on."""
    return Form(recipe.backbone, recipe.resolution, recipe.head)


def within_limits(plan: Plan, room: Room, runtime: Runtime, *, may_shrink: bool) -> tuple[Plan, tuple[str, ...]]:
    """The plan without what cannot keep to the limits, and what the user should know of that.

    Args:
        plan: what was going to be tried.
        room: what it has to fit into.
        runtime: where latency counts.
        may_shrink: whether sides below the planned ones may be tried where none of those is fast enough.

    Raises:
        UsageError: nothing fits; the message names what comes nearest.
    """
    planned = [Form(name, side) for name in plan.backbones for side in plan.resolutions]
    early = _early_latencies([form for form in planned if not room.excess(form)], room, runtime)
    excess = {form: room.excess(form, early.get(form)) for form in planned}
    for name in plan.backbones if may_shrink and room.limits.times else ():
        if all(excess[Form(name, side)] for side in plan.resolutions):
            smaller, timed = _largest_that_fits(name, min(plan.resolutions), room, runtime)
            excess, early = {**excess, **smaller}, {**early, **timed}
    fitting = [form for form in excess if not excess[form]]
    if not fitting:
        raise nothing_fits(excess)
    names = tuple(name for name in plan.backbones if any(form.backbone == name for form in fitting))
    sides = {name: tuple(form.resolution for form in fitting if form.backbone == name) for name in names}
    used = {side for each in sides.values() for side in each}
    known = dict.fromkeys((*plan.resolutions, *(form.resolution for form in excess)))
    changed = replace(
        plan,
        backbones=names,
        weights={name: source for name, source in plan.weights.items() if name in names},
        resolutions=tuple(side for side in known if side in used),
        sides=sides,
        latencies={(form.backbone, form.resolution): timing for form, timing in early.items() if form in fitting},
    )
    return changed, _notes({form: each for form, each in excess.items() if each})


def nothing_fits(excess: Mapping[Form, Mapping[str, tuple[float, float]]]) -> UsageError:
    """The error that names the network whose worst excess is least."""
    nearest = min(excess, key=lambda form: max(value / limit for value, limit in excess[form].values()))
    options = " and ".join(LIMIT_WORDS[name][0] for name in excess[nearest])
    return UsageError(
        "no network that could be trained keeps to the limits",
        value=f"the nearest is {nearest.backbone} at {nearest.resolution} px with {excess_words(excess[nearest])}",
        fix=f"raise {options}, or name smaller networks with --backbones or smaller inputs with --resolutions "
        "(automl-vision models lists what networks cost)",
    )


def _early_latencies(forms: Sequence[Form], room: Room, runtime: Runtime) -> dict[Form, float]:
    """Median milliseconds of one image, of each form; nothing where no limit needs it."""
    if not room.limits.times:
        return {}
    asks = {
        form: asking(random_ensemble([form], room.num_classes, runtime), 1, runtime.device)
        for form in forms
    }  # fmt: skip
    return {form: Timing.of(each).p50_ms for form, each in time_in_turns(asks, EARLY_PASSES).items()}


def _largest_that_fits(
    name: str, below: int, room: Room, runtime: Runtime
) -> tuple[dict[Form, dict[str, tuple[float, float]]], dict[Form, float]]:
    """Excess and latency of smaller sides, down to the first that is fast enough."""
    patch = patch_size(backbone(name))
    excess: dict[Form, dict[str, tuple[float, float]]] = {}
    early: dict[Form, float] = {}
    for side in (side for side in RESOLUTIONS if side < below and side % patch == 0):
        form = Form(name, side)
        early |= _early_latencies([form], room, runtime)
        excess[form] = room.excess(form, early[form])
        if not excess[form]:
            break
    return excess, early


def _notes(excess: Mapping[Form, Mapping[str, tuple[float, float]]]) -> tuple[str, ...]:
    if not excess:
        return ()
    listed = "; ".join(
        f"{form.backbone} at {form.resolution} px: {excess_words(each)}" for form, each in excess.items()
    )
    return (f"Not tried, for they do not keep to the limits: {listed}.",)
