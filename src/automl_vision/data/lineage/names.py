"""What file and folder names say about copies, as the usual augmentation tools write them.

A name alone is weak: `dark_knight.jpg` is no darkened `knight.jpg`, and `photo_2.jpg` may be another photo.
So every rule needs an anchor (the file it would be a copy of, or other files made from it), unless no human
writes such a name. Rules never join files of two labels. What is too weak to join (numbers, copies that a file
manager numbered, uploads under one name) is left as candidate pairs for evidence that sees the pixels.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations, pairwise

import numpy as np
from numpy.typing import NDArray

from automl_vision.data.lineage.lineage import Link
from automl_vision.data.lineage.name_rules import (
    ANY_SURE_OPERATION,
    MARK,
    NAME_RULES,
    OPERATION_WORDS,
    OTHER_RULES,
    UPLOADED,
    WITH_ENDING,
    NameRule,
)
from automl_vision.data.manifest import Manifest

#: Files of one k that are all compared with each other; of more, only those with consecutive numbers.
_SMALL_FAMILY = 6
#: Strength of a hint that only siblings give: what has a source beside it is compared first.
SIBLING_HINT = 0.5

_WORD = re.compile(r"[a-z]+")
_IMAGES = r"(?:[_\- ]?(?:images?|imgs?|pictures?|data|dataset|samples?|files?|\d{1,3}))?"
_AUG_FOLDER = re.compile(rf"(?:aug|augs|augment|augmented|augmentations?){_IMAGES}", re.IGNORECASE)
_AUG_TWIN = re.compile(
    r"(?P<a>.+)[_\-. ](?:aug|augmented|augmentations?)|(?:aug|augmented)[_\-. ](?P<b>.+)", re.IGNORECASE
)
#: Folders named after what was done to the pictures in them: need the files they were made from.
_OPERATION_FOLDER = re.compile(rf"{ANY_SURE_OPERATION}\d{{0,3}}{_IMAGES}", re.IGNORECASE)
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
    operation: str = ""  # the part that names an operation


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
    return _gathered(names, verdicts, _sibling_hints(names, read, verdicts))


def _parsed(manifest: Manifest) -> list[_Name]:
    labels = manifest.labels.tolist()
    split = [path.rpartition("/")[::2] for path in manifest.paths]
    parts = [_stem_and_extension(file) for _, file in split]
    stems: defaultdict[tuple[str, int], set[str]] = defaultdict(set)
    for (folder, _), label, (stem, _) in zip(split, labels, parts, strict=True):
        stems[folder, label].add(stem)
    places = _places(stems, manifest)
    return [
        _Name(stem, extension, label, places[folder, label])
        for (folder, _), label, (stem, extension) in zip(split, labels, parts, strict=True)
    ]


def _stem_and_extension(file: str) -> tuple[str, str]:
    stem, dot, extension = file.rpartition(".")
    return (stem, extension.lower()) if dot and stem else (file, "")


def _places(stems: Mapping[tuple[str, int], set[str]], manifest: Manifest) -> dict[tuple[str, int], _Place]:
    children: defaultdict[str, set[str]] = defaultdict(set)
    for folder, _ in stems:
        parts = folder.split("/")
        for depth, part in enumerate(parts):
            children["/".join(parts[:depth])].add(part.lower())
    found = {(f, label): _place(f, manifest.class_names[label], children) for f, label in stems}
    plain: defaultdict[tuple[str, int], set[str]] = defaultdict(set)
    for (folder, label), place in found.items():
        if not place.augmented and not place.operation:
            plain[place.home, label] |= stems[folder, label]
    if not plain:  # everything lies under one such folder: its name tells nothing apart
        return {key: _Place(key[0]) for key in found}
    return {key: _believed(key[0], place, stems[key], plain.get((place.home, key[1]))) for key, place in found.items()}


def _believed(folder: str, place: _Place, stems: set[str], beside: set[str] | None) -> _Place:
    """The place, or a plain folder where the files beside it do not bear its name out."""
    if place.operation and not place.augmented:
        of_these = len(stems & (beside or set()))
        return _Place(place.home, place.operation) if 2 * of_these >= len(stems) else _Place(folder)
    return place if place.sure or beside else _Place(folder)


def _place(folder: str, class_name: str, children: Mapping[str, set[str]]) -> _Place:
    home: list[str] = []
    augmented, sure, operation = "", True, ""
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
        elif depth and _OPERATION_FOLDER.fullmatch(part):
            operation = part
        elif not _ORIGINAL_FOLDER.fullmatch(part):
            home.append(part)
    return _Place("/".join(home), augmented, sure, operation)


@dataclass(frozen=True)
class _Match:
    rule: NameRule
    key: str
    extension: str  # of the source, "" where the name does not tell
    number: int  # among the files of the key


def _matches(stem: str) -> tuple[_Match, ...]:
    """What the rules read in a stem, and in what is left of it without the mark of an upload."""
    found = _matches_of(stem)
    uploaded = UPLOADED.fullmatch(stem)
    return found + _matches_of(uploaded["k"]) if uploaded else found


def _matches_of(stem: str) -> tuple[_Match, ...]:
    operation = not OPERATION_WORDS.isdisjoint(_WORD.findall(stem.lower()))
    if not operation and not MARK.search(stem):
        return ()
    rules = NAME_RULES if operation else OTHER_RULES
    found = ((rule, rule.pattern.fullmatch(stem)) for rule in rules)
    return tuple(_match(rule, match.groupdict()) for rule, match in found if match)


def _match(rule: NameRule, parts: Mapping[str, str | None]) -> _Match:
    key = (parts.get("k") or "") + (parts.get("rest") or "")
    return _Match(rule, key, (parts.get("ext") or "").lower(), int(parts.get("n") or 0))


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
        uploads: (label, stem without the mark of an upload) -> rows outside augmented folders.
    """

    names: list[_Name]
    matches: Mapping[int, tuple[_Match, ...]]
    at_home: Mapping[tuple[int, str, str], list[int]]
    in_label: Mapping[tuple[int, str], list[int]]
    siblings: Mapping[_Key, list[int]]
    kin: frozenset[tuple[str, int]]
    uploads: Mapping[tuple[int, str], list[int]]

    def verdict(self, row: int) -> _Verdict:
        """The first rule that finds its source decides, then the first that finds another anchor.

        An augmented folder makes a copy of anything.
        """
        name = self.names[row]
        found = [(match, self._sources(row, match.key, match.extension)) for match in self.matches[row]]
        strong = [each for each in found if each[0].rule.says != "hint" or name.place.augmented]
        for match, sources in sorted(strong, key=lambda each: not each[1]):
            if verdict := self._by_rule(row, match, sources):
                return verdict
        if name.place.augmented:
            reason = f"it is in a folder called {name.place.augmented}"
            return _Verdict("copy", self._sources(row, name.stem, ""), reason=reason)
        return _Verdict(candidates=tuple(dict.fromkeys(source for _, sources in found for source in sources)))

    def _by_rule(self, row: int, match: _Match, sources: tuple[int, ...]) -> _Verdict | None:
        name, rule = self.names[row], match.rule
        family = self.siblings.get((name.label, match.key, match.extension), [])
        siblings = tuple(family[:1]) if rule.anchor in ("siblings", "none") and match.key else ()
        reason = f"its name is written like {rule.tool} does"
        if sources:  # its siblings may lie in other folders, and come from a file of the same name there
            return _Verdict("copy", sources, (), reason)
        if rule.says == "same source":
            alone = "copy" if name.place.augmented else "original"
            claim = "unsure" if len(family) > 1 else alone
            return _Verdict(claim, (), siblings, f"{reason}, {len(family)} files share one source")
        found = {
            "none": True,
            "siblings": 1 < len(family) <= (rule.most or len(family)),
            "kin": (rule.tool, name.label) in self.kin,
            "stem": False,
        }
        return _Verdict("copy", (), siblings, reason) if found[rule.anchor] else None

    def _sources(self, row: int, key: str, extension: str) -> tuple[int, ...]:
        if not key:
            return ()
        name = self.names[row]
        near = [r for r in self.at_home.get((name.label, name.place.home, key), ()) if r != row]
        if not near:
            near = self._only_one(row, self.in_label, key) or self._only_one(row, self.uploads, key)
        if not near and not extension and (ending := WITH_ENDING.fullmatch(key)):
            return self._sources(row, ending["k"], ending["ext"].lower())
        wanted = extension or name.extension
        return tuple([r for r in near if self.names[r].extension == wanted] or near)

    def _only_one(self, row: int, places: Mapping[tuple[int, str], list[int]], key: str) -> list[int]:
        found = [r for r in places.get((self.names[row].label, key), ()) if r != row]
        return found if len(found) == 1 else []


