"""Stage `impact`: what a naive split would have pretended; only where the setting `search.measure_impact` asks for it.

It works on training and validation images and on copies of validation images. The test set stays sealed: what the
naive figure is compared with is not the test figure but the same probe on the clean split, which needs no test image.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from automl_vision.data.preparation import Prepared
from automl_vision.events import Progress
from automl_vision.models.classifier import placed
from automl_vision.models.features import OutOfTime, extract_features
from automl_vision.models.probe import NoRoom
from automl_vision.report.impact import FOLDS, STRENGTH, Dealt, measure_impact
from automl_vision.search.costs import TRIAL_OVERHEAD
from automl_vision.search.run_trial import PROBE_UNIT_SECONDS
from automl_vision.search.trial import Trial
from automl_vision.stages.context import RunContext
from automl_vision.stages.reserve import seconds_to_report

if TYPE_CHECKING:
    from automl_vision.stages.search import Searched

#: Share of the whole budget that it may take.
IMPACT_SHARE = 0.1
#: More images make the intervals little narrower.
MOST_IMAGES = 5_000
#: Below this many (unless there are no more) the intervals say nothing.
FEWEST_IMAGES = 60
#: Features per image that the estimate of the time assumes.
TYPICAL_FEATURES = 1280
#: Share of its time that is planned for: estimates are no promises.
PLANNED_SHARE = 0.6


def impact_plan(budget: float) -> str:
    """What of the budget is planned for it, for people."""
    if math.isinf(budget):
        return f"two linear probes on at most {MOST_IMAGES:,} images"
    return f"two linear probes, in at most {IMPACT_SHARE * budget:.0f} s of the budget,"


def impact_images(context: RunContext, prepared: Prepared) -> int:
    """How many images it is going to be measured on; 0 where it is not asked for, or needs no measurement."""
    if not context.settings.search.measure_impact:
        return 0
    pool = _pool(prepared)
    return min(len(pool), MOST_IMAGES) if _related(prepared, pool) else 0


def impact_seconds(images: int, context: RunContext, prepared: Prepared, trials: Sequence[Trial]) -> float:
    """Seconds that the search leaves for so many images; 0 for none, and before there is a probe to repeat."""
    probe = _cheapest_probe(trials) if images else None
    if probe is None:
        return 0.0
    wanted = images * _seconds_per_image(prepared, probe) + TRIAL_OVERHEAD
    return min(wanted / PLANNED_SHARE, IMPACT_SHARE * context.clock.budget)


def impact_of(context: RunContext, prepared: Prepared, searched: Searched) -> dict[str, Any]:
    """The section `impact` of the report: both figures, or why there are none."""
    pool = _pool(prepared)
    if not _related(prepared, pool):
        hint = "" if prepared.facts.compared is not None else " (--lineage full also compares what they show)"
        return _unmeasured(
            f"no two of these images are known to belong together, so that both ways to deal are one{hint}"
        )
    probe = _cheapest_probe(searched.search.trials)
    if context.stop.requested or searched.stop_reason == "interrupted":
        return _unmeasured("the run was stopped early")
    if probe is None:
        return _unmeasured("no linear probe was completed")
    allowed = _allowed_seconds(context, prepared, searched)
    chosen = _drawn(prepared, pool, _affordable(prepared, probe, allowed), context.settings.machine.seed)
    if len(chosen) < min(FEWEST_IMAGES, len(pool)):
        return _unmeasured(f"the budget has no time for it ({max(allowed, 0.0):.1f} s)")
    return _measured(context, prepared, searched, probe, chosen, time.monotonic() + allowed)


def _measured(
    context: RunContext,
    prepared: Prepared,
    searched: Searched,
    probe: Trial,
    rows: NDArray[np.int64],
    deadline: float,
) -> dict[str, Any]:
    started, runner = time.monotonic(), searched.runner

    def late() -> bool:
        return context.stop.requested or time.monotonic() > deadline

    try:
        features = extract_features(
            placed(runner.classifier(probe.recipe), runner.runtime.device).backbone,
            prepared.store,
            torch.from_numpy(rows),
            runner.preprocessing(probe.recipe),
            runner.runtime,
            should_stop=late,
            progress=lambda done: context.tell(Progress(done, len(rows))),
        )
        dealt = Dealt(
            features=features,
            labels=prepared.labels(rows),
            groups=prepared.groups(rows),
            originals=prepared.audit.eligible[rows],
            num_classes=len(prepared.manifest.class_names),
        )
        found = measure_impact(dealt, runner.objective, context.settings.machine.seed, late)
    except OutOfTime:
        return _unmeasured("the run was stopped early" if context.stop.requested else "its time ended before it did")
    except NoRoom as error:
        return _unmeasured(str(error))
    copies = (prepared.audit.lineage.role[rows] == "copy").any()
    recipe = f"frozen {probe.recipe.backbone}, {probe.recipe.resolution} px, penalty {STRENGTH}, {FOLDS} folds"
    return {
        "measured": True,
        "recipe": recipe,
        "what": "copies" if copies else "images of one group",
        **found,
        "available": len(_pool(prepared)),
        "seconds": time.monotonic() - started,
    }


def _unmeasured(reason: str) -> dict[str, Any]:
    return {"measured": False, "reason": reason}


def _pool(prepared: Prepared) -> NDArray[np.int64]:
    """(n) all usable files of the groups in train and validation, copies of validation originals included."""
    split = prepared.split
    return np.sort(np.concatenate([split.rows("train"), split.rows("val"), split.augmented_val]))


def _related(prepared: Prepared, rows: NDArray[np.int64]) -> bool:
    groups = prepared.groups(rows)
    return len(np.unique(groups)) < len(groups)


def _drawn(prepared: Prepared, pool: NDArray[np.int64], count: int, seed: int) -> NDArray[np.int64]:
    """At most `count` rows of the pool, whole groups at random."""
    if count >= len(pool):
        return pool
    groups, sizes = np.unique(prepared.groups(pool), return_counts=True)
    order = np.random.default_rng(seed).permutation(len(groups))
    kept = order[np.cumsum(sizes[order]) <= count]
    return pool[np.isin(prepared.groups(pool), groups[kept])]


def _affordable(prepared: Prepared, probe: Trial, allowed: float) -> int:
    if math.isinf(allowed):
        return MOST_IMAGES
    planned = PLANNED_SHARE * allowed - TRIAL_OVERHEAD
    return min(int(max(planned, 0.0) / _seconds_per_image(prepared, probe)), MOST_IMAGES)


def _allowed_seconds(context: RunContext, prepared: Prepared, searched: Searched) -> float:
    """Its share of the budget, and no more than what testing and the report leave."""
    after = seconds_to_report(context, prepared, searched.search.trials)
    return min(IMPACT_SHARE * context.clock.budget, context.clock.remaining - after)


def _seconds_per_image(prepared: Prepared, probe: Trial) -> float:
    """One forward pass, and the share of an image in fitting two probes."""
    classes = len(prepared.manifest.class_names)
    fits = 2 * (FOLDS + 1) * TYPICAL_FEATURES * classes * PROBE_UNIT_SECONDS
    return probe.seconds_per_image + fits


def _cheapest_probe(trials: Sequence[Trial]) -> Trial | None:
    done = [t for t in trials if t.recipe.kind == "probe" and t.state == "complete" and t.seconds_per_image > 0]
    return min(done, key=lambda trial: trial.seconds_per_image, default=None)
