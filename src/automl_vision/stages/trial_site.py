"""What trials of one run need, written down for processes that have nothing of the driver's: a folder of two files.

site.json    files of the images, how squares are made of them, weights, device, objective
site.pt      rows, labels and groups of training and validation images

Rows of test images, and of whatever else was set aside, are not in it: they are sealed where trials run as they are
where the driver does.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from automl_vision.data.files import StoredImage
from automl_vision.data.preparation import Prepared
from automl_vision.data.store import Files, ImageStore, open_store
from automl_vision.errors import RunError, UsageError
from automl_vision.executors.workplace import Orders, PlainWork, Values
from automl_vision.files import write_text
from automl_vision.models.backbones import backbone
from automl_vision.models.device_images import on_device
from automl_vision.models.weights import WeightSource, find_weights
from automl_vision.place import Place, make_folder, place_of
from automl_vision.runtime import make_runtime
from automl_vision.search.retrain import Rows, follow_retraining
from automl_vision.search.run_trial import Assignment, TrialInterrupted, TrialRunner
from automl_vision.search.trial import Trial
from automl_vision.search.trial_files import TrialFiles, TrialReplaced
from automl_vision.tensor_file import load_tensors, save_tensors
from automl_vision.training.compiling import Setting, StepCompiler
from automl_vision.training.loop import TrainingData
from automl_vision.training.ranks import ALONE, Ranks, own_device

SITE, ROWS = "site.json", "site.pt"
#: What opens a site, by the name that a workplace knows it by.
OPENING = f"{__name__}:open_site"
#: The same for ranks that train each model together.
TOGETHER = f"{__name__}:open_site_together"
FORMAT = 1


@dataclass(frozen=True)
class Machine:
    """What one trial has of a machine.

    Attributes:
        device, precision: as the settings have them.
        threads: of the CPU.
        share: of the CPU's threads or the GPU's memory, in (0, 1].
        compile: the setting.
        cache_dir: where decoded images are sought or kept; None for nowhere.
        cache_bytes: what that folder may grow to; None for a share of its disk.
        offline: never ask the weight hub.
    """

    device: str
    precision: str
    threads: int
    share: float
    compile: str
    cache_dir: Path | None
    cache_bytes: int | None
    offline: bool


def write_site(folder: Place, prepared: Prepared, runner: TrialRunner, machine: Machine) -> None:
    """Write down what `runner` is made of, for trials that run elsewhere.

    Args:
        folder: made where it is missing, an address will do; what an earlier session wrote is replaced.
        prepared: the data of the run, sealed.
        runner: what would run the trials in this process.
        machine: what each trial has where it runs.

    Raises:
        UsageError: the images lie in shards.
        OSError: the folder cannot be written.
    """
    make_folder(folder)
    data = runner.data
    rows = np.concatenate([data.train_rows.numpy(), data.val_rows.numpy()])
    store, digests = prepared.store, prepared.facts.table["file_digest"]
    tensors = {
        "train_rows": data.train_rows,
        "train_labels": data.train_labels,
        "train_groups": torch.from_numpy(np.asarray(runner.train_groups)),
        "val_rows": data.val_rows,
        "val_labels": data.val_labels,
    }
    save_tensors(folder / ROWS, tensors)
    site = {
        "format": FORMAT,
        "rows": len(prepared.manifest),
        "paths": [_absolute(prepared.manifest.file(row)) for row in rows],
        "digests": [str(digest) for digest in digests.iloc[rows]],
        "sizes": list(store.sizes),
        "decode_side": store.decode_side,
        "resize": store.resize,
        "squares": None if store.folder is None else os.fspath(store.folder.absolute()),
        "num_classes": data.num_classes,
        "objective": runner.objective,
        "trials": _from_anywhere(runner.files.folder),
        "weights": {name: _as_values(source) for name, source in runner.weights.items()},
        "keeps_features": runner.keeps_features,
        "tests_symmetries": runner.tests_symmetries,
        "machine": {
            **dataclasses.asdict(machine),
            "cache_dir": None if machine.cache_dir is None else os.fspath(machine.cache_dir.absolute()),
        },
    }
    # ASCII: names that are no Unicode come back as they were.
    write_text(folder / SITE, json.dumps(site, allow_nan=False, ensure_ascii=True) + "\n")


def open_site(folder: str, orders: Orders) -> PlainWork:
    """The work of trials, as values of JSON: assignments in, trials out.

    Images that are decoded on this machine are read where they are; else they are decoded here once, into the cache.

    Args:
        folder: where `write_site` wrote.
        orders: what the driver says meanwhile.

    Raises:
        RunError: the folder holds no site of this version.
        DataError: an image is not what it was, or not here.
        UsageError: the device is not on this machine.
    """
    runner = _runner(place_of(folder), orders)

    def work(job: Values) -> Iterator[Values]:
        for trial in runner(Assignment.from_dict(job)):
            yield trial.to_dict()

    return work


def open_site_together(folder: str, ranks: Ranks) -> Callable[[Values], None]:
    """What takes part in the trials of the first rank: assignments, and the retraining of the chosen one.

    Raises:
        RunError, DataError, UsageError: as `open_site`.
    """
    runner = _runner(place_of(folder), Orders(), ranks)

    def take_part(job: Values) -> None:
        if "retrain" not in job:
            runner.follow(Assignment.from_dict(job))
            return
        runner.take_heads(tuple(head) for head in job["heads"])
        follow_retraining(runner, Trial.from_dict(job["retrain"]), _train_and_val(runner))

    return take_part


def _train_and_val(runner: TrialRunner) -> Rows:
    """What a model is retrained on, in the order of the first rank; groups are of no use to a fine-tune."""
    data = runner.data
    rows, labels = (data.train_rows, data.val_rows), (data.train_labels, data.val_labels)
    every = torch.cat(rows).numpy()
    return Rows(every, torch.cat(labels).numpy(), np.zeros(len(every), dtype=np.int64))


def _runner(folder: Place, orders: Orders, ranks: Ranks = ALONE) -> TrialRunner:
    site, tensors = _read(folder / SITE), load_tensors(folder / ROWS)
    machine = Machine(**site["machine"])
    device = machine.device if ranks.alone else str(own_device(machine.device))
    runtime = make_runtime(device, machine.precision, machine.threads, machine.share)
    store = _store(site, tensors, machine)
    rows = (tensors["train_rows"], tensors["val_rows"])
    return TrialRunner(
        data=TrainingData(
            source=on_device(store, rows, runtime.device, runtime.share),
            train_rows=tensors["train_rows"],
            train_labels=tensors["train_labels"],
            val_rows=tensors["val_rows"],
            val_labels=tensors["val_labels"],
            num_classes=site["num_classes"],
        ),
        train_groups=tensors["train_groups"].numpy(),
        objective=site["objective"],
        runtime=runtime,
        files=TrialFiles(place_of(site["trials"]), fenced=ranks.alone),
        weights={name: _weights(name, WeightSource(**each), machine) for name, each in site["weights"].items()},
        seconds_left=_unless_told_otherwise(orders),
        keeps_features=site["keeps_features"],
        tests_symmetries=site["tests_symmetries"],
        decode_side=store.decode_side,
        compiler=StepCompiler(cast(Setting, machine.compile)),
        resize=store.resize,
        ranks=ranks,
    )


def _store(site: Mapping[str, Any], tensors: Mapping[str, torch.Tensor], machine: Machine) -> ImageStore:
    files = Files(
        paths=tuple(map(Path, site["paths"])),
        digests=tuple(site["digests"]),
        sizes=tuple(site["sizes"]),
        decode_side=site["decode_side"],
        resize=site["resize"],
    )
    rows = torch.cat([tensors["train_rows"], tensors["val_rows"]]).numpy()
    return open_store(
        site["rows"],
        rows,
        files,
        machine.threads,
        folder=None if site["squares"] is None else Path(site["squares"]),
        cache_dir=None if machine.cache_dir is None else Path(machine.cache_dir),
        most_bytes=machine.cache_bytes,
    )


def _absolute(image: Path | StoredImage) -> str:
    if isinstance(image, StoredImage):
        raise UsageError(
            "trials in other processes cannot read images in shards",
            value=str(image),
            fix="leave out --max-parallel, --cluster and --ddp, or give the images as files",
        )
    return os.fspath(image.absolute())


def _as_values(source: WeightSource) -> Values:
    """A worker may stand in another folder than the driver."""
    location = source.location if source.kind == "hub" else os.fspath(Path(source.location).absolute())
    return {**dataclasses.asdict(source), "location": location}


def _weights(name: str, source: WeightSource, machine: Machine) -> WeightSource:
    """Where the weights are on this machine; a package may be installed elsewhere than on the driver's."""
    if source.kind == "hub" or Path(source.location).is_file():
        return source
    return find_weights(backbone(name), offline=machine.offline) or source


def _unless_told_otherwise(orders: Orders) -> Callable[[], float]:
    """What a trial asks at every step."""

    def ask() -> float:
        if orders.replaced:
            raise TrialReplaced
        if orders.stopped:
            raise TrialInterrupted
        return orders.seconds_left()

    return ask


def _from_anywhere(place: Place) -> str:
    """A folder by its whole path, an address as it is."""
    return os.fspath(place.absolute()) if isinstance(place, Path) else str(place)


def _read(file: Place) -> dict[str, Any]:
    try:
        site = json.loads(file.read_text(encoding="ascii"))
    except (OSError, ValueError) as error:
        raise _no_site(file, str(error)) from None
    if not isinstance(site, dict) or site.get("format") != FORMAT:
        raise _no_site(file, "it is of another version")
    return site


def _no_site(file: Place, why: str) -> RunError:
    return RunError(
        "a worker cannot read what its trials need",
        value=f"{file} ({why})",
        fix="run the same version of automl-vision everywhere, and keep the run in a folder that all workers see",
    )
