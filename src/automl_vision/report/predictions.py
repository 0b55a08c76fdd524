"""The predictions a report was made from, as a file anyone can open and the report can be recomputed from."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

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
        write_atomically(file, self._write)

    @classmethod
    def from_csv(cls, file: Path) -> Predictions:
        """Read what `to_csv` wrote.

        Raises:
            DataError: the file cannot be read or is not a table of predictions; the message names the line.
        """
        try:
            with file.open(encoding="utf-8", errors="surrogateescape", newline="") as stream:  # as 0.1.0 wrote it
                rows = csv.reader(stream, strict=True)
                class_names = _class_names(file, next(rows, []))
                index = {name: i for i, name in enumerate(class_names)}
                # One row after the other: of 10,000 classes, the numbers as text take many times what they do.
                body = [_parsed(file, row, cells, index) for row, cells in enumerate(rows, start=1)]
        except (OSError, csv.Error) as error:
            raise DataError("cannot read the predictions", value=f"{file} ({error})", fix="check the path") from None
        return cls(
            paths=tuple(path for path, _, _, _ in body),
            labels=np.array([label for _, label, _, _ in body], dtype=np.int64),
            groups=np.array([group for _, _, group, _ in body], dtype=np.int64),
            probabilities=np.array([p for _, _, _, p in body], dtype=np.float64).reshape(-1, len(class_names)),
            class_names=class_names,
        )

    def _write(self, stream: IO[bytes]) -> None:
        line = io.StringIO()
        writer = csv.writer(line, quoting=self._quoting(), lineterminator="\n")
        for cells, numbers in self._rows():
            line.seek(0)
            line.truncate()
            writer.writerow(cells)
            # As the writer has them, without looking for what has to be quoted in each of a hundred million.
            text = ",".join([line.getvalue().removesuffix("\n"), *map(repr, numbers)])
            stream.write(f"{text}\n".encode("utf-8", "backslashreplace"))

    def _rows(self) -> Iterator[tuple[list[str | int | float], list[float]]]:
        """The header and the rows: cells that may have to be quoted, and the probabilities after them."""
        yield [*COLUMNS, *(_escaped(disarmed(CLASS_PREFIX + name)) for name in self.class_names)], []
        names = [_escaped(disarmed(name)) for name in self.class_names]
        values = zip(self.paths, self.labels.tolist(), self.predicted.tolist(), self.groups.tolist(), strict=True)
        for row, (path, label, said, group) in zip(self.probabilities, values, strict=True):
            chances = row.tolist()
            right = int(label == said)
            yield [_escaped(disarmed(path)), names[label], names[said], right, chances[said], group], chances

    def _quoting(self) -> Literal[0, 2]:
        # The csv module of Python before 3.13 leaves a bare carriage return unquoted, which ends the row.
        bare = any("\r" in text for text in (*self.paths, *self.class_names))
        return csv.QUOTE_NONNUMERIC if bare else csv.QUOTE_MINIMAL


def _escaped(text: str) -> str:
    """The text with nothing in it that would be read as an escape; half a surrogate pair is left to the encoding."""
    return _ESCAPE.sub(r"\\u005cu\1", text)


def _unescaped(cell: str) -> str:
    return _ESCAPE.sub(lambda found: chr(int(found[1], 16)), cell)


def _class_names(file: Path, header: Sequence[str]) -> tuple[str, ...]:
    count = len(COLUMNS)
    classes = [_unescaped(name) for name in header[count:]]
    if tuple(header[:count]) != COLUMNS or not all(name.startswith(CLASS_PREFIX) for name in classes):
        raise DataError(
            "this is no file of predictions",
            value=f"{file}, header {', '.join(header[:8])!r}",
            fix=f"its columns must be {', '.join(COLUMNS)}, then one p:CLASS per class",
        )
    return tuple(rearmed(name).removeprefix(CLASS_PREFIX) for name in classes)


def _parsed(
    file: Path, row: int, cells: Sequence[str], index: Mapping[str, int]
) -> tuple[str, int, int, NDArray[np.float64]]:
    try:
        path, label = map(_unescaped, cells[:2])
        _, _, _, _, _, group, *texts = cells
        chances = np.fromiter(map(float, texts), np.float64, len(texts))
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
