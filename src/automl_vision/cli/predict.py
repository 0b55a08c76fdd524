"""`automl-vision predict`: classes and probabilities of images."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from enum import StrEnum
from itertools import chain
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any

import typer

from automl_vision.cli.heat_maps import HeatMapFolder, require_apart, require_explainable
from automl_vision.cli.paths import require_model, require_no_input, write_or_refuse
from automl_vision.cli.prediction_rows import (
    Columns,
    best_places,
    json_rows,
    more_cells,
    more_of,
    more_titles,
    require_parquet_file,
    write_parquet,
)
from automl_vision.cli.process import loading
from automl_vision.cli.terminal import safe, stderr
from automl_vision.errors import PartialFailure, UsageError
from automl_vision.files import write_atomically
from automl_vision.spreadsheet import disarmed
from automl_vision.visible import visible

if TYPE_CHECKING:
    from automl_vision.prediction import ImageModel, Prediction


class Format(StrEnum):
    """How predictions are printed."""

    table = "table"
    csv = "csv"
    json = "json"
    jsonl = "jsonl"
    parquet = "parquet"


def predict(
    model: Annotated[
        Path, typer.Argument(metavar="MODEL", help="The model.pt of a run, or an exported .onnx.", show_default=False)
    ],
    images: Annotated[
        list[str],
        typer.Argument(
            metavar="IMAGES...", help="Images, folders, patterns like 'imgs/*.jpg', or tables with a column of paths."
        ),
    ],
    format: Annotated[
        Format,
        typer.Option(
            "--format",
            "-f",
            help="table, csv, json (one object per line), jsonl (the same, each with the same keys), or parquet.",
        ),
    ] = Format.table,
    top: Annotated[
        int, typer.Option("--top", "-k", help="Give the so many most probable classes of each image.", min=1)
    ] = 1,
    out: Annotated[
        Path | None, typer.Option("--out", "--output", "-o", help="Write to this file instead of stdout.")
    ] = None,
    device: Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    abstain: Annotated[
        float,
        typer.Option(
            "--abstain",
            help="Give no class to an image whose best probability is below this; report.html has thresholds.",
            min=0.0,
            max=1.0,
        ),
    ] = 0.0,
    batch_size: Annotated[int, typer.Option("--batch-size", help="Images per forward pass.", min=1)] = 64,
    explain: Annotated[
        Path | None,
        typer.Option(
            "--explain", metavar="DIR", help="Write a heat map of each image there: what speaks for its class."
        ),
    ] = None,
) -> None:
    """Predict the class of images. A broken image gives an error row; the others keep theirs, and the exit code is 3.

    [bold]Examples[/bold]

    automl-vision predict runs/imgs/model.pt photo.jpg

    automl-vision predict runs/imgs/model.pt ./new --format jsonl > predictions.jsonl

    automl-vision predict runs/imgs/model.pt ./new --format parquet --top 3 --output predictions.parquet

    automl-vision predict runs/imgs/model.pt photo.jpg --explain heat-maps
    """
    require_model(model)
    if format is Format.parquet:
        require_parquet_file(out)
    if explain is not None:
        require_explainable(model, explain, images)
    if out is not None:
        require_no_input(out, (model, *map(Path, images)))

    with loading():
        from automl_vision.data.listing import list_images

        loaded = _load(model, device)
    if out is not None and out.exists():
        require_no_input(out, list_images(images))
    if explain is not None:
        require_apart(explain, images, list_images(images))
    paths = list_images(images)
    first = next(paths, None)
    if first is None:
        raise UsageError(
            "there are no images to predict", value=" ".join(images), fix="name images or a folder of them"
        )
    drawing = _drawing(loaded, explain)
    failed = 0

    def counted() -> Iterator[Prediction]:
        nonlocal failed
        for prediction in loaded.stream(chain([first], paths), batch_size=batch_size):
            failed += prediction.status == "error"
            yield abstaining(drawing.drawn(prediction) if drawing else prediction, abstain)

    _write(counted(), Columns(loaded.class_names, top, heat_map=drawing is not None), format, out)
    if drawing:
        drawing.tell()
        failed += drawing.gone
    if failed:
        raise PartialFailure(
            "images could not be read", value=str(failed), fix="their rows say why; the others are done"
        )


def _load(model: Path, device: str) -> ImageModel:
    if model.suffix.lower() == ".onnx":  # needs no torch, and starts in a fraction of the time
        from automl_vision.onnx_predictor import load_onnx

        return load_onnx(model, device=device)
    from automl_vision.predictor import load

    return load(model, device=device)


def _drawing(model: ImageModel, folder: Path | None) -> HeatMapFolder | None:
    """What draws heat maps, where they were asked for."""
    if folder is None:
        return None
    from automl_vision.predictor import Model

    if not isinstance(model, Model):
        raise AssertionError("who cannot explain was refused before")
    return HeatMapFolder(model, folder)


def abstaining(prediction: Prediction, threshold: float) -> Prediction:
    """The prediction, or, where its probability is below the threshold, one without a class."""
    if prediction.probability is None or prediction.probability >= threshold:
        return prediction
    return replace(prediction, status="abstained", label=None)


def _write(predictions: Iterable[Prediction], columns: Columns, form: Format, out: Path | None) -> None:
    if form is Format.parquet:
        file = require_parquet_file(out)
        write_or_refuse(file, lambda: write_parquet(predictions, columns, file))
        stderr.print(f"Wrote {safe(str(file))}", highlight=False)
        return
    lines = {
        Format.table: _table_lines,
        Format.csv: _csv_lines,
        Format.json: _json_lines,
        Format.jsonl: json_rows,
    }[form]
    if out is None:
        shown = visible if sys.stdout.isatty() else str  # a terminal acts on control characters, a program does not
        for line in lines(predictions, columns):
            typer.echo(shown(line))
        return

    def write(file: IO[bytes]) -> None:
        for line in lines(predictions, columns):
            file.write(f"{line}\n".encode("utf-8", "backslashreplace"))

    write_or_refuse(out, lambda: _write_whole(out, write))
    stderr.print(f"Wrote {safe(str(out))}", highlight=False)


def _write_whole(out: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Replace a file once all is written; into a pipe or a device it goes as it comes."""
    if out.exists() and not out.is_file():
        with out.open("wb") as file:
            write(file)
        return
    write_atomically(out.resolve(), write)


