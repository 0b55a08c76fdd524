"""Images that an export is checked with: those of the run, others that were given, or noise where there are none."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from automl_vision import run_dir
from automl_vision.bundle import Bundle
from automl_vision.config import Settings, load_settings
from automl_vision.data.files import Place
from automl_vision.data.manifest import Manifest, scattered_rows
from automl_vision.data.preparation import read_manifest
from automl_vision.errors import DataError, RunError, UsageError
from automl_vision.report.belonging import run_is_of
from automl_vision.spreadsheet import rearmed

#: Images that both forms of the model are asked about, and that ranges for 8 bits are read off.
CHECKED = 256
#: Images that the accuracy of 8 bits is measured on, at most.
MEASURED = 2000
#: Images of noise, where nothing better is at hand.
NOISE = 64
_FIELDS = 8  # coarse squares of colour along a side of a noise image, so that it has shapes as well as grain


@dataclass(frozen=True)
class Pictures:
    """Images and what is known of them.

    Attributes:
        sources: (n) files, or bytes of files.
        labels: (n) index among the model's classes; -1 where it has no such class or nobody knows.
        origin: what they are, in words that follow a number: "training images of the run".
    """

    sources: tuple[Place | bytes, ...]
    labels: NDArray[np.int64]
    origin: str

    def __len__(self) -> int:
        return len(self.sources)

    def pick(self, rows: Sequence[int]) -> Pictures:
        """Some of them."""
        index = np.asarray(rows, dtype=np.int64)
        return Pictures(tuple(self.sources[row] for row in index), self.labels[index], self.origin)


@dataclass(frozen=True)
class Material:
    """What an export is checked with.

    Attributes:
        checked: for comparing, and for the ranges of 8 bits.
        measured: other labelled images that accuracy can be measured on; None where there are none.
        note: what the user should know about them; empty where there is nothing.
    """

    checked: Pictures
    measured: Pictures | None
    note: str = ""


def find_material(model: Path, bundle: Bundle, data: Path | None) -> Material:
    """The images of `data`; without it those of the run that the model lies in; without both, noise.

    Raises:
        DataError: `data` holds no labelled images.
    """
    if data is not None:
        return _of_data(data, bundle)
    run, why = run_of(model, bundle)
    if run is None:
        return _noise(why)
    try:
        return _of_run(run, bundle)
    except (UsageError, OSError) as error:
        return _noise(str(error).split("\n", 1)[0])
    except (LookupError, TypeError, ValueError, csv.Error) as error:
        return _noise(f"a file of the run is damaged: {type(error).__name__}: {error}"[:200])


def run_of(model: Path, bundle: Bundle) -> tuple[Path | None, str]:
    """The run folder that a model lies in and was made by; None, and why, where it does not."""
    folder = model.resolve().parent
    try:
        about = json.loads((folder / run_dir.RUN).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None, f"there is no run in {folder}"
    if not isinstance(about, dict) or not run_is_of(about, _report_in(folder), bundle.provenance):
        return None, f"the model is not of the run in {folder}"
    return folder, ""


def _report_in(run: Path) -> dict[str, Any] | None:
    """report.json; one that is damaged counts as none."""
    try:
        return run_dir.read_report(run)
    except RunError:
        return None


def _of_run(run: Path, bundle: Bundle) -> Material:
    about: dict[str, Any] = json.loads((run / run_dir.RUN).read_text(encoding="utf-8"))
    settings = load_settings(run / run_dir.CONFIG)
    manifest = read_manifest(Path(about["data"]), settings)
    if manifest.fingerprint != about["fingerprint"]:
        raise DataError("the data changed since the run", value=str(about["data"]))
    with (run / run_dir.SPLIT).open(encoding="utf-8", newline="") as file:
        sets = {rearmed(row["path"]): row["split"] for row in csv.DictReader(file)}
    order = scattered_rows(manifest)

    def taken(name: str, most: int) -> list[int]:
        return [row for row in order if sets.get(_written(manifest.paths[row])) == name][:most]

    train, val = taken("train", CHECKED), taken("val", MEASURED)
    if not train:
        raise DataError("no training image of the run is known", value=str(run / run_dir.SPLIT))
    checked = _pictures(manifest, bundle, train, "training images of the run")
    trained = ", on which it was trained once more in the end" if bundle.provenance.get("refitted") else ""
    measured = _pictures(manifest, bundle, val, f"validation images of the run{trained}") if val else None
    return Material(checked, measured)


def _of_data(data: Path, bundle: Bundle) -> Material:
    """Every second image is compared and calibrated with, the others are measured on."""
    manifest = read_manifest(data, Settings())
    order = scattered_rows(manifest)
    same = manifest.fingerprint == bundle.provenance.get("data_fingerprint")
    unknown = same and bundle.fingerprint is None
    checked = _pictures(manifest, bundle, order[::2][:CHECKED], "images of --data")
    known = ", most of which the model was made with" if same else ""
    measured = _pictures(manifest, bundle, order[1::2][:MEASURED], f"other images of --data{known}")
    note = "The model file does not tell its test images from the others, so nothing is measured on them."
    return Material(checked, None if unknown or not len(measured) else measured, note if unknown else "")


def _noise(why: str) -> Material:
    random = np.random.default_rng(0)
    sources = tuple(_noise_file(random) for _ in range(NOISE))
    pictures = Pictures(sources, np.full(NOISE, -1, dtype=np.int64), "generated noise images")
    return Material(pictures, None, f"No real images are at hand ({why}); give some with --data.")


def _noise_file(random: np.random.Generator) -> bytes:
    """A file in the simplest format there is (PPM): coarse colours under grain."""
    side = 8 * _FIELDS
    coarse = random.integers(0, 256, (_FIELDS, _FIELDS, 3)).repeat(8, axis=0).repeat(8, axis=1)
    grain = random.normal(0, 20, (side, side, 3))
    pixels = np.clip(coarse + grain, 0, 255).astype(np.uint8)
    return f"P6\n{side} {side}\n255\n".encode() + pixels.tobytes()


def _pictures(manifest: Manifest, bundle: Bundle, rows: Sequence[int], origin: str) -> Pictures:
    known = {name: index for index, name in enumerate(bundle.class_names)}
    of_model = np.array([known.get(name, -1) for name in manifest.class_names], dtype=np.int64)
    index = np.asarray(rows, dtype=np.int64)
    return Pictures(tuple(manifest.file(row) for row in rows), of_model[manifest.labels[index]], origin)


def _written(path: str) -> str:
    """A path as tables have it: bytes that are no text are escapes there."""
    return path.encode("utf-8", "backslashreplace").decode("utf-8")
