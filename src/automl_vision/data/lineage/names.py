"""What file and folder names say about copies, as the usual augmentation tools write them.

A name alone is weak: `dark_knight.jpg` is no darkened `knight.jpg`, and `photo_2.jpg` may be another photo.
So every rule needs an anchor (the file it would be a copy of, or other files made from it), unless no human
writes such a name. Rules never join files of two labels.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from automl_vision.data.lineage.lineage import Link
from automl_vision.data.manifest import Manifest

Says = Literal["copy", "same source", "hint"]
Anchor = Literal["stem", "siblings", "kin", "none"]


def _words(text: str) -> list[str]:
    return text.split()


#: Words that people write for an augmentation and hardly ever for anything else.
SURE_OPERATIONS = _words("""
    aug augm augmented augmentation imgaug albu albumentation albumentations autoaugment randaugment
    trivialaugment
    hflip vflip hvflip fliph flipv fliplr flipud flipped horizontalflip verticalflip mirrored
    rotated rotate rotation rot90 rot180 rot270 randomrotate90 rotation90 rotate90 transposed
    brightened darkened brightnesscontrast randombrightnesscontrast colorjitter colourjitter jittered
    huesaturationvalue rgbshift channelshuffle randomgamma desaturated grayscale greyscale togray inverted
    solarize solarized posterize posterized equalized clahe
    blurred gaussblur gaussianblur motionblur medianblur sharpened noised noisy gaussnoise gaussiannoise
    saltpepper saltandpepper isonoise jpegcompression imagecompression
    cropped randomcrop centercrop randomresizedcrop rrc rescaled shifted translated sheared skewed
    shiftscalerotate affine randomaffine elastic elastictransform griddistortion opticaldistortion distorted
    warped squashed cutout erased randomerasing coarsedropout
""")

#: Words that are also parts of ordinary names: they count only beside the file they would be a copy of.
LIKELY_OPERATIONS = _words("""
    flip mirror rot transpose bright brighter brightness dark darker darkness contrast autocontrast gamma
    exposure hue sat saturation saturate jitter gray grey bw invert inv negative equalize equalise histeq blur
    gauss gaussian defocus sharp sharpen emboss noise salt pepper speckle jpeg jpg compress compressed crop
    zoom zoomin zoomout scale scaled resize resized rescale pad padded padding shift translate translation
    shear skew perspective persp warp distort distortion squash stretch stretched erase erasing dropout
    occlude occluded downscale downscaled upscale upscaled lowres sunflare watermark transform transformed
    trans tta
""")

#: Words that start an ordinary name too often (`snow_leopard`, `light_bulb`): read only at the end of a name.
TRAILING_OPERATIONS = _words("""
    light lighter shadow fog rain snow color colour rgb channel motion median grain quality turned
