"""What a GPU alone can tell about training steps: compiled against eager, images that lie elsewhere, and whether all of
them agree.

    python benchmarks/gpu_steps.py compiled --device cuda --json compiled.json
    python benchmarks/gpu_steps.py tiers --device cuda --json tiers.json
    python benchmarks/gpu_steps.py tiers --device cpu --trial    # does it run?

Arms take turns as in benchmarks/speed.py: images per second are of the median round. The file is written after every
scene. `compiled` has eager steps, torch.compile's default mode and CUDA graphs; the seconds of the first epoch's
compiling; and how far the loss of that epoch, which all begin from the same weights, is from the eager one. `tiers` has
images that stay on the device, that are copied while it computes (off by default on a CPU), and that are copied when
they are asked for; and whether batches are the same to the last bit.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import torch

from automl_vision.cli.process import settle_process
from automl_vision.models.device_images import DeviceImages
from automl_vision.models.image_source import ImageSource
from automl_vision.models.prefetched_images import CudaTransfer, Done, PrefetchedImages, Transfer
from automl_vision.runtime import Runtime, make_runtime
from automl_vision.training.compiling import Kind, Mode, StepCompiler
from automl_vision.training.loop import Trainer
from photographs import write_photographs
from speed import PICTURES, about
from speed_ratios import Rounds, measure
from speed_steps import Scene, epochs_of, store_of, trainer_of

Row = dict[str, Any]

#: How far the loss of a compiled epoch may be from the eager one, as a share: bfloat16 has three digits.
_TOLERANCE = 0.02
#: Batches that are compared.
_COMPARED = 8

SCENES: dict[str, tuple[Scene, ...]] = {
    "compiled": (
        Scene("mobilenetv3_small_100", 160, batch=32, images=2_048),
        Scene("mobilenetv3_small_100", 160, batch=256, images=8_192),
        Scene("resnet18", 96, batch=32, images=2_048),
        Scene("resnet50", 224, batch=64, images=1_024),
    ),
    "tiers": (
        Scene("mobilenetv3_small_100", 160, batch=512, images=8_192),
        Scene("resnet18", 224, batch=256, images=4_096),
    ),
}

TRIAL = Scene("test_efficientnet", 32, batch=16, images=32)


@dataclass(frozen=True)
class _OfMode(Kind):
    forced: Mode = "default"

    @property
    def mode(self) -> Mode:
        return self.forced


class _Compiled(Trainer):
    """Steps that are compiled in one mode, whatever their size."""

    forced: ClassVar[Mode] = "default"

    def _kind(self) -> Kind:
        return _OfMode(**vars(super()._kind()), forced=self.forced)


class _InGraphs(_Compiled):
    forced = "reduce-overhead"


#: name -> trainer, and whether it compiles.
_STEPS: Mapping[str, type[Trainer]] = {"eager": Trainer, "default": _Compiled, "graphs": _InGraphs}


class _AtOnce:
    """A copy that is done already."""

    def synchronize(self) -> None:
        """Nothing to wait for."""


class _HostTransfer:
    """Where there is no GPU: copies within the memory of the host."""

    device = torch.device("cpu")

    def buffer(self, count: int) -> torch.Tensor:
        """(count) uint8."""
        return torch.empty(count, dtype=torch.uint8)

    def start(self, pixels: torch.Tensor) -> tuple[torch.Tensor, Done]:
        """A copy."""
        return pixels.clone(), _AtOnce()

    def receive(self, _pixels: torch.Tensor, _done: Done) -> None:
        """It is there."""


def compiled_rows(scene: Scene, pictures: Path, runtime: Runtime, rounds: int) -> Row:
    """Eager steps and compiled ones."""
    store = store_of(pictures, scene, runtime.threads)
    trainers = {
        name: trainer_of(kind, scene, store, runtime, StepCompiler("off" if name == "eager" else "on"))
        for name, kind in _STEPS.items()
    }
    first = {name: trainer.run_epoch() for name, trainer in trainers.items()}
    apart = {name: abs(each.train_loss / first["eager"].train_loss - 1) for name, each in first.items()}
    told = {name: each.compiling for name, each in first.items() if name != "eager"}
    speed = _images_per_second(measure({name: epochs_of(each) for name, each in trainers.items()}, rounds))
    return {
        "scene": scene.name,
        "batch": scene.batch,
        "images_per_second": speed,
        "compile_seconds": {name: first[name].compile_seconds for name in told},
        "loss_apart": apart,
        "told": told,
        "agrees": max(apart.values()) <= _TOLERANCE and all("were compiled" in line for line in told.values()),
    }


def tier_rows(scene: Scene, pictures: Path, runtime: Runtime, rounds: int) -> Row:
    """The same steps on images that lie on the device, and beside it."""
    store, device = store_of(pictures, scene, runtime.threads), runtime.device
    every = torch.arange(len(store))
    transfer: Transfer = CudaTransfer(device) if device.type == "cuda" else _HostTransfer()
    sources: dict[str, ImageSource] = {
        "resident": DeviceImages(store, every, device, 1 << 40),
        "copied ahead": DeviceImages(PrefetchedImages(store, transfer), every, device, 0),
        "copied when asked for": DeviceImages(store, every, device, 0),
    }
    trainers = {name: _trained_on(source, scene, store, runtime) for name, source in sources.items()}
    same = all(_same(list(sources.values()), rows, scene.size, store) for rows in _batches(len(store), scene.batch))
    speed = _images_per_second(measure({name: epochs_of(each) for name, each in trainers.items()}, rounds))
    return {"scene": scene.name, "batch": scene.batch, "images_per_second": speed, "agrees": same}


def _trained_on(source: ImageSource, scene: Scene, store: Any, runtime: Runtime) -> Trainer:
    trainer = trainer_of(Trainer, scene, store, runtime)
    trainer.data = replace(trainer.data, source=source)
    return trainer


def _batches(count: int, size: int) -> Iterator[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    for _ in range(_COMPARED):
        yield torch.randint(0, count, (size,), generator=generator)


def _same(sources: Sequence[ImageSource], rows: torch.Tensor, size: int, plain: ImageSource) -> bool:
    """Whether all of them give the batch of the plain one, also where they were told of it before."""
    for source in sources:
        getattr(source, "expect", lambda *_: None)(rows, plain.plane_for(size))
    wanted = plain.fetch(rows, plain.plane_for(size))
    return all(torch.equal(source.fetch(rows, plain.plane_for(size)).cpu(), wanted) for source in sources)


def _images_per_second(rounds: Rounds) -> dict[str, float]:
    return {name: 1 / statistics.median(each[name]["wall"] for each in rounds) for name in rounds[0]}


#: name -> a row for a scene.
PARTS: dict[str, Callable[[Scene, Path, Runtime, int], Row]] = {"compiled": compiled_rows, "tiers": tier_rows}


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line; 1 where something does not agree."""
    settle_process()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda ...")
    parser.add_argument("--rounds", type=int, default=5, help="in which every arm does a block")
    parser.add_argument("--images", type=int, help="of a block; without: as suits the scene")
    parser.add_argument("--trial", action="store_true", help="a tiny network and one round, to see whether it runs")
    parser.add_argument("--pictures", type=Path, help="folder for the generated pictures; kept")
    parser.add_argument("--json", type=Path, help="all figures")
    options = parser.parse_args(arguments)
    runtime = make_runtime(options.device)
    scenes, turns = ((TRIAL,), 1) if options.trial else (SCENES[options.part], options.rounds)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as scratch:
        pictures = write_photographs((options.pictures or Path(scratch)) / "small", *PICTURES["small"])
        for scene in scenes:
            some = scene.with_blocks_of(options.images) if options.images else scene
            rows.append(PARTS[options.part](some, pictures, runtime, turns))
            print(json.dumps(rows[-1], indent=1), flush=True)
            if options.json:
                options.json.write_text(json.dumps({"machine": about(runtime), "rows": rows}, indent=1) + "\n", "utf-8")
    sys.exit(not all(row["agrees"] for row in rows))


if __name__ == "__main__":
    main()
