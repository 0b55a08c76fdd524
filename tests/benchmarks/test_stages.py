"""The benchmark runs the command that it is told, as a user would, and reads the report that it left."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path

import pytest

from stages import main

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


def run(command: str, out: Path, *more: str) -> dict:
    main(["--runs", "2", "--command", command, "--json", str(out), *more])
    return json.loads(out.read_text())


def test_it_prints_and_writes_what_the_runs_reported(command, tmp_path: Path, capsys) -> None:
    result = run(command, tmp_path / "out.json")
    printed = capsys.readouterr().out
    assert "stage decode" in printed
    assert "0.800 [0.700, 0.900], n = 120; stop: budget" in printed
    assert [each["stages"]["decode"] for each in result["runs"]] == [2.0, 2.0]
    assert all(0 < each["cpu_seconds"] < 60 for each in result["runs"])
    assert all(each["wall_seconds"] > 0 for each in result["runs"])
    assert result["machine"]["threads"] >= 1


def test_a_warm_run_keeps_the_cache(command, tmp_path: Path) -> None:
    result = run(command, tmp_path / "out.json", "--warm")
    assert [each["stages"]["decode"] for each in result["runs"]] == [2.0, 0.5]


def test_a_failed_run_is_no_measurement(tmp_path: Path) -> None:
    failing = shlex.join([sys.executable, "-c", "import sys; sys.exit('out of luck')"])
    with pytest.raises(RuntimeError, match="out of luck"):
        run(failing, tmp_path / "out.json")
