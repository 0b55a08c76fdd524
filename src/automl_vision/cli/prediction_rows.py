"""Predictions as rows that all have the same keys, for JSON lines and Parquet; broken images too."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Columns:
    """What rows tell of an image.

    Attributes:
        class_names: (C) in the order of the probabilities.
        top: most probable classes in columns of their own, where it is above 1.
        heat_map: whether there is a column for the file of its heat map.
    """

    class_names: Sequence[str]
    top: int = 1
    heat_map: bool = False

    @property
    def ranks(self) -> int:
        """How many of the most probable classes have columns of their own."""
        return min(self.top, len(self.class_names)) if self.top > 1 else 0


def row_of(prediction: Prediction, columns: Columns) -> Row:
    """`path`, `status`, `label`, `probability`, `probabilities` by class, `error`, and what `more_of` adds.

    All keys are always there; what a broken image has no value for is None.
    """
    chances = prediction.probabilities
    return {
        "path": prediction.path,
        "status": prediction.status,
        "label": prediction.label,
        "probability": prediction.probability,
        "probabilities": None if chances is None else dict(zip(columns.class_names, chances.tolist(), strict=True)),
        "error": prediction.error or None,
        **more_of(prediction, columns),
    }


def more_of(prediction: Prediction, columns: Columns) -> Row:
    """`top`: the most probable classes, best first, each {label, probability}; `heat_map`, where it was asked for."""
    top = {"top": _best(prediction, columns)} if columns.top > 1 else {}
    return {**top, "heat_map": prediction.heat_map} if columns.heat_map else top


def _best(prediction: Prediction, columns: Columns) -> list[Row] | None:
    chances = prediction.probabilities
    if chances is None:
        return None
    places = best_places(chances, columns.top)
    return [{"label": columns.class_names[i], "probability": float(chances[i])} for i in places]


def best_places(probabilities: NDArray[np.float64], top: int) -> list[int]:
    """Places of the most probable classes, best first; the first of equals comes first, as it does for the label."""
    places: list[int] = (-probabilities).argsort(kind="stable")[:top].tolist()
    return places


def more_titles(columns: Columns) -> list[str]:
    """Titles of the columns that `more_cells` fills: class and probability of the best, the second ...; heat map."""
    top = [title for k in range(columns.ranks) for title in (f"top_{k + 1}", f"top_{k + 1}_probability")]
    return [*top, *(["heat_map"] * columns.heat_map)]


def more_cells(prediction: Prediction, columns: Columns) -> list[Any]:
    """The cells; None where there is no answer."""
    found = _best(prediction, columns) if columns.ranks else None
    cells = [cell for each in found or () for cell in (each["label"], each["probability"])]
    cells += [None] * (2 * columns.ranks - len(cells))
    return [*cells, *([prediction.heat_map] * columns.heat_map)]


def json_rows(predictions: Iterable[Prediction], columns: Columns) -> Iterator[str]:
    """One line per image, each as soon as it is known."""
    for prediction in predictions:
        yield json.dumps(row_of(prediction, columns), ensure_ascii=True, allow_nan=False)


# --- Parquet --------------------------------------------------------------------------------------------------------


def require_parquet_file(out: Path | None) -> Path:
    """Raise UsageError where Parquet has no file to go to: its end says where everything is, so no pipe can take it."""
    if out is None:
        raise UsageError("Parquet needs a file", value="--format parquet", fix="name one with --out FILE.parquet")
    require_replaceable(out)
    return out


def write_parquet(predictions: Iterable[Prediction], columns: Columns, out: Path) -> None:
    """Write the rows with the columns of the CSV, a few thousand at a time; the file is there when it is whole.

    Raises:
        OSError: the file cannot be written.
    """
    import pyarrow as pa
    from pyarrow import parquet

    titles = more_titles(columns)
    fields: list[tuple[str, Any]] = [
        *((name, pa.string()) for name in ("path", "status", "label")),
        ("probability", pa.float64()),
        *((_text(f"p:{name}"), pa.float64()) for name in columns.class_names),
        ("error", pa.string()),
        *((title, pa.float64() if title.endswith("_probability") else pa.string()) for title in titles),
    ]
    schema = pa.schema(fields)

    def write(file: IO[bytes]) -> None:
        iterator = iter(predictions)
        with parquet.ParquetWriter(file, schema) as writer:
            while chunk := list(islice(iterator, ROWS_AHEAD)):
                writer.write_batch(_batch([_cells(each, columns) for each in chunk], schema))

    write_atomically(out, write)


def _batch(rows: Sequence[Sequence[Any]], schema: pyarrow.Schema) -> pyarrow.RecordBatch:
    import pyarrow as pa

    arrays = [pa.array(column, kind) for column, kind in zip(zip(*rows, strict=True), schema.types, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _cells(prediction: Prediction, columns: Columns) -> list[Any]:
    chances = (
        [None] * len(columns.class_names) if prediction.probabilities is None else prediction.probabilities.tolist()
    )
    cells = [
        prediction.path,
        prediction.status,
        prediction.label,
        prediction.probability,
        *chances,
        prediction.error or None,
        *more_cells(prediction, columns),
    ]
    return [_text(cell) if isinstance(cell, str) else cell for cell in cells]


def _text(text: str) -> str:
    """Bytes of a file name that are no text, as escapes: Parquet takes valid UTF-8 only."""
    return text.encode("utf-8", "backslashreplace").decode()
