"""What the process in front of ranks on a cluster makes of signals and of how the first rank ended."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from automl_vision.cli import cluster_ranks
from automl_vision.config import MachineSettings
from automl_vision.errors import ProcessLost
from automl_vision.executors.ray_ranks import told_in

ON_A_CLUSTER = MachineSettings(cluster="10.0.0.1:6379", ddp=2)


def front(monkeypatch: pytest.MonkeyPatch, run: Path, told: int | None, *signals: signal.Signals) -> list[Any]:
    """Code with which it ends where the first rank tells `told` after these signals; and what that rank was passed."""
    passed: list[Any] = []

    def search_on_cluster(*_: Any, asked: cluster_ranks._Asked, **__: Any) -> int | None:
        for each in signals:
            os.kill(os.getpid(), each)
        passed.extend([list(asked.signals), asked.at_once])
        return told

    monkeypatch.setattr("automl_vision.stages.cluster_ranks.search_on_cluster", search_on_cluster)
    code = cluster_ranks.run_ranks_on_cluster(ON_A_CLUSTER, ["search"], data=None, run=run)
    return [code, *passed]


@pytest.mark.parametrize(
    ("told", "signals", "code", "passed", "at_once"),
    [
        (0, [], 0, [], False),
        (5, [], 5, [], False),
        (130, [signal.SIGINT], 130, [signal.SIGINT], False),
        (None, [signal.SIGINT, signal.SIGINT], 130, [signal.SIGINT, signal.SIGINT], True),
        (75, [signal.SIGTERM], 75, [signal.SIGTERM], False),
        (None, [signal.SIGTERM, signal.SIGTERM], 75, [signal.SIGTERM], False),
    ],
)
def test_signals_reach_the_first_rank_and_its_code_is_the_answer(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    told: int | None,
    signals: Any,
    code: int,
    passed: Any,
    at_once: bool,
) -> None:
    before = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    assert front(monkeypatch, tmp_path, told, *signals) == [code, passed, at_once]
    assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] == before


def test_ranks_that_die_too_often_are_told_with_how_to_go_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(ProcessLost, match="too often") as caught:
        front(monkeypatch, tmp_path / "run", None)
    assert f"--resume {tmp_path / 'run'}" in caught.value.fix


def test_a_rank_that_does_not_leave_after_sigterm_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = cluster_ranks._Asked(taken_at=100.0)
    monkeypatch.setattr(cluster_ranks.time, "monotonic", lambda: 109.0)
    assert not asked.at_once
    monkeypatch.setattr(cluster_ranks.time, "monotonic", lambda: 110.0)
    assert asked.at_once


@pytest.mark.parametrize(("text", "code"), [("75", 75), ("", None), ("x", None), (None, None)])
def test_a_rank_that_told_no_code_is_to_be_started_again(tmp_path: Path, text: str | None, code: int | None) -> None:
    if text is not None:
        (tmp_path / "code").write_text(text)
    assert told_in(tmp_path) == code
