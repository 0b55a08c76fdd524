"""What many images cost: rows that are read, audited and dealt without decoding, and memory while training.

    python benchmarks/scale.py rows --count 1000000
    python benchmarks/scale.py memory --counts 200 20000

`rows` makes that many empty files in class folders, and facts as decoding would have told them (a tenth of the files
are copies of another, by name or by their bytes). Every part runs in a process of its own, so that its peak is its own.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

_CLASSES = 100
#: One file in so many is a copy of the file before it.
_COPIES = 10
#: Linux counts in kibibytes, macOS in bytes.
_MAXRSS_UNIT = 1 if sys.platform == "darwin" else 1024
_SIDE = 96


def rows(options: argparse.Namespace) -> dict[str, Any]:
    """CPU seconds of reading, auditing and dealing, and the peak of the process in MB, after reading and at the end."""
    from automl_vision.config import Settings
    from automl_vision.data.audit import audit
    from automl_vision.data.readers import read
    from automl_vision.data.split import split

    settings, told = Settings(), {}
    manifest, told["read"] = _timed(lambda: read(options.data, settings.data))
    peak = _peak_mb()
    facts = made_up_facts(manifest.paths)
    found, told["audit"] = _timed(lambda: audit(manifest, facts, settings.data))
    dealt, told["split"] = _timed(lambda: split(manifest, facts, found, settings.split, seed=0))
    sets = {name: len(dealt.rows(name)) for name in ("train", "val", "test", "aside")}
    told["all"] = round(sum(told.values()), 2)
    return {"rows": len(manifest), **told, "peak_mb_reading": peak, "peak_mb": _peak_mb(), "sets": sets}


def made_up_facts(paths: Sequence[str]) -> Any:
    """What decoding would have told; the picture of a copy has its original's bytes."""
    import pandas as pd

    from automl_vision.data.facts import FACT_COLUMNS, Facts

    count = len(paths)
    copied = np.arange(count) % (2 * _COPIES) == 1  # half of the copies; the other half are copies by name
    source = np.where(copied, np.arange(count) - 1, np.arange(count))
    digests = [f"{number:032x}" for number in source.tolist()]
    values: dict[str, Any] = {
        "file_digest": digests,
        "pixel_digest": digests,
        "whole_digest": "",
        "scale": 1,
        "picture_hash": [""] * count,
        "bytes": 50_000 + source % 10_000,
        "width": np.full(count, 500),
        "height": np.full(count, 375),
        "format": ["JPEG"] * count,
        "mode": ["RGB"] * count,
        "frames": np.ones(count, dtype=np.int64),
        "exif_rotated": np.zeros(count, dtype=bool),
        "taken": np.full(count, np.nan),
        "fault": [""] * count,
        "detail": [""] * count,
    }
    return Facts(pd.DataFrame({name: values[name] for name in FACT_COLUMNS}))


def memory(options: argparse.Namespace) -> dict[str, Any]:
    """Resident memory in MB at its peak while one epoch is trained, and before it."""
    from automl_vision.runtime import make_runtime
    from automl_vision.training.loop import Trainer
    from speed_steps import Scene, store_of, trainer_of

    runtime = make_runtime("cpu")
    scene = Scene("mobilenetv3_small_100", _SIDE, images=options.count)
    store = store_of(options.data, scene, runtime.threads, options.cache)
    trainer = trainer_of(Trainer, scene, store, runtime)
    trained = trainer.run_epoch().images
    return {"images": trained, "peak_mb": _peak_mb()}


PARTS: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {"rows": rows, "memory": memory}


def _timed(work: Callable[[], Any]) -> tuple[Any, float]:
    before = time.process_time()
    result = work()
    return result, round(time.process_time() - before, 2)


def _peak_mb() -> int:
    """The most that this program had; what Linux says of its resource use is also that of who started it."""
    status = Path("/proc/self/status")
    if status.exists():
        peak = next(line for line in status.read_text("ascii").splitlines() if line.startswith("VmHWM:"))
        return round(int(peak.split()[1]) * 1024 / 1e6)
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _MAXRSS_UNIT / 1e6)


# --- the data, and the processes -------------------------------------------------------------------------------------


def make_empty_files(folder: Path, count: int) -> None:
    """Class folders of empty files; every so many is named as a copy of the one before it."""
    for label in range(_CLASSES):
        (folder / f"class_{label:03d}").mkdir(parents=True)
    for number in range(count):
        is_copy = number % (2 * _COPIES) == _COPIES
        name = f"{number - 1:08d}_flipped.jpg" if is_copy else f"{number:08d}.jpg"
        label = (number - is_copy) // (2 * _COPIES) % _CLASSES
        os.close(os.open(folder / f"class_{label:03d}" / name, os.O_CREAT | os.O_WRONLY))


def listed_rows(data: Path, count: int) -> dict[str, Any]:
    """What `rows` tells of so many empty files, which are made in a folder that is not there yet."""
    make_empty_files(data, count)
    return _in_process("rows", "--data", data)


def make_small_pictures(folder: Path, count: int) -> None:
    """Class folders of small pictures of smooth noise, no two alike."""
    from PIL import Image

    rng = np.random.default_rng(0)
    for number in range(count):
        to = folder / f"class_{number % 10}"
        to.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(to / f"{number}.png")


def _in_process(part: str, *words: object) -> dict[str, Any]:
    line = [sys.executable, str(Path(__file__).resolve()), "--inside", part, *map(str, words)]
    done = subprocess.run(line, stdout=subprocess.PIPE, text=True, check=True)
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--count", type=int, default=1_000_000, help="rows")
    parser.add_argument("--counts", type=int, nargs="+", default=[200, 20_000], help="images to train on")
    parser.add_argument("--data", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--cache", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.inside:
        print(json.dumps(PARTS[options.part](options)))
        return
    with tempfile.TemporaryDirectory() as scratch:
        data = Path(scratch) / "data"
        if options.part == "rows":
            print(json.dumps(listed_rows(data, options.count)))
            return
        for count in options.counts:
            make_small_pictures(data / str(count), count)
            words = ("--data", data / str(count), "--count", count, "--cache", Path(scratch) / "cache")
            # Decoded by the first process, so that the second one shows training alone.
            decoded, trained = _in_process("memory", *words), _in_process("memory", *words)
            print(json.dumps({**trained, "peak_mb_with_decoding": decoded["peak_mb"]}))


if __name__ == "__main__":
    main()
