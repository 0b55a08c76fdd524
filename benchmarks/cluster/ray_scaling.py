"""What `scaling.py` measures of workers on this machine, of slots of a Ray cluster on it.

    python benchmarks/cluster/ray_scaling.py --workers 1 2 4

One node with as many processors as the most slots; jobs only wait. Prints one JSON object per number of slots.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[1]))
from automl_vision.executors.ray_cluster import RayExecutor, Share
from automl_vision.executors.ray_connection import RayConnection, connect
from automl_vision.executors.workplace import Values, Workplace
from cluster.loopback_cluster import loopback_cluster
from cluster.scaling import OPENING, ideal, lengths, seconds_per_report, timed


def measured(connection: RayConnection, slots: int, options: argparse.Namespace) -> dict[str, Any]:
    """One row of the table."""
    jobs = lengths(options.jobs * slots, options.seconds)
    with tempfile.TemporaryDirectory() as folder:
        workplace: Workplace[Values, Values] = Workplace(opening=OPENING, folder=folder, logs=Path(folder, "workers"))
        executor = RayExecutor(workplace, connection, Share(1, 0), max_parallel=slots)
        try:
            timed(executor, [0.0] * 4 * slots)  # every slot is ready then
            took, linear = timed(executor, jobs), ideal(jobs, slots)
            report = seconds_per_report(executor, options.reports, options.bytes)
        finally:
            executor.close()
    return {
        "executor": "ray",
        "workers": slots,
        "jobs": len(jobs),
        "seconds": round(took, 2),
        "linear": round(linear, 2),
        "share_of_linear": round(linear / took, 3),
        "ms_per_report": round(1000 * report, 3),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Print one JSON object per number of slots."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--jobs", type=int, default=20, help="for each slot")
    parser.add_argument("--seconds", type=float, default=1.0, help="that a job waits, on average")
    parser.add_argument("--reports", type=int, default=2_000)
    parser.add_argument("--bytes", type=int, default=4_000, help="of a report")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what was started is ended then, too
    benchmarks = str(Path(__file__).resolve().parents[1])
    paths = os.pathsep.join(filter(None, [benchmarks, os.environ.get("PYTHONPATH", "")]))
    with loopback_cluster(1, cpus=max(options.workers), environment={"PYTHONPATH": paths}) as cluster:
        os.environ.update(cluster.driver_environment)
        connection = connect(cluster.address)
        try:
            for slots in options.workers:
                print(json.dumps(measured(connection, slots, options)), flush=True)
        finally:
            connection.close()


if __name__ == "__main__":
    main()
