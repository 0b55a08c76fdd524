"""Predictions as rows that all have the same keys, for JSON lines and Parquet; broken images too."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from automl_vision.cli.paths import require_replaceable
from automl_vision.errors import UsageError
from automl_vision.files import write_atomically

if TYPE_CHECKING:
    import numpy as np
    import pyarrow
    from numpy.typing import NDArray

    from automl_vision.prediction import Prediction

#: Rows of a Parquet file that are in memory at once.
ROWS_AHEAD = 4096

Row = dict[str, Any]


def row_of(prediction: Prediction, class_names: Sequence[str], top: int) -> Row:
    """`path`, `status`, `label`, `probability`, `probabilities` by class, `error`, and `top` where it is above 1.

    All keys are always there; what a broken image has no value for is None.
    """
    chances = prediction.probabilities
    return {
        "path": prediction.path,
        "status": prediction.status,
        "label": prediction.label,
        "probability": prediction.probability,
        "probabilities": None if chances is None else dict(zip(class_names, chances.tolist(), strict=True)),
        "error": prediction.error or None,
        **top_classes(prediction, class_names, top),
    }


def top_classes(prediction: Prediction, class_names: Sequence[str], top: int) -> Row:
    """`top`: the most probable classes, best first, each {label, probability}; nothing where one is enough."""
    if top < 2:
        return {}
    if prediction.probabilities is None:
        return {"top": None}
    best = best_places(prediction.probabilities, top)
    return {"top": [{"label": class_names[i], "probability": float(prediction.probabilities[i])} for i in best]}


def best_places(probabilities: NDArray[np.float64], top: int) -> list[int]:
    """Places of the most probable classes, best first; the first of equals comes first, as it does for the label."""
    places: list[int] = (-probabilities).argsort(kind="stable")[:top].tolist()
    return places


def top_titles(class_names: Sequence[str], top: int) -> list[str]:
    """Titles of the columns that `top_cells` fills: class and probability of the best, the second ..."""
    return [title for k in range(_columns(class_names, top)) for title in (f"top_{k + 1}", f"top_{k + 1}_probability")]


def top_cells(prediction: Prediction, class_names: Sequence[str], top: int) -> list[Any]:
    """The cells; None where there is no answer."""
    found = top_classes(prediction, class_names, top).get("top") or []
    cells = [cell for each in found for cell in (each["label"], each["probability"])]
    return cells + [None] * (2 * _columns(class_names, top) - len(cells))


def _columns(class_names: Sequence[str], top: int) -> int:
    return min(top, len(class_names)) if top > 1 else 0


def json_rows(predictions: Iterable[Prediction], class_names: Sequence[str], top: int) -> Iterator[str]:
    """One line per image, each as soon as it is known."""
    for prediction in predictions:
        yield json.dumps(row_of(prediction, class_names, top), ensure_ascii=True, allow_nan=False)


# --- Parquet --------------------------------------------------------------------------------------------------------


def require_parquet_file(out: Path | None) -> Path:
    """Raise UsageError where Parquet has no file to go to: its end says where everything is, so no pipe can take it."""
    if out is None:
        raise UsageError("Parquet needs a file", value="--format parquet", fix="name one with --out FILE.parquet")
    require_replaceable(out)
    return out


def write_parquet(predictions: Iterable[Prediction], class_names: Sequence[str], top: int, out: Path) -> None:
    """Write the rows with the columns of the CSV, a few thousand at a time; the file is there when it is whole.

    Raises:
        OSError: the file cannot be written.
    """
    import pyarrow as pa
    from pyarrow import parquet

    columns: list[tuple[str, Any]] = [
        *((name, pa.string()) for name in ("path", "status", "label")),
        ("probability", pa.float64()),
        *((_text(f"p:{name}"), pa.float64()) for name in class_names),
        ("error", pa.string()),
        *(
            (title, pa.float64() if place % 2 else pa.string())
            for place, title in enumerate(top_titles(class_names, top))
        ),
    ]
    schema = pa.schema(columns)

    def write(file: IO[bytes]) -> None:
        iterator = iter(predictions)
        with parquet.ParquetWriter(file, schema) as writer:
            while chunk := list(islice(iterator, ROWS_AHEAD)):
                writer.write_batch(_batch([_cells(each, class_names, top) for each in chunk], schema))

    write_atomically(out, write)


def _batch(rows: Sequence[Sequence[Any]], schema: pyarrow.Schema) -> pyarrow.RecordBatch:
    import pyarrow as pa

    arrays = [pa.array(column, kind) for column, kind in zip(zip(*rows, strict=True), schema.types, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _cells(prediction: Prediction, class_names: Sequence[str], top: int) -> list[Any]:
    chances = [None] * len(class_names) if prediction.probabilities is None else prediction.probabilities.tolist()
    cells = [
        prediction.path,
        prediction.status,
        prediction.label,
        prediction.probability,
        *chances,
        prediction.error or None,
        *top_cells(prediction, class_names, top),
    ]
    return [_text(cell) if isinstance(cell, str) else cell for cell in cells]


def _text(text: str) -> str:
    """Bytes of a file name that are no text, as escapes: Parquet takes valid UTF-8 only."""
    return text.encode("utf-8", "backslashreplace").decode()
