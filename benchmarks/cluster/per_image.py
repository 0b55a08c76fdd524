"""What an image costs in each stage, at several numbers of images: the figures that `cluster.plan` extrapolates from.

    cd benchmarks
    python -m cluster.per_image rows --counts 10000 100000 1000000
    python -m cluster.per_image neighbours --counts 10000 30000 50000 100000 200000
    python -m cluster.per_image pictures --counts 300
    python -m cluster.per_image probe --counts 10000 20000 40000
    python -m cluster.per_image training --counts 128
    python -m cluster.per_image report --counts 10000 100000
    python -m cluster.per_image report --counts 10000 --classes 1000

One line of JSON for each part and number: CPU seconds of all threads, and bytes of memory at the peak beyond what was
there before the stage began (imports, and what stands in for the stages before it). Every part runs in a process of
its own. Run with one thread (`OMP_NUM_THREADS=1`): CPU seconds are then what one core needs, and nothing waits busily.
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
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from photographs import write_photographs
from scale import made_up_facts, make_empty_files, make_small_pictures

#: Linux counts in kibibytes, macOS in bytes.
_MAXRSS_UNIT = 1 if sys.platform == "darwin" else 1024
_STATUS = Path("/proc/self/status")
#: Side of the input of the network, and the network: the default one of this project.
_SIDE, _BACKBONE = 224, "efficientnet_lite0"
#: Numbers in the descriptor of a picture (`models/copy_descriptor.npz`), and the power with which their spread falls.
_DIRECTIONS, _FALLS = 480, 0.5
#: One image in so many is a copy of another one.
_COPIES = 10
_FEATURES = 1_280
_LARGE = (2_048, 1_536)


@dataclass
class Bill:
    """What is written down while a part runs.

    Attributes:
        figures: name -> CPU seconds, bytes or a count.
    """

    figures: dict[str, Any] = field(default_factory=dict)
    _start: int = field(default_factory=lambda: _peak())

    @contextmanager
    def seconds(self, name: str) -> Iterator[None]:
        """CPU seconds of the block."""
        before = time.process_time()
        yield
        self.figures[name] = round(time.process_time() - before, 3)

    def begin(self) -> None:
        """Count memory from now on: what was made up before is not what the stage takes."""
        _forget_peak()
        self._start = _peak()

    def memory(self, name: str) -> None:
        """Bytes by which the peak has grown since `begin`."""
        self.figures[name] = _peak() - self._start


def rows(options: argparse.Namespace, bill: Bill) -> None:
    """Reading the folder, the audit with groups by name and by equal bytes, the split, and its table."""
    from automl_vision.config import Settings
    from automl_vision.data.audit import audit
    from automl_vision.data.readers import read
    from automl_vision.data.split import split, split_table

    make_empty_files(options.scratch / "data", options.count)
    bill.begin()
    settings = Settings()
    with bill.seconds("read"):
        manifest = read(options.scratch / "data", settings.data)
    bill.memory("read_peak")
    facts = made_up_facts(manifest.paths)
    with bill.seconds("audit"):
        found = audit(manifest, facts, settings.data)
    with bill.seconds("split"):
        dealt = split(manifest, facts, found, settings.split, seed=0)
    bill.memory("all_peak")
    table = options.scratch / "split.csv"
    split_table(manifest, facts, found, dealt).to_csv(table, index=False)
    bill.figures["split_csv_bytes"] = table.stat().st_size


def neighbours(options: argparse.Namespace, bill: Bill) -> None:
    """Which pictures are alike enough to be compared, from made-up descriptors; and the list of those pairs."""
    from automl_vision.data.lineage.candidates import first_candidates
    from automl_vision.data.lineage.neighbours import nearest_pairs

    views = _descriptors(options.count)[None]
    bill.begin()
    with bill.seconds("search"):
        near = nearest_pairs(views)
    bill.memory("search_peak")
    bill.figures["pairs"] = len(near.pairs)
    everything_opens: Any = SimpleNamespace(usable=np.ones(options.count, dtype=np.bool_))
    bill.begin()
    with bill.seconds("list"):
        candidates = first_candidates(np.arange(options.count), near, everything_opens, ())
    bill.memory("list_peak")
    bill.figures["candidates"] = len(candidates)


def _descriptors(count: int) -> NDArray[np.float32]:
    """(n, D) with a spectrum that falls, as that of real ones; every tenth is nearly the one before it.

    Where all directions are alike, as nothing real is, k-means has a few large cells in which most look, and the search
    costs several times as much (docs/LOG.md).
    """
    rng = np.random.default_rng(0)
    spread = (np.arange(1, _DIRECTIONS + 1) ** -_FALLS).astype(np.float32)
    made = rng.standard_normal((count, _DIRECTIONS), dtype=np.float32) * spread
    copies = np.arange(_COPIES, count, _COPIES)
    made[copies] = made[copies - 1] + 0.35 * rng.standard_normal((len(copies), _DIRECTIONS), dtype=np.float32) * spread
    return made


def pictures(options: argparse.Namespace, bill: Bill) -> None:
    """Decoding into squares, the descriptor of each picture, and pairs that are compared; generated JPEGs."""
    small = write_photographs(options.scratch / "small", options.count, 500, 375)
    large = write_photographs(options.scratch / "large", max(2, options.count // 10), *_LARGE)
    _decoding(bill, "small", small, options.count, options.scratch)
    _decoding(bill, "large", large, max(2, options.count // 10), options.scratch)
    _facts_on_disk(bill, options)
    _comparing(bill, small)


def _decoding(bill: Bill, name: str, folder: Path, count: int, scratch: Path) -> None:
    from automl_vision.config import Settings
    from automl_vision.data.preprocess import decode_side_of
    from automl_vision.data.readers import read
    from automl_vision.data.store import build_store
    from automl_vision.training.augment import AUGMENTATIONS

    sizes = [_SIDE, AUGMENTATIONS["light"].wanted_size(_SIDE)]
    manifest, cache = read(folder, Settings().data), scratch / f"cache-{name}"
    with bill.seconds(f"decode_{name}"):
        build_store(manifest, sizes, cache, 1, decode_side=decode_side_of(sizes))
    bill.figures |= {f"decode_{name}_images": count, f"squares_{name}": sizes, f"cache_{name}_bytes": _bytes_in(cache)}
    bill.figures[f"files_{name}_bytes"] = _bytes_in(folder)


def _facts_on_disk(bill: Bill, options: argparse.Namespace) -> None:
    """Of pictures of 8 x 8, so that what the cache holds is nearly facts alone."""
    from automl_vision.config import Settings
    from automl_vision.data.readers import read
    from automl_vision.data.store import build_store

    make_small_pictures(options.scratch / "tiny", 10 * options.count)
    build_store(read(options.scratch / "tiny", Settings().data), [8], options.scratch / "cache-tiny", 1)
    (facts,) = (options.scratch / "cache-tiny").rglob("facts.parquet")
    bill.figures |= {"facts_images": 10 * options.count, "facts_bytes": facts.stat().st_size}


def _comparing(bill: Bill, folder: Path) -> None:
    """One descriptor each, key points of each, and pairs of strangers: by key points, and laid over each other."""
    import math

    import torch

    from automl_vision.config import Settings
    from automl_vision.data.decode import open_rgb
    from automl_vision.data.lineage.picture import Ground, describe_picture
    from automl_vision.data.lineage.registration import lay_over, register
    from automl_vision.data.readers import read
    from automl_vision.data.store import build_store
    from automl_vision.models.copy_descriptor import SIDE, describer
    from automl_vision.runtime import make_runtime

    manifest = read(folder, Settings().data)
    store, _ = build_store(manifest, [SIDE], None, 1)
    describe = describer(store, make_runtime("cpu", "float32", 1))
    if describe is None:
        raise RuntimeError("the network's weights are not installed")
    describe(np.arange(8), math.inf)  # makes the network
    with bill.seconds("describe"), torch.inference_mode():
        describe(np.arange(len(manifest)), math.inf)
    few = range(min(64, len(manifest)))
    opened = [open_rgb(manifest.file(row)).pixels for row in few]
    with bill.seconds("key_points"):
        seen = [describe_picture(pixels) for pixels in opened]
    pairs = [(seen[at], seen[(at + 1) % len(seen)]) for at in few]
    with bill.seconds("pairs_by_points"):
        found = [register(*pair) for pair in pairs]
    with bill.seconds("pairs_laid"):
        for (first, second), each in zip(pairs, found, strict=True):
            lay_over(Ground(first), second, each)
    bill.figures |= {"described": len(manifest), "looked_at": len(seen), "pairs": len(pairs)}


def probe(options: argparse.Namespace, bill: Bill) -> None:
    """The linear probe with its cross-validation, on made-up features of ten classes."""
    from automl_vision.models.probe import fit_probe

    rng = np.random.default_rng(0)
    labels = rng.integers(0, options.classes, options.count)
    centres = rng.standard_normal((options.classes, _FEATURES), dtype=np.float32)
    features = 0.15 * centres[labels] + rng.standard_normal((options.count, _FEATURES), dtype=np.float32)
    bill.begin()
    with bill.seconds("fit"):
        fit_probe(features, labels, np.arange(options.count), options.classes)
    bill.memory("fit_peak")


def training(options: argparse.Namespace, bill: Bill) -> None:
    """Features of a frozen network, one epoch of training all of it, and looking at held-out images."""
    import torch

    from automl_vision.data.preprocess import Preprocessing
    from automl_vision.models.backbones import backbone, statistics
    from automl_vision.models.classifier import build_classifier
    from automl_vision.models.features import extract_features
    from automl_vision.runtime import make_runtime
    from automl_vision.training.loop import Trainer
    from speed_steps import Scene, store_of, trainer_of

    runtime = make_runtime("cpu", "auto", 1)
    scene = Scene(_BACKBONE, _SIDE, images=options.count)
    store = store_of(write_photographs(options.scratch / "small", options.count, 500, 375), scene, 1)
    trainer = trainer_of(Trainer, scene, store, runtime)
    trainer.run_epoch()  # the first one makes what later ones find
    with bill.seconds("epoch"):
        trainer.run_epoch()
    net = build_classifier(_BACKBONE, 1, resolution=_SIDE).backbone.eval().to(memory_format=torch.channels_last)
    preprocessing = Preprocessing(_SIDE, *statistics(backbone(_BACKBONE)))
    some = torch.arange(options.count)
    extract_features(net, store, some[:8], preprocessing, runtime)
    with bill.seconds("features"):
        extract_features(net, store, some, preprocessing, runtime)
    bill.figures["images"] = options.count


def report(options: argparse.Namespace, bill: Bill) -> None:
    """The test section of a report, and the table of predictions."""
    from automl_vision.report.predictions import Predictions
    from automl_vision.report.report import test_section

    rng = np.random.default_rng(0)
    labels = rng.integers(0, options.classes, options.count)
    scores = rng.standard_normal((options.count, options.classes))
    scores[np.arange(options.count), labels] += 3
    chances = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    paths = tuple(f"class_{label}/{row:09d}.jpg" for row, label in enumerate(labels.tolist()))
    names = tuple(f"class_{label}" for label in range(options.classes))
    said = Predictions(paths, labels, np.arange(options.count), chances, names)
    bill.begin()
    with bill.seconds("test_section"):
        section = test_section(said, 0)
    bill.memory("test_section_peak")
    bill.figures["section_bytes"] = len(json.dumps(section))
    with bill.seconds("csv"):
        said.to_csv(options.scratch / "predictions.csv")
    bill.memory("csv_peak")
    bill.figures["csv_bytes"] = (options.scratch / "predictions.csv").stat().st_size


PARTS: dict[str, Callable[[argparse.Namespace, Bill], None]] = {
    "rows": rows,
    "neighbours": neighbours,
    "pictures": pictures,
    "probe": probe,
    "training": training,
    "report": report,
}


def _peak() -> int:
    """Most bytes of memory that this process had: since its peak was forgotten, where the system does that."""
    if _STATUS.exists():
        line = next(each for each in _STATUS.read_text("ascii").splitlines() if each.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _MAXRSS_UNIT


def _forget_peak() -> None:
    if _STATUS.exists():
        Path("/proc/self/clear_refs").write_text("5", "ascii")  # proc(5): the peak is what there is now


def _bytes_in(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def measure(part: str, count: int, classes: int) -> dict[str, Any]:
    """One part at one number of images, in a process of its own."""
    line = [sys.executable, "-m", "cluster.per_image", part, "--counts", str(count), "--classes", str(classes)]
    path = os.pathsep.join([str(Path(__file__).resolve().parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run([*line, "--inside"], stdout=subprocess.PIPE, text=True, check=True, env=environment)
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--counts", type=int, nargs="+", required=True, help="images")
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if not options.inside:
        for count in options.counts:
            print(json.dumps(measure(options.part, count, options.classes)), flush=True)
        return
    (options.count,) = options.counts
    bill = Bill()
    with tempfile.TemporaryDirectory() as scratch:
        options.scratch = Path(scratch)
        PARTS[options.part](options, bill)
    print(json.dumps({"part": options.part, "count": options.count, "classes": options.classes, **bill.figures}))


if __name__ == "__main__":
    main()
