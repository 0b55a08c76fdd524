"""Which rows of a build are wholly written: what is left of them when the process is killed.

A text file of one line per group of rows: the CRC-32 of the rest of the line in 8 hex digits, a blank, and JSON. A
line is appended only after the squares of its rows were handed to the system, so a killed process leaves whole rows and
at most one torn line. Nothing is flushed to the disk for it: after a power cut the checksums of lines and squares tell
what did not arrive.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from automl_vision.data.fact_table import COLUMNS, PLANE_ROW
from automl_vision.data.survey import Fact

JOURNAL = "rows.journal"
#: Rows of a line. A killed process loses no more than these.
GROUP = 64
_DIGITS = 8


class MadeOtherwise(Exception):
    """The rows of a journal were made in another way: they are of use to others alone."""


@dataclass(frozen=True)
class JournaledRow:
    """A row that was wholly written.

    Attributes:
        fact: with `COLUMNS`.
        crcs: CRC-32 of its square in every plane, sides ascending; none where it is quarantined.
    """

    fact: Fact
    crcs: tuple[int, ...]

    @property
    def place(self) -> int:
        """Row in the planes, -1 where it is quarantined."""
        return int(self.fact[PLANE_ROW])


def first_line(made: dict[str, Any]) -> bytes:
    """The line that tells how the squares were made."""
    return _line({**made, "columns": list(COLUMNS)})


def group_line(rows: list[JournaledRow]) -> bytes:
    """The line of a group of rows."""
    return _line([[*(row.fact[name] for name in COLUMNS), row.crcs] for row in rows])


def read_journal(file: Path, made: Mapping[str, Any]) -> Iterator[JournaledRow]:
    """The rows that were wholly written; none where there is no file, or it does not tell how they were made.

    Args:
        file: as it was left.
        made: how squares are made here, as for `first_line`.

    Raises:
        MadeOtherwise: the squares were made in another way.
        OSError: it cannot be read.
    """
    try:
        with file.open("rb") as lines:
            told = _value(lines.readline())
            if told is None:
                return
            if told != {**made, "columns": list(COLUMNS)}:
                raise MadeOtherwise
            for line in lines:
                group = _value(line)
                if group is None:
                    return
                for *values, crcs in group:
                    yield JournaledRow(dict(zip(COLUMNS, values, strict=True)), tuple(crcs))
    except FileNotFoundError:
        return


def _line(value: Any) -> bytes:
    text = json.dumps(value, separators=(",", ":")).encode("ascii")
    return b"%0*x %s\n" % (_DIGITS, zlib.crc32(text), text)


def _value(line: bytes) -> Any:
    """What a line says; None where it is torn or altered."""
    text = line[_DIGITS + 1 : -1]
    whole = line.endswith(b"\n") and line[: _DIGITS + 1] == b"%0*x " % (_DIGITS, zlib.crc32(text))
    return json.loads(text) if whole else None
