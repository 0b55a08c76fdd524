"""What drives the scheduler through recorded runs pays for every epoch, and tells policies apart."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from recorded import RATES, recorded_run, recorded_set, rising, write_folder

import curves
from automl_vision.search.prior import Prior, recipe_prior
from automl_vision.search.scheduler import Candidate, Scheduler
from curves import BUDGET_HOURS, POLICIES, Knowledge, known_of, regret_over_time
from recorded_runs import HORIZON, read_sets
from replay import PruneOnly, epoch_seconds, replay

NOTHING = Prior("by hand", (), 0.0, ())
IGNORANT = Knowledge(NOTHING, NOTHING)
HOUR = 3600.0
CURVES = Path(curves.__file__)


def candidates(*finals: float, seconds: float = 100.0) -> list[Candidate]:
    runs = [recorded_run(str(final), rising(final), seconds=seconds) for final in finals]
    return [Candidate(run, (2, 6, 18, HORIZON), run.best, seconds) for run in runs]


def test_every_epoch_is_paid_for_once_and_in_order() -> None:
    clock, done = 0.0, {}
    for progress in replay(Scheduler(epoch_seconds), candidates(50, 60, 70, 80), 20_000.0):
        clock += 100.0
        assert progress.seconds == pytest.approx(clock)
        assert progress.trial.epochs_done == done.get(progress.trial.number, 0) + 1
        done[progress.trial.number] = progress.trial.epochs_done
    assert clock == 4 * HORIZON * 100.0


def test_the_epoch_that_the_budget_cuts_counts_for_nothing() -> None:
    *_, last = replay(Scheduler(epoch_seconds), candidates(50, 60), 1_050.0)
    assert last.seconds == 1_000.0


def test_a_record_that_ends_early_ends_its_trial() -> None:
    short = Candidate(recorded_run("short", rising(90, epochs=4)), (2, 6, 18, HORIZON), 0.5, 100.0)
    *_, last = replay(Scheduler(epoch_seconds), [short], 1e6)
    assert (last.trial.state, last.trial.epochs_done) == ("complete", 4)


def regret(name: str, finals: list[list[float]], hours: float = 16.0) -> float:
    runs = [recorded_run(str(number), curve, seconds=250.0) for number, curve in enumerate(finals)]
    figures = regret_over_time(POLICIES[name], recorded_set(runs), IGNORANT, seed=0)
    return float(figures[BUDGET_HOURS.index(hours)])


def test_regret_is_one_before_anything_and_zero_with_the_best() -> None:
    finals = [rising(final) for final in (20.0, 90.0)]
    assert regret("ours", finals, hours=0.08) > 0.5
    assert regret("ours", finals) == pytest.approx(0.0)


def test_a_crossing_curve_is_found_by_resuming_and_lost_by_pruning() -> None:
    """The best run begins as the second; successive halving that cannot go back never sees its end."""
    second_at_first = [*[30.0] * 8, *[95.0] * (HORIZON - 8)]
    finals = [rising(60.0, speed=2.0), second_at_first, *[rising(final, speed=2.0) for final in (25.0, 20.0, 15.0)]]
    assert regret("ours", finals) == pytest.approx(0.0)
    assert regret("prune-only", finals) > 0.3


def test_what_is_good_after_one_epoch_only_misleads_a_first_rung_of_one() -> None:
    liars = [[30.0, *[10.0] * (HORIZON - 1)] for _ in range(8)]
    finals = [*liars, [5.0, *[50.0] * 4, *[95.0] * (HORIZON - 5)]]
    assert regret("ours", finals, hours=3.2) < 0.8
    assert regret("first rung of 1 epoch", finals, hours=3.2) == 1.0


def test_pruned_is_pruned() -> None:
    done = {}
    for progress in replay(PruneOnly(Scheduler(epoch_seconds)), candidates(80, 70, 60), 1e6):
        done[progress.trial.number] = progress.trial.epochs_done
    assert done == {0: HORIZON, 1: 2, 2: 2}


def test_linear_probes_are_left_out_and_traits_are_read(tmp_path: Path) -> None:
    (recorded,) = read_sets(
        write_folder(tmp_path, ["one"], {f"one{RATES[0]}": {"batch_size": 128, "warmup_epochs": 5}})
    )
    assert len(recorded.runs) == len(RATES)
    first = recorded.runs[0]
    assert first.warm_up == 5
    assert first.traits["learning_rate"] == pytest.approx(RATES[0] / 2)
    assert first.traits["backbone"] == "edgenext_small.usi_in1k"
    assert first.traits["layer_decay"] == 1.0
    assert recorded.regret(recorded.worst) == 1.0
    assert recorded.regret(max(run.best for run in recorded.runs)) == 0.0


def test_a_folder_without_sets_is_named(tmp_path: Path) -> None:
    write_folder(tmp_path, ["one"])
    (tmp_path / "one.json").unlink()
    with pytest.raises(FileNotFoundError, match="no recorded set"):
        read_sets(tmp_path)


def test_a_set_that_the_prior_was_fitted_to_is_judged_without_it(tmp_path: Path) -> None:
    fitted = recipe_prior().sets[:3]
    sets = read_sets(write_folder(tmp_path, [*fitted, "another"]))
    by_name = {each.name: each for each in sets}
    assert set(known_of(by_name[fitted[0]], sets).quality.sets) == set(fitted[1:])
    assert set(known_of(by_name[fitted[0]], sets).cost.sets) == set(fitted[1:])
    assert known_of(by_name["another"], sets).quality == recipe_prior()
    with pytest.raises(ValueError, match="at least one"):
        known_of(by_name[fitted[0]], [by_name[fitted[0]], by_name["another"]])


def test_the_command_prints_a_table_and_writes_every_policy(tmp_path: Path) -> None:
    folder, out = write_folder(tmp_path, ["one", "two"]), tmp_path / "out.json"
    command = [sys.executable, str(CURVES), "--curves", str(folder), "--json", str(out), "--seeds", "2"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    content = json.loads(out.read_text("utf-8"))
    assert content["budget_hours"] == list(BUDGET_HOURS)
    assert list(content["policies"]) == list(POLICIES)
    for name, figures in content["policies"].items():
        assert f"| {name} |" in printed
        assert set(figures["by_set"]) == {"one", "two"}
        assert figures["regret"] == pytest.approx(np.mean(list(figures["by_set"].values()), axis=0))
        assert figures["regret"] == sorted(figures["regret"], reverse=True)
        assert all(0.0 <= value <= 1.0 for value in figures["regret"])
