"""Is the budget kept, and is there always a model? Ten budgets from 20 seconds to 10 minutes on one data set.

    python benchmarks/budget_kept.py --data examples/fashion --json kept.json
    python benchmarks/budget_kept.py --data examples/fashion --budgets 20 60

The wall-clock time is that of the whole command, from start to exit. The bar: never over by more than 2 % or 5 seconds,
whichever is more, and always a model. Exit code 1 where a run misses it. A budget that the JSON file has already is
not measured again.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from stages import ROOT, find_command, machine
from timed_process import run_timed

BUDGETS = (20.0, 30.0, 45.0, 60.0, 90.0, 120.0, 180.0, 300.0, 450.0, 600.0)
#: A run may take this share of its budget longer, or these seconds, whichever is more.
SHARE_OVER, SECONDS_OVER = 0.02, 5.0
#: A command that takes this many times its budget and a minute is killed.
PATIENCE = 3.0


@dataclass(frozen=True)
class Kept:
    """One run.

    Attributes:
        budget: seconds that it was given.
        wall_seconds: that the command took.
        cpu_seconds: that it got in them.
        load: of the machine, one-minute average, when it began.
        code: its exit code.
        model: whether it left a model file.
        accuracy: on its own test images; None where there is no report.
        stop_reason: why the search ended; empty where there is no report.
    """

    budget: float
    wall_seconds: float
    cpu_seconds: float
    load: float
    code: int
    model: bool
    accuracy: float | None
    stop_reason: str

    @property
    def over(self) -> float:
        """Seconds over the budget; negative where some are left."""
        return self.wall_seconds - self.budget

    @property
    def passes(self) -> bool:
        """Whether the budget was kept and there is a model."""
        return self.model and self.code == 0 and self.over <= max(SHARE_OVER * self.budget, SECONDS_OVER)


def measure(command: Sequence[str], data: Path, budget: float, device: str, options: Sequence[str] = ()) -> Kept:
    """Run one search with an empty image cache.

    Args:
        command: the program.
        data: the images.
        budget: seconds.
        device: for `--device`.
        options: more for `search`.
    """
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "run"
        line = [*command, "search", "--data", str(data), "--budget", f"{budget:g}s", "--out", str(out), "--quiet"]
        line += ["--cache-dir", str(Path(scratch) / "cache"), "--device", device, *options]
        ended = run_timed(line, kill_after=PATIENCE * budget + 60)
        report = out / "report.json"
        told = json.loads(report.read_text("utf-8")) if report.is_file() else {}
        return Kept(
            budget=budget,
            wall_seconds=round(ended.wall_seconds, 2),
            cpu_seconds=round(ended.cpu_seconds, 2),
            load=round(load, 2),
            code=ended.code,
            model=(out / "model.pt").is_file(),
            accuracy=told["test"]["accuracy"]["value"] if told else None,
            stop_reason=told.get("stop_reason", ""),
        )


def table(runs: Sequence[Kept]) -> str:
    """One line per run, and how many passed, in Markdown."""
    lines = ["| budget, s | wall, s | over, s | CPU, s | load | model | accuracy | stop | kept |", "|---" * 9 + "|"]
    for each in sorted(runs, key=lambda run: run.budget):
        accuracy = "" if each.accuracy is None else f"{each.accuracy:.3f}"
        stop = each.stop_reason or f"exit code {each.code}"
        seconds = f"{each.budget:g} | {each.wall_seconds:.1f} | {each.over:+.1f} | {each.cpu_seconds:.1f}"
        model, kept = ("yes" if fine else "NO" for fine in (each.model, each.passes))
        lines.append(f"| {seconds} | {each.load:.1f} | {model} | {accuracy} | {stop} | {kept} |")
    passed = sum(each.passes for each in runs)
    return "\n".join([*lines, "", f"{passed} of {len(runs)} kept their budget and left a model"])


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; 1 where a run misses the bar."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=ROOT / "examples" / "fashion")
    parser.add_argument("--budgets", type=float, nargs="+", default=BUDGETS, help="seconds")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda ...")
    parser.add_argument("--options", default="", help="more options for search, in one text")
    parser.add_argument("--json", type=Path, help="results; what is there already is kept")
    parser.add_argument("--command", help="the program to measure (default: automl-vision)")
    options = parser.parse_args(arguments)
    command = shlex.split(options.command) if options.command else [find_command()]
    known = json.loads(options.json.read_text("utf-8"))["runs"] if options.json and options.json.exists() else []
    runs = [Kept(**each) for each in known]
    about = machine() | {"data": str(options.data), "device": options.device, "options": options.options}
    for budget in options.budgets:
        if any(each.budget == budget for each in runs):
            continue
        runs.append(measure(command, options.data, budget, options.device, shlex.split(options.options)))
        print(f"{budget:g} s: {runs[-1].over:+.1f} s, {runs[-1].stop_reason}", file=sys.stderr, flush=True)
        if options.json:
            content = {"machine": about, "runs": [asdict(each) for each in runs]}
            options.json.write_text(json.dumps(content, indent=1) + "\n", "utf-8")
    print(table(runs))
    return int(not all(each.passes for each in runs))


if __name__ == "__main__":
    sys.exit(main())
