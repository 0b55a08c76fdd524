"""Paths that a command was given: checked before anything heavy is imported, and written with a plain refusal."""

from __future__ import annotations

from collections.abc import Callable
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


def require_replaceable(out: Path) -> None:
    """Raise UsageError where there is something that is no file: what is written whole would take its place."""
    if out.exists() and not out.is_file():
        raise UsageError("the output must be a file", value=out, fix="name a new file, or one that may be replaced")


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
