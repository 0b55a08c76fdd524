"""`hf:NAME`: a data set of the Hugging Face hub where a path is expected."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from automl_vision.errors import DataError

#: What such a name begins with.
PREFIX = "hf:"
#: Files that `datasets.save_to_disk` leaves: of a set with parts, and of one without.
_OF_PARTS, _OF_ONE = "dataset_dict.json", ("dataset_info.json", "state.json")

_FORM = re.compile(r"(?P<name>[^@:]+)(@(?P<revision>[^@:]+))?(:(?P<config>[^@:]+))?")


@dataclass(frozen=True)
class HubName:
    """A data set of the hub, or a folder in a form that the `datasets` package loads.

    Attributes:
        name: USER/NAME, NAME, or the absolute path of a folder.
        revision: branch, tag or commit; empty for the newest.
        config: which configuration of the set; empty for its default.
    """

    name: str
    revision: str = ""
    config: str = ""


def is_hub_name(data: Path) -> bool:
    """Whether a path is no path, but `hf:NAME`."""
    return str(data).startswith(PREFIX)


def is_saved(data: Path) -> bool:
    """Whether a folder was written by `datasets.save_to_disk`."""
    try:
        return (data / _OF_PARTS).is_file() or all((data / name).is_file() for name in _OF_ONE)
    except OSError:
        return False


def parse_hub_name(data: Path) -> HubName:
    """The parts of `hf:NAME[@REVISION][:CONFIG]`.

    Raises:
        DataError: it is not written like that.
    """
    matched = _FORM.fullmatch(str(data).removeprefix(PREFIX))
    if matched is None:
        raise DataError(
            "this is no name of a data set", value=repr(str(data)), fix="write it like hf:NAME, or hf:NAME@REVISION"
        )
    parts = {key: value or "" for key, value in matched.groupdict().items()}
    folder = Path(parts["name"])
    if folder.is_dir():
        parts["name"] = str(folder.resolve())
    return HubName(**parts)


def absolute(data: Path) -> Path:
    """The same from any folder; a name of the hub stays as it is."""
    if not is_hub_name(data):
        return data.resolve()
    named = parse_hub_name(data)
    revision, config = (mark + text if text else "" for mark, text in (("@", named.revision), (":", named.config)))
    return Path(f"{PREFIX}{named.name}{revision}{config}")
