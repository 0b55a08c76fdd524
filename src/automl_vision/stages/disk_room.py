"""Whether the disk of a run has room for what the run writes; looked at before it costs anybody's time.

Below what every run writes, none is begun: it would end with the same words an hour later. Between that and what a
search of these networks may take at its peak, it is said and the search goes on: most take less, and one whose disk
gets full keeps all that it has and can be resumed.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from automl_vision.config import Settings
from automl_vision.errors import BudgetExhausted
from automl_vision.models.backbones import backbone
from automl_vision.models.costs import Form, count
from automl_vision.search.scheduler import KEPT_PAUSED
from automl_vision.stages.context import RunContext
from automl_vision.stages.limits import BYTES_PER_IMAGE
from automl_vision.stages.plan import Plan

#: Weights that every run writes: of the first probe; the model; and the model once more, before it takes the place of
#: the one before it.
LEAST_FILES = 3
#: What a checkpoint has of the size of the weights: themselves, their running average, the best ones, and two of the
#: optimizer.
CHECKPOINT_FILES = 5
#: Bytes of the report as JSON and HTML and of the study; of an image in tables; and of a probability as text.
#: What was found, the first rounded down: a run that could be made is never refused.
REPORT_BYTES, TABLE_BYTES, PROBABILITY_BYTES = 300_000, 200, 20
#: Bytes of a weight in a file.
_WEIGHT_BYTES = 4


@dataclass(frozen=True)
class DiskNeed:
    """What a run needs of the disk of its folder.

    Attributes:
        model: bytes of the smallest network that is planned, as a model file.
        peak: bytes that a search may take while it is under way.
    """

    model: int
    peak: int

    def least(self, held: int) -> int:
        """Bytes that must be free at least, of a run whose folder holds `held` bytes already.

        How many images there will be is not known before they are decoded, so tables do not count.
        """
        return max(LEAST_FILES * self.model + REPORT_BYTES - held, self.model)


def disk_need(plan: Plan, settings: Settings, images: int, classes: int, *, keeps_trials: bool = True) -> DiskNeed:
    """What a run of this plan needs.

    Args:
        plan: the networks.
        settings: all settings.
        images: N of the manifest.
        classes: C.
        keeps_trials: whether trials are kept in the folder of the run.
    """
    by_size = sorted(plan.backbones, key=lambda name: backbone(name).parameters_m)
    model = count(Form(by_size[0], min(plan.resolutions)), classes).file_bytes
    judged = (settings.split.val + settings.split.test) * images
    tables = REPORT_BYTES + (TABLE_BYTES + BYTES_PER_IMAGE) * images + int(PROBABILITY_BYTES * classes * judged)
    probes, largest = sum(map(_weights, by_size)), _weights(by_size[-1])
    waiting = min(KEPT_PAUSED, settings.search.trials or KEPT_PAUSED)
    written = 2  # the checkpoint of the trial in work, and the one that takes its place
    files = settings.output.kept_checkpoints + 1 + CHECKPOINT_FILES * (waiting + written)
    trials = probes + files * largest if keeps_trials else 0
    return DiskNeed(model, trials + 2 * largest + tables)


def _weights(name: str) -> int:
    """Bytes of its weights, nearly."""
    return int(backbone(name).parameters_m * 1e6 * _WEIGHT_BYTES)


def require_room(context: RunContext, plan: Plan, images: int, classes: int, *, warn: bool = False) -> None:
    """Look at the disk of the run folder.

    Args:
        context: of the run.
        plan: the networks.
        images: N of the manifest.
        classes: C.
        warn: whether to say it where a search may need more than there is.

    Raises:
        BudgetExhausted: it has less room than every run needs.
    """
    path = context.run.path
    free = _free(path)
    if free is None:
        return
    need = disk_need(plan, context.settings, images, classes, keeps_trials=context.run.keeps_trials)
    held = _held(path)
    least = need.least(held)
    if free < least:
        raise BudgetExhausted(
            "the disk has too little room for this run",
            value=f"{path} has {_megabytes(free)} free, and needs {_megabytes(least)} at least",
            fix=f"free some space, then {context.how_to_resume}; or start one elsewhere (--out), or of smaller "
            "networks (--backbones)",
        )
    if warn and free < need.peak - held:
        context.note(
            f"{path} has {_megabytes(free)} free, and a search of these networks may take "
            f"{_megabytes(need.peak - held)}. Where it gets full, the run ends with what it has and can be resumed.",
            warning=True,
        )


def _free(path: Path) -> int | None:
    """Bytes that are free, None where nobody knows: some network file systems say that they have no size at all."""
    try:
        usage = shutil.disk_usage(path)
    except OSError:
        return None
    return usage.free if usage.total > 0 else None


def _held(path: Path) -> int:
    return sum(each.stat().st_size for each in path.rglob("*") if each.is_file())


def _megabytes(count: float) -> str:
    return f"{count / 1e6:,.1f} MB"
