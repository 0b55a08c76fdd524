"""CSV and TSV files as rows of text with their line numbers."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from automl_vision.errors import DataError

_DELIMITERS = (",", "\t", ";", "|")
_WIDE_BOMS = (b"\xff\xfe", b"\xfe\xff")

Line = tuple[int, list[str]]


def read_lines(file: Path) -> list[Line]:
    """All lines that hold something, as (line number in the file, fields without outer blanks).

    The delimiter is the one that cuts the first line into most fields. Byte order marks are dropped. Bytes
    that are not UTF-8 are kept as the file system would keep them, so that a path made of them still opens.
    A quote that is not closed, which would swallow all lines up to the next one, is an error.

    Raises:
        DataError: the file cannot be read, is no text, or no table.
    """
    text = _text(file)
    reader = csv.reader([])
    try:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=_delimiter(text), strict=True)
        return [
            (reader.line_num, [each.strip() for each in fields])
            for fields in reader
            if any(each.strip() for each in fields)
        ]
    except csv.Error as error:
        where = f"{file}, line {reader.line_num} ({error})"
        raise DataError("the table is damaged", value=where, fix="correct that line") from None


def _text(file: Path) -> str:
    try:
        data = file.read_bytes()
    except OSError as error:
        raise DataError(
            "cannot read the table", value=f"{file} ({error.strerror})", fix="check the path and permissions"
        ) from None
    encoding = "utf-16" if data.startswith(_WIDE_BOMS) else "utf-8-sig"
    text = data.decode(encoding, "surrogateescape" if encoding == "utf-8-sig" else "replace")
    if "\0" in text:
        raise DataError("the table is no text", value=file, fix="save it as CSV in UTF-8")
    return text


def _delimiter(text: str) -> str:
    first = next((line for line in text.splitlines() if line.strip()), "")
    return max(_DELIMITERS, key=lambda each: len(next(csv.reader([first], delimiter=each), [])))
