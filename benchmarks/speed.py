"""How near to what the hardware allows? Ratios of arms that take turns in one run.

    python benchmarks/speed.py --device auto --json speed.json
    python benchmarks/speed.py --only E L D --scenes mobilenetv3_small_100@128 --rounds 7

Every ratio compares arms of one part (benchmarks/speed_steps.py, benchmarks/speed_parts.py). In a round each arm does
its block once, and the order is turned by one from round to round; a ratio is taken in each round, of seconds per unit
of work, and its median, least and most are printed: by the wall clock, and by CPU seconds of this process and those it
started. Pictures are generated (benchmarks/photographs.py) and kept in a folder.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from automl_vision.cli.process import settle_process
from photographs import write_photographs
from stages import machine

if TYPE_CHECKING:
    from automl_vision.runtime import Runtime
    from speed_steps import Scene

#: Pictures of each kind: how many, width, height.
PICTURES = {"small": (256, 500, 375), "large": (64, 2_048, 1_536)}


def about(runtime: Runtime) -> dict[str, Any]:
    """The machine and the versions that the figures belong to."""
    import torch

    packages = ("torch", "torchvision", "timm", "pillow", "numpy")
    gpu = torch.cuda.get_device_name(runtime.device) if runtime.device.type == "cuda" else ""
    return {
        **machine(),
        "date": time.strftime("%Y-%m-%d"),
        "device": gpu or str(runtime.device),
        "precision": runtime.precision,
        **{name: version(name) for name in packages},
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    settle_process()  # before torch is loaded, as the command line of the project does it
    from automl_vision.runtime import make_runtime
    from speed_parts import PEERS_PYTHON
    from speed_ratios import PARTS, RATIOS, Bench, measure, ratios, table

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    letters = [ratio.letter for ratio in RATIOS]
    usual = [ratio.letter for ratio in RATIOS if ratio.part != "peers" or PEERS_PYTHON in os.environ]
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda ...")
    parser.add_argument("--only", nargs="+", choices=letters, default=usual, help="ratios")
    parser.add_argument("--scenes", nargs="+", help="like resnet18@128; without: those of the device")
    parser.add_argument("--rounds", type=int, default=9, help="in which every arm does a block")
    parser.add_argument("--images", type=int, help="of a block; without: as suits the scene")
    parser.add_argument("--pictures", type=Path, help="folder for the generated pictures; kept")
    parser.add_argument("--json", type=Path, help="figures of every round")
    options = parser.parse_args(arguments)
    runtime = make_runtime(options.device)
    scenes = _scenes(runtime.device.type, options)
    rows: list[dict[str, Any]] = []
    parts: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.pictures or Path(scratch) / "pictures"
        small, large = (write_photographs(folder / kind, *what) for kind, what in PICTURES.items())
        bench = Bench(small, large, runtime, Path(scratch))
        for name in dict.fromkeys(ratio.part for ratio in RATIOS if ratio.letter in options.only):
            part = PARTS[name]
            for scene in scenes if part.for_every_scene else scenes[:1]:
                rounds = measure(part.arms(scene, bench), options.rounds)
                parts.append({"part": name, "scene": scene.name, "rounds": rounds})
                found = ratios(name, scene.name, rounds, runtime.threads)
                rows += [row for row in found if row["ratio"] in options.only]
                print(f"{name}, {scene.name}", file=sys.stderr, flush=True)
    if options.json:
        content = {"machine": about(runtime), "ratios": rows, "parts": parts}
        options.json.write_text(json.dumps(content, indent=1) + "\n", "utf-8")
    print(table(rows))


def _scenes(kind: str, options: argparse.Namespace) -> list[Scene]:
    from speed_ratios import SCENES

    known = SCENES.get(kind, SCENES["cpu"])
    chosen = [scene for scene in known if not options.scenes or scene.name in options.scenes]
    if not chosen:
        raise SystemExit(f"no such scene, got {options.scenes}; there are {', '.join(each.name for each in known)}")
    return [scene.with_blocks_of(options.images) for scene in chosen] if options.images else chosen


if __name__ == "__main__":
    main()
