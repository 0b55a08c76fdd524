"""A search on two nodes, one of which is killed amid a trial: it ends as it does on one machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from command import QUICK, run_command

if find_spec("ray") is None:
    pytest.skip("ray is not installed", allow_module_level=True)
from cluster.loopback_cluster import LoopbackNode, descendants, loopback_cluster

pytestmark = pytest.mark.slow
SOURCE = Path(__file__).parents[2] / "src"
SEARCH = (*QUICK, "--trials", "2", "--epochs", "30", "--threads", "1", "--lineage", "names")
SECONDS = 240.0


def records(run: Path) -> list[dict[str, Any]]:
    return [json.loads(file.read_text()) for file in sorted((run / "trials").glob("*.json"))]


def works(node: LoopbackNode) -> bool:
    """Whether a slot is on this node."""
    commands = (Path(f"/proc/{pid}/cmdline") for pid in descendants(node.process.pid))
    return any(b"serve_slot" in each.read_bytes() for each in commands if each.exists())


def counts(report: dict[str, Any]) -> dict[str, Any]:
    """How many trials there were, and what became of them."""
    return {name: value for name, value in report["trials"].items() if name != "table"}


def both_train(run: Path) -> bool:
    busy = [each for each in records(run) if each["state"] == "running" and each["epochs"]]
    return len({each["number"] for each in busy}) == 2


def wait_until(happened: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    until = time.monotonic() + SECONDS
    while not happened():
        assert time.monotonic() < until, "it did not happen"
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.1)


def test_a_search_that_loses_a_node_ends_as_on_one_machine(smoke: Path, cache: Path, tmp_path: Path) -> None:
    local = tmp_path / "local"
    assert run_command("search", "--data", smoke, "--out", local, "--cache-dir", cache, *SEARCH).code == 0

    run = tmp_path / "cluster"
    with loopback_cluster(2, environment={"PYTHONPATH": str(SOURCE)}) as cluster:
        search = ["search", "--data", smoke, "--out", run, "--cache-dir", cache, *SEARCH, "--cluster", cluster.address]
        searching = subprocess.Popen(
            [sys.executable, "-m", "automl_vision", *search],
            env={**os.environ, **cluster.driver_environment, "PYTHONPATH": str(SOURCE)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            wait_until(lambda: works(cluster.nodes[1]) and both_train(run), searching)
            cluster.nodes[1].kill()
            said, _ = searching.communicate(timeout=SECONDS)
        finally:
            searching.kill()
            searching.communicate()
    assert searching.returncode == 0, said
    assert "Traceback" not in said
    assert "goes on elsewhere as attempt 2" in (run / "events.log").read_text()

    here, there = (json.loads((each / "report.json").read_text()) for each in (local, run))
    assert counts(there) == counts(here)
    assert there["test"]["n"] == here["test"]["n"]
    assert there["stop_reason"] == "trials"
    newest = {each["number"]: each for each in sorted(records(run), key=lambda each: each["attempt"])}
    assert {each["state"] for each in newest.values()} == {"complete"}
    assert any(each["notes"].get("lost") == 1 for each in newest.values())
    assert all(
        [epoch["epoch"] for epoch in each["epochs"]] == list(range(1, 31)) for each in newest.values() if each["epochs"]
    )
    assert run_command("report", run, "--verify").code == 0
    assert not (run / "workers" / "site.json").exists()
    assert not list(run.glob(".seen-*"))
