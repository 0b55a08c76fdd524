"""Train, validation and test rows, such that no group straddles and the test set holds originals only.

The rules, in the order in which they are applied:

1. What did not decode is in quarantine. Copies whose original is not known are set aside (it may be in the
   test set), and so is every picture that carries two labels: training on a contradiction helps nobody.
2. A split that the user brings is kept; rows without a set are train. What leaks across it is set aside:
   anything but a sure original in val or test, and the lesser side of a group that straddles (test before val
   before train).
3. Sets that are missing are dealt from the groups in train, per class and by a hash of content and seed, so
   neither the order of the rows nor the names of the files matter. Groups without a sure original stay in
   train.
4. Copies follow their original: into train, or aside where it is in val or test. Those of val originals are
   listed, because their score beside the real one shows what augmentation hides.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from automl_vision.config import SplitSettings
from automl_vision.data.audit import Audit
from automl_vision.data.deal import Deck, deal
from automl_vision.data.facts import Facts
from automl_vision.data.manifest import Manifest
from automl_vision.errors import DataError

SetName = Literal["train", "val", "test", "aside", "quarantine"]

#: Columns of `split.csv`; other programs rely on them.
SPLIT_COLUMNS = ("path", "label", "split", "group", "role", "eligible")

#: Classes that one message names.
_NAMED = 20

_SMALL_CLASS_FIX = (
    "add images (or raise --max-samples), merge classes with --label-map, or leave these classes out with "
    "--drop-small-classes"
)
#: What pictures show joins drawings and icons that are alike as well.
_LOOK_ALIKE_FIX = "; where pictures that look alike are no copies of each other, give --lineage names"


@dataclass(frozen=True)
class Split:
    """Which rows each stage may see.

    Attributes:
        name: (N) "train", "val", "test", "aside" (readable, but using it would leak) or "quarantine".
        eligible: (N) True where the image could have been a test image.
        augmented_val: rows set aside that are copies of validation originals; they are only ever reported.
        leaks: rows that the user's own split had leak and that were set aside, with the reason.
        seed: the seed that dealt the groups; None where the split is wholly the user's.
        dealt: the sets that were dealt, "test" and "val"; the others are the user's.
    """

    name: NDArray[np.str_]
    eligible: NDArray[np.bool_]
    augmented_val: NDArray[np.int64]
    leaks: tuple[tuple[int, str], ...] = ()
    seed: int | None = None
    dealt: tuple[str, ...] = ()

    def rows(self, name: SetName) -> NDArray[np.int64]:
        """(n) sorted manifest rows of one set."""
        return np.flatnonzero(self.name == name).astype(np.int64)


def split(manifest: Manifest, facts: Facts, audit: Audit, settings: SplitSettings, *, seed: int) -> Split:
    """Divide the rows by the rules at the top of this file.

    Shares count originals: test gets round(share x originals of the class), at least 1, at least 2 from 7
    originals on; val likewise. Where the user's split lacks a set, the share is of the originals in train.

    Raises:
        DataError: fewer than two classes with usable images; classes with too few groups of originals for
            every set; groups that span classes so that no deal reaches every set; classes to judge that are
            not in train.
    """
    _require_two_classes(manifest, facts)
    start = _before_dealing(manifest, facts, audit)
    _require_groups(manifest, audit, start)
    name = start.name.copy()
    if start.missing:
        shares = {each: float(getattr(settings, each)) for each in start.missing}
        dealt = deal(_deck(manifest, facts, audit, start), shares, seed)
        if dealt is None:
            raise _undealable(manifest, audit, start)
        _place(name, audit, start, dealt)
    _require_sets(manifest, audit, name)
    _require_trained_classes(manifest, name)
    return Split(
        name=name,
        eligible=audit.eligible,
        augmented_val=_augmented_val(name, audit),
        leaks=start.leaks,
        seed=seed if start.missing else None,
        dealt=start.missing,
    )


def undealt(manifest: Manifest, facts: Facts, audit: Audit) -> Split:
    """What stands before anything is dealt: the user's sets without what leaks, all else in train."""
    start = _before_dealing(manifest, facts, audit)
    return Split(start.name, audit.eligible, _augmented_val(start.name, audit), start.leaks)


def drop_small_classes(manifest: Manifest, facts: Facts, audit: Audit) -> tuple[Manifest, Facts]:
    """The data without the classes that `split` would refuse; audit and split the result anew.

    What was left out is counted in `Manifest.ignored`. Returned as it came where no class is too small.
    """
    start = _before_dealing(manifest, facts, audit)
    small = [manifest.class_names.index(name) for name in _small_classes(manifest, audit, start)]
    if not small:
        return manifest, facts
    rows = np.flatnonzero(~np.isin(manifest.labels, small)).astype(np.int64)
    kept = manifest.subset(rows)
    number = np.cumsum(~np.isin(np.arange(len(manifest.class_names)), small)) - 1
    left_out = {
        f"class '{manifest.class_names[c]}' has too few originals": int((manifest.labels == c).sum()) for c in small
    }
    smaller = Manifest(
        root=kept.root,
        paths=kept.paths,
        labels=number[kept.labels].astype(np.int64),
        class_names=tuple(n for c, n in enumerate(manifest.class_names) if c not in small),
        split=kept.split,
        group=kept.group,
        is_augmented=kept.is_augmented,
        ignored={**manifest.ignored, **left_out},
        empty_classes=manifest.empty_classes,
        outside=manifest.outside,
        sharded=kept.sharded,
    )
    return smaller, facts.take(rows)


