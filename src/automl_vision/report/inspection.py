"""What `inspect` says of the data before anything is trained, as plain values: the verdict and the tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from automl_vision.config import DataSettings
from automl_vision.data.preparation import Prepared
from automl_vision.errors import IMAGE_FAULTS
from automl_vision.report.findings import few_named, tiny_classes
from automl_vision.report.intervals import wilson
from automl_vision.report.warnings import HALF_WIDTH_LIMIT, SUPPORT_LIMIT, UNREADABLE_LIMIT, images, percent, points
from automl_vision.visible import visible

#: Shorter sides in pixels between which images are counted.
SIDES = (32, 64, 128, 256, 512, 1024)


@dataclass(frozen=True)
class Verdict:
    """What a user must know before training.

    Attributes:
        summary: one paragraph: what there is, what was taken out, whether the test set can be believed.
        doubts: what speaks against believing it, one sentence each, worst first.
        unchecked: what nobody looked at, one sentence each.
    """

    summary: str
    doubts: tuple[str, ...]
    unchecked: tuple[str, ...]


@dataclass(frozen=True)
class ClassRow:
    """Images of one class (or of all) by planned set and role; val and test hold originals only."""

    name: str
    originals: int
    copies: int
    unsure: int
    val: int
    test: int
    aside: int
    quarantine: int


@dataclass(frozen=True)
class Bar:
    """A named number with its share of the largest, or of all, in 0..1."""

    name: str
    count: int
    share: float
    note: str = ""


@dataclass(frozen=True)
class Quarantined:
    """A file that is not used, and why."""

    path: str
    label: str
    reason: str
    fix: str


@dataclass(frozen=True)
class Sizes:
    """Of all readable files.

    Attributes:
        facts: (words, value) pairs.
        formats: file formats and colour modes, the most frequent first.
        sides: files by their shorter side.
    """

    facts: tuple[tuple[str, str], ...]
    formats: tuple[Bar, ...]
    sides: tuple[Bar, ...]


@dataclass(frozen=True)
class _Seen:
    prepared: Prepared
    settings: DataSettings

    def count(self, name: str) -> int:
        return int((self.prepared.split.name == name).sum())

    def roles(self, role: str) -> int:
        return int((self.prepared.facts.usable & (self.prepared.audit.lineage.role == role)).sum())


def judge(prepared: Prepared, settings: DataSettings) -> Verdict:
    """The verdict on the data and the planned sets."""
    seen = _Seen(prepared, settings)
    doubts = tuple(sentence for doubt in DOUBTS for sentence in doubt(seen))
    unchecked = tuple(sentence for gap in UNCHECKED for sentence in gap(seen))
    by = "As far as names and equal pixels tell" if prepared.facts.compared is None else "As far as was checked"
    about = "training" if prepared.refused else "believing its number"
    believed = {
        0: f"{by}, its number can be believed.",
        1: f"One thing to know before {about}:",
    }.get(len(doubts), f"{len(doubts)} things to know before {about}:")
    return Verdict(" ".join([_contents(seen), *_taken_out(seen), _test_set(seen), believed]), doubts, unchecked)


def _contents(seen: _Seen) -> str:
    prepared = seen.prepared
    usable = prepared.facts.usable
    groups = len(np.unique(prepared.audit.lineage.group[usable]))
    roles = {
        "original": ("original", "originals"),
        "copy": ("copy", "copies"),
        "unsure": ("that may be either",) * 2,
    }
    counted = {role: seen.roles(role) for role in roles}
    told = ", ".join(f"{n:,} {roles[role][n != 1]}" for role, n in counted.items() if n)
    classes = len(prepared.manifest.class_names)
    return (
        f"{images(len(prepared.manifest))} in {classes:,} classes: {told or 'none readable'}, "
        f"in {groups:,} group{'s' * (groups != 1)}."
    )


def _taken_out(seen: _Seen) -> Iterator[str]:
    quarantined, aside = seen.count("quarantine"), seen.count("aside")
    if quarantined:
        yield f"{_files(quarantined)} cannot be read and {'is' if quarantined == 1 else 'are'} in quarantine."
    if aside:
        yield f"{images(aside)} {'is' if aside == 1 else 'are'} set aside, because using them would leak or contradict."
    if seen.prepared.dropped_classes:
        dropped = list(map(visible, seen.prepared.dropped_classes))
        yield f"{len(dropped):,} classes with too few originals were left out: {few_named(dropped)}."
    if not quarantined and not aside:
        yield "Nothing was taken out."


def _test_set(seen: _Seen) -> str:
    if seen.prepared.refused is not None:
        return "No sets can be dealt from these data; the table shows what stands before dealing."
    n = seen.count("test")
    brought = "test" in (seen.prepared.manifest.split or ())
    which = "What is left of your test set" if brought and seen.prepared.split.leaks else "The test set"
    return f"{which} has {n:,} original{'s' * (n != 1)}, and nothing of their groups is in another set."


def _refused(seen: _Seen) -> Iterator[str]:
    error = seen.prepared.refused
    if error is not None:
        yield f"They cannot be trained on: {error.what}: {visible(str(error.value))}. Fix: {error.fix}."


def _leaks(seen: _Seen) -> Iterator[str]:
    n = len(seen.prepared.split.leaks)
    if n:
        yield (
            f"The split that came with the data leaks: {images(n)} {'is' if n == 1 else 'are'} in the wrong set, or in "
            "two as copies. They are set aside here; any figure from the split as it came is too good."
        )


def _two_labels(seen: _Seen) -> Iterator[str]:
    n = int(seen.prepared.audit.label_conflict.sum())
    if n:
        yield f"{images(n)} show one picture under two labels; none is used until you decide for one label."


def _small_test_set(seen: _Seen) -> Iterator[str]:
    rows = seen.prepared.split.rows("test")
    n, groups = len(rows), len(np.unique(seen.prepared.groups(rows)))
    low, high = wilson(groups / 2, groups)
    if n and (high - low) / 2 > HALF_WIDTH_LIMIT:
        half = points((high - low) / 2)
        of = f" of {groups:,} originals" if groups < n else ""
        yield f"The test set is small: on {images(n)}{of} an accuracy is known to ± {half} points at worst."


def _rare_in_test(seen: _Seen) -> Iterator[str]:
    manifest = seen.prepared.manifest
    counts = np.bincount(manifest.labels[seen.prepared.split.rows("test")], minlength=len(manifest.class_names))
    rare = np.flatnonzero(counts < SUPPORT_LIMIT)
    if len(rare) and seen.prepared.refused is None:
        rare = rare[np.argsort(counts[rare], kind="stable")]
        named = few_named([f"{visible(manifest.class_names[c])} ({counts[c]})" for c in rare.tolist()])
        yield (
            f"{len(rare):,} of {len(counts):,} classes have fewer than {SUPPORT_LIMIT} test images, so that figures of "
            f"their own will say little: {named}."
        )


def _unsure(seen: _Seen) -> Iterator[str]:
    lineage, usable = seen.prepared.audit.lineage, seen.prepared.facts.usable
    rows = usable & (lineage.role == "unsure")
    groups = len(np.unique(lineage.group[rows]))
    if groups:
        yield (
            f"In {groups:,} group{'s' * (groups != 1)} ({images(int(rows.sum()))}) the original is not known, so that "
            "they only train. Name originals with --original-regex or a column is_augmented to test on them too."
        )


def _barred(seen: _Seen) -> Iterator[str]:
    lineage = seen.prepared.audit.lineage
    n = len(lineage.unsure)
    if n:
        groups = lineage.group[[row for link in lineage.unsure for row in (link.first, link.second)]]
        barred = int(np.isin(lineage.group, groups).sum())
        yield (
            f"{n:,} pair{'s' * (n != 1)} may show one picture: {images(barred)} only train. A group column settles it."
        )


def _perhaps_missed(seen: _Seen) -> Iterator[str]:
    n = len(seen.prepared.audit.lineage.doubtful)
    if n:
        yield (
            f"{images(n)} alone in their group may be copies that were missed, as many images here are copies: they "
            "only train. A column is_augmented or --original-regex settles it."
        )


def _lost_copies(seen: _Seen) -> Iterator[str]:
    n = len(seen.prepared.audit.lineage.short)
    if n:
        which, have = ("One group", "has") if n == 1 else (f"{n:,} groups", "have")
        yield (
            f"{which} with an original {have} fewer copies than nearly all others: one was probably missed, and the "
            "original only trains. A column is_augmented or --original-regex settles it."
        )


def _unreadable(seen: _Seen) -> Iterator[str]:
    bad, total = seen.count("quarantine"), len(seen.prepared.manifest)
    if bad > UNREADABLE_LIMIT * total:
        yield f"{percent(bad / total)} of the files cannot be read: a copy or download may have gone wrong."


def _names_only(seen: _Seen) -> Iterator[str]:
    if seen.prepared.facts.compared is None:
        yield (
            "Pictures were not compared by what they show: a changed copy under a name of its own counts as an "
            "original here, and may be tested on while its sibling trains. --lineage full compares them."
        )


def _no_names(seen: _Seen) -> Iterator[str]:
    if seen.settings.lineage == "off":
        yield "File and folder names were not read for signs of copies (--lineage off)."


def _no_time(seen: _Seen) -> Iterator[str]:
    compared = seen.prepared.facts.compared
    if compared is not None and compared.unchecked:
        yield f"About {compared.unchecked:,} pairs of similar pictures were not compared for want of time."


def _left(seen: _Seen) -> Iterator[str]:
    compared = seen.prepared.facts.compared
    if compared is not None and compared.left:
        yield (
            f"{compared.left:,} less similar pairs of pictures were not compared: no copy was among the last "
            f"{compared.barren:,} that were."
        )


def _too_little_to_see(seen: _Seen) -> Iterator[str]:
    compared = seen.prepared.facts.compared
    if compared is None:
        return
    for n, what in ((compared.tiny, "tiny"), (len(compared.plain), "plain (few key points)")):
        if n:
            yield f"{images(n)} {'is' if n == 1 else 'are'} so {what} that most changed copies of them are missed."


def _same_thing(seen: _Seen) -> Iterator[str]:
    if seen.prepared.manifest.group is None and not seen.settings.group_regex:
        yield (
            "Two photographs of one thing that look different are two originals here. If the number shall hold for new "
            "patients, cameras or days, name these with a group column or --group-regex."
        )


_Check = Callable[[_Seen], Iterator[str]]

DOUBTS: tuple[_Check, ...] = (
    _refused,
    _leaks,
    _small_test_set,
    _two_labels,
    _unsure,
    _barred,
    _perhaps_missed,
    _lost_copies,
    _rare_in_test,
    _unreadable,
)
UNCHECKED: tuple[_Check, ...] = (_names_only, _no_names, _no_time, _left, _too_little_to_see, _same_thing)

#: Findings that the verdict and the table of the sets tell already.
TOLD = frozenset(
    {
        *("class_counts", "label_conflict", "unsure_groups", "perhaps_same_pictures", "many_unreadable"),
        *("not_compared", "less_similar_left", "perhaps_missed_copies", "groups_lost_a_copy", "too_small_to_compare"),
        "too_plain_to_compare",
    }
)


def class_rows(prepared: Prepared) -> list[ClassRow]:
    """The planned sets, one row per class in their order; the last row is all of them."""
    labels, classes = prepared.manifest.labels, len(prepared.manifest.class_names)
    in_set, role = prepared.split.name, prepared.audit.lineage.role
    train = in_set == "train"
    chosen = [train & (role == each) for each in ("original", "copy", "unsure")]
    chosen += [in_set == each for each in ("val", "test", "aside", "quarantine")]
    counts = np.stack([np.bincount(labels[rows], minlength=classes) for rows in chosen], axis=1)
    names = [*map(visible, prepared.manifest.class_names), "all"]
    table = [*counts.tolist(), counts.sum(axis=0).tolist()]
    return [ClassRow(name, *row) for name, row in zip(names, table, strict=True)]


def class_bars(prepared: Prepared) -> list[Bar]:
    """Originals of every class, the fewest first; a tiny class says so."""
    counts = prepared.audit.class_counts.sort_values(["originals", "class"])
    most = max(1, int(counts["originals"].max()))
    tiny = {name for name, _ in tiny_classes(counts)}
    return [
        Bar(visible(name), n, n / most, "tiny" if name in tiny else "")
        for name, n in zip(counts["class"].tolist(), counts["originals"].tolist(), strict=True)
    ]


def quarantined(prepared: Prepared) -> list[Quarantined]:
    """Every file that cannot be used."""
    table, manifest = prepared.facts.table, prepared.manifest
    faults, details = table["fault"].to_numpy(dtype=object), table["detail"].to_numpy(dtype=object)
    return [
        Quarantined(
            visible(manifest.paths[row]),
            visible(manifest.class_names[manifest.labels[row]]),
            ": ".join(dict.fromkeys(each for each in (faults[row].replace("_", " "), details[row]) if each)),
            IMAGE_FAULTS[faults[row]],
        )
        for row in np.flatnonzero(~prepared.facts.usable).tolist()
    ]


def sizes(prepared: Prepared) -> Sizes:
    """The mix of sizes and formats of the readable files."""
    table = prepared.facts.table[prepared.facts.usable]
    width, height = table["width"].to_numpy(dtype=np.int64), table["height"].to_numpy(dtype=np.int64)
    kinds = (table["format"].astype(object) + ", " + table["mode"].astype(object)).value_counts()
    formats = tuple(
        Bar(visible(str(name)), int(n), n / len(table)) for name, n in zip(kinds.index, kinds.tolist(), strict=True)
    )
    return Sizes(_size_facts(width, height, table["bytes"].to_numpy(dtype=np.int64)), formats, _sides(width, height))


def _size_facts(
    width: NDArray[np.int64], height: NDArray[np.int64], size: NDArray[np.int64]
) -> tuple[tuple[str, str], ...]:
    if not len(width):
        return ()
    order = np.argsort(width * height, kind="stable")
    places = {"smallest image": order[0], "median image": order[len(order) // 2], "largest image": order[-1]}
    facts = [(words, f"{width[at]:,} × {height[at]:,}") for words, at in places.items()]
    shapes = np.stack([width, height], axis=1)
    return (
        *facts,
        ("different sizes", f"{len(np.unique(shapes, axis=0)):,}"),
        ("wide / square / tall", " / ".join(f"{int(n):,}" for n in _shapes(width, height))),
        ("all files", f"{size.sum() / 1e6:,.1f} MB"),
    )


def _shapes(width: NDArray[np.int64], height: NDArray[np.int64]) -> tuple[int, int, int]:
    return int((width > height).sum()), int((width == height).sum()), int((width < height).sum())


def _sides(width: NDArray[np.int64], height: NDArray[np.int64]) -> tuple[Bar, ...]:
    counts = np.bincount(np.searchsorted(SIDES, np.minimum(width, height)), minlength=len(SIDES) + 1)
    lows = (0, *SIDES)
    names = [f"{low + 1} to {high} px" for low, high in zip(lows, SIDES, strict=False)] + [f"over {SIDES[-1]:,} px"]
    total = max(1, len(width))
    return tuple(Bar(name, int(n), n / total) for name, n in zip(names, counts.tolist(), strict=True) if n)


def _files(n: int) -> str:
    return f"{n:,} file{'s' * (n != 1)}"
