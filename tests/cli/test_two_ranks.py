"""`search --ddp 2`: torchrun, two processes, one model."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from command import BY_NAMES, QUICK

from automl_vision import load
from automl_vision.cli import torchrun
from cluster.runs import outcome, ranks_of, records

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are found in /proc")


@pytest.fixture
def ddp(smoke, cache):
    fixed = ("--epochs", "30", "--batch-size", "4", "--mix", "mixup", "--drop-path", "0.2", "--refit", "off")
    return ["search", "--data", str(smoke), *QUICK, *fixed, "--cache-dir", str(cache), "--ddp", "2", "--json"]


def started(*arguments):
    return subprocess.Popen(
        [sys.executable, "-m", "automl_vision", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_until(happened, running, seconds=300):
    ends = time.monotonic() + seconds
    while not happened():
        assert running.poll() is None, running.communicate()
        assert time.monotonic() < ends
        time.sleep(0.05)


@pytest.mark.slow
def test_a_rank_that_is_killed_costs_nothing_but_time(ddp, tmp_path):
    undisturbed, out = tmp_path / "undisturbed", tmp_path / "run"
    straight = started(*ddp, "--out", undisturbed)
    said, errors = straight.communicate(timeout=600)
    assert straight.returncode == 0, errors
    assert json.loads(said)["run"] == str(undisturbed), "the first rank alone prints the result"
    running = started(*ddp, "--out", out)
    wait_until(lambda: any(each["state"] == "complete" for each in records(out).values()), running)
    os.kill(ranks_of(out)[1], signal.SIGKILL)
    said, errors = running.communicate(timeout=600)
    assert running.returncode == 0, errors
    assert "Traceback" not in said
    assert outcome(out) == outcome(undisturbed)
    report = json.loads((out / "report.json").read_text())
    assert report["stop_reason"] == "trials"
    assert len(json.loads((out / "looks.json").read_text())) == 1
    assert (out / "workers" / "rank-1.log").is_file()
    assert [each.name for each in (out / "workers").iterdir()] == ["rank-1.log"], "no file names paths of this machine"
    assert load(out / "model.pt").class_names
    assert ranks_of(out) == {}


@pytest.mark.slow
def test_two_ranks_train_on_shards(command, smoke, cache, tmp_path):
    shards, out = tmp_path / "shards", tmp_path / "run"
    assert command("shard", "--data", smoke, "--out", shards, "--shard-images", "4", *BY_NAMES).code == 0
    options = (*QUICK, *BY_NAMES, "--no-decode-ahead", "--refit", "off", "--cache-dir", str(cache))
    running = started("search", "--data", shards, "--out", out, *options, "--ddp", "2", "--json")
    _, errors = running.communicate(timeout=600)
    assert running.returncode == 0, errors
    assert json.loads((out / "run.json").read_text())["by_shards"] is True
    assert [each["state"] for each in records(out).values() if each["recipe"]["kind"] == "finetune"] == ["complete"]


@pytest.mark.slow
def test_sigterm_reaches_the_first_rank_and_leaves_no_process(ddp, tmp_path):
    out = tmp_path / "run"
    running = started(*ddp, "--out", out)
    wait_until(lambda: any(each["state"] == "complete" for each in records(out).values()), running)
    running.terminate()
    asked = time.monotonic()
    _, errors = running.communicate(timeout=60)
    assert time.monotonic() - asked < 12
    assert running.returncode == 75, errors
    assert f"go on with: automl-vision search --resume {out}" in errors
    assert not (out / "report.json").exists()
    ends = time.monotonic() + 15
    while ranks_of(out) and time.monotonic() < ends:
        time.sleep(0.1)
    assert ranks_of(out) == {}


@pytest.mark.parametrize(
    ("told", "taken", "last"),
    [(None, None, False), (0, None, True), (2, 5.0, True), (75, None, False), (75, 5.0, True)],
)
def test_75_is_the_last_word_only_where_sigterm_came_from_outside(told, taken, last):
    """torchrun sends it too, to the ranks that are left when one has died."""
    asked = torchrun._Asked()
    asked.taken_at = taken
    assert torchrun._is_last_word(told, asked) is last


def test_the_first_rank_tells_how_it_ended_in_front(monkeypatch, tmp_path):
    assert torchrun.told_in_front(5) == 5
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    assert torchrun.told_in_front(5) == 5, "whoever started torchrun reads the exit code"
    monkeypatch.setenv("AUTOML_VISION_TALK", str(tmp_path))
    assert torchrun.told_in_front(5) == 0
    assert torchrun._told(tmp_path) == 5
    monkeypatch.setenv("RANK", "1")
    assert torchrun.told_in_front(7) == 7


def test_a_joined_search_needs_to_know_its_folder(command, smoke, monkeypatch):
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torchrun, "introduce", lambda: None)
    result = command("search", "--data", smoke, "--ddp", "2")
    assert result.code == 2
    assert "have to know the folder of the run" in result.err
    assert command("search", "--data", smoke, "--ddp", "2", "--max-parallel", "2").code == 2
