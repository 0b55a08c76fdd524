"""What the finish did, in sentences."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from automl_vision.metrics import METRICS
from automl_vision.report.warnings import percent, points

Report = Mapping[str, Any]

#: Said wherever figures on validation stand beside a model that was trained on them afterwards.
REFITTED = (
    "The model was trained once more, on training and validation images: validation figures are those before it, and "
    "its temperature and thresholds come from them."
)


def selection_line(report: Report) -> str:
    """The naive figure and the one corrected for the choice, in one sentence; empty where that is not known."""
    selection = report.get("selection")
    if not selection:
        return ""
    metric = METRICS[selection["objective"]].words
    start = f"Validation {metric} {percent(selection['naive'])}"
    if selection["value"] is None:
        return f"{start}; the images hang together too much to correct it for the choice."
    between = f"{points(selection['low'])} to {points(selection['high'])} %"
    count, corrected = selection["candidates"], percent(selection["value"])
    among = f"{count:,} candidate{'s' * (count != 1)}"
    return f"{start}; corrected for the choice among {among} {corrected} (95 % interval {between})."


def selection_sentences(report: Report) -> list[str]:
    """How the trial was chosen."""
    selection = report.get("selection")
    if not selection:
        return []
    reason = selection["reason"]
    sentences = [f"{reason[0].upper()}{reason[1:]}."]
    if selection["left_out"]:
        sentences.append(
            f"{selection['left_out']:,} further trials took no part: with so few validation images the best of many "
            "is the luckiest."
        )
    return [*sentences, selection_line(report)]


def finish_rows(report: Report) -> list[dict[str, str]]:
    """One row per step: title, verdict, detail, figures."""
    steps = (report.get("finish") or {}).get("steps", [])
    return [
        {"title": each["title"], "verdict": _verdict(each), "detail": each["detail"], **_figures(each)}
        for each in steps
    ]


def refit_sentence(report: Report) -> str:
    """What came of training once more; empty where that was not to be."""
    refit = (report.get("finish") or {}).get("refit")
    if not refit:
        return ""
    return REFITTED if refit["done"] else f"It was not trained once more: {refit['detail']}."


def calibration_rows(report: Report) -> list[dict[str, Any]]:
    """One row per set: ECE and log-loss before and after the temperature."""
    found = report.get("calibration")
    if not found:
        return []
    sets = {"validation": "Validation, where it was fitted", "test": "Test"}
    return [{"title": title, **found[name]} for name, title in sets.items()]


def _verdict(step: Mapping[str, Any]) -> str:
    if not step["tried"]:
        return "not tried"
    return "adopted" if step["adopted"] else "kept the simpler"


def _figures(step: Mapping[str, Any]) -> dict[str, str]:
    if step["gain"] is None:
        return {"simpler": "–", "candidate": "–", "gain": "–"}
    error = "∞" if step["standard_error"] is None else points(step["standard_error"])
    gain = f"{'+' * (step['gain'] >= 0)}{points(step['gain'])} ± {error}"
    return {"simpler": percent(step["simpler"]), "candidate": percent(step["candidate"]), "gain": gain}
