"""Encoded images of a data set as files in the cache folder, written once: `KEY/train/000123.jpg`.

An entry is there as a whole or not at all. It counts and goes like decoded images (`cache_entries`); a set whose files
went is written again.
"""

from __future__ import annotations

import json
import os
import posixpath
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from unicodedata import normalize

from automl_vision.data.cache_entries import (
    IN_USE_SECONDS,
    SCRATCH,
    UNPACKED,
    give_up,
    held_in_turn,
    largest_cache,
    note_use,
    told_once,
)
from automl_vision.data.files import read_bytes
from automl_vision.data.hugging_face import Part, Stored
from automl_vision.data.plane_cache import TemporaryFolder
from automl_vision.data.readers.scan import ending, is_image_name, passed_over
from automl_vision.errors import DataError, ImageReadError
from automl_vision.files import write_json

#: What the first bytes of a file say of its ending; ours where they say nothing.
MAGIC: tuple[tuple[bytes, str], ...] = (
    (b"\xff\xd8", ".jpg"),
    (b"\x89PNG", ".png"),
    (b"GIF8", ".gif"),
    (b"BM", ".bmp"),
    (b"II*\x00", ".tif"),
    (b"MM\x00*", ".tif"),
    *((b"P%d" % number, ".pnm") for number in range(1, 7)),
)
_UNKNOWN = ".bin"
_LONGEST_NAME = 200
_FORMAT = 1
#: Folders for runs that keep nothing; they go when the process ends.
_temporary: dict[str, TemporaryFolder] = {}


@dataclass(frozen=True)
class Source:
    """What is unpacked.

    Attributes:
        key: 32 hex digits that name the content.
        parts: name of its folder -> the part.
        column: of the images.
        may_read: whether a file that the set names instead of holding it may be read.
    """

    key: str
    parts: Mapping[str, Part]
    column: str
    may_read: Callable[[str], bool]


@dataclass(frozen=True)
class Unpacked:
    """Where the files are.

    Attributes:
        folder: that their names start from.
        names: name of a part's folder -> file of each row, None for a row without an image.
    """

    folder: Path
    names: Mapping[str, Sequence[str | None]]


def unpack(
    source: Source,
    cache_dir: Path | None,
    most_bytes: int | None,
    tell: Callable[[str], None],
    ask: Callable[[], object] = lambda: None,
) -> Unpacked:
    """The images of a set as files; written where an earlier run has not left them.

    Args:
        source: the set.
        cache_dir: the folder of the cache; None for one that goes with the process.
        most_bytes: what the cache may grow to, once these are in it; None for `largest_cache`.
        tell: told once, where something is written.
        ask: asked every second, as long as another process writes them; ends the waiting by an error of its own.

    Raises:
        DataError: the folder cannot be written, or has no room.
    """
    if cache_dir is None:
        if source.key not in _temporary:
            _temporary[source.key] = TemporaryFolder()
        cache_dir = _temporary[source.key].path
    folder = cache_dir / source.key
    found = _opened(folder, source)
    if found is not None:
        return found
    told = told_once(tell, "unpacks the same data set")

    def waiting(who: str) -> None:
        told(who)
        ask()

    try:
        cache_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        with held_in_turn(cache_dir, source.key, waiting):
            found = _opened(folder, source)  # another process may have written it while this one waited
            if found is None:
                _write_beside(folder, source, tell)
                give_up(
                    cache_dir,
                    largest_cache(cache_dir) if most_bytes is None else most_bytes,
                    spare=source.key,
                    idle_seconds=IN_USE_SECONDS,
                )
                found = _opened(folder, source)
    except OSError as error:
        raise _no_room(cache_dir, str(error.strerror or error)) from None
    if found is None:
        raise _no_room(cache_dir, "what was written is not there")
    return found


def _no_room(cache_dir: Path, reason: str) -> DataError:
    return DataError(
        "the images of the data set cannot be unpacked", value=f"{cache_dir} ({reason})", fix="choose --cache-dir"
    )


