"""Everything that is worth measuring on a GPU, in parts of less than ten minutes each.

    python benchmarks/on_gpu.py duel --out results     # 60 s: ours and three published recipes; 300 s: ours
    python benchmarks/on_gpu.py speed --out results    # the GPU's column of benchmarks/speed.py
    python benchmarks/on_gpu.py steps --out results    # compiled or not, resident or not (benchmarks/gpu_steps.py)
    python benchmarks/on_gpu.py duel --out results --device cpu --scale 0.05    # does it run?

Downloads nothing: the images are generated, or those of scikit-learn. A step that does not end in the time that is left
is killed; what was measured by then is in `results`. Where packages of the project are missing, lay their wheels into a
folder beforehand and call `pip install --no-index --find-links FOLDER` for them.
Tests that need a GPU: `python -m pytest -k gpu tests/models tests/training`.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
#: Seconds for a part, the start of Python included.
LIMIT = 570.0


@dataclass(frozen=True)
class Settings:
    """What the steps are told: a device, a factor on their times and sizes for a trial run, where results go."""

    device: str
    scale: float
    out: Path


#: A program of this folder with its arguments.
Step = list[str]


def _duel(settings: Settings) -> list[Step]:
    file = ["--json", str(settings.out / "duel.json"), "--device", settings.device, "--cells", "digits:1000"]

    def step(budget: float, *arms: str) -> Step:
        return ["duel.py", *file, "--budgets", f"{max(20.0, settings.scale * budget):g}", "--arms", *arms]

    return [step(60, "ours", "fastai", "autogluon", "bit"), step(300, "ours")]


def _speed(settings: Settings) -> list[Step]:
    few = [] if settings.scale >= 1 else ["--images", "16", "--rounds", "1"]
    pictures = ["--pictures", str(settings.out / "pictures")]
    return [["speed.py", "--device", settings.device, "--json", str(settings.out / "speed.json"), *pictures, *few]]


def _steps(settings: Settings) -> list[Step]:
    few = [] if settings.scale >= 1 else ["--trial"]
    rest = ["--device", settings.device, "--pictures", str(settings.out / "pictures"), *few]
    return [
        ["gpu_steps.py", part, *rest, "--json", str(settings.out / f"{part}.json")] for part in ("tiers", "compiled")
    ]


PARTS: dict[str, Callable[[Settings], list[Step]]] = {"duel": _duel, "speed": _speed, "steps": _steps}


def run(steps: Sequence[Step], limit: float) -> int:
    """Run the steps one after the other within `limit` seconds; how many did not end well."""
    started, failed = time.monotonic(), 0
    for step in steps:
        left = limit - (time.monotonic() - started)
        try:
            code = subprocess.run([sys.executable, str(HERE / step[0]), *step[1:]], timeout=max(left, 0.1), check=False)
        except subprocess.TimeoutExpired:
            print(f"killed after {left:.0f} s: {' '.join(step)}", file=sys.stderr, flush=True)
            failed += 1
            continue
        failed += code.returncode != 0
    return failed


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--out", type=Path, required=True, help="folder for results")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--scale", type=float, default=1.0, help="less than 1 for a trial run")
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    source = str(HERE.parent / "src")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (source, os.environ.get("PYTHONPATH", ""))))
    sys.exit(run(PARTS[options.part](Settings(options.device, options.scale, options.out)), LIMIT) > 0)


if __name__ == "__main__":
    main()
