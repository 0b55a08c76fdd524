"""CSV, TSV and Parquet tables with a column of image paths and a column of labels."""

from __future__ import annotations

import difflib
import posixpath
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from automl_vision.data.manifest import SET_NAMES, Manifest
from automl_vision.data.readers.delimited import Line, read_lines
from automl_vision.data.readers.reader import Reading, Row, to_manifest
from automl_vision.data.readers.scan import ending, is_image_name, leads_outside
from automl_vision.errors import DataError

if TYPE_CHECKING:
    from automl_vision.config import DataSettings

#: Usual names of the columns, the likelier first; compared in lower case, blanks and dashes as underscores.
USUAL_NAMES: dict[str, tuple[str, ...]] = {
    "image": (
        *(
            "image_path",
            "filepath",
            "file_path",
            "path",
            "image",
            "filename",
            "file_name",
            "file",
            "img_path",
        ),
        *("image_file", "image_filename", "image_name", "img", "img_file", "picture", "photo", "image_id"),
    ),
    "label": (
        *(
            "label",
            "class",
            "category",
            "target",
            "species",
            "class_name",
            "label_name",
            "breed",
            "diagnosis",
        ),
        *("labels", "classes", "y"),
    ),
    "split": ("split",),
    "group": ("group",),
    "augmented": ("is_augmented", "augmented"),
}
_NEEDED = ("image", "label")
_BOOLEANS: dict[str, bool | None] = {
    **dict.fromkeys(("1", "true", "t", "yes", "y", "1.0"), True),
    **dict.fromkeys(("0", "false", "f", "no", "n", "0.0"), False),
    "": None,
}
_SHOWN = 10
#: Characters of a cell that a message quotes.
_QUOTED = 100

MISSING_LABEL = "row without a label"
MISSING_PATH = "row without an image path"
REPEATED = "repeated row"
INNER_LINE = "line inside of a cell of another column"

#: What a message calls the cells of a column.
_CALLED = {"image": "image path", "label": "label", "split": "set", "group": "group", "augmented": "mark of a copy"}


class _Refused(Exception):
    """One cell or row cannot be used; the message says why, without its line number."""


@dataclass
class _Table:
    """A table being read.

    Attributes:
        file: the table.
        root: its folder, from which relative paths start.
        header: column names.
        column: purpose ("image", "label", ...) -> position.
        unit: "line" for text, "row" for Parquet.
        problems: what is wrong, with line numbers.
        first: path -> line and row on which it was met first.
        missing: files that are not there.
        outside: folder of an image -> whether links on the way lead out of `root`.
    """

    file: Path
    root: Path
    header: list[str]
    column: Mapping[str, int]
    unit: str
    settings: DataSettings
    reading: Reading = field(default_factory=Reading)
    problems: list[str] = field(default_factory=list)
    first: dict[str, tuple[int, Row]] = field(default_factory=dict)
    missing: int = 0
    outside: dict[str, bool] = field(default_factory=dict)


class _Lines(NamedTuple):
    """What a file holds as text.

    Attributes:
        header: names of the columns.
        lines: number and fields of each.
        unit: what the numbers count.
        no_text: columns that are left out, since images or other structures lie in them -> their type.
    """

    header: list[str]
    lines: list[Line]
    unit: str
    no_text: Mapping[str, str] = MappingProxyType({})


def is_table(data: Path) -> bool:
    """True for a file with an ending in `FORMATS`."""
    return ending(data.name) in FORMATS and data.is_file()


def read_table(data: Path, settings: DataSettings) -> Manifest:
    """A table whose relative paths start from its own folder.

    Raises:
        DataError: a column is not found; or, all at once with line numbers, every row that cannot be used.
    """
    found = FORMATS[ending(data.name)](data)
    column = _columns(data, found, settings)
    file = data.resolve()
    table = _Table(file, file.parent, found.header, column, found.unit, settings)
    for number, fields in found.lines:
        _take(table, number, fields)
    _raise_problems(table)
    return to_manifest(table.root, table.reading, settings)


