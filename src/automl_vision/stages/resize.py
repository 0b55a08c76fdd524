"""Stage `resize`: do networks see whole images, squashed to squares, or the squares in their middle?

Where objects lie in the middle of wide pictures, the middle shows them larger and in shape; where the sides tell the
class, it hides them. So linear probes on frozen features of both are fitted to training images and compared on
validation images. Test images have no part in it: the store is sealed by then, and so is the one of the middles.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from automl_vision.data.preparation import Prepared, decode, decode_seconds, files_to_decode
from automl_vision.data.preprocess import MIDDLE, SQUASH, Preprocessing
from automl_vision.data.store import ImageStore, store_of_files
from automl_vision.errors import BudgetExhausted, DataError, ResolutionError, WeightsError
from automl_vision.events import Progress
from automl_vision.models.backbones import backbone, statistics
from automl_vision.models.classifier import build_classifier, placed
from automl_vision.models.features import OutOfTime, extract_features
from automl_vision.models.memory import is_out_of_memory
from automl_vision.models.probe import fit_probe
from automl_vision.models.weights import load_weights
from automl_vision.report.resize import resize_sentence
from automl_vision.runtime import Runtime
from automl_vision.search.costs import STEP_OVER_FORWARD, TRIAL_OVERHEAD
from automl_vision.search.judge import Judge
from automl_vision.search.planner import CPU_STEP, GPU_STEP, stored_sizes
from automl_vision.search.run_trial import PROBE_UNIT_SECONDS
from automl_vision.stages.context import RunContext
from automl_vision.stages.plan import Plan
from automl_vision.stages.reserve import MOST_CROWDED
from automl_vision.stages.search import objective_of

#: The sets that have a part in it.
Name = Literal["train", "val"]
#: An image is not square where its longer side is at least so many times its shorter one ...
OBLONG = 1.1
#: ... and both ways are one where fewer than this share of the images are not square.
FEWEST_OBLONG = 0.1
#: Shares of the time left that comparing both ways, and then decoding all images once more, may take.
COMPARING_SHARE, DECODING_SHARE = 0.05, 0.2
#: Share of its time that is planned for: estimates are no promises.
PLANNED_SHARE = 0.6
#: Images that are looked at: more say little more, and fewer nothing.
MOST_IMAGES: dict[Name, int] = {"train": 1_000, "val": 1_000}
FEWEST_IMAGES: dict[Name, int] = {"train": 100, "val": 50}
#: Standard errors by which the middle has to be better: whole images need no second decoding, and hide nothing.
ERRORS = 1.0
#: How the probes are fitted.
FOLDS, STRENGTHS = 3, (0.03, 0.1, 1.0)
#: Features per image that the estimate of the time assumes.
TYPICAL_FEATURES = 1280


class _CannotTell(Exception):
    """What was computed says nothing of either way."""


@dataclass(frozen=True)
class _Scene:
    """What the choice is made from."""

    context: RunContext
    prepared: Prepared
    plan: Plan
    runtime: Runtime

    @property
    def size(self) -> int:
        """Side in pixels that both ways are compared at."""
        return min(self.plan.sides.get(self.plan.backbones[0], self.plan.resolutions))

    @property
    def shown(self) -> NDArray[np.int64]:
        """(n) rows to train on and to choose with."""
        return np.concatenate([self.prepared.split.rows(name) for name in MOST_IMAGES])

    def wanted(self, name: Name) -> int:
        """How many images of a set are looked at where there is time."""
        return min(len(self.prepared.split.rows(name)), MOST_IMAGES[name])

    @cached_property
    def affordable(self) -> dict[Name, int]:
        """How many images of each set can be looked at, as far as can be told beforehand."""
        wanted, clock = {name: self.wanted(name) for name in MOST_IMAGES}, self.context.clock
        if math.isinf(clock.remaining):
            return wanted
        needed = sum(wanted.values()) * _seconds_to_look(self) + wanted["train"] * _seconds_to_fit(self)
        crowd = min(max(1.0, clock.wall_per_cpu_second), MOST_CROWDED)
        allowed = PLANNED_SHARE * COMPARING_SHARE * clock.remaining / crowd - TRIAL_OVERHEAD
        share = min(1.0, max(allowed, 0.0) / needed)
        return {name: int(share * count) for name, count in wanted.items()}

    @cached_property
    def decode_seconds(self) -> float:
        """Of one image, by a few of those that are not tested on."""
        known = self.prepared.manifest.subset(self.shown)
        sizes = stored_sizes(self.plan.resolutions)
        return decode_seconds(known, sizes, self.prepared.store.decode_side) / self.runtime.threads


def choose_resize(context: RunContext, prepared: Prepared, plan: Plan, runtime: Runtime) -> Prepared:
    """The data as networks will see them; their record `resize` in `run.json` says why.

    Nothing is done where the settings or an earlier session of the run have settled it: see `stages.decode`.

    Args:
        context: of the run.
        prepared: its data, sealed, as whole images. Where the middles win, its store is closed.
        plan: what is going to be tried.
        runtime: where it runs.

    Raises:
        Interrupted: the user stopped it.
        DataError: a file changed.
    """
    if context.run.about["resize"]["chosen"]:
        return prepared
    scene = _Scene(context, prepared, plan, runtime)
    if reason := _nearly_square(scene):
        return _settled(scene, SQUASH, reason, square=True)
    with context.stage("resize"):
        reason = next(filter(None, (why(scene) for why in _WHY_NOT)), "")
        return _settled(scene, SQUASH, f"the middles were not tried: {reason}") if reason else _tried(scene)


def _settled(scene: _Scene, chosen: str, reason: str, **more: Any) -> Prepared:
    """Write down what was chosen and why."""
    record = {"chosen": chosen, "reason": reason, **more}
    scene.context.run.add_about(resize=record)
    if sentence := resize_sentence(record):
        scene.context.note(sentence)
    return scene.prepared


def _tried(scene: _Scene) -> Prepared:
    prepared = scene.prepared
    try:
        found = _compared(scene, scene.affordable)
    except OutOfTime:
        return _settled(scene, SQUASH, "comparing it with the middle took longer than its share of the budget")
    except _CannotTell as error:
        return _settled(scene, SQUASH, f"it could not be compared with the middle: {error}")
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return _settled(scene, SQUASH, "there was no memory to compare it with the middle")
    except (WeightsError, ResolutionError) as error:
        return _settled(scene, SQUASH, f"{scene.plan.backbones[0]} cannot be used ({error.what})")
    if not found["better"]:
        return _settled(scene, SQUASH, "the middle is not better by more than a standard error", compared=found)
    try:
        rebuilt = _of_middles(scene)
    except BudgetExhausted:
        rebuilt = None
    if rebuilt is None:
        reason = "the middle is better, but there was no time or room to decode the images once more"
        return _settled(scene, SQUASH, reason, compared=found)
    _settled(scene, MIDDLE, "the middle is better by more than a standard error", compared=found)
    prepared.store.close()
    return rebuilt


# --- where both ways are not compared ---------------------------------------------------------------------------------


def _nearly_square(scene: _Scene) -> str:
    sides = scene.prepared.facts.table.iloc[scene.shown][["width", "height"]].to_numpy(dtype=np.float64)
    share = float((sides.max(axis=1) >= OBLONG * sides.min(axis=1)).mean())
    return f"{1 - share:.0%} of the images are nearly square" if share < FEWEST_OBLONG else ""


def _from_scratch(scene: _Scene) -> str:
    return "" if scene.plan.pretrained else "without pretrained weights there are no features to compare them by"


def _no_room(scene: _Scene) -> str:
    return "no folder has room for squares of these images" if scene.prepared.store.notes else ""


def _no_time_to_decode(scene: _Scene) -> str:
    needed, allowed = _seconds_to_decode(scene), DECODING_SHARE * scene.context.clock.remaining
    if needed <= allowed:
        return ""
    return f"decoding them once more would take about {needed:.0f} s, and may take {max(allowed, 0.0):.0f} s"


def _too_few(scene: _Scene) -> str:
    few = [name for name, least in FEWEST_IMAGES.items() if scene.wanted(name) < least]
    return f"{' and '.join(few)} have too few images to tell" if few else ""


def _no_time_to_compare(scene: _Scene) -> str:
    afforded = scene.affordable
    if all(afforded[name] >= least for name, least in FEWEST_IMAGES.items()):
        return ""
    return f"the budget has time to look at {sum(afforded.values()):,} images, too few to tell"


#: Why both ways are not compared; the first that says something ends it.
_WHY_NOT: tuple[Callable[[_Scene], str], ...] = (
    _from_scratch,
    _no_room,
    _too_few,
    _no_time_to_compare,
    _no_time_to_decode,
)


# --- time -------------------------------------------------------------------------------------------------------------


def _seconds_to_look(scene: _Scene) -> float:
    """Of one image: two forward passes, and decoding it once more."""
    macs = backbone(scene.plan.backbones[0]).gmacs or 1.0
    step = GPU_STEP if scene.runtime.device.type != "cpu" else CPU_STEP / scene.runtime.threads
    return 2 * step / STEP_OVER_FORWARD * macs * (scene.size / 128) ** 2 + scene.decode_seconds


def _seconds_to_fit(scene: _Scene) -> float:
    """Of one training image: its part in fitting both probes."""
    classes = len(scene.prepared.manifest.class_names)
    fits = 2 * (FOLDS + 1) * len(STRENGTHS)  # the last one is on all images
    return fits * TYPICAL_FEATURES * classes * PROBE_UNIT_SECONDS / scene.runtime.threads


def _seconds_to_decode(scene: _Scene) -> float:
    """Of all images that no earlier run left decoded so."""
    prepared, each = scene.prepared, scene.decode_seconds
    if each * len(prepared.manifest) <= DECODING_SHARE * scene.context.clock.remaining:
        return each * len(prepared.manifest)
    return each * files_to_decode(
        prepared.manifest,
        scene.context.settings,
        stored_sizes(scene.plan.resolutions),
        scene.runtime.threads,
        decode_side=scene.prepared.store.decode_side,
        resize=MIDDLE,
    )


# --- comparing --------------------------------------------------------------------------------------------------------


def _compared(scene: _Scene, counts: Mapping[Name, int]) -> dict[str, Any]:
    """Probes on both ways, judged on validation images.

    Raises:
        OutOfTime: its share of the budget ended.
        Interrupted: the user stopped it.
        WeightsError: the weights cannot be read.
    """
    context, prepared = scene.context, scene.prepared
    started, allowed = time.monotonic(), COMPARING_SHARE * context.clock.remaining
    rows = {name: _drawn(scene, name, count) for name, count in counts.items()}
    objective = objective_of(context, prepared)
    judge = Judge(
        prepared.labels(rows["val"]), prepared.groups(rows["val"]), len(prepared.manifest.class_names), objective
    )

    def late() -> bool:
        if context.stop.requested:
            raise context.stop.error("comparing squares", "nothing is settled")
        return time.monotonic() - started > allowed

    middles = store_of_files(
        prepared.manifest, prepared.facts, scene.size, scene.runtime.threads, scene.prepared.store.decode_side, MIDDLE
    )
    # Sealed as the whole images are: a test image is no more to be seen here than there.
    stores = {SQUASH: prepared.store, MIDDLE: replace(prepared, store=middles).sealed().store}
    net = _backbone(scene)
    said = {resize: _probe(scene, net, store, rows, late) for resize, store in stores.items()}
    gain = judge.gain(said[MIDDLE], over=said[SQUASH])
    return {
        "better": gain.exceeds(ERRORS),
        **gain.to_dict(),
        "objective": objective,
        **{resize: judge.score(predicted) for resize, predicted in said.items()},
        **{name: len(each) for name, each in rows.items()},
        "backbone": scene.plan.backbones[0],
        "resolution": scene.size,
        "seconds": time.monotonic() - started,
    }


def _backbone(scene: _Scene) -> nn.Module:
    """The pretrained network that is probed, without a head."""
    name, classes = scene.plan.backbones[0], len(scene.prepared.manifest.class_names)
    weights = load_weights(scene.plan.weights[name], backbone(name))
    net = build_classifier(name, classes, weights=weights, resolution=scene.size)
    return placed(net, scene.runtime.device).backbone


def _probe(
    scene: _Scene,
    net: nn.Module,
    store: ImageStore,
    rows: Mapping[Name, NDArray[np.int64]],
    late: Callable[[], bool],
) -> NDArray[np.int64]:
    """(n_val) what a linear probe says that never saw the validation images."""
    context, prepared = scene.context, scene.prepared
    mean, std = statistics(backbone(scene.plan.backbones[0]))
    preprocessing = Preprocessing(scene.size, mean, std, resize=store.resize, decode_side=store.decode_side)
    total = sum(map(len, rows.values()))
    everything = torch.from_numpy(np.concatenate([rows["train"], rows["val"]]))
    features = extract_features(
        net,
        store,
        everything,
        preprocessing,
        scene.runtime,
        should_stop=late,
        progress=lambda done: context.tell(Progress(done, total)),
    )
    if not np.isfinite(features).all():
        raise _CannotTell("features of the network are not finite")
    train, val = np.split(features, [len(rows["train"])])
    fitted = fit_probe(
        train,
        prepared.labels(rows["train"]),
        prepared.groups(rows["train"]),
        len(prepared.manifest.class_names),
        strengths=STRENGTHS,
        folds=FOLDS,
        seed=context.settings.machine.seed,
        should_stop=late,
    )
    if late():
        raise OutOfTime("the probe may have been cut short")
    return np.asarray(fitted.probabilities(val).argmax(axis=1))


def _drawn(scene: _Scene, name: Name, count: int) -> NDArray[np.int64]:
    """(count) rows of a set, by the seed, all classes in proportion."""
    rows = scene.prepared.split.rows(name)
    order = np.random.default_rng(scene.context.settings.machine.seed).permutation(len(rows))
    labels = scene.prepared.labels(rows[order])
    place = np.zeros(len(rows))
    for label in np.unique(labels):
        own = labels == label
        place[own] = np.arange(own.sum()) / own.sum()
    return np.sort(rows[order[np.argsort(place, kind="stable")[:count]]])


# --- decoding once more -----------------------------------------------------------------------------------------------


def _of_middles(scene: _Scene) -> Prepared | None:
    """The same data with a store of the middles, sealed; None where there is no room for it.

    Raises:
        BudgetExhausted: its share of the time ended.
        Interrupted: the user stopped it.
        DataError: a file changed.
    """
    context, prepared = scene.context, scene.prepared
    until = time.monotonic() + DECODING_SHARE * context.clock.remaining

    def progress(done: int, total: int) -> None:
        if context.stop.requested:
            raise context.stop.error("decoding", f"{done} of {total} images")
        if time.monotonic() > until:
            raise BudgetExhausted("no time is left to decode the images once more", value=f"{done} of {total}", fix="")
        context.tell(Progress(done, total))

    store, facts = decode(
        prepared.manifest,
        context.settings,
        stored_sizes(scene.plan.resolutions),
        scene.runtime.threads,
        progress,
        decode_side=scene.prepared.store.decode_side,
        resize=MIDDLE,
    )
    changed = (facts.table["file_digest"] != prepared.facts.table["file_digest"]).to_numpy()
    if changed.any():
        store.close()
        raise DataError(
            "an image changed while it was being read",
            value=ascii(prepared.manifest.paths[int(np.argmax(changed))]),
            fix="run again when nothing writes to the data",
        )
    if store.notes or (prepared.facts.usable & ~facts.usable).any():
        store.close()
        return None
    return replace(prepared, store=store).sealed()
