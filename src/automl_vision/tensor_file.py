"""The only door to `torch.load`: files of tensors and plain types, from which nobody's code can run.

A file is a zip as `torch.save` writes it. Before torch sees it, its outer shape is checked: every record stored
(not compressed, so nothing can swell) and as it was written (by its CRC, which torch does not look at), sizes that add
up, unique names, one small `data.pkl`, no code records. The opcodes of `data.pkl` are read, without obeying them: only
tensors, their storages and plain types may be made, and no container may be named twice. Then
`torch.load(weights_only=True)` reads the file. Whatever is wrong, one error comes out, and torch's own advice to
switch the safety off is never shown.
"""

from __future__ import annotations

import pickletools  # nosec B403 # it tells opcodes, and obeys none
import stat
import zipfile
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import torch

from automl_vision.errors import ModelFileError
from automl_vision.files import write_atomically
from automl_vision.place import Place, fetched

LARGEST_FILE = 8 << 30  # bytes
LARGEST_INDEX = 16 << 20  # bytes of data.pkl: names and shapes, no weights
LARGEST_PROGRAM = 1_000_000  # opcodes of data.pkl; a network of a thousand tensors has thirty thousand
_STORAGES = ("Bool", "Byte", "Char", "Short", "Int", "Long", "Half", "BFloat16", "Float", "Double")
#: All that an index may call. torch's own list is longer: it has `bytearray`, which one number makes fill the memory.
_CALLABLE = {
    "torch._utils _rebuild_tensor_v2",
    "collections OrderedDict",
    *(f"torch {kind}Storage" for kind in _STORAGES),
}
#: Opcodes whose result may be used again later. Containers are not among them: twenty lists, each of which holds the
#: one before it ten times, would unfold without end, and so would the hash of such tuples.
_REUSABLE = {"BINUNICODE", "GLOBAL", "REDUCE"}
_STORE = {"BINPUT", "LONG_BINPUT"}
_USE_AGAIN = {"BINGET", "LONG_BINGET"}
_REGENERATE = "copy it again from where it was made, or make it again"


def save_tensors(path: Place, values: Mapping[str, Any]) -> None:
    """Write tensors and plain types (dict, list, tuple, str, int, float, bool, None), atomically.

    Raises:
        TypeError: a value is of another type.
    """
    plain = _plain(dict(values))
    write_atomically(path, lambda file: torch.save(plain, file))


def load_tensors(path: Place) -> dict[str, Any]:
    """Read a file that `save_tensors` wrote, onto the CPU.

    Raises:
        ModelFileError: the file is missing, damaged, or holds anything but tensors and plain types.
    """
    source = _source(path)
    wrong = _outer_fault(source)
    if wrong:
        raise ModelFileError(wrong, value=str(path), fix=_REGENERATE)
    if not isinstance(source, Path):
        source.seek(0)  # checking has read to the end of it
    try:
        loaded = torch.load(source, map_location="cpu", weights_only=True)  # noqa: TID251 - this is its one door
    except Exception as error:  # torch has no single error for "this is not what I wrote"
        raise ModelFileError("the file is damaged or foreign", value=str(path), fix=_REGENERATE) from error
    if not isinstance(loaded, dict):
        raise ModelFileError("the file does not hold named values", value=str(path), fix=_REGENERATE)
    return loaded