""")


def _any_of(words: Iterable[str]) -> str:
    """A pattern for any of the words that tries each letter once: many times faster than `a|b|c`."""
    tails: defaultdict[str, list[str]] = defaultdict(list)
    for word in words:
        tails[word[:1]].append(word[1:])
    optional = "?" if tails.pop("", None) else ""
    branches = [re.escape(head) + (_any_of(rest) if any(rest) else "") for head, rest in tails.items()]
    return f"(?:{'|'.join(branches)}){optional}"


_SEP = r"[_\-. ]+"
_MORE_WORDS = r"h|v|hv|lr|ud|x|y|cw|ccw|left|right|up|down|horizontal|vertical|random|low|high|deg|degrees"
_MORE = rf"(?:{_MORE_WORDS}|\d{{1,5}}(?:deg|px|pct)?)"
_SURE = _any_of(SURE_OPERATIONS)
_LEADING = _any_of(SURE_OPERATIONS + LIKELY_OPERATIONS)
_ANY = _any_of(SURE_OPERATIONS + LIKELY_OPERATIONS + TRAILING_OPERATIONS)
_TAIL = rf"(?:{_SEP}(?:{_ANY}\d{{0,4}}|{_MORE}))*"
_HEAD = rf"\d{{0,4}}(?:{_SEP}\d{{1,4}})?{_SEP}(?=.*[^\W\d_])(?P<k>.+)"
_UUID = r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}"
_EXT = r"jpe?g|png|bmp|webp|gif|tiff?|heic"
_NUMBER = r"(?:0|[1-9]\d{0,7})"
_KERAS_PREFIX = r"(?:aug|augm|augmented|augmentation|gen|generated|keras|datagen)?"
_DATE = r"_(?:[1-9]|[12]\d|3[01])_(?:19|20)\d\d"


@dataclass(frozen=True)
class NameRule:
    """One naming habit.

    Attributes:
        tool: who writes such names.
        pattern: matched against the whole stem; group `k` is the stem of the source, `ext` its extension.
        says: "copy" of k, "same source" (all files of one k, one of them perhaps the original), or "hint".
        anchor: what must be there in the same label: the file k ("stem"), that or a second file of the same k
            ("siblings"), a file that an unmistakable rule of the same tool read ("kin"), or nothing ("none").
        reads_operation: True where the name must hold an operation word; other names skip such rules.
    """

    tool: str
    pattern: re.Pattern[str]
    says: Says
    anchor: Anchor
    reads_operation: bool = False


def _rule(tool: str, pattern: str, says: Says, anchor: Anchor) -> NameRule:
    return NameRule(tool, re.compile(pattern, re.IGNORECASE), says, anchor)


def _operation(tool: str, pattern: str, anchor: Anchor) -> NameRule:
    return NameRule(tool, re.compile(pattern, re.IGNORECASE), "copy", anchor, reads_operation=True)


#: In the order in which they are tried; the first rule that finds its anchor decides.
NAME_RULES: tuple[NameRule, ...] = (
    _rule("Roboflow", rf"(?P<k>.+)_(?P<ext>{_EXT})\.rf\.[0-9A-Za-z]{{16,40}}", "same source", "none"),
    _rule(
        "Augmentor",
        rf"(?:_groundtruth_\(\d+\)_)?(?:.*?_)?original_(?P<k>.+?)\.(?P<ext>{_EXT})_{_UUID}",
        "copy",
        "none",
    ),
    _rule("Keras save_to_dir", rf"(?!aug{_DATE}$){_KERAS_PREFIX}_{_NUMBER}_{_NUMBER}", "copy", "none"),
    _rule("Keras save_to_dir", rf"aug{_DATE}", "copy", "kin"),  # else August 12, 2020
    _operation("augmentation script", rf"(?P<k>.+?){_SEP}{_SURE}\d{{0,4}}{_TAIL}", "siblings"),
    _operation("operation suffix", rf"(?P<k>.+?){_SEP}{_ANY}\d{{0,4}}{_TAIL}", "stem"),
    _operation("operation on a copy", rf"(?P<k>.+){_SEP}{_ANY}\d{{0,4}}(?:{_SEP}{_MORE})*", "stem"),
    _operation("operation prefix", rf"{_SURE}{_HEAD}", "siblings"),
    _operation("operation prefix", rf"{_LEADING}{_HEAD}", "stem"),
    _operation("operations prefix", rf"{_LEADING}(?:\d{{0,4}}{_SEP}{_LEADING})*{_HEAD}", "stem"),
    _rule("Keras per image", rf"(?P<k>.+)_(?:0_{_NUMBER}|{_NUMBER}_[1-9]\d{{2,7}})", "copy", "stem"),
    _rule("CLoDSA", r"\d{1,6}_\d{1,3}_(?P<k>.+)", "hint", "stem"),
    _rule("numbered", r"(?P<k>.+)[_\-]\d{1,3}", "hint", "stem"),
    _rule("numbered", r"(?P<k>.+?) ?\(\d{1,3}\)", "hint", "stem"),
    _rule("Windows copy", r"(?P<k>.+?) - Copy(?: \(\d+\))?", "hint", "stem"),
)

_OTHER_RULES = tuple(rule for rule in NAME_RULES if not rule.reads_operation)
#: A stem without an operation and without one of these marks skips the table.
_MARK = re.compile(rf"[_-]\d{{1,8}}$|\(\d+\)$|\.rf\.|{_UUID}$|^\d+_\d+_| - copy", re.IGNORECASE)
_WORD = re.compile(r"[a-z]+")
_OPERATION_WORDS = frozenset(
    word.rstrip("0123456789") for word in SURE_OPERATIONS + LIKELY_OPERATIONS + TRAILING_OPERATIONS
)

_IMAGES = r"(?:[_\- ]?(?:images?|imgs?|pictures?|data|dataset|samples?|files?|\d{1,3}))?"
_AUG_FOLDER = re.compile(rf"(?:aug|augs|augment|augmented|augmentations?){_IMAGES}", re.IGNORECASE)
_AUG_TWIN = re.compile(
    r"(?P<a>.+)[_\-. ](?:aug|augmented|augmentations?)|(?:aug|augmented)[_\-. ](?P<b>.+)", re.IGNORECASE
)
#: Folders that tools write into, and that people also call other things: need originals beside them.
_OUTPUT_FOLDER = re.compile(rf"(?:outputs?|preview|generated){_IMAGES}", re.IGNORECASE)
_ORIGINAL_FOLDER = re.compile(rf"(?:originals?|orig|raw){_IMAGES}", re.IGNORECASE)
_MONTHS = frozenset({"jan", "feb", "mar", "apr", "may", "jun", "jul", "sep", "oct", "nov", "dec"})


def augmented_twin(name: str) -> str | None:
    """The plain name of a folder named as an augmented twin: "cats_aug" -> "cats"; else None."""
    match = _AUG_TWIN.fullmatch(name)
    return (match["a"] or match["b"]) if match else None


@dataclass(frozen=True)
class NamesRead:
    """What the names of all rows say; fields as in `evidence.Evidence`."""

    claims: NDArray[np.str_]
    links: tuple[Link, ...]
    reasons: Mapping[int, str]
    candidates: tuple[Link, ...]


@dataclass(frozen=True)
class _Place:
    """A folder as the rules see it; `home` is without the parts that only say augmented or original."""

    home: str
    augmented: str = ""  # the part that says so
    sure: bool = True


@dataclass(frozen=True)
class _Name:
    stem: str
    extension: str
    label: int
    place: _Place


def read_names(manifest: Manifest) -> NamesRead:
    """Apply `NAME_RULES` and the folder rules to every path of the manifest."""
    names = _parsed(manifest)
    matches = {row: _matches(name.stem) for row, name in enumerate(names)}
    read = {row: found for row, found in matches.items() if found or names[row].place.augmented}
    scene = _Scene(names, read, *_index(names, read))
    verdicts = {row: scene.verdict(row) for row in read}
    return _gathered(names, verdicts)


def _parsed(manifest: Manifest) -> list[_Name]:
    labels = manifest.labels.tolist()
    split = [path.rpartition("/")[::2] for path in manifest.paths]
    places = _places({(folder, label) for (folder, _), label in zip(split, labels, strict=True)}, manifest)
    parsed = []
    for (folder, file), label in zip(split, labels, strict=True):
        stem, dot, extension = file.rpartition(".")
        stem, extension = (stem, extension.lower()) if dot and stem else (file, "")
        parsed.append(_Name(stem, extension, label, places[folder, label]))
    return parsed


def _places(folders: set[tuple[str, int]], manifest: Manifest) -> dict[tuple[str, int], _Place]:
    children: defaultdict[str, set[str]] = defaultdict(set)
    for folder, _ in folders:
        parts = folder.split("/")
        for depth, part in enumerate(parts):
            children["/".join(parts[:depth])].add(part.lower())
    found = {(f, label): _place(f, manifest.class_names[label], children) for f, label in folders}
    plain = {(place.home, label) for (_, label), place in found.items() if not place.augmented}
    if not plain:  # everything lies under one such folder: its name tells nothing apart
        return {key: _Place(key[0]) for key in found}
    return {
        key: place if place.sure or (place.home, key[1]) in plain else _Place(key[0]) for key, place in found.items()
    }


def _place(folder: str, class_name: str, children: Mapping[str, set[str]]) -> _Place:
    home: list[str] = []
    augmented, sure = "", True
    parts = folder.split("/")
    for depth, part in enumerate(parts):
        is_month = part.lower() == "aug" and children["/".join(parts[:depth])] & _MONTHS
        if part.lower() == class_name.lower() or is_month:
            home.append(part)
        elif _AUG_FOLDER.fullmatch(part):
            augmented = part
        elif twin := augmented_twin(part):
            augmented = part
            home.append(twin)
        elif _OUTPUT_FOLDER.fullmatch(part):
            augmented, sure = augmented or part, bool(augmented)
        elif not _ORIGINAL_FOLDER.fullmatch(part):
            home.append(part)
    return _Place("/".join(home), augmented, sure)


@dataclass(frozen=True)
class _Match:
    rule: NameRule
    key: str
    extension: str  # of the source, "" where the name does not tell


def _matches(stem: str) -> tuple[_Match, ...]:
    operation = not _OPERATION_WORDS.isdisjoint(_WORD.findall(stem.lower()))
    if not operation and not _MARK.search(stem):
        return ()
    rules = NAME_RULES if operation else _OTHER_RULES
    found = ((rule, rule.pattern.fullmatch(stem)) for rule in rules)
    return tuple(_match(rule, match.groupdict()) for rule, match in found if match)


def _match(rule: NameRule, parts: Mapping[str, str | None]) -> _Match:
    return _Match(rule, parts.get("k") or "", (parts.get("ext") or "").lower())


@dataclass(frozen=True)
class _Verdict:
    """What the rules make of one row: a claim, the rows it belongs to, and why."""

    claim: str = ""
    sources: tuple[int, ...] = ()  # files it is a copy of
    siblings: tuple[int, ...] = ()  # files made from the same source
    reason: str = ""
    candidates: tuple[int, ...] = ()


_Key = tuple[int, str, str]  # label, stem of the source, its extension


@dataclass(frozen=True)
class _Scene:
    """All names at once, so that a rule can look for its anchor.

    Attributes:
        names: every row.
        matches: rules that read a row, before any anchor was looked for.
        at_home: (label, home folder, stem) -> rows outside augmented folders.
        in_label: (label, stem) -> rows outside augmented folders.
        siblings: source -> rows that name it by a rule that lets siblings anchor each other.
        kin: (tool, label) that an unmistakable rule read.
    """

    names: list[_Name]
    matches: Mapping[int, tuple[_Match, ...]]
    at_home: Mapping[tuple[int, str, str], list[int]]
    in_label: Mapping[tuple[int, str], list[int]]
    siblings: Mapping[_Key, list[int]]
    kin: frozenset[tuple[str, int]]

    def verdict(self, row: int) -> _Verdict:
        """The first rule that finds its anchor decides; an augmented folder makes a copy of anything."""
        name = self.names[row]
        hints: tuple[int, ...] = ()
        for match in self.matches[row]:
            sources = self._sources(row, match.key, match.extension) if match.key else ()
            if match.rule.says == "hint" and not name.place.augmented:
                hints += sources
                continue
            if verdict := self._by_rule(row, match, sources):
                return verdict
        if name.place.augmented:
            reason = f"it is in a folder called {name.place.augmented}"
            return _Verdict("copy", self._sources(row, name.stem, ""), reason=reason)
        return _Verdict(candidates=hints[:1])

    def _by_rule(self, row: int, match: _Match, sources: tuple[int, ...]) -> _Verdict | None:
        name, rule = self.names[row], match.rule
        family = self.siblings.get((name.label, match.key, match.extension), [])
        siblings = tuple(family[:1]) if rule.anchor in ("siblings", "none") and match.key else ()
        reason = f"its name is written like {rule.tool} does"
        if sources:
            return _Verdict("copy", sources, siblings, reason)
        if rule.says == "same source":
            alone = "copy" if name.place.augmented else "original"
            claim = "unsure" if len(family) > 1 else alone
            return _Verdict(claim, (), siblings, f"{reason}, {len(family)} files share one source")
        found = {
            "none": True,
            "siblings": len(family) > 1,
            "kin": (rule.tool, name.label) in self.kin,
            "stem": False,
        }
        return _Verdict("copy", (), siblings, reason) if found[rule.anchor] else None

    def _sources(self, row: int, key: str, extension: str) -> tuple[int, ...]:
        name = self.names[row]
        near = [r for r in self.at_home.get((name.label, name.place.home, key), ()) if r != row]
        if not near:
            anywhere = [r for r in self.in_label.get((name.label, key), ()) if r != row]
            near = anywhere if len(anywhere) == 1 else []
        wanted = extension or name.extension
        return tuple([r for r in near if self.names[r].extension == wanted] or near)


def _index(
    names: list[_Name], read: Mapping[int, tuple[_Match, ...]]
) -> tuple[
    dict[tuple[int, str, str], list[int]],
    dict[tuple[int, str], list[int]],
    dict[_Key, list[int]],
    frozenset[tuple[str, int]],
]:
    wanted = {(names[row].label, match.key) for row, found in read.items() for match in found}
    wanted |= {(names[row].label, names[row].stem) for row in read if names[row].place.augmented}
    at_home: defaultdict[tuple[int, str, str], list[int]] = defaultdict(list)
    in_label: defaultdict[tuple[int, str], list[int]] = defaultdict(list)
    for row, name in enumerate(names):
        if (name.label, name.stem) in wanted and not name.place.augmented:
            at_home[name.label, name.place.home, name.stem].append(row)
            in_label[name.label, name.stem].append(row)
    siblings: defaultdict[_Key, list[int]] = defaultdict(list)
    kin: set[tuple[str, int]] = set()
    for row, found in read.items():
        label = names[row].label
        kin |= {(match.rule.tool, label) for match in found if match.rule.anchor == "none"}
        keys = {(m.key, m.extension) for m in found if m.key and m.rule.anchor in ("siblings", "none")}
        for key, extension in keys:
            siblings[label, key, extension].append(row)
    return at_home, in_label, siblings, frozenset(kin)


def _gathered(names: list[_Name], verdicts: Mapping[int, _Verdict]) -> NamesRead:
    claims = np.zeros(len(names), dtype="U8")
    for row, verdict in verdicts.items():
        claims[row] = verdict.claim
    for verdict in verdicts.values():
        for source in verdict.sources:
            claims[source] = claims[source] or "original"
    return NamesRead(
        claims,
        links=tuple(_links(names, ((r, (*v.sources, *v.siblings)) for r, v in verdicts.items()))),
        reasons={row: v.reason for row, v in verdicts.items() if v.claim in ("copy", "unsure")},
        candidates=tuple(_links(names, ((r, v.candidates) for r, v in verdicts.items()))),
    )


def _links(names: list[_Name], pairs: Iterable[tuple[int, tuple[int, ...]]]) -> Iterable[Link]:
    for row, others in pairs:
        for other in others:
            if other != row:
                detail = f"name {names[row].stem} -> {names[other].stem}"
                yield Link(min(row, other), max(row, other), "names", detail)
