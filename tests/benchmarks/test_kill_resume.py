"""The check notices what it is there for: lost trials, epochs trained twice, a second look, a model that is no use."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest

import kill_resume

# Stands in for the command line: four trials of two epochs, one record per epoch; `fault` says what it does wrong.
STAND_IN = """
import json, pathlib, sys, time
fault, command, *rest = sys.argv[1:]
if command == "report":
    sys.exit(fault == "unverified")
if command == "predict":
    sys.exit(fault == "useless")
given = dict(zip(rest, rest[1:]))
resumed = "--resume" in given
run = pathlib.Path(given["--resume"] if resumed else given["--out"])
trials = run / "trials"
trials.mkdir(parents=True, exist_ok=True)
if not resumed:
    (run / "run.json").write_text(json.dumps({"data": given["--data"]}))
if resumed and fault == "loses":
    (trials / "000000.json").unlink(missing_ok=True)
with (run / "events.log").open("a") as log:
    log.write("now stage search\\n")
start = time.time()
for number in range(4):
    file = trials / f"{number:06d}.json"
    record = {"number": number, "state": "paused", "origin": "portfolio", "parameters": {}, "epochs": []}
    record["recipe"] = {"rate": 0 if fault == "twins" else number}
    if file.exists() and fault != "repeats":
        record = json.loads(file.read_text())
    for epoch in range(len(record["epochs"]) + 1, 3):
        time.sleep(0.05)
        record["epochs"].append({"epoch": epoch, "seconds": time.time()})
        record["state"] = "complete" if epoch == 2 else "paused"
        unfinished = file.with_suffix(".part")
        unfinished.write_text(json.dumps(record))
        unfinished.rename(file)
if resumed and fault == "loses":
    (trials / "000000.json").unlink()
(run / "report.json").write_text(json.dumps({"stop_reason": "trials"}))
(run / "looks.json").write_text(json.dumps([{}] * (2 if fault == "looks" else 1)))
"""


@pytest.fixture
def measured(tmp_path: Path) -> Any:
    """Run the benchmark on the stand-in with a fault; its exit code and its figures."""
    program, out, images = tmp_path / "stand_in.py", tmp_path / "out.json", tmp_path / "images"
    program.write_text(STAND_IN)
    images.mkdir()
    (images / "one.png").write_bytes(b"")

    def measure(fault: str) -> tuple[int, dict[str, Any]]:
        command = shlex.join([sys.executable, str(program), fault])
        options = ["--data", str(images), "--kills", "5", "--longest", "0.5", "--options", "", "--json", str(out)]
        code = kill_resume.main([*options, "--command", command, "--device", "cpu", "--seed", "1"])
        return code, json.loads(out.read_text())

    return measure


def test_a_search_that_goes_on_where_it_was_is_sound(measured: Any, capsys: pytest.CaptureFixture[str]) -> None:
    code, told = measured("none")
    assert (code, told["kills"], told["lost"], told["repeated"], told["faults"]) == (0, 5, 0, 0, [])
    assert told["trials"] == 4 * told["runs"] > 0
    assert sum(told["hit"].values()) == 5
    trials = f"5 kills in {told['runs']} runs of {told['trials']} trials: 0 lost, 0 repeated; all sound"
    assert capsys.readouterr().out.strip() == trials


@pytest.mark.parametrize(
    ("fault", "noticed"),
    [
        ("loses", lambda told: told["lost"] > 0),
        ("repeats", lambda told: told["lost"] + told["repeated"] > 0),
        ("twins", lambda told: told["repeated"] >= 3),
        ("looks", lambda told: told["faults"] == ["2 looks at the test set"]),
        ("unverified", lambda told: "does not follow from the predictions" in told["faults"][0]),
        ("useless", lambda told: "does not predict" in told["faults"][0]),
    ],
)
def test_every_fault_is_noticed(measured: Any, fault: str, noticed: Any) -> None:
    code, told = measured(fault)
    assert code == 1
    assert noticed(told), told
