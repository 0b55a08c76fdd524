"""What a tool said of a set, held against the truth."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from automl_vision.report.intervals import wilson
from leaky_sets.folder import Made
from leaky_sets.pipelines import PIPELINES
from leaky_sets.twins import Judged, kin

#: Deals of which the mean is told, and the share of the kept files that each deals to the test set.
_DEALS, _TEST = 50, 0.2


@dataclass(frozen=True)
class Join:
    """Two files that a tool took for the same picture, with the strength that it gives."""

    first: str
    second: str
    score: float = 1.0


@dataclass(frozen=True)
class Verdict:
    """What a tool said of a set.

    Attributes:
        group: file -> number of its group; every file of the set.
        joins: the pairs behind the groups.
        named: files that it calls the original of a group of several.
        eligible: files that it would test on; None where it does not say.
        sets: file -> "train", "val", "test" or another; None where it deals none.
    """

    group: Mapping[str, int]
    joins: tuple[Join, ...] = ()
    named: frozenset[str] = frozenset()
    eligible: frozenset[str] | None = None
    sets: Mapping[str, str] | None = None


@dataclass(frozen=True)
class Share:
    """How many of how many; as JSON with Wilson's interval, in percent."""

    found: int
    n: int

    def to_dict(self) -> dict[str, float | int | None]:
        """Nothing is said of a share of nothing."""
        low, high = wilson(self.found, self.n)
        value = round(100 * self.found / self.n, 2) if self.n else None
        return {
            "value": value,
            "low": round(100 * low, 2),
            "high": round(100 * high, 2),
            "found": self.found,
            "n": self.n,
        }


@dataclass(frozen=True)
class Case:
    """A set, what is true of it, and what a tool said.

    Attributes:
        truth: file -> what is true of it.
        said: by the tool.
        judged: pairs of sources that show the same, or share a part.
    """

    truth: Mapping[str, Made]
    said: Verdict
    judged: Judged = Judged()
    kin: Mapping[str, str] = field(init=False)
    related: Mapping[str, str] = field(init=False)
    home: Mapping[str, str] = field(init=False)

    def __post_init__(self) -> None:
        """Who shows the same as whom, who shares a part with whom, and the file of each source's original."""
        sources = {made.source for made in self.truth.values()}
        object.__setattr__(self, "kin", kin(sources, self.judged.twins))
        object.__setattr__(self, "related", kin(sources, self.judged.twins + self.judged.parts))
        originals = (made for made in self.truth.values() if not made.is_copy)
        object.__setattr__(self, "home", {made.source: made.file for made in originals})

    @property
    def copies(self) -> list[Made]:
        """All of them, in the order of the truth."""
        return [made for made in self.truth.values() if made.is_copy]

    def joined(self, made: Made) -> bool:
        """Is it in the group of its original?"""
        return self.said.group[made.file] == self.said.group[self.home[made.source]]

    def members(self) -> dict[int, list[Made]]:
        """Group -> its files."""
        groups: defaultdict[int, list[Made]] = defaultdict(list)
        for made in self.truth.values():
            groups[self.said.group[made.file]].append(made)
        return dict(groups)


def groups_of(files: Iterable[str], joins: Iterable[Join]) -> dict[str, int]:
    """File -> number of its group, where joined files share one."""
    names = sorted(files)
    root = kin(names, ((join.first, join.second) for join in joins))
    number = {name: at for at, name in enumerate(names)}
    return {name: number[root[name]] for name in names}


def figures(case: Case) -> dict[str, Any]:
    """Everything that can be said without a clock."""
    return {
        "originals": len(case.home),
        "copies": len(case.copies),
        **_recall(case),
        **_wrong(case),
        **_naming(case),
        **_own_split(case),
        **_keep_one(case),
    }


def _recall(case: Case) -> dict[str, Any]:
    direct = {frozenset((join.first, join.second)) for join in case.said.joins}
    found: defaultdict[str, list[tuple[bool, bool]]] = defaultdict(list)
    for made in case.copies:
        row = (case.joined(made), frozenset((made.file, case.home[made.source])) in direct)
        pipeline = PIPELINES[made.pipeline]
        of_picture = f"pictures {made.source.split('/')[0]}"
        for key in (made.pipeline, f"kind {pipeline.kind}", f"{pipeline.library}, {pipeline.kind}", of_picture, "all"):
            found[key].append(row)
    shares = {key: _both(rows) for key, rows in found.items()}
    pipelines = {name: {"kind": each.kind, **shares[name]} for name, each in PIPELINES.items() if name in shares}
    families: defaultdict[str, list[bool]] = defaultdict(list)
    for made in case.copies:
        families[made.source].append(case.joined(made))
    whole = sum(all(each) for each in families.values())
    return {
        "recall": {"all": shares.get("all"), "single": shares.get("kind single"), "chain": shares.get("kind chain")},
        "whole_families": Share(whole, len(families)).to_dict(),
        "libraries": {key: value for key, value in sorted(shares.items()) if ", " in key},
        "pictures": {
            key.removeprefix("pictures "): value for key, value in sorted(shares.items()) if key.startswith("pictures ")
        },
        "pipelines": pipelines,
        "missed": [vars(made) for made in case.copies if not case.joined(made)],
    }


