"""Where files may be kept: a folder, or an address in an object store (s3://bucket/run). The only door to upath.

Both have pathlib's verbs, so that whoever reads and writes need not know which it is. What differs is here: an object
is put as a whole and has no folder, and what a store was asked a moment ago is never answered from a memory of it.
"""

from __future__ import annotations

import secrets
import shutil
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from automl_vision.errors import RunError, UsageError
from automl_vision.extras import require
from automl_vision.rules import is_address

if TYPE_CHECKING:
    from upath import UPath

Place: TypeAlias = "Path | UPath"

_PACKAGES = {"s3": "s3fs", "gs": "gcsfs"}


def place_of(text: str) -> Place:
    """The folder, or the address, that a setting names.

    Raises:
        UsageError: a package that reads such addresses is not installed.
    """
    if not is_address(text):
        return Path(text).expanduser()
    scheme, _, rest = text.partition("://")
    if scheme == "file":
        return Path(rest)
    require(["upath"], "ray", "keeping trials at an address")
    from upath import UPath

    place = UPath(text.rstrip("/"), use_listings_cache=False)  # other machines write there, too
    try:
        _ = place.fs
    except ImportError:
        package = _PACKAGES[scheme]
        raise UsageError(f"{scheme}:// needs {package}", value=text, fix=f"pip install {package}") from None
    return place


def is_folder(place: Place) -> bool:
    """Whether this is a folder of a file system, in contrast to an address."""
    return isinstance(place, Path)


def make_folder(place: Place) -> None:
    """Make a folder with its parents; an address needs none."""
    if isinstance(place, Path):
        place.mkdir(parents=True, exist_ok=True)


def remove_folder(place: Place) -> None:
    """Remove all that is below `place`; it may be missing."""
    if isinstance(place, Path):
        shutil.rmtree(place, ignore_errors=True)
    elif place.exists():
        place.fs.rm(place.path, recursive=True)


def set_aside(file: Place) -> None:
    """Rename a damaged file: `.corrupt` comes after its name."""
    name = f"{file.name}.corrupt"
    if isinstance(file, Path):
        file.rename(file.with_name(name))
    else:
        file.rename(file.with_name(name))


def files_below(place: Place) -> list[str]:
    """Names of all files below `place`, relative to it, with slashes; none where it is missing."""
    if isinstance(place, Path):
        return [file.relative_to(place).as_posix() for file in place.rglob("*") if file.is_file()]
    return [name.removeprefix(place.path).lstrip("/") for name in place.fs.find(place.path)]


def put(place: Place, content: bytes) -> None:
    """Write one object at an address; whoever reads it sees the old content or the new."""
    if isinstance(place, Path):
        raise TypeError(f"files of a folder are written by files.write_atomically, got {place}")
    place.fs.pipe_file(place.path, content)


def fetched(place: Place) -> BytesIO:
    """The content of one object, in memory.

    Raises:
        OSError: it is missing, or cannot be read.
    """
    return BytesIO(place.read_bytes())


def check_place(place: Place) -> None:
    """Write, read and remove a small object, so that a wrong address is found before anything is trained.

    Raises:
        RunError: any of them failed.
    """
    if isinstance(place, Path):
        return
    probe, content = place / f".probe-{secrets.token_hex(8)}", secrets.token_bytes(16)
    try:
        put(probe, content)
        same = probe.read_bytes() == content
        probe.unlink()
    except Exception as error:  # each store has errors of its own
        raise _cannot_use(place, f"{type(error).__name__}: {error}") from error
    if not same:
        raise _cannot_use(place, "what was written is not what is read")


def _cannot_use(place: Place, reason: str) -> RunError:
    line = " ".join(reason.split())[:300]
    return RunError(
        "trials cannot be kept at this address",
        value=f"{place} ({line})",
        fix="check the bucket, its permissions and the credentials in the environment; docs/cluster.md shows how",
    )
