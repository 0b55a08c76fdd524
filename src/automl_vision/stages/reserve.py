"""What the search leaves of the budget for what comes after it."""

from __future__ import annotations

import math
from collections.abc import Sequence

from automl_vision.data.preparation import Prepared
from automl_vision.models.backbones import backbone
from automl_vision.models.costs import BATCH, PASSES, WARM_UP
from automl_vision.report.optimism import CELL_SECONDS, MOST_CELLS, RESAMPLES
from automl_vision.search.costs import TRIAL_OVERHEAD, CostModel
from automl_vision.search.front import best_of_forms
from automl_vision.search.scheduler import KEPT_BEST
from automl_vision.search.trial import Trial, best_trial, is_frozen, soup_mates
from automl_vision.stages.context import RunContext

#: CPU seconds of the last model file, the plots and the report; measured on two cores, see docs/benchmarks.md.
REPORT_CPU_SECONDS = 6.0
#: Of these, what looking for wrong labels and for shortcuts takes.
CHECK_CPU_SECONDS = 2.0
#: What pictures of mistakes may take; an allowance and not measured: where they need more, fewer are shown.
GALLERY_CPU_SECONDS = 1.5
#: The same for each tracker: figures and files that it sends in the end.
TRACKING_CPU_SECONDS = 0.5
#: What resampling adds per image that was judged, and writing per probability.
REPORT_CPU_PER_IMAGE = 2e-4
REPORT_CPU_PER_PROBABILITY = 1.5e-6
#: However little of a core this process got so far (it may have waited for a disk), the report is not assumed to
#: take more than this many times its CPU seconds.
MOST_CROWDED = 4.0
#: Before there is a model, the search has this share of what is left: there is nothing to report without one.
FIRST_MODEL_SHARE = 0.75


#: Images on which a soup measures its statistics of batch norm.
STATISTICS_IMAGES = 3_200
#: What the finish may take of the budget: what improves the model at no further training, and training it once more.
FINISH_SHARE = 0.05
REFIT_SHARE = 0.3
#: What measuring latency and throughput of the trained networks may take of the budget, and seconds at most.
COSTS_SHARE, MOST_COSTS_SECONDS = 0.04, 60.0
#: Seconds to build a network for that; images in its batches and passes; how much longer one image alone takes than one
#: of a batch.
COSTS_BUILD_SECONDS, COSTS_BATCHED, COSTS_SINGLE, SINGLE_OVER_BATCHED = 0.5, 4 * BATCH, PASSES + WARM_UP, 3.0
#: Estimates are no promises.
CAUTION = 1.5
#: The epochs of a refit are those of a trial that was timed, and one that comes too late costs no model.
REFIT_CAUTION = 1.2


def seconds_to_report(context: RunContext, prepared: Prepared, trials: Sequence[Trial], passes: float = 1.0) -> float:
    """Seconds of testing and reporting. The report is work for one core; where that is shared, it takes longer.

    Args:
        context: of the run.
        prepared: its data.
        trials: so far.
        passes: forward passes per image, in those of the best trial; more for an ensemble or for mirrored images.
    """
    clock = context.clock
    report = report_seconds(context, prepared, trials)
    best = best_trial(trials)
    if best is None:
        return min(report, (1 - FIRST_MODEL_SHARE) * clock.remaining)
    rows = passes * len(prepared.split.augmented_val) + (1 + passes) * len(prepared.split.rows("test"))
    return report + CAUTION * rows * forward_seconds(best, trials)


def report_seconds(context: RunContext, prepared: Prepared, trials: Sequence[Trial] = ()) -> float:
    """Seconds of the report on this machine, as busy as it is."""
    crowd = min(max(1.0, context.clock.wall_per_cpu_second), MOST_CROWDED)
    tracking = TRACKING_CPU_SECONDS * len(context.settings.output.track)
    return (_report_cpu_seconds(prepared, trials) + tracking) * crowd


def costs_seconds(context: RunContext, trials: Sequence[Trial]) -> float:
    """Seconds that the search leaves for measuring what the trained networks cost; 0 before there is one."""
    each = [form_seconds(forward_seconds(trial, trials)) for trial in best_of_forms(trials)]
    return min(CAUTION * sum(each), most_costs_seconds(context.clock.budget)) if each else 0.0


def most_costs_seconds(budget: float) -> float:
    """Seconds that it may take at most."""
    return min(COSTS_SHARE * budget, MOST_COSTS_SECONDS)


