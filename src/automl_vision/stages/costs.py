"""Stage `costs`: what the networks of the search cost on this machine, in turns and within a share of the budget."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch

from automl_vision.bundle import Network
from automl_vision.data.preparation import Prepared
from automl_vision.models.costs import (
    BATCH,
    BATCHES,
    MEGA,
    PASSES,
    WARM_UP,
    BatchCost,
    Form,
    Timing,
    asking,
    batch_cost,
    count_all,
    excess_words,
    random_ensemble,
    time_in_turns,
)
from automl_vision.models.ensemble import Ensemble
from automl_vision.runtime import Runtime
from automl_vision.search.front import best_of_forms
from automl_vision.stages.context import RunContext
from automl_vision.stages.limits import Room, form_of, room_of
from automl_vision.stages.reserve import COSTS_BUILD_SECONDS, most_costs_seconds, seconds_to_finish, seconds_to_report

if TYPE_CHECKING:
    from automl_vision.stages.finish import Finished
    from automl_vision.stages.search import Searched

Forms = tuple[Form, ...]


@dataclass(frozen=True)
class OnDevice:
    """What one network costs on one device.

    Attributes:
        timing: of one image.
        batch: of a batch; None where there was no time for it.
    """

    timing: Timing
    batch: BatchCost | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain types, ready for JSON."""
        return {**self.timing.to_dict(), "batch": self.batch.to_dict() if self.batch else None}


@dataclass
class CostMeter:
    """Says what a model costs and whether it keeps to the limits; measures what it does not know yet.

    Attributes:
        room: what a model has to fit into.
        runtime: where latency counts.
        timings: of models that were timed; grows.
    """

    room: Room
    runtime: Runtime
    timings: dict[Forms, Timing] = field(default_factory=dict)

    def timing(self, forms: Forms) -> Timing:
        """Of one image and all networks together."""
        if forms not in self.timings:
            ask = asking(random_ensemble(forms, self.room.num_classes, self.runtime), 1, self.runtime.device)
            self.timings[forms] = Timing.of(time_in_turns({forms: ask})[forms])
        return self.timings[forms]

    def excess(self, forms: Forms) -> dict[str, tuple[float, float]]:
        """Name of a limit -> (what there is, what is allowed), of each that networks that vote together exceed."""
        limits = self.room.limits
        if not limits.any:
            return {}
        counted = count_all(forms, self.room.num_classes)
        counted = replace(counted, file_bytes=counted.file_bytes + self.room.digests)
        return limits.excess(counted) or limits.excess(counted, self.timing(forms).p50_ms if limits.times else None)

    def refusal(self, networks: Sequence[Network], instead_of: Sequence[Network] = ()) -> str:
        """Why a model of these networks cannot be shipped; empty where it can, or costs what another one costs."""
        forms = forms_of(networks)
        return "" if forms == forms_of(instead_of) else excess_words(self.excess(forms))


@dataclass(frozen=True)
class Measured:
    """What the stage found.

    Attributes:
        meter: knows the latencies.
        by_form: network -> device ("cpu", "cuda" ...) -> what it costs there.
        detail: what was left out, and why; empty where nothing was.
    """

    meter: CostMeter
    by_form: Mapping[Form, Mapping[str, OnDevice]] = field(default_factory=dict)
    detail: str = ""

    def too_slow(self) -> set[Form]:
        """Networks that exceed the limit of latency, where others do not."""
        limit = self.meter.room.limits.latency_ms
        slow = {form for form in self.by_form if self.meter.timing((form,)).p50_ms > limit}
        return slow if len(slow) < len(self.by_form) else set()


def forms_of(networks: Sequence[Network]) -> Forms:
    """What the cost of networks that vote depends on."""
    return tuple(Form(each.backbone, each.preprocessing.size, each.head, each.flip) for each in networks)