def image_paths(data: Path, image_column: str = "") -> Iterator[Path]:
    """The paths in a table, relative ones from its own folder; no labels are needed.

    Raises:
        DataError: there is no column of paths.
    """
    header, lines, _, no_text = FORMATS[ending(data.name)](data)
    problems = _inside_problems(no_text, image_column)
    at = _named(header, image_column, problems) if image_column else _usual(header, "image")
    if at is None:
        raise DataError(
            "; ".join(problems) or "there is no column with the paths of images",
            value=f"{data} (columns: {', '.join(header)})",
            fix="call the column 'image' or 'path'",
        )
    for _, fields in lines:
        if at < len(fields) and fields[at].strip():
            yield data.parent / fields[at].strip()


def _text_table(file: Path) -> _Lines:
    lines = read_lines(file)
    if not lines:
        raise DataError("the table is empty", value=file, fix="write a header line and one line per image")
    return _Lines(lines[0][1], lines[1:], "line")


def _parquet_table(file: Path) -> _Lines:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        schema = pq.read_schema(file)
        no_text = {each.name: str(each.type) for each in schema if not _is_text(each.type)}
        table = pq.read_table(file, columns=[name for name in schema.names if name not in no_text])
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(
            "cannot read the table", value=f"{file} ({reason})", fix="write the Parquet file again"
        ) from None
    columns = [[_text_of(value) for value in column.to_pylist()] for column in table.columns]
    rows = zip(*columns, strict=True) if columns else ()
    return _Lines(list(table.column_names), [(n, list(row)) for n, row in enumerate(rows, 1)], "row", no_text)


def _is_text(kind: Any) -> bool:
    """Whether a column of this type of Arrow is text or can be written as such: not pictures, lists, structures."""
    from pyarrow import types

    is_bytes = types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind)
    return not (is_bytes or types.is_nested(kind))


def _text_of(value: Any) -> str:
    if value is None or value != value:
        return ""
    # A whole-number column with gaps arrives as floats: class 3.0 is class 3.
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip()


#: File name ending -> what reads it into a header and rows of text.
FORMATS: dict[str, Callable[[Path], _Lines]] = {
    ".csv": _text_table,
    ".tsv": _text_table,
    ".parquet": _parquet_table,
    ".pq": _parquet_table,
}


def _columns(file: Path, found_lines: _Lines, settings: DataSettings) -> dict[str, int]:
    """Position of each column that there is, by purpose."""
    header, lines, _, no_text = found_lines
    asked = {purpose: getattr(settings, f"{purpose}_column") for purpose in USUAL_NAMES}
    problems: list[str] = []
    found: dict[str, int] = {}
    inside = _inside_problems(no_text, asked["image"])
    if inside and _usual(header, "image") is None:
        value = f"{file} ({'; '.join(inside)})"
        raise DataError("the images lie inside of the table", value=value, fix=_NO_PATHS)
    for purpose, name in asked.items():
        position = _named(header, name, problems) if name else _usual(header, purpose)
        if position is not None:
            found[purpose] = position
        elif not name and purpose in _NEEDED:
            problems.append(f"there is no {purpose} column; name it with --{purpose}-column")
    if problems:
        shown = f"{file} (columns: {', '.join(header)})"
        raise DataError("; ".join(problems), value=shown, fix=_header_fix(header, lines))
    return found


#: What to do where a table holds the images themselves.
_NO_PATHS = (
    "write them to files and their paths into a column, or give the set with --data hf:NAME or as a saved folder"
)


def _inside_problems(no_text: Mapping[str, str], image_column: str) -> list[str]:
    """Columns of no text that would be the one of the images."""
    wanted = (image_column,) if image_column else USUAL_NAMES["image"]
    return [f"column {name!a} holds {kind[:_QUOTED]}" for name, kind in no_text.items() if name.lower() in wanted]


def _header_fix(header: list[str], lines: list[Line]) -> str:
    if any(is_image_name(name) for name in header):
        return "the first line looks like data: put a line like image,label above it"
    return "give names from the list of columns" if lines else "write one line per image below the header"


