import numpy as np
import pytest

from automl_vision.report import intervals
from automl_vision.report.predictions import Predictions
from automl_vision.report.report import ReportInputs


@pytest.fixture
def predict():
    """Predictions on n images of which a share is right, the classes taking turns."""

    def make(n=200, right=0.85, classes=("cat", "dog", "eel"), per_group=1, sure=0.9):
        count = len(classes)
        groups = np.arange(n) // per_group
        labels = groups % count
        wrong = (groups * 7919 % 1000) >= 1000 * right
        said = np.where(wrong, (labels + 1 + groups % (count - 1)) % count, labels)
        chances = np.full((n, count), (1 - sure) / (count - 1))
        chances[np.arange(n), said] = sure
        return Predictions(tuple(f"{i}.jpg" for i in range(n)), labels, groups, chances, tuple(classes))

    return make


@pytest.fixture
def few_resamples(monkeypatch):
    """Intervals from 60 resamples, where a test is not about them."""
    drawn = intervals.group_weights
    monkeypatch.setattr(intervals, "group_weights", lambda groups, _, seed: drawn(groups, 60, seed))


@pytest.fixture
def inputs(predict):
    """What a sound run of three classes knows; keywords replace parts of it."""

    def make(**changes):
        test = changes.pop("test", None) or predict()
        counts = np.bincount(test.labels, minlength=len(test.class_names)).tolist()
        curve = [{"epoch": e, "score": 0.5 + e / 10, "train_loss": 1 / e, "val_loss": 1.2 / e} for e in (1, 2, 3)]
        table = [
            {
                "number": i,
                "origin": "portfolio",
                "kind": "finetune",
                "backbone": "resnet18",
                "resolution": 96,
                "epochs": 3,
                "score": 0.8 + i / 100,
                "seconds": 11.5,
                "finished": 20.0 * i,
                "state": "complete",
                "hyperparameters": {"learning_rate": 3e-4},
                "curve": curve,
            }
            for i in range(3)
        ]
        known = {
            "name": "pets",
            "created": "2026-01-02T03:04:05Z",
            "test": test,
            "validation": predict(right=0.87, classes=test.class_names),
            "augmented_validation": predict(n=400, per_group=4, right=0.8, classes=test.class_names),
            "objective": "accuracy",
            "data": {
                "class_counts": {"train": [9 * n for n in counts], "val": counts, "test": counts},
                "images": 1000,
                "quarantined": 3,
                "findings": [{"kind": "truncated", "path": "x.jpg", "detail": "ends early", "fix": "copy again"}],
            },
            "looks": ({"when": "2026-01-02T03:04:05Z", "command": "search"},),
            "stop_reason": "budget used",
            "budget_seconds": 600.0,
            "seconds": {"read": 1.0, "search": 500.0},
            "trials": {"total": 3, "complete": 3, "stopped": 0, "failed": 0, "table": table},
            "model": {"backbone": "resnet18", "temperature": 1.2},
            "environment": {"versions": {"python": "3.11"}, "device": "cpu"},
        }
        return ReportInputs(**(known | changes))

    return make
