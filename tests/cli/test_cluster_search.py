"""Searches on two nodes: one model by ranks on both of them; a node killed amid a trial changes nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from command import QUICK, run_command

if find_spec("ray") is None:
    pytest.skip("ray is not installed", allow_module_level=True)
from cluster.loopback_cluster import LoopbackCluster, LoopbackNode, descendants, loopback_cluster
from cluster.runs import ranks_of

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
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)


@pytest.fixture(scope="module")
def cluster() -> Iterator[LoopbackCluster]:
    """Two nodes of one processor each; the tests are in the order in which they use them up."""
    with loopback_cluster(2, environment={"PYTHONPATH": str(SOURCE)}) as cluster:
        yield cluster


@contextmanager
def searching(cluster: LoopbackCluster, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """A search on the cluster; it does not outlive the block."""
    process = subprocess.Popen(
        [sys.executable, "-m", "automl_vision", "search", *map(str, arguments), "--cluster", cluster.address],
        env={**os.environ, **cluster.driver_environment, "PYTHONPATH": str(SOURCE)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def test_ranks_on_two_nodes_train_one_model_and_are_started_again(
    cluster: LoopbackCluster, smoke: Path, cache: Path, tmp_path: Path
) -> None:
    run, options = tmp_path / "together", (*SEARCH, "--epochs", "12", "--refit", "off", "--json")
    with searching(cluster, "--data", smoke, "--out", run, "--cache-dir", cache, *options, "--ddp", "2") as process:
        wait_until(lambda: any(each["state"] == "complete" for each in records(run)), process)
        ranks = ranks_of(run)
        nodes = [set(descendants(node.process.pid)) for node in cluster.nodes]
        assert [[pid in node for node in nodes].count(True) for pid in ranks.values()] == [1, 1]
        assert all(any(pid in node for pid in ranks.values()) for node in nodes), "each node has one of them"
        os.kill(ranks[1], signal.SIGKILL)
        said, errors = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, errors
    assert "A process that trains with the others is gone" in errors
    assert "Traceback" not in errors
    assert json.loads(said)["run"] == str(run), "the first rank alone prints, and its result is the only one"
    assert {each["state"] for each in records(run)} == {"complete"}
    assert (run / "workers" / "rank-1.log").is_file()
    assert ranks_of(run) == {}
    assert run_command("report", run, "--verify").code == 0
    assert not list(tmp_path.glob(".seen-*"))


def test_a_search_that_loses_a_node_ends_as_on_one_machine(
    cluster: LoopbackCluster, smoke: Path, cache: Path, tmp_path: Path
) -> None:
    local = tmp_path / "local"
    assert run_command("search", "--data", smoke, "--out", local, "--cache-dir", cache, *SEARCH).code == 0

    run = tmp_path / "cluster"
    with searching(cluster, "--data", smoke, "--out", run, "--cache-dir", cache, *SEARCH) as process:
        wait_until(lambda: works(cluster.nodes[1]) and both_train(run), process)
        cluster.nodes[1].kill()
        said, errors = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, errors
    assert "Traceback" not in said + errors
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
