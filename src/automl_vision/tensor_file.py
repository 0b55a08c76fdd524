"""The only door to `torch.load`: files of tensors and plain types, from which nobody's code can run.

A file is a zip as `torch.save` writes it. Before torch sees it, its outer shape is checked: every record stored
(not compressed, so nothing can swell), sizes that add up, unique names, one small `data.pkl`, no code records. Then
`torch.load(weights_only=True)` reads it. Whatever is wrong, one error comes out, and torch's own advice to switch
the safety off is never shown.
"""

from __future__ import annotations

import stat
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from automl_vision.errors import ModelFileError
from automl_vision.files import write_atomically

LARGEST_FILE = 8 << 30  # bytes
LARGEST_INDEX = 16 << 20  # bytes of data.pkl: names and shapes, no weights
_REGENERATE = "copy it again from where it was made, or make it again"


def save_tensors(path: Path, values: Mapping[str, Any]) -> None:
    """Write tensors and plain types (dict, list, tuple, str, int, float, bool, None), atomically."""
    write_atomically(path, lambda file: torch.save(dict(values), file))


def load_tensors(path: Path) -> dict[str, Any]:
    """Read a file that `save_tensors` wrote, onto the CPU.

    Raises:
        ModelFileError: the file is missing, damaged, or holds anything but tensors and plain types.
    """
    _check_outside(path)
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch has no single error for "this is not what I wrote"
        raise ModelFileError("the file is damaged or foreign", value=str(path), fix=_REGENERATE) from error
    if not isinstance(loaded, dict):
        raise ModelFileError("the file does not hold named values", value=str(path), fix=_REGENERATE)
    return loaded


def _check_outside(path: Path) -> None:
    wrong = _outer_fault(path)
    if wrong:
        raise ModelFileError(wrong, value=str(path), fix=_REGENERATE)


def _outer_fault(path: Path) -> str:
    try:
        status = path.stat()
    except OSError as error:
        return f"the file cannot be read ({error.strerror})"
    if not stat.S_ISREG(status.st_mode):
        return "this is no regular file"
    if status.st_size > LARGEST_FILE:
        return f"the file has {status.st_size} bytes, over the limit of {LARGEST_FILE}"
    try:
        with zipfile.ZipFile(path) as archive:
            return _records_fault(archive.infolist(), status.st_size)
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, UnicodeDecodeError, EOFError):
        return "the file is no model file, or it was cut off"


def _records_fault(records: list[zipfile.ZipInfo], file_size: int) -> str:
    names = [record.filename for record in records]
    indexes = [record for record in records if record.filename.endswith("/data.pkl")]
    faults = {
        "records are stored twice": len(set(names)) != len(names),
        "records are compressed": any(record.compress_type != zipfile.ZIP_STORED for record in records),
        "records claim more bytes than the file has": sum(record.file_size for record in records) > file_size,
        "the file does not hold exactly one index": len(indexes) != 1,
        "the index is too large": any(record.file_size > LARGEST_INDEX for record in indexes),
        "the file holds code": any("constants.pkl" in name or "/code/" in name for name in names),
    }
    return next((f"this is no model file: {fault}" for fault, found in faults.items() if found), "")
