"""Stage `checks`: which images it may see, what it makes of them, and what it says where it does not look."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from automl_vision.search.trial import Trial
from automl_vision.search.trial_files import HeldOut, TrialFiles
from automl_vision.stages import checks as stage
from automl_vision.stages.checks import check_data
from automl_vision.stages.context import StopRequest
from automl_vision.training.recipe import Recipe

N_TRAIN, N_VAL, N = 120, 40, 200
LABELS = np.arange(N) % 2
PROBE = Trial(0, Recipe(kind="probe", backbone="resnet18", resolution=96), {}, "probe", state="complete", score=0.9)
WRONG = 7


class Store:
    """Squares of noise; tells which rows were asked for."""

    sizes = (16,)

    def __init__(self) -> None:
        self.asked: set[int] = set()

    def fetch(self, rows: Any, size: int) -> torch.Tensor:
        self.asked |= set(np.asarray(rows).tolist())
        return torch.randint(0, 255, (len(rows), 3, size, size), dtype=torch.uint8)


@pytest.fixture
def prepared(monkeypatch: pytest.MonkeyPatch) -> Any:
    """120 training, 40 validation and 40 test images of two classes; the odd ones among the first 40 are copies."""
    monkeypatch.setattr(stage, "thumbnails", lambda _prepared, rows, _threads: dict.fromkeys(rows[:1], PICTURE))
    monkeypatch.setattr(stage, "seconds_to_report", lambda *_: 5.0)
    name = np.array(["train"] * N_TRAIN + ["val"] * N_VAL + ["test"] * 40)
    group, role = np.arange(N), np.full(N, "original", dtype=object)
    group[1:40:2], role[1:40:2] = group[0:40:2], "copy"
    rng = np.random.default_rng(0)
    table = pd.DataFrame(
        {
            "format": "PNG",
            "mode": "RGB",
            "frames": 1,
            "taken": np.nan,
            "exif_rotated": False,
            "width": rng.integers(50, 90, N),
            "height": rng.integers(50, 90, N),
            "bytes": rng.integers(500, 900, N),
        }
    )
    return SimpleNamespace(
        split=SimpleNamespace(rows=lambda each: np.flatnonzero(name == each), name=name),
        manifest=SimpleNamespace(class_names=("a", "b"), paths=[f"{row}.png" for row in range(N)]),
        audit=SimpleNamespace(lineage=SimpleNamespace(role=role)),
        facts=SimpleNamespace(table=table),
        store=Store(),
        labels=lambda rows: LABELS[rows],
        groups=lambda rows: group[rows],
    )


PICTURE = SimpleNamespace(uri="data:image/png;base64,AAAA", tiny=True)


def context_of(*, remaining: float = 100.0, stop: bool = False) -> Any:
    settings = SimpleNamespace(machine=SimpleNamespace(seed=0))
    return SimpleNamespace(clock=SimpleNamespace(remaining=remaining), settings=settings, stop=StopRequest(stop))


@pytest.fixture
def searched(tmp_path: Path) -> Any:
    """A search whose probe believes every label but that of row 7, and of the validation image 121."""
    files = TrialFiles(tmp_path)
    believed = LABELS.copy()
    believed[[WRONG, 121]] = 1 - believed[[WRONG, 121]]
    said = np.where(np.eye(2)[believed] == 1, 0.95, 0.05).astype(np.float32)
    rows = np.arange(N_TRAIN)
    files.keep_held_out(HeldOut(0, 0.9, rows, said[rows]))
    files.save_result(0, {"w": torch.zeros(1)}, said[N_TRAIN : N_TRAIN + N_VAL])
    runner = SimpleNamespace(files=files, runtime=SimpleNamespace(threads=1))
    return SimpleNamespace(search=SimpleNamespace(trials=[PROBE.replace(notes={"folds": 5})]), runner=runner)


def test_training_and_validation_labels_are_checked_and_no_others(prepared: Any, searched: Any) -> None:
    found = check_data(context_of(), prepared, searched)
    assert found.suspects is not None
    assert {row["path"] for row in found.suspects} == {f"{WRONG}.png", "121.png"}
    assert {row["set"] for row in found.suspects} == {"train", "val"}
    labels = found.labels
    assert labels["measured"]
    assert labels["images"] == {"train": N_TRAIN, "val": N_VAL}
    assert (labels["suspects"], labels["groups"], labels["left_out"]) == (2, 2, 0)
    assert labels["recipe"] == "linear probe on frozen resnet18, 96 px, 5 folds of whole groups"
    assert [row["picture"] for row in labels["gallery"]] == [PICTURE.uri, None]
    assert "row" not in labels["gallery"][0]


def test_shortcuts_are_looked_for_in_one_image_of_each_group(prepared: Any, searched: Any) -> None:
    found = check_data(context_of(), prepared, searched).shortcuts
    assert found["measured"]
    assert found["images"] == N_TRAIN + N_VAL - 20
    assert found["alarms"] == 0
    assert prepared.store.asked == set(range(N_TRAIN + N_VAL)) - set(range(1, 40, 2))  # no copy, no test image


def test_a_planted_shortcut_is_found(prepared: Any, searched: Any) -> None:
    prepared.facts.table["mode"] = np.where(LABELS == 0, "RGB", "L")
    found = check_data(context_of(), prepared, searched).shortcuts
    assert [each["name"] for each in found["families"] if each["alarm"]] == ["file_type", "all"]


@pytest.mark.parametrize(
    ("context", "reason"),
    [(context_of(remaining=2.0), "its time was over"), (context_of(stop=True), "stopped early")],
)
def test_where_the_time_is_over_it_says_so(prepared: Any, searched: Any, context: Any, reason: str) -> None:
    found = check_data(context, prepared, searched)
    assert found.suspects is None
    for section in (found.labels, found.shortcuts):
        assert not section["measured"]
        assert reason in section["reason"]
    assert prepared.store.asked == set()


def test_without_a_probe_labels_are_not_checked(prepared: Any, searched: Any, tmp_path: Path) -> None:
    searched.runner.files = TrialFiles(tmp_path / "other")
    found = check_data(context_of(), prepared, searched)
    assert "no linear probe" in found.labels["reason"]
    assert found.shortcuts["measured"]


def test_what_a_lost_probe_said_is_not_taken_for_that_of_another_trial(prepared: Any, searched: Any) -> None:
    finetune = PROBE.replace(recipe=Recipe(kind="finetune", backbone="resnet18", resolution=96))
    for trials in ([], [PROBE.replace(score=0.8)], [finetune]):
        searched.search.trials = trials
        assert "no linear probe" in check_data(context_of(), prepared, searched).labels["reason"]


def test_a_check_that_fails_is_told_and_costs_no_run(
    prepared: Any, searched: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> Any:
        raise ZeroDivisionError("of a check")

    monkeypatch.setattr(stage, "find_shortcuts", fail)
    context = context_of()
    told: list[str] = []
    context.note = lambda text, warning: told.append(text)
    found = check_data(context, prepared, searched)
    assert found.labels["measured"]
    assert (found.shortcuts["measured"], "of a check" in found.shortcuts["reason"]) == (False, True)
    assert told == ["The check of shortcuts failed: ZeroDivisionError: of a check"]


def test_large_data_are_sampled(prepared: Any, searched: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "MOST_IMAGES", 60)
    assert check_data(context_of(), prepared, searched).shortcuts["images"] == 60
