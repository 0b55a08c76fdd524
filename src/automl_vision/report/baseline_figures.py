"""Figures that somebody else reached, from a CSV file, to stand beside those of runs."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from unicodedata import normalize

from automl_vision.data.readers.delimited import Line, read_lines
from automl_vision.errors import DataError

#: Titles of columns (without case, blanks or underscores) and the figure they hold.
DATA_SET_TITLES = ("dataset",)
FIGURE_TITLES: dict[str, str] = {
    "accuracy": "accuracy",
    "precision": "macro_precision",
    "macroprecision": "macro_precision",
    "f1": "macro_f1",
    "macrof1": "macro_f1",
}

_SHOWN = 20


@dataclass(frozen=True)
class Baseline:
    """What the file says.

    Attributes:
        file: as it was given.
        scale: "percent" or "share": how it is written. The figures here are shares.
        figures: data set as it is written there -> name of the figure -> share; a figure that is not given is missing.
        passed_over: titles of columns that hold nothing known.
    """

    file: str
    scale: str
    figures: Mapping[str, Mapping[str, float]]
    passed_over: tuple[str, ...] = ()

    def find(self, *names: str) -> str | None:
        """The data set of the file that has one of the names (the first that is there); None where there is none."""
        known = {folded(name): name for name in self.figures}
        return next((known[folded(name)] for name in names if folded(name) in known), None)


@dataclass(frozen=True)
class _Cell:
    line: int
    data_set: str
    figure: str
    value: float
    signed: bool  # with a per cent sign


def folded(name: str) -> str:
    """The name without what people write now so and now so: case, outer blanks, Unicode form."""
    return normalize("NFC", name).strip().casefold()


def read_baseline(file: Path) -> Baseline:
    """Read a table with the columns `dataset` and one or more of `accuracy`, `precision`, `f1`.

    Percent or shares: a cell with a per cent sign is percent. All others are shares where none is above 1, percent
    where none is between 0 and 1; a file that has both is refused, because one that is off by a hundred goes unnoticed.

    Raises:
        DataError: the file cannot be read or is no such table; all wrong lines are named at once.
    """
    lines = read_lines(file)
    if len(lines) < 2:
        raise DataError("the baseline has no rows", value=file, fix="write a header and one line per data set")
    (_, header), *body = lines
    columns = _columns(file, header)
    cells, problems = _cells(body, columns, len(header))
    problems += _twice(body, columns["dataset"])
    scale, mixed = _scale(cells)
    problems += mixed
    if problems:
        more = [f"and {len(problems) - _SHOWN} more"] if len(problems) > _SHOWN else []
        raise DataError(
            f"{len(problems)} problem{'s' * (len(problems) > 1)} in the baseline",
            value="\n  - ".join([str(file), *problems[:_SHOWN], *more]),
            fix="write figures like 83.4, all in percent or all as shares (0.834), one line per data set",
        )
    figures: dict[str, dict[str, float]] = {fields[columns["dataset"]]: {} for _, fields in body}
    for cell in cells:
        figures[cell.data_set][cell.figure] = _share(cell, scale)
    passed_over = tuple(title for place, title in enumerate(header) if place not in columns.values())
    return Baseline(str(file), scale, figures, passed_over)


def _columns(file: Path, header: Sequence[str]) -> dict[str, int]:
    """`dataset` and the figures -> place."""
    titles = [_plain(title) for title in header]
    columns: dict[str, int] = {}
    for place, title in enumerate(titles):
        name = "dataset" if title in DATA_SET_TITLES else FIGURE_TITLES.get(title)
        if name in columns:
            raise DataError(
                "two columns of the baseline hold the same",
                value=f"{file}: {header[columns[name]]!r} and {header[place]!r}",
                fix="leave one of them out",
            )
        if name is not None:
            columns[name] = place
    if "dataset" not in columns or len(columns) < 2:
        known = [*DATA_SET_TITLES, *FIGURE_TITLES]
        near = [each for title in titles if title not in known for each in difflib.get_close_matches(title, known, n=1)]
        meant = f"; did you mean {', '.join(dict.fromkeys(near))}?" if near else ""
        raise DataError(
            "the baseline lacks a column",
            value=f"{file}, line 1: {', '.join(header)}",
            fix=f"name the columns dataset and one or more of accuracy, precision, f1{meant}",
        )
    return columns


def _plain(title: str) -> str:
    return folded(title).replace("_", "").replace(" ", "").replace("-", "")


def _cells(body: Sequence[Line], columns: Mapping[str, int], width: int) -> tuple[list[_Cell], list[str]]:
    cells: list[_Cell] = []
    problems: list[str] = []
    for line, fields in body:
        if len(fields) != width:
            problems.append(f"line {line}: {len(fields)} fields, the header has {width}")
            continue
        data_set = fields[columns["dataset"]]
        if not data_set:
            problems.append(f"line {line}: no data set is named")
        for figure, place in columns.items():
            if figure != "dataset" and fields[place]:
                found = _cell(line, data_set, figure, fields[place])
                cells += [found] if isinstance(found, _Cell) else []
                problems += [found] if isinstance(found, str) else []
    return cells, problems


def _cell(line: int, data_set: str, figure: str, text: str) -> _Cell | str:
    signed = text.endswith("%")
    try:
        value = float(text.removesuffix("%").strip())
    except ValueError:
        return f"line {line}: {figure} is no number: {text!r}"
    if not (math.isfinite(value) and 0 <= value <= 100):
        return f"line {line}: {figure} is not from 0 to 100: {text!r}"
    return _Cell(line, data_set, figure, value, signed)


def _twice(body: Sequence[Line], place: int) -> list[str]:
    first: dict[str, int] = {}
    problems = []
    for line, fields in body:
        name = folded(fields[place]) if place < len(fields) else ""
        if name and first.setdefault(name, line) != line:
            problems.append(f"line {line}: {fields[place]!r} is in line {first[name]} already")
    return problems


def _scale(cells: Sequence[_Cell]) -> tuple[str, list[str]]:
    bare = [cell for cell in cells if not cell.signed]
    above = [cell for cell in bare if cell.value > 1]
    if not above:
        return ("share" if bare else "percent"), []
    small = [cell for cell in bare if 0 < cell.value <= 1]
    return "percent", [
        f"line {cell.line}: {cell.figure} {cell.value:g} is a share, or very little, where line {above[0].line} is in "
        f"percent ({above[0].value:g}); a per cent sign makes it plain"
        for cell in small
    ]


def _share(cell: _Cell, scale: str) -> float:
    return cell.value / 100 if cell.signed or scale == "percent" else cell.value
