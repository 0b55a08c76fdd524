"""The checklist: every point can be ticked and can fail, and what is not on record is not ticked."""

import pytest

from automl_vision.report.checklist import POINTS, checklist
from automl_vision.report.report import build_report, with_ledger

pytestmark = pytest.mark.usefixtures("few_resamples")

CARE = {
    "lineage": "full",
    "compared": True,
    "shared_groups": 0,
    "chosen_on_groups": 0,
    "test_copies": 0,
    "unnamed_faults": 0,
}
LABELS = {"measured": True, "images": {"train": 900, "val": 100}, "suspects": 12}
FAMILY = {"title": "file type", "alarm": False}
SHORTCUTS = {"measured": True, "images": 500, "alarms": 0, "left_out": 0, "families": [FAMILY]}
SELECTION = {
    "objective": "accuracy",
    "candidates": 9,
    "naive": 0.9,
    "value": 0.89,
    "low": 0.8,
    "high": 0.95,
    "reason": "best",
    "left_out": 0,
}


def point(name):
    """The one point that begins with these words."""
    (found,) = (each for each in POINTS if each.startswith(name))
    return found


@pytest.fixture
def sound(inputs, predict):
    """A run of which every point holds; keywords replace sections of its report."""

    def make(**changes):
        test = predict(n=900, right=0.95)
        base = inputs()
        run = inputs(
            test=test,
            validation=predict(n=300, right=0.95),
            data={**base.data, "found": 1000, "drawn": 1000},
            baselines={"linear probe": predict(n=900, right=0.6).probabilities},
            environment={"seed": 0, "data_fingerprint": "abc"},
            selection=SELECTION,
            care=CARE,
            label_check=LABELS,
            shortcuts=SHORTCUTS,
        )
        report = build_report(run) | changes
        return {row["point"]: row for row in checklist(report)}

    return make


def test_a_sound_run_has_every_point(sound):
    missing = [f"{row['point']}: {row['why']}" for row in sound().values() if not row["ticked"]]
    assert missing == []


FAULTS = {
    "two looks": ({"looks": [{}, {}]}, "The test set was looked at once", "2 looks"),
    "no look": ({"looks": []}, "The test set was looked at once", "no look"),
    "choice after a look": ({"looks": [{}, {}]}, "The model was chosen on validation", "look"),
    "straddling": ({"care": CARE | {"shared_groups": 3}}, "Copies of one picture", "3 groups"),
    "not traced": ({"care": CARE | {"lineage": "off"}}, "Copies of one picture", "lineage off"),
    "not compared": ({"care": CARE | {"compared": False}}, "Pictures were compared", "only names"),
    "not all compared": ({"care": CARE | {"uncompared": 1200}}, "Pictures were compared", "1,200 pairs"),
    "asked for fewer": ({"care": CARE | {"max_samples": 500}}, "All images", "at most 500 images"),
    "classes left out": ({"data": {"found": 9, "drawn": 9, "dropped_classes": ["x"]}}, "All images", "left out: 1"),
    "copies": ({"care": CARE | {"test_copies": 2}}, "The test set holds originals", "2 test images"),
    "hidden": ({"care": CARE | {"unnamed_faults": 1}}, "Files that could not be used", "1 files"),
    "part of the data": ({"data": {"found": 9, "drawn": 5}}, "All images", "5 of 9"),
    "choice unknown": ({"selection": None}, "The model was chosen on validation", "not on record"),
    "not corrected": ({"selection": SELECTION | {"value": None}}, "The validation figure is corrected", "best of many"),
    "few to train": ({"data": {"class_counts": {"train": [5, 90, 90]}}}, "Every class has enough training", "1 of 3"),
    "no seed": ({"environment": {}}, "The run can be repeated", "seed, data fingerprint"),
    "no baseline": ({"baselines": []}, "Simpler models", "nothing simpler"),
    "labels": ({"label_check": {"measured": False, "reason": "no time"}}, "Labels were checked", "no time"),
    "alarm": (
        {"shortcuts": SHORTCUTS | {"alarms": 1, "families": [FAMILY | {"alarm": True}]}},
        "The class cannot be told",
        "file type",
    ),
    "unfinished": ({"shortcuts": SHORTCUTS | {"left_out": 2}}, "The class cannot be told", "before 2"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_not_ticked_and_says_why(sound, fault):
    changes, name, why = FAULTS[fault]
    row = sound(**changes)[point(name)]
    assert not row["ticked"]
    assert why in row["why"]


def test_figures_of_the_report_decide(inputs, predict):
    """Few test images, a model no better than its baseline, validation far above test."""
    weak = predict(n=20, right=0.6)
    run = inputs(test=weak, validation=predict(n=600, right=0.99), baselines={"linear probe": weak.probabilities})
    rows = {row["point"]: row for row in build_report(run)["checklist"]}
    for name in ("The test set is large", "Every class has enough test", "Simpler models", "Validation and test"):
        assert not rows[point(name)]["ticked"], name
    assert rows[point("Figures have intervals")]["ticked"]


def test_what_is_not_on_record_is_not_ticked(inputs):
    run = inputs(data={}, environment={}, looks=(), model={})
    rows = {row["point"]: row for row in build_report(run)["checklist"]}
    unknown = [name for name, row in rows.items() if row["why"] == "not on record"]
    assert len(unknown) >= 8
    assert not any(rows[name]["ticked"] for name in unknown)


def test_a_later_look_takes_the_tick_away(inputs):
    report = build_report(inputs())
    name = point("The test set was looked at once")
    assert {row["point"]: row["ticked"] for row in report["checklist"]}[name]
    later = with_ledger(report, [{}, {}])
    assert not {row["point"]: row["ticked"] for row in later["checklist"]}[name]
