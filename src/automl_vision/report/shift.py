"""How much worse a model is on another set than on its own test set, over all and class by class.

The two sets are independent, so a difference gets Newcombe's interval (Statistics in Medicine 1998, method 10).
Accuracy also moves when the sets hold other shares of the classes; the mean recall over the classes that both sets have
does not. Its interval puts those of the classes together (method of variance estimates recovery, Zou and Donner,
Statistics in Medicine 2008).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from automl_vision.report.belonging import report_is_of
from automl_vision.report.intervals import difference_interval
from automl_vision.report.warnings import percent, points

Section = dict[str, Any]
Interval = tuple[float, float, float]

#: Where the figures of the test set come from.
MODEL_FILE, RUN_REPORT = "the model file", "the report of its run"


@dataclass(frozen=True)
class OwnFigures:
    """What a model reached on its own test set.

    Attributes:
        source: `MODEL_FILE` or `RUN_REPORT`.
        n: test images.
        accuracy: (value, low, high).
        recall: class -> its (value, low, high); classes without a test image are missing.
        support: class -> its test images.
    """

    source: str
    n: int
    accuracy: Interval
    recall: Mapping[str, Interval] = field(default_factory=dict)
    support: Mapping[str, int] = field(default_factory=dict)


def test_figures(test: Mapping[str, Any]) -> Section:
    """What a model file keeps of its test figures (`test` in report.json), so that a drop can be told later."""
    recall = {row["class"]: {**row["recall"], "n": row["support"]} for row in test["per_class"]}
    return {**{name: test[name] for name in ("n", "accuracy", "macro_f1")}, "recall": recall}


test_figures.__test__ = False  # type: ignore[attr-defined]  # pytest must not collect it


def own_figures(provenance: Mapping[str, Any], report: Mapping[str, Any] | None) -> OwnFigures | None:
    """The test figures of a model; None where there are none in order.

    Args:
        provenance: of the model file; of unknown origin.
        report: report.json beside the model file, None where there is none. It is used where the file has no figures by
            class, and only where it is plainly of this model.
    """
    kept = provenance.get("test")
    own = _own(MODEL_FILE, kept, _by_class(kept))
    if own is None or own.recall or report is None or not report_is_of(report, provenance):
        return own
    return _own(RUN_REPORT, report["test"], _listed(report["test"])) or own


def drop_section(own: OwnFigures | None, figures: Mapping[str, Any] | None, why_not: str = "") -> Section:
    """The drop as plain JSON types.

    Args:
        own: the model's own test figures.
        figures: of the other set, as `report.test_section` gives them.
        why_not: why no drop is to be told, whatever the figures.

    Returns:
        {`measured`: False, `reason`}, or {`measured`: True, `source`, `images`, `accuracy`, `mean_recall` (None where
        no class has images in both sets), `classes`}: each drop is own minus other, as {before, after, value, low,
        high, beyond_interval}.
    """
    if figures is None:
        return _unmeasured(why_not or "no image of the set counts")
    if own is None or why_not:
        return _unmeasured(why_not or "the model file does not say what the model reached on its own test set")
    after = {row["class"]: row for row in figures["per_class"] if row["support"]}
    classes = [
        {
            "class": name,
            "images_before": own.support[name],
            "images_after": after[name]["support"],
            **_drop(own.recall[name], _triple(after[name]["recall"])),
        }
        for name in after
        if name in own.recall
    ]
    return {
        "measured": True,
        "source": own.source,
        "images": own.n,
        "accuracy": _drop(own.accuracy, _triple(figures["accuracy"])),
        "mean_recall": _mean_drop(classes) if classes else None,
        "classes": classes,
    }


def drop_sentences(drop: Mapping[str, Any], missing: Sequence[str]) -> list[str]:
    """The same for people."""
    sentences = [f"The set has no images of {_listing(missing)}."] if missing else []
    if not drop["measured"]:
        return [*sentences, f"No drop against the model's own test set can be told: {drop['reason']}."]
    sentences.append(_sentence("Accuracy", drop["accuracy"], drop["images"]))
    if drop["mean_recall"] is None:
        return [*sentences, "What it is class by class cannot be told: the model file has no test figures by class."]
    sentences.append(_sentence("Mean recall of the classes that both sets have", drop["mean_recall"], None))
    fell = sum(row["low"] > 0 for row in drop["classes"])
    of = len(drop["classes"])
    if of > 1:
        sentences.append(
            f"{fell} of {of} classes fell by more than the chance of one class explains; chance alone would make it "
            f"about {0.025 * of:.1f}."
        )
    return sentences


def _sentence(what: str, drop: Mapping[str, Any], images: int | None) -> str:
    measured = f" on the model's own {images:,} test images" if images is not None else ""
    moved = "fell" if drop["value"] >= 0 else "rose"
    low, high = sorted((drop["low"], drop["high"]) if moved == "fell" else (-drop["low"], -drop["high"]))
    verdict = "more than chance explains" if drop["beyond_interval"] else "which chance can explain"
    if points(abs(drop["value"])) == "0.0":
        return (
            f"{what} is {percent(drop['before'])} as before{measured} (95 % interval {points(low)} to {points(high)})."
        )
    return (
        f"{what} {moved} by {points(abs(drop['value']))} points (95 % interval {points(low)} to {points(high)}), from "
        f"{percent(drop['before'])}{measured} to {percent(drop['after'])}: {verdict}."
    )


def _drop(before: Interval, after: Interval) -> Section:
    low, high = difference_interval(before, after)
    return {"before": before[0], "after": after[0], **_verdict(before[0] - after[0], low, high)}


def _mean_drop(classes: Sequence[Section]) -> Section:
    n = len(classes)
    before, after, value = (sum(row[key] for row in classes) / n for key in ("before", "after", "value"))
    below = math.sqrt(sum((row["value"] - row["low"]) ** 2 for row in classes)) / n
    above = math.sqrt(sum((row["high"] - row["value"]) ** 2 for row in classes)) / n
    return {"before": before, "after": after, **_verdict(value, value - below, value + above)}


def _verdict(value: float, low: float, high: float) -> Section:
    return {"value": value, "low": low, "high": high, "beyond_interval": bool(low > 0 or high < 0)}


def _unmeasured(reason: str) -> Section:
    return {"measured": False, "reason": reason}


def _listing(names: Sequence[str]) -> str:
    more = f" and {len(names) - 10} more classes" if len(names) > 10 else ""
    return ", ".join(names[:10]) + more


# --- figures of unknown origin --------------------------------------------------------------------------------------


def _own(source: str, test: object, by_class: Mapping[str, object]) -> OwnFigures | None:
    if not isinstance(test, Mapping) or type(test.get("n")) is not int or test["n"] < 1:
        return None
    accuracy = _checked(test.get("accuracy"))
    if accuracy is None:
        return None
    recall, support = {}, {}
    for name, figure in by_class.items():
        found, images = _checked(figure), figure.get("n") if isinstance(figure, Mapping) else None
        if found is not None and type(images) is int and images > 0:
            recall[name], support[name] = found, images
    return OwnFigures(source, test["n"], accuracy, recall, support)


def _by_class(test: object) -> Mapping[str, object]:
    recall = test.get("recall") if isinstance(test, Mapping) else None
    return {str(name): figure for name, figure in recall.items()} if isinstance(recall, Mapping) else {}


def _listed(test: Mapping[str, Any]) -> dict[str, object]:
    rows = test.get("per_class")
    good = [each for each in rows if isinstance(each, Mapping)] if isinstance(rows, list) else []
    return {
        str(row.get("class")): {**row["recall"], "n": row.get("support")}
        for row in good
        if isinstance(row.get("recall"), Mapping)
    }


def _checked(figure: object) -> Interval | None:
    if not isinstance(figure, Mapping):
        return None
    values = [figure.get(key) for key in ("value", "low", "high")]
    shares = [
        float(each)
        for each in values
        if isinstance(each, int | float) and 0 <= each <= 1  # neither nan nor infinity is
    ]
    if len(shares) < 3 or not shares[1] <= shares[0] <= shares[2]:
        return None
    return shares[0], shares[1], shares[2]


def _triple(figure: Mapping[str, float]) -> Interval:
    return figure["value"], figure["low"], figure["high"]
