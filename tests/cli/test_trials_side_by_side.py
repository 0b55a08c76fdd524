"""Searches with several trials at a time: killed drivers, killed workers, Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
from command import QUICK, assert_harmless
from odd_jobs import wait_for

pytestmark = pytest.mark.slow


@pytest.fixture
def line(smoke, cache, tmp_path):
    """A search of one probe and three fine-tunes of six epochs each, two at a time, and its folder."""
    out = tmp_path / "run"
    options = [*QUICK, "--cache-dir", cache, "--out", out, "--trials", "3", "--epochs", "6", "--max-parallel", "2"]
    return out, ["search", "--data", smoke, *options, "--threads", "2"]


def newest(out):
    """Trial number -> its record of the newest attempt that can be read."""
    found = {}
    for file in (out / "trials").glob("[0-9]*.json"):
        try:
            record = json.loads(file.read_text())
        except (OSError, ValueError):
            continue
        known = found.get(record["number"])
        found[record["number"]] = record if known is None or known["attempt"] < record["attempt"] else known
    return found


def complete(out):
    """Number -> scores of the epochs of trials that are complete."""
    return {
        number: (record["attempt"], record["score"], [epoch["score"] for epoch in record["epochs"]])
        for number, record in newest(out).items()
        if record["state"] == "complete"
    }


def in_epoch(out, epochs):
    """Whether two fine-tunes are in work at once, one of them beyond its first epochs."""
    running = [
        each for each in newest(out).values() if each["state"] == "running" and each["recipe"]["kind"] != "probe"
    ]
    return len(running) >= 2 and any(len(each["epochs"]) >= epochs for each in running)


def workers_of(pid):
    """Processes that this one started to run trials."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            line = (folder / "cmdline").read_bytes()
        except OSError:
            continue
        if parent == pid and b"automl_vision.executors.worker" in line:
            found.append(int(folder.name))
    return found


def is_gone(pid):
    return not Path(f"/proc/{pid}").exists() or "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text()


def test_a_driver_is_killed_and_its_run_goes_on_where_its_workers_were(start, command, line):
    out, search = line
    running = start(*search)
    running.wait_until(lambda: in_epoch(out, 1), 300)
    pids = workers_of(running.pid)
    assert len(pids) == 2
    running.kill()
    assert wait_for(lambda: all(map(is_gone, pids)), 10)
    done = complete(out)
    broken = {number for number, record in newest(out).items() if record["state"] == "running"}
    assert broken

    result = command("search", "--resume", out)
    assert result.code == 0, result.err
    assert_harmless(result)
    after = complete(out)
    assert {number: after[number] for number in done} == done, "a committed trial was run again"
    assert set(after) == {0, 1, 2, 3}
    assert all(newest(out)[number]["attempt"] == 2 for number in broken)
    for number in (1, 2, 3):
        assert [epoch["epoch"] for epoch in newest(out)[number]["epochs"]] == [1, 2, 3, 4, 5, 6]
    report = json.loads((out / "report.json").read_text())
    assert report["trials"]["complete"] == 4
    assert command("report", out, "--verify").code == 0
    assert not (out / "workers" / "site.json").exists()
    assert [each.name for each in out.rglob("*.tmp")] == []


def test_a_worker_is_killed_and_nobody_needs_to_do_anything(start, command, line):
    out, search = line
    running = start(*search)
    running.wait_until(lambda: in_epoch(out, 1), 300)
    os.kill(workers_of(running.pid)[0], signal.SIGKILL)
    result = running.wait(300)
    assert result.code == 0, result.err
    assert_harmless(result)
    assert "goes on elsewhere as attempt 2: worker" in result.err
    records = newest(out)
    assert sorted(records) == [0, 1, 2, 3]
    assert {record["state"] for record in records.values()} == {"complete"}
    assert sorted(record["attempt"] for record in records.values()) == [1, 1, 1, 2]
    assert sum(record["notes"].get("lost", 0) for record in records.values()) == 1
    numbers = [number for number, record in records.items() if record["attempt"] == 2]
    assert [epoch["epoch"] for epoch in records[numbers[0]]["epochs"]] == [1, 2, 3, 4, 5, 6]
    exported = command("export", out, "--trial", str(numbers[0]), "--format", "pt", "--out", out / "exported")
    assert exported.code == 0, exported.err


def test_ctrl_c_ends_all_of_them_tidily(start, command, line):
    out, search = line
    running = start(*search)
    running.wait_until(lambda: in_epoch(out, 1), 300)
    pids = workers_of(running.pid)
    os.kill(running.pid, signal.SIGINT)
    result = running.wait(120)
    assert result.code == 130
    assert_harmless(result)
    assert all(map(is_gone, pids))
    assert json.loads((out / "report.json").read_text())["stop_reason"] == "interrupted"
    assert command("search", "--resume", out).code == 0
    assert set(complete(out)) == {0, 1, 2, 3}
