"""What the benchmarks of runs that are killed or taken away compare, and say."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch

from automl_vision.search.trial import EpochRecord, Trial
from automl_vision.search.trial_files import TrialFiles
from automl_vision.training.recipe import Recipe
from cluster import kill_ranks, preempted
from cluster.runs import outcome, ranks_of, records


def made(run: Path, *, seconds: float = 1.0, score: float = 0.5, weight: float = 0.0) -> str:
    files = TrialFiles(run / "trials")
    epoch = EpochRecord(1, 1.0, 0.7, score, 1e-3, seconds, seconds)
    recipe = Recipe("finetune", "resnet18", 32)
    files.commit(Trial(0, recipe, {}, "portfolio", state="complete", epochs=(epoch,), seconds=seconds))
    files.save_result(0, {"head.weight": torch.full((2, 2), weight)}, np.full((3, 2), 0.5, dtype=np.float32))
    return outcome(run)


def test_outcomes_differ_by_figures_and_weights_and_not_by_time(tmp_path: Path) -> None:
    expected = made(tmp_path / "a")
    assert made(tmp_path / "b", seconds=9.0) == expected
    assert made(tmp_path / "c", score=0.6) != expected
    assert made(tmp_path / "d", weight=1e-7) != expected
    assert list(records(tmp_path / "a")) == [0]


def test_processes_of_a_run_are_found_by_their_rank(tmp_path: Path) -> None:
    assert ranks_of(tmp_path) == {}
    assert os.getpid() not in ranks_of(Path("/")).values()


def test_tallies_say_what_was_found() -> None:
    killed = kill_ranks.Tally(runs=1, kills=2, of_first=1, back=[3.0, 5.0])
    assert str(killed).startswith("2 kills (1 of the first rank) in 1 runs, 4 s to the next epoch (median): the same")
    killed.faults.append("another outcome")
    assert str(killed).endswith("another outcome")
    taken = preempted.Tally(runs=1, seconds=[0.5, 1.5], hit=preempted.Counter(["search", "search"]))
    assert "left after 1.00 s (median), 1.50 s at most (in search 2)" in str(taken)


def test_a_session_that_leaves_has_to_say_how_to_go_on(tmp_path: Path) -> None:
    assert (
        preempted._faults_of_leaving("Stopped: told to end; go on with: automl-vision search --resume x\n", tmp_path)
        == []
    )
    assert preempted._faults_of_leaving("Told to end\n", tmp_path)
    (tmp_path / "report.json").write_text("{}")
    assert preempted._faults_of_leaving("Stopped: start it again with the same command\n", tmp_path) == ["a report"]
