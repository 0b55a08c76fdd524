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
from cluster.scaling import OPENING, command_line, row


def measured(connection: RayConnection, slots: int, options: argparse.Namespace) -> dict[str, Any]:
    """One row of the table."""
    with tempfile.TemporaryDirectory() as folder:
        workplace: Workplace[Values, Values] = Workplace(opening=OPENING, folder=folder, logs=Path(folder, "workers"))
        return row("ray", RayExecutor(workplace, connection, Share(1, 0), max_parallel=slots), slots, options)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print one JSON object per number of slots."""
    options = command_line(__doc__).parse_args(arguments)
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
