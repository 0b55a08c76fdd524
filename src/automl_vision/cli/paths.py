"""Paths that a command was given: checked before anything heavy is imported, and written with a plain refusal."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path

from automl_vision.data.hub_name import is_hub_name, parse_hub_name
from automl_vision.data.shards.address import is_url, parse_address
from automl_vision.errors import UsageError
from automl_vision.extras import require

#: What `--data` takes.
DATA_HELP = (
    "Folder of class folders, or a CSV, TSV or Parquet table; hf:NAME (extra hub), or a folder that "
    "datasets.save_to_disk wrote; a folder of tar shards, or its URL (https://, s3://, gs://)."
)
_NOT_THERE = "No such file or directory"


def require_data(data: Path) -> None:
    """Raise UsageError where there is nothing at the path of the images, or what reads a data set is not installed."""
    if is_hub_name(data):
        parse_hub_name(data)
        require(["datasets"], "hub", "reading a Hugging Face data set")
        return
    if is_url(data):
        parse_address(data)
        return
    _require(data, "there are no images at this path", "check the path given to --data")


def require_model(model: Path) -> None:
    """Raise UsageError where there is no model file."""
    _require(model, "there is no model file", "check the path; a run leaves it as model.pt")


def require_run(run: Path) -> None:
    """Raise UsageError where there is no run folder."""
    _require(run, "there is no run at this path", "give the folder that search printed")


def require_baseline(file: Path) -> None:
    """Raise UsageError where there is no file of baseline figures."""
    _require(file, "there is no baseline at this path", "check the path given to --baseline")


def require_replaceable(out: Path, inputs: Iterable[Path] = ()) -> None:
    """Raise UsageError where what is written would take the place of something that is no file, or of an input.

    Args:
        out: the file.
        inputs: what is read; also under another name, or through a link.
    """
    from automl_vision.data.readers.scan import is_image_name  # it brings numpy, which help has no use for

    if not out.exists():
        return
    if not out.is_file():
        raise UsageError("the output must be a file", value=out, fix="name a new file, or one that may be replaced")
    require_no_input(out, inputs)
    if is_image_name(out.name):
        raise UsageError("this would replace an image", value=out, fix="choose another --out")


def require_no_input(out: Path, inputs: Iterable[Path]) -> None:
    """Raise UsageError where the file that is there already is one of these."""
    try:
        own = out.stat()
    except OSError:  # there is none, or whoever writes it will say why that cannot be
        return
    for each in inputs:
        if _is_file(each, own):
            raise UsageError("this would replace a file that is read", value=out, fix="choose another --out")


def require_no_data(out: Path, data: Path) -> None:
    """Raise UsageError where the file that is there already is the table of the data, or lies in their folder.

    Whatever lies there may be read, now or next time: shards, their index, a table, an image under any name.
    """
    require_no_input(out, (data,))
    if out.exists() and data.is_dir() and out.resolve().is_relative_to(data.resolve()):
        raise UsageError("this would replace a file among the data", value=out, fix="choose another --out, beside them")


def _is_file(path: Path, wanted: os.stat_result) -> bool:
    try:
        return os.path.samestat(path.stat(), wanted)
    except (OSError, ValueError):  # a name among the inputs that leads nowhere, or can lead nowhere
        return False


def write_or_refuse(out: Path, write: Callable[[], object]) -> None:
    """Call `write`; raise UsageError where it cannot write to `out`."""
    try:
        write()
    except OSError as error:
        value = f"{out} ({error.strerror or error})"
        raise UsageError("the output cannot be written", value=value, fix="choose another --out") from None


def _require(path: Path, what: str, fix: str) -> None:
    try:
        path.stat()
    except OSError as error:  # also a name that is too long, or a folder on the way that may not be entered
        why = "" if error.strerror == _NOT_THERE else f" ({error.strerror})"
        raise UsageError(what, value=f"{path}{why}", fix=fix) from None