def split_table(manifest: Manifest, facts: Facts, audit: Audit, split: Split) -> pd.DataFrame:
    """The split as `split.csv` shows it: `SPLIT_COLUMNS` in manifest order; eligible is 1 or 0."""
    names = np.array(manifest.class_names, dtype=object)
    return pd.DataFrame(
        {
            "path": pd.Series(manifest.paths, dtype=object),  # pandas' own text type takes no undecodable bytes
            "label": names[manifest.labels],
            "split": split.name.astype(object),
            "group": audit.lineage.group,
            "role": np.where(facts.usable, audit.lineage.role, "unsure").astype(object),
            "eligible": split.eligible.astype(np.int64),
        },
        columns=list(SPLIT_COLUMNS),
    )


@dataclass(frozen=True)
class _Start:
    """The rows before any group is dealt.

    Attributes:
        name: (N) the user's set, "train" for rows without one, "aside" or "quarantine".
        leaks: what was set aside because the user's split leaks.
        missing: the sets that must be dealt.
    """

    name: NDArray[np.str_]
    leaks: tuple[tuple[int, str], ...]
    missing: tuple[str, ...]


def _before_dealing(manifest: Manifest, facts: Facts, audit: Audit) -> _Start:
    users = manifest.split or (None,) * len(manifest)
    given = np.array([each or "train" for each in users], dtype="U10")
    given[~facts.usable] = "quarantine"
    name = given.copy()
    name[facts.usable & (audit.label_conflict | audit.lineage.orphan)] = "aside"
    name[np.isin(name, ("val", "test")) & ~audit.eligible] = "aside"
    lesser = _lesser_side(name, audit.lineage.group)
    name[list(lesser)] = "aside"
    leaks = {**_wrong_in_held_out(given, name, audit), **_two_labels_across(given, audit), **lesser}
    missing = tuple(each for each in ("test", "val") if each not in users)
    return _Start(name, tuple(sorted(leaks.items())), missing)


def _lesser_side(name: NDArray[np.str_], group: NDArray[np.int64]) -> dict[int, str]:
    """Row -> reason: rows in train whose group is in val or test, rows in val whose group is in test."""
    lesser: dict[int, str] = {}
    for held, others in (("val", ("train",)), ("test", ("val", "train"))):
        straddling = np.isin(group, group[name == held]) & np.isin(name, others)
        for row in np.flatnonzero(straddling).tolist():
            lesser[row] = f"in {name[row]}, but its group is in {held}"
    return lesser


def _wrong_in_held_out(given: NDArray[np.str_], name: NDArray[np.str_], audit: Audit) -> dict[int, str]:
    """Copies that the user put into val or test, and files of one source that are in train as well.

    A copy in val beside its original leaks nothing: it is only reported apart.
    """
    group, role = audit.lineage.group, audit.lineage.role
    fine = np.zeros(len(name), dtype=np.bool_)
    fine[_augmented_val(name, audit)] = True
    wrong: dict[int, str] = {}
    for held in ("val", "test"):
        placed = given == held
        copies = placed & (role == "copy") & ~(fine & (held == "val"))
        elsewhere = np.isin(group, group[np.isin(given, ("train", "val", "test")) & ~placed])
        wrong |= dict.fromkeys(np.flatnonzero(copies).tolist(), f"copy in {held}")
        unsure = placed & (role == "unsure") & elsewhere
        wrong |= dict.fromkeys(np.flatnonzero(unsure).tolist(), f"in {held}, but its group is elsewhere too")
    return wrong


def _two_labels_across(given: NDArray[np.str_], audit: Audit) -> dict[int, str]:
    """A picture with two labels is set aside in any case; across sets it is a leak as well."""
    return _lesser_side(np.where(audit.label_conflict, given, ""), audit.lineage.group)


def _augmented_val(name: NDArray[np.str_], audit: Audit) -> NDArray[np.int64]:
    """(n) readable copies of val originals; a picture with two labels is nobody's copy."""
    in_val = np.isin(audit.lineage.group, audit.lineage.group[name == "val"])
    copies = (audit.lineage.role == "copy") & (name == "aside") & ~audit.label_conflict
    return np.flatnonzero(copies & in_val).astype(np.int64)


def _dealable(audit: Audit, start: _Start) -> NDArray[np.bool_]:
    """(N) originals in train that may still go to val or test."""
    return np.asarray(audit.eligible & (start.name == "train"), dtype=np.bool_)


