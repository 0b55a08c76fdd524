"""What all tests share."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings

# No test writes to the history of whoever runs it, nor does a process that a test starts.
os.environ["XDG_STATE_HOME"] = tempfile.mkdtemp(prefix="automl-vision-state-")
atexit.register(shutil.rmtree, os.environ["XDG_STATE_HOME"], ignore_errors=True)

# Before anything loads torch: idle OpenMP threads that spin make tests several times slower on a shared machine.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# Tests that run side by side share the cores: one thread each.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    # They are told the size of a terminal that is not there.
    os.environ.pop("COLUMNS", None)
    os.environ.pop("LINES", None)

# How long an example takes says something of the machine, and nothing of the code.
settings.register_profile("no-deadline", deadline=None)
settings.load_profile("no-deadline")

#: Files that take longest, the first ones first, many of them because they wait: for a cluster, or for processes that
#: they start. With files side by side, whoever gets one of these last keeps everybody waiting.
LONGEST = (
    "cli/test_examples.py",
    "executors/test_ray_cluster.py",
    "cli/test_interruption.py",
    "cli/test_cluster_search.py",
    "cli/test_two_ranks.py",
    "cli/test_trials_side_by_side.py",
    "cli/test_taken_away.py",
    "executors/test_workers.py",
    "cli/test_honest_number.py",
    "stages/test_site_of_shards.py",
    "stages/test_trial_site.py",
    "stages/test_model_limits.py",
    "training/test_ranks.py",
)
_HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first, all others as they were; with `--no-loadscope-reorder` they are begun in this order."""
    place = {_HERE / name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path, len(place)))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int | None:
    """One more than cores for `-n auto`: there is always somebody who waits for a process."""
    if "PYTEST_XDIST_AUTO_NUM_WORKERS" in os.environ:
        return None
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return cores + 1
