"""What the benchmarks of signals, of workers that are killed and of clocks that move hold against a run."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from trust import killed_workers, shifted_clock, signals
from trust.shifted_clock import DAY, faults_of_times, moves_in, shifted
from trust.tiny_search import differences, everything

INT, TERM = signal.SIGINT, signal.SIGTERM


@pytest.mark.parametrize(
    ("code", "sent", "said", "faults"),
    [
        (130, [INT], "Stopped: ...", 0),
        (75, [TERM, TERM], "Stopped: ...", 0),
        (0, [INT], "", 1),
        (-2, [INT], "", 0),
        (-2, [INT, INT], "Stopping tidily", 0),
        (-2, [INT], "Stopping tidily", 1),
        (-15, [TERM], "Told to end", 1),
        (130, [TERM], "", 1),
        (1, [INT], "Internal error: x", 2),
        (130, [INT, INT], "Traceback (most recent call last):", 1),
        (None, [INT], "", 1),
    ],
)
def test_how_a_session_left(code: int | None, sent: list[signal.Signals], said: str, faults: int) -> None:
    assert len(signals.faults_of_leaving(said, code, sent)) == faults


def test_a_session_whose_run_is_complete_may_end_as_it_likes() -> None:
    for code in (0, 130, -2):
        assert signals.faults_of_leaving("Report: ...", code, [INT], complete=True) == []
    assert signals.faults_of_leaving("Traceback", -2, [INT], complete=True)


@pytest.mark.parametrize(
    ("said", "resumed", "right"),
    [
        ("go on with: automl-vision search --resume runs/a", False, True),
        ("start it again with the same command", False, False),
        ("start it again with the same command", True, True),
        ("stopped", True, False),
    ],
)
def test_a_session_has_to_say_how_to_go_on(said: str, resumed: bool, right: bool) -> None:
    assert signals.says_how_to_go_on(said, resumed=resumed) is right


def test_sessions_that_take_long_to_leave_are_counted_by_the_clock_of_their_signal() -> None:
    slow, quick = [11.0], [1.0]
    for kind, seconds, cpu, held in (
        ("SIGTERM", slow, quick, False),
        ("SIGINT", slow, quick, True),
        ("SIGINT twice", quick, slow, False),
    ):
        assert signals.Tally(seconds={kind: seconds}, cpu={kind: cpu}).figure(1).held is held
    assert not signals.Tally().figure(1).held, "no signal was sent"
    assert not signals.Tally(differing=1).figure(0).held


def test_the_report_of_a_stopped_run_has_to_say_so_and_to_follow(tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text(json.dumps({"stop_reason": "interrupted"}))
    (found,) = signals.faults_of_report(tmp_path)
    assert "cannot be read" in found
    (tmp_path / "report.json").write_text(json.dumps({"stop_reason": "budget"}))
    assert "was stopped by budget" in signals.faults_of_report(tmp_path)[0]


def record(run: Path, number: int, **changes: Any) -> dict[str, Any]:
    values = {"number": number, "attempt": 1, "state": "complete", "epochs": [{"epoch": 1}], "notes": {}, **changes}
    (run / "trials").mkdir(exist_ok=True)
    (run / "trials" / f"{number:06d}.json").write_text(json.dumps(values))
    return values


def test_what_workers_lost_or_did_twice_is_counted(tmp_path: Path) -> None:
    before = {number: record(tmp_path, number) for number in range(3)}
    tally = killed_workers.Tally()
    assert killed_workers.check([before], tmp_path, tally) == []
    assert (tally.trials, tally.lost, tally.repeated) == (3, 0, 0)
    record(tmp_path, 0, epochs=[{"epoch": 1, "seconds": 2}])
    record(tmp_path, 1, attempt=2)
    record(tmp_path, 2, state="failed")
    assert killed_workers.check([before], tmp_path, tally) == ["trials [2] did not end well"]
    assert tally.lost == 3
    assert tally.repeated == 1
    assert not tally.figure(0).held
    assert killed_workers.Tally(kills=1).figure(1).held
    assert not killed_workers.Tally(kills=1).figure(2).held


def test_no_trial_is_hit_by_more_kills_than_it_may_outlive(tmp_path: Path) -> None:
    record(tmp_path, 0)
    assert not killed_workers.may_be_killed(tmp_path), "nothing is in work"
    record(tmp_path, 1, state="running", notes={"lost": 2})
    assert killed_workers.may_be_killed(tmp_path)
    record(tmp_path, 1, state="running", notes={"lost": 3})
    assert not killed_workers.may_be_killed(tmp_path)


@pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")
def test_the_wall_clock_moves_and_the_other_one_does_not(tmp_path: Path) -> None:
    program = "import time, datetime; print(time.time(), datetime.datetime.now().timestamp(), time.monotonic())"

    def read() -> list[float]:
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        return [float(each) for each in done.stdout.split()]

    right = read()
    with shifted(tmp_path) as clock:
        clock.move(1)
        ahead = read()
        clock.move(-2)
        behind = read()
    assert "LD_PRELOAD" not in os.environ or "shifted" not in os.environ["LD_PRELOAD"]
    for wrong, days in ((ahead, 1), (behind, -1)):
        assert [round((each - now) / DAY) for each, now in zip(wrong, right, strict=True)] == [days, days, 0]


def test_moves_of_the_clock_are_seen_in_a_log() -> None:
    log = [f"2026-11-{day}T12:00:0{day % 10}+00:00 something" for day in (22, 22, 23, 21, 21)]
    assert moves_in(log) == 2
    assert moves_in(log[:1]) == 0


def test_times_that_cannot_be_and_other_ends_are_noticed(tmp_path: Path) -> None:
    def faults(reason: str, **seconds: float) -> int:
        (tmp_path / "report.json").write_text(json.dumps({"stop_reason": reason, "seconds": seconds}))
        return len(faults_of_times(tmp_path, 45.0))

    assert faults("budget", search=30.0, report=4.0) == 0
    assert faults("budget", search=-86_400.0) == 1
    assert faults("budget", search=86_400.0) == 1
    assert faults("trials", search=3.0) == 1
    assert faults("budget") == 1
    assert not shifted_clock.Tally(runs=1, moves=1, over=[61.0]).figure(1, 45.0).held
    assert shifted_clock.Tally(runs=1, moves=1, over=[59.0]).figure(1, 45.0).held
    assert not shifted_clock.Tally(runs=2, moves=0, over=[0.0, 0.0]).figure(2, 45.0).held, "its clock never moved"


def test_runs_are_the_same_whichever_trial_came_first(tmp_path: Path) -> None:
    def made(name: str, *losses: float, seconds: float = 1.0) -> dict[str, str]:
        run = tmp_path / name
        run.mkdir()
        for number, loss in enumerate(losses):
            record(run, number, epochs=[{"epoch": 1, "val_loss": loss, "seconds": seconds}])
        return everything(run)

    expected = made("a", 0.5, 0.25)
    assert differences(expected, made("b", 0.25, 0.5, seconds=2.0)) == []
    assert differences(expected, made("c", 0.5, 0.25000001)) == ["trials"]
    assert differences(expected, made("d", 0.5)) == ["trials"]
