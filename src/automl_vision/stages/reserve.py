"""What the search leaves of the budget for what comes after it."""

from __future__ import annotations

from collections.abc import Sequence

from automl_vision.data.preparation import Prepared
from automl_vision.models.backbones import backbone
from automl_vision.search.costs import CostModel
from automl_vision.search.trial import Trial, best_trial
from automl_vision.stages.context import RunContext

#: CPU seconds of the last model file, the plots and the report; measured on two cores, see docs/benchmarks.md.
REPORT_CPU_SECONDS = 6.0
#: What resampling adds per image that was judged, and writing per probability.
REPORT_CPU_PER_IMAGE = 2e-4
REPORT_CPU_PER_PROBABILITY = 1.5e-6
#: However little of a core this process got so far (it may have waited for a disk), the report is not assumed to
#: take more than this many times its CPU seconds.
MOST_CROWDED = 4.0
#: Before there is a model, the search has this share of what is left: there is nothing to report without one.
FIRST_MODEL_SHARE = 0.75


def seconds_to_report(context: RunContext, prepared: Prepared, trials: Sequence[Trial]) -> float:
    """Seconds of testing and reporting. The report is work for one core; where that is shared, it takes longer."""
    clock = context.clock
    report = report_seconds(context, prepared)
    best = best_trial(trials)
    if best is None:
        return min(report, (1 - FIRST_MODEL_SHARE) * clock.remaining)
    rows = len(prepared.split.augmented_val) + 2 * len(prepared.split.rows("test"))
    costs = CostModel(trials, lambda name: backbone(name).gmacs, 0, 0)
    return report + 1.5 * rows * costs.forward(best.recipe)


def report_seconds(context: RunContext, prepared: Prepared) -> float:
    """Seconds of the report on this machine, as busy as it is."""
    return _report_cpu_seconds(prepared) * min(max(1.0, context.clock.wall_per_cpu_second), MOST_CROWDED)


def _report_cpu_seconds(prepared: Prepared) -> float:
    split = prepared.split
    judged = len(split.rows("test")) + len(split.rows("val")) + len(split.augmented_val)
    probabilities = judged * len(prepared.manifest.class_names)
    return REPORT_CPU_SECONDS + REPORT_CPU_PER_IMAGE * judged + REPORT_CPU_PER_PROBABILITY * probabilities
