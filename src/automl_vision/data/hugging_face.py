"""Data sets in the form of Hugging Face's `datasets`: the only door to that package.

Images come out as the bytes that were stored, never decoded here: what the package would decode, our own decoder reads,
so digests, lineage and quarantine see what they would see of files. No code of a data set is run.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from automl_vision.data.hub_name import HubName, is_hub_name, parse_hub_name
from automl_vision.errors import DataError
from automl_vision.extras import require

#: Forms of files that hold images and are read without code of the set ("cache": read before, the hub is not there).
FORMS = frozenset(("arrow", "cache", "imagefolder", "parquet", "webdataset"))
_BATCH = 64
#: Names of parts as `datasets` itself allows them; a part becomes a folder.
_PART_NAME = re.compile(r"\w+(\.\w+)*")
_HUB_SECONDS = 3.0


@dataclass(frozen=True)
class Column:
    """One column of a data set.

    Attributes:
        kind: "image" (encoded), "bytes", "classes" (numbers with names), "text", "number", "truth" or "other".
        classes: names of the numbers of "classes".
        shown: the type as `datasets` writes it, shortened.
    """

    kind: str
    classes: tuple[str, ...] = ()
    shown: str = ""


@dataclass(frozen=True)
class Stored:
    """One image as it is stored: its bytes, or else the path of its file; neither where there is no image."""

    data: bytes | None
    path: str | None


@dataclass(frozen=True)
class Part:
    """One split of a data set, as `datasets` calls it.

    Attributes:
        name: as the set calls it; empty where a set has one part without a name.
        rows: how many.
    """

    name: str
    rows: int
    _rows: Any = field(repr=False)

    def values(self, column: str) -> list[Any]:
        """(rows) plain values of a column that holds no images; None where there is none."""
        tables = self._rows.select_columns([column]).with_format("arrow").iter(batch_size=10_000)
        return [value for table in tables for value in table.column(0).to_pylist()]

    def origins(self, column: str) -> tuple[list[str | None], int]:
        """(rows) what the images were called before they were stored, and the bytes of all in the set."""
        import pyarrow as pa
        import pyarrow.compute as pc

        paths: list[str | None] = []
        stored = 0
        for table in self._rows.select_columns([column]).with_format("arrow").iter(batch_size=1_000):
            for chunk in table.column(0).chunks:
                is_struct = pa.types.is_struct(chunk.type)
                data = pc.struct_field(chunk, "bytes") if is_struct else chunk
                paths += pc.struct_field(chunk, "path").to_pylist() if is_struct else [None] * len(chunk)
                stored += pc.sum(pc.binary_length(data)).as_py() or 0
        return paths, stored

    def images(self, column: str) -> Iterator[Stored]:
        """Every image as it is stored, in the order of the rows, a few in memory at a time."""
        for table in self._rows.select_columns([column]).with_format("arrow").iter(batch_size=_BATCH):
            for value in table.column(0):
                plain = value.as_py()
                yield Stored(plain["bytes"], plain["path"]) if isinstance(plain, dict) else Stored(plain, None)


@dataclass(frozen=True)
class DataSet:
    """A data set that was opened.

    Attributes:
        parts: its splits, in their order.
        columns: name -> what it holds.
        digest: changes with the content.
        folders: where files may lie that the set names instead of holding them.
    """

    parts: tuple[Part, ...]
    columns: Mapping[str, Column]
    digest: str
    folders: tuple[Path, ...]


def open_data_set(data: Path, *, offline: bool = False) -> DataSet:
    """A folder that `datasets.save_to_disk` wrote, or `hf:NAME`, which is downloaded where it is not on this machine.

    Args:
        data: the folder or the name.
        offline: do not ask the hub.

    Raises:
        UsageError: the package `datasets` is not installed.
        DataError: there is no such set, the hub cannot be reached, or reading it would run code of the set.
    """
    require(["datasets"], "hub", "reading a Hugging Face data set")

    with _quiet():
        parts = _downloaded(parse_hub_name(data), offline=offline) if is_hub_name(data) else _saved(data)
    if not isinstance(parts, dict):
        parts = {"": parts}
    if not parts:
        raise DataError("the data set is empty", value=data, fix="give one with images")
    odd = [str(name) for name in parts if name and not _PART_NAME.fullmatch(str(name))]
    if odd:
        raise DataError(
            "a part of the data set has a name that no folder may have", value=ascii(odd[0]), fix="give it a plain name"
        )
    kinds = [rows.features for rows in parts.values()]
    differing = next((name for name, rows in parts.items() if rows.features != kinds[0]), None)
    if differing is not None:
        raise DataError(
            "the parts of the data set have different columns", value=f"{data} ({differing})", fix="save them alike"
        )
    named = parse_hub_name(data).name if is_hub_name(data) else str(data)
    caches = _data_caches()
    return DataSet(
        parts=tuple(Part(name, len(rows), rows) for name, rows in parts.items()),
        columns={name: _column(feature) for name, feature in kinds[0].items()},
        digest=_digest(parts),
        folders=(Path(named), *caches) if Path(named).is_dir() else caches,
    )


def _data_caches() -> tuple[Path, ...]:
    """Where data of the hub lie; the folder above them holds tokens too, which no data set may name as an image."""
    import datasets
    from huggingface_hub import constants

    names = (datasets.config.HF_DATASETS_CACHE, datasets.config.DOWNLOADED_DATASETS_PATH, constants.HF_HUB_CACHE)
    return tuple(Path(str(each)) for each in names)


def _saved(folder: Path) -> Any:
    import datasets

    try:
        return datasets.load_from_disk(str(folder), keep_in_memory=False)
    except _failures() as error:
        raise DataError(
            "the saved data set cannot be read", value=f"{folder} ({_first_line(error)})", fix="save it again"
        ) from None


def _downloaded(named: HubName, *, offline: bool) -> Any:
    import datasets

    local = Path(named.name).is_dir()
    try:
        with _offline(offline or (not local and not _hub_answers())):
            builder = datasets.load_dataset_builder(named.name, named.config or None, revision=named.revision or None)
            form = type(builder).__module__.split(".")[2:3]
            if not FORMS.issuperset(form):
                raise DataError(
                    "the data set is in a form that is not read",
                    value=f"{named.name} ({', '.join(form) or type(builder).__module__})",
                    fix="bring it as Parquet, Arrow, WebDataset or image folders",
                )
            builder.download_and_prepare()
            return builder.as_dataset()
    except _failures() as error:
        raise _not_loaded(named, error) from None


def _not_loaded(named: HubName, error: BaseException) -> DataError:
    reason = _first_line(error)
    if "scripts are no longer supported" in reason:
        return DataError(
            "the data set would be loaded by a program of its own, which is never run",
            value=named.name,
            fix="take its copy in Parquet, often under hf:NAME@refs/convert/parquet, or save it with "
            "datasets.save_to_disk where you trust the program",
        )
    if isinstance(error, ConnectionError):
        return DataError(
            "the data set is not on this machine, and the hub was not reached",
            value=named.name,
            fix="connect this machine, or load the set once where there is a connection and copy $HF_HOME",
        )
    return DataError(
        "the data set cannot be loaded", value=f"{named.name} ({reason})", fix="check its name, revision and config"
    )


def _failures() -> tuple[type[BaseException], ...]:
    """What `datasets` and what it reads with raise where a set is not there, or not as it should be."""
    import pyarrow as pa
    from datasets.exceptions import DatasetsError
    from huggingface_hub.errors import HfHubHTTPError

    # Its versions talk through requests, httpx or httpx2; its own error derives from the base of theirs.
    transport = tuple(each for each in HfHubHTTPError.__mro__ if each.__name__ == "HTTPError")
    return (OSError, ValueError, TypeError, KeyError, RuntimeError, DatasetsError, pa.ArrowException, *transport)


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


@contextmanager
def _quiet() -> Iterator[None]:
    """Without bars and log lines of the package: what is shown is our own."""
    import datasets

    had_bars, level = datasets.are_progress_bars_disabled(), datasets.logging.get_verbosity()
    datasets.disable_progress_bars()
    datasets.logging.set_verbosity_error()
    try:
        yield
    finally:
        datasets.logging.set_verbosity(level)
        if not had_bars:
            datasets.enable_progress_bars()


@contextmanager
def _offline(wanted: bool) -> Iterator[None]:
    """Keep both packages from asking the hub, which they would do for half a minute where it is not there."""
    import datasets
    from huggingface_hub import constants

    switches = ((datasets.config, "HF_HUB_OFFLINE"), (constants, "HF_HUB_OFFLINE"))
    before = [getattr(module, name) for module, name in switches]
    for module, name in switches if wanted else ():
        setattr(module, name, True)
    try:
        yield
    finally:
        for (module, name), value in zip(switches, before, strict=True):
            setattr(module, name, value)


def _hub_answers() -> bool:
    """Whether the hub answers at all, within a few seconds."""
    import datasets

    if datasets.config.HF_HUB_OFFLINE:
        return False
    answers: list[bool] = []
    # In a thread of its own, as looking up a name has no timeout.
    asking = threading.Thread(target=lambda: answers.append(_ask(str(datasets.config.HF_ENDPOINT))), daemon=True)
    asking.start()
    asking.join(_HUB_SECONDS + 0.5)
    return bool(answers and answers[0])


def _ask(endpoint: str) -> bool:
    if not endpoint.startswith(("https://", "http://")):
        return False
    request = urllib.request.Request(endpoint, method="HEAD")  # noqa: S310 - checked above
    try:
        with urllib.request.urlopen(request, timeout=_HUB_SECONDS):  # noqa: S310 # nosec B310
            return True
    except urllib.error.HTTPError as error:
        return error.code in {404, 405}  # a mirror without a front page is a hub too; a proxy that refuses is none
    except (OSError, ValueError):
        return False


def _column(feature: Any) -> Column:
    import datasets
    import pyarrow as pa

    shown = repr(feature) if len(repr(feature)) <= 60 else type(feature).__name__
    if isinstance(feature, datasets.Image):
        return Column("image", shown=shown)
    if isinstance(feature, datasets.ClassLabel):
        return Column("classes", tuple(feature.names or ()), shown)
    if isinstance(feature, dict) and {"bytes", "path"} == set(feature):
        return Column("image", shown=shown)  # Parquet that was written without the features
    if not isinstance(feature, datasets.Value):
        return Column("other", shown=shown)
    kind = feature.pa_type
    tests = {
        "text": pa.types.is_string(kind) or pa.types.is_large_string(kind),
        "number": pa.types.is_integer(kind),
        "truth": pa.types.is_boolean(kind),
        "bytes": pa.types.is_binary(kind) or pa.types.is_large_binary(kind),
    }
    return Column(next((name for name, holds in tests.items() if holds), "other"), shown=shown)


def _digest(parts: Mapping[str, Any]) -> str:
    """Of what tells one content from another without reading it: the fingerprints of `datasets`, and its files."""
    told = [
        (name, rows._fingerprint, len(rows), [_file(each["filename"]) for each in rows.cache_files])
        for name, rows in parts.items()
    ]
    return hashlib.blake2b(json.dumps(told).encode(), digest_size=16).hexdigest()


def _file(name: str) -> tuple[str, int, int]:
    status = Path(name).stat()
    return Path(name).name, status.st_size, status.st_mtime_ns