def _groups_per_class(manifest: Manifest, audit: Audit, start: _Start) -> NDArray[np.int64]:
    rows = _dealable(audit, start)
    pairs = np.unique(np.stack([audit.lineage.group[rows], manifest.labels[rows]]), axis=1)
    return np.bincount(pairs[1], minlength=len(manifest.class_names)).astype(np.int64)


def _deck(manifest: Manifest, facts: Facts, audit: Audit, start: _Start) -> Deck:
    rows = np.flatnonzero(_dealable(audit, start))
    return Deck.of(
        groups=audit.lineage.group[rows],
        labels=manifest.labels[rows],
        keys=facts.content_keys[rows],
        class_count=len(manifest.class_names),
    )


def _place(name: NDArray[np.str_], audit: Audit, start: _Start, dealt: Mapping[int, str]) -> None:
    """Move dealt groups out of train: their originals to the set, their copies aside."""
    group_set = np.full(int(audit.lineage.group.max()) + 1, "train", dtype="U10")
    for group, held in dealt.items():
        group_set[group] = held
    target = group_set[audit.lineage.group]
    moved = (start.name == "train") & (target != "train")
    name[moved] = np.where(audit.eligible, target, "aside")[moved]


def _require_two_classes(manifest: Manifest, facts: Facts) -> None:
    counts = np.bincount(manifest.labels[facts.usable], minlength=len(manifest.class_names))
    if (counts > 0).sum() < 2:
        shown = ", ".join(f"'{n}' {c}" for n, c in zip(manifest.class_names, counts, strict=True))
        raise DataError(
            "a classifier needs usable images of at least two classes",
            value=f"usable images per class: {shown or 'no class'}",
            fix="give one folder per class, or check --label-column and --label-map; "
            "automl-vision inspect lists the files that cannot be used",
        )


def _small_classes(manifest: Manifest, audit: Audit, start: _Start) -> dict[str, int]:
    """Classes that cannot be in every set, with the groups of originals (or train images) that they have."""
    if start.missing:
        needed, held = 1 + len(start.missing), _groups_per_class(manifest, audit, start)
    else:
        train = manifest.labels[start.name == "train"]
        needed, held = 1, np.bincount(train, minlength=len(manifest.class_names))
    return {manifest.class_names[c]: int(held[c]) for c in np.flatnonzero(held < needed)}


def _require_groups(manifest: Manifest, audit: Audit, start: _Start) -> None:
    small = _small_classes(manifest, audit, start)
    if not small:
        return
    more = f" and {len(small) - _NAMED} more classes" if len(small) > _NAMED else ""
    shown = ", ".join(f"'{name}' {count}" for name, count in list(small.items())[:_NAMED]) + more
    labels = [manifest.class_names.index(name) for name in small]
    fix = _SMALL_CLASS_FIX + _look_alike_fix(audit, np.isin(manifest.labels, labels))
    if not start.missing:
        raise DataError(
            "classes without any image left to train on",
            value=f"{shown}; {len(start.leaks)} rows of the given split leak and were set aside",
            fix=f"move originals of these classes into train, {fix}",
        )
    raise DataError(
        f"classes with too few originals for train, {' and '.join(start.missing)}: each needs "
        f"{1 + len(start.missing)} that are no copies of each other",
        value=shown,
        fix=fix,
    )


def _look_alike_fix(audit: Audit, rows: NDArray[np.bool_]) -> str:
    """What else helps where it is what pictures show that takes originals away from among (N) `rows`."""
    lineage = audit.lineage
    joined = [
        row for link in lineage.links if link.evidence == "pixels_registered" for row in (link.first, link.second)
    ]
    return _LOOK_ALIKE_FIX if lineage.barred[rows].any() or rows[joined].any() else ""


def _require_sets(manifest: Manifest, audit: Audit, name: NDArray[np.str_]) -> None:
    for held in ("test", "val"):
        if not (name == held).any():
            given = np.array([each == held for each in manifest.split or ()], dtype=np.bool_)
            raise DataError(
                f"no image of the given {held} set can be used",
                value="all are unreadable, copies, or pictures whose original is not known",
                fix=f"put originals into {held}, or leave the set out: it is then dealt from train"
                + _look_alike_fix(audit, given),
            )


def _require_trained_classes(manifest: Manifest, name: NDArray[np.str_]) -> None:
    trained = np.unique(manifest.labels[name == "train"])
    judged = np.unique(manifest.labels[(name == "val") | (name == "test")])
    untrained = [manifest.class_names[c] for c in np.setdiff1d(judged, trained)]
    if untrained:
        raise DataError(
            "classes in val or test that are not in train",
            value=", ".join(untrained),
            fix="move originals of these classes into train, or remove the classes",
        )


def _undealable(manifest: Manifest, audit: Audit, start: _Start) -> DataError:
    counts = _groups_per_class(manifest, audit, start)
    shown = ", ".join(f"'{n}' {c}" for n, c in zip(manifest.class_names, counts, strict=True))
    return DataError(
        f"the groups span classes so that no deal puts every class into train, {' and '.join(start.missing)}",
        value=f"groups per class: {shown}",
        fix="add groups of the classes with the fewest, or make groups finer",
    )
