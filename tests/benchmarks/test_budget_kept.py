"""A budget counts as kept by what the whole command took, and only with a model."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path

import pytest

import budget_kept
from budget_kept import Kept

# Stands in for the command line: sleeps, and leaves a model and a report unless its budget is odd.
STAND_IN = """
import json, pathlib, sys, time
given = dict(zip(sys.argv, sys.argv[1:]))
assert sys.argv[1] == "search" and given["--device"] == "cpu" and not pathlib.Path(given["--cache-dir"]).exists()
budget = int(given["--budget"].rstrip("s"))
time.sleep(0.2)
if budget % 2:
    sys.exit(5)
out = pathlib.Path(given["--out"])
out.mkdir()
(out / "model.pt").write_text("weights")
(out / "report.json").write_text(json.dumps({"stop_reason": "budget", "test": {"accuracy": {"value": 0.8}}}))
"""


@pytest.fixture
def command(tmp_path: Path) -> str:
    program = tmp_path / "stand_in.py"
    program.write_text(STAND_IN)
    return shlex.join([sys.executable, str(program)])


def kept(**changes: object) -> Kept:
    values = {"budget": 60.0, "wall_seconds": 58.0, "cpu_seconds": 50.0, "load": 1.0, "code": 0, "model": True}
    return Kept(**{**values, "accuracy": 0.8, "stop_reason": "budget", **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "passes"),
    [
        ({}, True),
        ({"wall_seconds": 65.0}, True),
        ({"wall_seconds": 65.1}, False),
        ({"budget": 600.0, "wall_seconds": 611.9}, True),
        ({"budget": 600.0, "wall_seconds": 612.1}, False),
        ({"model": False}, False),
        ({"code": 5}, False),
    ],
)
def test_the_bar_is_two_percent_or_five_seconds_and_a_model(changes: dict[str, object], passes: bool) -> None:
    assert kept(**changes).passes is passes


def test_runs_are_measured_told_and_not_measured_again(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "kept.json"
    options = ["--data", str(tmp_path), "--device", "cpu", "--command", command, "--json", str(file)]
    assert budget_kept.main([*options, "--budgets", "20"]) == 0
    first = json.loads(file.read_text())["runs"]
    assert budget_kept.main([*options, "--budgets", "20", "31"]) == 1
    runs = json.loads(file.read_text())["runs"]
    assert runs[0] == first[0]
    assert 0.2 <= runs[0]["wall_seconds"] < 20
    assert [(each["budget"], each["code"], each["model"]) for each in runs] == [(20.0, 0, True), (31.0, 5, False)]
    printed = capsys.readouterr().out
    assert "| NO |  | exit code 5 | NO |" in printed
    assert "1 of 2 kept their budget and left a model" in printed
