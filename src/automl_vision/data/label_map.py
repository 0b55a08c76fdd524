"""Merging fine labels into coarse ones: 37 breeds into cat and dog."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from unicodedata import normalize

import numpy as np

from automl_vision.data.manifest import Manifest
from automl_vision.data.readers.delimited import Line, read_lines
from automl_vision.data.readers.reader import check_class_names
from automl_vision.errors import DataError

_SHOWN = 20


def apply_label_map(manifest: Manifest, csv_path: Path) -> Manifest:
    """The manifest under coarse labels.

    Args:
        manifest: the labels as they were read.
        csv_path: two columns, fine label and coarse label; with or without a header line. Entries for classes
            that are not there are passed over (which is also why a header does no harm).

    Raises:
        DataError: the file cannot be read; a line is incomplete or contradicts another; a class has no entry.
            All problems of one kind are listed at once.
    """
    coarse = _entries(csv_path, read_lines(csv_path))
    unmapped = [name for name in manifest.class_names if _key(name) not in coarse]
    if unmapped:
        more = f" and {len(unmapped) - _SHOWN} more" if len(unmapped) > _SHOWN else ""
        raise DataError(
            f"{len(unmapped)} of {len(manifest.class_names)} classes are not in the label map",
            value=f"{csv_path}: {', '.join(map(repr, unmapped[:_SHOWN]))}{more}",
            fix="add a line `fine,coarse` for each of them",
        )
    names = [coarse[_key(name)] for name in manifest.class_names]
    class_names = tuple(sorted(set(names)))
    check_class_names(class_names)
    number = np.array([class_names.index(name) for name in names], dtype=np.int64)
    return replace(
        manifest,
        labels=number[manifest.labels],
        class_names=class_names,
        empty_classes=_still_empty(manifest, coarse, class_names),
    )


def _still_empty(manifest: Manifest, coarse: dict[str, str], kept: tuple[str, ...]) -> tuple[str, ...]:
    """Empty class folders; one that has merged into a class with images is no longer empty."""
    return tuple(name for name in manifest.empty_classes if coarse.get(_key(name), name) not in kept)


def _entries(file: Path, lines: list[Line]) -> dict[str, str]:
    problems: list[str] = []
    coarse: dict[str, str] = {}
    for number, fields in lines:
        wrong = _wrong(fields, coarse)
        if wrong:
            problems.append(f"line {number}: {wrong}")
        else:
            coarse[_key(fields[0])] = fields[1]
    if problems:
        raise DataError(
            f"{len(problems)} problem{'s' * (len(problems) > 1)} in the label map",
            value="\n  - ".join([str(file), *problems[:_SHOWN]]),
            fix="write two columns, fine label and coarse label, one line per class",
        )
    return coarse


def _wrong(fields: list[str], known: dict[str, str]) -> str:
    if len(fields) != 2 or not all(fields):
        return f"needs two labels, got {fields}"
    before = known.get(_key(fields[0]), fields[1])
    return "" if before == fields[1] else f"{fields[0]!r} is {fields[1]!r} here and {before!r} before"


def _key(name: str) -> str:
    # A file manager may write the same letters in another Unicode form than an editor does.
    return normalize("NFC", name)