def _json_lines(predictions: Iterable[Prediction], columns: Columns) -> Iterator[str]:
    for prediction in predictions:
        row = as_json(prediction, columns.class_names) | more_of(prediction, columns)
        yield json.dumps(row, ensure_ascii=True)


def as_json(prediction: Prediction, class_names: Sequence[str]) -> dict[str, Any]:
    """`path`, `status`, `label`, `probability`, `probabilities` by class; `error` where there is one."""
    row: dict[str, Any] = {
        "path": prediction.path,
        "status": prediction.status,
        "label": prediction.label,
        "probability": prediction.probability,
        "probabilities": None
        if prediction.probabilities is None
        else dict(zip(class_names, prediction.probabilities.tolist(), strict=True)),
    }
    return {**row, "error": prediction.error} if prediction.status == "error" else row


def _csv_lines(predictions: Iterable[Prediction], columns: Columns) -> Iterator[str]:
    chances = [f"p:{name}" for name in columns.class_names]
    yield _csv_line(["path", "status", "label", "probability", *chances, "error", *more_titles(columns)])
    for prediction in predictions:
        none: list[Any] = [None] * len(columns.class_names)
        probabilities = none if prediction.probabilities is None else prediction.probabilities.tolist()
        yield _csv_line(
            [
                prediction.path,
                prediction.status,
                prediction.label,
                prediction.probability,
                *probabilities,
                prediction.error,
                *more_cells(prediction, columns),
            ]
        )


def _csv_line(cells: list[Any]) -> str:
    line = io.StringIO()
    # Before Python 3.13 only characters of the line terminator are quoted as line breaks.
    csv.writer(line, lineterminator="\r\n").writerow(
        [disarmed(cell) if isinstance(cell, str) else cell for cell in cells]
    )
    return line.getvalue().removesuffix("\r\n").encode("utf-8", "backslashreplace").decode()


def _table_lines(predictions: Iterable[Prediction], columns: Columns) -> Iterator[str]:
    for prediction in predictions:
        if prediction.probabilities is None:
            yield f"{visible(prediction.path)}  error: {visible(prediction.error)}"
            continue
        answered = "" if prediction.status == "ok" else f"{prediction.status}: "
        best = best_places(prediction.probabilities, columns.top)
        shown = (f"{visible(columns.class_names[i])} {prediction.probabilities[i]:.3f}" for i in best)
        drawn = f"  {visible(prediction.heat_map or 'no heat map')}" if columns.heat_map else ""
        yield f"{visible(prediction.path)}  {answered}{'  '.join(shown)}{drawn}"
