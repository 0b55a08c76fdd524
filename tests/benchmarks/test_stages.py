"""The benchmark runs the command that it is told, as a user would, and reads the report that it left."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

STAGES = Path(__file__).parents[2] / "benchmarks" / "stages.py"

# Stands in for the command line: burns a little CPU and leaves a report where the settings say.
STAND_IN = """
import json, pathlib, sys, tomllib
assert sys.argv[1:3] == ["search", "--data"], sys.argv
settings = tomllib.loads(pathlib.Path(sys.argv[5]).read_text())
folder = pathlib.Path(settings["output"]["runs"]) / settings["output"]["name"]
folder.mkdir()
cache = pathlib.Path(settings["machine"]["cache_dir"])
seen = cache.exists()
cache.mkdir(exist_ok=True)
sum(range(2_000_000))
report = {"seconds": {"decode": 0.5 if seen else 2.0, "search": 3.0}, "stop_reason": "budget",
          "test": {"n": 120, "accuracy": {"value": 0.8, "low": 0.7, "high": 0.9}}}
(folder / "report.json").write_text(json.dumps(report))
"""


@pytest.fixture
def command(tmp_path: Path) -> str:
    program = tmp_path / "stand_in.py"
    program.write_text(STAND_IN)
    return shlex.join([sys.executable, str(program)])


def run(command: str, *more: str) -> subprocess.CompletedProcess[str]:
    arguments = [sys.executable, str(STAGES), "--runs", "2", "--command", command, *more]
    return subprocess.run(arguments, capture_output=True, text=True, check=False)


def measured(command: str, out: Path, *more: str) -> dict[str, Any]:
    done = run(command, "--json", str(out), *more)
    assert done.returncode == 0, done.stderr
    return json.loads(out.read_text())


def test_it_prints_and_writes_what_the_runs_reported(command: str, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    printed = run(command, "--json", str(out)).stdout
    assert "stage decode" in printed
    assert "0.800 [0.700, 0.900], n = 120; stop: budget" in printed
    result = json.loads(out.read_text())
    assert [each["stages"]["decode"] for each in result["runs"]] == [2.0, 2.0]
    assert all(0 < each["cpu_seconds"] < 60 for each in result["runs"])
    assert all(each["wall_seconds"] > 0 for each in result["runs"])
    assert result["machine"]["threads"] >= 1


def test_a_warm_run_keeps_the_cache(command: str, tmp_path: Path) -> None:
    result = measured(command, tmp_path / "out.json", "--warm")
    assert [each["stages"]["decode"] for each in result["runs"]] == [2.0, 0.5]


def test_a_failed_run_is_no_measurement(tmp_path: Path) -> None:
    failing = shlex.join([sys.executable, "-c", "import sys; sys.exit('out of luck')"])
    done = run(failing, "--json", str(tmp_path / "out.json"))
    assert done.returncode == 1
    assert "ended with 1" in done.stderr
    assert "out of luck" in done.stderr
    assert not (tmp_path / "out.json").exists()
