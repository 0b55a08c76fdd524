"""A run that its disk has no room for is refused before it costs anything; one that may run out of room is told so."""

from __future__ import annotations

import shutil
import time
from collections import namedtuple
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from automl_vision.config import Settings, load_settings
from automl_vision.errors import BudgetExhausted
from automl_vision.events import Note
from automl_vision.models.backbones import backbone
from automl_vision.run_dir import RunDir
from automl_vision.runtime import Clock
from automl_vision.stages.context import RunContext, StopRequest
from automl_vision.stages.disk_room import REPORT_BYTES, disk_need, require_room
from automl_vision.stages.plan import Plan

SMALL, LARGE = "test_efficientnet", "efficientnet_lite0"
PLAN = Plan((LARGE, SMALL), {}, (64, 32))
SETTINGS = load_settings(overrides={"search.trials": 2})
NEED = disk_need(PLAN, SETTINGS, images=100, classes=3)
Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def context(tmp_path: Path, told: list[str]) -> Iterator[RunContext]:
    run = RunDir.create(tmp_path / "run", SETTINGS, {"data": "/data"})

    def tell(event: Any) -> None:
        assert isinstance(event, Note)
        told.append(event.text)

    yield RunContext(run, Path("/data"), SETTINGS, tell, StopRequest(), Clock(time.monotonic(), 60.0))
    run.close()


def looked_at(context: RunContext, monkeypatch: pytest.MonkeyPatch, free: int, total: int = 10**12) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(total, total - free, free))
    require_room(context, PLAN, 100, 3, warn=True)


def test_too_little_for_any_run_is_refused_with_the_figures(
    context: RunContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = sum(each.stat().st_size for each in context.run.path.rglob("*"))
    least = NEED.least(held)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**12, 0, least))
    require_room(context, PLAN, 100, 3)
    with pytest.raises(BudgetExhausted, match="too little room") as caught:
        looked_at(context, monkeypatch, least - 1)
    assert caught.value.exit_code == 5
    assert f"needs {least / 1e6:,.1f} MB at least" in str(caught.value.value)
    assert f"--resume {context.run.path}" in caught.value.fix


def test_what_is_there_already_need_not_be_written_again(context: RunContext, monkeypatch: pytest.MonkeyPatch) -> None:
    (context.run.path / "trials").mkdir()
    (context.run.path / "trials" / "best.pt").write_bytes(bytes(2 * NEED.model))
    looked_at(context, monkeypatch, NEED.model + REPORT_BYTES)
    with pytest.raises(BudgetExhausted):
        looked_at(context, monkeypatch, NEED.model - 1)  # the model is written beside the one before it


def test_what_a_search_may_take_is_said(context: RunContext, monkeypatch: pytest.MonkeyPatch, told: list[str]) -> None:
    looked_at(context, monkeypatch, NEED.peak)
    assert told == []
    looked_at(context, monkeypatch, NEED.peak // 2)
    assert len(told) == 1 and "MB free" in told[0] and "can be resumed" in told[0]


def test_where_nobody_knows_what_is_free_nothing_is_said(context: RunContext, monkeypatch: pytest.MonkeyPatch) -> None:
    looked_at(context, monkeypatch, free=0, total=0)

    def unknown(_: Path) -> Usage:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(shutil, "disk_usage", unknown)
    require_room(context, PLAN, 100, 3, warn=True)


def test_the_figures_follow_from_the_plan_and_the_settings() -> None:
    weights = backbone(SMALL).parameters_m * 4e6
    assert 0.3 * weights < NEED.model < 1.5 * weights, "of the smallest network"
    assert NEED.least(0) == 3 * NEED.model + REPORT_BYTES
    kept = load_settings(overrides={"search.trials": 2, "output.kept_checkpoints": 10})
    more: dict[str, tuple[Plan, Settings, int, int]] = {
        "weights that are kept": (PLAN, kept, 100, 3),
        "trials that wait": (PLAN, load_settings(overrides={"search.trials": 3}), 100, 3),
        "images": (PLAN, SETTINGS, 10_000, 3),
        "classes": (PLAN, SETTINGS, 100, 300),
        "networks": (replace(PLAN, backbones=(LARGE, SMALL, "resnet18")), SETTINGS, 100, 3),
    }
    for what, (plan, settings, images, classes) in more.items():
        assert disk_need(plan, settings, images, classes).peak > NEED.peak, what
    assert disk_need(PLAN, SETTINGS, 100, 3, keeps_trials=False).peak < NEED.peak / 5
