"""Reading finished runs: what is refused, and that nothing but their records is read."""

import json
import shutil

import numpy as np
import pytest

from automl_vision.errors import DataError, RunError, UsageError
from automl_vision.report import comparison
from automl_vision.report.predictions import Predictions
from automl_vision.report.report import metrics_section
from automl_vision.stages.compare_runs import compare_runs, read_finished, write_comparison


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(comparison, "RESAMPLES", 100)


@pytest.fixture
def made(tmp_path):
    """A folder with the records of a finished run on 30 images, and nothing else."""

    def make(name, wrong=3, **data):
        folder = tmp_path / "runs" / name
        folder.mkdir(parents=True)
        labels = np.arange(30) % 3
        said = np.where(np.arange(30) < wrong, (labels + 1) % 3, labels)
        test = Predictions(
            tuple(f"{i}.png" for i in range(30)), labels, np.arange(30), np.eye(3)[said], ("cat", "dog", "eel")
        )
        test.to_csv(folder / "predictions_test.csv")
        report = {
            "format": 1,
            "name": name,
            "seed": 0,
            "test": metrics_section(test, 0),
            "data": {"source": "pets", "test_digest": "d1", **data},
            "looks": [{"number": 1}],
            "model": {"backbone": "resnet18"},
            "stop_reason": "budget",
        }
        (folder / "report.json").write_text(json.dumps(report))
        (folder / "run.json").write_text(json.dumps({"data": "/data/pets"}))
        return folder

    return make


def changed(folder, change):
    report = json.loads((folder / "report.json").read_text())
    change(report)
    (folder / "report.json").write_text(json.dumps(report))


def test_runs_are_compared_by_their_records_alone(made, tmp_path):
    found = compare_runs([made("a"), made("b", wrong=15)])
    (test_set,) = found["test_sets"]
    (pair,) = test_set["pairs"]
    assert (pair["only_first_right"], pair["only_second_right"]) == (12, 0)
    assert found["runs"][0]["data_set"] == "pets"
    page = write_comparison(found, tmp_path / "out" / "deep")
    assert sorted(each.name for each in page.parent.iterdir()) == [f"comparison.{x}" for x in ("csv", "html", "json")]
    assert json.loads((page.parent / "comparison.json").read_text()) == found


def test_looks_after_the_report_count(made):
    folder = made("a")
    (folder / "looks.json").write_text(json.dumps([{"number": 1}, {"number": 2}, {"number": 3}]))
    assert read_finished(folder).looks == 3


def test_a_run_that_is_named_twice_is_no_second_run(made, tmp_path):
    folder = made("a")
    (tmp_path / "link").symlink_to(folder)
    with pytest.raises(UsageError, match="named twice"):
        compare_runs([folder, tmp_path / "link"])


def test_a_run_without_a_report(made):
    folder = made("a")
    (folder / "report.json").unlink()
    with pytest.raises(RunError, match="no report"):
        compare_runs([folder, made("b")])


def test_a_run_without_predictions(made):
    folder = made("a")
    (folder / "predictions_test.csv").unlink()
    with pytest.raises(DataError, match="cannot read the predictions"):
        read_finished(folder)


def test_a_report_of_other_predictions(made):
    folder, other = made("a"), made("b", wrong=5)
    shutil.copy(other / "predictions_test.csv", folder)
    with pytest.raises(RunError, match="does not follow from the predictions"):
        read_finished(folder)


@pytest.mark.parametrize(
    "change",
    [
        lambda report: report.pop("test"),
        lambda report: report["test"].pop("macro_f1"),
        lambda report: report["test"].update(accuracy=0.9),
        lambda report: report["test"]["macro_f1"].update(value="much"),
        lambda report: report["test"]["macro_f1"].update(value=7),
        lambda report: report["test"]["macro_f1"].update(low=float("nan")),
        lambda report: report.update(seed="x"),
        lambda report: report.update(seed=float("inf")),
        lambda report: report.update(seed=-1),
        lambda report: report["test"].pop("n"),
        lambda report: report.update(looks=3),
        lambda report: report.update(test=[1]),
        lambda report: report.update(data=None),
        lambda report: report.update(model=3),
    ],
)
def test_a_report_that_lacks_something_is_named(made, change):
    folder = made("a")
    changed(folder, change)
    with pytest.raises(RunError) as caught:
        read_finished(folder)
    assert str(folder) in str(caught.value)


def test_a_baseline_of_other_data_sets_is_a_mistake(made, tmp_path):
    (tmp_path / "b.csv").write_text("dataset,accuracy\ncars,50\n")
    with pytest.raises(UsageError) as caught:
        compare_runs([made("a")], tmp_path / "b.csv")
    assert "cars" in str(caught.value)
    assert "pets" in str(caught.value)


def test_a_baseline_is_printed_beside(made, tmp_path):
    (tmp_path / "b.csv").write_text("dataset,accuracy\npets,50\n")
    (row,) = compare_runs([made("a")], tmp_path / "b.csv")["runs"]
    assert row["baseline"]["accuracy"]["difference"] == pytest.approx(0.4)


@pytest.mark.parametrize(("figure", "part"), [("macro_f1", "value"), ("macro_f1", "low"), ("accuracy", "high")])
def test_a_figure_or_an_interval_that_somebody_changed_is_refused(made, figure, part):
    folder = made("a")
    changed(folder, lambda report: report["test"][figure].update({part: 0.999}))
    with pytest.raises(RunError, match="does not follow"):
        read_finished(folder)


def test_a_number_beyond_all_floats_is_told(made):
    folder = made("a")
    changed(folder, lambda report: report["test"]["accuracy"].update(value=10**400))
    with pytest.raises(RunError, match="no share"):
        read_finished(folder)
