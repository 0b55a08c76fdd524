"""The run folder: one process at a time, nothing lost, nothing damaged taken for new."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from automl_vision import run_dir
from automl_vision.config import load_settings
from automl_vision.errors import BudgetExhausted, RunError
from automl_vision.run_dir import RunDir, cannot_write, read_report

SETTINGS = load_settings(overrides={"search.budget": "90s", "machine.seed": 7})


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return RunDir.create(tmp_path / "run", SETTINGS, {"data": "imgs"})


def reopened(run: RunDir) -> RunDir:
    run.close()
    return RunDir.open(run.path)


def test_settings_and_facts_come_back(run: RunDir) -> None:
    run.add_about(fingerprint="abc")
    again = reopened(run)
    assert again.settings == SETTINGS
    assert again.about == {"data": "imgs", "fingerprint": "abc"}


@pytest.mark.parametrize("name", ["", "notes.txt"])
def test_a_folder_that_holds_something_is_refused_and_kept(tmp_path: Path, name: str) -> None:
    path = tmp_path / "taken"
    path.mkdir()
    if name:
        (path / name).write_text("mine")
        with pytest.raises(RunError, match="not empty"):
            RunDir.create(path, SETTINGS, {})
        assert [each.name for each in path.iterdir()] == [name]
    else:
        RunDir.create(path, SETTINGS, {}).close()  # an empty one is as good as none


def test_a_run_is_not_made_over_a_run(run: RunDir) -> None:
    run.close()
    with pytest.raises(RunError, match="holds a run"):
        RunDir.create(run.path, SETTINGS, {})


def test_there_must_be_a_run_to_open(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no run in this folder"):
        RunDir.open(tmp_path)


def test_the_second_is_refused_with_the_process_of_the_first(run: RunDir) -> None:
    with pytest.raises(RunError, match=str(os.getpid())):
        RunDir.open(run.path)
    reopened(run).close()


HOLD = """
import sys, time
from pathlib import Path
from automl_vision.run_dir import RunDir
run = RunDir.open(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(60)
"""


def test_a_killed_process_frees_its_run(run: RunDir) -> None:
    run.close()
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(run.path)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(RunError, match=str(holder.pid)):
            RunDir.open(run.path)
        holder.send_signal(signal.SIGKILL)
        holder.wait(10)
        RunDir.open(run.path).close()
    finally:
        holder.kill()
        holder.communicate()


def test_looks_are_numbered_and_outlive_the_process(run: RunDir) -> None:
    run.record_look("final evaluation", 120)
    again = reopened(run)
    looks = again.record_look("again", 120)
    assert [(look["number"], look["reason"], look["images"]) for look in looks] == [
        (1, "final evaluation", 120),
        (2, "again", 120),
    ]
    assert again.looks == looks


def test_spent_time_adds_up_over_sessions(run: RunDir) -> None:
    assert run.spent == 0.0
    run.note_spent(12.5)
    assert reopened(run).spent == 12.5


@pytest.mark.parametrize("name", [run_dir.RUN, run_dir.LOOKS, run_dir.REPORT_JSON])
@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"3", b'"text"'])
def test_a_damaged_file_is_named_and_never_taken_for_a_new_one(run: RunDir, name: str, content: bytes) -> None:
    (run.path / name).write_bytes(content)
    reading = {
        run_dir.RUN: lambda: run.about,
        run_dir.LOOKS: lambda: run.looks,
        run_dir.REPORT_JSON: lambda: read_report(run.path),
    }
    with pytest.raises(RunError, match=name):
        reading[name]()


@pytest.mark.parametrize("seconds", ["NaN", "-1", "1e999", '"ten"', "null"])
def test_time_that_makes_no_sense_is_refused(run: RunDir, seconds: str) -> None:
    run.close()
    (run.path / run_dir.SPENT).write_text(f'{{"seconds": {seconds}}}')
    with pytest.raises(RunError, match=run_dir.SPENT):
        RunDir.open(run.path)


def test_unfinished_files_are_swept(run: RunDir) -> None:
    (run.path / "report.json.77.tmp").write_text("half")
    again = reopened(run)
    assert not list(again.path.glob("*.tmp"))


def test_discarding_spares_a_run_with_trials(run: RunDir) -> None:
    (run.path / run_dir.TRIALS).mkdir()
    run.discard()
    assert (run.path / run_dir.RUN).exists()


def test_discarding_removes_a_run_that_never_began(run: RunDir) -> None:
    run.discard()
    assert not run.path.exists()


def test_the_log_takes_names_that_are_no_text(run: RunDir) -> None:
    run.log("read \udcff.png")
    assert "\\udcff.png" in (run.path / run_dir.EVENTS).read_text()


def test_a_full_disk_is_told_from_a_closed_folder(tmp_path: Path) -> None:
    full = cannot_write(tmp_path, OSError(28, "No space left on device"))
    closed = cannot_write(tmp_path, OSError(13, "Permission denied"))
    assert (type(full), full.exit_code) == (BudgetExhausted, 5)
    assert "--resume" in full.fix
    assert (type(closed), closed.exit_code) == (RunError, 2)


def test_a_report_is_read_without_the_lock(run: RunDir) -> None:
    assert read_report(run.path) is None
    (run.path / run_dir.REPORT_JSON).write_text(json.dumps({"format": 1}))
    assert read_report(run.path) == {"format": 1}
