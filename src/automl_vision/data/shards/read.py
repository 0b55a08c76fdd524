"""Reading shards: `shards.json` and a table give the manifest, with the sets, groups and roles that were decided."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from automl_vision.config import Settings
from automl_vision.data.facts import FACT_COLUMNS
from automl_vision.data.manifest import Manifest
from automl_vision.data.plane_cache import cache_dir_of
from automl_vision.data.readers.reader import Reading, Row, to_manifest
from automl_vision.data.shards.address import Address, is_url, parse_address
from automl_vision.data.shards.folder import Folder, FolderError, open_folder, sizes_of
from automl_vision.data.shards.foreign import is_foreign, read_foreign
from automl_vision.data.shards.layout import (
    FACTS,
    INDEX,
    LISTED_SETS,
    SAMPLES,
    UNFINISHED_MARK,
    VAL_COPIES,
    ShardIndex,
    ShardRecord,
)
from automl_vision.data.shards.local_folder import LocalFolder
from automl_vision.data.shards.sample_tables import (
    FACT_SCHEMA,
    SAMPLE_SCHEMA,
    impossible_fact,
    impossible_sample,
    read_table,
)
from automl_vision.data.shards.shard_files import FetchedRanges, LocalRanges, Ranges
from automl_vision.data.shards.sharded import Sharded
from automl_vision.data.shards.window import Altered, ShardWindow
from automl_vision.errors import DataError, UsageError
from automl_vision.main_memory import give_back
from automl_vision.rules import parse_bytes

Tell = Callable[[str], None]

#: `shards.json` is read whole: about 300 bytes for each shard.
_MOST_INDEX = 2**28
#: In the cache folder: where shards lie that were fetched.
_WINDOW = "fetched-shards"
#: Shards that a message names.
_SHOWN = 10
_COLUMNS = ("path", "label", "split", "group", "role", "shard", "member", "offset", "size", "digest")
_ROLES: dict[str, bool | None] = {"original": False, "copy": True}


def is_sharded(data: Path) -> bool:
    """Whether this is a URL, a folder with `shards.json`, or one of tar files and nothing else."""
    if is_url(data):
        return True
    try:
        return any((data / name).is_file() for name in (INDEX, UNFINISHED_MARK)) or is_foreign(data)
    except OSError:
        return False


def read_sharded(data: Path, settings: Settings, tell: Tell = lambda _: None) -> Manifest:
    """The images in shards.

    Sets, groups and roles are those of the shards; what leaks across the sets is found as for any split that the user
    brings. Images of shards that are missing or torn stay in the manifest, and are quarantined.

    Args:
        data: a folder, or a URL of one.
        settings: all settings.
        tell: told what is missing.

    Raises:
        UsageError: a scheme that is not allowed, a host in a private network, or a package that is missing.
        DataError: there are no shards, or they cannot be read.
    """
    address = parse_address(data)
    if address.is_local and not any((address.folder / name).is_file() for name in (INDEX, UNFINISHED_MARK)):
        return read_foreign(address.folder, settings.data, tell)
    source = open_source(address, settings)
    return _manifest(source, settings, tell)


@dataclass(frozen=True)
class Source:
    """Shards that were opened.

    Attributes:
        folder: where they are.
        index: what `shards.json` says.
        table: copies of the tables on this machine: name -> file.
        ranges: gives byte ranges of the shards.
        is_local: whether the shards are files of this machine.
    """

    folder: Folder
    index: ShardIndex
    table: Callable[[str], Path]
    ranges: Ranges
    is_local: bool

    def samples(self) -> pd.DataFrame:
        """The rows of `samples.parquet`, the columns that reading needs; those that are in no shard as well.

        Raises:
            DataError: the table is not the one that was written, or says what cannot be.
        """
        table = read_table(self.table(SAMPLES), _COLUMNS, SAMPLE_SCHEMA)
        _require_possible(table, self.index, self.folder)
        give_back()  # what checking took, before what stays is put between it
        return table


def open_source(address: Address, settings: Settings) -> Source:
    """Shards that were written by `automl-vision shard`.

    Raises:
        UsageError, DataError: as `read_sharded`.
    """
    folder = open_folder(address, allow_private=settings.data.allow_private)
    index = read_index(folder)
    if isinstance(folder, LocalFolder):
        names = tuple(each.name for each in index.shards)
        return Source(folder, index, partial(_checked, folder, index), LocalRanges(folder, names), is_local=True)
    window = _window(settings, index)
    return Source(
        folder,
        index,
        partial(_fetched, folder, index, window),
        FetchedRanges(folder, index.shards, window, allow_private=settings.data.allow_private),
        is_local=False,
    )


def read_index(folder: Folder) -> ShardIndex:
    """`shards.json` of a folder.

    Raises:
        DataError: it is not there, or cannot be read.
    """
    text = _index(folder)
    if text is None:
        raise DataError(
            f"there is no {INDEX} at this place",
            value=str(folder),
            fix="give the folder that automl-vision shard wrote; where it was interrupted, call it again",
        )
    return ShardIndex.from_json(text, folder)


def _index(folder: Folder) -> bytes | None:
    try:
        size = folder.size(INDEX)
        if size is None:
            return None
        if size > _MOST_INDEX:
            raise FolderError(f"{folder}/{INDEX}: {size:,} bytes, which is no file of ours")
        parts: list[bytes] = []
        folder.fetch(INDEX, parts.append, size)
        return b"".join(parts)
    except FolderError as error:
        raise unreachable(error) from None


def unreachable(error: FolderError) -> DataError:
    """What is said where shards cannot be asked for."""
    return DataError("the shards cannot be reached", value=str(error), fix="check the address, and the connection")


def _checked(folder: LocalFolder, index: ShardIndex, name: str) -> Path:
    record, digest = index.tables[name], hashlib.sha256()
    try:
        size = folder.size(name)
        if size == record.bytes:
            folder.fetch(name, digest.update, size)
    except FolderError as error:
        raise unreachable(error) from None
    if size != record.bytes or digest.hexdigest() != record.sha256:
        raise _altered(folder, name)
    return folder.folder / name


def _fetched(folder: Folder, index: ShardIndex, window: ShardWindow, name: str) -> Path:
    try:
        return window.table(name, index.tables[name], folder)
    except Altered:
        raise _altered(folder, name) from None
    except FolderError as error:
        raise unreachable(error) from None


def _altered(folder: Folder, name: str) -> DataError:
    return DataError(
        f"{name} is not the table that was written with these shards",
        value=str(folder),
        fix="bring it again from where it was written, or shard the data again",
    )


def _window(settings: Settings, index: ShardIndex) -> ShardWindow:
    most = parse_bytes(settings.data.shard_window)
    largest = max((each.bytes for each in index.shards), default=0)
    if most < 2 * largest:
        raise UsageError(
            "the window for fetched shards is too small",
            value=f"--shard-window {settings.data.shard_window}, and shards of {largest / 1e6:,.0f} MB",
            fix=f"give at least {-(-8 * largest // 10**9)}G, so that eight have room",
        )
    return ShardWindow(cache_dir_of(settings.machine.cache_dir) / _WINDOW, most)


def _require_possible(table: pd.DataFrame, index: ShardIndex, folder: Folder) -> None:
    """Values are such as can be, images lie inside their shards, as many in each as the index says, in its order."""
    column = impossible_sample(table)
    if column:
        raise _impossible(SAMPLES, column, folder)
    shard = table["shard"].astype("str").to_numpy(dtype=object)
    lies = shard != ""
    fits = (shard[lies] == _shard_of_each(index)).all() if lies.sum() == _samples_of(index) else False
    if not fits or not _all_inside(table.loc[lies, ["offset", "size"]], index):
        raise DataError(
            f"{SAMPLES} does not fit the shards",
            value=str(folder),
            fix="bring both again from where they were written, or shard the data again",
        )


def _samples_of(index: ShardIndex) -> int:
    return sum(each.samples for each in index.shards)


def _shard_of_each(index: ShardIndex) -> NDArray[np.object_]:
    names = np.array([each.name for each in index.shards], dtype=object)
    return np.repeat(names, [each.samples for each in index.shards])


def _all_inside(table: pd.DataFrame, index: ShardIndex) -> bool:
    length = np.repeat([each.bytes for each in index.shards], [each.samples for each in index.shards])
    offset, size = table["offset"].to_numpy(), table["size"].to_numpy()
    # Not offset + size: of two numbers that are near the largest that there is the sum would be a small one.
    return bool(((offset >= 0) & (size >= 0) & (size <= length) & (offset <= length - size)).all())


def _impossible(name: str, column: str, folder: Folder) -> DataError:
    return DataError(
        f"{name} says what cannot be",
        value=f"{folder} (column {column})",
        fix="bring it again from where it was written, or shard the data again",
    )


# --- the manifest ---------------------------------------------------------------------------------------------------


def _manifest(source: Source, settings: Settings, tell: Tell) -> Manifest:
    table = source.samples()
    lies = (table["shard"].astype(str) != "").to_numpy()
    reading = Reading(ignored=_listed(table[~lies]))
    table = table[lies].reset_index(drop=True)
    reading.rows = [
        Row(path, label, "val" if of_set == VAL_COPIES else of_set, str(group), _ROLES.get(role))
        for path, label, of_set, group, role in zip(
            *(table[name].astype(object).tolist() for name in ("path", "label", "split", "group", "role")), strict=True
        )
    ]
    if not reading.rows:
        raise DataError("there are no images in these shards", value=str(source.folder), fix="shard the data again")
    order = sorted(range(len(table)), key=table["path"].tolist().__getitem__)
    manifest = to_manifest(Path(str(source.folder)), reading, settings.data)
    sharded = _sharded(source, table, settings, tell)
    return replace(manifest, sharded=sharded.take(np.array(order, dtype=np.int64)))


def _listed(table: pd.DataFrame) -> Counter[str]:
    words = {"aside": "set aside when the shards were written", "quarantine": "unreadable when the shards were written"}
    counts = Counter(table["split"].astype(str))
    return Counter({words[name]: counts[name] for name in LISTED_SETS})


def _sharded(source: Source, table: pd.DataFrame, settings: Settings, tell: Tell) -> Sharded:
    numbers = {each.name: number for number, each in enumerate(source.index.shards)}
    checked = {"auto": source.is_local, "all": True, "sizes": False}[settings.data.check_shards]
    return Sharded(
        ranges=source.ranges,
        names=tuple(numbers),
        shard=table["shard"].astype(str).map(numbers).to_numpy().astype(np.int32),
        member=table["member"].to_numpy(dtype=np.bytes_),
        offset=table["offset"].to_numpy(dtype=np.int64),
        size=table["size"].to_numpy(dtype=np.int64),
        digest=table["digest"].to_numpy(dtype=np.bytes_),
        trusted=not checked,
        faults=_faults(source, table, tell),
        lineage=source.index.lineage,
        facts_made=source.index.facts_made,
        facts_row=np.arange(len(table), dtype=np.int64),
        load_facts=partial(_facts, source, table["digest"]),
    )


def _facts(source: Source, digests: pd.Series) -> pd.DataFrame:
    table = read_table(source.table(FACTS), tuple(FACT_COLUMNS), FACT_SCHEMA)
    column = impossible_fact(table)
    if column:
        raise _impossible(FACTS, column, source.folder)
    if len(table) != len(digests) or not (table["file_digest"].to_numpy() == digests.to_numpy()).all():
        raise DataError(f"{FACTS} does not fit {SAMPLES}", value=str(source.folder), fix="shard the data again")
    give_back()
    return table.astype({name: "str" for name in FACT_COLUMNS if table[name].dtype == object})


def _faults(source: Source, table: pd.DataFrame, tell: Tell) -> dict[int, str]:
    """Row of the table -> why its image is not there: its shard is missing, or ends before it."""
    sizes = _sizes(source)
    faults: dict[int, str] = {}
    said: list[str] = []
    ends = (table["offset"] + table["size"]).to_numpy()
    first = 0
    for record in source.index.shards:
        rows = np.arange(first, first + record.samples)
        first += record.samples
        size = sizes[record.name]
        if size is not None and size >= record.bytes:
            continue
        missing = rows[ends[rows] > (size or 0)]
        if not len(missing):
            continue  # only the end mark is torn off
        keys = [str(table["member"][row]).partition(".")[0] for row in missing[:1]]
        said.append(lost(record, len(missing), keys[0], is_there=size is not None))
        faults |= dict.fromkeys(missing.tolist(), said[-1])
    for each in said[:_SHOWN]:
        tell(each)
    if len(said) > _SHOWN:
        tell(f"... and {len(said) - _SHOWN:,} more shards with missing samples")
    return faults


def lost(record: ShardRecord, missing: int, key: str, *, is_there: bool) -> str:
    """One line on a shard that is missing or torn."""
    if not is_there:
        return f"{record.name}: the shard is missing, and with it {record.samples:,} samples"
    be = "is" if missing == 1 else "are"
    return f"{record.name}: {missing:,} of {record.samples:,} samples {be} missing, from {key} on"


def _sizes(source: Source) -> Mapping[str, int | None]:
    try:
        return sizes_of(source.folder, [each.name for each in source.index.shards])
    except FolderError as error:
        raise unreachable(error) from None
