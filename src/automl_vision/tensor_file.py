"""The only door to `torch.load`: files of tensors and plain types, from which nobody's code can run.

A file is a zip as `torch.save` writes it. Before torch sees it, its outer shape is checked: one archive from the first
byte to the last, so that torch's reader of zips cannot find another one in it than Python's does here; every record
stored (not compressed, so nothing can swell) and as it was written (by its CRC, which torch does not look at), sizes
that add up, unique names, one small `data.pkl`, no code records. The opcodes of `data.pkl` are read, without obeying
them: only tensors, their storages and plain types may be made, and no container may be named twice. Then
`torch.load(weights_only=True)` reads the file. Whatever is wrong, one error comes out, and torch's own advice to
switch the safety off is never shown.
"""

from __future__ import annotations

import stat
import struct
import zipfile
from collections.abc import Iterator, Mapping
from io import BytesIO
from pathlib import Path
from typing import IO, Any

import torch

from automl_vision.errors import FileTooLarge, ModelFileError, ShortOfMemory
from automl_vision.files import write_atomically
from automl_vision.main_memory import available_memory
from automl_vision.place import Place, fetched
from automl_vision.tensor_program import OTHERS, OWN, Grammar, program_fault

#: Bytes that are read, and so the most that are written. A checkpoint is five times the weights: of a network of two
#: thousand million parameters that is 40 GB.
LARGEST_FILE = 64 << 30
LARGEST_INDEX = 16 << 20  # bytes of data.pkl: names and shapes, no weights
#: How a zip ends: its last record, and before that, in files as torch writes them, the wide form and where that is.
_END, _WIDE_END, _WIDE_PLACE = struct.Struct("<4s4H2LH"), struct.Struct("<4sQ2H2L4Q"), struct.Struct("<4sLQL")
_ENDS = _WIDE_END.size + _WIDE_PLACE.size + _END.size
_FREE = "end other programs, or take a machine with more memory"
_REGENERATE = "copy it again from where it was made, or make it again"


def save_tensors(path: Place, values: Mapping[str, Any]) -> None:
    """Write tensors and plain types (dict, list, tuple, str, int, float, bool, None), atomically.

    Raises:
        TypeError: a value is of another type.
        FileTooLarge: it would be larger than what `load_tensors` reads.
    """
    plain = _plain(dict(values))
    size = sum(tensor.nbytes for tensor in _tensors(plain))
    if size > LARGEST_FILE:
        what = f"the tensors have {size} bytes, over the limit of {LARGEST_FILE} for a file"
        raise FileTooLarge(what, value=str(path), fix="choose a smaller network")
    write_atomically(path, lambda file: torch.save(plain, file))


def load_tensors(path: Place) -> dict[str, Any]:
    """Read a file that `save_tensors` wrote, onto the CPU.

    Raises:
        ShortOfMemory: it does not fit into the memory that is free.
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
        if _ran_out(error):
            raise ShortOfMemory("memory ran out while the file was read", value=str(path), fix=_FREE) from error
        raise ModelFileError("the file is damaged or foreign", value=str(path), fix=_REGENERATE) from error
    if not isinstance(loaded, dict):
        raise ModelFileError("the file does not hold named values", value=str(path), fix=_REGENERATE)
    return loaded


def _ran_out(error: Exception) -> bool:
    """Whether it was memory that was missing, and nothing in the file."""
    return isinstance(error, MemoryError) or "DefaultCPUAllocator" in str(error)


def _source(path: Place) -> Path | BytesIO:
    """The file itself, or what is at an address, brought here whole.

    Raises:
        ShortOfMemory: it does not fit into the memory that is free.
        ModelFileError: it is missing, no regular file, or too large.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise ModelFileError("this is no regular file", value=str(path), fix=_REGENERATE)
        if status.st_size > LARGEST_FILE:
            what = f"the file has {status.st_size} bytes, over the limit of {LARGEST_FILE}"
            raise ModelFileError(what, value=str(path), fix=_REGENERATE)
        free = available_memory()
        if free is not None and status.st_size > free:
            what = f"the file has {status.st_size} bytes, and {free} bytes of memory are left"
            raise ShortOfMemory(what, value=str(path), fix=_FREE)
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
            return _archive_fault(archive, size, OWN)
    except (zipfile.BadZipFile, OSError, ValueError, RuntimeError, EOFError):
        return "the file is no model file, or it was cut off"


