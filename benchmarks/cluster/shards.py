"""Many small images in shards: what writing and reading them costs, what an epoch needs, and what damage is told.

    python benchmarks/cluster/shards.py --count 100000 --json shards.json

Makes JPEGs in class folders, writes them as shards, and trains one epoch on them with a small network while nothing is
decoded to the disk. Every part runs in a process of its own, so that its seconds and its peak are its own; memory of an
epoch counts from when libraries, network and optimizer are there. `--parts` runs some of them.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

_CLASSES = 10
_SIDE = 48
#: Size of the squares that the network sees.
_TRAINED_SIDE = 32
_BATCH = 128
_SEED = 0


def make(options: argparse.Namespace) -> dict[str, Any]:
    """JPEGs of coarse colours under grain, a tenth of a class in each folder."""
    from PIL import Image

    random = np.random.default_rng(_SEED)
    for number in range(options.count):
        folder = options.images / f"class-{number % _CLASSES}" / f"{number // _CLASSES // 1000:03d}"
        if number // _CLASSES % 1000 == 0:
            folder.mkdir(parents=True, exist_ok=True)
        coarse = random.integers(0, 256, (4, 4, 3), dtype=np.uint8)
        coarse[0, 0] = 25 * (number % _CLASSES)  # something to learn
        Image.fromarray(coarse).resize((_SIDE, _SIDE), Image.Resampling.BICUBIC).save(folder / f"{number:07d}.jpg")
    return {"images": options.count, "megabytes": _megabytes(options.images.rglob("*.jpg"))}


def write(options: argparse.Namespace) -> dict[str, Any]:
    """`automl-vision shard`, copies sought by names alone."""
    from automl_vision.data.shards.address import parse_address
    from automl_vision.data.shards.plan import ShardSize
    from automl_vision.pipeline import shard

    size = ShardSize(most_bytes=int(options.shard_mb * 1e6))
    made = shard(options.images, _settings(), parse_address(options.shards), size).to_dict()
    tables = _megabytes(each for each in options.shards.iterdir() if each.suffix != ".tar")
    payload = _megabytes(options.images.rglob("*.jpg"))
    return {
        "shards": made["shards"],
        "megabytes": made["bytes"] / 1e6,
        "bytes_over_payload_per_image": (made["bytes"] / 1e6 - payload) * 1e6 / made["samples"],
        "table_bytes_per_image": tables * 1e6 / made["samples"],
    }


def verify(options: argparse.Namespace) -> dict[str, Any]:
    """`automl-vision shard --verify`."""
    from automl_vision.data.shards.address import parse_address
    from automl_vision.pipeline import verify_shards

    found = verify_shards(parse_address(options.shards), _settings())
    return {"shards": found.shards, "megabytes": found.bytes / 1e6, "problems": list(found.problems)}


def epoch(options: argparse.Namespace) -> dict[str, Any]:
    """One epoch of training on the shards: seconds, and megabytes above libraries and network."""
    from automl_vision.cli.process import settle_process

    settle_process()  # as the command line does
    import torch

    from automl_vision.data.preparation import decode, prepare, read_manifest
    from automl_vision.data.preprocess import Preprocessing
    from automl_vision.models.classifier import build_classifier
    from automl_vision.runtime import make_runtime
    from automl_vision.training.loop import Trainer, TrainingData
    from automl_vision.training.recipe import Recipe

    torch.set_num_threads(options.threads)
    runtime = make_runtime("cpu", "float32", options.threads)
    recipe = Recipe("finetune", options.backbone, _TRAINED_SIDE, epochs=1, batch_size=_BATCH, pretrained=False)
    preprocessing = Preprocessing(_TRAINED_SIDE, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))

    def trainer(data: TrainingData) -> Trainer:
        net = build_classifier(options.backbone, _CLASSES, weights=None, seed=_SEED, resolution=_TRAINED_SIDE)
        return Trainer(recipe, data, net, preprocessing, runtime, _accuracy)

    warm = trainer(_blank(TrainingData))
    warm.run_epoch()
    before = _restart_peak()
    started = time.monotonic()
    settings = _settings()
    manifest = read_manifest(options.shards, settings)
    store, facts = decode(manifest, settings, (_TRAINED_SIDE,), options.threads)
    prepared = prepare(manifest, facts, store, settings)
    read, peak_of_reading = time.monotonic() - started, _peak() - before
    train, val = prepared.split.rows("train"), prepared.split.rows("val")
    val = val[:: max(1, len(val) // options.validated)]  # they lie class by class
    assert manifest.sharded is not None
    data = TrainingData(
        source=prepared.sealed().store,
        train_rows=torch.from_numpy(train),
        train_labels=torch.from_numpy(prepared.labels(train)),
        val_rows=torch.from_numpy(val),
        val_labels=torch.from_numpy(prepared.labels(val)),
        num_classes=_CLASSES,
        blocks=torch.from_numpy(manifest.sharded.shard.astype(np.int64)),
    )
    del warm, facts
    result = trainer(data).run_epoch()
    return {
        "on_demand": store.is_on_demand,
        "rows": len(manifest),
        "seconds_of_reading_and_checking": read,
        "megabytes_after_reading": peak_of_reading,
        "trained_images": result.images,
        "images_per_second": result.images / result.seconds,
        "accuracy": result.score,
        "megabytes_before": before,
        "megabytes_above_the_model": _peak() - before,
    }


def _blank(kind: Any) -> Any:
    """A few grey images, so that everything that training allocates once is there."""
    import torch

    class Blank:
        sizes = (_TRAINED_SIDE,)

        def plane_for(self, _size: int) -> int:
            return _TRAINED_SIDE

        def fetch(self, rows: torch.Tensor, size: int) -> torch.Tensor:
            grey = torch.full((len(rows), 3, size, size), 128, dtype=torch.uint8)
            return grey.to(memory_format=torch.channels_last)

    rows = torch.arange(4 * _BATCH)
    return kind(Blank(), rows, rows % _CLASSES, rows[:_BATCH], rows[:_BATCH] % _CLASSES, _CLASSES)


def images(options: argparse.Namespace) -> dict[str, Any]:
    """Images per second that are read and decoded, one thread: shards by index, ImageFolder, `datasets` streaming."""
    ways: dict[str, Callable[[argparse.Namespace], Iterator[Any]]] = {
        "shards, as they lie": _as_they_lie,
        "shards, in any order": _in_any_order,
        "ImageFolder, in any order": _image_folder,
        "datasets, streaming": _streaming,
    }
    return {name: _rate(way(options), options.timed) for name, way in ways.items() if name == options.way}


def _as_they_lie(options: argparse.Namespace) -> Iterator[Any]:
    from automl_vision.data.decode import open_rgb
    from automl_vision.data.preparation import read_manifest

    manifest = read_manifest(options.shards, _settings())
    assert manifest.sharded is not None
    return (open_rgb(manifest.file(row)).pixels for row in manifest.sharded.reading_order.tolist())


def _in_any_order(options: argparse.Namespace) -> Iterator[Any]:
    from automl_vision.data.decode import open_rgb
    from automl_vision.data.preparation import read_manifest

    manifest = read_manifest(options.shards, _settings())
    order = np.random.default_rng(_SEED).permutation(len(manifest))
    return (open_rgb(manifest.file(row)).pixels for row in order.tolist())


def _image_folder(options: argparse.Namespace) -> Iterator[Any]:
    from torchvision.datasets import ImageFolder

    folder = ImageFolder(str(options.images))
    order = np.random.default_rng(_SEED).permutation(len(folder))
    return (np.asarray(folder[row][0]) for row in order.tolist())


def _streaming(options: argparse.Namespace) -> Iterator[Any]:
    from datasets import load_dataset

    files = {"train": sorted(str(each) for each in options.shards.glob("train-*.tar"))}
    stream = load_dataset("webdataset", data_files=files, split="train", streaming=True)
    return (np.asarray(each["jpg"]) for each in stream)


def _rate(images: Iterator[Any], count: int) -> dict[str, float]:
    next(images)  # what opening costs is not reading
    before, started, cpu = _restart_peak(), time.monotonic(), time.process_time()
    seen = sum(1 for _ in zip(range(count), images, strict=False))
    seconds, cpu_seconds = time.monotonic() - started, time.process_time() - cpu
    return {
        "images": seen,
        "per_second": seen / seconds,
        "cpu_ms_per_image": 1e3 * cpu_seconds / seen,
        "megabytes_above_opening": _peak() - before,
    }


def damage(options: argparse.Namespace) -> dict[str, Any]:
    """What the command line says of a shard that was cut, of a pickle member, and of a URL that is a command."""
    victim = min(options.shards.glob("train-*.tar"))
    whole = victim.read_bytes()
    foreign = options.folder / "foreign"
    foreign.mkdir(exist_ok=True)
    with tarfile.open(foreign / "evil-000000.tar", "w") as archive:
        for name in ("0.jpg", "0.cls", "1.pickle"):
            member = tarfile.TarInfo(name)
            member.size = 1
            archive.addfile(member, io.BytesIO(b"0"))
    mark = options.folder / "ran"
    told = {}
    try:
        victim.write_bytes(whole[: len(whole) // 2])
        told["cut, --verify"] = _said("shard", "--verify", str(options.shards))
    finally:
        victim.write_bytes(whole)
    told["pickle member"] = _said("inspect", "--data", str(foreign))
    told["pipe: URL"] = _said("inspect", "--data", f"pipe:touch {mark}")
    told["pipe: URL, written to"] = _said("shard", "--data", str(options.images), "--out", f"pipe:touch {mark}")
    return {**told, "ran": mark.exists()}


def _said(*arguments: str) -> dict[str, Any]:
    done = subprocess.run([sys.executable, "-m", "automl_vision", *arguments], capture_output=True, text=True)
    return {"exit": done.returncode, "out": done.stdout.strip(), "err": done.stderr.strip().splitlines()[-3:]}


# --- figures of a process -------------------------------------------------------------------------------------------


def _settings() -> Any:
    from automl_vision.config import load_settings

    return load_settings(
        overrides={"data.lineage": "names", "machine.decode_ahead": False, "machine.cache": False, "machine.threads": 1}
    )


def _accuracy(labels: Any, probabilities: Any) -> float:
    return float((probabilities.argmax(axis=1) == labels).mean())


def _megabytes(files: Iterator[Path]) -> float:
    return sum(each.stat().st_size for each in files) / 1e6


def _restart_peak() -> float:
    """Megabytes that the process has in memory now; its peak counts anew from here."""
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def _peak() -> float:
    return _status("VmHWM")


def _status(name: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:")) * 1024 / 1e6


_PARTS: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "make": make,
    "write": write,
    "verify": verify,
    "epoch": epoch,
    "images": images,
    "damage": damage,
}
_WAYS = ("shards, as they lie", "shards, in any order", "ImageFolder, in any order", "datasets, streaming")


def _measured(options: argparse.Namespace, part: str, *more: str) -> dict[str, Any]:
    """A part in a process of its own, with its seconds, CPU seconds and peak."""
    given = [sys.executable, __file__, "--only", part, *more, "--folder", str(options.folder)]
    for name in ("count", "shard_mb", "threads", "backbone", "timed", "validated"):
        given += [f"--{name.replace('_', '-')}", str(getattr(options, name))]
    started, before = time.monotonic(), os.times()
    done = subprocess.run(given, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    after = os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return {**told, "seconds": time.monotonic() - started, "cpu_seconds": cpu}


def main() -> None:
    """Run the parts and print what they measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--folder", type=Path, help="where images and shards go (a temporary folder)")
    parser.add_argument("--shard-mb", type=float, default=16.0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--backbone", default="lcnet_035")
    parser.add_argument("--timed", type=int, default=20_000, help="images of each way of reading")
    parser.add_argument("--validated", type=int, default=2_000)
    parser.add_argument("--parts", nargs="*", default=list(_PARTS), choices=list(_PARTS))
    parser.add_argument("--json", type=Path)
    parser.add_argument("--only", help=argparse.SUPPRESS)
    parser.add_argument("--way", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.folder is None:
        with tempfile.TemporaryDirectory() as folder:
            options.folder = Path(folder)
            _run(options)
        return
    _run(options)


def _run(options: argparse.Namespace) -> None:
    options.images, options.shards = options.folder / "images", options.folder / "shards"
    if options.only:
        print(json.dumps(_PARTS[options.only](options)))
        return
    told: dict[str, Any] = {}
    for part in options.parts:
        if part == "images":
            told[part] = {way: _measured(options, part, "--way", way)[way] for way in _WAYS}
        else:
            told[part] = _measured(options, part)
        print(json.dumps({part: told[part]}, indent=2), flush=True)
    if options.json:
        options.json.write_text(json.dumps(told, indent=2) + "\n")


if __name__ == "__main__":
    main()