def _named(header: list[str], name: str, problems: list[str]) -> int | None:
    count = header.count(name)
    if count == 1:
        return header.index(name)
    near = difflib.get_close_matches(name, header, n=1)
    hint = f"; did you mean '{near[0]}'?" if near else ""
    problems.append(f"there are {count} columns '{name}'" if count else f"there is no column '{name}'{hint}")
    return None


def _usual(header: list[str], purpose: str) -> int | None:
    plain = [name.strip().lower().replace(" ", "_").replace("-", "_") for name in header]
    return next((plain.index(name) for name in USUAL_NAMES[purpose] if name in plain), None)


def _take(table: _Table, number: int, fields: list[str]) -> None:
    """Add one row, or note what is wrong with it."""
    if len(fields) > len(table.header):
        extra = f"{len(fields)} fields under {len(table.header)} columns; put quotes round a field with a comma"
        table.problems.append(f"{table.unit} {number}: {extra}")
        return
    cells = {p: fields[at] if at < len(fields) else "" for p, at in table.column.items()}
    if table.unit == "line" and _swallows(table, number, fields, cells):
        return
    if table.settings.skip_bad_rows and (reason := _nothing_to_use(cells)):
        table.reading.ignored[reason] += 1
        return
    row = _checked(table, number, cells)
    if row is not None:
        _add_once(table, number, row)


def _swallows(table: _Table, number: int, fields: list[str], cells: Mapping[str, str]) -> bool:
    """Whether a cell of use goes over several lines, which is noted before anything is skipped.

    Two stray quotes make one cell of all lines between them. In a column that is not read that may be a long comment,
    or rows that are missing: such lines are counted.
    """
    broken = [purpose for purpose, text in cells.items() if _line_breaks(text)]
    for purpose in broken:
        what = f"the {_CALLED[purpose]} {_quoted(cells[purpose])} goes over several lines: is a quote missing?"
        table.problems.append(f"{table.unit} {number}: {what}")
    inner = sum(map(_line_breaks, fields))
    if inner and not broken:
        table.reading.ignored[INNER_LINE] += inner
    return bool(broken)


def _line_breaks(text: str) -> int:
    return len(re.findall(r"\r\n|\r|\n", text))


def _nothing_to_use(cells: Mapping[str, str]) -> str:
    if not cells["image"]:
        return MISSING_PATH
    return "" if cells["label"] else MISSING_LABEL


def _checked(table: _Table, number: int, cells: Mapping[str, str]) -> Row | None:
    """The row, or None after noting every problem of its cells."""
    values: dict[str, Any] = {}
    wrong: list[str] = []
    for purpose, text in cells.items():
        try:
            values[purpose] = _CELLS[purpose](table, text)
        except _Refused as refused:
            wrong.append(str(refused))
    table.problems += [f"{table.unit} {number}: {each}" for each in wrong]
    if wrong:
        return None
    return Row(
        path=values["image"],
        label=values["label"],
        split=values.get("split"),
        group=values.get("group"),
        is_augmented=values.get("augmented"),
    )


def _add_once(table: _Table, number: int, row: Row) -> None:
    before, known = table.first.setdefault(row.path, (number, row))
    if known is row:
        table.reading.rows.append(row)
    elif known == row:
        table.reading.ignored[REPEATED] += 1
    else:
        differ = next(n for n in Row.__slots__ if getattr(known, n) != getattr(row, n))
        ours, theirs = getattr(row, differ), getattr(known, differ)
        what = f"{row.path!a} has {differ} {ours!a} here and {theirs!a} in {table.unit} {before}"
        table.problems.append(f"{table.unit} {number}: {what}")


def _image(table: _Table, text: str) -> str:
    """Path of an image as the manifest keeps it."""
    if not text:
        raise _Refused("no image path")
    if "://" in text[:12]:
        raise _Refused(f"{_quoted(text)} is an address: download it and give its path")
    path = _inside(table, text)
    if _exists(table, path):
        return _watched(table, path)
    if "\\" in text and _exists(table, other := _inside(table, text.replace("\\", "/"))):
        return _watched(table, other)
    table.missing += 1
    if not table.settings.skip_bad_rows:
        raise _Refused(f"missing file {_quoted(text)}")
    return path