def _index(
    names: list[_Name], read: Mapping[int, tuple[_Match, ...]]
) -> tuple[
    dict[tuple[int, str, str], list[int]],
    dict[tuple[int, str], list[int]],
    dict[_Key, list[int]],
    frozenset[tuple[str, int]],
    dict[tuple[int, str], list[int]],
]:
    keys = {(names[row].label, match.key) for row, found in read.items() for match in found}
    endings = ((label, WITH_ENDING.fullmatch(key)) for label, key in keys)
    wanted = keys | {(label, ending["k"]) for label, ending in endings if ending}
    wanted |= {(names[row].label, names[row].stem) for row in read if names[row].place.augmented}
    at_home: defaultdict[tuple[int, str, str], list[int]] = defaultdict(list)
    in_label: defaultdict[tuple[int, str], list[int]] = defaultdict(list)
    uploads: defaultdict[tuple[int, str], list[int]] = defaultdict(list)
    for row, name in enumerate(names):
        if name.place.augmented:
            continue
        if (name.label, name.stem) in wanted:
            at_home[name.label, name.place.home, name.stem].append(row)
            in_label[name.label, name.stem].append(row)
        if uploaded := UPLOADED.fullmatch(name.stem):
            uploads[name.label, uploaded["k"]].append(row)
    siblings: defaultdict[_Key, list[int]] = defaultdict(list)
    kin: set[tuple[str, int]] = set()
    for row, found in read.items():
        label = names[row].label
        kin |= {(match.rule.tool, label) for match in found if match.rule.anchor == "none"}
        sources = {(m.key, m.extension) for m in found if m.key and m.rule.anchor in ("siblings", "none")}
        for key, extension in sources:
            siblings[label, key, extension].append(row)
    return at_home, in_label, siblings, frozenset(kin), uploads


