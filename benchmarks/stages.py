"""Seconds per stage of the example run, as a user would start it.

    python benchmarks/stages.py --runs 3 --json stages.json
    python benchmarks/stages.py --device cuda --holdout holdout    # the same on a GPU, and is the interval true?

Every run is a process of its own with an empty image cache, and pays for imports and decoding. With `--holdout`, a
labelled folder of other originals (examples/fashion_holdout.py makes one), the same model.pt is measured on it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from automl_vision.config import dump_settings, load_settings

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Measurement:
    """One run.

    Attributes:
        wall_seconds: from start to end of the process.
        cpu_seconds: user and system time of the process and all that it started.
        peak_mb: largest resident memory of any run so far, in MB (the system only keeps the maximum).
        stages: stage -> wall-clock seconds, as the run reports them.
        accuracy: test accuracy as {value, low, high}.
        test_images: size of the test set.
        stop_reason: why the search ended.
        holdout: accuracy of the same model on other originals; None where none were given.
    """

    wall_seconds: float
    cpu_seconds: float
    peak_mb: float
    stages: dict[str, float]
    accuracy: dict[str, float]
    test_images: int
    stop_reason: str
    holdout: float | None = None

    @property
    def covered(self) -> bool | None:
        """Whether the printed interval holds what the other originals say."""
        return None if self.holdout is None else self.accuracy["low"] <= self.holdout <= self.accuracy["high"]


def measure(command: Sequence[str], data: Path, config: Path, folder: Path, overrides: dict[str, Any]) -> Measurement:
    """Run one search in `folder` and read what it left.

    Raises:
        RuntimeError: the command failed; with its exit code and the end of its messages.
    """
    overrides = {**overrides, "output.runs": str(folder), "output.name": "run", "output.history": False}
    file = folder / "settings.toml"
    file.write_text(dump_settings(load_settings(config, overrides)), encoding="utf-8")
    before, start = _cpu_seconds(), time.monotonic()
    arguments = [*command, "search", "--data", str(data), "--config", str(file)]
    _run(arguments)
    wall, cpu = time.monotonic() - start, _cpu_seconds() - before
    report = json.loads((folder / "run" / "report.json").read_text(encoding="utf-8"))
    return _measurement(report, wall, cpu)


def on_holdout(command: Sequence[str], folder: Path, holdout: Path) -> float:
    """Accuracy of the model of the run in `folder` on other originals.

    Raises:
        RuntimeError: the command failed.
    """
    said = _run([*command, "evaluate", str(folder / "run" / "model.pt"), "--data", str(holdout), "--json"])
    return float(json.loads(said)["accuracy"]["value"])


def _run(arguments: Sequence[str]) -> str:
    done = subprocess.run(arguments, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{shlex.join(arguments)} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    return done.stdout


def _measurement(report: dict[str, Any], wall: float, cpu: float) -> Measurement:
    return Measurement(
        wall_seconds=wall,
        cpu_seconds=cpu,
        peak_mb=resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * _MAXRSS_UNIT / 1e6,
        stages=report["seconds"],
        accuracy={key: report["test"]["accuracy"][key] for key in ("value", "low", "high")},
        test_images=report["test"]["n"],
        stop_reason=report["stop_reason"],
    )


#: Linux counts in kibibytes, macOS in bytes.
_MAXRSS_UNIT = 1 if sys.platform == "darwin" else 1024


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def table(measurements: Sequence[Measurement]) -> str:
    """Median, smallest and largest of everything, and the accuracies, as text."""
    rows = {"wall clock": [each.wall_seconds for each in measurements]}
    rows["CPU"] = [each.cpu_seconds for each in measurements]
    stages = list(dict.fromkeys(name for each in measurements for name in each.stages))
    rows |= {f"stage {name}": [each.stages.get(name, 0.0) for each in measurements] for name in stages}
    width = max(map(len, rows))
    lines = [f"{'seconds':<{width}}  {'median':>8} {'least':>8} {'most':>8}"]
    lines += [
        f"{name:<{width}}  {statistics.median(values):8.2f} {min(values):8.2f} {max(values):8.2f}"
        for name, values in rows.items()
    ]
    return "\n".join([*lines, *map(_accuracy_line, measurements)])


def _accuracy_line(each: Measurement) -> str:
    value, low, high = (each.accuracy[key] for key in ("value", "low", "high"))
    line = f"test accuracy {value:.3f} [{low:.3f}, {high:.3f}], n = {each.test_images}; stop: {each.stop_reason}"
    if each.holdout is None:
        return line
    return f"{line}; on other originals {each.holdout:.3f}, {'covered' if each.covered else 'NOT covered'}"


def machine() -> dict[str, Any]:
    """What a reader needs to know to compare."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "platform": platform.platform(),
        "python": platform.python_version(),
        "threads": allowed,
        "load_at_start": os.getloadavg()[0],
    }


def find_command() -> str:
    """The command beside this Python, else on the PATH.

    Raises:
        FileNotFoundError: there is none.
    """
    beside = shutil.which("automl-vision", path=str(Path(sys.executable).parent))
    found = beside or shutil.which("automl-vision")
    if not found:
        raise FileNotFoundError("automl-vision is not installed; run this with `uv run python`")
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--data", type=Path, default=ROOT / "examples" / "fashion")
    parser.add_argument("--config", type=Path, default=ROOT / "configs" / "quick.toml")
    parser.add_argument("--warm", action="store_true", help="keep decoded images from run to run")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda ...")
    parser.add_argument("--holdout", type=Path, help="labelled folder of other originals to measure the model on")
    parser.add_argument("--json", type=Path, help="also write everything to this file")
    parser.add_argument("--command", help="the program to measure (default: automl-vision)")
    options = parser.parse_args(arguments)
    command = shlex.split(options.command) if options.command else [find_command()]
    about = machine() | {"data": str(options.data), "config": str(options.config), "warm": options.warm}
    measured = []
    with tempfile.TemporaryDirectory() as scratch:
        for number in range(options.runs):
            folder = Path(scratch) / str(number)
            folder.mkdir()
            cache = Path(scratch) / "cache" if options.warm else folder / "cache"
            overrides = {"machine.cache_dir": str(cache), "machine.device": options.device}
            one = measure(command, options.data, options.config, folder, overrides)
            if options.holdout:
                one = replace(one, holdout=on_holdout(command, folder, options.holdout))
            measured.append(one)
            print(f"run {number + 1}: {_accuracy_line(measured[-1])}", file=sys.stderr)
    print(table(measured))
    if options.json:
        result = {"machine": about, "runs": [asdict(each) for each in measured]}
        options.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
