"""Hugging Face data sets: `hf:NAME`, and folders that `datasets.save_to_disk` wrote."""

from __future__ import annotations

import difflib
import hashlib
import posixpath
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from automl_vision.data.cache_entries import UNPACKED
from automl_vision.data.hub_name import is_hub_name, is_saved
from automl_vision.data.hugging_face import Column, DataSet, Part, open_data_set
from automl_vision.data.manifest import SET_NAMES, Manifest
from automl_vision.data.readers.reader import Reading, Row, to_manifest
from automl_vision.data.readers.table import MISSING_LABEL, MISSING_PATH, USUAL_NAMES, truth_of
from automl_vision.data.unpacked import Source, unpack
from automl_vision.errors import DataError

if TYPE_CHECKING:
    from automl_vision.config import DataSettings, Settings

#: What `data.split_names` says of a part that is not used.
NONE = "none"
#: The folder of a part that has no name.
_ONE = "images"
_SHOWN = 10
#: Purpose of a column -> the kinds that it may have.
_KINDS: dict[str, frozenset[str]] = {
    "image": frozenset(("image", "bytes")),
    "label": frozenset(("classes", "text", "number", "truth")),
    "split": frozenset(("classes", "text")),
    "group": frozenset(("classes", "text", "number")),
    "augmented": frozenset(("classes", "text", "number", "truth")),
}


@dataclass(frozen=True)
class _Values:
    """Columns of one part: purpose -> (rows) text, empty where there is none."""

    of: Mapping[str, list[str]]

    def row(self, number: int) -> dict[str, str]:
        return {purpose: values[number] for purpose, values in self.of.items()}


def is_data_set(data: Path) -> bool:
    """Whether this is `hf:NAME`, or a folder that `datasets.save_to_disk` wrote."""
    return is_hub_name(data) or is_saved(data)


def read_data_set(
    data: Path,
    settings: Settings,
    cache_dir: Path | None,
    tell: Callable[[str], None] = lambda _: None,
    ask: Callable[[], object] = lambda: None,
) -> Manifest:
    """The labelled images of a data set, whose encoded bytes are files in the cache folder.

    Args:
        data: the name or the folder.
        settings: all settings.
        cache_dir: where the files are kept; None for a folder that goes with the process.
        tell: told when they are written.
        ask: asked while another process writes them; ends the waiting by an error of its own.

    Raises:
        UsageError: the package `datasets` is not installed.
        DataError: the set cannot be loaded, a column or a part is not known, or rows cannot be used.
    """
    opened = open_data_set(data, offline=settings.search.offline)
    columns = _columns(data, opened.columns, settings.data)
    sets = _sets(data, opened, settings.data, has_column="split" in columns)
    parts = {part.name or _ONE: part for part in opened.parts if sets[part.name] != NONE}
    source = Source(
        key=_key(opened, columns["image"], parts, settings.data),
        parts=parts,
        column=columns["image"],
        may_read=lambda path: _inside(path, opened, settings.data),
    )
    gigabytes = settings.machine.cache_gigabytes
    files = unpack(source, cache_dir, None if gigabytes is None else int(gigabytes * 1e9), tell, ask)
    reading, problems = Reading(), []
    for folder, part in parts.items():
        values = _values(part, columns, opened.columns)
        for number, name in enumerate(files.names[folder]):
            row = _row(name, values.row(number), sets[part.name], settings.data, reading)
            if isinstance(row, Row):
                reading.rows.append(row)
            elif row:
                problems.append(f"{part.name or 'the set'}, row {number}: {row}")
    _raise_problems(data, problems, reading)
    return to_manifest(files.folder, reading, settings.data)


def _key(opened: DataSet, image: str, parts: Mapping[str, Part], settings: DataSettings) -> str:
    told = "\x1f".join((UNPACKED, opened.digest, image, str(settings.allow_outside), *parts))
    return hashlib.blake2b(told.encode(), digest_size=16).hexdigest()


def _inside(path: str, opened: DataSet, settings: DataSettings) -> bool:
    """Whether a file that the set names lies where the set, or the cache of `datasets`, does."""
    if "://" in path or not posixpath.isabs(path):
        return False
    plain = Path(path).resolve()  # links count as what they lead to
    return settings.allow_outside or any(plain.is_relative_to(folder.resolve()) for folder in opened.folders)


# --- columns --------------------------------------------------------------------------------------------------------


def _columns(data: Path, columns: Mapping[str, Column], settings: DataSettings) -> dict[str, str]:
    """Purpose -> name of its column."""
    problems: list[str] = []
    found: dict[str, str] = {}
    for purpose, kinds in _KINDS.items():
        asked = getattr(settings, f"{purpose}_column")
        name = _asked(asked, columns, kinds, problems) if asked else _guessed(purpose, columns, kinds, problems)
        if name:
            found[purpose] = name
    if problems:
        shown = ", ".join(f"{name}: {column.shown}" for name, column in columns.items())
        raise DataError("; ".join(problems), value=f"{data} (columns: {shown})", fix="give names of these columns")
    return found


