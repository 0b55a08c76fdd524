"""Do several workers do several times as much, and what does a report through the connection cost?

    python benchmarks/cluster/scaling.py --executor workers --workers 1 2 4

Jobs only wait, `--seconds` each on average (the half to one and a half times of it), so that what is measured is the
executor and not the cores. Linear is what the same jobs take one after the other, divided by the workers, where each
worker that is free takes the next job; more than that is overhead. Workers have started before the clock does.

The overhead of a report is what one job of `--reports` reports takes, from the first to the last, over their number.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from automl_vision.executors import EXECUTORS, Executor, Slot, Workplace
from automl_vision.executors.workplace import Orders, PlainWork, Values

OPENING = "cluster.scaling:open_waiting"
_HERE = Path(__file__).resolve().parent.parent


def open_waiting(_folder: str, _orders: Orders) -> PlainWork:
    """Work that waits for the `seconds` of a job, and tells of progress so many times before."""

    def wait(job: Values) -> Iterator[Values]:
        for number in range(job["reports"]):
            yield {"number": number, "padding": "x" * job["bytes"]}
        time.sleep(job["seconds"])
        yield {"done": True}

    return wait


def lengths(count: int, seconds: float) -> list[float]:
    """Seconds of each job, the same every time."""
    draw = random.Random(0)
    return [seconds * draw.uniform(0.5, 1.5) for _ in range(count)]


def ideal(jobs: Sequence[float], workers: int) -> float:
    """Seconds until the last job ended where every worker that is free takes the next one at once."""
    free_at = [0.0] * workers
    for seconds in jobs:
        first = free_at.index(min(free_at))
        free_at[first] += seconds
    return max(free_at)


def timed(executor: Executor[Values, Values], jobs: Sequence[float]) -> float:
    """Seconds that these jobs took."""
    started, waiting, ended = time.perf_counter(), list(enumerate(jobs)), 0
    while ended < len(jobs):
        while waiting and executor.free_slots:
            number, seconds = waiting.pop(0)
            executor.submit(number, 1, {"seconds": seconds, "reports": 0, "bytes": 0})
        ended += sum(report.ended for report in executor.poll())
    return time.perf_counter() - started


def seconds_per_report(executor: Executor[Values, Values], reports: int, size: int) -> float:
    """Of one job that tells of progress as fast as it is heard."""
    executor.submit(10**6, 1, {"seconds": 0.0, "reports": reports, "bytes": size})
    times: list[float] = []
    ended = False
    while not ended:
        for report in executor.poll():
            times += [time.perf_counter()] if report.progress is not None else []
            ended = ended or report.ended
    return (times[-1] - times[0]) / (len(times) - 1)


def measured(name: str, workers: int, options: argparse.Namespace) -> dict[str, Any]:
    """One row of the table."""
    with tempfile.TemporaryDirectory() as folder:
        workplace: Workplace[Values, Values] = Workplace(
            here=open_waiting(folder, Orders()),
            opening=OPENING,
            folder=folder,
            slots=(Slot(),) * workers,
            logs=Path(folder, "workers"),
        )
        return row(name, EXECUTORS[name](workplace), workers, options)


def row(name: str, executor: Executor[Values, Values], workers: int, options: argparse.Namespace) -> dict[str, Any]:
    """What an executor with so many workers does; it is closed then."""
    jobs = lengths(options.jobs * workers, options.seconds)
    try:
        timed(executor, [0.0] * 4 * workers)  # every worker is ready then
        took, linear = timed(executor, jobs), ideal(jobs, workers)
        report = seconds_per_report(executor, options.reports, options.bytes)
    finally:
        executor.close()
    return {
        "executor": name,
        "workers": workers,
        "jobs": len(jobs),
        "seconds": round(took, 2),
        "linear": round(linear, 2),
        "share_of_linear": round(linear / took, 3),
        "ms_per_report": round(1000 * report, 3),
    }


def command_line(about: str | None) -> argparse.ArgumentParser:
    """The options that all executors have."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--jobs", type=int, default=20, help="for each worker")
    parser.add_argument("--seconds", type=float, default=1.0, help="that a job waits, on average")
    parser.add_argument("--reports", type=int, default=2_000)
    parser.add_argument("--bytes", type=int, default=4_000, help="of a report; that of a trial of ten epochs has 3,000")
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Print one JSON object per number of workers."""
    parser = command_line(__doc__)
    parser.add_argument("--executor", default="workers", choices=sorted(EXECUTORS.keys() - {"ranks"}))
    options = parser.parse_args(arguments)
    for workers in options.workers:
        print(json.dumps(measured(options.executor, workers, options)), flush=True)


if __name__ == "__main__":
    sys.path.append(str(_HERE))  # where workers find this very module
    main()