def _source(path: Place) -> Path | BytesIO:
    """The file itself, or what is at an address, brought here whole.

    Raises:
        ModelFileError: it is missing, no regular file, or too large.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise ModelFileError("this is no regular file", value=str(path), fix=_REGENERATE)
        if status.st_size > LARGEST_FILE:
            what = f"the file has {status.st_size} bytes, over the limit of {LARGEST_FILE}"
            raise ModelFileError(what, value=str(path), fix=_REGENERATE)
        return path if isinstance(path, Path) else fetched(path)
    except OSError as error:
        what = f"the file cannot be read ({error.strerror or error})"
    except ValueError as error:  # a NUL in the path
        what = f"the file cannot be read ({error})"
    raise ModelFileError(what, value=str(path), fix=_REGENERATE)


def _outer_fault(source: Path | BytesIO) -> str:
    size = source.stat().st_size if isinstance(source, Path) else len(source.getbuffer())
    try:
        with zipfile.ZipFile(source) as archive:
            return _records_fault(archive.infolist(), size) or _content_fault(archive)
    except (zipfile.BadZipFile, OSError, ValueError, RuntimeError, EOFError):
        return "the file is no model file, or it was cut off"


def _records_fault(records: list[zipfile.ZipInfo], file_size: int) -> str:
    # torch finds records whatever their case.
    names = [record.filename.lower() for record in records]
    indexes = [record for record in records if record.filename.endswith("/data.pkl")]
    return _first(
        {
            "records are stored twice": len(set(names)) != len(names),
            "records are compressed": any(record.compress_type != zipfile.ZIP_STORED for record in records),
            "records claim more bytes than the file has": sum(record.file_size for record in records) > file_size,
            "the file does not hold exactly one index": len(indexes) != 1,
            "the index is too large": any(record.file_size > LARGEST_INDEX for record in indexes),
            "the file holds code": any("constants.pkl" in name or "/code/" in name for name in names),
        }
    )


def _content_fault(archive: zipfile.ZipFile) -> str:
    damaged = archive.testzip()
    if damaged is not None:
        return f"the file was changed after it was written, in record {damaged[:80]!r}"
    index = next(name for name in archive.namelist() if name.endswith("/data.pkl"))
    return _program_fault(archive.read(index))


def _program_fault(index: bytes) -> str:
    """What is wrong with the program that makes the values, found without running it; `ValueError` for no program."""
    reusable: set[object] = set()
    before = ""
    for count, (opcode, argument, _) in enumerate(pickletools.genops(index)):
        if opcode.name in _STORE and before in _REUSABLE:
            reusable.add(argument)
        elif opcode.name in _STORE:
            reusable.discard(argument)
        fault = _first(
            {
                "the index is too long": count > LARGEST_PROGRAM,
                "it would run foreign code": opcode.name == "GLOBAL" and argument not in _CALLABLE,
                "it would change what was made": opcode.name in {"BUILD", "NEWOBJ"},
                "it names a container twice": opcode.name in _USE_AGAIN and argument not in reusable,
            }
        )
        if fault:
            return fault
        before = opcode.name
    return ""


def _first(faults: Mapping[str, bool]) -> str:
    return next((f"this is no model file: {fault}" for fault, found in faults.items() if found), "")


def _plain(value: Any) -> Any:
    """A copy of all containers, none of them shared, with tensors as they are and numbers of the plain types."""
    if isinstance(value, torch.Tensor) or value is None:
        return value
    if isinstance(value, dict):
        return {_plain(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        items = [_plain(item) for item in value]
        return items if isinstance(value, list) else tuple(items)
    for kind in (bool, int, float, str):
        if isinstance(value, kind):
            return kind(value)
    raise TypeError(f"only tensors and plain types can be written, got {type(value).__name__}")


# --- what others wrote ----------------------------------------------------------------------------------------------

#: First bytes of a zip that is not empty: so torch tells its archives from the format that it had before.
_ARCHIVE = b"PK\x03\x04"


def load_tensors_of_others(path: Path) -> object:
    """Read what a `torch.save` that was not ours wrote, such as pretrained weights, onto the CPU.

    Others write what `save_tensors` does not: parameters, attributes of dictionaries, the format before archives. So of
    an archive only the records are checked, and the rest is left to `weights_only`: nothing in the file can run, but
    what it says may take long to read.

    Raises:
        ModelFileError: the file is missing or damaged, or holds what `weights_only` does not make.
    """
    fault = _fault_of_others(path)
    if fault:
        raise ModelFileError(fault, value=str(path), fix=_REGENERATE)
    try:
        return torch.load(path, map_location="cpu", weights_only=True)  # noqa: TID251 - the same door
    except Exception as error:
        raise ModelFileError("the file is damaged or foreign", value=str(path), fix=_REGENERATE) from error


def _fault_of_others(path: Path) -> str:
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode) or status.st_size > LARGEST_FILE:
            return f"this is no regular file of up to {LARGEST_FILE} bytes"
        with path.open("rb") as file:
            if file.read(len(_ARCHIVE)) != _ARCHIVE:
                return ""
            with zipfile.ZipFile(file) as archive:
                return _records_fault(archive.infolist(), status.st_size) or _changed_record(archive)
    except (zipfile.BadZipFile, OSError, ValueError, RuntimeError, EOFError) as error:
        return f"the file cannot be read ({getattr(error, 'strerror', None) or error})"


def _changed_record(archive: zipfile.ZipFile) -> str:
    damaged = archive.testzip()
    return "" if damaged is None else f"the file was changed after it was written, in record {damaged[:80]!r}"