def _watched(table: _Table, path: str) -> str:
    """The path; links that lead out of the table's folder are counted, as in class folders."""
    if not path.startswith("/"):
        folder = path.rpartition("/")[0]
        if folder not in table.outside:
            table.outside[folder] = leads_outside(table.root / folder, table.root)
        file = table.root / path
        table.reading.outside += table.outside[folder] or (file.is_symlink() and leads_outside(file, table.root))
    return path


def _exists(table: _Table, path: str) -> bool:
    try:
        return (table.root / path).exists()
    except (OSError, ValueError):  # no permission on the way, a name that no file can have
        return False


def _inside(table: _Table, text: str) -> str:
    """Relative to the table's folder where the path is inside it, else absolute if that is allowed."""
    root = table.root.as_posix()
    path = posixpath.normpath(posixpath.join(root, text))
    if path.startswith(root.rstrip("/") + "/"):
        return path[len(root.rstrip("/")) + 1 :]
    if not table.settings.allow_outside:
        raise _Refused(f"{_quoted(text)} leads out of the table's folder (--allow-outside accepts it)")
    return path


def _label(_table: _Table, text: str) -> str:
    if not text:
        raise _Refused("empty label")
    return _written("label", text)


def _split(_table: _Table, text: str) -> str | None:
    if text and text.lower() not in SET_NAMES:
        raise _Refused(f"unknown set {_quoted(text)}; use train, val or test")
    return SET_NAMES[text.lower()] if text else None


def _group(_table: _Table, text: str) -> str | None:
    return _written("group", text) or None


def _written(what: str, text: str) -> str:
    """A cell that is shown and stored as text; paths alone may hold bytes that are none."""
    if any("\udc80" <= each <= "\udcff" for each in text):
        raise _Refused(f"the {what} {_quoted(text)} is not UTF-8: save the table as CSV in UTF-8")
    if len(text.splitlines()) > 1:
        raise _Refused(f"the {what} {_quoted(text)} goes over several lines: is a quote missing?")
    return text


def _quoted(text: str) -> str:
    return ascii(text) if len(text) <= _QUOTED else f"{text[:_QUOTED]!a}... ({len(text):,} characters)"


def _augmented(_table: _Table, text: str) -> bool | None:
    try:
        return truth_of(text)
    except ValueError as error:
        raise _Refused(str(error)) from None


def truth_of(text: str) -> bool | None:
    """What a cell says that may be true or false; None for an empty one.

    Raises:
        ValueError: it says neither.
    """
    if text.lower() not in _BOOLEANS:
        raise ValueError(f"{_quoted(text)} is neither true nor false")
    return _BOOLEANS[text.lower()]


#: Purpose of a column -> what its cells mean; each raises _Refused.
_CELLS: dict[str, Callable[[_Table, str], Any]] = {
    "image": _image,
    "label": _label,
    "split": _split,
    "group": _group,
    "augmented": _augmented,
}


def _raise_problems(table: _Table) -> None:
    count = len(table.problems)
    if count:
        more = [f"... and {count - _SHOWN} more"] if count > _SHOWN else []
        listed = "\n  - ".join([str(table.file), *table.problems[:_SHOWN], *more])
        fix = f"correct them; paths start from {table.root}"
        if table.missing:
            fix += ", and --skip-bad-rows goes on without missing files"
        raise DataError(f"{count} problem{'s' * (count > 1)} in the table", value=listed, fix=fix)
    rows = table.reading.rows
    if not rows:
        raise DataError("no row of the table can be used", value=table.file, fix="write one line per image")
    if table.missing == len(table.first):
        value = f"{table.file} (first: {rows[0].path!a})"
        raise DataError("none of the files is there", value=value, fix=f"paths start from {table.root}")