def _both(rows: list[tuple[bool, bool]]) -> dict[str, Any]:
    """In the original's group; and through a pair with the original itself, which tools that skip what is joined
    already need not look for."""
    in_group, direct = (sum(column) for column in zip(*rows, strict=True))
    return {"group": Share(in_group, len(rows)).to_dict(), "direct": Share(direct, len(rows)).to_dict()}


def _wrong(case: Case) -> dict[str, Any]:
    """Originals in one group with another, or with another's copy."""
    members = case.members()

    def mixed(name: Mapping[str, str]) -> int:
        """Originals whose groups hold more than one of these names."""
        names = {group: {name[made.source] for made in files} for group, files in members.items()}
        return sum(len(names[case.said.group[file]]) > 1 for file in case.home.values())

    wrong = mixed(case.kin)
    return {
        "merged_wrongly": Share(wrong, len(case.home)).to_dict(),
        "merged_with_strangers": Share(mixed(case.related), len(case.home)).to_dict(),
        "merged_with_twins_alone": mixed({source: source for source in case.home}) - wrong,
        "most_kinds_in_a_group": max(len({case.kin[made.source] for made in files}) for files in members.values()),
        "wrong_pairs": _pairs(case, wrong=True),
        "twin_pairs": _pairs(case, wrong=False),
    }


def _pairs(case: Case, *, wrong: bool) -> list[dict[str, Any]]:
    """Joins between two sources, for a reader to judge."""
    told = []
    for join in case.said.joins:
        first, second = case.truth[join.first], case.truth[join.second]
        if first.source == second.source or (case.kin[first.source] != case.kin[second.source]) != wrong:
            continue
        told.append(
            {
                "first": first.source,
                "second": second.source,
                "shared_part": case.related[first.source] == case.related[second.source],
                "score": round(join.score, 3),
                "pipelines": [first.pipeline, second.pipeline],
                "files": [first.file, second.file],
            }
        )
    return sorted(told, key=lambda row: (row["first"], row["second"]))


def _naming(case: Case) -> dict[str, Any]:
    right = sum(not case.truth[file].is_copy for file in case.said.named)
    several = sum(len(files) > 1 for files in case.members().values())
    return {
        "original_named_is_right": Share(right, len(case.said.named)).to_dict(),
        "groups_of_several": several,
    }


def _own_split(case: Case) -> dict[str, Any]:
    """Of a tool that says what may be tested on, and deals the sets."""
    if case.said.eligible is None or case.said.sets is None:
        return {}
    tested = [made for made in case.truth.values() if case.said.sets[made.file] == "test"]
    used = {made.source for made in case.truth.values() if case.said.sets[made.file] in ("train", "val")}
    eligible = [made for made in case.truth.values() if made.file in case.said.eligible]
    families = {made.source for made in case.copies}
    alone = [source for source in case.home if source not in families]
    chosen = {made.source for made in eligible if not made.is_copy}
    return {
        "originals_eligible": Share(len(chosen), len(case.home)).to_dict(),
        "originals_without_copies_eligible": Share(sum(s in chosen for s in alone), len(alone)).to_dict(),
        "copies_among_eligible": Share(sum(made.is_copy for made in eligible), len(eligible)).to_dict(),
        "copies_among_test_files": Share(sum(made.is_copy for made in tested), len(tested)).to_dict(),
        "test_files_with_sibling_in_train_or_val": Share(
            sum(made.source in used for made in tested), len(tested)
        ).to_dict(),
    }


def _keep_one(case: Case) -> dict[str, Any]:
    """What is left of the leak where one file of each group is kept, as tools that only group advise; any tool can
    be held against any other by this."""
    rng = np.random.default_rng(0)
    groups = list(case.members().values())
    copies, siblings, tested = 0, 0, 0
    for _ in range(_DEALS):
        kept = [files[int(rng.integers(len(files)))] for files in groups]
        test = set(rng.permutation(len(kept))[: max(1, round(_TEST * len(kept)))].tolist())
        train = {made.source for at, made in enumerate(kept) if at not in test}
        tested += len(test)
        copies += sum(kept[at].is_copy for at in test)
        siblings += sum(kept[at].source in train for at in test)
    return {
        "if_one_of_each_group_is_kept": {
            "files": len(groups),
            "copies_among_test_files": round(100 * copies / tested, 2),
            "test_files_with_sibling_in_train": round(100 * siblings / tested, 2),
        }
    }
