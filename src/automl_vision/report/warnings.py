"""What may be wrong with the number, in plain sentences."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from automl_vision.metrics import METRICS
from automl_vision.report.shortcuts import shortcut_warnings

Report = Mapping[str, Any]

#: Validation at or above this has nothing left to tell candidates apart.
SATURATED = 0.995

#: Widest half of an interval that still says something.
HALF_WIDTH_LIMIT = 0.10

#: Test images below which a class's own figures are anecdotes.
SUPPORT_LIMIT = 10

#: Share of unreadable files above which the data set deserves a look.
UNREADABLE_LIMIT = 0.05

#: Class names that one sentence lists.
_NAMED = 5


def find_warnings(report: Report) -> list[str]:
    """The sentences of every check that applies, worst first."""
    return [sentence for check in CHECKS for sentence in check(report)]


def points(value: float) -> str:
    """A difference of shares in percentage points: 0.034 -> "3.4"."""
    return f"{100 * value:.1f}"


def percent(value: float | None) -> str:
    """A share in per cent: 0.834 -> "83.4 %"; an en dash where there is none."""
    return "–" if value is None else f"{100 * value:.1f} %"


def is_refitted(report: Report) -> bool:
    """Whether the model was trained on the validation images as well, after it was chosen with them."""
    refit = (report.get("finish") or {}).get("refit")
    return bool(refit and refit["done"])


def images(n: int) -> str:
    """A number of images."""
    return f"{n:,} image{'s' * (n != 1)}"


def _looked_twice(report: Report) -> list[str]:
    looks = len(report["looks"])
    if looks < 2:
        return []
    return [
        f"The test set was looked at {looks} times. Choices made after a look make its number too good; "
        "only the first is untouched."
    ]


def _flatters(report: Report) -> list[str]:
    gap = report["gap"]
    if not gap["beyond_interval"]:
        return []
    title = METRICS[gap["metric"]].words
    figures = f"{title} is {percent(gap['validation'])} on validation and {percent(gap['test'])} on test"
    if (gap["difference"] > 0) == METRICS[gap["metric"]].higher_is_better:
        return [
            f"Validation flatters: {figures}, {points(abs(gap['difference']))} points apart, more than "
            "chance explains. Believe the test figure."
        ]
    if is_refitted(report):
        return []  # the model was trained on more images since: it may well be better than it was on validation
    return [
        f"{figures[0].upper()}{figures[1:]}, {points(abs(gap['difference']))} points apart, more than chance "
        "explains: the test images are easier than the validation images. Check how the sets were divided."
    ]


def _saturated(report: Report) -> list[str]:
    value = report["validation"][report["objective"]]["value"]
    if value is None or value < SATURATED or not METRICS[report["objective"]].higher_is_better:
        return []
    return [
        f"Validation is at {percent(value)}: it can no longer tell candidates apart, and such a figure often "
        "means that copies of the same picture are in more than one set. Believe the test figure."
    ]


def _indistinct(report: Report) -> list[str]:
    return [
        f"On these {images(report['test']['n'])} the model cannot be told apart from the {row['name']}: "
        f"{METRICS[row['gain']['metric']].words} differs by {points(row['gain']['value'])} points, "
        f"95 % interval {points(row['gain']['low'])} to {points(row['gain']['high'])}."
        for row in report["baselines"]
        if row["gain"] and not row["gain"]["distinguishable"]
    ]


def _worse(report: Report) -> list[str]:
    return [
        f"The {row['name']} is better than the model on the test set, by "
        f"{points(-row['gain']['value'])} points of {METRICS[row['gain']['metric']].words}."
        for row in report["baselines"]
        if row["gain"] and row["gain"]["distinguishable"] and row["gain"]["value"] < 0
    ]


def _imprecise(report: Report) -> list[str]:
    name, n = report["objective"], report["test"]["n"]
    found = report["test"][name]
    if found["low"] is None or not METRICS[name].bounded:
        return []
    half = (found["high"] - found["low"]) / 2
    if half <= HALF_WIDTH_LIMIT:
        return []
    # The width of an interval falls with the square root of the number of images.
    more = math.ceil(n * (half / HALF_WIDTH_LIMIT) ** 2) - n
    return [
        f"The test set is small: {METRICS[name].words} is known to ± {points(half)} points only. "
        f"About {images(more)} more in the test set would bring that to ± 10."
    ]


def _rare(report: Report) -> list[str]:
    few = [row for row in report["test"]["per_class"] if row["support"] < SUPPORT_LIMIT]
    if not few:
        return []
    few.sort(key=lambda row: row["support"])
    named = ", ".join(f"{row['class']} ({row['support']})" for row in few[:_NAMED])
    rest = f" and {len(few) - _NAMED} more" if len(few) > _NAMED else ""
    return [
        f"{len(few)} of {len(report['test']['classes'])} classes have fewer than {SUPPORT_LIMIT} test "
        f"images, so their own figures say little: {named}{rest}."
    ]


def _unreadable(report: Report) -> list[str]:
    total, bad = report["data"].get("images", 0), report["data"].get("quarantined", 0)
    if not total or bad <= UNREADABLE_LIMIT * total:
        return []
    return [
        f"{bad:,} of {total:,} files ({percent(bad / total)}) could not be read and were left out; "
        "audit.csv names them."
    ]


def _drawn(report: Report) -> list[str]:
    found, drawn = report["data"].get("found", 0), report["data"].get("drawn", 0)
    if drawn >= found:
        return []
    return [
        f"Only {drawn:,} of {found:,} images were used: the budget allows no more. "
        "All figures are about what was drawn."
    ]


def _one_recipe(report: Report) -> list[str]:
    """Where one recipe was asked for: that it did not run, or not to its end."""
    if not report["trials"].get("one_recipe"):
        return []
    asked_for = [row for row in report["trials"]["table"] if row["kind"] == "finetune"]
    if not any(row["score"] is not None for row in asked_for):
        why = next((f": {row['error']}" for row in asked_for if row["error"]), "; the time ended before it")
        return [f"The recipe that was asked for gave no model{why}. The model is the best linear probe."]
    return [
        f"The time ended {_where_it_ended(row)} of the recipe that was asked for; its learning rate had not come to "
        "its end."
        for row in asked_for
        if row["state"] == "stopped"
    ]


def _where_it_ended(row: Mapping[str, Any]) -> str:
    begun, wanted = row["epochs"], row["hyperparameters"]["epochs"]
    return f"after {begun} of {wanted} epochs" if begun < wanted else "within the last epoch"


def _over_the_limit(report: Report) -> list[str]:
    """Where the shipped model costs more than it may: it kept to the limits when it was first measured."""
    excess = ((report.get("costs") or {}).get("shipped") or {}).get("excess")
    if not excess:
        return []
    return [f"The model exceeds what it may cost: {excess}. Nothing that was trained kept to it at the end of the run."]


def _shortcuts(report: Report) -> list[str]:
    return shortcut_warnings(report.get("shortcuts"))


def _troubled(report: Report) -> list[str]:
    """What went wrong beside the run; its figures are as good as ever."""
    return list(report.get("troubles", ()))


CHECKS: tuple[Callable[[Report], list[str]], ...] = (
    _one_recipe,
    _over_the_limit,
    _flatters,
    _saturated,
    _shortcuts,
    _worse,
    _indistinct,
    _looked_twice,
    _imprecise,
    _rare,
    _drawn,
    _unreadable,
    _troubled,
)
