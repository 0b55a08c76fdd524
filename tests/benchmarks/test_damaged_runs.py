"""The check notices what it is there for: a traceback, what is done without, a trial that begins anew in silence."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import pytest

from trust import damaged_runs
from trust.damaged_runs import WAYS, Tally, figure_of
from trust.tiny_search import TinySearch

# Stands in for the command line: one trial of four epochs with a checkpoint, each file checked by the last word of it.
STAND_IN = """
import json, pathlib, sys, time
fault, command, *rest = sys.argv[1:]
def refuse(text):
    print("Traceback" if fault == "traceback" else f"Error: damaged: {text}")
    print("Fix: restore it")
    sys.exit(1 if fault == "code" else 2)
def read(file):
    try:
        return json.loads(file.read_text())
    except Exception:
        refuse(file)
if command == "predict":
    model = pathlib.Path(rest[0])
    if fault == "scars" and model.with_name("scar").exists():
        refuse(model)
    if not model.exists():
        refuse(model)
    if fault == "scars" and model.read_bytes() != b"sound":
        model.with_name("scar").touch()
    sys.exit(0 if fault == "careless" or model.read_bytes() == b"sound" else refuse(model))
given = dict(zip(rest, rest[1:]))
run = pathlib.Path(given.get("--resume") or given["--out"])
(run / "trials" / "000000").mkdir(parents=True, exist_ok=True)
checkpoint, record = run / "trials/000000/checkpoint.pt", run / "trials/000000.json"
if "--resume" not in given:
    (run / "run.json").write_text("{}")
else:
    read(run / "run.json")
    if (run / "report.json").exists():
        sys.exit(0)  # it is complete
known = {"number": 0, "state": "paused", "recipe": {"epochs": 4}, "epochs": []}
if checkpoint.exists() and checkpoint.read_bytes() == b"sound":
    known = read(record)
elif "--resume" in given and fault != "silent":
    print("trials/000000/checkpoint.pt is damaged: its trial begins again")
for epoch in range(len(known["epochs"]) + 1, 5):
    known["epochs"].append({"epoch": epoch, "seconds": time.time()})
    known["state"] = "complete" if epoch == 4 else "paused"
    record.write_text(json.dumps(known))
    checkpoint.write_bytes(b"sound")
    time.sleep(0.2 if epoch == 2 and "--resume" not in given else 0)
(run / "model.pt").write_bytes(b"sound")
(run / "report.json").write_text(json.dumps({"stop_reason": "trials"}))
"""


def measured(tmp_path: Path, fault: str) -> Tally:
    program, images = tmp_path / "stand_in.py", tmp_path / "images"
    images.mkdir()
    (images / "one.png").write_bytes(b"")
    program.write_text(STAND_IN)
    search = TinySearch(["--data", str(images)], [sys.executable, "-S", "-E", str(program), fault])
    return damaged_runs.measure(search, tmp_path, ["cut"], ["predict", "resume"], 100, seed=0)


def test_a_program_that_says_what_is_damaged_is_sound(tmp_path: Path) -> None:
    tally = measured(tmp_path, "none")
    assert tally.faults == []
    assert tally.refused == tally.healed >= 3
    assert figure_of(tally).line.startswith("damaged runs held: ")
    assert not figure_of(Tally()).held, "nothing was called"


@pytest.mark.parametrize(
    ("fault", "noticed"),
    [
        ("traceback", "Traceback"),
        ("code", "exit code 1, not 0 or 2"),
        ("careless", "it did its work without what it lives by"),
        ("silent", "a trial began anew, and nobody was told"),
        ("scars", "with the file put back it ends with 2"),
    ],
)
def test_every_fault_is_noticed(tmp_path: Path, fault: str, noticed: str) -> None:
    tally = measured(tmp_path, fault)
    assert any(noticed in each for each in tally.faults), tally.faults
    assert not figure_of(tally).held


def test_every_way_changes_a_file_and_says_the_same_again() -> None:
    content = bytes(range(200))
    for name, way in WAYS.items():
        damaged = way(content, random.Random(1))
        assert damaged != content, name
        assert damaged == way(content, random.Random(1)), name
        assert way(b"", random.Random(1)) == b"", name


def test_a_complete_run_of_which_another_file_changes_is_noticed(tmp_path: Path) -> None:
    kept, run = tmp_path / "kept", tmp_path / "run"
    for folder in (kept, run):
        folder.mkdir()
        for name in ("report.json", "looks.json", "model.pt"):
            (folder / name).write_text("[{}]")
    (run / "looks.json").write_text("[{")
    assert list(damaged_runs._changed(kept, run, "looks.json")) == []
    (run / "report.json").write_text("[]")
    (run / "model.pt").unlink()
    told = ["model.pt is another than before", "report.json is another than before"]
    assert list(damaged_runs._changed(kept, run, "looks.json")) == told
