"""Stage `plan`: what is going to be tried on these data, on this machine, within this budget; before decoding."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from statistics import median

from automl_vision import run_dir
from automl_vision.config import Settings
from automl_vision.data.decode import shorter_side
from automl_vision.data.manifest import Manifest, scattered_rows
from automl_vision.models.backbones import BACKBONES, backbone
from automl_vision.models.weights import WeightSource, find_weights, require_weights
from automl_vision.runtime import Runtime, make_runtime
from automl_vision.search.planner import (
    FROM_SCRATCH,
    POOLS,
    RESOLUTIONS,
    MachinePower,
    plan_backbones,
    plan_resolutions,
)
from automl_vision.stages.compare import compare_plan
from automl_vision.stages.context import RunContext
from automl_vision.stages.impact import impact_plan
from automl_vision.stages.limits import Room, within_limits

#: Headers that are read to learn how large the images are.
SIZE_SAMPLE = 64


@dataclass(frozen=True)
class Plan:
    """What is going to be tried.

    Attributes:
        backbones: in the order in which they are probed.
        weights: where the pretrained weights of each are; no entry for one that starts from random weights.
        resolutions: sides of the input in pixels, best first.
        notes: what the user should know.
        sides: backbone -> those of `resolutions` at which it keeps to the limits; no entry for all of them.
        latencies: (backbone, side) -> milliseconds of one image as they were first measured, where there is a limit.
    """

    backbones: tuple[str, ...]
    weights: Mapping[str, WeightSource]
    resolutions: tuple[int, ...]
    notes: tuple[str, ...] = ()
    sides: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    latencies: Mapping[tuple[str, int], float] = field(default_factory=dict)

    @property
    def pretrained(self) -> bool:
        """Whether training starts from pretrained weights."""
        return bool(self.weights)


def plan_run(context: RunContext, manifest: Manifest) -> tuple[Runtime, Plan]:
    """The machine, and what is worth trying on it. A resumed run keeps its plan.

    Raises:
        UsageError: an unknown device or backbone.
        WeightsError: none of the backbones that the user named has weights within reach.
    """
    machine = context.settings.machine
    runtime = make_runtime(machine.device, machine.precision, machine.threads)
    plan = _limited(context, make_plan(manifest, _as_planned(context), runtime), manifest, runtime)
    for text in plan.notes:
        context.note(text, warning=True)
    if context.settings.data.lineage == "full" and (most := compare_plan(context.clock.remaining)):
        context.note(f"After decoding, copies are sought by what the pictures show: {most}.")
    if context.settings.search.measure_impact:
        context.note(f"After the search, {impact_plan(context.clock.budget)} measure what a naive split would pretend.")
    context.run.add_about(
        plan={"backbones": list(plan.backbones), "resolutions": list(plan.resolutions)},
        limits={
            "sides": dict(plan.sides),
            "latencies": [[name, side, timed] for (name, side), timed in plan.latencies.items()],
        },
    )
    return runtime, plan


def _limited(context: RunContext, plan: Plan, manifest: Manifest, runtime: Runtime) -> Plan:
    """The plan as far as it keeps to the limits; a resumed run keeps what its first session found.

    Raises:
        UsageError: nothing keeps to them.
    """
    room = Room.of(context.settings, len(manifest.class_names), len(manifest))
    if not room.limits.any:
        return plan
    found = context.run.about.get("limits")
    if found is None:
        plan, notes = within_limits(plan, room, runtime, may_shrink=not context.settings.search.resolutions)
        return replace(plan, notes=(*plan.notes, *notes))
    with run_dir.as_written(context.run.path / run_dir.RUN):
        return replace(
            plan,
            sides={name: tuple(sides) for name, sides in found["sides"].items()},
            latencies={(name, side): timed for name, side, timed in found["latencies"]},
        )


def _as_planned(context: RunContext) -> Settings:
    """The settings, with what an earlier session of the run planned in place of what is left to the plan."""
    kept = context.run.about.get("plan", {})
    with run_dir.as_written(context.run.path / run_dir.RUN):
        return replace(context.settings, search=replace(context.settings.search, **kept))


def make_plan(manifest: Manifest, settings: Settings, runtime: Runtime, *, offline: bool = False) -> Plan:
    """Backbones, weights and resolutions for these data on this machine.

    Raises:
        UsageError: an unknown backbone.
        WeightsError: none of the backbones that the user named has weights within reach.
    """
    power = MachinePower(gpu=runtime.device.type != "cpu", threads=runtime.threads)
    room = Room.of(settings, len(manifest.class_names), len(manifest))
    settings, left_out = _small_enough(settings, room, power)
    backbones, weights, notes = _networks(settings, power, offline=offline or settings.search.offline, room=room)
    resolutions = plan_resolutions(
        settings.search.resolutions,
        _judged_by(settings, backbones),
        power,
        budget=settings.seconds_per_backbone or settings.budget_seconds,
        images=len(manifest),
        typical_side=typical_side(manifest),
    )
    return Plan(backbones, weights, resolutions, (*left_out, *notes))


def _small_enough(settings: Settings, room: Room, power: MachinePower) -> tuple[Settings, tuple[str, ...]]:
    """The settings with those of the named backbones that have few enough parameters and bytes, and what is left out.

    Raises:
        UsageError: none of them has, or none that this program knows.
    """
    wanted = settings.search.backbones
    if not room.limits.any:
        return settings, ()
    if not any(room.takes(name) for name in wanted or _offered(settings, power, room)):
        raise room.refusal(wanted or BACKBONES)
    small = [name for name in wanted if room.takes(name)]
    left_out = room.left_out(name for name in wanted if name not in small)
    return replace(settings, search=replace(settings.search, backbones=small)), left_out


def _offered(settings: Settings, power: MachinePower, room: Room) -> tuple[str, ...]:
    """Backbones that may be tried where the user names none: the usual ones, or any that fit where none of those do."""
    if not settings.search.pretrained:
        return _usual_or_any(FROM_SCRATCH, FROM_SCRATCH, room)
    every = tuple(dict.fromkeys(name for pool in POOLS.values() for name in pool))
    return _usual_or_any(every, POOLS["gpu" if power.gpu else "cpu"], room)


def _usual_or_any(usual: tuple[str, ...], here: tuple[str, ...], room: Room) -> tuple[str, ...]:
    return usual if any(room.takes(name) for name in here) else tuple(BACKBONES)


def _judged_by(settings: Settings, backbones: tuple[str, ...]) -> tuple[str, ...]:
    """The backbones that say which sides are affordable: the dearest where each must do with a time of its own."""
    if settings.seconds_per_backbone is None:
        return backbones
    return (max(backbones, key=lambda name: backbone(name).gmacs or 1.0),)


def typical_side(manifest: Manifest) -> int:
    """Median of the shorter sides of a few images, in pixels, from their headers alone; 224 where none can be read."""
    sides = [shorter_side(manifest.file(row)) for row in scattered_rows(manifest)[:SIZE_SAMPLE]]
    known = [side for side in sides if side is not None]
    return int(median(known)) if known else RESOLUTIONS[0]


def _networks(
    settings: Settings, power: MachinePower, *, offline: bool, room: Room
) -> tuple[tuple[str, ...], dict[str, WeightSource], tuple[str, ...]]:
    wanted = settings.search.backbones
    offered = [name for name in _offered(settings, power, room) if room.takes(name)]
    if not settings.search.pretrained:
        from_scratch = wanted or offered[: len(FROM_SCRATCH)]
        return plan_backbones(from_scratch, {}, power, pretrained=False), {}, ()
    asked = wanted or offered
    found = {name: find_weights(backbone(name), settings.search.weights, offline) for name in asked}
    here = {name: source for name, source in found.items() if source is not None}
    if not here:
        require_weights(backbone(asked[0]), settings.search.weights, offline)  # raises, and says what is here
    missing = [name for name in wanted if name not in here]
    usable = [name for name in wanted if name in here]
    backbones = plan_backbones(usable, found, power, pretrained=True)
    return backbones, {name: here[name] for name in backbones}, _notes(missing, backbones)


def _notes(missing: list[str], backbones: tuple[str, ...]) -> tuple[str, ...]:
    if not missing:
        return ()
    return (
        f"No pretrained weights within reach for {', '.join(missing)}; going on with {', '.join(backbones)}. "
        "Bring a file with --weights NAME=PATH to use them.",
    )
