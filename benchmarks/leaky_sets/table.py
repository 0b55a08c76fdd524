"""Figures as Markdown."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

Result = Mapping[str, Any]

#: Pairs that are listed; the JSON has all.
_LISTED = 40


def _share(figure: Mapping[str, Any] | None) -> str:
    """98.3 % [97.0, 99.1] of 530."""
    if figure is None or figure["value"] is None:
        return ""
    return f"{figure['value']:.1f} % [{figure['low']:.1f}, {figure['high']:.1f}] of {figure['n']:,}"


def _recall(kind: str) -> Callable[[Result], str]:
    return lambda result: _share((result["recall"][kind] or {}).get("group"))


def _direct(result: Result) -> str:
    return _share((result["recall"]["all"] or {}).get("direct"))


def _field(name: str) -> Callable[[Result], str]:
    return lambda result: _share(result.get(name))


def _cost(name: str) -> Callable[[Result], str]:
    return lambda result: str(result["costs"].get(name, ""))


def _kept(name: str) -> Callable[[Result], str]:
    return lambda result: f"{result['if_one_of_each_group_is_kept'][name]:.1f} %"


_ROWS: dict[str, Callable[[Result], str]] = {
    "originals, copies": lambda result: f"{result['originals']:,}, {result['copies']:,}",
    "copies in the group of their original": _recall("all"),
    "- single operations": _recall("single"),
    "- chains": _recall("chain"),
    "copies joined to the original itself": _direct,
    "families found whole": _field("whole_families"),
    "originals merged with another that is no twin": _field("merged_wrongly"),
    "- that shares no part of the drawing either": _field("merged_with_strangers"),
    "originals merged with known twins alone": lambda result: str(result["merged_with_twins_alone"]),
    "most different pictures in one group": lambda result: str(result["most_kinds_in_a_group"]),
    "originals that may be tested on": _field("originals_eligible"),
    "- of those without copies": _field("originals_without_copies_eligible"),
    "copies among files that may be tested on": _field("copies_among_eligible"),
    "copies among test files": _field("copies_among_test_files"),
    "test files with a sibling in train or val": _field("test_files_with_sibling_in_train_or_val"),
    "original named is right": _field("original_named_is_right"),
    "groups of several": lambda result: str(result["groups_of_several"]),
    "one of each group kept: copies among test files": _kept("copies_among_test_files"),
    "one of each group kept: test files with a sibling in train": _kept("test_files_with_sibling_in_train"),
    "seconds": _cost("seconds"),
    "images per second": _cost("images_per_second"),
    "time, in decoding and one forward pass": _cost("times_decoding_and_one_forward_pass"),
    "pairs laid over each other": _cost("pairs_laid_over_each_other"),
    "- per image": _cost("pairs_per_image"),
}


def summary_table(results: Mapping[str, Result]) -> str:
    """One column per tool; rows of which nobody says anything are left out."""
    rows = {title: [read(result) for result in results.values()] for title, read in _ROWS.items()}
    lines = [[title, *values] for title, values in rows.items() if any(values)]
    return _markdown(["", *results], lines)


def pipelines_table(result: Result) -> str:
    """Recall by library, by source of the pictures, and by pipeline, the worst first."""
    pipelines = sorted(result["pipelines"].items(), key=lambda item: (item[1]["group"]["value"], item[0]))
    lines = [[name, _share(each["group"]), _share(each["direct"])] for name, each in result["libraries"].items()]
    lines += [
        [f"of {name}", _share(each["group"]), _share(each["direct"])] for name, each in result["pictures"].items()
    ]
    lines += [[f"{name} ({each['kind']})", _share(each["group"]), _share(each["direct"])] for name, each in pipelines]
    return _markdown(["", "in the original's group", "joined to the original itself"], lines) if lines else ""


def pairs_table(result: Result) -> str:
    """Joins of two originals, or of their copies, for a reader to judge."""
    pairs = result["wrong_pairs"]
    if not pairs:
        return ""
    lines = [
        [
            row["first"],
            row["second"],
            f"{row['score']:.1f}",
            "a part" if row["shared_part"] else "",
            " + ".join(name or "original" for name in row["pipelines"]),
        ]
        for row in pairs[:_LISTED]
    ]
    more = f"\n{len(pairs) - _LISTED} more" if len(pairs) > _LISTED else ""
    return "\n" + _markdown(["joined", "with", "score", "known to share", "made by"], lines) + more


def _markdown(head: list[str], lines: Iterable[list[str]]) -> str:
    rows = [head, ["---"] * len(head), *lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