def _asked(name: str, columns: Mapping[str, Column], kinds: frozenset[str], problems: list[str]) -> str:
    if name not in columns:
        near = difflib.get_close_matches(name, columns, n=1)
        problems.append(f"there is no column '{name}'" + (f"; did you mean '{near[0]}'?" if near else ""))
    elif columns[name].kind not in kinds:
        problems.append(f"column '{name}' cannot be used for this: it is {columns[name].shown}")
    return name


def _guessed(purpose: str, columns: Mapping[str, Column], kinds: frozenset[str], problems: list[str]) -> str:
    """A column by its usual name, else the only one of a fitting kind; images are known by their kind first."""
    fitting = {name: column for name, column in columns.items() if column.kind in kinds}
    sure = [name for name, column in fitting.items() if column.kind in ("image", "classes")]
    usual = [name for wanted in USUAL_NAMES[purpose] for name in fitting if _plain(name) == wanted]
    if purpose == "image":
        return _only(sure or list(fitting), purpose, problems)
    if usual or purpose != "label":
        return next(iter(usual), "")
    return _only(sure, purpose, problems)


def _only(names: list[str], purpose: str, problems: list[str]) -> str:
    if len(names) == 1:
        return names[0]
    several = f"several columns may be the {purpose}: {', '.join(names)}"
    problems.append(f"{several if names else f'there is no {purpose} column'}; name it with --{purpose}-column")
    return ""


def _plain(name: str) -> str:
    return name.strip().lower().replace(" ", "_").replace("-", "_")


def _values(part: Part, chosen: Mapping[str, str], columns: Mapping[str, Column]) -> _Values:
    rest = {purpose: name for purpose, name in chosen.items() if purpose != "image"}
    return _Values({purpose: list(_texts(part.values(name), columns[name])) for purpose, name in rest.items()})


def _texts(values: list[Any], column: Column) -> Iterator[str]:
    for value in values:
        if value is None:
            yield ""
        elif column.kind == "classes":
            yield column.classes[value] if 0 <= value < len(column.classes) else ""
        else:
            yield str(value).strip()


# --- parts ----------------------------------------------------------------------------------------------------------


def _sets(data: Path, opened: DataSet, settings: DataSettings, *, has_column: bool) -> dict[str, str | None]:
    """Name of a part -> "train", "val", "test", `NONE`, or None where the part says nothing."""
    names = [part.name for part in opened.parts]
    asked = settings.split_names
    if strange := [name for name in asked if name not in names]:
        raise DataError(
            "--split-names names parts that are not there",
            value=f"{', '.join(strange)} (parts of {data}: {', '.join(filter(None, names)) or 'one without a name'})",
            fix="give names of these parts",
        )
    found = {name: asked.get(name) or SET_NAMES.get(name.lower()) for name in names}
    used = [name for name in names if found[name] != NONE]
    if not used:
        raise DataError("no part of the data set is used", value=data, fix="give one of them a set in --split-names")
    if has_column or (len(used) == 1 and not asked.get(used[0]) and found[used[0]] in (None, "train")):
        return {name: NONE if found[name] == NONE else None for name in names}
    if unknown := [name for name in used if found[name] is None]:
        raise DataError(
            "the data set has parts that say neither train, validation nor test",
            value=", ".join(unknown),
            fix=f"say what they are: --split-names {unknown[0]}=train, val, test or none (leaves it out)",
        )
    return found


def _row(
    name: str | None, cells: Mapping[str, str], part: str | None, settings: DataSettings, reading: Reading
) -> Row | str:
    """The row; what is wrong with it; or "" for one that is passed over."""
    missing = MISSING_PATH if name is None else "" if cells["label"] else MISSING_LABEL
    if missing and settings.skip_bad_rows:
        reading.ignored[missing] += 1
        return ""
    if name is None or missing:
        return "no image" if name is None else "no label"
    told = cells.get("split", "")
    if told and told.lower() not in SET_NAMES:
        return f"unknown set {told!a}; use train, val or test"
    try:
        is_copy = truth_of(cells.get("augmented", ""))
    except ValueError as error:
        return str(error)
    return Row(name, cells["label"], SET_NAMES[told.lower()] if told else part, cells.get("group") or None, is_copy)


def _raise_problems(data: Path, problems: list[str], reading: Reading) -> None:
    count = len(problems)
    if count:
        more = [f"... and {count - _SHOWN:,} more"] if count > _SHOWN else []
        listed = "\n  - ".join([str(data), *problems[:_SHOWN], *more])
        raise DataError(
            f"{count:,} row{'s' * (count > 1)} of the data set cannot be used",
            value=listed,
            fix="--skip-bad-rows leaves out rows without an image or a label, --split-names NAME=none a whole part",
        )
    if not reading.rows:
        raise DataError("the data set has no rows that can be used", value=data, fix="give one with labelled images")
