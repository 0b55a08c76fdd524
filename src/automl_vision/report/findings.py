"""Findings folded for people: what is said of many files or classes becomes one line with a few of them named."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from automl_vision.data.audit import TINY, Finding
from automl_vision.data.preparation import Prepared
from automl_vision.visible import visible

#: Findings of one kind that are all shown; more of them are folded.
UNFOLDED = 2

#: Names that one sentence lists.
NAMED = 5

#: Kinds of single files that another kind sums up: told once.
SUMMED_UP: dict[str, str] = {
    "orphan_copy": "orphan_copies",
    "unsure_original": "unsure_groups",
    "same_picture": "same_pictures",
    "perhaps_same_picture": "perhaps_same_pictures",
    "perhaps_missed_copy": "perhaps_missed_copies",
    "group_lost_a_copy": "groups_lost_a_copy",
}

_SEVERITIES = ("error", "warning", "info")


@dataclass(frozen=True)
class Folded:
    """One or many findings of a kind, in one line.

    Attributes:
        kind: a key of `data.audit.KINDS`.
        severity: "error", "warning" or "info".
        count: findings in it.
        text: what was found, without a full stop.
        fix: what the user can do; empty where nothing needs doing.
    """

    kind: str
    severity: str
    count: int
    text: str
    fix: str


def fold(prepared: Prepared) -> list[Folded]:
    """All findings in few lines, errors first."""
    by_kind: dict[str, list[Finding]] = {}
    for finding in prepared.audit.findings:
        by_kind.setdefault(finding.kind, []).append(finding)
    told = [kind for kind in by_kind if SUMMED_UP.get(kind) not in by_kind]
    lines = [line for kind in told for line in _lines(prepared, by_kind[kind])]
    return sorted(lines, key=lambda line: _SEVERITIES.index(line.severity))


def tiny_classes(counts: pd.DataFrame) -> list[tuple[str, int]]:
    """(class, originals) of every class with fewer than `TINY` originals, the smallest first."""
    tiny = counts[counts["originals"] < TINY].sort_values(["originals", "class"])
    return list(zip(tiny["class"].tolist(), tiny["originals"].tolist(), strict=True))


def few_named(names: Sequence[str]) -> str:
    """The first of the names, and how many there are more."""
    rest = len(names) - len(names[:NAMED])
    return ", ".join(names[:NAMED]) + (f" and {rest:,} more" if rest else "")


def _lines(prepared: Prepared, findings: list[Finding]) -> list[Folded]:
    first = findings[0]
    if len(findings) <= UNFOLDED:
        return [Folded(each.kind, each.severity, 1, _text(prepared, each), each.fix) for each in findings]
    text = _tiny_text(prepared.audit.class_counts) if first.kind == "tiny_class" else _folded(prepared, findings)
    return [Folded(first.kind, first.severity, len(findings), text, first.fix)]


def _tiny_text(counts: pd.DataFrame) -> str:
    tiny = tiny_classes(counts)
    named = few_named([f"{visible(name)} ({originals})" for name, originals in tiny])
    return f"{len(tiny):,} of {len(counts):,} classes have fewer than {TINY} originals: {named}"


def _folded(prepared: Prepared, findings: list[Finding]) -> str:
    words = findings[0].kind.replace("_", " ")
    return f"{len(findings):,} × {words}; the first: {_text(prepared, findings[0])}"


def _text(prepared: Prepared, finding: Finding) -> str:
    where = f"{visible(prepared.manifest.paths[finding.row])}: " if finding.row >= 0 else ""
    return where + visible(finding.message)
