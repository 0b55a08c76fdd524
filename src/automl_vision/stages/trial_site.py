"""What trials of one run need, written down for processes that have nothing of the driver's: a folder of two files.

site.json    files of the images or the shards they lie in, how squares are made of them, weights, device, objective
site.pt      rows, labels and groups of training and validation images, and where they lie in shards

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
from numpy.typing import NDArray

from automl_vision.data.files import Place as ImagePlace
from automl_vision.data.manifest import Manifest
from automl_vision.data.preparation import Prepared
from automl_vision.data.shards.sharded import Sharded
from automl_vision.data.store import Files, ImageStore, open_store
from automl_vision.errors import RunError
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
#: Columns of images in shards, and shards that the order of training goes by.
_IN_SHARDS, _BLOCKS = "in_shards.", "blocks"


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
        OSError: the folder cannot be written.
    """
    make_folder(folder)
    data = runner.data
    rows = np.concatenate([data.train_rows.numpy(), data.val_rows.numpy()])
    store, digests = prepared.store, prepared.facts.table["file_digest"]
    images, columns = _images(prepared.manifest, rows)
    tensors = {
        "train_rows": data.train_rows,
        "train_labels": data.train_labels,
        "train_groups": torch.from_numpy(np.asarray(runner.train_groups)),
        "val_rows": data.val_rows,
        "val_labels": data.val_labels,
        **{f"{_IN_SHARDS}{name}": torch.from_numpy(column) for name, column in columns.items()},
    }
    if data.blocks is not None:
        tensors[_BLOCKS] = data.blocks[torch.from_numpy(rows)]
    save_tensors(folder / ROWS, tensors)
    site = {
        "format": FORMAT,
        "rows": len(prepared.manifest),
        **images,
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
            blocks=_blocks(site, tensors),
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
    paths, reading_order = _places(site, tensors)
    files = Files(
        paths=paths,
        digests=tuple(site["digests"]),
        sizes=tuple(site["sizes"]),
        decode_side=site["decode_side"],
        resize=site["resize"],
        reading_order=reading_order,
    )
    return open_store(
        site["rows"],
        _rows(tensors).numpy(),
        files,
        machine.threads,
        folder=None if site["squares"] is None else Path(site["squares"]),
        cache_dir=None if machine.cache_dir is None else Path(machine.cache_dir),
        most_bytes=machine.cache_bytes,
    )


def _rows(tensors: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """(n) of the manifest, in the order in which a site tells of images."""
    return torch.cat([tensors["train_rows"], tensors["val_rows"]])


def _images(manifest: Manifest, rows: NDArray[np.int64]) -> tuple[Values, Mapping[str, NDArray[np.int64]]]:
    """Where the images of some rows are: values for JSON, and columns for those that lie in shards."""
    if manifest.sharded is None:
        return {"paths": [os.fspath((manifest.root / manifest.paths[row]).absolute()) for row in rows]}, {}
    told, columns = manifest.sharded.told(rows)
    return {"shards": told}, columns


def _places(
    site: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]
) -> tuple[tuple[ImagePlace, ...], NDArray[np.int64] | None]:
    """The inverse: the images, and the order in which they are read fastest."""
    if "paths" in site:
        return tuple(map(Path, site["paths"])), None
    columns = {
        name.removeprefix(_IN_SHARDS): column.numpy() for name, column in tensors.items() if name.startswith(_IN_SHARDS)
    }
    sharded = Sharded.from_told(site["shards"], columns, site["digests"])
    return tuple(map(sharded.image, range(len(sharded)))), sharded.reading_order


def _blocks(site: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> torch.Tensor | None:
    """(N) shard of every image that a site tells of, by the driver's numbers; -1 for all others."""
    if _BLOCKS not in tensors:
        return None
    blocks = torch.full((site["rows"],), -1)
    blocks[_rows(tensors)] = tensors[_BLOCKS]
    return blocks


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
