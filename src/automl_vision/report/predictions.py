"""The predictions a report was made from, as a file anyone can open and the report can be recomputed from."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from automl_vision.errors import DataError
from automl_vision.files import write_atomically
from automl_vision.spreadsheet import disarmed, rearmed

COLUMNS = ("path", "label", "predicted", "correct", "probability", "group")

#: What is no text in a name, as it is written, and the backslash of a name that has such letters itself.
_ESCAPE = re.compile(r"\\u(d[89a-f][0-9a-f]{2}|005c)")

#: Before the class name in the header of a column of probabilities.
CLASS_PREFIX = "p:"


@dataclass(frozen=True)
class Predictions:
    """What a model said about labelled images.

    Attributes:
        paths: (N) as in the manifest.
        labels: (N) true class index.
        groups: (N) group number; rows of one group show the same original.
        probabilities: (N, C) float64, rows sum to 1.
        class_names: (C), unique.
    """

    paths: tuple[str, ...]
    labels: NDArray[np.int64]
    groups: NDArray[np.int64]
    probabilities: NDArray[np.float64]
    class_names: tuple[str, ...]

    def __post_init__(self) -> None:
        n, classes = len(self.paths), len(self.class_names)
        if self.probabilities.shape != (n, classes) or len(self.labels) != n or len(self.groups) != n:
            raise ValueError(
                f"shapes disagree: {n=} paths, {classes=}, {self.probabilities.shape=}, "
                f"{self.labels.shape=}, {self.groups.shape=}"
            )
        if self.probabilities.dtype != np.float64:
            raise ValueError(f"probabilities must be float64, got {self.probabilities.dtype}")
        if n and not (self.labels.min() >= 0 and self.labels.max() < classes):
            raise ValueError(f"labels must be in 0..{classes - 1}")
        if not np.isfinite(self.probabilities).all():
            raise ValueError("probabilities must be finite")

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def predicted(self) -> NDArray[np.int64]:
        """(N) index of the most probable class, the first of equals."""
        return np.asarray(self.probabilities.argmax(axis=1), dtype=np.int64)

    def to_csv(self, file: Path) -> None:
        """Write one row per image; `from_csv` gives back an equal value, to the last bit.

        Text that a spreadsheet would take for a formula gets a leading `'`, which reading takes off. Bytes of a name
        that are no text are written as escapes (`\\udce9`), as in split.csv: the file is UTF-8 whatever the names are.
        Of a name that has these letters itself, the backslash is one (`\\u005cudce9`).

        Raises:
            OSError: the file cannot be written. What was there before is then still there.
        """
        text = io.StringIO()
        rows = ([_escaped(cell) for cell in row] for row in self._cells())
        csv.writer(text, quoting=self._quoting(), lineterminator="\n").writerows(rows)
        data = text.getvalue().encode("utf-8", "backslashreplace")
        write_atomically(file, lambda stream: stream.write(data))

    @classmethod
    def from_csv(cls, file: Path) -> Predictions:
        """Read what `to_csv` wrote.

        Raises:
            DataError: the file cannot be read or is not a table of predictions; the message names the line.
        """
        try:
            with file.open(encoding="utf-8", errors="surrogateescape", newline="") as stream:  # as 0.1.0 wrote it
                rows = [[_unescaped(cell) for cell in row] for row in csv.reader(stream, strict=True)]
        except (OSError, csv.Error) as error:
            raise DataError("cannot read the predictions", value=f"{file} ({error})", fix="check the path") from None
        class_names = _class_names(file, rows[0] if rows else [])
        index = {name: i for i, name in enumerate(class_names)}
        body = [_parsed(file, row, cells, index) for row, cells in enumerate(rows[1:], start=1)]
        return cls(
            paths=tuple(path for path, _, _, _ in body),
            labels=np.array([label for _, label, _, _ in body], dtype=np.int64),
            groups=np.array([group for _, _, group, _ in body], dtype=np.int64),
            probabilities=np.array([p for _, _, _, p in body], dtype=np.float64).reshape(-1, len(class_names)),
            class_names=class_names,
        )

    def _cells(self) -> Iterator[list[str | int | float]]:
        yield [*COLUMNS, *(disarmed(CLASS_PREFIX + name) for name in self.class_names)]
        names = [disarmed(name) for name in self.class_names]
        values = zip(self.paths, self.labels.tolist(), self.predicted.tolist(), self.groups.tolist(), strict=True)
        for row, (path, label, said, group) in zip(self.probabilities, values, strict=True):
            chances = row.tolist()
            right = int(label == said)
            yield [disarmed(path), names[label], names[said], right, chances[said], group, *chances]

    def _quoting(self) -> Literal[0, 2]:
        # The csv module of Python before 3.13 leaves a bare carriage return unquoted, which ends the row.
        bare = any("\r" in text for text in (*self.paths, *self.class_names))
        return csv.QUOTE_NONNUMERIC if bare else csv.QUOTE_MINIMAL


def _escaped(cell: str | int | float) -> str | int | float:
    """The cell with nothing in it that would be read as an escape; half a surrogate pair is left to the encoding."""
    return _ESCAPE.sub(r"\\u005cu\1", cell) if isinstance(cell, str) else cell


def _unescaped(cell: str) -> str:
    return _ESCAPE.sub(lambda found: chr(int(found[1], 16)), cell)


def _class_names(file: Path, header: Sequence[str]) -> tuple[str, ...]:
    count = len(COLUMNS)
    classes = header[count:]
    if tuple(header[:count]) != COLUMNS or not all(name.startswith(CLASS_PREFIX) for name in classes):
        raise DataError(
            "this is no file of predictions",
            value=f"{file}, header {', '.join(header[:8])!r}",
            fix=f"its columns must be {', '.join(COLUMNS)}, then one p:CLASS per class",
        )
    return tuple(rearmed(name).removeprefix(CLASS_PREFIX) for name in classes)


def _parsed(file: Path, row: int, cells: Sequence[str], index: Mapping[str, int]) -> tuple[str, int, int, list[float]]:
    try:
        path, label, _, _, _, group, *texts = cells
        chances = [float(text) for text in texts]
        number = _group_number(group)
    except ValueError as error:
        raise _broken(file, row, str(error)) from None
    if rearmed(label) not in index:
        raise _broken(file, row, f"{label!r} is no class of the header")
    if len(chances) != len(index):
        raise _broken(file, row, f"{len(chances)} probabilities for {len(index)} classes")
    if not np.isfinite(chances).all():
        raise _broken(file, row, "a probability is not finite")
    return rearmed(path), index[rearmed(label)], number, chances


def _group_number(text: str) -> int:
    number = int(text)
    if not -(2**63) <= number < 2**63:
        raise ValueError(f"group {text[:30]} is no number of a group")
    return number


def _broken(file: Path, row: int, detail: str) -> DataError:
    return DataError(
        "a row of the predictions cannot be read",
        value=f"{file}, row {row}: {detail}",
        fix="write the file again with `automl-vision evaluate`",
    )