def _archive_fault(archive: zipfile.ZipFile, size: int, grammar: Grammar) -> str:
    records = archive.infolist()
    return (
        _ends_fault(archive, size)
        or _records_fault(records, size)
        or _content_fault(archive, _indexes(records)[0], grammar)
    )


def _ends_fault(archive: zipfile.ZipFile, size: int) -> str:
    """Whether there is anything but the one archive that Python sees.

    Python looks for the directory right before the end, whatever stands in front; torch's reader looks where the end
    says that it is. Of two archives in one file, each would read another one.
    """
    file = archive.fp
    if file is None:
        raise ValueError("the archive is closed")
    start, after = _directory(file, size)
    alone = start == archive.start_dir and after in (size - _END.size, size - _ENDS)
    return "" if alone else "this is no model file: there is more in it than one archive"


def _directory(file: IO[bytes], size: int) -> tuple[int, int]:
    """Where the directory of an archive begins, and where what follows it does, as the last bytes say it; -1 for ends
    that contradict one another, or that a text follows."""
    file.seek(max(0, size - _ENDS))
    ends = file.read(_ENDS).rjust(_ENDS, b"\0")
    signature, _, _, _, _, length, start, comment = _END.unpack(ends[-_END.size :])
    if signature != b"PK\5\6" or comment:
        return -1, -1
    pointer = ends[_WIDE_END.size : -_END.size]
    if not pointer.startswith(b"PK\6\7"):
        return start, start + length
    where = _WIDE_PLACE.unpack(pointer)[2]
    wide_signature, *_, wide_length, wide_start = _WIDE_END.unpack(ends[: _WIDE_END.size])
    agree = start in (wide_start, 0xFFFFFFFF) and length in (wide_length, 0xFFFFFFFF)
    if wide_signature != b"PK\6\6" or where != size - _ENDS or not agree:
        return -1, -1
    return wide_start, wide_start + wide_length


def _indexes(records: list[zipfile.ZipInfo]) -> list[zipfile.ZipInfo]:
    """The programs that torch could take: it finds records whatever their case."""
    return [record for record in records if record.filename.lower().endswith("/data.pkl")]


def _records_fault(records: list[zipfile.ZipInfo], file_size: int) -> str:
    names = [record.filename.lower() for record in records]
    indexes = _indexes(records)
    return _first(
        {
            "records are stored twice": len(set(names)) != len(names),
            "names of records end early": any("\0" in record.orig_filename for record in records),
            "records are compressed": any(record.compress_type != zipfile.ZIP_STORED for record in records),
            "records claim more bytes than the file has": sum(record.file_size for record in records) > file_size,
            "the file does not hold exactly one index": len(indexes) != 1,
            "the index is too large": any(record.file_size > LARGEST_INDEX for record in indexes),
            "the file holds code": any("constants.pkl" in name or "/code/" in name for name in names),
        }
    )


def _content_fault(archive: zipfile.ZipFile, index: zipfile.ZipInfo, grammar: Grammar) -> str:
    damaged = archive.testzip()
    if damaged is not None:
        return f"the file was changed after it was written, in record {damaged[:80]!r}"
    return program_fault(archive.read(index), grammar)


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


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    """All that a plain value holds."""
    if isinstance(value, torch.Tensor):
        yield value
    held = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    for each in held:
        yield from _tensors(each)


# --- what others wrote ----------------------------------------------------------------------------------------------

#: First bytes of a zip that is not empty: so torch tells its archives from the format that it had before.
_ARCHIVE = b"PK\x03\x04"
#: A number that marks the format, its version, what the machine was like, the values, and the names of the storages.
_PROGRAMS = 5


def load_tensors_of_others(path: Path) -> object:
    """Read what a `torch.save` that was not ours wrote, such as pretrained weights, onto the CPU.

    Others write what `save_tensors` does not: parameters, attributes of dictionaries, tuples that are held twice, the
    format before archives. So more is let in, and still nothing that runs, swells or unfolds.

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
                file.seek(0)
                return _programs_fault(BytesIO(file.read(LARGEST_INDEX)))  # a text in it may claim gigabytes
            with zipfile.ZipFile(file) as archive:
                return _archive_fault(archive, status.st_size, OTHERS)
    except (zipfile.BadZipFile, OSError, ValueError, RuntimeError, EOFError) as error:
        return f"the file cannot be read ({getattr(error, 'strerror', None) or error})"


def _programs_fault(file: IO[bytes]) -> str:
    """What is wrong with the programs that stand before the numbers in the format before archives."""
    faults = (program_fault(file, OTHERS) for _ in range(_PROGRAMS))
    return next((fault for fault in faults if fault), "")
