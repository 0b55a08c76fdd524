"""TRACKERS: what can show a search. Nothing of theirs is imported before one is started."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from automl_vision.extras import require

if TYPE_CHECKING:
    from automl_vision.tracking.tracker import Tracker


@dataclass(frozen=True)
class TrackerRow:
    """One program that shows searches.

    Attributes:
        title: as its makers write it.
        packages: that it needs, as they are imported.
        make: a tracker that was not started.
    """

    title: str
    packages: tuple[str, ...]
    make: Callable[[], Tracker]


def _tensorboard() -> Tracker:
    from automl_vision.tracking.to_tensorboard import TensorBoardTracker

    return TensorBoardTracker()


def _mlflow() -> Tracker:
    from automl_vision.tracking.to_mlflow import MLflowTracker

    return MLflowTracker()


def _wandb() -> Tracker:
    from automl_vision.tracking.to_wandb import WandbTracker

    return WandbTracker()


#: Name -> tracker; `rules.TRACKER_NAMES` has the same names.
TRACKERS: dict[str, TrackerRow] = {
    "tensorboard": TrackerRow("TensorBoard", ("tensorboard",), _tensorboard),
    "mlflow": TrackerRow("MLflow", ("mlflow",), _mlflow),
    "wandb": TrackerRow("Weights & Biases", ("wandb",), _wandb),
}


def require_trackers(names: Sequence[str]) -> None:
    """Raise UsageError where what one of these trackers needs is not installed."""
    for name in names:
        require(TRACKERS[name].packages, "track", f"tracking with {TRACKERS[name].title}")
