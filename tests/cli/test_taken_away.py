"""SIGTERM: the machine is wanted for something else."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest
from command import QUICK, assert_harmless

from automl_vision.cli import signals
from automl_vision.cli.signals import stop_on_signal
from cluster.runs import outcome


def stages(out):
    log = out / "events.log"
    lines = log.read_text().splitlines() if log.exists() else []
    return [line.split(" stage ")[1].split()[0] for line in lines if " stage " in line]


def epochs(out, number):
    file = out / "trials" / f"{number:06d}.json"
    return len(json.loads(file.read_text())["epochs"]) if file.exists() else 0


MOMENTS = {
    "before the first stage": lambda out: (out / "run.json").exists(),
    "within a fine-tune": lambda out: epochs(out, 1) >= 2,
    "after the search": lambda out: "costs" in stages(out),
}


@pytest.fixture
def search(smoke, cache):
    fixed = ("--epochs", "5", "--mix", "mixup", "--drop-path", "0.2", "--refit", "on", "--threads", "1", "--quiet")
    return ["search", "--data", smoke, *QUICK, *fixed, "--cache-dir", cache]


def test_a_search_that_is_taken_away_again_and_again_ends_as_the_undisturbed_one(start, command, search, tmp_path):
    undisturbed, out = tmp_path / "undisturbed", tmp_path / "run"
    assert command(*search, "--out", undisturbed).code == 0
    for number, happened in enumerate(MOMENTS.values()):
        running = start(*(["search", "--resume", out, "--quiet"] if number else [*search, "--out", out]))
        running.wait_until(lambda now=happened: now(out))
        os.kill(running.pid, signal.SIGTERM)
        asked = time.monotonic()
        result = running.wait()
        assert time.monotonic() - asked < 10
        assert result.code == 75, result.err
        assert_harmless(result)
        (line,) = [each for each in result.err.splitlines() if each.startswith("Stopped: ")]
        assert f"go on with: automl-vision search --resume {out}" in line
        assert not (out / "report.json").exists()
        assert not (out / "looks.json").exists()
    assert command("search", "--resume", out, "--quiet").code == 0
    assert outcome(out) == outcome(undisturbed)
    assert len(json.loads((out / "looks.json").read_text())) == 1
    assert [each.name for each in out.rglob("*.tmp")] == []
    assert not (out / "trials" / "refit.pt").exists()


def test_sigterm_takes_away_and_ctrl_c_stops_tidily():
    former = signal.getsignal(signal.SIGTERM)
    with stop_on_signal(announce=False) as stop:
        stop.go_on = "go on with: automl-vision search --resume run"
        os.kill(os.getpid(), signal.SIGINT)
        assert (stop.requested, stop.taken) == (True, False)
        for _ in range(3):  # batch systems tell every process of a job, and whoever started it tells it again
            os.kill(os.getpid(), signal.SIGTERM)
        assert stop.taken
        assert any(thread.name == "grace" for thread in threading.enumerate())
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN, "told once more on its way out, it is still 75"
    signal.signal(signal.SIGTERM, former)
    assert all(thread.name != "grace" for thread in threading.enumerate())
    assert stop.taken_away().exit_code == 75


def test_nothing_keeps_a_process_beyond_its_grace():
    """What never looks at the request, and is told once more meanwhile, ends all the same."""
    deaf = (
        "import os, signal, time\n"
        "from automl_vision.cli import signals\n"
        "signals.GRACE = 0.5\n"
        "with signals.stop_on_signal(announce=False) as stop:\n"
        "    stop.go_on = 'go on with: it'\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    while True:\n"
        "        time.sleep(0.2)\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\n"
    )
    ended = subprocess.run([sys.executable, "-c", deaf], capture_output=True, text=True, timeout=30, check=False)
    assert ended.returncode == 75
    assert ended.stderr.startswith("Stopped: told to end (SIGTERM)")
    assert "go on with: it" in ended.stderr
    assert signals.GRACE < 10


def test_a_search_that_has_not_begun_ends_at_once():
    importing = (
        "import os, signal, time\n"
        "from automl_vision.cli import signals\n"
        "with signals.stop_on_signal(announce=False):\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    while True:\n"
        "        time.sleep(0.2)\n"
    )
    began = time.monotonic()
    ended = subprocess.run([sys.executable, "-c", importing], capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 75
    assert "start it again with the same command" in ended.stderr
    assert time.monotonic() - began < signals.GRACE
