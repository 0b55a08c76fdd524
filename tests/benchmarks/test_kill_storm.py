"""The check notices what it is there for: lost trials, epochs trained twice, another outcome, a second look, ..."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest

from trust import kill_storm
from trust.kill_storm import Tally

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
if resumed and fault == "refuses":
    sys.exit("there is no run in this folder")
if resumed and fault == "loses":
    (trials / "000000.json").unlink(missing_ok=True)
with (run / "events.log").open("a") as log:
    log.write("now stage search for it\\n")
start = time.time()
for number in range(4):
    file = trials / f"{number:06d}.json"
    record = {"number": number, "state": "paused", "origin": "portfolio", "parameters": {}, "epochs": []}
    record["recipe"] = {"rate": 0 if fault == "twins" else number}
    if file.exists() and fault != "repeats":
        record = json.loads(file.read_text())
    for epoch in range(len(record["epochs"]) + 1, 3):
        time.sleep(0.05)
        score = resumed if fault == "differs" else 1
        record["epochs"].append({"epoch": epoch, "seconds": time.time(), "score": score})
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
    """Run the benchmark on the stand-in with a fault; its exit code and what it found."""
    program, out, images = tmp_path / "stand_in.py", tmp_path / "out.json", tmp_path / "images"
    program.write_text(STAND_IN)
    images.mkdir()
    (images / "one.png").write_bytes(b"")

    def measure(fault: str) -> tuple[int, dict[str, Any]]:
        command = shlex.join([sys.executable, str(program), fault])
        options = ["--data", str(images), "--kills", "5", "--longest", "0.5", "--options", "", "--json", str(out)]
        options += [
            "--wall",
            "--cold",
            "1",
        ]  # most are killed once they search, however long a busy machine takes to start them
        code = kill_storm.main([*options, "--command", command, "--seed", "1"])
        return code, json.loads(out.read_text())

    return measure


def test_a_search_that_goes_on_where_it_was_is_sound(measured: Any, capsys: pytest.CaptureFixture[str]) -> None:
    code, told = measured("none")
    found = told["figures"]
    assert (code, told["faults"], found["kills"]) == (0, [], 5)
    assert (found["lost"], found["repeated"], found["differing"], found["faults"]) == (0, 0, 0, [])
    assert found["trials"] == 4 * found["runs"] > 0
    assert sum(found["hit"].values()) == 5
    assert found["restarts"]
    line = f"R1 held: 5 kills (5 of cold sessions) in {found['runs']} runs of {found['trials']} trials: 0 "
    assert capsys.readouterr().out.splitlines()[-1].startswith(line)


@pytest.mark.parametrize(
    ("fault", "noticed"),
    [
        ("loses", lambda told: told["figures"]["lost"] > 0),
        ("repeats", lambda told: told["figures"]["lost"] + told["figures"]["repeated"] > 0),
        ("twins", lambda told: told["figures"]["repeated"] >= 3),
        ("differs", lambda told: told["figures"]["differing"] > 0),
        ("refuses", lambda told: "ended with 1: there is no run" in told["faults"][0]),
        ("looks", lambda told: "2 looks at the test set" in told["faults"][0]),
        ("unverified", lambda told: "does not follow from the predictions" in told["faults"][0]),
        ("useless", lambda told: "does not predict" in told["faults"][0]),
    ],
)
def test_every_fault_is_noticed(measured: Any, fault: str, noticed: Any) -> None:
    code, told = measured(fault)
    assert code == 1
    assert told["held"] is (fault == "differs")  # which R3 tells of, and R1 does not
    assert noticed(told), told


def test_what_a_kill_may_cost_is_an_epoch_or_seconds() -> None:
    def held(**found: Any) -> list[bool]:
        return [figure.held for figure in Tally(kills=1, **found).figures(1, 10.0, 10.0)]

    assert held() == [True, True]
    assert held(restart_cpu=[3.0, 11.0]) == [True, False]
    costs = [held(epochs_lost=[epochs], seconds_lost=[each]) for epochs, each in ((1, 99.0), (5, 9.0), (2, 11.0))]
    assert costs == [[True, True], [True, True], [False, True]]
    assert held(differing=1) == [False, True]
    assert [figure.held for figure in Tally(kills=1).figures(2, 10.0, 10.0)] == [False, False], "too few kills"


def test_what_is_lost_is_what_was_told_and_is_not_on_disk(tmp_path: Path) -> None:
    (tmp_path / "trials").mkdir()
    (tmp_path / "trials" / "000001.json").write_text("{}")
    tally = Tally()
    lines = ["stage search", "trial 1 running epoch 3 score 1.0", "trial 1 running epoch 4 score 1.0", "trial 1 runn"]
    kill_storm._count_costs(tmp_path, lines, {1: {"epochs": [{}, {}]}}, 9.0, tally)
    kill_storm._count_costs(tmp_path, [*lines, "stage costs"], {1: {"epochs": []}}, 9.0, tally)
    kill_storm._count_costs(tmp_path, [*lines, "trial 1 complete epoch 6 "], {1: {"epochs": []}}, 9.0, tally)
    assert tally.epochs_lost == [2]
