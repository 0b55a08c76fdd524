"""A model file in another format: built, compared with the model file, and only then put in its place."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from automl_vision.bundle import Bundle, load_bundle
from automl_vision.errors import DataError, UsageError
from automl_vision.exporting import hub
from automl_vision.exporting.formats import FORMATS, Format
from automl_vision.exporting.graph import describe
from automl_vision.exporting.int8 import METHOD, int8_writer
from automl_vision.exporting.parity import (
    Parity,
    Reference,
    accuracy_of,
    ask,
    compare,
    require_faithful,
)
from automl_vision.exporting.pictures import Material, find_material, run_of
from automl_vision.exporting.to_onnx import Writer
from automl_vision.extras import require
from automl_vision.model_description import ModelDescription
from automl_vision.prediction import ImageModel
from automl_vision.predictor import Model
from automl_vision.report.belonging import report_is_of
from automl_vision.report.damage import told_as_damage
from automl_vision.report.report import with_ledger
from automl_vision.run_dir import REPORT_JSON, read_looks, read_report
from automl_vision.runtime import Runtime, available_threads

INT8 = "onnx"  # the format that can be written in 8 bits
#: Told what is being done, for progress.
Tell = Callable[[str], None]


@dataclass(frozen=True)
class Order:
    """What to export, and where to.

    Attributes:
        model: the model file.
        format: a key of `FORMATS`.
        out: file or folder; None for the format's own name beside the model.
        data: images to check with; None for those of the run.
        int8: in 8 bits.
        force: replace what is at `out`.
        push_to: repository on the hub, USER/NAME; None for none.
    """

    model: Path
    format: str
    out: Path | None = None
    data: Path | None = None
    int8: bool = False
    force: bool = False
    push_to: str | None = None

    @property
    def place(self) -> Path:
        """Where it goes."""
        if self.out is not None:
            return self.out
        name = FORMATS[self.format].default
        return self.model.parent / (name.replace(".", "-int8.") if self.int8 else name)


@dataclass(frozen=True)
class Int8Cost:
    """What 8 bits cost.

    Attributes:
        images: labelled images that it was measured on, 0 where there were none.
        origin: what they are.
        accuracy_before, accuracy_after: share of right answers; None without images.
    """

    images: int
    origin: str
    accuracy_before: float | None
    accuracy_after: float | None


@dataclass(frozen=True)
class Exported:
    """What came of an order.

    Attributes:
        path: file or folder.
        bytes: its size.
        parity: how it compares with the model file; of 8 bits on the images that the cost was measured on.
        int8: what 8 bits cost; None where there are none.
        note: what the user should know; empty where there is nothing.
        address: of the repository it was pushed to; empty where it was not.
    """

    path: Path
    bytes: int
    parity: Parity
    int8: Int8Cost | None
    note: str
    address: str = ""


def export(order: Order, tell: Tell = lambda _: None) -> Exported:
    """Export a model.

    Raises:
        UsageError: the format cannot hold the model, a package is missing, something is at the place already, there
            are no images to calibrate 8 bits on, the place cannot be written, or the hub refuses.
        ModelFileError: the model file is damaged.
        AutomlVisionError: the exported model is not the model; nothing is left of it.
    """
    form = FORMATS[order.format]
    _check(order, form)
    bundle = load_bundle(order.model)
    material = find_material(order.model, bundle, order.data)
    if order.int8:
        _require_labelled(material)
    tell("asking the model")
    model = Model(bundle, Runtime(torch.device("cpu"), None, available_threads()))
    checked = ask(model, material.checked, bundle.fingerprint)
    tell(f"writing {order.format}")
    with _replacing(order, form) as unfinished:
        if order.int8 and material.measured is not None:
            measured = ask(model, material.measured, bundle.fingerprint)
            parity, cost = _in_int8(bundle, checked, measured, form.load, unfinished, tell)
        else:
            writer = form.writer(bundle, _report(order.model, bundle))
            parity, cost = _faithful(writer, describe(bundle), checked, order.format, form.load, unfinished, tell), None
    size = _size(order.place)
    address = hub.push(order.place, order.push_to) if order.push_to is not None else ""
    return Exported(order.place, size, parity, cost, material.note, address)


def _faithful(
    writer: Writer,
    description: ModelDescription,
    checked: Reference,
    name: str,
    load: Callable[[Path], ImageModel],
    path: Path,
    tell: Tell,
) -> Parity:
    """Write it, compare it, and write it again with what was found; what was written last is read once more."""
    writer(description, path)
    tell("comparing")
    parity, _ = compare(checked, load(path))
    require_faithful(parity, name)
    writer(description.with_details(parity=parity.to_dict()), path)
    require_faithful(compare(_first(checked), load(path))[0], name)
    return parity


def _in_int8(
    bundle: Bundle,
    calibration: Reference,
    measured: Reference,
    load: Callable[[Path], ImageModel],
    path: Path,
    tell: Tell,
) -> tuple[Parity, Int8Cost]:
    writer = int8_writer(bundle, calibration.pictures)
    description = describe(bundle)
    writer(description, path)
    tell("measuring what 8 bits cost")
    parity, said = compare(measured, load(path))
    known = measured.pictures.labels >= 0
    pictures = measured.pictures.pick([row for row, is_known in enumerate(known) if is_known])
    before, after = (accuracy_of(each[known], pictures) for each in (measured.probabilities, said))
    cost = Int8Cost(len(pictures), pictures.origin, before, after)
    quantisation = {
        "method": METHOD,
        "calibrated_on": f"{len(calibration.pictures)} {calibration.pictures.origin}",
        **asdict(cost),
    }
    writer(description.with_details(quantisation=quantisation, parity=parity.to_dict()), path)
    load(path)
    return parity, cost


def _first(reference: Reference) -> Reference:
    """A few of the images."""
    rows = range(min(4, len(reference.pictures)))
    return Reference(reference.pictures.pick(rows), reference.probabilities[: len(rows)])


# --- before anything is built ---------------------------------------------------------------------------------------


def _check(order: Order, form: Format) -> None:
    if order.int8 and order.format != INT8:
        raise UsageError("--int8 goes with --format onnx", value=order.format, fix="leave out --int8")
    if order.push_to is not None:
        if not form.files:
            raise UsageError(
                "--push-to-hub goes with --format huggingface", value=order.format, fix="leave out --push-to-hub"
            )
        hub.require_token()
    require(form.packages, "export", f"--format {order.format}")
    _require_free(order, form)


def _require_free(order: Order, form: Format) -> None:
    place = order.place
    if not os.path.lexists(place):
        return
    if place.resolve() == order.model.resolve():
        raise UsageError("this would replace the model file itself", value=str(place), fix="choose another --out")
    if not order.force:
        raise UsageError(
            "there is something at this place already", value=str(place), fix="use --force, or another --out"
        )
    own = place.is_dir() and {each.name for each in place.iterdir()} <= form.files if form.files else place.is_file()
    if not own:
        what = "a folder with other files" if place.is_dir() else "a file"
        raise UsageError(f"--force does not replace {what}", value=str(place), fix="choose another --out")


def _require_labelled(material: Material) -> None:
    measured = material.measured
    if measured is None or not (measured.labels >= 0).any():
        raise DataError(
            "8 bits need labelled images: some to read ranges off, others to measure what they cost",
            value=material.note or "none of the labels is a class of the model",
            fix="give them with --data, or export from the run folder while its images are at hand",
        )


def _report(model: Path, bundle: Bundle) -> Mapping[str, Any] | None:
    """report.json of the run, with every look of its ledger; None where there is none of this very model."""
    run, _ = run_of(model, bundle)
    report = None if run is None else read_report(run)
    if run is None or report is None or not report_is_of(report, bundle.provenance):
        return None
    looks = read_looks(run)
    with told_as_damage(run / REPORT_JSON):
        return with_ledger(report, looks)


# --- its place ------------------------------------------------------------------------------------------------------


@contextmanager
def _replacing(order: Order, form: Format) -> Iterator[Path]:
    """A path to write to, which takes its place when all went well and is gone otherwise."""
    place = order.place
    try:
        with tempfile.TemporaryDirectory(prefix=f".{place.name}-", dir=place.parent) as folder:
            unfinished = Path(folder) / place.name
            yield unfinished
            _sync(unfinished)
            if form.files and place.exists():
                place.rename(Path(folder) / "former")  # a folder cannot be replaced in one step
            unfinished.replace(place)
    except OSError as error:
        if error.filename is not None and not str(error.filename).startswith(str(place.parent)):
            raise
        value = f"{place} ({error.strerror or error})"
        raise UsageError("the output cannot be written", value=value, fix="choose another --out") from None


def _sync(path: Path) -> None:
    for file in path.iterdir() if path.is_dir() else [path]:
        with file.open("rb") as opened:
            os.fsync(opened.fileno())


def _size(path: Path) -> int:
    files = path.iterdir() if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files)
