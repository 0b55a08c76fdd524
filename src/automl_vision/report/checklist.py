"""The checklist of a sound evaluation: each point ticked, or not and why, by what the run has on record.

The points follow the pitfalls that are known to make figures too good: Kapoor and Narayanan, "Leakage and the
reproducibility crisis in machine-learning-based science", Patterns 2023, https://arxiv.org/abs/2207.07048. A point is
never ticked because the program means to do it: it is read off counts and figures of this report, and what is not on
record is not ticked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

Report = Mapping[str, Any]

#: Test images of a class, and widest half of an interval of accuracy, that the points ask for.
ENOUGH_TEST_IMAGES, NARROW = 10, 0.05
#: Training images of a class.
ENOUGH_TRAINING_IMAGES = 20
#: Settings of `data.lineage` under which nothing looks for copies.
_NO_LINEAGE = "off"
_UNKNOWN = "not on record"


class Answer(NamedTuple):
    """Whether a point is ticked, and what that rests on, in a phrase."""

    ticked: bool
    why: str


def checklist(report: Report) -> list[dict[str, Any]]:
    """Every point of `POINTS`: {`point`, `ticked`, `why`}."""
    return [{"point": point, **ask(report)._asdict()} for point, ask in POINTS.items()]


def _looked_once(report: Report) -> Answer:
    looks = len(report["looks"])
    times = {0: "no look is on record", 1: "one look is on record"}
    return Answer(looks == 1, times.get(looks, f"{looks} looks are on record"))


def _kept_on_one_side(report: Report) -> Answer:
    care = report.get("care")
    if not care:
        return Answer(False, _UNKNOWN)
    if care["lineage"] == _NO_LINEAGE:
        return Answer(False, "nothing looked for copies (lineage off)")
    if care["shared_groups"] or care["chosen_on_groups"]:
        return Answer(False, f"{care['shared_groups'] + care['chosen_on_groups']} groups are in more than one set")
    return Answer(True, "no group of copies has images in two of training, validation and test")


def _looked_for_copies(report: Report) -> Answer:
    care = report.get("care")
    if not care:
        return Answer(False, _UNKNOWN)
    if care.get("uncompared"):
        return Answer(False, f"{care['uncompared']:,} pairs that look alike were not compared for want of time")
    return Answer(
        care["compared"],
        "pictures that look alike were laid over each other"
        if care["compared"]
        else "only names and equal files were compared (--lineage full also compares what pictures show)",
    )


def _originals(report: Report) -> Answer:
    care = report.get("care")
    if not care:
        return Answer(False, _UNKNOWN)
    count = care["test_copies"]
    return Answer(not count, f"{count} test images are copies" if count else "no test image is known to be a copy")


def _quarantine(report: Report) -> Answer:
    care, bad = report.get("care"), report["data"].get("quarantined")
    if not care or bad is None:
        return Answer(False, _UNKNOWN)
    if care["unnamed_faults"]:
        return Answer(False, f"{care['unnamed_faults']} files were left out without a word in audit.csv")
    return Answer(True, f"{bad:,} files could not be read; audit.csv names each" if bad else "every file could be read")


def _everything_used(report: Report) -> Answer:
    found, drawn = report["data"].get("found"), report["data"].get("drawn")
    if found is None or drawn is None:
        return Answer(False, _UNKNOWN)
    if dropped := report["data"].get("dropped_classes"):
        return Answer(False, f"classes without enough images were left out: {len(dropped):,}")
    if most := (report.get("care") or {}).get("max_samples"):
        return Answer(False, f"at most {most:,} images were asked for (--max-samples)")
    return Answer(drawn >= found, f"{drawn:,} of {found:,} images that were found were used")


def _chosen_on_validation(report: Report) -> Answer:
    selection, care = report.get("selection"), report.get("care")
    if not selection or not care:
        return Answer(False, _UNKNOWN)
    if len(report["looks"]) > 1:
        return Answer(False, "there was a look at the test set before the last choice, or after it")
    if care["shared_groups"]:
        return Answer(False, "validation or training shares groups with the test set")
    return Answer(
        True, f"{selection['candidates']} candidates were compared on {report['validation']['n']:,} other images"
    )


def _optimism(report: Report) -> Answer:
    selection = report.get("selection")
    if not selection or selection["value"] is None:
        return Answer(False, "the validation figure is that of the best of many, and was not corrected for it")
    return Answer(True, "the validation figure is also given corrected for the choice among candidates")


def _agrees(report: Report) -> Answer:
    gap = report["gap"]
    if gap["difference"] is None:
        return Answer(False, "the two cannot be compared")
    beyond = bool(gap["beyond_interval"])
    return Answer(not beyond, f"they differ by {100 * abs(gap['difference']):.1f} points, {_chance(beyond)}")


def _chance(beyond: bool) -> str:
    return "more than chance explains" if beyond else "within what chance explains"


def _intervals(report: Report) -> Answer:
    missing = [name for name in ("accuracy", "macro_f1") if report["test"][name]["low"] is None]
    if missing:
        return Answer(False, f"there is none for {' and '.join(missing).replace('_', ' ')}")
    return Answer(True, "accuracy, macro-F1 and every class have a 95 % interval")


def _narrow(report: Report) -> Answer:
    accuracy = report["test"]["accuracy"]
    if accuracy["low"] is None:
        return Answer(False, "accuracy has no interval")
    half = (accuracy["high"] - accuracy["low"]) / 2
    return Answer(half <= NARROW, f"accuracy is known to ± {100 * half:.1f} points; asked are {100 * NARROW:.0f}")


def _enough_to_test(report: Report) -> Answer:
    supports = [row["support"] for row in report["test"]["per_class"]]
    few = sum(support < ENOUGH_TEST_IMAGES for support in supports)
    if few:
        return Answer(False, f"{few} of {len(supports)} classes have fewer than {ENOUGH_TEST_IMAGES} test images")
    return Answer(True, f"every class has at least {min(supports, default=0)} test images")


def _enough_to_train(report: Report) -> Answer:
    train = report["data"].get("class_counts", {}).get("train")
    if not train:
        return Answer(False, _UNKNOWN)
    few = sum(count < ENOUGH_TRAINING_IMAGES for count in train)
    if few:
        return Answer(False, f"{few} of {len(train)} classes have fewer than {ENOUGH_TRAINING_IMAGES} training images")
    return Answer(True, f"every class has at least {min(train):,} training images")


def _calibrated_elsewhere(report: Report) -> Answer:
    found, care = report.get("calibration"), report.get("care")
    if not found or not care or care["shared_groups"]:
        return Answer(False, _UNKNOWN if not care else "validation and test share groups")
    before, after = (found["test"][when]["ece"] for when in ("before", "after"))
    return Answer(
        True,
        f"one temperature was fitted on validation; on the test set the expected calibration error goes from "
        f"{100 * before:.1f} to {100 * after:.1f} %",
    )


def _baseline(report: Report) -> Answer:
    others = [row for row in report["baselines"] if row["gain"]]
    if not others:
        return Answer(False, "nothing simpler was looked at")
    behind = [row["name"] for row in others if not (row["gain"]["distinguishable"] and row["gain"]["value"] > 0)]
    names = " and ".join(row["name"] for row in others)
    if behind:
        return Answer(False, f"compared with {names}, it is not surely better than the {' or the '.join(behind)}")
    return Answer(True, f"surely better than: {names}, on the same test images")


def _repeatable(report: Report) -> Answer:
    known = report["environment"]
    missing = [name for name in ("seed", "data_fingerprint") if known.get(name) is None]
    if missing:
        return Answer(False, f"not on record: {', '.join(missing).replace('_', ' ')}")
    return Answer(True, f"seed {known['seed']}, fingerprint of the data, versions and every recipe are on record")


def _labels(report: Report) -> Answer:
    check = report.get("label_check")
    if not check:
        return Answer(False, _UNKNOWN)
    if not check["measured"]:
        return Answer(False, check["reason"])
    count = check["images"]["train"] + check["images"]["val"]
    looked = f"{check['suspects']:,} of {count:,} training and validation labels look wrong and are listed"
    return Answer(True, f"{looked}; whether they are is for people to say")


def _shortcuts(report: Report) -> Answer:
    check = report.get("shortcuts")
    if not check:
        return Answer(False, _UNKNOWN)
    if not check["measured"]:
        return Answer(False, check["reason"])
    if check["alarms"]:
        titles = ", ".join(each["title"] for each in check["families"] if each["alarm"])
        return Answer(False, f"the class can be told from {titles}")
    if check["left_out"]:
        return Answer(False, f"the time was over before {check['left_out']} of them were looked at")
    return Answer(
        True, f"none of {len(check['families'])} kinds of facts on {check['images']:,} images names the class"
    )


#: What is asked -> how it is answered.
POINTS: dict[str, Callable[[Report], Answer]] = {
    "The test set was looked at once": _looked_once,
    "Copies of one picture are on one side of the split": _kept_on_one_side,
    "Pictures were compared to find copies that names do not tell": _looked_for_copies,
    "The test set holds originals only": _originals,
    "Files that could not be used are named": _quarantine,
    "All images that were found were used": _everything_used,
    "The model was chosen on validation, and on nothing else": _chosen_on_validation,
    "The validation figure is corrected for the choice": _optimism,
    "Validation and test agree": _agrees,
    "Figures have intervals": _intervals,
    "The test set is large enough to tell": _narrow,
    "Every class has enough test images": _enough_to_test,
    "Every class has enough training images": _enough_to_train,
    "Probabilities were calibrated on other images than they are judged on": _calibrated_elsewhere,
    "Simpler models were beaten on the same images": _baseline,
    "The run can be repeated": _repeatable,
    "Labels were checked": _labels,
    "The class cannot be told from files, sizes, brightness or borders": _shortcuts,
}