def _opened(folder: Path, source: Source) -> Unpacked | None:
    """What an earlier run left; None where it is damaged, or names what such a run does not write."""
    try:
        told = json.loads((folder / UNPACKED).read_text(encoding="utf-8"))
        names = {part: list(told["names"][part]) for part in source.parts}
        if told["format"] != _FORMAT or not all(_are_own(names[part], part, source) for part in names):
            return None
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None
    note_use(folder, UNPACKED)
    return Unpacked(folder, names)


def _are_own(names: Sequence[object], part: str, source: Source) -> bool:
    """Whether there is one name for each row, all of them of files in the folder of the part and nowhere else."""
    files = [name for name in names if name is not None]
    return len(names) == source.parts[part].rows and all(
        isinstance(file, str) and file.startswith(f"{part}/") and _is_a_name(file.removeprefix(f"{part}/"))
        for file in files
    )


def _is_a_name(name: str) -> bool:
    return name not in ("", ".", "..") and not set(name) & set("/\\\0")


def _write_beside(folder: Path, source: Source, tell: Callable[[str], None]) -> None:
    if folder.exists():
        shutil.rmtree(folder)  # it is damaged
    called = {part: rows.origins(source.column) for part, rows in source.parts.items()}
    images, needed = sum(rows.rows for rows in source.parts.values()), sum(size for _, size in called.values())
    free = shutil.disk_usage(folder.parent).free
    if needed > free:
        raise _no_room(folder.parent, f"{needed / 1e6:,.0f} MB are needed, {free / 1e6:,.0f} MB are free")
    tell(f"Unpacking {images:,} images of the data set, {needed / 1e6:,.1f} MB, into {folder}.")
    scratch = Path(tempfile.mkdtemp(prefix=f"{folder.name}{SCRATCH}{os.getpid()}-", dir=folder.parent))
    try:
        names = {part: list(_written(scratch, part, source, paths)) for part, (paths, _) in called.items()}
        size = sum(file.stat().st_size for file in scratch.rglob("*") if file.is_file())
        write_json(scratch / UNPACKED, {"format": _FORMAT, "count": images, "bytes": size, "names": names}, indent=None)
        scratch.replace(folder)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise


def _written(scratch: Path, part: str, source: Source, paths: Sequence[str | None]) -> Iterator[str | None]:
    """Write each image of a part; its name, in the order of the rows."""
    (scratch / part).mkdir()
    own = own_names(paths)
    for row, stored in enumerate(source.parts[part].images(source.column)):
        data = _bytes_of(stored, source)
        if data is None and not stored.path:
            yield None
            continue
        name = own[row] if own else f"{row:06d}{_fitting(data or b'', stored.path)}"
        if data is not None:
            (scratch / part / name).write_bytes(data)
        yield f"{part}/{name}"  # a file that is not there is found missing, and named, like any other


def _bytes_of(stored: Stored, source: Source) -> bytes | None:
    if stored.data is not None or not stored.path or not source.may_read(stored.path):
        return stored.data
    try:
        return read_bytes(stored.path)
    except ImageReadError:
        return None


def own_names(paths: Sequence[str | None]) -> list[str] | None:
    """The names that images had before they were stored; None unless all have one that a file can have, all different.

    They say which image is a copy of which, where a tool wrote them.
    """
    names = [posixpath.basename((path or "").replace("\\", "/")) for path in paths]
    distinct = {normalize("NFC", name).casefold() for name in names}
    return names if len(distinct) == len(names) and all(map(_can_be_a_file, names)) else None


def _can_be_a_file(name: str) -> bool:
    return (
        is_image_name(name)
        and not passed_over(name)
        and name.isprintable()
        and len(name.encode("utf-8", "surrogatepass")) <= _LONGEST_NAME
        and not set(name) & set('<>:"|?*')
    )


def _fitting(data: bytes, path: str | None) -> str:
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return ".webp"
    by_name = ending(path) if path and is_image_name(path) else _UNKNOWN
    return next((by_content for magic, by_content in MAGIC if data.startswith(magic)), by_name)
