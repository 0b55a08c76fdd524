"""Comparing finished runs by what they left: no image is opened, and no test set is looked at again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from automl_vision import run_dir
from automl_vision.errors import RunError, UsageError
from automl_vision.files import write_json, write_text
from automl_vision.report.baseline_figures import read_baseline
from automl_vision.report.comparison import FinishedRun, build_comparison
from automl_vision.report.comparison_page import comparison_csv, render_comparison
from automl_vision.report.predictions import Predictions
from automl_vision.report.report import metrics_section

COMPARISON_HTML = "comparison.html"
COMPARISON_JSON = "comparison.json"
COMPARISON_CSV = "comparison.csv"
COMPARISON_FILES = (COMPARISON_HTML, COMPARISON_CSV, COMPARISON_JSON)

#: How far a figure in report.json may be from that of the predictions; both are made of the same counts.
_ROUNDING = 1e-9


def compare_runs(paths: Sequence[Path], baseline: Path | None = None) -> dict[str, Any]:
    """Finished runs beside each other, as `report.comparison.build_comparison` says it.

    Args:
        paths: run folders, each once.
        baseline: CSV file of figures that somebody else reached, as `report.baseline_figures` reads it.

    Raises:
        RunError: a folder holds no finished run, or its files do not belong together.
        UsageError: a run is named twice, or the baseline has a line for none of the data sets.
        DataError: the predictions or the baseline cannot be read.
    """
    _refuse_twice(paths)
    given = read_baseline(baseline) if baseline else None
    comparison = build_comparison([read_finished(path) for path in paths], given)
    if given and not any(row["baseline"] for row in comparison["runs"]):
        ours = dict.fromkeys(row["data_set"] for row in comparison["runs"])
        raise UsageError(
            "the baseline has a line for none of the data sets",
            value=f"{baseline} has {', '.join(list(given.figures)[:20])}; the runs are of {', '.join(ours)}",
            fix="name a data set in the file as its folder or as the run is called",
        )
    return {**comparison, "created": run_dir.now()}


def read_finished(path: Path) -> FinishedRun:
    """What a finished run left.

    Raises:
        RunError: there is no report, it is damaged, or it does not follow from the predictions.
        DataError: the predictions cannot be read.
    """
    report = run_dir.read_report(path)
    if report is None:
        raise RunError("there is no report in this folder", value=str(path), fix="give the folder of a finished run")
    test = Predictions.from_csv(path / run_dir.predictions_file("test"))
    try:
        run = _finished(path, report, test)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise RunError(
            "report.json lacks what a comparison needs",
            value=f"{path} ({type(error).__name__}: {error})",
            fix="give the folder of a finished run, as search left it",
        ) from None
    if report["test"].get("n") != len(test) or not _follow(run):
        raise RunError(
            "the report does not follow from the predictions",
            value=str(path),
            fix=f"one of the two files was changed; see automl-vision report {path} --verify",
        )
    return run


def write_comparison(comparison: Mapping[str, Any], out: Path) -> Path:
    """Write comparison.html, comparison.csv and comparison.json into a folder, which is made where it is missing.

    Returns:
        the page.

    Raises:
        OSError: the folder cannot be written.
    """
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / COMPARISON_HTML, render_comparison(comparison))
    write_text(out / COMPARISON_CSV, comparison_csv(comparison))
    write_json(out / COMPARISON_JSON, dict(comparison))
    return out / COMPARISON_HTML


def _finished(path: Path, report: Mapping[str, Any], test: Predictions) -> FinishedRun:
    about, data = run_dir.read_about(path), report["data"]
    return FinishedRun(
        name=str(report["name"]),
        path=str(path),
        source=str(about.get("data") or data.get("source") or path),
        test_digest=str(data.get("test_digest") or ""),
        test=test,
        figures={name: _figure(report["test"][name]) for name in ("accuracy", "macro_f1")},
        looks=max(len(report["looks"]), len(run_dir.read_looks(path))),
        seed=_seed(report["seed"]),
        backbone=str(report["model"].get("backbone", "")),
        interrupted=report["stop_reason"] == "interrupted",
    )


def _follow(run: FinishedRun) -> bool:
    """Whether the figures and their intervals are those of the predictions."""
    test = run.test
    section = metrics_section(test, run.seed) if len(test) else {}
    return all(
        _same(said[each], section.get(name, {}).get(each))
        for name, said in run.figures.items()
        for each in ("value", "low", "high")
    )


def _same(said: float | None, follows: float | None) -> bool:
    if said is None or follows is None:
        return said is follows
    return abs(said - follows) <= _ROUNDING


def _figure(found: Mapping[str, Any]) -> dict[str, float | None]:
    return {name: _share(found[name]) for name in ("value", "low", "high")}


def _seed(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"{value!r} is no seed")
    return value


def _share(value: Any) -> float | None:
    if value is None:
        return None
    if not isinstance(value, int | float) or not 0 <= value <= 1:
        raise ValueError(f"{value!r} is no share")
    return float(value)


def _refuse_twice(paths: Sequence[Path]) -> None:
    seen: set[Path] = set()
    for path in paths:
        if path.resolve() in seen:
            raise UsageError("a run is named twice", value=str(path), fix="name each run once")
        seen.add(path.resolve())
