"""Everything that is wrong or remarkable about the data, as one table of findings, before any training.

Findings never stop a run by themselves: what cannot be used is quarantined or set aside by the split, which
raises an error where too little is left.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from automl_vision.config import DataSettings
from automl_vision.data.facts import Compared, Facts
from automl_vision.data.frames import MOST_FRAMES
from automl_vision.data.lineage.evidence import MAY_DIFFER_IN_LABEL, as_bytes, precedence
from automl_vision.data.lineage.frames import Likeness, Thumbnails, likeness_of_neighbours
from automl_vision.data.lineage.groups import connected, trace_lineage
from automl_vision.data.lineage.lineage import Lineage
from automl_vision.data.lineage.names import augmented_twin
from automl_vision.data.lineage.originals import SURE
from automl_vision.data.manifest import Manifest
from automl_vision.errors import IMAGE_FAULTS

Severity = Literal["info", "warning", "error"]

#: What a finding can be: kind -> (severity, what to do about it).
KINDS: dict[str, tuple[Severity, str]] = {
    **{fault: ("error", fix) for fault, fix in IMAGE_FAULTS.items()},
    "many_unreadable": ("warning", "check the source: a copy or download may have gone wrong"),
    "nothing_readable": ("error", "restore the images of this class or remove the class"),
    "empty_class": ("warning", "add images or remove the folder"),
    "too_few_originals": ("error", "add images, merge classes with --label-map, or use --drop-small-classes"),
    "tiny_class": ("warning", "add images: the figures of this class will be rough"),
    "class_counts": ("info", ""),
    "imbalance": (
        "warning",
        "mind macro-F1 rather than accuracy; more images of the small classes help most",
    ),
    "duplicate_file": ("info", "nothing: copies stay with their original"),
    "duplicate_pixels": ("info", "nothing: copies stay with their original"),
    "label_conflict": ("warning", "decide on one label and remove the other file; until then none is used"),
    "orphan_copy": ("warning", "add its original, or name groups with a group column or --group-regex"),
    "orphan_copies": ("warning", "name originals with --original-regex or a column is_augmented and a group"),
    "unsure_original": ("warning", "name the original with --original-regex or a column is_augmented"),
    "unsure_groups": ("warning", "name originals with --original-regex or a column is_augmented"),
    "same_pictures": ("info", "nothing: what shows one picture stays together"),
    "same_picture": ("info", "nothing: what shows one picture stays together"),
    "same_picture_two_labels": ("warning", "if it is one thing, decide on one label; until then they only train"),
    "originals_by_pixels": ("info", "nothing; --original-regex or a column is_augmented overrules it"),
    "original_by_pixels": ("info", "nothing; --original-regex or a column is_augmented overrules it"),
    "look_augmented": ("info", "nothing: they only train; a column is_augmented overrules it"),
    "looks_augmented": ("info", "nothing: it only trains; a column is_augmented overrules it"),
    "perhaps_same_pictures": ("info", "nothing: they only train; a group column settles it"),
    "perhaps_same_picture": ("info", "nothing: it only trains; a group column settles it"),
    "perhaps_missed_copies": ("info", "nothing: they only train; a column is_augmented or --original-regex settles it"),
    "perhaps_missed_copy": ("info", "nothing: it only trains; a column is_augmented or --original-regex settles it"),
    "groups_lost_a_copy": ("info", "nothing: they only train; a column is_augmented or --original-regex settles it"),
    "group_lost_a_copy": ("info", "nothing: it only trains; a column is_augmented or --original-regex settles it"),
    "less_similar_left": ("info", "nothing; name groups with a group column where you know of more copies"),
    "not_compared": ("warning", "give a longer --budget, or name groups with a group column"),
    "too_small_to_compare": ("warning", "name groups with a group column or --group-regex"),
    "too_plain_to_compare": ("warning", "name groups with a group column or --group-regex"),
    "names_contradicted": (
        "warning",
        "look at the two: if they are two pictures, name groups with a group column; until then they stay together",
    ),
    "nearly_all_copies": (
        "warning",
        "if these are your originals, say so with --original-regex or a column is_augmented, or use --lineage off",
    ),
    "bursts": ("info", "nothing: what was taken in one go stays together"),
    "looks_like_bursts": (
        "warning",
        "keep them in one set: consider --burst-window 2s (camera times), --burst-window 5 (file numbers; all are one "
        "burst where no number is missing), or name videos with a group column or --group-regex",
    ),
    "large_burst": (
        "warning",
        "give a smaller --burst-window, or say what belongs together with a group column or --group-regex",
    ),
    "class_of_copies": ("warning", "merge the two classes with --label-map"),
    "ignored": ("info", ""),
    "links_outside": ("info", "nothing, if these links are yours; else look where they lead: their images are used"),
    "exif_rotated": ("info", "nothing: images are turned upright"),
    "wrong_extension": ("info", "nothing: the content counts, not the name"),
    "multi_frame": ("info", "nothing: the first frame is used; export other frames as files of their own"),
    "mode_by_class": ("warning", "the model may learn the file type instead of the object: save all alike"),
}

#: Below this many originals a class is called tiny.
TINY = 10
#: Above this ratio of the largest to the smallest class the imbalance is a finding.
IMBALANCED = 3.0
#: Above this share of quarantined files the finding is about the whole data set.
MANY = 0.05
#: Above this share of copies among the usable images the finding is about the whole data set.
NEARLY_ALL = 0.95
#: Above this share of a class one burst is a finding: what is left cannot tell much.
LARGE_BURST = 0.20
#: Sets that a class needs an original group for: train, val and test.
SETS = 3

_EXTENSIONS: dict[str, str] = {
    "jpg": "JPEG",
    "jpeg": "JPEG",
    "jpe": "JPEG",
    "jfif": "JPEG",
    "png": "PNG",
    "webp": "WEBP",
    "bmp": "BMP",
    "dib": "BMP",
    "tif": "TIFF",
    "tiff": "TIFF",
    "gif": "GIF",
}
#: Pillow modes that look alike to a network, by what a reader would call them.
_MODE_FAMILIES: dict[str, str] = {
    "1": "black and white",
    "L": "greyscale",
    "LA": "greyscale",
    "I": "16-bit greyscale",
    "I;16": "16-bit greyscale",
    "I;16B": "16-bit greyscale",
    "P": "palette",
    "PA": "palette",
    "RGBA": "transparent",
    "CMYK": "CMYK",
}


@dataclass(frozen=True)
class Finding:
    """One remark on one row, or on the data set as a whole.

    Attributes:
        row: manifest row, or -1 for the data set.
        kind: a key of `KINDS`.
        severity: "info", "warning" or "error".
        message: what was found, one line with numbers.
        fix: what the user can do; empty where nothing needs doing.
    """

    row: int
    kind: str
    severity: Severity
    message: str
    fix: str


@dataclass(frozen=True)
class Audit:
    """What is known about the data before the split.

    Attributes:
        findings: remarks, those on the whole data set first.
        lineage: groups and roles of all rows.
        label_conflict: (N) True where the same picture (by pixels or names) carries two labels.
        eligible: (N) True where the image could be a test image: a readable original without label
            conflict, in a group whose originals are all known and that is not barred.
        class_counts: one row per class: class, images, readable, originals, copies, unsure, groups
            (`groups`: groups with an eligible original).
    """

    findings: tuple[Finding, ...]
    lineage: Lineage
    label_conflict: NDArray[np.bool_]
    eligible: NDArray[np.bool_]
    class_counts: pd.DataFrame

    def to_frame(self, manifest: Manifest) -> pd.DataFrame:
        """The findings as a table: path, label, kind, severity, message, fix; no path for the data set."""
        rows = [finding.row for finding in self.findings]
        labels = manifest.labels.tolist()
        return pd.DataFrame(
            {
                "path": [manifest.paths[row] if row >= 0 else "" for row in rows],
                "label": [manifest.class_names[labels[row]] if row >= 0 else "" for row in rows],
                "kind": [finding.kind for finding in self.findings],
                "severity": [finding.severity for finding in self.findings],
                "message": [finding.message for finding in self.findings],
                "fix": [finding.fix for finding in self.findings],
            },
            dtype=object,  # pandas' own text type takes no undecodable bytes
        )


@dataclass(frozen=True)
class _Scene:
    manifest: Manifest
    facts: Facts
    lineage: Lineage
    label_conflict: NDArray[np.bool_]
    counts: pd.DataFrame
    likeness: Mapping[int, Likeness] = field(default_factory=dict)


def audit(manifest: Manifest, facts: Facts, settings: DataSettings, thumbnails: Thumbnails | None = None) -> Audit:
    """Trace the lineage and run every check of `CHECKS`.

    Args:
        manifest: N rows.
        facts: N rows.
        settings: which evidence counts.
        thumbnails: how pictures are reached to see whether files look like frames of videos; None where they are not.
    """
    lineage = trace_lineage(manifest, facts, settings)
    conflict = _label_conflict(manifest, lineage)
    eligible = _eligible(facts, lineage, conflict)
    counts = _class_counts(manifest, facts, lineage, eligible)
    likeness = {}
    if thumbnails is not None and not settings.burst_window:
        considered = np.asarray(facts.usable & (lineage.role == "original"), dtype=np.bool_)
        likeness = likeness_of_neighbours(manifest, considered, lineage.group, thumbnails)
    scene = _Scene(manifest, facts, lineage, conflict, counts, likeness)
    found = [finding for check in CHECKS for finding in check(scene)]
    findings = tuple(sorted(found, key=lambda finding: finding.row >= 0))
    return Audit(findings, lineage, conflict, eligible, counts)


def _label_conflict(manifest: Manifest, lineage: Lineage) -> NDArray[np.bool_]:
    """One picture under two labels contradicts itself; one patient under two labels does not.

    Nor do a red and a green flag, or a mirrored b and a d, that agree when they are laid over each other.
    """
    same_picture = (link for link in lineage.links if link.evidence not in MAY_DIFFER_IN_LABEL)
    picture = connected(len(manifest), same_picture)
    low = np.full(len(manifest), len(manifest.class_names), dtype=np.int64)
    high = np.full(len(manifest), -1, dtype=np.int64)
    np.minimum.at(low, picture, manifest.labels)
    np.maximum.at(high, picture, manifest.labels)
    return np.asarray((low < high)[picture], dtype=np.bool_)


def _eligible(facts: Facts, lineage: Lineage, conflict: NDArray[np.bool_]) -> NDArray[np.bool_]:
    unsure = np.zeros(len(facts) + 1, dtype=np.bool_)
    unsure[lineage.group[lineage.role == "unsure"]] = True
    sure = (lineage.role == "original") & ~unsure[lineage.group]
    return np.asarray(facts.usable & sure & ~conflict & ~lineage.barred, dtype=np.bool_)


def _class_counts(manifest: Manifest, facts: Facts, lineage: Lineage, eligible: NDArray[np.bool_]) -> pd.DataFrame:
    def per_class(rows: NDArray[np.bool_]) -> NDArray[np.int64]:
        return np.bincount(manifest.labels[rows], minlength=len(manifest.class_names)).astype(np.int64)

    usable = facts.usable
    pairs = np.unique(np.stack([lineage.group[eligible], manifest.labels[eligible]]), axis=1)
    return pd.DataFrame(
        {
            "class": list(manifest.class_names),
            "images": per_class(np.ones(len(manifest), dtype=np.bool_)),
            "readable": per_class(usable),
            "originals": per_class(usable & (lineage.role == "original")),
            "copies": per_class(usable & (lineage.role == "copy")),
            "unsure": per_class(usable & (lineage.role == "unsure")),
            "groups": np.bincount(pairs[1], minlength=len(manifest.class_names)),
        }
    )


def _finding(kind: str, message: str, row: int = -1) -> Finding:
    severity, fix = KINDS[kind]
    return Finding(row, kind, severity, message, fix)


def _quarantined(scene: _Scene) -> Iterator[Finding]:
    table = scene.facts.table
    bad = np.flatnonzero(~scene.facts.usable)
    faults, details = table["fault"].to_numpy(dtype=object), table["detail"].to_numpy(dtype=object)
    for row in bad.tolist():
        yield _finding(faults[row], details[row] or faults[row].replace("_", " "), row)
    if len(bad) > MANY * len(table):
        yield _finding("many_unreadable", f"{len(bad)} of {len(table)} files are not usable")


def _class_sizes(scene: _Scene) -> Iterator[Finding]:
    for each in scene.counts.to_dict("records"):
        name, originals, groups = each["class"], each["originals"], each["groups"]
        if each["readable"] == 0:
            yield _finding("nothing_readable", f"class '{name}': none of {each['images']} files is usable")
        elif groups < SETS:
            yield _finding(
                "too_few_originals",
                f"class '{name}': {each['readable']} readable images, but only {groups} "
                f"group{'s' * (groups != 1)} with a sure original; a split needs {SETS}",
            )
        elif originals < TINY:
            yield _finding("tiny_class", f"class '{name}' has {originals} originals")


def _balance(scene: _Scene) -> Iterator[Finding]:
    counts = scene.counts.sort_values(["readable", "class"], ascending=[False, True])
    shown = ", ".join(f"{n} {c}" for c, n in zip(counts["class"].head(20), counts["readable"], strict=False))
    more = f" and {len(counts) - 20} more classes" if len(counts) > 20 else ""
    total = int(counts["readable"].sum())
    yield _finding("class_counts", f"{total} readable images in {len(counts)} classes: {shown}{more}")
    held = counts[counts["originals"] > 0].sort_values("originals")
    if len(held) > 1:
        least, most = held.iloc[0], held.iloc[-1]
        ratio = float(most["originals"] / least["originals"])
        if ratio > IMBALANCED:
            yield _finding(
                "imbalance",
                f"class '{most['class']}' has {ratio:.1f} times the originals of class '{least['class']}' "
                f"({most['originals']} and {least['originals']})",
            )


def _empty_classes(scene: _Scene) -> Iterator[Finding]:
    for name in scene.manifest.empty_classes:
        yield _finding("empty_class", f"nothing usable in class folder '{name}'")


def _duplicates(scene: _Scene) -> Iterator[Finding]:
    pixels = scene.facts.pixel_digests
    files = scene.facts.table["file_digest"].to_numpy(dtype=object)
    usable = np.flatnonzero(scene.facts.usable & (pixels != ""))
    _, inverse, counts = np.unique(as_bytes(pixels[usable]), return_inverse=True, return_counts=True)
    first: dict[str, int] = {}
    for row in precedence(scene.manifest, scene.facts, usable[counts[inverse] > 1]):
        kept = first.setdefault(pixels[row], row)
        if kept != row:
            same_file = files[kept] == files[row]
            kind, what = ("duplicate_file", "file") if same_file else ("duplicate_pixels", "pixels")
            yield _finding(kind, f"the same {what} as {scene.manifest.paths[kept]}", row)


def _conflicts(scene: _Scene) -> Iterator[Finding]:
    rows = np.flatnonzero(scene.label_conflict)
    labels = pd.Series(scene.manifest.labels[rows]).groupby(scene.lineage.group[rows])
    named = {
        group: " and ".join(f"'{scene.manifest.class_names[label]}'" for label in sorted(set(found)))
        for group, found in labels
    }
    for row in rows.tolist():
        yield _finding("label_conflict", f"the same picture is in {named[scene.lineage.group[row]]}", row)


def _copies(scene: _Scene) -> Iterator[Finding]:
    lineage, usable = scene.lineage, scene.facts.usable
    copies, images = int(((lineage.role == "copy") & usable).sum()), int(usable.sum())
    if copies > NEARLY_ALL * images:
        yield _finding(
            "nearly_all_copies", f"{copies} of {images} images count as copies, by names or by what you said"
        )
    orphans = np.flatnonzero(lineage.orphan & usable)
    if len(orphans):
        message = f"{len(orphans)} copies without their original are set aside: it may be anywhere"
        yield _finding("orphan_copies", message)
    for row in orphans.tolist():
        yield _finding("orphan_copy", f"a copy without its original: {lineage.reasons.get(row, '')}", row)
    unsure = np.flatnonzero((lineage.role == "unsure") & usable)
    if len(unsure):
        groups = len(np.unique(lineage.group[unsure]))
        message = f"in {groups} groups ({len(unsure)} images) the original is not known: they only train"
        yield _finding("unsure_groups", message)
    for row in unsure.tolist():
        yield _finding("unsure_original", f"original or copy: {lineage.reasons.get(row, '')}", row)


def _compared(scene: _Scene) -> Iterator[Finding]:
    seen = scene.facts.compared
    if seen is None:
        return
    group, paths = scene.lineage.group, scene.manifest.paths
    apart = ~seen.same & (group[seen.pairs[:, 0]] != group[seen.pairs[:, 1]])
    for kind, chosen, what in (
        ("same_picture", seen.same, "show the same picture as another"),
        ("perhaps_same_picture", apart, "may show the same picture as another and are not tested on"),
    ):
        images = len(np.unique(seen.pairs[chosen]))
        if images:
            yield _finding(f"{kind}s", f"{images} images {what}, by what the pixels show")
        for at in np.flatnonzero(chosen).tolist():
            first, second = seen.pairs[at].tolist()
            words = "the same picture as" if kind == "same_picture" else "perhaps the same picture as"
            yield _finding(kind, f"{words} {paths[first]}: {seen.detail[at]}, score {seen.score[at]:.1f}", second)
    yield from _contradicted(scene.manifest, seen)
    yield from _two_labels(scene.manifest, seen)
    yield from _named_by_pixels(scene, seen)
    yield from _marked(scene, seen)
    yield from _missed(scene, seen)
    yield from _lost_copies(scene)
    if seen.left:
        yield _finding(
            "less_similar_left",
            f"{seen.left} less similar pairs were not laid over each other: no copy was among the last {seen.barren} "
            "that were",
        )
    if seen.unchecked:
        yield _finding(
            "not_compared", f"about {seen.unchecked} pairs of similar images were not compared: their time was up"
        )
    for kind, images, what in (
        ("too_small_to_compare", seen.tiny, "so small"),
        ("too_plain_to_compare", len(seen.plain), "so plain (few key points)"),
    ):
        if images:
            told = "that pixels miss most of their changed copies: they do not certify the test set"
            yield _finding(kind, f"{images} images are {what} {told}")


def _named_by_pixels(scene: _Scene, seen: Compared) -> Iterator[Finding]:
    lineage = scene.lineage
    judged = np.array(sorted(seen.original), dtype=np.int64)
    named = [row for row in judged.tolist() if seen.original[row] >= SURE and lineage.role[row] == "original"]
    if len(judged):
        unsure = len(np.unique(lineage.group[judged[lineage.role[judged] == "unsure"]]))
        yield _finding(
            "originals_by_pixels", f"in {len(named)} groups the pixels name the original, in {unsure} they are not sure"
        )
    for row in named:
        others = int((lineage.group == lineage.group[row]).sum()) - 1
        message = f"the original of {others} other images by their pixels, probability {seen.original[row]:.4f}"
        yield _finding("original_by_pixels", message, row)


def _marked(scene: _Scene, seen: Compared) -> Iterator[Finding]:
    barred = [row for row in sorted(seen.marked) if scene.lineage.barred[row] and scene.lineage.role[row] == "original"]
    if barred:
        yield _finding("look_augmented", f"{len(barred)} images look made by augmentation and are not tested on")
    for row in barred:
        yield _finding("looks_augmented", "; ".join(seen.marked[row]), row)


def _missed(scene: _Scene, seen: Compared) -> Iterator[Finding]:
    rows, resembling = scene.lineage.doubtful, set(seen.resembling.tolist())
    if rows:
        yield _finding(
            "perhaps_missed_copies",
            f"{len(rows)} lone images may be copies that were missed, in a folder with many copies: they are not "
            "tested on",
        )
    plain = set(seen.plain.tolist())
    for row in rows:
        why = "not compared with all that it resembles, for want of time"
        why = "too plain to be recognised" if row in plain else why
        why = "resembles its nearest image as a copy does" if row in resembling else why
        yield _finding("perhaps_missed_copy", f"{why}, in a folder with many copies", row)


def _lost_copies(scene: _Scene) -> Iterator[Finding]:
    short = scene.lineage.short
    if short:
        yield _finding(
            "groups_lost_a_copy",
            "1 group is smaller than nearly all others: a copy was probably missed, and its original is not tested on"
            if len(short) == 1
            else f"{len(short)} groups are smaller than nearly all others: a copy of each was probably missed, and "
            "their originals are not tested on",
        )
    for row, why in short.items():
        yield _finding("group_lost_a_copy", f"{why}: a copy was probably missed", row)


def _contradicted(manifest: Manifest, seen: Compared) -> Iterator[Finding]:
    """Such files stay together all the same: a wrong join costs a few images, a wrong parting the test set."""
    if len(seen.strangers):
        message = f"{len(seen.strangers)} of {seen.named} pairs that names join have nothing visible in common"
        yield _finding("names_contradicted", message)
    for first, second in seen.strangers.tolist():
        message = f"named like a copy with {manifest.paths[first]}, but nothing common is seen in the two"
        yield _finding("names_contradicted", message, second)


def _two_labels(manifest: Manifest, seen: Compared) -> Iterator[Finding]:
    labels = manifest.labels[seen.pairs]
    for at in np.flatnonzero(seen.same & (labels[:, 0] != labels[:, 1])).tolist():
        first, second = seen.pairs[at].tolist()
        named = " and ".join(f"'{manifest.class_names[label]}'" for label in sorted(labels[at].tolist()))
        message = f"shows the same picture as {manifest.paths[first]}, but they are in {named}"
        yield _finding("same_picture_two_labels", message, second)


def _bursts(scene: _Scene) -> Iterator[Finding]:
    links = [link for link in scene.lineage.links if link.evidence == "bursts"]
    if not links:
        return
    burst = connected(len(scene.manifest), links)
    images = np.bincount(burst[scene.facts.usable], minlength=len(burst))
    several = images[images > 1]
    yield _finding(
        "bursts",
        f"{several.sum()} images were taken in {len(several)} bursts, by their numbers or times; the largest has "
        f"{several.max(initial=0)}",
    )
    for label, name in enumerate(scene.manifest.class_names):
        inside = np.bincount(burst[scene.facts.usable & (scene.manifest.labels == label)], minlength=1)
        most, total = int(inside.max()), int(inside.sum())
        if most > 1 and most > LARGE_BURST * total:
            message = f"one burst holds {most} of {total} images of class '{name}' ({most / total:.0%})"
            yield _finding("large_burst", message)


def _frames(scene: _Scene) -> Iterator[Finding]:
    alike = {label: each for label, each in scene.likeness.items() if each.frames}
    if not alike:
        return
    names = [f"'{scene.manifest.class_names[label]}'" for label in alike]
    shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    pairs = sum(each.pairs for each in alike.values())
    nearer = sum(each.nearer * each.pairs for each in alike.values()) / pairs
    yield _finding(
        "looks_like_bursts",
        f"files look like frames of videos in {len(alike)} of {len(scene.likeness)} classes with running numbers "
        f"({shown}): in {nearer:.0%} of {pairs} pairs the next number is more alike than another picture of the class",
    )


def _twin_classes(scene: _Scene) -> Iterator[Finding]:
    classes = set(scene.manifest.class_names)
    for name in scene.manifest.class_names:
        twin = augmented_twin(name)
        if twin in classes:
            yield _finding("class_of_copies", f"class '{name}' reads like copies of class '{twin}'")


def _ignored(scene: _Scene) -> Iterator[Finding]:
    for reason, count in sorted(scene.manifest.ignored.items()):
        yield _finding("ignored", f"{count} passed over: {reason}")


def _links(scene: _Scene) -> Iterator[Finding]:
    count = scene.manifest.outside
    if count:
        be, images = ("is a link", "image") if count == 1 else ("are links", "images")
        yield _finding("links_outside", f"{count} {images} {be} to a file outside of the data folder")


def _files(scene: _Scene) -> Iterator[Finding]:
    table = scene.facts.table
    turned = int((table["exif_rotated"].to_numpy(dtype=bool) & scene.facts.usable).sum())
    if turned:
        yield _finding("exif_rotated", f"{turned} images are stored turned and were put upright")
    frames = table["frames"].to_numpy()
    for row in np.flatnonzero(scene.facts.usable & (frames > 1)).tolist():
        more = " or more" if frames[row] >= MOST_FRAMES else ""
        yield _finding("multi_frame", f"{frames[row]}{more} frames or pages in one file", row)


def _extensions(scene: _Scene) -> Iterator[Finding]:
    formats = scene.facts.table["format"].tolist()
    usable = scene.facts.usable.tolist()
    for row, path in enumerate(scene.manifest.paths):
        extension = path[path.rfind(".") + 1 :]
        named = _EXTENSIONS.get(extension) or _EXTENSIONS.get(extension.lower())
        if usable[row] and named and formats[row] and named != formats[row]:
            yield _finding("wrong_extension", f"named .{extension}, but the content is {formats[row]}", row)


def _modes(scene: _Scene) -> Iterator[Finding]:
    """A file type that nearly all of one class and nearly nobody else has gives the class away."""
    usable = scene.facts.usable
    family = scene.facts.table["mode"].map(_MODE_FAMILIES).fillna("colour").to_numpy(dtype=object)[usable]
    if len(set(family)) < 2:
        return
    table = pd.crosstab(scene.manifest.labels[usable], family)
    inside = table.div(table.sum(axis=1), axis=0)
    others = table.sum(axis=0) - table
    outside = others.div(others.sum(axis=1).clip(lower=1), axis=0)
    said_once = {"colour"} if len(table) == 2 else set()  # the other class is named already
    for label, name in ((i, n) for i in table.index for n in table.columns if n not in said_once):
        telling = inside.loc[label, name] >= 0.9 and outside.loc[label, name] <= 0.1
        if telling and table.loc[label].sum() >= 5 and others.loc[label].sum():
            yield _finding(
                "mode_by_class",
                f"{inside.loc[label, name]:.0%} of class '{scene.manifest.class_names[label]}' are {name}, "
                f"elsewhere {outside.loc[label, name]:.0%}",
            )


CHECKS: tuple[Callable[[_Scene], Iterator[Finding]], ...] = (
    _quarantined,
    _balance,
    _class_sizes,
    _empty_classes,
    _duplicates,
    _conflicts,
    _copies,
    _compared,
    _bursts,
    _frames,
    _twin_classes,
    _ignored,
    _links,
    _files,
    _extensions,
    _modes,
)
