"""Tar files in WebDataset layout that others wrote: looked through once for where their samples lie.

A sample is an image and, under the same name, its label in a `.cls` (text) or `.json` member. Members of other kinds
are passed over and counted; those that other readers would unpickle are refused, with all of the set.
"""

from __future__ import annotations

import json
import posixpath
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from automl_vision.data.manifest import SET_NAMES, Manifest
from automl_vision.data.readers.reader import Reading, Row, to_manifest
from automl_vision.data.readers.scan import IMAGE_SUFFIXES, ending, passed_over
from automl_vision.data.shards.local_folder import LocalFolder
from automl_vision.data.shards.shard_files import LocalRanges
from automl_vision.data.shards.sharded import Sharded
from automl_vision.data.shards.tar_members import Member, TornArchive, members
from automl_vision.errors import DataError

if TYPE_CHECKING:
    from automl_vision.config import DataSettings

#: Members that a program which reads such shards would run, or could be made to run.
REFUSED = frozenset(
    (".pyd", ".pickle", ".pkl", ".pth", ".pt", ".npy", ".npz", ".joblib", ".dill", ".py", ".pyc", ".so", ".dll")
)
#: Labels are short: a larger member is none.
_MOST_LABEL_BYTES = 2**20
_LABELS = frozenset((".cls", ".json"))
_TAR = ".tar"
#: Keys of a JSON member under which a label is looked for, in this order.
_LABEL_KEYS = ("label", "class_name", "cls", "class")

NO_LABEL = "image in a shard without a label"
NO_IMAGE = "label in a shard without an image"


def is_foreign(data: Path) -> bool:
    """Whether a folder holds tar files, and neither images nor folders."""
    if not data.is_dir():
        return False
    names = [each for each in data.iterdir() if not passed_over(each.name)]
    tars = [each for each in names if each.suffix == _TAR]
    return bool(tars) and not any(each.is_dir() or ending(each.name) in IMAGE_SUFFIXES for each in names)


@dataclass
class _Sample:
    shard: int
    image: Member | None = None
    label: str | None = None
    about: dict[str, Any] = field(default_factory=dict)


@dataclass
class _Found:
    """What was met so far."""

    samples: list[_Sample] = field(default_factory=list)
    ignored: Counter[str] = field(default_factory=Counter)


def read_foreign(data: Path, settings: DataSettings, tell: Callable[[str], None]) -> Manifest:
    """The samples of all tar files of a folder, in the order of their names.

    Sets are those that the file names begin with (`train-0001.tar`), if all of them do.

    Raises:
        DataError: a member is refused, a sample has two images, or nothing has an image and a label.
    """
    files = sorted(each for each in data.iterdir() if each.suffix == _TAR and not passed_over(each.name))
    found = _Found()
    for number, file in enumerate(files):
        if file.is_symlink() and not settings.allow_outside:
            raise DataError("a shard is a link", value=str(file), fix="bring the file itself, or give --allow-outside")
        _look_through(file, number, found, tell)
    sets = _sets(files)
    rows = [(_row(each, files[each.shard], sets[each.shard]), each) for each in found.samples if _is_whole(each, found)]
    if not rows:
        raise DataError(
            "no sample of these shards has an image and a label",
            value=str(data),
            fix="members are KEY.jpg (or .png ...) and KEY.cls or KEY.json with a label",
        )
    rows.sort(key=lambda each: each[0].path)
    manifest = to_manifest(data.resolve(), Reading([row for row, _ in rows], found.ignored), settings)
    return replace(manifest, sharded=_sharded(data, files, [sample for _, sample in rows]))


def _look_through(file: Path, number: int, found: _Found, tell: Callable[[str], None]) -> None:
    by_key: dict[str, _Sample] = {}
    try:
        for member in members(file):
            _take(file, number, member, by_key, found)
    except TornArchive as torn:
        tell(f"{file.name}: {torn}; {len(by_key):,} samples are before that, how many should follow is not known")
    found.samples += by_key.values()


def _take(file: Path, number: int, member: Member, by_key: dict[str, _Sample], found: _Found) -> None:
    folder, name = posixpath.split(member.name)
    stem, _, kind = name.partition(".")
    kind, last = f".{kind.lower()}", ending(name)
    if last in REFUSED or kind in REFUSED:
        raise DataError(
            "a shard holds a member that is refused",
            value=f"{file.name}: {member.name!a} (other readers would run what is in it)",
            fix="make the shards again from images, and .json or .cls beside them",
        )
    if kind not in IMAGE_SUFFIXES and kind not in _LABELS:
        found.ignored[f"member of a shard: {kind if kind.isascii() and len(kind) <= 12 else 'other'}"] += 1
        return
    sample = by_key.setdefault(posixpath.join(folder, stem), _Sample(number))
    if kind in _LABELS:
        _take_label(file, member, kind, sample)
    elif sample.image is None:
        sample.image = member
    else:
        raise DataError(
            "a sample of a shard has two images",
            value=f"{file.name}: {member.name!a}",
            fix="give each image a name of its own",
        )


def _take_label(file: Path, member: Member, kind: str, sample: _Sample) -> None:
    if member.size > _MOST_LABEL_BYTES:
        raise DataError(
            "a label in a shard is too large",
            value=f"{file.name}: {member.name!a}, {member.size:,} bytes",
            fix="cut it",
        )
    with file.open("rb") as opened:
        opened.seek(member.offset)
        text = opened.read(member.size).decode("utf-8", "replace").strip()
    if kind == ".cls":
        sample.label = sample.label or text
        return
    try:
        about = json.loads(text)
    except (ValueError, RecursionError):
        about = None
    sample.about = about if isinstance(about, dict) else {}
    told = next((sample.about[key] for key in _LABEL_KEYS if key in sample.about), None)
    if isinstance(told, str | int) and not isinstance(told, bool) and str(told):
        sample.label = str(told)


def _is_whole(sample: _Sample, found: _Found) -> bool:
    if sample.image is None or not sample.label:
        found.ignored[NO_IMAGE if sample.image is None else NO_LABEL] += 1
        return False
    return True


def _row(sample: _Sample, file: Path, of_set: str | None) -> Row:
    assert sample.image is not None and sample.label  # noqa: S101 - `_is_whole`
    group, copy = sample.about.get("group"), sample.about.get("is_augmented")
    return Row(
        f"{file.name}/{sample.image.name}",
        sample.label,
        of_set,
        None if group is None else str(group),
        copy if isinstance(copy, bool) else None,
    )


def _sets(files: list[Path]) -> list[str | None]:
    found = [SET_NAMES.get(each.name.replace("_", "-").partition("-")[0].lower()) for each in files]
    alone = set(found) == {"train"}
    return [None] * len(files) if None in found or alone else list(found)


def _sharded(data: Path, files: list[Path], samples: list[_Sample]) -> Sharded:
    names = tuple(each.name for each in files)
    images = [each.image for each in samples if each.image is not None]
    return Sharded(
        ranges=LocalRanges(LocalFolder(data), names),
        names=names,
        shard=np.array([each.shard for each in samples], dtype=np.int32),
        member=np.array([ascii(each.name).strip("'") for each in images], dtype=np.bytes_),
        offset=np.array([each.offset for each in images], dtype=np.int64),
        size=np.array([each.size for each in images], dtype=np.int64),
        digest=np.zeros(len(images), dtype="S32"),
    )
