"""What every form of labelled images has in common."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from unicodedata import normalize

import numpy as np

from automl_vision.data.manifest import LARGEST_CLASS_NAMES, LONGEST_CLASS_NAME, MOST_CLASSES, Manifest
from automl_vision.errors import DataError

if TYPE_CHECKING:
    from automl_vision.config import DataSettings


@dataclass(frozen=True)
class Reader:
    """One form in which labelled images come.

    Attributes:
        what: the form in a few words, for messages.
        accepts: whether a path has this form; called in the order of the table, so a later reader may rely on
            what earlier ones refused.
        read: the manifest of such a path; raises DataError.
    """

    what: str
    accepts: Callable[[Path], bool]
    read: Callable[[Path, DataSettings], Manifest]


@dataclass(frozen=True, slots=True)
class Row:
    """One labelled image: path as the manifest keeps it, label, and the user's own columns."""

    path: str
    label: str
    split: str | None = None
    group: str | None = None
    is_augmented: bool | None = None


@dataclass
class Reading:
    """What a reader has met so far."""

    rows: list[Row] = field(default_factory=list)
    ignored: Counter[str] = field(default_factory=Counter)
    empty_classes: set[str] = field(default_factory=set)
    outside: int = 0


def to_manifest(root: Path, reading: Reading, settings: DataSettings) -> Manifest:
    """Sort the rows by path and number their classes.

    Raises:
        DataError: two class names differ by case or Unicode form alone, or one cannot be kept, or one of a group.
    """
    rows = sorted(reading.rows, key=lambda row: row.path)
    class_names = tuple(sorted({row.label for row in rows}))
    _require_text("class name", class_names)
    _require_text("group", {row.group for row in rows if row.group is not None})
    if not settings.label_map:
        check_class_names(class_names)
    index = {name: number for number, name in enumerate(class_names)}
    return Manifest(
        root=root,
        paths=tuple(row.path for row in rows),
        labels=np.array([index[row.label] for row in rows], dtype=np.int64),
        class_names=class_names,
        split=_column(row.split for row in rows),
        group=_column(row.group for row in rows),
        is_augmented=_column(row.is_augmented for row in rows),
        ignored={reason: count for reason, count in sorted(reading.ignored.items()) if count},
        empty_classes=tuple(sorted(reading.empty_classes - set(class_names))),
        outside=reading.outside,
    )


_T = TypeVar("_T")


def _column(values: Iterable[_T | None]) -> tuple[_T | None, ...] | None:
    column = tuple(values)
    return None if all(value is None for value in column) else column


def check_class_names(names: Iterable[str]) -> None:
    """Refuse names that a person would read as one class, and those that no model file can hold.

    Raises:
        DataError: naming every such pair, or such a name.
    """
    names = tuple(names)
    _check_storable(names)
    seen: dict[str, str] = {}
    alike: list[str] = []
    for name in names:
        first = seen.setdefault(normalize("NFC", name).casefold(), name)
        if first != name:
            alike.append(f"{first!a} and {name!a}")
    if alike:
        raise DataError(
            "class names differ only by case or Unicode form",
            value=", ".join(alike[:10]),
            fix="rename them to one name, or merge them with --label-map",
        )


def _check_storable(names: Sequence[str]) -> None:
    long = [name for name in names if len(name) > LONGEST_CLASS_NAME]
    if long:
        raise DataError(
            f"a class name has over {LONGEST_CLASS_NAME:,} characters",
            value=f"{long[0][:100]!a}... ({len(long[0]):,} characters)",
            fix="give the class a shorter name; in a table a quote may be missing",
        )
    _require_text("class name", names)
    size = sum(len(name.encode()) for name in names)
    if len(names) > MOST_CLASSES or size > LARGEST_CLASS_NAMES:
        raise DataError(
            "no model file can hold so many class names",
            value=f"{len(names):,} names of {size:,} bytes (limits: {MOST_CLASSES:,}, {LARGEST_CLASS_NAMES:,} bytes)",
            fix="merge classes with --label-map, or give them shorter names",
        )


def _require_text(what: str, names: Iterable[str]) -> None:
    """Refuse what holds halves of characters, or bytes that are no text: nothing could write it."""
    no_text = next((name for name in names if not _is_text(name)), None)
    if no_text is not None:
        shown = no_text[:100]
        raise DataError(f"a {what} is not UTF-8", value=f"{shown!a}", fix="save the labels in UTF-8")


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def printable(name: str) -> str:
    """A name from the file system as text that every writer accepts: undecodable bytes become `\\xff`."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def most_common(counts: Mapping[str, int], limit: int = 5) -> str:
    """The largest counts as text: "12 .txt, 3 .pdf"."""
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    more = f" and {len(ranked) - limit} other kinds" if len(ranked) > limit else ""
    return ", ".join(f"{count} {name}" for name, count in ranked[:limit]) + more