def form_seconds(forward: float) -> float:
    """Seconds of measuring one network whose forward pass takes so many seconds per image of a batch."""
    return COSTS_BUILD_SECONDS + (SINGLE_OVER_BATCHED * COSTS_SINGLE + COSTS_BATCHED) * forward


def seconds_to_finish(context: RunContext, prepared: Prepared, trials: Sequence[Trial]) -> float:
    """Seconds that the search leaves for improving the best trial afterwards; 0 before there is one."""
    best = best_trial(trials)
    if best is None:
        return 0.0
    improving = 0.0 if is_frozen(best) else _improving_seconds(best, prepared, trials)
    return min(improving, FINISH_SHARE * context.clock.budget) + _seconds_to_refit(best, context, prepared, trials)


def _seconds_to_refit(best: Trial, context: RunContext, prepared: Prepared, trials: Sequence[Trial]) -> float:
    """Seconds for training once more. Unasked, they are not taken from the first fine-tune, and are enough or none."""
    most = REFIT_SHARE * context.clock.budget
    if context.settings.search.refit == "on":
        return min(refit_seconds(best, prepared, trials), most)
    whole = best_trial([trial for trial in trials if trial.state == "complete" and not is_frozen(trial)])
    if whole is None or not refits_unasked(context, prepared):
        return 0.0
    seconds = refit_seconds(whole, prepared, trials)
    return seconds if seconds <= most else 0.0


def refits_unasked(context: RunContext, prepared: Prepared) -> bool:
    """Whether the model is to be trained once more where there is time, though nobody asked for it.

    Who brings validation images wants a model that did not see them; who sets no limit of time, no second training;
    who asks for one recipe, or for backbones side by side, what was asked for.
    """
    search = context.settings.search
    return (
        search.refit == "auto"
        and math.isfinite(context.clock.budget)
        and "val" in prepared.split.dealt
        and search.trials != 1
        and not search.budget_per_backbone
    )


def forward_seconds(trial: Trial, trials: Sequence[Trial]) -> float:
    """Seconds per image of a forward pass of the network of a trial, as far as known.

    As measured, also beside other trials: what a deadline rests on is an upper bound.
    """
    return CostModel(trials, lambda name: backbone(name).gmacs, 0, 0).forward(trial.recipe)


def refit_seconds(trial: Trial, prepared: Prepared, trials: Sequence[Trial]) -> float:
    """Seconds of training a trial once more, on training and validation images."""
    split = prepared.split
    rows = len(split.rows("train")) + len(split.rows("val"))
    costs = CostModel(trials, lambda name: backbone(name).gmacs, rows, 0)
    if is_frozen(trial):
        return CAUTION * (rows * costs.forward(trial.recipe) + TRIAL_OVERHEAD)
    return REFIT_CAUTION * (trial.epochs_done * costs.epoch(trial.recipe) + TRIAL_OVERHEAD)


def soup_seconds(trial: Trial, prepared: Prepared, trials: Sequence[Trial]) -> float:
    """Seconds of trying one more member of a soup: its statistics on training images, and a look at validation."""
    images = len(prepared.split.rows("val")) + min(len(prepared.split.rows("train")), STATISTICS_IMAGES)
    return CAUTION * (images * forward_seconds(trial, trials) + TRIAL_OVERHEAD)


def flip_seconds(trial: Trial, prepared: Prepared, trials: Sequence[Trial]) -> float:
    """Seconds of looking at the validation images and their mirror images."""
    return CAUTION * (2 * len(prepared.split.rows("val")) * forward_seconds(trial, trials) + TRIAL_OVERHEAD)


def _improving_seconds(trial: Trial, prepared: Prepared, trials: Sequence[Trial]) -> float:
    mates = min(len(soup_mates(trial, trials)), KEPT_BEST)
    return mates * soup_seconds(trial, prepared, trials) + flip_seconds(trial, prepared, trials)


def _report_cpu_seconds(prepared: Prepared, trials: Sequence[Trial]) -> float:
    split = prepared.split
    judged = len(split.rows("test")) + len(split.rows("val")) + len(split.augmented_val)
    probabilities = judged * len(prepared.manifest.class_names)
    # What choosing among the trials is worth takes no longer than this, and seconds only where there are very many.
    choice = CELL_SECONDS * min(len(trials) * len(split.rows("val")) * RESAMPLES, MOST_CELLS)
    return (
        REPORT_CPU_SECONDS
        + GALLERY_CPU_SECONDS
        + REPORT_CPU_PER_IMAGE * judged
        + REPORT_CPU_PER_PROBABILITY * probabilities
        + choice
    )
