"""Folders as labels: `cat/1.jpg`, and ready-made sets: `train/cat/1.jpg`, `test/cat/2.jpg`."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from automl_vision.data.manifest import SET_NAMES, Manifest
from automl_vision.data.readers.reader import Reading, Row, most_common, printable, to_manifest
from automl_vision.data.readers.scan import Scan, ending, passed_over
from automl_vision.errors import DataError

if TYPE_CHECKING:
    from automl_vision.config import DataSettings

OUTSIDE_CLASSES = "image outside the class folders"
BESIDE_SETS = "folder beside the set folders"
TABLE_SUFFIXES = frozenset((".csv", ".tsv", ".parquet"))

_LAYOUT = "put each class into its own folder, like {root}/cat/1.jpg and {root}/dog/2.jpg"


def is_class_folders(data: Path) -> bool:
    """Any folder: it is the last form that is tried."""
    return data.is_dir()


def is_set_folders(data: Path) -> bool:
    """True for a folder with train/ that holds folders, beside which are other sets or nothing else.

    A class may be called "train" as well: then there are no other sets, but other classes.
    """
    if not data.is_dir():
        return False
    names = _folder_names(data)
    sets = {SET_NAMES[name.lower()] for name in names if name.lower() in SET_NAMES}
    trains = [name for name in names if SET_NAMES.get(name.lower()) == "train"]
    others = [name for name in names if name.lower() not in SET_NAMES]
    return any(_folder_names(data / name) for name in trains) and (len(sets) > 1 or not others)


def _folder_names(folder: Path) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.name for entry in entries if not passed_over(entry.name) and entry.is_dir())
    except OSError:
        return []


def read_class_folders(data: Path, settings: DataSettings) -> Manifest:
    """Class folders: the first folder below the root is the class, however deep the image lies.

    Raises:
        DataError: no image is in a class folder, or class names differ by case or Unicode form alone.
    """
    scan = _begin(data, settings)
    reading = Reading(ignored=scan.ignored)
    for path in scan.images():
        label, slash, _ = path.partition("/")
        _add(reading, Row(path, printable(label)) if slash else None)
    reading.empty_classes = {printable(name) for name in scan.upper_folders if "/" not in name}
    return _finish(scan, reading, settings)


def read_set_folders(data: Path, settings: DataSettings) -> Manifest:
    """train/, val|valid|validation/ and test/, each with class folders.

    With train/ alone there is no split to keep: the manifest then has none.

    Raises:
        DataError: as `read_class_folders`.
    """
    scan = _begin(data, settings)
    reading = Reading(ignored=scan.ignored)
    names = _folder_names(data)
    sets = {name: SET_NAMES[name.lower()] for name in names if name.lower() in SET_NAMES}
    reading.ignored[BESIDE_SETS] += len(names) - len(sets)
    alone = set(sets.values()) == {"train"}
    for path in scan.images(top=tuple(sets)):
        top, label, *rest = path.split("/", 2)
        _add(reading, Row(path, printable(label), None if alone else sets[top]) if rest else None)
    inner = [name.split("/") for name in scan.upper_folders]
    reading.empty_classes = {printable(parts[1]) for parts in inner if len(parts) == 2}
    return _finish(scan, reading, settings)


def _begin(data: Path, settings: DataSettings) -> Scan:
    scan = Scan(data.resolve(), allow_outside=settings.allow_outside)
    if not os.access(scan.root, os.R_OK | os.X_OK):
        raise DataError("the folder cannot be opened", value=data, fix="check its permissions")
    return scan


def _add(reading: Reading, row: Row | None) -> None:
    if row is None:
        reading.ignored[OUTSIDE_CLASSES] += 1
    else:
        reading.rows.append(row)


def _finish(scan: Scan, reading: Reading, settings: DataSettings) -> Manifest:
    reading.outside = scan.outside
    if reading.rows:
        return to_manifest(scan.root, reading, settings)
    layout = _LAYOUT.format(root=scan.root.name)
    if loose := scan.ignored[OUTSIDE_CLASSES]:
        value = f"{scan.root} ({loose} images that are in no class folder)"
        raise DataError("the images are not in class folders", value=value, fix=_flat_fix(scan.root, layout))
    found = most_common(Counter({k.removeprefix("not an image: "): n for k, n in scan.ignored.items() if n}))
    if not found:
        raise DataError("the folder is empty", value=scan.root, fix=layout)
    raise DataError("there are no images in this folder", value=f"{scan.root} (found: {found})", fix=layout)


def _flat_fix(root: Path, layout: str) -> str:
    tables = sorted(p.name for p in root.iterdir() if ending(p.name) in TABLE_SUFFIXES)
    return f"give the table instead: --data {root / tables[0]}" if tables else f"{layout}; or give a table"
