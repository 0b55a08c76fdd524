"""Killed, stopped, resumed: what was done stays done."""

from __future__ import annotations

import json
import os
import signal

import pytest
from command import QUICK, assert_harmless, assert_mistake

from automl_vision import load


@pytest.fixture
def line(smoke, cache, tmp_path):
    """A search of one probe and three fine-tunes of four epochs each, and its folder."""
    out = tmp_path / "run"
    options = [*QUICK, "--cache-dir", cache, "--out", out, "--trials", "3", "--epochs", "4", "--threads", "1"]
    return out, ["search", "--data", smoke, *options]


def records(out):
    """Trial number -> bytes of its record, of trials that are complete."""
    files = sorted((out / "trials").glob("*.json"))
    return {file.stem: file.read_bytes() for file in files if json.loads(file.read_bytes())["state"] == "complete"}


def state(out, number):
    file = out / "trials" / f"{number:06d}.json"
    return json.loads(file.read_text()) if file.exists() else None


def in_epoch(out, number, epochs):
    """Whether this trial, or a later one, is a fine-tune at work beyond its first epochs."""
    records = [record for each in range(number, 4) if (record := state(out, each))]
    return any(record["state"] == "running" and len(record["epochs"]) >= epochs for record in records)


MOMENTS = {
    "after the first record": lambda out: state(out, 0) is not None,
    "within a fine-tune": lambda out: in_epoch(out, 1, 1),
    "within a later one": lambda out: in_epoch(out, 2, 2),
}


def test_kill_at_several_moments_loses_and_repeats_nothing(start, command, line):
    out, search = line
    done = {}
    for number, happened in enumerate(MOMENTS.values()):
        running = start(*(search if number == 0 else ["search", "--resume", out]))
        running.wait_until(lambda now=happened: now(out))
        running.kill()
        assert running.wait().code == -signal.SIGKILL
        kept = records(out)
        assert {name: kept.get(name) for name in done} == done, "a completed trial was lost or done again"
        done = kept
    assert done
    assert not (out / "report.json").exists()
    result = command("search", "--resume", out)
    assert result.code == 0, result.err
    assert_harmless(result)
    after = records(out)
    assert {name: after[name] for name in done} == done
    assert len(after) == 4
    for number in (1, 2, 3):
        assert [epoch["epoch"] for epoch in state(out, number)["epochs"]] == [1, 2, 3, 4]
    assert command("report", out, "--verify").code == 0
    assert json.loads((out / "report.json").read_text())["trials"]["complete"] == 4
    assert [each.name for each in out.rglob("*.tmp")] == []


def test_ctrl_c_ends_tidily_and_resume_goes_on(start, command, line, smoke):
    out, search = line
    running = start(*search)
    running.wait_until(lambda: in_epoch(out, 1, 1))
    os.kill(running.pid, signal.SIGINT)
    result = running.wait()
    assert result.code == 130
    assert_harmless(result)
    assert "Stopping tidily" in result.err
    assert (
        "Stopped: the search was stopped early; the report tells what it had reached\nFix: go on with: " in result.err
    )
    assert f"automl-vision search --resume {out}" in result.err
    report = json.loads((out / "report.json").read_text())
    assert report["stop_reason"] == "interrupted"
    assert len(report["looks"]) == 1
    assert command("report", out, "--verify").code == 0
    assert command("predict", out / "model.pt", smoke / "circle").code == 0
    done = records(out)

    resumed = command("search", "--resume", out)
    assert resumed.code == 0, resumed.err
    assert "look 2 at the test set" in resumed.err
    report = json.loads((out / "report.json").read_text())
    assert report["stop_reason"] == "trials"
    assert [look["number"] for look in report["looks"]] == [1, 2]
    assert any("looked at 2 times" in warning for warning in report["warnings"])
    assert "looked at 2 times" in resumed.out
    assert "opened 2 times" in (out / "README.md").read_text()
    assert [look["number"] for look in load(out / "model.pt").bundle.provenance["looks"]] == [1, 2]
    after = records(out)
    assert {name: after[name] for name in done} == done
    assert len(after) == 4


def test_a_second_process_is_refused_while_the_first_works(start, command, line):
    out, search = line
    running = start(*search)
    running.wait_until(lambda: in_epoch(out, 1, 1))
    os.kill(running.pid, signal.SIGSTOP)
    result = command("search", "--resume", out)
    os.kill(running.pid, signal.SIGCONT)
    assert_mistake(result, 75, "another process works in this run folder", f"process {running.pid}")
    running.kill()
    assert command("search", "--resume", out, "--quiet").code == 0


def test_resume_with_other_images_is_refused(start, command, quick, tmp_path):
    from make_smoke_data import make_smoke_data

    data, out = tmp_path / "data", tmp_path / "run"
    make_smoke_data(data)
    running = start("search", "--data", data, *quick, "--out", out)
    running.wait_until(lambda: state(out, 0) is not None)
    running.kill()
    (data / "circle" / "0000.png").unlink()
    result = command("search", "--resume", out, "--quiet")
    assert_mistake(result, 2, "the data changed since the run began", str(data), "restore the images")


def test_a_stop_before_there_is_a_model(start, line):
    out, search = line
    running = start(*search)
    running.wait_until(lambda: (out / "run.json").exists())
    os.kill(running.pid, signal.SIGINT)
    result = running.wait()
    assert result.code == 130, result.err
    assert_harmless(result)
    assert f"--resume {out}" in result.err


def test_twice_ctrl_c_ends_at_once(start, line):
    out, search = line
    running = start(*search)
    running.wait_until(lambda: in_epoch(out, 1, 1))
    os.kill(running.pid, signal.SIGINT)
    running.wait_until(lambda: "Stopping tidily" in running.said())
    os.kill(running.pid, signal.SIGINT)
    assert running.wait(30).code == -signal.SIGINT


@pytest.mark.slow
def test_a_short_budget_ends_with_a_model_and_a_report(command, smoke, cache, tmp_path):
    out = tmp_path / "run"
    options = ("--backbones", "efficientnet_lite0", "--resolutions", "32", "--offline", "--cache-dir", cache)
    result = command("search", "--data", smoke, "--budget", "25s", *options, "--out", out, "--json")
    assert result.code == 0, result.err
    report = json.loads(result.out)
    assert report["budget_seconds"] == 25
    assert sum(report["seconds"].values()) < 75
    assert report["stop_reason"] in {"budget", "trials", "converged"}
    assert (out / "model.pt").exists()
    assert (out / "report.html").exists()
    assert command("report", out, "--verify").code == 0
