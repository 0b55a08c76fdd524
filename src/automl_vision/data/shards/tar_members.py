"""Members of tar files: headers whose bytes depend on name and size alone, and what a foreign archive holds."""

from __future__ import annotations

import errno
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from automl_vision.errors import DataError

#: Everything in a tar file lies in blocks of so many bytes.
BLOCK = 512
#: Characters of a member's name; a file system takes less.
LONGEST_NAME = 4096
#: What ends an archive.
END = bytes(2 * BLOCK)


def header(name: str, size: int) -> bytes:
    """The header of a regular file: `BLOCK` bytes, without a date, an owner or a machine in them.

    Args:
        name: at most 100 ASCII characters.
        size: bytes of the file.
    """
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.mtime = size, 0o644, 0
    return info.tobuf(tarfile.USTAR_FORMAT, "ascii", "strict")


def padding(size: int) -> bytes:
    """What fills the last block of a file of `size` bytes."""
    return bytes(-size % BLOCK)


def room(size: int) -> int:
    """Bytes that a file of `size` bytes takes, its header with it."""
    return BLOCK + size + -size % BLOCK


@dataclass(frozen=True)
class Member:
    """A regular file in an archive.

    Attributes:
        name: as the archive has it.
        offset: of its first byte.
        size: in bytes.
    """

    name: str
    offset: int
    size: int


class TornArchive(Exception):
    """The archive ends early."""


def members(file: Path) -> Iterator[Member]:
    """Every file of an uncompressed archive, found by its headers alone; folders are passed over.

    Raises:
        DataError: a link, a device, a pipe, or a name that leads out of the archive.
        TornArchive: it ends before its end mark, or a header is damaged; what came before is whole.
    """
    try:
        # "r:" takes no compressed archives, and headers are read one at a time, whatever the archive claims to hold.
        with tarfile.open(file, "r:") as archive:
            end, before = 0, -1
            for info in archive:
                _require_ahead(info, before)
                _require_plain(file, info)
                before = info.offset
                end = info.offset_data + info.size + -info.size % BLOCK
                if end > file.stat().st_size:
                    raise TornArchive(f"it ends inside {info.name!a}")
                if info.isfile():
                    yield Member(info.name, info.offset_data, info.size)
                archive.members = []  # type: ignore[attr-defined]  # tarfile would remember every one
            _require_end(file, end)
    except (tarfile.TarError, EOFError, ValueError, OverflowError, RecursionError) as error:
        raise TornArchive(ascii(str(error)) or type(error).__name__) from None
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        raise TornArchive("a header leads to before its beginning") from None


def _require_ahead(info: tarfile.TarInfo, before: int) -> None:
    """A size below zero leads back: to the same headers, again and again, or to before the beginning."""
    if info.size < 0:
        raise TornArchive(f"{info.name[:200]!a} has a size of {info.size} bytes")
    if info.offset <= before:
        raise TornArchive(f"the header of {info.name[:200]!a} leads back")


def _require_end(file: Path, end: int) -> None:
    with file.open("rb") as opened:
        opened.seek(end)
        if opened.read(len(END)) != END:
            raise TornArchive("it has no end mark")


def _require_plain(file: Path, info: tarfile.TarInfo) -> None:
    """Nothing is unpacked here; but an archive with such a member was made to do harm where it is."""
    path = PurePosixPath(info.name)
    if info.issym() or info.islnk():
        what = f"a link to {info.linkname!a}"
    elif not (info.isfile() or info.isdir()):
        what = "a device or a pipe"
    elif len(info.name) > LONGEST_NAME:
        what = f"a name of {len(info.name):,} characters"
    elif path.is_absolute() or ".." in path.parts or "\\" in info.name:
        what = "a name that leads out of the archive"
    else:
        return
    raise DataError(
        "a shard holds a member that is refused",
        value=f"{file.name}: {info.name[:200]!a} ({what})",
        fix="make the shards again from plain files; members are images, and .json or .cls beside them",
    )