def _sibling_hints(
    names: list[_Name], read: Mapping[int, tuple[_Match, ...]], verdicts: Mapping[int, _Verdict]
) -> Iterable[tuple[int, int]]:
    """Pairs of files that hints trace to one source, whether it is there or not; linear in the number of files."""
    families: defaultdict[tuple[int, str, str, str], list[tuple[int, str, int]]] = defaultdict(list)
    for row, found in read.items():
        if verdicts[row].claim:
            continue
        name = names[row]
        for match in (each for each in found if each.rule.says == "hint"):
            family = (name.label, name.place.home, match.rule.tool, match.key)
            families[family].append((match.number, name.stem + name.extension, row))
    for members in families.values():
        yield from _near(sorted(members))


def _near(members: list[tuple[int, str, int]]) -> Iterable[tuple[int, int]]:
    if len(members) <= _SMALL_FAMILY:
        pairs = combinations(members, 2)
        return ((first[2], second[2]) for first, second in pairs)
    following = pairwise(members)
    return ((first[2], second[2]) for first, second in following if second[0] - first[0] <= 1)


def _gathered(names: list[_Name], verdicts: Mapping[int, _Verdict], siblings: Iterable[tuple[int, int]]) -> NamesRead:
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
        candidates=tuple(_candidates(names, verdicts, siblings)),
    )


def _candidates(
    names: list[_Name], verdicts: Mapping[int, _Verdict], siblings: Iterable[tuple[int, int]]
) -> Iterable[Link]:
    """Hints with a source first, then those of siblings; each pair once."""
    found: dict[tuple[int, int], Link] = {}
    anchored = _links(names, ((r, v.candidates) for r, v in verdicts.items()))
    beside = _links(names, ((r, (other,)) for r, other in siblings), SIBLING_HINT)
    for link in (*anchored, *beside):
        found.setdefault((link.first, link.second), link)
    return found.values()


def _links(names: list[_Name], pairs: Iterable[tuple[int, tuple[int, ...]]], score: float = 1.0) -> Iterable[Link]:
    for row, others in pairs:
        for other in others:
            if other != row:
                detail = f"name {names[row].stem} -> {names[other].stem}"
                yield Link(min(row, other), max(row, other), "names", detail, score)
