"""READERS: the forms in which labelled images come."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from automl_vision.data.manifest import Manifest
from automl_vision.data.readers.folders import (
    is_class_folders,
    is_set_folders,
    read_class_folders,
    read_set_folders,
)
from automl_vision.data.readers.reader import Reader
from automl_vision.data.readers.scan import ending, is_image_name
from automl_vision.data.readers.table import is_table, read_table
from automl_vision.errors import DataError

if TYPE_CHECKING:
    from automl_vision.config import DataSettings

#: Name -> reader, in the order in which they are tried.
READERS: dict[str, Reader] = {
    "table": Reader("a CSV, TSV or Parquet table", is_table, read_table),
    "set_folders": Reader("train/, val/ and test/ with class folders", is_set_folders, read_set_folders),
    "class_folders": Reader("class folders", is_class_folders, read_class_folders),
}

_ARCHIVES = frozenset((".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar"))


def read(data: Path, settings: DataSettings) -> Manifest:
    """The labelled images of a folder or a table.

    Args:
        data: a folder or a table file.
        settings: names of columns, and what is tolerated.

    Raises:
        DataError: there is nothing of a known form, or what is there cannot be used.
    """
    if not os.access(data, os.F_OK):
        raise DataError("there is no such folder or table", value=data, fix="check the path and permissions")
    for reader in READERS.values():
        if reader.accepts(data):
            return reader.read(data, settings)
    what, fix = _unknown(data)
    raise DataError(what, value=data, fix=fix)


def _unknown(data: Path) -> tuple[str, str]:
    """What is wrong with a path that no reader takes, and the fix."""
    if ending(data.name) in _ARCHIVES:
        return "archives are not read", "unpack it and give the folder"
    if is_image_name(data.name):
        return "this is a single image", "give the folder that holds the class folders"
    return "this file is no table of images", "give a folder, or a .csv, .tsv or .parquet file"