def measure_costs(
    context: RunContext, prepared: Prepared, searched: Searched, latencies: Mapping[tuple[str, int], float]
) -> Measured:
    """Measure the networks of the best trials, in turns, until the time for it is over.

    Args:
        context, prepared, searched: of the run.
        latencies: (backbone, side) -> milliseconds as first measured; they hold where there is no time for more.
    """
    meter = CostMeter(room_of(context, prepared), searched.runner.runtime)
    meter.timings.update({(Form(*each),): Timing(timed, timed, 0) for each, timed in latencies.items()})
    forms = [form_of(trial.recipe) for trial in best_of_forms(searched.candidates)]
    seconds = min(most_costs_seconds(context.clock.budget), _seconds_left(context, prepared, searched))
    if context.stop.requested or searched.stop_reason == "interrupted":
        return Measured(meter, detail="the run was stopped early")
    deadline = time.monotonic() + seconds
    by_form: dict[Form, dict[str, OnDevice]] = {}
    left_out = 0
    for runtime in _runtimes(searched.runner.runtime):
        on_device, missing = measure_forms(forms, meter.room.num_classes, runtime, lambda: deadline - time.monotonic())
        left_out += missing
        for form, cost in on_device.items():
            by_form.setdefault(form, {})[runtime.device.type] = cost
            if runtime.device == meter.runtime.device:
                meter.timings[(form,)] = cost.timing
    detail = f"{left_out} of the measurements had no time ({max(seconds, 0.0):.1f} s were left for them)"
    return Measured(meter, by_form, detail if left_out else "")


def time_shipped(
    context: RunContext, prepared: Prepared, searched: Searched, finished: Finished, meter: CostMeter
) -> None:
    """Time the model that is shipped where it is more than one network that was timed, if there is time for it."""
    forms = forms_of(finished.bundle.networks)
    alone = [meter.timings.get((replace(form, flip=False),)) for form in forms]
    if forms in meter.timings or None in alone or context.stop.requested:
        return
    passes = [timing.p50_ms * (1 + form.flip) for timing, form in zip(alone, forms, strict=True) if timing]
    needed = COSTS_BUILD_SECONDS * len(forms) + (PASSES + WARM_UP) * sum(passes) / 1e3
    after = seconds_to_report(context, prepared, searched.search.trials, finished.ensemble.passes)
    if needed <= context.clock.remaining - after:
        meter.timing(forms)


def without_slow(context: RunContext, searched: Searched, measured: Measured) -> Searched:
    """The search without trials whose network proved slower than the limit, as long as there are others."""
    slow = measured.too_slow()
    numbers = frozenset(trial.number for trial in searched.search.trials if form_of(trial.recipe) in slow)
    if numbers:
        names = ", ".join(f"{form.backbone} at {form.resolution} px" for form in sorted(slow, key=str))
        context.note(f"Slower than the limit when measured again, and no model for that: {names}.", warning=True)
    return replace(searched, too_slow=numbers)


def measure_forms(
    forms: Sequence[Form],
    num_classes: int,
    runtime: Runtime,
    seconds_left: Callable[[], float],
) -> tuple[dict[Form, OnDevice], int]:
    """What networks cost on a device, and how many figures had no time.

    Networks are built as long as what they all need is expected to fit; then all are timed in turns.

    Args:
        forms: the most important first.
        num_classes: C.
        runtime: device, precision and threads.
        seconds_left: until it has to end.
    """
    ready: dict[Form, tuple[Ensemble, Callable[[], None]]] = {}
    needed = 0.0
    for form in forms:
        if seconds_left() <= needed:
            break
        started = time.monotonic()
        ensemble = random_ensemble([form], num_classes, runtime)
        ask = asking(ensemble, 1, runtime.device)
        built = time.monotonic() - started
        (first,), *_ = time_in_turns({form: ask}, 1, warm_up=1).values()
        needed += (PASSES + WARM_UP) * first
        if needed > seconds_left() - built:
            break
        ready[form] = ensemble, ask
    found = time_in_turns({form: ask for form, (_, ask) in ready.items()}, late=lambda: seconds_left() <= 0)
    timed = {form: Timing.of(each) for form, each in found.items() if len(each) == PASSES}
    batches = {}
    for form, timing in timed.items():
        if seconds_left() > (BATCHES + 1) * BATCH * timing.p50_ms / 1e3:
            batches[form] = batch_cost(ready[form][0], runtime)
    costs = {form: OnDevice(timing, batches.get(form)) for form, timing in timed.items()}
    return costs, len(forms) - len(timed) + len(timed) - len(batches)


def _seconds_left(context: RunContext, prepared: Prepared, searched: Searched) -> float:
    trials = searched.search.trials
    after = seconds_to_report(context, prepared, trials) + seconds_to_finish(context, prepared, trials)
    return context.clock.remaining - after


def _runtimes(runtime: Runtime) -> list[Runtime]:
    """Where it is measured: where the run computes, and on the CPU besides."""
    cpu = Runtime(torch.device("cpu"), None, runtime.threads)
    return [runtime] if runtime.device.type == "cpu" else [runtime, cpu]


def size_mb(room: Room, form: Form) -> float:
    """Megabytes of a model file with one network, nearly."""
    return room.counted(form).file_bytes / MEGA
